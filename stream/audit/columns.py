"""Writes the small part of Parquet that ledger segments use: one row group, one page per column.

A segment is named by its bytes, and a worker that completes a dead worker's unit should produce the same bytes. So these must not depend on
the version of a Parquet library, nor on whether the compiled kernel is used; the only library that influences them is Zstandard.

All columns are optional. Ascending texts, such as sequence numbers, are DELTA_BYTE_ARRAY; texts with few distinct values are
dictionary-encoded; integers are DELTA_BINARY_PACKED in blocks of 128 with four miniblocks. Data pages are version 1, compressed with
Zstandard at level 1 if that makes a column smaller; the digits of sequence numbers are compressed by ``digits``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

from stream.audit import digits, thrift
from stream.audit.buffers import numbers, validity
from stream.audit.delta import integers as delta_integers
from stream.audit.delta import texts as delta_texts
from stream.audit.thrift import I32, I64, Struct, struct_list
from stream.audit.wire import varint
from stream.native import KERNEL, Lent, lent, views

CREATED_BY: Final = "kinesis-stream version 1 (build ledger)"
"""Readers look here for known bugs of writers. It names the file layout, not the release."""

ONE_BY_ONE: Final = 8
"""How many distinct texts are found by comparing the column with each; a few comparisons cost less than a hash table."""

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
"""Physical type, converted type (the old annotation) and logical type (the new one)."""


NULL_INDEX: Final = 0xFFFF
"""The index that represents null."""

_INTEGERS, _TEXTS, _CODES = 0, 1, 2


@dataclass(frozen=True, slots=True)
class DictionaryColumn:
    """A text column with few distinct values: ``words`` in ascending order, and a code for each row.

    ``codes`` and ``indices`` are uint16 arrays; ``indices[code]`` is the index of a word, or ``NULL_INDEX``.
    """

    words: list[str]
    indices: Any
    codes: Any


Column: TypeAlias = pl.Series | DictionaryColumn


@dataclass(frozen=True, slots=True)
class _Page:
    """A column's levels and values, the number of null rows, the bounds of integers, and where the suffixes of texts begin in ``body``."""

    body: bytes | memoryview
    nulls: int
    least: int = 0
    greatest: int = 0
    suffixes: int = 0


SMALL: Final = 128
"""Largest size of a column, in bytes, at which it is not compressed."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """Pages with their headers, as in the file. The data page begins at ``data_at``; ``raw`` is the size before compression, in bytes."""

    parts: list[bytes | memoryview]
    size: int
    raw: int
    data_at: int
    codec: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A column's pages, and what the footer states about them."""

    name: str
    physical: int
    encoding: int
    values: int
    statistics: Struct
    stored: _Stored


_ASCENDING: Final = Struct({1: Struct({})})
"""Column order: TYPE_ORDER, the order that the type defines."""


def parquet(columns: Mapping[str, Column], rows: int, metadata: Mapping[bytes, bytes]) -> bytes:
    """``columns`` of ``rows`` rows as a Parquet file. Equal columns give equal bytes."""
    pages = _pages(list(columns.values())) if rows else []
    chunks = [_chunk(name, column, page, rows) for (name, column), page in zip(columns.items(), pages, strict=False)]
    schema = {name: _dtype(column) for name, column in columns.items()}
    parts: list[bytes | memoryview] = [_MAGIC]
    offset, column_chunks = len(_MAGIC), []
    for chunk in chunks:
        column_chunks.append(_column_chunk(chunk, offset))
        parts += chunk.stored.parts
        offset += chunk.stored.size
    # The numbers of fields, here and below, are those of parquet.thrift.
    row_group = Struct({1: struct_list(column_chunks), 2: I64(sum(chunk.stored.raw for chunk in chunks)), 3: I64(rows)})
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
    elements = (_schema_element(name, kind) for name, kind in columns)
    return thrift.List(thrift.STRUCT, (Struct({4: b"schema", 5: I32(len(columns))}).encode(), *elements))


def _schema_element(name: str, kind: Any) -> bytes:
    physical, converted, logical = _TYPES[kind]
    fields: dict[int, Any] = {1: I32(physical), 3: I32(_OPTIONAL), 4: name.encode()}
    if converted is not None:
        fields |= {6: I32(converted), 10: logical}
    return Struct(fields).encode()


