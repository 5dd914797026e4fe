"""JSON records to typed columns by the compiled kernel, as far as it vouches for them.

For each record the kernel either gives the values that ``json`` declares, complete and of the declared types, or marks the record; what it
marks is read by ``rows.Reader``, which alone says why a record is bad. It vouches only for records on which no two JSON readers differ, so
columns, rejects and reasons are the same with the kernel and without; tests compare them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from stream import native
from stream.transform.types import Kind, RecordSchema, Type

_PLAIN: Final = {
    pl.String(): 0, pl.Boolean(): 1, pl.Int8(): 2, pl.Int16(): 3, pl.Int32(): 4, pl.Int64(): 5, pl.UInt8(): 6, pl.UInt16(): 7,
    pl.UInt32(): 8, pl.UInt64(): 9, pl.Float32(): 10, pl.Float64(): 11,
}  # fmt: skip
_OTHER: Final = {Kind.FLOAT32: 10, Kind.TIMESTAMP: 12, Kind.EPOCH: 13, Kind.DATE: 14, Kind.BINARY: 15, Kind.JSON: 16}
_DECIMAL, _LIST, _OBJECT = 17, 20, 21
"""Kinds as the kernel numbers them (native/src/plan.h)."""

_MOST_NULLS: Final = 64
"""Words for null that the kernel takes."""

_ARROW: Final[dict[pl.DataType, pa.DataType]] = {
    pl.String(): pa.string_view(), pl.Binary(): pa.binary_view(), pl.Boolean(): pa.bool_(), pl.Int8(): pa.int8(), pl.Int16(): pa.int16(),
    pl.Int32(): pa.int32(), pl.Int64(): pa.int64(), pl.UInt8(): pa.uint8(), pl.UInt16(): pa.uint16(), pl.UInt32(): pa.uint32(),
    pl.UInt64(): pa.uint64(), pl.Float32(): pa.float32(), pl.Float64(): pa.float64(), pl.Date(): pa.date32(),
    pl.Datetime("us", "UTC"): pa.timestamp("us", "UTC"),
}  # fmt: skip
_IN_VIEWS: Final = {pl.String(), pl.Binary()}


@dataclass(frozen=True, slots=True)
class NativeReader:
    """Reads records of one schema; thread-safe, and lets other threads run meanwhile."""

    kernel: Any
    plan: Any
    schema: RecordSchema

    def read(self, records: pl.Series) -> tuple[pl.DataFrame, npt.NDArray[np.bool_] | None]:
        """The schema's columns, a row for each of ``records`` (Binary, no nulls), and which rows the kernel does not vouch for.

        Rows that are marked are null in all columns; None where none is marked.
        """
        views, data = native.views(records)
        bad, wrong, side, (_, _, _, _, columns) = self.kernel.decode(self.plan, views, data)
        return _frame(self.schema, columns, (*data, pa.py_buffer(side))), np.frombuffer(bad, np.bool_) if wrong else None


@dataclass(frozen=True, slots=True)
class LinesReader:
    """Reads records with an object of one schema on each line; thread-safe, and lets other threads run meanwhile."""

    kernel: Any
    plan: Any
    schema: RecordSchema

    def read(self, records: pl.Series) -> tuple[pl.DataFrame, npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
        """The schema's columns, a row for each line; how many rows each of ``records`` has; and which the kernel does not vouch for.

        Records that are marked have no rows; None where none is marked.
        """
        views, data = native.views(records)
        bad, wrong, side, (_, _, _, ends, ((_, _, _, _, columns),)) = self.kernel.decode(self.plan, views, data)
        frame = _frame(self.schema, columns, (*data, pa.py_buffer(side)))
        bounds = np.frombuffer(ends, np.int64)
        return frame, bounds[1:] - bounds[:-1], np.frombuffer(bad, np.bool_) if wrong else None


@dataclass(frozen=True, slots=True)
class SeparatedReader:
    """As ``LinesReader``, for lines of separated values; ``nulls`` are texts that mean null."""

    kernel: Any
    plan: Any
    schema: RecordSchema
    delimiter: str
    quote: str
    nulls: tuple[bytes, ...]

    def read(
        self, records: pl.Series, header: bytes | None, places: tuple[int, ...]
    ) -> tuple[pl.DataFrame, npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
        """As ``LinesReader.read``. ``places``: the column of each field of a line, or -1; ``header``: the line that begins each record."""
        views, data = native.views(records)
        marks = ord(self.delimiter), ord(self.quote)
        bad, wrong, side, (_, _, _, ends, ((_, _, _, _, columns),)) = self.kernel.separated(
            self.plan, views, data, *marks, header, places, self.nulls
        )
        bounds = np.frombuffer(ends, np.int64)
        frame = _frame(self.schema, columns, (*data, pa.py_buffer(side)))
        return frame, bounds[1:] - bounds[:-1], np.frombuffer(bad, np.bool_) if wrong else None


def native_reader(schema: RecordSchema, *, strict: bool, kernel: Any = native.KERNEL) -> NativeReader | None:
    """A reader for ``schema``; None without a kernel, or where there are more fields than it takes.

    ``strict``: records with fields that the schema does not name, at any level, are not vouched for.
    """
    plan = _plan(_record(schema, strict=strict), kernel)
    return None if plan is None else NativeReader(kernel, plan, schema)


def native_lines(schema: RecordSchema, *, strict: bool, kernel: Any = native.KERNEL) -> LinesReader | None:
    """As ``native_reader``, for records that have such an object on each line."""
    plan = _plan((_LIST, b"", True, strict, 1, (_record(schema, strict=strict),)), kernel)
    return None if plan is None else LinesReader(kernel, plan, schema)


def native_separated(
    schema: RecordSchema, delimiter: str, quote: str, nulls: tuple[str, ...], kernel: Any = native.KERNEL
) -> SeparatedReader | None:
    """A reader of lines of separated values; None without a kernel, or where there are more columns or words for null than it takes."""
    plan = _plan((_LIST, b"", True, False, 1, (_record(schema, strict=False),)), kernel)
    if plan is None or len(nulls) > _MOST_NULLS:
        return None
    return SeparatedReader(kernel, plan, schema, delimiter, quote, tuple(word.encode() for word in nulls))


def _plan(spec: tuple[Any, ...], kernel: Any) -> Any:
    if kernel is None:
        return None
    try:
        return kernel.plan(spec)
    except ValueError:
        return None


def _record(schema: RecordSchema, *, strict: bool) -> tuple[Any, ...]:
    return _OBJECT, b"", True, strict, 1, tuple(_node(name, kind, strict=strict) for name, kind in schema)


def _frame(schema: RecordSchema, columns: tuple[Any, ...], texts: tuple[pa.Buffer, ...]) -> pl.DataFrame:
    return pl.DataFrame(
        [native.series(name, _array(kind, column, texts)).cast(kind.polars) for (name, kind), column in zip(schema, columns, strict=True)]
    )


def _node(name: str, kind: Type, *, strict: bool) -> tuple[Any, ...]:
    children: tuple[tuple[Any, ...], ...] = ()
    number, unit = _OTHER.get(kind.kind, 0), kind.unit
    if kind.kind is Kind.LIST and kind.item is not None:
        number, children = _LIST, (_node("", kind.item, strict=strict),)
    elif kind.kind is Kind.OBJECT:
        number, children = _OBJECT, tuple(_node(field, inner, strict=strict) for field, inner in kind.fields)
    elif kind.kind is Kind.DECIMAL:
        number, unit = _DECIMAL, kind.wire.precision << 8 | kind.wire.scale
    elif kind.kind is Kind.PLAIN:
        number = _PLAIN[kind.polars]
    return number, name.encode(), not kind.nullable, strict, unit, children


def _array(kind: Type, column: tuple[Any, ...], texts: tuple[pa.Buffer, ...]) -> pa.Array:
    rows, nulls, validity, values, children = column
    if kind.kind is Kind.LIST and kind.item is not None:
        items = _array(kind.item, children[0], texts)
        return native.array(pa.large_list(items.type), rows, validity, values, nulls=nulls, children=[items])
    if kind.kind is Kind.OBJECT:
        fields = [_array(inner, child, texts) for (_, inner), child in zip(kind.fields, children, strict=True)]
        struct = pa.struct([pa.field(name, field.type) for (name, _), field in zip(kind.fields, fields, strict=True)])
        return native.array(struct, rows, validity, nulls=nulls, children=fields)
    more = texts if kind.polars in _IN_VIEWS else ()
    return native.array(kind.wire if kind.kind is Kind.DECIMAL else _ARROW[kind.polars], rows, validity, values, *more, nulls=nulls)
