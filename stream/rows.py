"""Chooses and joins the rows of frames in the calling thread.

Polars does the same for frames in a thread of its own pool, column by column, and the caller sleeps meanwhile. The work takes tens of
microseconds, being woken takes as long on an idle processor and many times longer on a busy one, and threads that transform different
units wait for each other. A column of structs is handled where the call is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def kept(frame: pl.DataFrame, mask: pl.Series) -> pl.DataFrame:
    """The rows for which ``mask``, Boolean and as long as ``frame``, is true; null is not."""
    return frame if mask.all(ignore_nulls=False) else at(frame, mask.arg_true())


def at(frame: pl.DataFrame, places: pl.Series) -> pl.DataFrame:
    """The rows at the indexes ``places``, in their order; rows may be repeated."""
    return frame.to_struct().gather(places).struct.unnest() if frame.width else frame


def contiguous(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """As ``joined``, with one chunk for each column. Texts are not copied."""
    return pl.DataFrame([column.rechunk() if column.n_chunks() > 1 else column for column in joined(frames)])


def joined(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of ``frames``, at least one, of equal schema, one frame after the other and without a copy."""
    if len(frames) == 1:
        return frames[0]
    return pl.concat([frame.to_struct() for frame in frames], rechunk=False).struct.unnest()
