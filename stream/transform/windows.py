"""Splits batches into windows of bounded size, for decoders that need far more memory than the columns they return."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from stream.batch import DATA
from stream.transform.stage import Applied, BoundStage


def cuts(sizes: Sequence[int] | npt.NDArray[np.int64], limit: int) -> list[int]:
    """The indexes at which windows begin, and the end. A window has one record, or several with at most ``limit`` bytes together."""
    ends = np.cumsum(sizes, dtype=np.int64)
    found, held = [0], 0
    while found[-1] < len(ends):
        stop = int(ends.searchsorted(held + limit, side="right"))
        found.append(max(stop, found[-1] + 1))
        held = int(ends[found[-1] - 1])
    return found


def windowed(inner: BoundStage, limit: int) -> BoundStage:
    """``inner``, applied to windows of at most ``limit`` bytes. Its result for a record must depend on that record alone."""

    def apply(frame: pl.DataFrame) -> Applied:
        sizes = frame[DATA].bin.size()
        if int(sizes.sum()) <= limit:
            return inner(frame)
        return joined(inner(part) for part in _parts(frame, cuts(sizes.cast(pl.Int64()).to_numpy(), limit)))

    return apply


def _parts(frame: pl.DataFrame, bounds: list[int]) -> Iterator[pl.DataFrame]:
    return (frame[start:end] for start, end in pairwise(bounds))


def joined(parts: Iterable[Applied]) -> Applied:
    """``parts``, of which there is at least one, as one."""
    done = list(parts)
    rejects = [part.rejects for part in done if part.rejects is not None]
    return Applied(pl.concat([part.frame for part in done]), pl.concat(rejects) if rejects else None)
