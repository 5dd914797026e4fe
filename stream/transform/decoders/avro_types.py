"""Maps Avro schemas to Polars types, and Avro values to values that Polars accepts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import Any, Final
from uuid import UUID

import fastavro.read
import polars as pl

from stream.transform.stage import SchemaMismatch
from stream.transform.types import TIMESTAMP

_PRIMITIVE: Final[Mapping[str, pl.DataType]] = {
    "boolean": pl.Boolean(),
    "int": pl.Int32(),
    "long": pl.Int64(),
    "float": pl.Float32(),
    "double": pl.Float64(),
    "bytes": pl.Binary(),
    "string": pl.String(),
    "enum": pl.String(),
    "fixed": pl.Binary(),
}
_LOGICAL: Final[Mapping[str, tuple[str, pl.DataType]]] = {
    "date": ("int", pl.Date()),
    "timestamp-millis": ("long", TIMESTAMP),
    "timestamp-micros": ("long", TIMESTAMP),
    "uuid": ("string", pl.String()),
}
"""Underlying type and column type of each; decimals are handled separately."""
_EXACT: Final = Context(prec=76)
_LIMITS: Final[Mapping[pl.DataType, int]] = {pl.Int32(): 2**31, pl.Int64(): 2**63}
MAX_DEPTH: Final = 32
BOUNDED_DECIMAL: Final = "bounded-decimal"
"""The logical type that replaces decimal while records are read. fastavro's own reader of decimals takes time quadratic in the length of a
number, so that a record of a megabyte would hold up its shard for a minute."""


def for_reading(schema: Any, wanted: Any = None) -> Any:
    """A copy of ``schema`` with which fastavro returns values as the columns need them.

    Logical types without a column type are dropped, so that their values are those of the underlying type, as the Avro specification
    demands. Decimals are read in time linear in their length. If the parsed schema ``wanted`` has another logical type, or none, over the
    same underlying type, that of ``wanted`` counts: the reader's schema decides what a column means.
    """
    target = _single(wanted)
    if isinstance(schema, list):
        return [for_reading(each, target) for each in schema]
    if isinstance(schema, str):
        return {"type": schema, **_logical_of(target)} if isinstance(target, dict) and target.get("type") == schema else schema
    copy = dict(schema)
    if isinstance(copy.get("type"), dict | list):
        copy["type"] = for_reading(copy["type"], target)
    if "fields" in copy:
        copy["fields"] = [{**each, "type": for_reading(each["type"], _field_of(target, each["name"]))} for each in copy["fields"]]
    for inner in ("items", "values"):
        if inner in copy:
            copy[inner] = for_reading(copy[inner], target.get(inner) if isinstance(target, dict) else None)
    said = _logical_of(copy)
    if target is not None:
        known = _logical_of(target) if isinstance(target, dict) else {}
        same = copy["type"] == (target["type"] if isinstance(target, dict) else target)
        said = said if said and known else known if same else {}
    return {**{key: value for key, value in copy.items() if key != "logicalType"}, **said}


def _logical_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a logical type that has a column type; empty if there is none."""
    kind, logical = schema.get("type"), schema.get("logicalType")
    if not isinstance(kind, str) or not isinstance(logical, str):
        return {}
    if logical in {"decimal", BOUNDED_DECIMAL} and kind in {"bytes", "fixed"}:
        return {"logicalType": BOUNDED_DECIMAL, "precision": schema.get("precision"), "scale": schema.get("scale", 0)}
    return {"logicalType": logical} if logical in _LOGICAL and kind == _LOGICAL[logical][0] else {}


def _single(schema: Any) -> Any:
    """The type itself: of a union the branch that is not null, of a wrapped type the inner one."""
    if isinstance(schema, list):
        return _single(next((each for each in schema if each != "null"), None))
    return _single(schema["type"]) if isinstance(schema, dict) and isinstance(schema.get("type"), dict | list) else schema


