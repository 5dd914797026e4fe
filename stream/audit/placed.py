"""How many rows were made of each record, and where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from stream.batch import ROW
from stream.contracts import Transformed
from stream.native import KERNEL, array, series


def rows_written(transformed: Transformed, records: int) -> pl.Series:
    """Rows of each of so many records (Int32).

    Raises:
        ValueError: ``transformed`` does not name each record exactly once.
    """
    written, settled = transformed.frame[ROW].to_numpy(), transformed.settled[ROW].to_numpy()
    if KERNEL is not None:
        made = KERNEL.counted(written, settled, records)
        if made is not None:
            return series("rows", array(pa.int32(), records, None, made))
    rows, others = np.bincount(written, minlength=records), np.bincount(settled, minlength=records)
    if len(rows) != records or len(others) != records or ((rows > 0) + others != 1).any():
        known = f"{np.count_nonzero(rows)} written and {len(settled)} settled ones"
        msg = f"{records} records were read, but {known} do not name each of them once"
        raise ValueError(msg)
    return pl.Series("rows", rows.astype(np.int32))


def destinations(records: int, index: int, placement: pl.DataFrame, first: int) -> list[pl.Series]:
    """``dest_<index>`` and ``row_<index>``: where the first row of each record lies; ``first`` is the number of the first file."""
    names = f"dest_{index}", f"row_{index}"
    if KERNEL is not None:
        rows, files, lines = (placement[name].to_numpy() for name in (ROW, "file", "line"))
        nulls, validity, *found = KERNEL.placed(rows, files, lines, records, first)
        validity = validity if nulls else None
        made = [array(kind, records, validity, values, nulls=nulls) for kind, values in zip((pa.uint32(), pa.int32()), found, strict=True)]
        return [series(name, values) for name, values in zip(names, made, strict=True)]
    at = placement[ROW].to_numpy()
    if not (at[1:] > at[:-1]).all():
        ordered = placement if placement[ROW].is_sorted() else placement.sort(ROW, "file", "line")
        placement = ordered.unique(ROW, keep="first", maintain_order=True)
        at = placement[ROW].to_numpy()
    values = placement["file"].cast(pl.UInt32) + first, placement["line"].cast(pl.Int32)
    return [_spread(each, at, records).alias(name) for name, each in zip(names, values, strict=True)]


def _spread(values: pl.Series, at: Any, records: int) -> pl.Series:
    """``values`` at the places ``at`` of a column, which is null elsewhere."""
    if len(at) == records:
        return values
    full = np.zeros(records, values.to_numpy().dtype)
    there = np.zeros(records, np.bool_)
    full[at], there[at] = values.to_numpy(), True
    kind = pa.uint32() if values.dtype == pl.UInt32() else pa.int32()
    return series("", array(kind, records, np.packbits(there, bitorder="little"), full, nulls=records - len(at)))
