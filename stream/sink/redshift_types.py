"""Maps columns to Redshift: the type in the staged Parquet file, and the type of the table's column.

COPY from Parquet matches columns by position and converts no types (Amazon Redshift Developer Guide, "COPY from columnar data formats").
So rows are staged in a few types that match exactly, and ``INSERT ... SELECT`` casts them to those of the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import polars as pl
from polars.datatypes import DataTypeClass

from stream.batch import SEQUENCE, SHARD, SUBSEQUENCE, type_name
from stream.sink.layouts import Column, Layout
from stream.sink.objects import has_empty_object
from stream.sink.partition import SinkMismatch
from stream.sink.redshift_names import SYSTEM_COLUMNS, BadName, check_name

MAX_VARCHAR: Final = 65_535
"""Bytes of the longest VARCHAR (Amazon Redshift Developer Guide, "Character types")."""
MAX_VARBYTE: Final = 1_024_000
MAX_COLUMNS: Final = 1_600
LINE: Final = "_line"
"""Staged for upserts only: the row's index in its unit, which orders rows that come from one record."""

SEQUENCE_BYTES: Final = 60
SHARD_ID_BYTES: Final = len("shardId-000000000000")
"""Length of a shard's id. The service gives all of them this one; those of objects and redrives are shorter."""
SHARD_BYTES: Final = 256
"""Longest ``_shard``: that of a backfill of one of several streams, called by an id, has some 230 bytes."""
_WIDTHS: Final = {SHARD: SHARD_BYTES, SEQUENCE: SEQUENCE_BYTES}
_SIZED: Final = re.compile(r"(varchar|varbyte)\((\d{1,8})\)")
_INTEGERS: Final = {"smallint": 2, "integer": 4, "bigint": 8}
_NOT_IN_SUPER: Final = frozenset({pl.Binary, pl.Duration, pl.Time, pl.Object, pl.Int128, pl.UInt128, pl.Categorical, pl.Enum})


def layout_of(schema: Mapping[str, pl.DataType], types: Mapping[str, str]) -> Layout:
    """The layout of files with ``schema`` (in that order); ``types`` overrides the type of the table's column, by column name.

    Raises:
        SinkMismatch: Redshift does not allow a name or type.
    """
    if len(schema) > MAX_COLUMNS:
        raise SinkMismatch((), f"the table would have {len(schema)} columns, Redshift allows {MAX_COLUMNS}", "select fewer in a stage")
    for name in types:
        if name not in schema or name == LINE:
            raise SinkMismatch(("types", name), f"there is no column '{name}'", "columns here: " + ", ".join(schema))
    seen: dict[str, str] = {}
    columns = []
    for name, dtype in schema.items():
        plain = _checked_name(name)
        if plain in seen:
            message = f"the columns '{seen[plain]}' and '{name}' are one column in Redshift, which ignores case"
            raise SinkMismatch((), message, "rename one of them in a stage")
        seen[plain] = name
        columns.append(_column(plain, name, dtype, types.get(name)))
    return Layout(tuple(columns))


def _checked_name(name: str) -> str:
    try:
        plain = check_name(name)
    except BadName as error:
        raise SinkMismatch((), f"column {error}", "rename it in a stage") from error
    if plain in SYSTEM_COLUMNS:
        raise SinkMismatch((), f"column '{name}' has the name of a system column of Redshift", "rename it in a stage")
    return plain


def _column(plain: str, name: str, dtype: pl.DataType, wanted: str | None) -> Column:
    staged, limit = _staged(name, dtype)
    if wanted is None:
        return Column(plain, staged, staged, limit, target=name != LINE)
    sized = _SIZED.fullmatch(wanted)
    base, size = (sized[1], int(sized[2])) if sized else (wanted, 0)
    if sized and staged.startswith(base) and 1 <= size <= (MAX_VARCHAR if base == "varchar" else MAX_VARBYTE):
        return Column(plain, staged, wanted, size)
    if base == "super" and staged.startswith("varchar"):
        return Column(plain, staged, "super", limit, parse=True)
    if staged == "timestamp" and base == "timestamptz":
        return Column(plain, staged, wanted)
    # A narrower integer is allowed only if every value of the column's own type fits.
    if base in _INTEGERS and staged in _INTEGERS and _INTEGERS[base] >= _integer_bytes(dtype):
        return Column(plain, staged, wanted)
    allowed_types = ["varchar(n)", "super"] if staged.startswith("varchar") else ["varbyte(n)"] if staged.startswith("varbyte") else []
    allowed_types += ["timestamptz"] if staged == "timestamp" else []
    allowed_types += [each for each, size in _INTEGERS.items() if staged in _INTEGERS and size >= _integer_bytes(dtype)]
    allowed = ", ".join(allowed_types) or f"only {staged}"
    raise SinkMismatch(("types", name), f"column '{name}' of type {type_name(dtype)} cannot be {wanted}", f"allowed: {allowed}")


