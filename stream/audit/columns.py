"""Writes the small part of Parquet that ledger segments use: one row group, one page per column.

A segment is named by its bytes, and a worker that finishes a dead worker's unit should produce the same bytes. So they do not depend on the
version of a Parquet library, nor on the compiled kernel; the only library that influences them is Zstandard.

What is used: optional columns; texts that rise, such as sequence numbers, as DELTA_BYTE_ARRAY; texts of a few kinds by dictionary; integers
as DELTA_BINARY_PACKED in blocks of 128 with four miniblocks; data pages of version 1, with Zstandard at level 1 where that makes a column
smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

from stream.audit import thrift
from stream.audit.delta import integers as delta_integers
from stream.audit.delta import texts as delta_texts
from stream.audit.inside import known, numbers
from stream.audit.thrift import I32, I64, Struct, struct_list
from stream.audit.wire import varint
from stream.native import KERNEL, views

CREATED_BY: Final = "kinesis-stream version 1 (build ledger)"
"""Readers look here for known defects of writers; it names the form of the file, not the release."""

ONE_BY_ONE: Final = 8
"""How many different texts are searched one by one; a few comparisons of a column cost less than a hash table."""

_INT32, _INT64, _BYTE_ARRAY = 1, 2, 6
_PLAIN, _RLE, _DELTA_BINARY_PACKED, _DELTA_BYTE_ARRAY, _RLE_DICTIONARY = 0, 3, 5, 7, 8
_UNCOMPRESSED, _ZSTD = 0, 6
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_OPTIONAL: Final = 1
_UTF8, _UINT_16, _UINT_32 = 0, 12, 13
_MAGIC: Final = b"PAR1"
_ZSTANDARD: Final = pa.Codec("zstd", compression_level=1)
_TYPES: Final[Mapping[Any, tuple[int, int | None, Struct | None]]] = {
    pl.String(): (_BYTE_ARRAY, _UTF8, Struct({1: Struct({})})),
    pl.UInt16(): (_INT32, _UINT_16, Struct({10: Struct({1: thrift.Byte(16), 2: False})})),
    pl.UInt32(): (_INT32, _UINT_32, Struct({10: Struct({1: thrift.Byte(32), 2: False})})),
    pl.Int32(): (_INT32, None, None),
    pl.Int64(): (_INT64, None, None),
}
"""Physical type, and its meaning in the old and the new notation."""


NOTHING: Final = 0xFFFF
"""The place that stands for null."""

_INTEGERS, _TEXTS, _CODES = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Coded:
    """A column with few different texts: ``words`` in ascending order, and a code for each row.

    ``codes`` and ``places`` are arrays of uint16; ``places[code]`` is the place of a word, or ``NOTHING`` for null.
    """

    words: list[str]
    places: Any
    codes: Any


Column: TypeAlias = pl.Series | Coded


@dataclass(frozen=True, slots=True)
class _Page:
    """Levels and values of a column, how many rows are null, and the bounds of integers."""

    body: bytes | memoryview
    nulls: int
    least: int = 0
    greatest: int = 0


SMALL: Final = 128
"""Bytes; a column that is no larger is not compressed."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """Pages with their heads, as in the file; the last one begins at ``data_at``; ``raw`` is their size before compression."""

    parts: list[bytes | memoryview]
    size: int
    raw: int
    data_at: int
    codec: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A column's pages, and what the footer says about them."""

    name: str
    physical: int
    encoding: int
    values: int
    statistics: Struct
    stored: _Stored


_ASCENDING: Final = Struct({1: Struct({})})
"""How values of a column are ordered: as its type says."""


def parquet(columns: Mapping[str, Column], rows: int, metadata: Mapping[bytes, bytes]) -> bytes:
    """``columns`` of ``rows`` rows as a Parquet file. Equal columns give equal bytes."""
    given = list(columns.values())
    pages = _pages(given) if rows else []
    chunks = [_chunk(name, column, page, rows) for (name, column), page in zip(columns.items(), pages, strict=False)]
    schema = {name: _kind(column) for name, column in columns.items()}
    parts: list[bytes | memoryview] = [_MAGIC]
    at, groups = len(_MAGIC), []
    for chunk in chunks:
        groups.append(_column(chunk, at))
        parts += chunk.stored.parts
        at += chunk.stored.size
    row_group = Struct({1: struct_list(groups), 2: I64(sum(chunk.stored.raw for chunk in chunks)), 3: I64(rows)})
    footer = Struct(
        {
            1: I32(2),
            2: _schema(tuple(schema.items())),
            3: I64(rows),
            4: struct_list([row_group] if chunks else []),
            5: struct_list([Struct({1: key, 2: value}) for key, value in metadata.items()]),
            6: CREATED_BY.encode(),
            7: struct_list([_ASCENDING] * len(schema)),
        }
    ).encode()
    return b"".join((*parts, footer, len(footer).to_bytes(4, "little"), _MAGIC))


