"""Finds records by content: compares one column of a ledger segment or of a data file with one value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import polars as pl

from stream.audit.ledger import LedgerObject, Segment
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
            msg = f"{text!r} is not a search for a record; write column=value, such as order_id=4711"
            raise DefinitionError(msg)
        return Criterion(match[1].strip(), match[2])

    @property
    def in_ledger(self) -> bool:
        """Whether it is a column of ledger segments."""
        return self.column in LEDGER_COLUMNS


def in_segment(segment: Segment, criterion: Criterion) -> pl.DataFrame:
    """The ledger rows that match ``criterion``, which is about one of ``LEDGER_COLUMNS``."""
    return segment.frame.with_row_index("at").filter(pl.col(criterion.column).cast(pl.String) == criterion.value)


def in_file(file: LedgerObject, body: bytes, criterion: Criterion, separation: Separation = DEFAULT) -> list[int] | None:
    """The rows, counted from 0, of ``file``, whose content is ``body``, that match ``criterion``; None if it has no such column.

    Other columns are not decoded if the format allows it, nor row groups whose statistics exclude the value. A value that the column's type
    cannot represent matches no row. The columns of separated values are text, which ``separation`` says how to read.

    Raises:
        DamagedFileError: the file is damaged, or is not the one that was written.
    """
    body = genuine(file.key, body, file.sha256)
    try:
        return rows_with(rows_of(file.key, body, separation), criterion)
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


def rows_with(rows: pl.LazyFrame, criterion: Criterion) -> list[int] | None:
    """The rows, counted from 0, that match ``criterion``; None if there is no such column."""
    dtype = rows.collect_schema().get(criterion.column)
    if dtype is None:
        return None
    value = _converted(dtype, criterion.value)
    if value is None:
        return []
    found = rows.with_row_index(_AT).filter(pl.col(criterion.column) == pl.lit(value, dtype)).select(_AT).collect()
    return found[_AT].to_list()


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
