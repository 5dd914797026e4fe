"""Finds records by content: compares columns of a ledger segment or of a data file with values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import polars as pl

from stream.audit.ledger import LedgerObject
from stream.audit.outputs import DAMAGE, DEFAULT, Separation, genuine, rows_of, unreadable
from stream.batch import SEQUENCE, SUBSEQUENCE
from stream.errors import DefinitionError

LEDGER_COLUMNS: Final = ("trace_id", "parent_id", "outcome", "stage", "reason")
"""Columns that are searched in the ledger, and so also for records that are in no file."""

_AT: Final = "_found_at"
_CRITERION: Final = re.compile(r"([^=]+)=(.*)", re.DOTALL)
_BOOLEANS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Criterion:
    """``column`` has the value ``value``, written as text."""

    column: str
    value: str

    @staticmethod
    def parse(text: str) -> Criterion:
        """Parse ``column=value``.

        Raises:
            DefinitionError: ``text`` does not have this form.
        """
        match = _CRITERION.fullmatch(text)
        if match is None:
            msg = f"{text!r} is not a search for a record; write column=value, such as order_id=4711, in quotes if the value has blanks"
            raise DefinitionError(msg)
        return Criterion(match[1].strip(), match[2])

    @property
    def in_ledger(self) -> bool:
        """Whether it is a column of ledger segments."""
        return self.column in LEDGER_COLUMNS


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a record must be, all of it.

    ``values`` must hold of one row of a file or a table, or of the record as it arrived; ``ledger`` of what the ledger says of it.
    """

    values: tuple[Criterion, ...] = ()
    ledger: tuple[Criterion, ...] = ()

    @staticmethod
    def parse(texts: Iterable[str]) -> Criteria:
        """Parse ``column=value``, once or several times.

        Raises:
            DefinitionError: a text does not have this form, or a column is named twice.
        """
        found = [Criterion.parse(text) for text in texts]
        names = [each.column for each in found]
        if twice := next((name for name in names if names.count(name) > 1), None):
            msg = f"{twice} is named twice, and every column=value must hold: search for one value of {twice} at a time"
            raise DefinitionError(msg)
        return Criteria(tuple(each for each in found if not each.in_ledger), tuple(each for each in found if each.in_ledger))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of ``values``."""
        return tuple(each.column for each in self.values)


@dataclass(frozen=True, slots=True)
class InFile:
    """``rows``: the rows of a file, counted from 0, that match. ``columns``: those of the wanted columns that it has."""

    rows: Sequence[int]
    columns: frozenset[str]


def in_segment(frame: pl.DataFrame, criteria: Iterable[Criterion]) -> pl.DataFrame:
    """The rows of ``frame``, which has the columns of a ledger segment, that match all ``criteria``, which are about these columns."""
    for each in criteria:
        frame = frame.filter(pl.col(each.column).cast(pl.String) == each.value)
    return frame


def in_file(
    file: LedgerObject,
    body: bytes,
    criteria: Sequence[Criterion],
    separation: Separation = DEFAULT,
    folders: Mapping[str, bool] = MappingProxyType({}),
) -> InFile:
    """The rows of ``file``, whose content is ``body``, that match all ``criteria``; none if it lacks a column of them.

    ``folders``: for each column of theirs that the names of the file's directories give for all of its rows, whether it matches.

    Other columns are not decoded if the format allows it, nor row groups whose statistics exclude a value. A value that the column's type
    cannot represent matches no row. The columns of separated values are text, which ``separation`` says how to read.

    Raises:
        DamagedFileError: the file is damaged, or is not the one that was written.
    """
    body = genuine(file.key, body, file.sha256)
    try:
        return rows_with(rows_of(file.key, body, separation), criteria, folders)
    except DAMAGE as error:
        raise unreadable(file.key, error) from error


def lineage_of(file: LedgerObject, body: bytes, separation: Separation = DEFAULT) -> pl.DataFrame | None:
    """Sequence and subsequence of each row of ``file``, whose content is ``body``; None if it has no lineage columns.

    Raises:
        DamagedFileError: as ``in_file``.
    """
    body = genuine(file.key, body, file.sha256)
    try:
        rows = rows_of(file.key, body, separation)
        if not {SEQUENCE, SUBSEQUENCE} <= set(rows.collect_schema()):
            return None
        return rows.select(pl.col(SEQUENCE).cast(pl.String), pl.col(SUBSEQUENCE).cast(pl.UInt32)).collect()
    except DAMAGE as error:
        raise unreadable(file.key, error) from error


def rows_with(rows: pl.LazyFrame, criteria: Sequence[Criterion], folders: Mapping[str, bool] = MappingProxyType({})) -> InFile:
    """The rows, counted from 0, that match all ``criteria``; none if a column is lacking. ``folders`` as for ``in_file``."""
    types = rows.collect_schema()
    columns = frozenset(each.column for each in criteria if each.column in types or each.column in folders)
    inside = [each for each in criteria if each.column in types]
    if len(columns) < len(criteria) or not all(folders[each.column] for each in criteria if each not in inside):
        return InFile((), columns)
    wanted = [(each.column, types[each.column], _converted(types[each.column], each.value)) for each in inside]
    if any(value is None for _, _, value in wanted):
        return InFile((), columns)
    conditions = [pl.col(name) == pl.lit(value, dtype) for name, dtype, value in wanted]
    numbered = rows.with_row_index(_AT)
    found = numbered.filter(conditions) if conditions else numbered
    return InFile(found.select(_AT).collect()[_AT].to_list(), columns)


def _converted(dtype: pl.DataType, text: str) -> object:
    """``text`` as a value of ``dtype``; None if it is not one."""
    if dtype == pl.Boolean:
        return _BOOLEANS.get(text.lower())
    column = pl.Series([text], dtype=pl.String)
    try:
        if isinstance(dtype, pl.Datetime):
            return column.str.to_datetime(time_unit=dtype.time_unit, time_zone=dtype.time_zone, strict=False)[0]
        return column.cast(dtype, strict=False)[0]
    except pl.exceptions.PolarsError:
        return None
