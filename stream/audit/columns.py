"""The little of Parquet that ledger segments are written in: one row group, one page for each column.

A segment's bytes name it, and whoever finishes the unit of a worker that died should come to the same ones. So they do not change with the
version of a Parquet library, nor with whether the compiled kernel is there; of libraries, only Zstandard has a say.

What is used: optional columns; texts that rise, such as sequence numbers, as DELTA_BYTE_ARRAY; texts of a few kinds by dictionary; integers
as DELTA_BINARY_PACKED in blocks of 128 with four miniblocks; data pages of version 1, with Zstandard at level 1 where that makes a column
smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

from stream.audit import thrift
from stream.audit.ids import characters
from stream.audit.inside import known, numbers
from stream.audit.thrift import I32, I64, Struct, struct_list
from stream.audit.wire import varint
from stream.native import KERNEL, views

CREATED_BY: Final = "kinesis-stream version 1 (build ledger)"
"""Readers look here for the errors of known writers; it names the form of the file, not the release."""

ONE_BY_ONE: Final = 8
"""Different texts that are looked for one by one; a few comparisons of a column cost less than a table of hashes."""

BLOCK: Final = 128
MINIBLOCK: Final = 32

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
"""Physical type, and the old and the new way to say what it stands for."""


NOTHING: Final = 0xFFFF
"""Place of the word of a row that has none."""

_INTEGERS, _TEXTS, _CODES = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of texts of which few are different: ``words`` in ascending order, and for each row a code.

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
class _Chunk:
    """A column's pages as they stand in the file, and what the footer says of them; offsets count from the chunk's begin."""

    name: str
    kind: Any
    body: bytes
    data_at: int
    codec: int
    encodings: tuple[int, ...]
    values: int
    raw: int
    statistics: Struct


def parquet(columns: Mapping[str, Column], rows: int, metadata: Mapping[bytes, bytes]) -> bytes:
    """Columns of so many rows as a Parquet file. Equal columns give equal bytes."""
    given = list(columns.values())
    pages = _pages(given) if rows else []
    chunks = [_chunk(name, column, page, rows) for (name, column), page in zip(columns.items(), pages, strict=False)]
    schema = {name: _kind(column) for name, column in columns.items()}
    parts, at, groups = [_MAGIC], len(_MAGIC), []
    for chunk in chunks:
        groups.append(_column(chunk, at))
        parts.append(chunk.body)
        at += len(chunk.body)
    row_group = Struct({1: struct_list(groups), 2: I64(sum(chunk.raw for chunk in chunks)), 3: I64(rows)})
    footer = Struct(
        {
            1: I32(2),
            2: thrift.List(
                thrift.STRUCT,
                (Struct({4: b"schema", 5: I32(len(schema))}).encode(), *(_element(*column) for column in schema.items())),
            ),
            3: I64(rows),
            4: struct_list([row_group] if chunks else []),
            5: struct_list([Struct({1: key, 2: value}) for key, value in metadata.items()]),
            6: CREATED_BY.encode(),
            7: struct_list([Struct({1: Struct({})})] * len(schema)),
        }
    ).encode()
    return b"".join((*parts, footer, len(footer).to_bytes(4, "little"), _MAGIC))


@cache
def _element(name: str, kind: pl.DataType) -> bytes:
    physical, converted, logical = _TYPES[kind]
    fields: dict[int, Any] = {1: I32(physical), 3: I32(_OPTIONAL), 4: name.encode()}
    if converted is not None:
        fields |= {6: I32(converted), 10: logical}
    return Struct(fields).encode()


def _column(chunk: _Chunk, at: int) -> Struct:
    meta: dict[int, Any] = {
        1: I32(_TYPES[chunk.kind][0]),
        2: thrift.int_list(chunk.encodings),
        3: thrift.text_list((chunk.name.encode(),)),
        4: I32(chunk.codec),
        5: I64(chunk.values),
        6: I64(chunk.raw),
        7: I64(len(chunk.body)),
        9: I64(at + chunk.data_at),
    }
    if chunk.data_at:
        meta[11] = I64(at)
    meta[12] = chunk.statistics
    return Struct({2: I64(at), 3: Struct(meta)})


def _kind(column: Column) -> Any:
    return pl.String() if isinstance(column, Coded) else column.dtype


def _chunk(name: str, column: Column, page: _Page, rows: int) -> _Chunk:
    kind = _kind(column)
    statistics: dict[int, Any] = {3: I64(page.nulls)}
    pages: list[tuple[bytes | memoryview, Struct, int]] = []
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
    head = Struct({1: I32(rows), 2: I32(encoding), 3: I32(_RLE), 4: I32(_RLE)})
    pages.append((page.body, head, _DATA_PAGE))
    return _laid_out((name, kind), rows, pages, encoding, Struct(statistics))


def _fixed(value: int, width: int) -> bytes:
    return (value & (1 << 8 * width) - 1).to_bytes(width, "little")


def _pages(columns: Sequence[Column]) -> list[_Page]:
    if KERNEL is None:
        return [_page(column) for column in columns]
    return [_Page(memoryview(body), *told) for body, *told in KERNEL.chunks(tuple(_given(column) for column in columns))]


def _given(column: Column) -> tuple[Any, ...]:
    """What the kernel has to know of a column."""
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
    """What the kernel makes of a column, too."""
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


def _laid_out(
    column: tuple[str, Any], rows: int, pages: list[tuple[bytes | memoryview, Struct, int]], encoding: int, statistics: Struct
) -> _Chunk:
    """The pages one behind the other, compressed if that makes them smaller."""
    whole = sum(len(body) for body, _, _ in pages)
    squeezed = [body if whole <= SMALL else _ZSTANDARD.compress(body, asbytes=True) for body, _, _ in pages]
    smaller = sum(len(body) for body in squeezed) < whole
    parts: list[bytes | memoryview] = []
    raw = data_at = 0
    for (body, own, kind), packed in zip(pages, squeezed, strict=True):
        stored = packed if smaller else body
        field = 5 if kind == _DATA_PAGE else 7
        head = Struct({1: I32(kind), 2: I32(len(body)), 3: I32(len(stored)), field: own}).encode()
        if kind == _DATA_PAGE:
            data_at = sum(len(part) for part in parts)
        parts += [head, stored]
        raw += len(head) + len(body)
    encodings = (_RLE, encoding) if encoding != _RLE_DICTIONARY else (_PLAIN, _RLE, _RLE_DICTIONARY)
    codec_number = _ZSTD if smaller else _UNCOMPRESSED
    return _Chunk(*column, b"".join(parts), data_at, codec_number, encodings, rows, raw, statistics)


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
    """Each value's place in a dictionary of so many words."""
    width = next(width for width in (1, 2, 4, 8, 16) if words <= 1 << width)
    return bytes([width]) + (varint(len(codes) << 1) + b"\0" if words == 1 else _packed(codes, width))


