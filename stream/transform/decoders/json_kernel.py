"""Decodes JSON records, and lines of separated values, to typed columns with the compiled kernel.

Records that the kernel marks are read by ``json_rows.Reader``, which alone says why a record is bad. The kernel marks every record that
JSON parsers might read differently.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from stream import native
from stream.transform.decoders.kernel_columns import KernelReader, LinesReader
from stream.transform.types import Kind, RecordSchema, Type

_PLAIN: Final = {
    pl.String(): 0, pl.Boolean(): 1, pl.Int8(): 2, pl.Int16(): 3, pl.Int32(): 4, pl.Int64(): 5, pl.UInt8(): 6, pl.UInt16(): 7,
    pl.UInt32(): 8, pl.UInt64(): 9, pl.Float32(): 10, pl.Float64(): 11,
}  # fmt: skip
_OTHER: Final = {Kind.FLOAT32: 10, Kind.TIMESTAMP: 12, Kind.EPOCH: 13, Kind.DATE: 14, Kind.BINARY: 15, Kind.JSON: 16}
_DECIMAL, _LIST, _OBJECT = 17, 20, 21
"""Kinds as the kernel numbers them (native/src/plan.h)."""
_KEEP: Final = 2
"""The kernel's code for keeping members that no column names; 0 ignores and 1 refuses them."""
_MOST_NULLS: Final = 64
"""The most texts for null that the kernel accepts."""


def json_reader(schema: RecordSchema, *, strict: bool, rest: str | None = None, kernel: Any = native.KERNEL) -> KernelReader | None:
    """A reader for ``schema``; None without a kernel, or if there are more fields than it accepts.

    ``strict``: records with fields that the schema does not name, at any level, are marked. ``rest``: name of a last column with the
    unnamed top-level fields as the text of one object, or null.
    """
    plan = _plan(_record(schema, strict=strict, rest=rest), kernel)
    return None if plan is None else KernelReader(kernel.decode, plan, _columns(schema, rest))


def json_lines_reader(schema: RecordSchema, *, strict: bool, rest: str | None = None, kernel: Any = native.KERNEL) -> LinesReader | None:
    """As ``json_reader``, for records with one such object per line."""
    plan = _plan((_LIST, b"", True, False, 1, (_record(schema, strict=strict, rest=rest),)), kernel)
    return None if plan is None else LinesReader(kernel.decode, plan, _columns(schema, rest))


def csv_reader(schema: RecordSchema, nulls: tuple[str, ...], kernel: Any = native.KERNEL) -> LinesReader | None:
    """A reader of lines of separated values; None without a kernel, or if there are more columns or words for null than it takes.

    Further arguments of ``read``: the character codes of delimiter and quote, the header line that begins each record or None, the column
    of each field or -1, and the words for null.
    """
    plan = _plan((_LIST, b"", True, False, 1, (_record(schema, strict=False),)), kernel)
    return None if plan is None or len(nulls) > _MOST_NULLS else LinesReader(kernel.separated, plan, schema.polars())


def _plan(spec: tuple[Any, ...], kernel: Any) -> Any:
    if kernel is None:
        return None
    try:
        return kernel.plan(spec)
    except ValueError:
        return None


def _record(schema: RecordSchema, *, strict: bool, rest: str | None = None) -> tuple[Any, ...]:
    nodes = tuple(_node(name, kind, strict=strict) for name, kind in schema)
    if rest is None:
        return _OBJECT, b"", True, strict, 1, nodes
    return _OBJECT, b"", True, _KEEP, 1, (*nodes, (_PLAIN[pl.String()], b"", False, False, 1, ()))


def _columns(schema: RecordSchema, rest: str | None) -> pl.Schema:
    return pl.Schema({**schema.polars(), **({} if rest is None else {rest: pl.String()})})


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
