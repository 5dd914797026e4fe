"""The Arrow buffers of columns as NumPy arrays. For a few thousand rows, this is cheaper than a Polars query; most need no copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from stream.native import series


def validity(column: pl.Series) -> Any:
    """Which rows are not null (bool, one per row); None if no row is null."""
    if not column.null_count():
        return None
    arrow = column.to_arrow(compat_level=pl.CompatLevel.newest())
    bits = np.frombuffer(arrow.buffers()[0], np.uint8)
    first = arrow.offset // 8
    unpacked = np.unpackbits(bits[first : (arrow.offset + len(arrow) + 7) // 8], bitorder="little")
    return unpacked[arrow.offset - 8 * first :][: len(arrow)].view(np.bool_)


def numbers(column: pl.Series) -> Any:
    """The integers of a column; the values of null rows are arbitrary."""
    if not column.null_count():
        return column.to_numpy()
    arrow = column.to_arrow(compat_level=pl.CompatLevel.newest())
    return np.frombuffer(arrow.buffers()[1], arrow.type.to_pandas_dtype(), len(arrow), arrow.offset * (arrow.type.bit_width // 8))


def lengths(column: pl.Series) -> Any:
    """The length of each text or payload in bytes; the values of null rows are arbitrary."""
    arrow = column.to_arrow(compat_level=pl.CompatLevel.newest())
    return np.frombuffer(arrow.buffers()[1], np.uint32)[4 * arrow.offset :: 4][: len(arrow)]


def null_texts(name: str, rows: int) -> pl.Series:
    """A text column of ``rows`` nulls."""
    return series(name, pa.nulls(rows, pa.string_view()))