def coded(texts: pl.Series) -> Coded:
    """A column of few different texts."""
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


def delta_texts(texts: pl.Series) -> bytes | memoryview:
    """DELTA_BYTE_ARRAY: of each text, how much it shares with the one before, how long its rest is, and the rest."""
    if KERNEL is not None:
        return memoryview(KERNEL.delta_texts(*views(texts)))
    lengths = texts.str.len_bytes().to_numpy().astype(np.int32)
    width = -(-int(lengths.max(initial=1)) // 8) * 8
    table = characters(texts, width)
    prefixes = np.zeros(len(lengths), np.int32)
    prefixes[1:] = np.minimum(_agreeing(table), np.minimum(lengths[1:], lengths[:-1]))
    small: Any = np.uint8 if width <= 255 else np.int32
    place: Any = np.arange(width, dtype=small)
    rests = table[(place >= prefixes.astype(small)[:, None]) & (place < lengths.astype(small)[:, None])]
    return b"".join((delta_integers(prefixes), delta_integers(lengths - prefixes), rests.tobytes()))


def _agreeing(table: Any) -> Any:
    """How many bytes at their beginning each row but the first has in common with the row before."""
    words = table.view("<u8")
    changed = words[1:] ^ words[:-1]
    first = (changed != 0).argmax(axis=1)
    word = changed[np.arange(len(changed)), first]
    lowest = (word & (~word + np.uint64(1))).astype(np.float64)
    inside = np.log2(lowest, where=word != 0, out=np.zeros(len(word))).astype(np.int64) // 8
    return np.where(word == 0, table.shape[1], first * 8 + inside)


def delta_integers(values: Any) -> bytes | memoryview:
    """DELTA_BINARY_PACKED of int32 or int64; differences wrap around within them."""
    if KERNEL is not None:
        return memoryview(KERNEL.delta_integers(np.ascontiguousarray(values), values.itemsize))
    first = int(values[0]) if len(values) else 0
    head = varint(BLOCK) + varint(BLOCK // MINIBLOCK) + varint(len(values)) + varint(thrift.zigzag(first))
    if len(values) < 2:
        return head
    unsigned = np.dtype(f"u{values.itemsize}")
    deltas = (values.view(unsigned)[1:] - values.view(unsigned)[:-1]).view(values.dtype)
    full = np.full(-(-len(deltas) // BLOCK) * BLOCK, deltas[-1])
    full[: len(deltas)] = deltas
    blocks = full.reshape(-1, BLOCK)
    least = blocks.min(axis=1)
    above = blocks.view(unsigned) - least.view(unsigned)[:, None]
    above.reshape(-1)[len(deltas) :] = 0
    minis = above.reshape(-1, MINIBLOCK)
    widths = [int(most).bit_length() for most in minis.max(axis=1)]
    packed = _bits(minis, np.array(widths))
    parts, per = [head], BLOCK // MINIBLOCK
    for block, lowest in enumerate(least.tolist()):
        at = block * per
        parts += [varint(thrift.zigzag(lowest)), bytes(widths[at : at + per]), *packed[at : at + per]]
    return b"".join(parts)


def _bits(minis: Any, widths: Any) -> list[bytes]:
    """Each row of ``minis`` in as many bits a value as ``widths`` says."""
    found = [b""] * len(minis)
    for width in np.unique(widths).tolist():
        if width:
            places = np.flatnonzero(widths == width)
            bits = minis[places][:, :, None] >> np.arange(width, dtype=minis.dtype) & minis.dtype.type(1)
            rows = np.packbits(bits.astype(np.uint8).reshape(len(places), -1), axis=1, bitorder="little")
            for place, row in zip(places.tolist(), rows, strict=True):
                found[place] = row.tobytes()
    return found
