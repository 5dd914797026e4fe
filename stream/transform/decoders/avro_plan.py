"""Makes the plan by which the compiled kernel reads Avro: how a writer's fields become the reader's columns.

There is a plan only if fastavro resolves the two schemas in the same way whatever the data; otherwise the records are read in Python.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import fastavro.read
import polars as pl

from stream import native
from stream.transform.decoders.avro_types import BOUNDED_DECIMAL
from stream.transform.decoders.kernel_columns import KernelReader, Layout, Unsupported, layouts_of
from stream.transform.values import FIRST_US, LAST_US

_BOOLEAN, _WHOLE, _PROMOTED, _FLOAT, _DOUBLE, _BYTES, _TEXT, _UUID, _FIXED, _DECIMAL, _ENUM, _ARRAY, _MAP, _RECORD, _CONSTANT = range(15)
"""Kinds as the kernel numbers them (native/src/avro.h)."""

_INT: Final = (-(2**31), 2**31 - 1, 1)
_LONG: Final = (-(2**63), 2**63 - 1, 1)
_TIMES: Final = {
    "long-timestamp-millis": (FIRST_US // 1000, LAST_US // 1000, 1000),
    "long-timestamp-micros": (FIRST_US, LAST_US, 1),
}
_DAYS: Final = (-719_162, 2_932_896, 1)
"""From the year 1 to the year 9999."""
_PRIMITIVE: Final[Mapping[tuple[str, str], tuple[int, tuple[int, int, int]]]] = {
    ("boolean", "boolean"): (_BOOLEAN, (0, 0, 0)),
    ("int", "int"): (_WHOLE, _INT),
    ("int", "long"): (_WHOLE, _INT),
    ("int", "float"): (_PROMOTED, _INT),
    ("int", "double"): (_PROMOTED, _INT),
    ("long", "long"): (_WHOLE, _LONG),
    ("long", "float"): (_PROMOTED, _LONG),
    ("long", "double"): (_PROMOTED, _LONG),
    ("float", "float"): (_FLOAT, (0, 0, 0)),
    ("float", "double"): (_FLOAT, (0, 0, 0)),
    ("double", "double"): (_DOUBLE, (0, 0, 0)),
    ("bytes", "bytes"): (_BYTES, (0, 0, 0)),
    ("bytes", "string"): (_TEXT, (0, 0, 0)),
    ("string", "string"): (_TEXT, (0, 0, 0)),
    ("string", "bytes"): (_TEXT, (0, 0, 0)),
}
"""Kind and (least, most, unit) by the types of writer and reader."""
_TYPED: Final = {"date", "uuid", "decimal", BOUNDED_DECIMAL, "timestamp-millis", "timestamp-micros"}
"""Logical types with a column type of their own. There is no plan for one over an underlying type that fastavro does not convert."""


@dataclass(slots=True)
class _Node:
    """What is read at one place of a datum, and the number of the column that it goes to; -1: it is skipped."""

    kind: int
    column: int
    limits: tuple[int, int, int] = (0, 0, 0)
    data: Any = None
    children: list[_Node] = field(default_factory=list)
    branches: tuple[int, int, bool] = (0, -1, False)
    """Of the enclosing union: the number of branches (0 without a union), the index of null (or -1), and whether null is accepted."""


def avro_reader(schema: pl.Schema, reader: Any, writers: Mapping[bytes, Any], kernel: Any = native.KERNEL) -> KernelReader | None:
    """A reader of what the parsed schemas ``writers`` wrote, into the columns ``schema`` of the parsed schema ``reader``.

    The keys of ``writers`` are the prefixes of their records, all equally long. A writer that is ``reader`` itself needs no resolution.
    None without a kernel, or if no writer can be planned.
    """
    if kernel is None:
        return None
    try:
        layouts = layouts_of(schema)
    except Unsupported:
        return None
    resolver = _Resolver(layouts)
    nodes: list[tuple[Any, ...]] = []
    roots: list[tuple[bytes, int]] = []
    for head, writer in writers.items():
        try:
            if writer is not reader and not _resolvable(writer, reader):
                continue
            root = resolver.record(writer, reader, 0, same=writer is reader)
        except Unsupported:
            continue
        roots.append((head, len(nodes)))
        nodes += _flat(root, len(nodes))
    if not roots:
        return None
    return KernelReader(kernel.avro, kernel.avro_plan((layouts, tuple(nodes), tuple(roots))), schema)


def _flat(root: _Node, start: int) -> list[tuple[Any, ...]]:
    """The nodes as tuples, parents before their children and siblings adjacent; the first has number ``start``."""
    nodes, made = [root], list[tuple[Any, ...]]()
    while len(made) < len(nodes):
        node = nodes[len(made)]
        made.append((node.kind, *node.branches, node.column, start + len(nodes), len(node.children), *node.limits, node.data))
        nodes += node.children
    return made


class _Resolver:
    """Resolves a writer's types to the reader's, whose columns are known by number; raises ``Unsupported`` where it cannot."""

    def __init__(self, layouts: tuple[Layout, ...]) -> None:
        self._layouts = layouts

    def record(self, writer: Any, reader: Any, column: int, *, same: bool) -> _Node:
        """A record's fields in the writer's order, then the reader's other fields with their defaults."""
        first = self._layouts[column][3]
        places = {each["name"]: first + at for at, each in enumerate(reader["fields"])}
        fields = {each["name"]: each for each in reader["fields"]}
        aliases = {} if same else {alias: each["name"] for each in reader["fields"] for alias in each.get("aliases", ())}
        node = _Node(_RECORD, column)
        missing = dict(places)
        for each in writer["fields"]:
            name = each["name"] if each["name"] in fields else aliases.get(each["name"])
            if name is None:
                node.children.append(_skipped(each["type"]))
            elif name in missing:
                node.children.append(self._value(each["type"], fields[name]["type"], missing.pop(name), same=same))
            else:
                raise Unsupported
        node.children += [made for name, place in missing.items() for made in self._default(fields[name], place)]
        return node

    def _value(self, writer: Any, reader: Any, column: int, *, same: bool) -> _Node:
        node = self._single(_not_null(writer), _not_null(reader), column, same=same)
        if isinstance(writer, list):
            node.branches = (len(writer), _null(writer), isinstance(reader, list) and "null" in reader)
        return node

    def _single(self, writer: Any, reader: Any, column: int, *, same: bool) -> _Node:
        kind, logical = _kind(writer), _logical(writer)
        if not same and not _resolvable(writer, reader):
            raise Unsupported
        if logical is not None:
            return _of_logical(logical, writer, column)
        if kind == _kind(reader) and kind in {"record", "array", "map"}:
            return self._nested(kind, writer, reader, column, same=same)
        if kind == _kind(reader) == "fixed":
            return _Node(_FIXED, column, (0, 0, writer["size"]))
        if kind == _kind(reader) == "enum":
            return _Node(_ENUM, column, data=_symbols(writer, reader))
        if (kind, _kind(reader)) not in _PRIMITIVE:
            raise Unsupported
        number, limits = _PRIMITIVE[kind, _kind(reader)]
        return _Node(number, column, limits)

    def _nested(self, kind: str, writer: Any, reader: Any, column: int, *, same: bool) -> _Node:
        first = self._layouts[column][3]
        if kind == "record":
            return self.record(writer, reader, column, same=same)
        if kind == "array":
            return _Node(_ARRAY, column, children=[self._value(writer["items"], reader["items"], first, same=same)])
        return _Node(_MAP, column, children=[self._value(writer["values"], reader["values"], self._layouts[first][3] + 1, same=same)])

    def _default(self, target: Any, column: int) -> list[_Node]:
        """The default of a field that the writer lacks, as the writer would have encoded it; no node for null."""
        if "default" not in target:
            raise Unsupported
        value, single = target["default"], _not_null(target["type"])
        if value is None:
            return []
        kind = _kind(single)
        if _logical(single) is not None:
            raise Unsupported
        if kind in {"string", "enum"} and isinstance(value, str):
            inner, data = _Node(_ENUM, column, data=(value.encode(),)), b"\x00"
        elif not value and ((kind == "array" and isinstance(value, list)) or (kind == "map" and isinstance(value, dict))):
            inner, data = self._single(single, single, column, same=True), b"\x00"
        else:
            inner, data = self._single(single, single, column, same=True), _encoded(kind, value)
        return [_Node(_CONSTANT, column, data=data, children=[inner])]


