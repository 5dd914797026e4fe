"""Decodes records to columns with the compiled kernel.

For each record the kernel either returns all values that the decoder declares, in the declared types, or marks the record. Marked records
are read by the Python code, and only that code says why a record is bad. So columns, rejects and reasons are the same with and without the
kernel, which tests verify.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from stream import native
from stream.batch import DATA, ROW
from stream.native import Kind, Memory
from stream.transform.row_numbers import without
from stream.transform.stage import Applied, BoundStage
from stream.transform.types import SYSTEM, TIMESTAMP

_KINDS: Final[dict[pl.DataType, Kind]] = {
    pl.String(): Kind.TEXT, pl.Binary(): Kind.BINARY, pl.Boolean(): Kind.BOOL, pl.Int8(): Kind.INT8, pl.Int16(): Kind.INT16,
    pl.Int32(): Kind.INT32, pl.Int64(): Kind.INT64, pl.UInt8(): Kind.UINT8, pl.UInt16(): Kind.UINT16, pl.UInt32(): Kind.UINT32,
    pl.UInt64(): Kind.UINT64, pl.Float32(): Kind.FLOAT32, pl.Float64(): Kind.FLOAT64, pl.Date(): Kind.DATE,
    TIMESTAMP: Kind.MICROSECONDS,
}  # fmt: skip
_IN_VIEWS: Final = {pl.String(), pl.Binary()}
_WIDTHS: Final[dict[pl.DataType, int]] = {
    pl.String(): 16, pl.Binary(): 16, pl.Int32(): 4, pl.Int64(): 8, pl.UInt32(): 4, pl.UInt64(): 8, pl.Float32(): 4, pl.Float64(): 8,
    pl.Date(): 4, TIMESTAMP: 8,
}  # fmt: skip
_VALUES, _BITS, _ITEMS, _FIELDS = range(4)
"""Memory layouts of a column, as the kernel numbers them (native/src/columns.h)."""

Layout = tuple[int, int, int, int]
"""Layout of a column, bytes per value, number of child columns, and index of the first child."""


class Unsupported(Exception):
    """The kernel cannot read this schema."""


@dataclass(frozen=True, slots=True)
class KernelReader:
    """Reads records with a function of the kernel. Thread-safe; releases the GIL while it reads."""

    function: Callable[[Any, Any, Any], Any]
    plan: Any
    schema: pl.Schema

    def read(self, records: pl.Series) -> tuple[pl.DataFrame, npt.NDArray[np.bool_] | None]:
        """The schema's columns, one row per record of ``records`` (Binary, no nulls), and a mask of marked rows, or None if there are none.

        Marked rows are null in all columns.
        """
        views, data = native.views(records)
        bad, wrong, side, (_, _, _, _, columns) = self.function(self.plan, views, data)
        return _frame(self.schema, columns, (*data, side)), np.frombuffer(bad, np.bool_) if wrong else None


@dataclass(frozen=True, slots=True)
class LinesReader:
    """Reads records of one row per line with a function of the kernel. Thread-safe; releases the GIL while it reads."""

    function: Callable[..., Any]
    plan: Any
    schema: pl.Schema

    def read(self, records: pl.Series, *how: Any) -> tuple[pl.DataFrame, npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
        """The schema's columns, one row per line; the number of rows of each record; and a mask of marked records, or None.

        Marked records have no rows. ``how``: further arguments of the function.
        """
        views, data = native.views(records)
        bad, wrong, side, (_, _, _, ends, ((_, _, _, _, columns),)) = self.function(self.plan, views, data, *how)
        bounds = np.frombuffer(ends, np.int64)
        frame = _frame(self.schema, columns, (*data, side))
        return frame, bounds[1:] - bounds[:-1], np.frombuffer(bad, np.bool_) if wrong else None


def by_kernel(reader: KernelReader, ordinary: BoundStage, opened: Callable[[pl.Series], pl.Series] | None = None) -> BoundStage:
    """Reads with ``reader``, and with ``ordinary`` the records that it marks. ``opened`` prepares records for ``reader``."""

    def decode(frame: pl.DataFrame) -> Applied:
        columns, marked = reader.read(frame[DATA] if opened is None else opened(frame[DATA]))
        head = frame[[*SYSTEM]]
        if marked is None:
            return Applied(head.hstack(columns))
        places = np.flatnonzero(marked)
        other = ordinary(frame[places])
        read = without(head, pl.Series(places)).hstack(without(columns, pl.Series(places)))
        return Applied(pl.concat([read, other.frame]).sort(ROW) if other.frame.height else read, other.rejects)

    return decode


def layouts_of(schema: pl.Schema) -> tuple[Layout, ...]:
    """Layouts of the columns of ``schema``, breadth-first, under a root that contains all of them.

    Raises:
        Unsupported: a column of a type that the kernel cannot build.
    """
    kinds: list[pl.DataType] = [pl.Struct(schema)]
    layouts: list[Layout] = []
    while len(layouts) < len(kinds):
        kind, first = kinds[len(layouts)], len(kinds)
        if isinstance(kind, pl.Struct) and kind.fields:
            kinds += [_instance(field.dtype) for field in kind.fields]
            layouts.append((_FIELDS, 0, len(kind.fields), first))
        elif isinstance(kind, pl.List):
            kinds.append(_instance(kind.inner))
            layouts.append((_ITEMS, 8, 1, first))
        elif kind == pl.Boolean():
            layouts.append((_BITS, 0, 0, 0))
        elif isinstance(kind, pl.Decimal) or kind in _WIDTHS:
            layouts.append((_VALUES, 16 if isinstance(kind, pl.Decimal) else _WIDTHS[kind], 0, 0))
        else:
            raise Unsupported
    return tuple(layouts)


def _instance(kind: Any) -> pl.DataType:
    made: pl.DataType = kind() if isinstance(kind, type) else kind
    return made


def _frame(schema: pl.Schema, columns: tuple[Any, ...], texts: tuple[Any, ...]) -> pl.DataFrame:
    made = [_memory(kind, column, texts) for kind, column in zip(schema.values(), columns, strict=True)]
    frame = native.frame(schema.names(), made)
    return frame if frame.schema == schema else frame.cast(dict(schema))  # type: ignore[arg-type]


def _memory(kind: Any, column: tuple[Any, ...], texts: tuple[Any, ...]) -> Memory:
    rows, nulls, validity, values, children = column
    if isinstance(kind, pl.List):
        return Memory(Kind.LIST, rows, validity, (values,), nulls, (("item", _memory(kind.inner, children[0], texts)),))
    if isinstance(kind, pl.Struct):
        fields = tuple((field.name, _memory(field.dtype, child, texts)) for field, child in zip(kind.fields, children, strict=True))
        return Memory(Kind.STRUCT, rows, validity, (), nulls, fields)
    if isinstance(kind, pl.Decimal):
        return Memory(f"d:{kind.precision or 38},{kind.scale}", rows, validity, (values,), nulls)
    return Memory(_KINDS[kind], rows, validity, (values, *texts) if kind in _IN_VIEWS else (values,), nulls)