def _column_chunk(chunk: _Chunk, offset: int) -> Struct:
    """What the footer states about a column whose pages begin at ``offset``."""
    stored = chunk.stored
    meta: dict[int, Any] = {
        4: I32(stored.codec),
        5: I64(chunk.values),
        6: I64(stored.raw),
        7: I64(stored.size),
        9: I64(offset + stored.data_at),
        11: I64(offset) if stored.data_at else None,
        12: chunk.statistics,
    }
    return Struct({2: I64(offset), 3: Struct(meta, _column_metadata_start(chunk.name, chunk.physical, chunk.encoding), 3)})


@cache
def _column_metadata_start(name: str, physical: int, encoding: int) -> bytes:
    """The first fields of a column's metadata in the footer."""
    encodings = (_RLE, encoding) if encoding != _RLE_DICTIONARY else (_PLAIN, _RLE, _RLE_DICTIONARY)
    return Struct({1: I32(physical), 2: thrift.int_list(encodings), 3: thrift.text_list((name.encode(),))}).begin()


@lru_cache(1024)
def _data_page_header(rows: int, encoding: int) -> thrift.Encoded:
    """The header of a data page."""
    return thrift.Encoded(Struct({1: I32(rows), 2: I32(encoding), 3: I32(_RLE), 4: I32(_RLE)}).encode())


def _dtype(column: Column) -> Any:
    return pl.String() if isinstance(column, DictionaryColumn) else column.dtype


def _chunk(name: str, column: Column, page: _Page, rows: int) -> _Chunk:
    kind = _dtype(column)
    statistics: dict[int, Any] = {3: I64(page.nulls)}
    pages: list[tuple[_Page, Struct | thrift.Encoded, int]] = []
    if page.nulls == rows:
        encoding = _PLAIN
    elif isinstance(column, DictionaryColumn):
        encoding = _RLE_DICTIONARY
        dictionary = b"".join(len(word).to_bytes(4, "little") + word for word in (text.encode() for text in column.words))
        pages.append((_Page(dictionary, 0), Struct({1: I32(len(column.words)), 2: I32(_PLAIN)}), _DICTIONARY_PAGE))
    elif kind == pl.String():
        encoding = _DELTA_BYTE_ARRAY
    else:
        encoding = _DELTA_BINARY_PACKED
        width = 8 if kind == pl.Int64() else 4
        # Maximum and minimum, by which engines skip files.
        statistics |= {5: _fixed_width(page.greatest, width), 6: _fixed_width(page.least, width)}
    pages.append((page, _data_page_header(rows, encoding), _DATA_PAGE))
    return _Chunk(name, _TYPES[kind][0], encoding, rows, Struct(statistics), _stored(pages))


def _fixed_width(value: int, width: int) -> bytes:
    return (value & (1 << 8 * width) - 1).to_bytes(width, "little")


def _pages(columns: Sequence[Column]) -> list[_Page]:
    if KERNEL is None:
        return [_page(column) for column in columns]
    return [_Page(memoryview(body), *facts) for body, *facts in KERNEL.chunks(_kernel_arguments(columns), True)]


def _kernel_arguments(columns: Sequence[Column]) -> tuple[tuple[Any, ...], ...]:
    """The columns as ``KERNEL.chunks`` takes them."""
    passed = iter(lent([column for column in columns if isinstance(column, pl.Series)]))
    return tuple(
        (_CODES, column.codes, column.indices) if isinstance(column, DictionaryColumn) else _described(column, next(passed))
        for column in columns
    )


def _described(column: pl.Series, memory: Lent) -> tuple[Any, ...]:
    """A column, which is in ``memory``, as ``KERNEL.chunks`` takes it."""
    rows, nulls, offset, validity, width, values, texts = memory
    if texts is None:
        return _INTEGERS, rows, validity, offset, values, width, column.dtype.is_signed_integer()
    if nulls:
        return _TEXTS, rows, validity, offset, *(views(column.drop_nulls()) if nulls < rows else (b"", ()))
    return _TEXTS, rows, validity, offset, values, texts