def _skipped(schema: Any) -> _Node:
    """A node that skips a value. It checks the value as strictly as if it were read."""
    single = _not_null(schema)
    kind = _kind(single)
    node = _Node(_RECORD, -1)
    if isinstance(schema, list):
        node.branches = (len(schema), _null(schema), True)
    if kind == "record":
        node.children = [_skipped(each["type"]) for each in single["fields"]]
    elif kind in {"array", "map"}:
        node.kind, node.children = (_ARRAY, [_skipped(single["items"])]) if kind == "array" else (_MAP, [_skipped(single["values"])])
    elif kind == "fixed":
        node.kind, node.limits = _FIXED, (0, 0, single["size"])
    elif kind == "enum":
        node.kind, node.data = _ENUM, _symbols(single, single)
    elif (kind, kind) in _PRIMITIVE:
        node.kind, node.limits = _PRIMITIVE[kind, kind]
    else:
        raise Unsupported
    return node


def _not_null(schema: Any) -> Any:
    """The type of a union that is not null."""
    return next(each for each in schema if each != "null") if isinstance(schema, list) else schema


def _null(union: list[Any]) -> int:
    return union.index("null") if "null" in union else -1


def _kind(schema: Any) -> str:
    kind = schema if isinstance(schema, str) else schema["type"]
    if not isinstance(kind, str):
        raise Unsupported
    return kind


