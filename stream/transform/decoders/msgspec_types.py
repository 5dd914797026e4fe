"""msgspec types for a schema. They never refuse what Arrow's reader accepts."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
import pyarrow as pa

from stream.transform.types import Kind, Type
from stream.transform.values import MAX_DIGITS

_MOST_DIGITS: Final = 76
"""Digits of Arrow's widest decimal."""


def requested_type(wire: pa.DataType) -> pa.DataType:
    """The type to request from Arrow's JSON reader in order to get ``wire`` after a cast.

    The reader counts the digits that are written, including zeros at the end, and then adds those of the scale, without checking whether
    they still fit: in 128 bits, 99 as decimal(38,38) comes out as 1.29, and 12.5000 is refused as decimal(4,2). 256 bits have room for all.
    """
    if pa.types.is_decimal128(wire):
        return pa.decimal256(_MOST_DIGITS, wire.scale)
    if pa.types.is_struct(wire):
        return pa.struct([field.with_type(requested_type(field.type)) for field in wire])
    return pa.list_(requested_type(wire.value_type)) if pa.types.is_list(wire) else wire


def kept_type(wire: pa.DataType) -> pa.DataType:
    """The type in which to keep what Arrow's JSON reader returned for ``wire`` until it is checked.

    A decimal may have more digits than its type says: 100 as decimal(3,3). Polars accepts that silently, or panics.
    """
    if pa.types.is_decimal128(wire):
        return pa.decimal128(MAX_DIGITS, wire.scale)
    if pa.types.is_struct(wire):
        return pa.struct([field.with_type(kept_type(field.type)) for field in wire])
    return pa.list_(kept_type(wire.value_type)) if pa.types.is_list(wire) else wire


def fitting(kind: Type) -> Callable[[Any], bool] | None:
    """A check whether all decimals inside a value decoded by ``struct`` can be kept; None if the type holds no decimals.

    It is false only for values that Arrow's reader, or the cast after it, refuses too.
    """
    if kind.kind is Kind.DECIMAL:
        scale = kind.wire.scale
        return lambda value: _fits(value, scale)
    if kind.kind is Kind.LIST and kind.item is not None:
        inner = fitting(kind.item)
        return None if inner is None else lambda value: value is None or all(map(inner, value))
    checks = [(f"f{index}", check) for index, (_, field) in enumerate(kind.fields) if (check := fitting(field)) is not None]
    return (lambda value: value is None or all(check(getattr(value, name)) for name, check in checks)) if checks else None


def _fits(value: Decimal | None, scale: int) -> bool:
    if not value:
        return True
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return False
    trailing = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return exponent + trailing >= -scale and value.adjusted() < MAX_DIGITS - scale


def struct(name: str, fields: tuple[tuple[str, Type], ...], *, strict: bool) -> type[msgspec.Struct]:
    """A msgspec type that refuses nothing that Arrow would accept: it checks types only, and everything is optional."""
    members = [(f"f{index}", _hint(kind, strict=strict), None) for index, (_, kind) in enumerate(fields)]
    names = {f"f{index}": field for index, (field, _) in enumerate(fields)}
    return msgspec.defstruct(name, members, rename=names, forbid_unknown_fields=strict, gc=False)


def _hint(kind: Type, *, strict: bool) -> Any:
    match kind.kind:
        case Kind.JSON:
            return msgspec.Raw
        case Kind.LIST if kind.item is not None:
            return list[_hint(kind.item, strict=strict)] | None  # type: ignore[misc]
        case Kind.OBJECT:
            return struct("Object", kind.fields, strict=strict) | None
        case Kind.DECIMAL:
            return Decimal | None
        case _:
            return _scalar(kind.wire)


def _scalar(wire: pa.DataType) -> Any:
    if pa.types.is_boolean(wire):
        return bool | None
    if pa.types.is_floating(wire):
        return float | None
    if not pa.types.is_integer(wire):
        return str | None
    if pa.types.is_unsigned_integer(wire):
        most = 2**wire.bit_width - 1 if wire.bit_width < 64 else None
        return Annotated[int, msgspec.Meta(ge=0, le=most)] | None
    return Annotated[int, msgspec.Meta(ge=-(2 ** (wire.bit_width - 1)), le=2 ** (wire.bit_width - 1) - 1)] | None
