"""JSON records to typed columns by the compiled kernel, as far as it vouches for them.

What the kernel marks is read by ``rows.Reader``, which alone says why a record is bad. It vouches only for records on which no two JSON
readers differ.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from stream import native
from stream.transform.decoders.columns import KernelReader
from stream.transform.types import Kind, RecordSchema, Type

_PLAIN: Final = {
    pl.String(): 0, pl.Boolean(): 1, pl.Int8(): 2, pl.Int16(): 3, pl.Int32(): 4, pl.Int64(): 5, pl.UInt8(): 6, pl.UInt16(): 7,
    pl.UInt32(): 8, pl.UInt64(): 9, pl.Float32(): 10, pl.Float64(): 11,
}  # fmt: skip
_OTHER: Final = {Kind.FLOAT32: 10, Kind.TIMESTAMP: 12, Kind.EPOCH: 13, Kind.DATE: 14, Kind.BINARY: 15, Kind.JSON: 16}
_DECIMAL, _LIST, _OBJECT = 17, 18, 19
"""Kinds as the kernel numbers them (native/src/plan.h)."""


def native_reader(schema: RecordSchema, *, strict: bool, kernel: Any = native.KERNEL) -> KernelReader | None:
    """A reader for ``schema``; None without a kernel, or where there are more fields than it takes.

    ``strict``: records with fields that the schema does not name, at any level, are not vouched for.
    """
    if kernel is None:
        return None
    fields = tuple(_node(name, kind, strict=strict) for name, kind in schema)
    try:
        plan = kernel.plan((_OBJECT, b"", True, strict, 1, fields))
    except ValueError:
        return None
    return KernelReader(kernel.decode, plan, pl.Schema(schema.polars()))


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
