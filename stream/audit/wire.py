"""Protobuf by hand, for many messages of one shape at once.

A message is a list of pieces, each either bytes that all rows share or an array with one row of bytes for each message. All messages of
a list have the same length, so every length prefix is shared too, and encoding is a handful of array assignments for any number of rows.
Numbers that differ are written as varints padded to five bytes, which every protobuf reader accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, TypeAlias

import numpy as np

from stream.native import KERNEL

Piece: TypeAlias = Any
"""``bytes``, or a uint8 array of shape (rows, width)."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DIGITS: Final = tuple(np.uint64(0x7F << 8 * place) for place in range(5))
_CONTINUED: Final = np.uint64(0x80808080)
"""Seven bits of a number in each of five bytes; all but the last say that another one follows."""

_SHORTEST: Final = tuple(bytes([value]) for value in range(0x80))

AT_ONCE: Final = 512
"""Messages written together: a few hundred kilobytes, which stay in the processor's cache until all of their fields are there."""


def varint(value: int) -> bytes:
    """The shortest form of ``value``, which is not negative."""
    if value <= 0x7F:
        return _SHORTEST[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def width(pieces: Iterable[Piece]) -> int:
    """Bytes in one message."""
    return sum(len(piece) if isinstance(piece, bytes) else piece.shape[1] for piece in pieces)


def message(field: int, pieces: Sequence[Piece]) -> list[Piece]:
    """A nested message, text or bytes as field number ``field``."""
    return [varint(field << 3 | _BYTES) + varint(width(pieces)), *pieces]


def text(field: int, value: str) -> bytes:
    """A string that all rows share."""
    encoded = value.encode()
    return varint(field << 3 | _BYTES) + varint(len(encoded)) + encoded


def number(field: int, value: int) -> bytes:
    """A varint that all rows share."""
    return varint(field << 3 | _VARINT) + varint(value)


def digits(values: Any) -> Any:
    """Varints padded to five bytes, a row for each of ``values``, which lie in 0 .. 2**32 - 1."""
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
    """A fixed64 for each row (``eight_bytes``), or one that all share if ``values`` is an int."""
    key = varint(field << 3 | _FIXED64)
    return [key + values.to_bytes(8, "little")] if isinstance(values, int) else [key, values]


def eight_bytes(values: Any) -> Any:
    """Unsigned numbers as a fixed64 has them, a row for each."""
    return np.ascontiguousarray(values, "<u8").view(np.uint8).reshape(-1, 8)


def fixed32(field: int, value: int) -> bytes:
    """A fixed32 that all rows share."""
    return varint(field << 3 | _FIXED32) + value.to_bytes(4, "little")


def attribute(field: int, key: str, value: str | int) -> bytes:
    """A ``KeyValue`` that all rows share."""
    any_value = text(1, value) if isinstance(value, str) else number(3, value)
    return b"".join(message(field, [text(1, key), *message(2, [any_value])]))


def attribute_of_texts(field: int, key: str, texts: Any) -> list[Piece]:
    """A ``KeyValue`` with a text of equal length for each row."""
    return message(field, [text(1, key), *message(2, message(1, [texts]))])


def attribute_of_numbers(field: int, key: str, varints: Any) -> list[Piece]:
    """A ``KeyValue`` with an integer for each row, given as ``digits``."""
    return message(field, [text(1, key), *message(2, [varint(3 << 3 | _VARINT), varints])])


def rows(pieces: Sequence[Piece], count: int) -> Any:
    """The messages, one a row: a uint8 array of shape (count, width)."""
    out = np.empty((count, width(pieces)), np.uint8)
    write(out, pieces)
    return out


def write(out: Any, pieces: Sequence[Piece], start: int = 0, chosen: Any = None) -> None:
    """Put messages into ``out``, a contiguous uint8 array with a row for each and as many columns as they have bytes.

    They are made of rows ``start``, ``start + 1``, ... of the pieces, or of those that ``chosen`` names from there on.

    Fields are copied as opaque values of their width: NumPy moves each at once instead of byte by byte.
    """
    shared = np.frombuffer(b"".join(piece if isinstance(piece, bytes) else bytes(piece.shape[1]) for piece in pieces), np.uint8)
    starts = accumulate((len(piece) if isinstance(piece, bytes) else piece.shape[1] for piece in pieces), initial=0)
    fields = [(start, piece.view(f"V{piece.shape[1]}")[:, 0]) for start, piece in zip(starts, pieces, strict=False) if _varies(piece)]
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


def _varies(piece: Piece) -> bool:
    return not isinstance(piece, bytes) and piece.shape[1] > 0


def prefixed(field: int, size: int) -> bytes:
    """Key and length of a nested message of ``size`` bytes."""
    return varint(field << 3 | _BYTES) + varint(size)