@cache
def _schema(columns: tuple[tuple[str, Any], ...]) -> thrift.List:
    elements = (_element(name, kind) for name, kind in columns)
    return thrift.List(thrift.STRUCT, (Struct({4: b"schema", 5: I32(len(columns))}).encode(), *elements))


def _element(name: str, kind: Any) -> bytes:
    physical, converted, logical = _TYPES[kind]
    fields: dict[int, Any] = {1: I32(physical), 3: I32(_OPTIONAL), 4: name.encode()}
    if converted is not None:
        fields |= {6: I32(converted), 10: logical}
    return Struct(fields).encode()


def _column(chunk: _Chunk, at: int) -> Struct:
    stored = chunk.stored
    meta: dict[int, Any] = {
        4: I32(stored.codec),
        5: I64(chunk.values),
        6: I64(stored.raw),
        7: I64(stored.size),
        9: I64(at + stored.data_at),
        11: I64(at) if stored.data_at else None,
        12: chunk.statistics,
    }
    return Struct({2: I64(at), 3: Struct(meta, _named(chunk.name, chunk.physical, chunk.encoding), 3)})


@cache
def _named(name: str, physical: int, encoding: int) -> bytes:
    """The beginning of what the footer says about a column."""
    encodings = (_RLE, encoding) if encoding != _RLE_DICTIONARY else (_PLAIN, _RLE, _RLE_DICTIONARY)
    return Struct({1: I32(physical), 2: thrift.int_list(encodings), 3: thrift.text_list((name.encode(),))}).begin()


@lru_cache(1024)
def _head(rows: int, encoding: int) -> thrift.Encoded:
    """Of a data page."""
    return thrift.Encoded(Struct({1: I32(rows), 2: I32(encoding), 3: I32(_RLE), 4: I32(_RLE)}).encode())


def _kind(column: Column) -> Any:
    return pl.String() if isinstance(column, Coded) else column.dtype


def _chunk(name: str, column: Column, page: _Page, rows: int) -> _Chunk:
    kind = _kind(column)
    statistics: dict[int, Any] = {3: I64(page.nulls)}
    pages: list[tuple[bytes | memoryview, Struct | thrift.Encoded, int]] = []
    if page.nulls == rows:
        encoding = _PLAIN
    elif isinstance(column, Coded):
        encoding = _RLE_DICTIONARY
        listed = b"".join(len(word).to_bytes(4, "little") + word for word in (text.encode() for text in column.words))
        pages.append((listed, Struct({1: I32(len(column.words)), 2: I32(_PLAIN)}), _DICTIONARY_PAGE))
    elif kind == pl.String():
        encoding = _DELTA_BYTE_ARRAY
    else:
        encoding = _DELTA_BINARY_PACKED
        width = 8 if kind == pl.Int64() else 4
        # Greatest and least value, by which engines skip files.
        statistics |= {5: _fixed(page.greatest, width), 6: _fixed(page.least, width)}
    pages.append((page.body, _head(rows, encoding), _DATA_PAGE))
    return _Chunk(name, _TYPES[kind][0], encoding, rows, Struct(statistics), _stored(pages))


def _fixed(value: int, width: int) -> bytes:
    return (value & (1 << 8 * width) - 1).to_bytes(width, "little")


def _pages(columns: Sequence[Column]) -> list[_Page]:
    if KERNEL is None:
        return [_page(column) for column in columns]
    return [_Page(memoryview(body), *told) for body, *told in KERNEL.chunks(tuple(_given(column) for column in columns), True)]


def _given(column: Column) -> tuple[Any, ...]:
    """What the kernel needs to know about a column."""
    if isinstance(column, Coded):
        return _CODES, column.codes, column.places
    arrow = column.to_arrow(compat_level=pl.CompatLevel.newest())
    rows = len(arrow), arrow.buffers()[0] if arrow.null_count else None, arrow.offset
    if column.dtype == pl.String():
        there = views(column.drop_nulls() if arrow.null_count else column) if arrow.null_count < len(arrow) else (b"", ())
        return _TEXTS, *rows, *there
    width = arrow.type.bit_width // 8
    return _INTEGERS, *rows, arrow.buffers()[1].slice(arrow.offset * width, len(arrow) * width), width, column.dtype.is_signed_integer()


