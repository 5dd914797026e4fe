"""msgspec types for a schema, never stricter than Arrow's reader."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from stream.transform.types import Kind, Type
from stream.transform.values import MAX_DIGITS


def asked(wire: pa.DataType) -> pa.DataType:
    """The type to request from Arrow's JSON reader in order to get ``wire`` after a cast.

    The reader counts the digits that are written and then adds those of the scale, without checking whether they still fit: in 128 bits,
    99 as decimal(38,38) comes out as 1.29. 256 bits always have room for both.
    """
    if pa.types.is_decimal128(wire):
        return pa.decimal256(wire.precision, wire.scale) if is_wide(wire) else wire
    if pa.types.is_struct(wire):
        return pa.struct([field.with_type(asked(field.type)) for field in wire])
    return pa.list_(asked(wire.value_type)) if pa.types.is_list(wire) else wire


def held(wire: pa.DataType) -> pa.DataType:
    """The type in which to keep what Arrow's JSON reader returned for ``wire`` until it is checked.

    A decimal that is not wide may have more digits than its type says: 100 as decimal(3,3). Polars accepts that silently, or panics.
    """
    if pa.types.is_decimal128(wire):
        return wire if is_wide(wire) else pa.decimal128(MAX_DIGITS, wire.scale)
    if pa.types.is_struct(wire):
        return pa.struct([field.with_type(held(field.type)) for field in wire])
    return pa.list_(held(wire.value_type)) if pa.types.is_list(wire) else wire


def is_wide(wire: pa.DataType) -> bool:
    """Whether a decimal's digits plus those that its scale adds need more than 128 bits."""
    return int(wire.precision + wire.scale) > MAX_DIGITS


def fits(value: Decimal | None, before: int, scale: int) -> bool:
    """False only if Arrow would refuse it too: more than ``before`` digits before the point, or more than ``scale`` after it."""
    if not value:
        return True
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return False
    trailing = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return exponent + trailing >= -scale and value.adjusted() < before


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