def _field_of(record: Any, name: str) -> Any:
    """The type of the field whose name or alias is ``name``; None if there is none."""
    fields = record.get("fields", ()) if isinstance(record, dict) else ()
    return next((each["type"] for each in fields if name == each["name"] or name in each.get("aliases", ())), None)


def with_read_defaults(schema: Any) -> Any:
    """The parsed ``schema`` with each default converted as a value of its type is; fastavro returns defaults as they stand in the JSON.

    Raises:
        ValueError: a default does not fit its type.
    """
    if isinstance(schema, list):
        for each in schema:
            with_read_defaults(each)
    elif isinstance(schema, dict):
        for key in ("type", "items", "values"):
            with_read_defaults(schema.get(key))
        for field in schema.get("fields", ()):
            if "default" in field:  # first, since what it leaves out are the defaults further in as they stand in the JSON
                field["default"] = _default_of(field["default"], _single(field["type"]))
            with_read_defaults(field["type"])
    return schema


def _default_of(value: Any, schema: Any) -> Any:
    kind = schema if isinstance(schema, str) else schema["type"]
    if value is None or kind in {"null", "enum", "string", "boolean"}:
        return value
    if kind == "record":
        return {each["name"]: _default_of(_given(value, each), _single(each["type"])) for each in schema["fields"]}
    if kind == "array":
        return [_default_of(each, _single(schema["items"])) for each in value]
    if kind == "map":
        return {key: _default_of(each, _single(schema["values"])) for key, each in value.items()}
    plain = value.encode("latin-1") if kind in {"bytes", "fixed"} else value
    reader = fastavro.read.LOGICAL_READERS.get(f"{kind}-{schema.get('logicalType')}") if isinstance(schema, dict) else None
    return plain if reader is None else reader(plain, schema, schema)


def _given(record: Any, field: Mapping[str, Any]) -> Any:
    """What the default ``record`` has for ``field``: its own default, where it is left out."""
    if field["name"] not in record and "default" not in field:
        msg = f"it has no {field['name']!r}"
        raise ValueError(msg)
    return record.get(field["name"], field.get("default"))


def _decimal(data: Any, writer: Any, _reader: Any = None) -> Decimal:
    unscaled = int.from_bytes(data, "big", signed=True)
    if abs(unscaled) >= 10 ** writer["precision"]:
        msg = "too many digits"
        raise ValueError(msg)
    return Decimal(unscaled).scaleb(-writer.get("scale", 0), _EXACT)


for _kind in ("bytes", "fixed"):
    fastavro.read.LOGICAL_READERS[f"{_kind}-{BOUNDED_DECIMAL}"] = _decimal


def columns_of(schema: Any) -> dict[str, pl.DataType]:
    """Columns of a parsed record schema that ``check_schema`` accepted."""
    return {field["name"]: _type(field["type"]) for field in schema["fields"]}


def check_schema(schema: Any, path: tuple[str | int, ...]) -> None:
    """Make sure that a parsed schema describes records whose decoded size is bounded by their bytes.

    Raises:
        SchemaMismatch: not a record; a union of more than one type and null; a type referred to by name; an array of items that take
            no bytes, of which a few bytes could claim billions.
    """
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise SchemaMismatch(path, "the Avro schema is not one of records", "its type must be `record`, whose fields become the columns")
    _check(schema, path, 0)


