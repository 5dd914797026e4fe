"""Where rows came from, by the numbers of their records."""

from __future__ import annotations

import numpy as np
import polars as pl


def first_places(given: pl.Series, kept: pl.Series) -> pl.Series | None:
    """Where in ``given`` each of ``kept`` stands first; None if one of them is not there. Both ascend and have no null."""
    if kept.is_empty():
        return pl.Series([], dtype=pl.UInt32)
    before, after = given.to_numpy(), kept.to_numpy()
    if not len(before) or after[0] < before[0] or after[-1] > before[-1]:
        return None
    place = np.zeros(int(before[-1] - before[0]) + 1, np.uint32)
    # Backwards, so that of several rows of a record the first is written last.
    place[(before - before[0])[::-1]] = np.arange(len(before), dtype=np.uint32)[::-1]
    places = place[after - before[0]]
    return pl.Series(places) if (before[places] == after).all() else None


def one_each(rows: pl.Series) -> bool:
    """Whether no two rows belong to one record, their numbers being in ascending order."""
    return bool((rows.slice(1) > rows.slice(0, max(0, len(rows) - 1))).all())