def _integer_bytes(dtype: pl.DataType) -> int:
    widths: dict[DataTypeClass, int] = {pl.Int8: 2, pl.UInt8: 2, pl.Int16: 2, pl.UInt16: 4, pl.Int32: 4}
    return widths.get(dtype.base_type(), 8)


def _staged(name: str, dtype: pl.DataType) -> tuple[str, int]:
    """The staged type of a column, and the most bytes a value may have (0: no limit)."""
    base = dtype.base_type()
    if base in {pl.String, pl.Categorical, pl.Enum, pl.Null}:
        width = _WIDTHS.get(name, MAX_VARCHAR)
        return f"varchar({width})", width
    if base == pl.Binary:
        return f"varbyte({MAX_VARBYTE})", MAX_VARBYTE
    if isinstance(dtype, pl.Datetime) and dtype.time_unit != "ns":
        return "timestamp", 0
    if isinstance(dtype, pl.Decimal) and dtype.precision is not None:
        return f"decimal({dtype.precision},{dtype.scale})", 0
    if has_empty_object(dtype):
        raise SinkMismatch((), f"column '{name}' of type {type_name(dtype)} holds an object without fields", "leave it out with `select`")
    if dtype.is_nested():
        bad = _leaves(dtype) & _NOT_IN_SUPER
        if bad:
            message = (
                f"column '{name}' of type {type_name(dtype)} cannot become SUPER because of the {', '.join(sorted(map(str, bad)))} inside"
            )
            raise SinkMismatch((), message, "cast the inner values to text in a stage")
        return "super", 0
    if base in _PLAIN:
        return _PLAIN[base], 0
    raise SinkMismatch((), f"column '{name}' of type {type_name(dtype)} has no type in Redshift", "cast it to text or int64 in a stage")


_PLAIN: Final[dict[DataTypeClass, str]] = {
    pl.Boolean: "boolean",
    **dict.fromkeys((pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16), "integer"),
    **dict.fromkeys((pl.Int64, pl.UInt32), "bigint"),
    pl.UInt64: "decimal(20,0)",
    pl.Float32: "real",
    pl.Float64: "double precision",
    pl.Date: "date",
}


_STAGED_AS: Final[dict[DataTypeClass, pl.DataType]] = {
    **dict.fromkeys((pl.Int8, pl.Int16, pl.UInt8, pl.UInt16), pl.Int32()),
    pl.UInt32: pl.Int64(),
    pl.UInt64: pl.Decimal(20, 0),
    **dict.fromkeys((pl.Categorical, pl.Enum, pl.Null), pl.String()),
}


def _leaves(dtype: DataTypeClass | pl.DataType) -> set[DataTypeClass]:
    if isinstance(dtype, pl.Struct):
        return {leaf for field in dtype.fields for leaf in _leaves(field.dtype)}
    if isinstance(dtype, pl.List | pl.Array):
        return _leaves(dtype.inner)
    return {dtype.base_type()}


def staged_column(name: str, dtype: pl.DataType) -> pl.Expr:
    """The column ``name``, cast to the Polars type in which it is staged. Timestamps become UTC without a time zone."""
    column, base = pl.col(name), dtype.base_type()
    if base in _STAGED_AS:
        return column.cast(_STAGED_AS[base])
    if isinstance(dtype, pl.Datetime):
        plain = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone else column
        return plain.cast(pl.Datetime("us"))
    if isinstance(dtype, pl.Array):
        return column.arr.to_list()
    return column


ORDER: Final = (SEQUENCE, SUBSEQUENCE, LINE)
"""The columns that decide which of several rows with one key is the newest, most significant first."""