def _page(column: Column) -> _Page:
    """A column's page, as the kernel also makes it."""
    if isinstance(column, Coded):
        placed = column.places[column.codes]
        has = placed != NOTHING
        there, rows = (None if has.all() else has), len(placed)
        nulls = rows - int(np.count_nonzero(has))
    else:
        there, rows, nulls = known(column), column.len(), column.null_count()
    levels = _levels(rows, there)
    if nulls == rows:
        return _Page(levels, nulls)
    if isinstance(column, Coded):
        return _Page(levels + _by_dictionary(len(column.words), placed[has]), nulls)
    if column.dtype == pl.String():
        return _Page(b"".join((levels, delta_texts(column if there is None else column.drop_nulls()))), nulls)
    integers = numbers(column) if there is None else numbers(column)[there]
    return _Page(b"".join((levels, delta_integers(_signed(integers)))), nulls, int(integers.min()), int(integers.max()))


def _stored(pages: list[tuple[bytes | memoryview, Struct | thrift.Encoded, int]]) -> _Stored:
    """The pages in sequence, each compressed if that makes it smaller."""
    whole = sum(len(body) for body, _, _ in pages)
    squeezed = [body if whole <= SMALL else _ZSTANDARD.compress(body, asbytes=True) for body, _, _ in pages]
    smaller = sum(len(body) for body in squeezed) < whole
    parts: list[bytes | memoryview] = []
    size = raw = data_at = 0
    for (body, own, kind), packed in zip(pages, squeezed, strict=True):
        kept = packed if smaller else body
        head = Struct({1: I32(kind), 2: I32(len(body)), 3: I32(len(kept)), 5 if kind == _DATA_PAGE else 7: own}).encode()
        parts += [head, kept]
        data_at = size
        size += len(head) + len(kept)
        raw += len(head) + len(body)
    return _Stored(parts, size, raw, data_at, _ZSTD if smaller else _UNCOMPRESSED)


def _signed(integers: Any) -> Any:
    if integers.itemsize == 2:
        integers = integers.astype(np.uint32)
    return integers.view(np.int64 if integers.itemsize == 8 else np.int32)


def _levels(rows: int, there: Any) -> bytes:
    """Definition levels: a bit for each row, 1 where there is a value; one run where all agree."""
    some = there is None or bool(there.any())
    runs = varint(rows << 1) + bytes([some]) if there is None or not some else _packed(there, 1)
    return len(runs).to_bytes(4, "little") + runs


def _packed(codes: Any, width: int) -> bytes:
    """A bit-packed run of codes of 1, 2, 4, 8 or 16 bits."""
    groups = -(-len(codes) // 8)
    full: Any = np.zeros(groups * 8, np.uint16 if width == 16 else np.uint8)
    full[: len(codes)] = codes
    if width == 1:
        full = np.packbits(full, bitorder="little")
    elif width < 8:
        parts = full.reshape(-1, 8 // width)
        full = np.zeros(len(parts), np.uint8)
        for place in range(8 // width):
            full |= parts[:, place] << (width * place)
    return b"".join((varint(groups << 1 | 1), full.astype(f"<u{full.itemsize}", copy=False).tobytes()))


def _by_dictionary(words: int, codes: Any) -> bytes:
    """Each value's place in a dictionary of ``words`` words."""
    width = next(width for width in (1, 2, 4, 8, 16) if words <= 1 << width)
    return bytes([width]) + (varint(len(codes) << 1) + b"\0" if words == 1 else _packed(codes, width))


def coded(texts: pl.Series) -> Coded:
    """``texts``, of which few are different, as ``Coded``."""
    there = known(texts)
    words, codes = _told_apart(texts if there is None else texts.drop_nulls())
    if there is not None:
        spread = np.full(texts.len(), len(words), np.uint16)
        spread[there] = codes
        codes = spread
    return Coded(words, np.array([*range(len(words)), NOTHING], np.uint16), codes)


def _told_apart(texts: pl.Series) -> tuple[list[str], Any]:
    """The different texts in ascending order, and for each of ``texts`` its place there."""
    words: list[str] = []
    rest = texts
    while len(rest) and len(words) < ONE_BY_ONE:
        words.append(rest[0])
        rest = rest.filter(rest != words[-1])
    words = sorted([*words, *rest.unique()])
    if len(rest):
        return words, texts.replace_strict(words, range(len(words)), return_dtype=pl.UInt16).to_numpy()
    codes = np.zeros(texts.len(), np.uint16)
    for place, word in enumerate(words[1:], 1):
        codes[(texts == word).to_numpy()] = place
    return words, codes
