"""Writes rows as Avro object container files: equal rows give equal bytes.

Polars encodes the rows column by column, which is an order of magnitude faster than a call per row. It knows neither time zones nor small
or unsigned integers, and its files have one block and a constant sync marker; so columns are cast first, and the file itself is made here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from stream import avro_file

BLOCK_ROWS: Final = 8192
"""Rows per block: about 1 MB of typical events. Engines split files at blocks, and readers hold one in memory."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNITS: Final = {"ms": "millis", "us": "micros", "ns": "nanos"}
_LONG: Final[frozenset[Any]] = frozenset({pl.Int64, pl.UInt32, pl.Duration})
_INT: Final[frozenset[Any]] = frozenset({pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16})
_PLAIN: Final[dict[Any, str]] = {pl.Boolean: "boolean", pl.Float32: "float", pl.Float64: "double", pl.Binary: "bytes"}
_UINT64: Final = pl.Decimal(20, 0)
_DECIMAL_BYTES: Final = 16
_DIGITS: Final = {4: 9, 8: 18, _DECIMAL_BYTES: 38}
"""Decimal digits that always fit a signed integer of so many bytes."""
_MOST_DIGITS: Final = 38


def avro(frame: pl.DataFrame, codec: str, level: int | None) -> bytes:
    """A container file with the columns of ``frame``, in order; every value may be null. ``codec`` as in ``avro_file.written``."""
    stored = frame.select(_stored(pl.col(name), kind).alias(name) for name, kind in frame.schema.items()).rechunk()
    return avro_file.written(schema(frame.schema), codec, level, _blocks(stored))


def _blocks(frame: pl.DataFrame) -> Iterator[avro_file.Block]:
    for rows in frame.iter_slices(BLOCK_ROWS):
        out = io.BytesIO()
        rows.rechunk().write_avro(out, compression="uncompressed")
        yield from avro_file.read(out.getvalue()).blocks


def schema(columns: pl.Schema) -> dict[str, Any]:
    """The Avro schema of rows with ``columns``. Each field may be null, and is null by default, so that columns can be added later."""
    return _record("row", columns.items(), count(1))


def misfit(name: str, kind: Any) -> tuple[str, str] | None:
    """Why a column cannot be written, and what to do; None if it can."""
    bad = next((each for each in (name, *_names(kind)) if not _NAME.fullmatch(each)), None)
    if bad is None:
        return None
    return (
        f"the name {bad!r} is not allowed in Avro, where names have ASCII letters, digits and _, and no digit first",
        "rename it in a stage",
    )


def _names(kind: Any) -> Iterator[str]:
    if isinstance(kind, pl.Struct):
        for field in kind.fields:
            yield field.name
            yield from _names(field.dtype)
    elif isinstance(kind, pl.List | pl.Array):
        yield from _names(kind.inner)


def _record(name: str, fields: Any, numbers: Iterator[int]) -> dict[str, Any]:
    made = [{"name": field, "type": ["null", _type(kind, numbers)], "default": None} for field, kind in fields]
    return {"type": "record", "name": name, "fields": made}


def _type(kind: Any, numbers: Iterator[int]) -> Any:
    if isinstance(kind, pl.Struct):
        return _record(f"object{next(numbers)}", [(field.name, field.dtype) for field in kind.fields], numbers)
    if isinstance(kind, pl.List | pl.Array):
        return {"type": "array", "items": ["null", _type(kind.inner, numbers)]}
    if isinstance(kind, pl.Datetime):
        unit = _UNITS[kind.time_unit]
        return {"type": "long", "logicalType": f"timestamp-{unit}" if kind.time_zone else f"local-timestamp-{unit}"}
    base = kind.base_type()
    if base in {pl.Decimal, pl.UInt64}:
        decimal = _UINT64 if base == pl.UInt64 else kind
        return {"type": "bytes", "logicalType": "decimal", "precision": decimal.precision or _MOST_DIGITS, "scale": decimal.scale}
    if base == pl.Date:
        return {"type": "int", "logicalType": "date"}
    return "long" if base in _LONG else "int" if base in _INT else _PLAIN.get(base, "string")


def _stored(value: pl.Expr, kind: Any) -> pl.Expr:
    """``value`` in a form that Polars can encode, at every level."""
    if _goes_by_cast(kind):
        return value.cast(_cast(kind))
    if isinstance(kind, pl.Struct):
        fields = [_stored(value.struct.field(field.name), field.dtype).alias(field.name) for field in kind.fields]
        return pl.when(value.is_not_null()).then(pl.struct(fields))
    if isinstance(kind, pl.Array):
        return _stored(value.arr.to_list(), pl.List(kind.inner))
    if isinstance(kind, pl.List):
        return value.list.eval(_stored(pl.element(), kind.inner))
    if isinstance(kind, pl.Time):
        return value.dt.strftime("%H:%M:%S%.9f")
    exact = value.cast(_UINT64) if kind == pl.UInt64() else value
    return exact.map_batches(_big_endian, return_dtype=pl.Binary(), is_elementwise=True)


def _big_endian(decimals: pl.Series) -> pl.Series:
    """The unscaled values in two's complement, as wide as ``_width`` says. Polars' own encoding loses the sign bit of some."""
    width = _width(decimals.dtype.precision or _MOST_DIGITS)  # type: ignore[attr-defined]
    array = decimals.rechunk().to_arrow().cast(pa.decimal128(38, decimals.dtype.scale or 0))  # type: ignore[attr-defined]
    count = len(array)
    little = np.frombuffer(array.buffers()[1] or b"", np.uint8, count * _DECIMAL_BYTES, array.offset * _DECIMAL_BYTES)
    data = np.ascontiguousarray(little.reshape(count, _DECIMAL_BYTES)[:, width - 1 :: -1])
    offsets = np.arange(count + 1, dtype=np.int64) * width
    whole = pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    made = pl.Series(decimals.name, whole)
    return made if not decimals.null_count() else pl.select(pl.when(decimals.is_not_null()).then(made)).to_series().alias(decimals.name)


def _width(precision: int) -> int:
    """The bytes of a decimal: as many as the integer has that ClickHouse decodes it into, which refuses longer ones."""
    return next(width for width, digits in _DIGITS.items() if precision <= digits)


def _goes_by_cast(kind: Any) -> bool:
    if isinstance(kind, pl.Struct):
        return all(_goes_by_cast(field.dtype) for field in kind.fields)
    if isinstance(kind, pl.List | pl.Array):
        return _goes_by_cast(kind.inner)
    return kind.base_type() not in {pl.Time, pl.Decimal, pl.UInt64}


def _cast(kind: Any) -> Any:
    """The type to which a column is cast."""
    if isinstance(kind, pl.Struct):
        return pl.Struct({field.name: _cast(field.dtype) for field in kind.fields})
    if isinstance(kind, pl.List | pl.Array):
        return pl.List(_cast(kind.inner))
    base = kind.base_type()
    if base in _LONG or base == pl.Datetime:
        return pl.Int64()
    if base in _INT:
        return pl.Int32()
    return kind if base in _PLAIN or base == pl.Date else pl.String()