def _check(schema: Any, path: tuple[str | int, ...], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise SchemaMismatch(path, f"the Avro schema has more than {MAX_DEPTH} types inside each other", "make it flatter")
    if isinstance(schema, list):
        others = [each for each in schema if each != "null"]
        if len(others) != 1:
            raise SchemaMismatch(path, f"the union {schema} has no single type", "a union may have one type besides null")
        _check(others[0], path, depth + 1)
        return
    if isinstance(schema, str):
        if schema not in _PRIMITIVE and schema != "null":
            raise SchemaMismatch(
                path, f"the Avro type {schema!r} is used by its name", "write it out where it is used; it may not hold itself"
            )
        return
    _check_decimal(schema, path)
    for field in schema.get("fields", ()):
        _check(field["type"], path, depth + 1)
    for inner in (schema.get("items"), schema.get("values")):
        if inner is not None:
            _check(inner, path, depth + 1)
    if schema["type"] == "array" and _least(schema["items"]) == 0:
        raise SchemaMismatch(path, "the Avro schema has an array of items that take no bytes", "give the items content")


def _check_decimal(schema: Mapping[str, Any], path: tuple[str | int, ...]) -> None:
    if schema.get("logicalType") == "decimal" and not 1 <= schema.get("precision", 0) <= 38:
        raise SchemaMismatch(path, f"the Avro decimal {schema} has no precision between 1 and 38", "say how many digits it has at most")


def _least(schema: Any) -> int:
    """The least number of bytes that a value takes, at most 1."""
    kind = schema if isinstance(schema, str | list) else schema["type"]
    if kind == "record":
        return max((_least(field["type"]) for field in schema["fields"]), default=0)
    if kind == "fixed":
        return min(int(schema["size"]), 1)
    return 0 if kind == "null" else 1


def _type(schema: Any) -> pl.DataType:  # noqa: PLR0911 - one per kind
    if isinstance(schema, list):
        return _type(next(each for each in schema if each != "null"))
    if isinstance(schema, str):
        return _PRIMITIVE.get(schema, pl.Null())
    kind, logical = schema["type"], schema.get("logicalType")
    if logical in {"decimal", BOUNDED_DECIMAL}:
        return pl.Decimal(schema["precision"], schema.get("scale", 0))
    if logical in _LOGICAL:
        return _LOGICAL[logical][1]
    if kind == "record":
        return pl.Struct([pl.Field(field["name"], _type(field["type"])) for field in schema["fields"]])
    if kind == "array":
        return pl.List(_type(schema["items"]))
    if kind == "map":
        return pl.List(pl.Struct([pl.Field("key", pl.String()), pl.Field("value", _type(schema["values"]))]))
    return _PRIMITIVE[kind]


def to_polars(value: Any, kind: Any) -> Any:
    """Fastavro's ``value`` in the form that Polars takes for ``kind``.

    Raises:
        ValueError: the value does not fit the type, such as a decimal with too many digits or a time after the year 9999.
    """
    if value is None:
        return None
    if isinstance(kind, pl.Struct):
        return {field.name: to_polars(value[field.name], field.dtype) for field in kind.fields}
    if isinstance(kind, pl.List):
        items = [{"key": key, "value": each} for key, each in sorted(value.items())] if isinstance(value, dict) else value
        return [to_polars(each, kind.inner) for each in items]
    if isinstance(kind, pl.Decimal):
        room = (kind.precision or 38) - kind.scale
        if not isinstance(value, Decimal) or (value and value.adjusted() >= room) or _rounded(value, kind.scale):
            msg = "no number with so many digits"
            raise ValueError(msg)
        return value
    if isinstance(value, UUID):
        return str(value)
    return _scalar(value, kind)


def _rounded(value: Decimal, scale: int) -> bool:
    """Whether ``value`` has digits beyond ``scale``."""
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent < -scale and value != value.quantize(Decimal(1).scaleb(-scale), context=_EXACT)


def _scalar(value: Any, kind: Any) -> Any:
    if kind == TIMESTAMP:
        if not isinstance(value, datetime):
            msg = "a time out of range"
            raise ValueError(msg)
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if kind == pl.Date() and not isinstance(value, date):
        msg = "a date out of range"
        raise ValueError(msg)
    if kind in _LIMITS and not (isinstance(value, int) and -_LIMITS[kind] <= value < _LIMITS[kind]):
        msg = "a number out of range"
        raise ValueError(msg)
    if kind == pl.Binary() and not isinstance(value, bytes):
        msg = "no bytes"
        raise ValueError(msg)
    return value
