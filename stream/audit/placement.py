"""How many rows each record became, and where they were written."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from stream.batch import ROW
from stream.contracts import Transformed
from stream.native import KERNEL, Kind, Memory, frame, series


def rows_written(transformed: Transformed, records: int) -> pl.Series:
    """The number of rows that each of ``records`` records became (Int32).

    Raises:
        ValueError: ``transformed`` does not name each record exactly once.
    """
    written, settled = transformed.frame[ROW].to_numpy(), transformed.settled[ROW].to_numpy()
    if KERNEL is not None:
        row_counts = KERNEL.counted(written, settled, records)
        if row_counts is not None:
            return series("rows", Memory(Kind.INT32, records, None, (row_counts,)))
    rows, others = np.bincount(written, minlength=records), np.bincount(settled, minlength=records)
    if len(rows) != records or len(others) != records or ((rows > 0) + others != 1).any():
        known = f"{np.count_nonzero(rows)} written and {len(settled)} settled ones"
        msg = f"{records} records were read, but {known} do not name each of them once"
        raise ValueError(msg)
    return pl.Series("rows", rows.astype(np.int32))


def rows_taken(records: int, index: int, placement: pl.DataFrame) -> pl.Series:
    """The column ``rows_<index>``: how many rows of each record a target has."""
    return pl.Series(f"rows_{index}", np.bincount(placement[ROW].to_numpy(), minlength=records).astype(np.int32))


def destinations(records: int, index: int, placement: pl.DataFrame, first: int) -> list[pl.Series]:
    """The columns ``dest_<index>`` and ``row_<index>``: the file and line of each record's first row. Files are numbered from ``first``."""
    names = f"dest_{index}", f"row_{index}"
    if KERNEL is not None:
        rows, files, lines = (placement[name].to_numpy() for name in (ROW, "file", "line"))
        nulls, validity, *found = KERNEL.placed(rows, files, lines, records, first)
        validity = validity if nulls else None
        kinds = Kind.UINT32, Kind.INT32
        columns = [Memory(kind, records, validity, (values,), nulls) for kind, values in zip(kinds, found, strict=True)]
        return frame(names, columns).get_columns()
    rows_with_value = placement[ROW].to_numpy()
    if not (rows_with_value[1:] > rows_with_value[:-1]).all():
        ordered = placement if placement[ROW].is_sorted() else placement.sort(ROW, "file", "line")
        placement = ordered.unique(ROW, keep="first", maintain_order=True)
        rows_with_value = placement[ROW].to_numpy()
    values = placement["file"].cast(pl.UInt32) + first, placement["line"].cast(pl.Int32)
    return [_scattered(each, rows_with_value, records).alias(name) for name, each in zip(names, values, strict=True)]


def _scattered(values: pl.Series, rows_with_value: Any, records: int) -> pl.Series:
    """A column of ``records`` rows with ``values`` in the rows ``rows_with_value`` and null elsewhere."""
    if len(rows_with_value) == records:
        return values
    full = np.zeros(records, values.to_numpy().dtype)
    valid = np.zeros(records, np.bool_)
    full[rows_with_value], valid[rows_with_value] = values.to_numpy(), True
    kind = Kind.UINT32 if values.dtype == pl.UInt32() else Kind.INT32
    return series("", Memory(kind, records, np.packbits(valid, bitorder="little"), (full,), records - len(rows_with_value)))
