"""The fate of each record of a unit: its outcome, stage and reason. Each distinct fate is stored once; records refer to it by number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from stream.audit.buffers import validity
from stream.audit.columns import NULL_INDEX, DictionaryColumn
from stream.batch import ROW, Outcome
from stream.native import Kind, Memory, series

COLUMNS: Final = ("outcome", "stage", "reason")
ONE_BY_ONE: Final = 8
"""How many distinct rows are found by comparing columns with one row; a few comparisons cost less than a hash table."""

_LABELS: Final = {outcome.value: outcome.label for outcome in Outcome}
_KINDS: Final = pl.Schema(dict.fromkeys(COLUMNS, pl.String()))


@dataclass(frozen=True, slots=True)
class Fates:
    """``kinds``: the distinct combinations of outcome, stage and reason; ``codes`` (uint16): each record's row in ``kinds``.

    ``sizes``: the number of records of each kind.
    """

    kinds: pl.DataFrame
    codes: Any
    sizes: list[int]

    def column(self, name: str) -> pl.Series:
        """``outcome``, ``stage`` or ``reason`` of each record."""
        texts = self.kinds[name].to_list()
        arrow = pa.array([text or "" for text in texts], pa.string_view())
        _, view_buffer, *data = arrow.buffers()
        views = np.frombuffer(view_buffer, "V16", len(texts))[self.codes]
        if None not in texts:
            return series(name, Memory(Kind.TEXT, len(views), None, (views, *data)))
        valid = np.array([text is not None for text in texts])[self.codes]
        nulls = len(valid) - int(np.count_nonzero(valid))
        return series(name, Memory(Kind.TEXT, len(views), np.packbits(valid, bitorder="little"), (views, *data), nulls))

    def dictionary_column(self, name: str) -> DictionaryColumn:
        """The same column as ``DictionaryColumn``."""
        texts = self.kinds[name].to_list()
        words = sorted({text for text in texts if text is not None})
        indices = np.array([NULL_INDEX if text is None else words.index(text) for text in texts], np.uint16)
        return DictionaryColumn(words, indices, self.codes)

    def counts(self) -> dict[str, int]:
        """The number of records by outcome label."""
        found: dict[str, int] = {}
        for label, count in zip(self.kinds["outcome"], self.sizes, strict=True):
            found[label] = found.get(label, 0) + count
        return dict(sorted(found.items()))


def fates_of(settled: pl.DataFrame, records: int) -> Fates:
    """The fates of ``records`` records: as ``settled`` (``Transformed.settled``) says for those in it; all others were written."""
    kinds, settled_codes = distinct_rows([settled[name] for name in COLUMNS])
    labelled = [(_LABELS[outcome], stage, reason) for outcome, stage, reason in kinds]
    written = [] if settled.height == records else [(Outcome.WRITTEN.label, None, None)]
    codes = np.zeros(records, np.uint16)
    if kinds:
        codes[settled[ROW].to_numpy()] = settled_codes + len(written)
    sizes = [records - settled.height] * len(written) + np.bincount(settled_codes, minlength=len(kinds)).tolist()
    return Fates(pl.DataFrame([*written, *labelled], schema=_KINDS, orient="row"), codes, sizes)


def distinct_rows(columns: list[pl.Series]) -> tuple[list[tuple[Any, ...]], Any]:
    """The distinct rows of ``columns`` in order of first occurrence, and each row's index among them (uint16)."""
    kinds: list[tuple[Any, ...]] = []
    rest, rows = columns, len(columns[0])
    codes, unmatched = np.zeros(rows, np.uint16), np.arange(rows)
    while len(unmatched) and len(kinds) < ONE_BY_ONE:
        first = tuple(column[0] for column in rest)
        same = np.ones(len(unmatched), np.bool_)
        for column, value in zip(rest, first, strict=True):
            same &= _equal(column, value, validity(column))
        codes[unmatched[same]] = len(kinds)
        kinds.append(first)
        if same.all():
            return kinds, codes
        others = pl.Series(~same)
        unmatched, rest = unmatched[~same], [column.filter(others) for column in rest]
    if len(unmatched):
        frame = pl.DataFrame(rest)
        more = frame.unique(maintain_order=True)
        numbered = more.with_row_index("_code", len(kinds))
        kinds += more.rows()
        codes[unmatched] = frame.join(numbered, on=more.columns, how="left", nulls_equal=True, maintain_order="left")["_code"].to_numpy()
    return kinds, codes


def _equal(column: pl.Series, value: Any, valid: Any) -> Any:
    if value is None:
        return np.zeros(column.len(), np.bool_) if valid is None else ~valid
    equal = (column == value).fill_null(value=False) if valid is not None else column == value
    return equal.to_numpy()