def _logical(schema: Any) -> str | None:
    """The key of fastavro's logical reader for the type; None if values are not converted."""
    name = schema.get("logicalType") if isinstance(schema, dict) else None
    key = f"{_kind(schema)}-{name}"
    if key in fastavro.read.LOGICAL_READERS:
        return key
    if name in _TYPED:
        raise Unsupported
    return None


def _resolvable(writer: Any, reader: Any) -> bool:
    """Whether the two types can be resolved: equal names, if they are named, and values with the same meaning."""
    one, other = _logical(writer), _logical(reader)
    if one is not None and one.endswith(BOUNDED_DECIMAL):
        return one == other and all(writer.get(each, 0) == reader.get(each, 0) for each in ("precision", "scale", "size"))
    if isinstance(writer, dict) and isinstance(reader, dict) and {"name", "size"} & (set(writer) | set(reader)):
        names = [each.get("name", "").rpartition(".")[2] for each in (writer, reader)]
        if names[0] != names[1] or writer.get("size") != reader.get("size"):
            return False
    return one == other or (one in _TIMES and other in _TIMES)


def _of_logical(logical: str, schema: Any, column: int) -> _Node:
    if logical in _TIMES:
        return _Node(_WHOLE, column, _TIMES[logical])
    if logical == "int-date":
        return _Node(_WHOLE, column, _DAYS)
    if logical == "string-uuid":
        return _Node(_UUID, column)
    if logical in {f"bytes-{BOUNDED_DECIMAL}", f"fixed-{BOUNDED_DECIMAL}"} and schema.get("size") != 0:
        return _Node(_DECIMAL, column, (0, schema["precision"], schema.get("size", 0)))
    raise Unsupported


def _symbols(writer: Any, reader: Any) -> tuple[bytes | None, ...]:
    """The reader's symbol for each of the writer's; None where it has none."""
    known, other = set(reader["symbols"]), reader.get("default") or None
    return tuple(None if text is None else text.encode() for text in (each if each in known else other for each in writer["symbols"]))


def _encoded(kind: str, value: Any) -> bytes:
    if kind == "boolean" and isinstance(value, bool):
        return bytes([value])
    least, most, _ = {"int": _INT, "long": _LONG}.get(kind, (1, 0, 0))
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        left, parts = value << 1 ^ value >> 63, bytearray()
        while left > 0x7F:
            parts.append(left & 0x7F | 0x80)
            left >>= 7
        return bytes([*parts, left])
    form = {"float": "<f", "double": "<d"}.get(kind)
    if form is not None and isinstance(value, float):
        try:
            made = struct.pack(form, value)
        except OverflowError:
            raise Unsupported from None
        if struct.unpack(form, made)[0] == value:
            return made
    raise Unsupported
