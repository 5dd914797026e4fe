"""What became of the records of a unit: each kind of fate is stored once, and each record refers to it by number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from stream.audit.columns import NOTHING, Coded
from stream.audit.inside import known
from stream.batch import ROW, Outcome
from stream.native import array, series

COLUMNS: Final = ("outcome", "stage", "reason")
ONE_BY_ONE: Final = 8
"""How many different rows are searched one by one; a few comparisons cost less than a hash table."""

_LABELS: Final = {outcome.value: outcome.label for outcome in Outcome}
_KINDS: Final = pl.Schema(dict.fromkeys(COLUMNS, pl.String()))


@dataclass(frozen=True, slots=True)
class Fates:
    """``kinds``: the different outcomes, stages and reasons that occur; ``codes``: for each record, its row in ``kinds``.

    ``sizes``: how many records there are of each kind.
    """

    kinds: pl.DataFrame
    codes: Any
    sizes: list[int]

    def column(self, name: str) -> pl.Series:
        """``outcome``, ``stage`` or ``reason`` of each record."""
        texts = self.kinds[name].to_list()
        arrow = pa.array([text or "" for text in texts], pa.string_view())
        _, own, *data = arrow.buffers()
        told = np.frombuffer(own, "V16", len(texts))[self.codes]
        if None not in texts:
            return series(name, array(pa.string_view(), len(told), None, told, *data))
        there = np.array([text is not None for text in texts])[self.codes]
        nulls = len(there) - int(np.count_nonzero(there))
        return series(name, array(pa.string_view(), len(told), np.packbits(there, bitorder="little"), told, *data, nulls=nulls))

    def coded(self, name: str) -> Coded:
        """The same column as ``Coded``."""
        texts = self.kinds[name].to_list()
        words = sorted({text for text in texts if text is not None})
        places = np.array([NOTHING if text is None else words.index(text) for text in texts], np.uint16)
        return Coded(words, places, self.codes)

    def counts(self) -> dict[str, int]:
        """Records by outcome."""
        found: dict[str, int] = {}
        for label, count in zip(self.kinds["outcome"], self.sizes, strict=True):
            found[label] = found.get(label, 0) + count
        return dict(sorted(found.items()))


def fates_of(settled: pl.DataFrame, records: int) -> Fates:
    """The fates of ``records`` records: those in ``settled`` (``Transformed.settled``) as it says; all others were written."""
    kinds, own = told_apart([settled[name] for name in COLUMNS])
    labelled = [(_LABELS[outcome], stage, reason) for outcome, stage, reason in kinds]
    written = [] if settled.height == records else [(Outcome.WRITTEN.label, None, None)]
    codes = np.zeros(records, np.uint16)
    if kinds:
        codes[settled[ROW].to_numpy()] = own + len(written)
    sizes = [records - settled.height] * len(written) + np.bincount(own, minlength=len(kinds)).tolist()
    return Fates(pl.DataFrame([*written, *labelled], schema=_KINDS, orient="row"), codes, sizes)


def told_apart(columns: list[pl.Series]) -> tuple[list[tuple[Any, ...]], Any]:
    """The different rows of ``columns`` in order of first occurrence, and for each row its index among them (uint16)."""
    kinds: list[tuple[Any, ...]] = []
    rest, rows = columns, len(columns[0])
    codes, left = np.zeros(rows, np.uint16), np.arange(rows)
    while len(left) and len(kinds) < ONE_BY_ONE:
        first = tuple(column[0] for column in rest)
        same = np.ones(len(left), np.bool_)
        for column, value in zip(rest, first, strict=True):
            there = known(column)
            same &= _equal(column, value, there)
        codes[left[same]] = len(kinds)
        kinds.append(first)
        if same.all():
            return kinds, codes
        others = pl.Series(~same)
        left, rest = left[~same], [column.filter(others) for column in rest]
    if len(left):
        frame = pl.DataFrame(rest)
        more = frame.unique(maintain_order=True)
        numbered = more.with_row_index("_code", len(kinds))
        kinds += more.rows()
        codes[left] = frame.join(numbered, on=more.columns, how="left", nulls_equal=True, maintain_order="left")["_code"].to_numpy()
    return kinds, codes


def _equal(column: pl.Series, value: Any, there: Any) -> Any:
    if value is None:
        return np.zeros(column.len(), np.bool_) if there is None else ~there
    equal = (column == value).fill_null(value=False) if there is not None else column == value
    return equal.to_numpy()
