"""Relates rows to the rows and records that they came from, by the numbers in the column ``_row``."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl

from stream.native import KERNEL
from stream.rows import joined, kept

_MOST_PARTS: Final = 64
"""With more chunks than this, going from one to the next costs more than copying all of them once."""


def first_indexes(given: pl.Series, kept: pl.Series) -> pl.Series | None:
    """The index in ``given`` at which each of ``kept`` first occurs; None if one does not occur. Both are ascending without nulls."""
    before, after = given.to_numpy(), kept.to_numpy()
    if KERNEL is not None and before.dtype == after.dtype == np.uint32:
        found = KERNEL.places(before, after)
        return None if found is None else pl.Series(np.frombuffer(found, np.uint32))
    if not len(after):
        return pl.Series([], dtype=pl.UInt32)
    if not len(before) or after[0] < before[0] or after[-1] > before[-1]:
        return None
    place = np.zeros(int(before[-1] - before[0]) + 1, np.uint32)
    # Backwards, so that the first of a record's rows is written last and stays.
    place[(before - before[0])[::-1]] = np.arange(len(before), dtype=np.uint32)[::-1]
    places = place[after - before[0]]
    return pl.Series(places) if (before[places] == after).all() else None


def among(few: pl.Series, rows: pl.Series) -> pl.Series:
    """Which of ``few`` are among ``rows``, which are ascending; neither has a null."""
    if rows.is_empty():
        return pl.repeat(False, len(few), dtype=pl.Boolean, eager=True)
    places = rows.search_sorted(few, side="left").clip(0, len(rows) - 1)
    return rows.gather(places) == few


def without(frame: pl.DataFrame, places: pl.Series) -> pl.DataFrame:
    """The rows of ``frame`` except those at the ascending indexes ``places``; if these are few, nothing is copied."""
    if len(places) + frame.n_chunks() > _MOST_PARTS:
        mask = np.ones(frame.height, np.bool_)
        mask[places.to_numpy()] = False
        return kept(frame, pl.Series(mask))
    cuts = [-1, *places.to_list(), frame.height]
    return joined([frame[low + 1 : high] for low, high in pairwise(cuts) if low + 1 < high] or [frame.clear()])


def has_one_row_per_record(rows: pl.Series) -> bool:
    """Whether no two of ``rows``, which are ascending, are equal, so that each record has one row."""
    return bool((rows.slice(1) > rows.slice(0, max(0, len(rows) - 1))).all())
