"""What became of the records of a unit, told once for each kind of fate and by number for each record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from stream.batch import ROW, Outcome
from stream.native import array, series

COLUMNS: Final = ("outcome", "stage", "reason")
_LABELS: Final = {outcome.value: outcome.label for outcome in Outcome}
_KINDS: Final = pl.Schema(dict.fromkeys(COLUMNS, pl.String()))


@dataclass(frozen=True, slots=True)
class Fates:
    """``kinds``: different outcomes, stages and reasons, each that of one record at least; ``codes``: for each record its row there."""

    kinds: pl.DataFrame
    codes: Any

    def column(self, name: str) -> pl.Series:
        """``outcome``, ``stage`` or ``reason`` of each record."""
        texts = self.kinds[name]
        arrow = texts.fill_null("").to_arrow(compat_level=pl.CompatLevel.newest())
        _, own, *data = arrow.buffers()
        views = np.frombuffer(own, "V16", texts.len(), 16 * arrow.offset)[self.codes]
        known = texts.is_not_null().to_numpy()[self.codes]
        nulls = len(known) - int(np.count_nonzero(known))
        validity = np.packbits(known, bitorder="little") if nulls else None
        return series(name, array(pa.string_view(), len(self.codes), validity, views, *data, nulls=nulls))

    def coded(self, name: str) -> tuple[list[str], Any]:
        """The different texts of a column in ascending order, and the place of each record's that is not null."""
        texts = self.kinds[name].to_list()
        words = sorted({text for text in texts if text is not None})
        places = np.array([len(words) if text is None else words.index(text) for text in texts], np.uint16)
        codes = places[self.codes]
        return words, codes if None not in texts else codes[codes < len(words)]

    def counts(self) -> dict[str, int]:
        """Records by outcome."""
        found: dict[str, int] = {}
        counted = np.bincount(self.codes, minlength=self.kinds.height).tolist()
        for label, count in zip(self.kinds["outcome"], counted, strict=True):
            found[label] = found.get(label, 0) + count
        return dict(sorted(found.items()))


def fates_of(settled: pl.DataFrame, records: int) -> Fates:
    """The fates of so many records: those of ``settled`` (``Transformed.settled``), and all others were written."""
    kinds = settled.select(COLUMNS).unique(maintain_order=True)
    labelled = kinds.select(pl.col("outcome").replace_strict(_LABELS, return_dtype=pl.String), "stage", "reason")
    every, codes = labelled, np.zeros(records, np.uint16)
    if settled.height < records:
        every = pl.concat([pl.DataFrame([[Outcome.WRITTEN.label], [None], [None]], schema=_KINDS), labelled])
    first = every.height - kinds.height
    if kinds.height == 1:
        codes[settled[ROW].to_numpy()] = first
    elif kinds.height > 1:
        numbered = kinds.with_row_index("code")
        own = settled.select(COLUMNS).join(numbered, on=COLUMNS, how="left", nulls_equal=True, maintain_order="left")["code"]
        codes[settled[ROW].to_numpy()] = own.to_numpy() + first
    return Fates(every, codes)
