"""Encodes many protobuf messages of the same shape at once.

A message is a list of pieces: each is either bytes that all messages share, or an array with one row of bytes per message. All messages of
a list have the same length, so length prefixes are shared too, and encoding takes a handful of array assignments for any number of
messages. Numbers that differ are written as varints padded to five bytes, which every protobuf parser accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final, TypeAlias

import numpy as np

from stream.native import KERNEL

Piece: TypeAlias = Any
"""``bytes``, or a uint8 array of shape (rows, width)."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DIGITS: Final = tuple(np.uint64(0x7F << 8 * place) for place in range(5))
_CONTINUED: Final = np.uint64(0x80808080)
"""Masks for the seven bits of a number in each of five bytes, and the continuation bits of all bytes but the last."""

_ANY_VALUE: Final = bytes([2 << 3 | _BYTES])
"""The key of the value of a ``KeyValue``."""

_SHORTEST: Final = tuple(bytes([value]) for value in range(0x80))

AT_ONCE: Final = 512
"""Messages written at a time: a few hundred kilobytes, which stay in the processor's cache until all fields are written."""


def varint(value: int) -> bytes:
    """The shortest varint of ``value``, which must not be negative."""
    if value <= 0x7F:
        return _SHORTEST[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(body: bytes | memoryview, offset: int) -> tuple[int, int]:
    """The varint at ``offset``, and the offset after it; raises ``IndexError`` if the body ends within it."""
    value = shift = 0
    while True:
        byte = body[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value, offset


def width(pieces: Iterable[Piece]) -> int:
    """The size of one message in bytes."""
    size = 0
    for piece in pieces:
        size += len(piece) if isinstance(piece, bytes) else piece.shape[1]
    return size


def message(field: int, pieces: Sequence[Piece]) -> list[Piece]:
    """A nested message, text or bytes as field number ``field``."""
    return [varint(field << 3 | _BYTES) + varint(width(pieces)), *pieces]


def text(field: int, value: str) -> bytes:
    """A string that all messages share."""
    encoded = value.encode()
    return varint(field << 3 | _BYTES) + varint(len(encoded)) + encoded


@lru_cache(1024)
def _first_text(key: str) -> bytes:
    """The key of a ``KeyValue``. There are few, and each unit has them all."""
    return text(1, key)


def number(field: int, value: int) -> bytes:
    """A varint that all messages share."""
    return varint(field << 3 | _VARINT) + varint(value)


def digits(values: Any) -> Any:
    """Varints padded to five bytes, one row for each of ``values``, which must be in 0 .. 2**32 - 1."""
    narrow = np.ascontiguousarray(values).astype(np.uint32, copy=False)
    if KERNEL is not None:
        return np.frombuffer(KERNEL.varints(narrow), np.uint8).reshape(-1, 5)
    wide = narrow.astype(np.uint64)
    out = wide & _DIGITS[0]
    for place, digit in enumerate(_DIGITS[1:], 1):
        out |= (wide << np.uint64(place)) & digit
    out |= _CONTINUED
    return out.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :5]


def fixed64(field: int, values: Any) -> list[Piece]:
    """A fixed64 per message (``values`` from ``eight_bytes``), or one that all messages share (an int)."""
    key = varint(field << 3 | _FIXED64)
    return [key + values.to_bytes(8, "little")] if isinstance(values, int) else [key, values]


def eight_bytes(values: Any) -> Any:
    """Unsigned numbers in the encoding of a fixed64, one row each."""
    return np.ascontiguousarray(values, "<u8").view(np.uint8).reshape(-1, 8)


def fixed32(field: int, value: int) -> bytes:
    """A fixed32 that all messages share."""
    return varint(field << 3 | _FIXED32) + value.to_bytes(4, "little")


def attribute(field: int, key: str, value: str | int) -> bytes:
    """A ``KeyValue`` that all messages share."""
    any_value = text(1, value) if isinstance(value, str) else number(3, value)
    pair = _first_text(key) + _ANY_VALUE + varint(len(any_value)) + any_value
    return varint(field << 3 | _BYTES) + varint(len(pair)) + pair


def attribute_of_texts(field: int, key: str, texts: Any) -> list[Piece]:
    """A ``KeyValue`` with one text per message, all of equal length."""
    return message(field, [_first_text(key), *message(2, message(1, [texts]))])


def attribute_of_numbers(field: int, key: str, varints: Any) -> list[Piece]:
    """A ``KeyValue`` with one integer per message; ``varints`` from ``digits``."""
    return message(field, [_first_text(key), *message(2, [varint(3 << 3 | _VARINT), varints])])


def rows(pieces: Sequence[Piece], count: int) -> Any:
    """The messages as a uint8 array of shape (count, width)."""
    out = np.empty((count, width(pieces)), np.uint8)
    write(out, pieces)
    return out


def write(out: Any, pieces: Sequence[Piece], start: int = 0, chosen: Any = None) -> None:
    """Write messages to ``out``, a contiguous uint8 array of shape (messages, width).

    Message i uses row ``start + i`` of the pieces, or row ``chosen[start + i]``. Fields are copied as opaque values of their width, because
    NumPy then moves each as a whole instead of byte by byte.
    """
    shared = np.frombuffer(b"".join(piece if isinstance(piece, bytes) else bytes(piece.shape[1]) for piece in pieces), np.uint8)
    starts = accumulate((len(piece) if isinstance(piece, bytes) else piece.shape[1] for piece in pieces), initial=0)
    fields = [(start, piece.view(f"V{piece.shape[1]}")[:, 0]) for start, piece in zip(starts, pieces, strict=False) if _differs(piece)]
    names = [str(start) for start, _ in fields]
    formats, offsets = [values.dtype for _, values in fields], [start for start, _ in fields]
    layout = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": len(shared)})
    table = out.view(layout)[:, 0]
    columns = [(table[name], values) for name, (_, values) in zip(names, fields, strict=True)]
    for done in range(0, len(out), AT_ONCE):
        end = min(done + AT_ONCE, len(out))
        rows = slice(start + done, start + end) if chosen is None else chosen[start + done : start + end]
        out[done:end] = shared
        for column, values in columns:
            column[done:end] = values if len(values) == 1 else values[rows]


def _differs(piece: Piece) -> bool:
    return not isinstance(piece, bytes) and piece.shape[1] > 0


def prefixed(field: int, size: int) -> bytes:
    """The key and length of a nested message of ``size`` bytes."""
    return varint(field << 3 | _BYTES) + varint(size)
