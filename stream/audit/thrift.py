"""The part of Thrift's compact protocol that is needed to write the footer of a Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from stream.audit.wire import varint

_TRUE, _FALSE, _BYTE, _I32, _I64, _BINARY, _LIST, STRUCT = 1, 2, 3, 5, 6, 8, 9, 12


def zigzag(value: int) -> int:
    """Zigzag encoding: maps numbers of small magnitude and either sign to small unsigned numbers."""
    return value << 1 if value >= 0 else (-value << 1) - 1


class Byte(int):
    """An ``i8``."""


class I32(int):
    """An ``i32``."""


class I64(int):
    """An ``i64``."""


@dataclass(frozen=True, slots=True)
class List:
    """A list of already encoded ``items``."""

    kind: int
    items: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The encoded list."""
        count = len(self.items)
        head = bytes([count << 4 | self.kind]) if count < 15 else bytes([0xF0 | self.kind]) + varint(count)
        return head + b"".join(self.items)


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct: values by field number, in ascending order.

    ``begun``: the fields up to field number ``last``, already encoded by ``begin``; they come first.
    """

    fields: Mapping[int, Value | None]
    begun: bytes = b""
    last: int = 0

    def begin(self) -> bytes:
        """The encoded fields, without the byte that ends the struct."""
        parts, last = [self.begun], self.last
        for number, value in self.fields.items():
            if value is None:
                continue
            kind, encode = _ENCODERS[type(value)]
            if value is False:
                kind = _FALSE
            step = number - last
            parts.append(_HEADS[step << 4 | kind] if step < 16 else bytes([kind]) + varint(zigzag(number)))
            parts.append(encode(value))
            last = number
        return b"".join(parts)

    def encode(self) -> bytes:
        """The encoded struct."""
        return self.begin() + b"\0"


class Encoded(bytes):
    """An already encoded struct."""


Value: TypeAlias = "bool | Byte | I32 | I64 | bytes | List | Struct | Encoded"

_HEADS: Final = tuple(bytes([value]) for value in range(256))


def _number(value: int) -> bytes:
    return varint(zigzag(value))


_ENCODERS: Final[Mapping[type, tuple[int, Callable[[Any], bytes]]]] = {
    bool: (_TRUE, lambda _: b""),
    I32: (_I32, _number),
    I64: (_I64, _number),
    Byte: (_BYTE, lambda value: bytes([value])),
    bytes: (_BINARY, lambda value: varint(len(value)) + value),
    List: (_LIST, List.encode),
    Struct: (STRUCT, Struct.encode),
    Encoded: (STRUCT, bytes),
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
