"""The contents of columns as NumPy arrays, without copies or Polars queries, which cost more than a look at a few thousand rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa


def known(column: pl.Series) -> Any:
    """Which rows are not null, as bools; None if no row is null."""
    if not column.null_count():
        return None
    arrow = column.to_arrow(compat_level=pl.CompatLevel.newest())
    bits = np.frombuffer(arrow.buffers()[0], np.uint8)
    first = arrow.offset // 8
    spread = np.unpackbits(bits[first : (arrow.offset + len(arrow) + 7) // 8], bitorder="little")
    return spread[arrow.offset - 8 * first :][: len(arrow)].view(np.bool_)


def numbers(column: pl.Series) -> Any:
    """The integers of a column; arbitrary values where it is null."""
    if not column.null_count():
        return column.to_numpy()
    arrow = column.to_arrow(compat_level=pl.CompatLevel.newest())
    return np.frombuffer(arrow.buffers()[1], arrow.type.to_pandas_dtype(), len(arrow), arrow.offset * (arrow.type.bit_width // 8))


def lengths(column: pl.Series) -> Any:
    """The number of bytes of each text or payload; arbitrary values where it is null."""
    arrow = column.to_arrow(compat_level=pl.CompatLevel.newest())
    return np.frombuffer(arrow.buffers()[1], np.uint32)[4 * arrow.offset :: 4][: len(arrow)]


def nothing(name: str, rows: int) -> pl.Series:
    """A column of texts that are all null."""
    return pl.Series(name, pa.nulls(rows, pa.string_view()))
