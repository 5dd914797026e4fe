"""Maps columns to Apache Iceberg: the type in the data files, and the type of the table's column.

Types are written as in Iceberg's metadata (Iceberg table spec, "Appendix C: JSON serialization"): strings, or objects for nested types. The
ids of nested fields have no meaning; a catalog assigns its own when it creates a table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import polars as pl
from polars.datatypes import DataTypeClass

from stream.batch import type_name
from stream.sink.layouts import Column, Layout
from stream.sink.partition import SinkMismatch

_FILE_TYPES: Final[dict[DataTypeClass, pl.DataType]] = {
    **dict.fromkeys((pl.Int8, pl.Int16, pl.UInt8, pl.UInt16), pl.Int32()),
    pl.UInt32: pl.Int64(),
    pl.UInt64: pl.Decimal(20, 0),
    **dict.fromkeys((pl.Categorical, pl.Enum, pl.Null), pl.String()),
}
"""Iceberg has signed integers of four and eight bytes only."""

_PLAIN: Final[dict[DataTypeClass, str]] = {
    pl.Boolean: "boolean",
    pl.Int32: "int",
    pl.Int64: "long",
    pl.Float32: "float",
    pl.Float64: "double",
    pl.String: "string",
    pl.Binary: "binary",
    pl.Date: "date",
}


def file_type(dtype: pl.DataType) -> pl.DataType:
    """The type in which a column of ``dtype`` is written to a file; ``dtype`` itself if Iceberg has it."""
    if isinstance(dtype, pl.Struct):
        return pl.Struct([pl.Field(field.name, file_type(_instance(field.dtype))) for field in dtype.fields])
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(file_type(_instance(dtype.inner)))
    if isinstance(dtype, pl.Datetime):
        return pl.Datetime("ns" if dtype.time_unit == "ns" else "us", "UTC" if dtype.time_zone else None)
    return _FILE_TYPES.get(dtype.base_type(), dtype)


def layout_of(schema: dict[str, pl.DataType]) -> Layout:
    """The layout of files with ``schema``, whose types are results of ``file_type``.

    Raises:
        SinkMismatch: Iceberg does not allow a name or a type.
    """
    seen: dict[str, str] = {}
    columns = []
    for name, dtype in schema.items():
        if not name or "." in name:
            message = f"the column name {name!r} is not allowed in Iceberg, where a dot separates nested fields"
            raise SinkMismatch((), message, "rename it in a stage")
        other = seen.setdefault(name.lower(), name)
        if other != name:
            message = f"the columns '{other}' and '{name}' are one column to Athena, Glue and Spark, which ignore case"
            raise SinkMismatch((), message, "rename one of them in a stage")
        kind = _type(name, dtype, count(1))
        text = kind if isinstance(kind, str) else json.dumps(kind, separators=(",", ":"))
        columns.append(Column(name, text, text))
    return Layout(tuple(columns))


def _type(name: str, dtype: pl.DataType, ids: Iterator[int]) -> str | dict[str, Any]:
    if isinstance(dtype, pl.Struct):
        if not dtype.fields:
            raise SinkMismatch((), f"column '{name}' holds an object without fields", "leave it out with `select`")
        fields = [
            {"id": next(ids), "name": each.name, "required": False, "type": _type(name, _instance(each.dtype), ids)}
            for each in dtype.fields
        ]
        return {"type": "struct", "fields": fields}
    if isinstance(dtype, pl.List):
        inner = _type(name, _instance(dtype.inner), ids)
        return {"type": "list", "element-id": next(ids), "element": inner, "element-required": False}
    if isinstance(dtype, pl.Datetime) and dtype.time_unit != "ns":
        return "timestamptz" if dtype.time_zone else "timestamp"
    if isinstance(dtype, pl.Decimal) and dtype.precision is not None:
        return f"decimal({dtype.precision}, {dtype.scale})"
    plain = _PLAIN.get(dtype.base_type())
    if plain is None:
        hint = "cast it to timestamp in a stage" if isinstance(dtype, pl.Datetime) else "cast it to text or int64 in a stage"
        raise SinkMismatch((), f"column '{name}' has or holds the type {type_name(dtype)}, which Iceberg does not have", hint)
    return plain


def _instance(dtype: Any) -> pl.DataType:
    found: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return found
