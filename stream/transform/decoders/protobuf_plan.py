"""Makes the plan by which the compiled kernel reads Protocol Buffers, from their descriptors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from stream import native
from stream.transform.decoders.kernel_columns import KernelReader, Layout, Unsupported, layouts_of

TIMESTAMP_NAME: Final = "google.protobuf.Timestamp"

_ENUM, _TEXT, _BYTES, _STAMP, _MESSAGE, _MAP = range(13, 19)
_KINDS: Final = {
    FieldDescriptor.TYPE_BOOL: 0, FieldDescriptor.TYPE_INT32: 1, FieldDescriptor.TYPE_INT64: 2, FieldDescriptor.TYPE_UINT32: 3,
    FieldDescriptor.TYPE_UINT64: 4, FieldDescriptor.TYPE_SINT32: 5, FieldDescriptor.TYPE_SINT64: 6, FieldDescriptor.TYPE_FIXED32: 7,
    FieldDescriptor.TYPE_FIXED64: 8, FieldDescriptor.TYPE_SFIXED32: 9, FieldDescriptor.TYPE_SFIXED64: 10, FieldDescriptor.TYPE_FLOAT: 11,
    FieldDescriptor.TYPE_DOUBLE: 12, FieldDescriptor.TYPE_ENUM: _ENUM, FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_BYTES: _BYTES, FieldDescriptor.TYPE_MESSAGE: _MESSAGE,
}  # fmt: skip
"""Kinds as the kernel numbers them (native/src/protobuf.h); groups are not supported."""


@dataclass(slots=True)
class _Node:
    """A field, or the root message, and its column."""

    kind: int
    column: int
    number: int = 0
    repeated: bool = False
    presence: bool = False
    slot: int = 0
    closed: bool = False
    fallback: int = 0
    data: Any = None
    children: list[_Node] = field(default_factory=list)


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map: a repeated message of key and value."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def protobuf_reader(schema: pl.Schema, message: Descriptor, kernel: Any = native.KERNEL) -> KernelReader | None:
    """A reader of messages into the columns ``schema``, their fields; None without a kernel, or if it cannot read one of them."""
    if kernel is None:
        return None
    try:
        layouts = layouts_of(schema)
        root = _Node(_MESSAGE, 0)
        _fill(root, message, layouts)
        plan = kernel.protobuf_plan((layouts, tuple(_flat(root))))
    except (Unsupported, ValueError):
        return None
    return KernelReader(kernel.protobuf, plan, schema)


def _flat(root: _Node) -> list[tuple[Any, ...]]:
    """The nodes as tuples, parents before their children and siblings adjacent."""
    nodes, made = [root], list[tuple[Any, ...]]()
    while len(made) < len(nodes):
        node = nodes[len(made)]
        said = (node.kind, node.number, node.repeated, node.presence, node.slot, node.closed, node.column)
        made.append((*said, len(nodes), len(node.children), node.fallback, node.data))
        nodes += node.children
    return made


def _fill(node: _Node, message: Descriptor, layouts: tuple[Layout, ...]) -> None:
    """Give ``node`` the fields of ``message``, by number."""
    if message.GetOptions().message_set_wire_format:
        raise Unsupported
    node.closed = message.is_extendable  # the kernel does not know what extensions hold
    first = layouts[node.column if not node.repeated else layouts[node.column][3]][3]
    slots: dict[str, int] = {}
    for at, (column, each) in enumerate(sorted(enumerate(message.fields), key=lambda pair: pair[1].number)):
        made = _node(each, first + column, layouts)
        oneof = each.containing_oneof
        made.slot = at if oneof is None else slots.setdefault(oneof.name, at)
        node.children.append(made)


def _node(field: FieldDescriptor, column: int, layouts: tuple[Layout, ...]) -> _Node:
    if field.type not in _KINDS:
        raise Unsupported
    repeated = field.is_repeated
    node = _Node(_KINDS[field.type], column, field.number, repeated, field.has_presence and not repeated)
    if field.enum_type is not None:
        node.closed, node.fallback = field.enum_type.is_closed, 0 if repeated else field.default_value
        names = {value.number: value.name.encode() for value in reversed(field.enum_type.values)}
        node.data = tuple(sorted(names.items()))
    elif field.message_type is not None and field.message_type.full_name == TIMESTAMP_NAME:
        if [(each.number, each.type) for each in field.message_type.fields] != [(1, 3), (2, 5)]:
            raise Unsupported
        node.kind = _STAMP
    elif field.message_type is not None:
        node.kind = _MAP if is_map(field) else _MESSAGE
        _fill(node, field.message_type, layouts)
    return node
