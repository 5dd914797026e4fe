"""The Arrow buffers of columns as NumPy arrays. For a few thousand rows, this is cheaper than a Polars query; most need no copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from stream.native import lent, series


def validity(column: pl.Series) -> Any:
    """Which rows are not null (bool, one per row); None if no row is null."""
    if not column.null_count():
        return None
    (found,) = lent([column])
    first = found.offset // 8
    unpacked = np.unpackbits(np.frombuffer(found.validity, np.uint8)[first:], bitorder="little")
    return unpacked[found.offset - 8 * first :][: found.rows].view(np.bool_)


def numbers(column: pl.Series) -> Any:
    """The integers of a column; the values of null rows are arbitrary."""
    if not column.null_count():
        return column.to_numpy()
    (found,) = lent([column])
    return np.frombuffer(found.values, f"{'i' if column.dtype.is_signed_integer() else 'u'}{found.width}")


def lengths(column: pl.Series) -> Any:
    """The length of each text or payload in bytes; the values of null rows are arbitrary."""
    (found,) = lent([column])
    return np.frombuffer(found.values, np.uint32)[::4]


def null_texts(name: str, rows: int) -> pl.Series:
    """A text column of ``rows`` nulls."""
    return series(name, pa.nulls(rows, pa.string_view()))