def _page(column: Column) -> _Page:
    """A column's page, the same bytes as the kernel's."""
    if isinstance(column, DictionaryColumn):
        indices = column.indices[column.codes]
        not_null = indices != NULL_INDEX
        valid, rows = (None if not_null.all() else not_null), len(indices)
        nulls = rows - int(np.count_nonzero(not_null))
    else:
        valid, rows, nulls = validity(column), column.len(), column.null_count()
    levels = _levels(rows, valid)
    if nulls == rows:
        return _Page(levels, nulls)
    if isinstance(column, DictionaryColumn):
        return _Page(levels + _dictionary_indices(len(column.words), indices[not_null]), nulls)
    if column.dtype == pl.String():
        prefixes, suffixes = delta_texts(column if valid is None else column.drop_nulls())
        return _Page(b"".join((levels, prefixes, suffixes)), nulls, suffixes=len(levels) + len(prefixes))
    integers = numbers(column) if valid is None else numbers(column)[valid]
    return _Page(b"".join((levels, delta_integers(_signed(integers)))), nulls, int(integers.min()), int(integers.max()))


def _stored(pages: list[tuple[_Page, Struct | thrift.Encoded, int]]) -> _Stored:
    """The pages of one column in sequence, all compressed if that makes the column smaller."""
    total = sum(len(page.body) for page, _, _ in pages)
    compressed = [page.body if total <= SMALL else _compressed(page) for page, _, _ in pages]
    smaller = sum(len(body) for body in compressed) < total
    parts: list[bytes | memoryview] = []
    size = raw = data_at = 0
    for (page, kind_header, kind), packed in zip(pages, compressed, strict=True):
        stored = packed if smaller else page.body
        header = Struct({1: I32(kind), 2: I32(len(page.body)), 3: I32(len(stored)), 5 if kind == _DATA_PAGE else 7: kind_header}).encode()
        parts += [header, stored]
        data_at = size
        size += len(header) + len(stored)
        raw += len(header) + len(page.body)
    return _Stored(parts, size, raw, data_at, _ZSTD if smaller else _UNCOMPRESSED)


def _compressed(page: _Page) -> bytes:
    """A zstd frame of the page; one of at most ``SMALL`` bytes holds them as they are."""
    body, suffixes = memoryview(page.body), page.suffixes
    if len(body) <= SMALL:
        return digits.uncompressed(body)
    if suffixes and (found := digits.blocks(body[suffixes:])) is not None:
        return digits.with_digits(_ZSTANDARD.compress(body[:suffixes], asbytes=True), len(body), found)
    return _ZSTANDARD.compress(body, asbytes=True)  # type: ignore[no-any-return]


def _signed(integers: Any) -> Any:
    if integers.itemsize == 2:
        integers = integers.astype(np.uint32)
    return integers.view(np.int64 if integers.itemsize == 8 else np.int32)


def _levels(rows: int, valid: Any) -> bytes:
    """Definition levels: one bit per row, 1 for a value and 0 for null; a single RLE run if all rows agree."""
    any_valid = valid is None or bool(valid.any())
    runs = varint(rows << 1) + bytes([any_valid]) if valid is None or not any_valid else _packed(valid, 1)
    return len(runs).to_bytes(4, "little") + runs


def _packed(codes: Any, width: int) -> bytes:
    """A bit-packed run of codes that are ``width`` bits wide: 1, 2, 4, 8 or 16."""
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


def _dictionary_indices(words: int, codes: Any) -> bytes:
    """Each value's index in a dictionary of ``words`` words: the bit width, then one run."""
    width = next(width for width in (1, 2, 4, 8, 16) if words <= 1 << width)
    return bytes([width]) + (varint(len(codes) << 1) + b"\0" if words == 1 else _packed(codes, width))


def dictionary_encoded(texts: pl.Series) -> DictionaryColumn:
    """``texts``, which have few distinct values, as ``DictionaryColumn``."""
    valid = validity(texts)
    words, codes = _distinct_texts(texts if valid is None else texts.drop_nulls())
    if valid is not None:
        all_codes = np.full(texts.len(), len(words), np.uint16)
        all_codes[valid] = codes
        codes = all_codes
    return DictionaryColumn(words, np.array([*range(len(words)), NULL_INDEX], np.uint16), codes)


def _distinct_texts(texts: pl.Series) -> tuple[list[str], Any]:
    """The distinct texts in ascending order, and for each of ``texts`` its index among them."""
    words: list[str] = []
    rest = texts
    while len(rest) and len(words) < ONE_BY_ONE:
        words.append(rest[0])
        rest = rest.filter(rest != words[-1])
    words = sorted([*words, *rest.unique()])
    if len(rest):
        return words, texts.replace_strict(words, range(len(words)), return_dtype=pl.UInt16).to_numpy()
    codes = np.zeros(texts.len(), np.uint16)
    for index, word in enumerate(words[1:], 1):
        codes[(texts == word).to_numpy()] = index
    return words, codes
