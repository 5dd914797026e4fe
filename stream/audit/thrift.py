"""Thrift's compact protocol, as much of it as the footer of a Parquet file is written in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from stream.audit.wire import varint

_TRUE, _FALSE, _BYTE, _I32, _I64, _BINARY, _LIST, STRUCT = 1, 2, 3, 5, 6, 8, 9, 12


def zigzag(value: int) -> int:
    """Small numbers of either sign as small numbers without one."""
    return value << 1 if value >= 0 else (-value << 1) - 1


class Byte(int):
    """An ``i8``."""


class I32(int):
    """An ``i32``."""


class I64(int):
    """An ``i64``."""


@dataclass(frozen=True, slots=True)
class List:
    """A list whose ``items`` are encoded already."""

    kind: int
    items: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Its bytes."""
        count = len(self.items)
        head = bytes([count << 4 | self.kind]) if count < 15 else bytes([0xF0 | self.kind]) + varint(count)
        return head + b"".join(self.items)


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct: values by field number, in ascending order."""

    fields: Mapping[int, Value | None]

    def encode(self) -> bytes:
        """Its bytes."""
        parts, last = [], 0
        for number, value in self.fields.items():
            if value is None:
                continue
            kind, body = _encoded(value)
            step = number - last
            parts.append(bytes([step << 4 | kind]) if step < 16 else bytes([kind]) + varint(zigzag(number)))
            parts.append(body)
            last = number
        return b"".join(parts) + b"\0"


Value: TypeAlias = "bool | Byte | I32 | I64 | bytes | List | Struct"


def _encoded(value: Value) -> tuple[int, bytes]:
    kind = type(value)
    if kind is I64:
        return _I64, varint(zigzag(value))  # type: ignore[arg-type]
    if kind is I32:
        return _I32, varint(zigzag(value))  # type: ignore[arg-type]
    return _OTHERS[kind](value)


_OTHERS: Final[Mapping[type, Callable[[Any], tuple[int, bytes]]]] = {
    bool: lambda value: (_TRUE if value else _FALSE, b""),
    Byte: lambda value: (_BYTE, bytes([value])),
    bytes: lambda value: (_BINARY, varint(len(value)) + value),
    List: lambda value: (_LIST, value.encode()),
    Struct: lambda value: (STRUCT, value.encode()),
}


def struct_list(items: Iterable[Struct]) -> List:
    """A list of structs."""
    return List(STRUCT, tuple(item.encode() for item in items))


def int_list(items: Iterable[int]) -> List:
    """A list of ``i32``."""
    return List(_I32, tuple(varint(zigzag(item)) for item in items))


def text_list(items: Iterable[bytes]) -> List:
    """A list of texts."""
    return List(_BINARY, tuple(varint(len(item)) + item for item in items))
