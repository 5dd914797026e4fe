"""Avro object container files (Avro 1.12, "Object Container Files"): a header with the schema, then blocks of encoded rows."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import lzma
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import pyarrow as pa

MAGIC: Final = b"Obj\x01"
SYNC_BYTES: Final = 16
MOST_BLOCK_BYTES: Final = 256 * 2**20
"""The most that a block may have, compressed or not: a block is read as a whole. Writers make blocks of 16 kB to a few MB."""
_WINDOW: Final = -15
"""Raw deflate, without zlib's header, as the specification demands."""


@dataclass(frozen=True, slots=True)
class Block:
    """``rows`` rows and their encoding, not compressed."""

    rows: int
    data: bytes


def written(schema: Any, codec: str, level: int | None, blocks: Iterable[Block]) -> bytes:
    """A container file. ``codec``: null, deflate, snappy or zstandard.

    The sync marker is a digest of everything else, so that equal rows give equal files, and yet no row can contain the marker on purpose.
    """
    head = bytearray(MAGIC)
    metadata = {"avro.codec": codec.encode(), "avro.schema": json.dumps(schema, separators=(",", ":"), ensure_ascii=False).encode()}
    head += _long(len(metadata))
    for name, value in metadata.items():
        head += _long(len(name)) + name.encode() + _long(len(value)) + value
    head += _long(0)
    packed = [(_long(block.rows), _compressed(block.data, codec, level)) for block in blocks]
    digest = hashlib.sha256(head)
    parts: list[bytes] = []
    for rows, data in packed:
        size = _long(len(data))
        for part in (rows, size, data):
            digest.update(part)
        parts += [rows, size, data, b""]
    marker = digest.digest()[:SYNC_BYTES]
    parts[3::4] = [marker] * len(packed)
    return b"".join([bytes(head), marker, *parts])


@dataclass(frozen=True, slots=True)
class Container:
    """The content of a container file."""

    schema: Any
    codec: str
    blocks: tuple[Block, ...]


def read(body: bytes) -> Container:
    """The content of ``body``.

    Raises:
        ValueError: it is no container file, or a damaged one.
    """
    reader = Reader(io.BytesIO(body))
    return Container(reader.schema, reader.codec, tuple(Block(rows, reader.plain(data)) for rows, data in reader.blocks()))


class Reader:
    """Reads a container file from its beginning, block by block. ``schema`` and ``codec`` are those of its header.

    Raises:
        ValueError: it is no container file, or a damaged one; every block before the damage has been given.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._cursor = _Cursor(file)
        if self._cursor.some(len(MAGIC)) != MAGIC:
            msg = "it does not begin like an Avro container file"
            raise ValueError(msg)
        metadata = dict(_metadata(self._cursor))
        self._marker = self._cursor.take(SYNC_BYTES)
        self.codec = metadata.get("avro.codec", b"null").decode()
        if "avro.schema" not in metadata:
            msg = "its header has no schema"
            raise ValueError(msg)
        self.schema: Any = json.loads(metadata["avro.schema"])

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """The number of rows of each block, and its data as ``plain`` takes them."""
        number = 0
        while (rows := self._cursor.long_or_end()) is not None:
            data = self._cursor.take(self._cursor.long())
            if rows < 0 or self._cursor.take(SYNC_BYTES) != self._marker:
                msg = f"block {number} does not end with the sync marker" if rows >= 0 else f"block {number} has {rows} rows"
                raise ValueError(msg)
            yield rows, data
            number += 1

    def plain(self, data: bytes) -> bytes:
        """The encoded rows of a block."""
        return _plain(data, self.codec)


def _metadata(cursor: _Cursor) -> Iterator[tuple[str, bytes]]:
    while count := cursor.long():
        if count < 0:
            count = -count
            cursor.long()  # the size of the entries in bytes
        for _ in range(count):
            name = cursor.take(cursor.long()).decode()
            yield name, cursor.take(cursor.long())


class _Cursor:
    """A position in a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def some(self, size: int) -> bytes:
        """The next ``size`` bytes, or fewer at the end."""
        parts = []
        while size > 0 and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def take(self, size: int) -> bytes:
        if size > MOST_BLOCK_BYTES:
            raise ValueError(_too_large())
        part = self.some(size)
        if size < 0 or len(part) != size:
            msg = "it is cut off"
            raise ValueError(msg)
        return part

    def long(self) -> int:
        value = self.long_or_end()
        if value is None:
            msg = "it is cut off"
            raise ValueError(msg)
        return value

    def long_or_end(self) -> int | None:
        """A number, or None if there is nothing more."""
        first = self._file.read(1)
        if not first:
            return None
        byte, value, shift = first[0], 0, 0
        while True:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            if shift > 63:
                msg = "a number in it has more than 64 bits"
                raise ValueError(msg)
            (byte,) = self.take(1)


def _too_large() -> str:
    return f"a block of it has more than {MOST_BLOCK_BYTES // 2**20} MiB, and is read as a whole"


def _long(value: int) -> bytes:
    """A non-negative number, zigzag and of variable length."""
    left, made = value << 1, bytearray()
    while left > 0x7F:
        made.append(left & 0x7F | 0x80)
        left >>= 7
    made.append(left)
    return bytes(made)


def _compressed(data: bytes, codec: str, level: int | None) -> bytes:
    if codec == "deflate":
        packer = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION if level is None else level, zlib.DEFLATED, _WINDOW)
        return packer.compress(data) + packer.flush()
    if codec == "snappy":
        snappy: bytes = pa.Codec("snappy").compress(data, asbytes=True)
        return snappy + struct.pack(">I", zlib.crc32(data))
    if codec == "zstandard":
        zstd: bytes = pa.Codec("zstd", compression_level=level).compress(data, asbytes=True)
        return zstd
    return data


def _plain(data: bytes, codec: str) -> bytes:
    """The content of a block, as long as it has no more than ``MOST_BLOCK_BYTES``: a few bytes can stand for gigabytes.

    Raises:
        ValueError: it has more, is damaged, or the codec is none of those that can be read.
    """
    if codec == "null":
        return data
    unpack = _UNPACK.get(codec)
    if unpack is None:
        msg = f"its codec is {codec}; null, {', '.join(sorted(_UNPACK))} can be read"
        raise ValueError(msg)
    try:
        plain = unpack(data)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, pa.ArrowException) as error:
        msg = f"a block cannot be decompressed: {error}"
        raise ValueError(msg) from error
    if len(plain) > MOST_BLOCK_BYTES:
        raise ValueError(_too_large())
    return plain


def _inflated(data: bytes) -> bytes:
    return _to_its_end(zlib.decompressobj(_WINDOW), data)


def _to_its_end(unpacker: Any, data: bytes) -> bytes:
    plain: bytes = unpacker.decompress(data, MOST_BLOCK_BYTES + 1)
    # After the end, fastavro leaves a part of zlib's checksum.
    if len(plain) <= MOST_BLOCK_BYTES and not unpacker.eof:
        msg = "the data end too early"
        raise EOFError(msg)
    return plain


def _unzstd(data: bytes) -> bytes:
    return bytes(pa.input_stream(pa.BufferReader(data), compression="zstd").read(MOST_BLOCK_BYTES + 1))


def _unsnap(data: bytes) -> bytes:
    size = _snappy_size(data)
    if size > MOST_BLOCK_BYTES:
        raise ValueError(_too_large())
    plain = bytes(pa.Codec("snappy").decompress(data[:-4], size, asbytes=True))
    if zlib.crc32(plain) != int.from_bytes(data[-4:], "big"):
        msg = "the checksum is another one"
        raise OSError(msg)
    return plain


_UNPACK: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "bzip2": lambda data: _to_its_end(bz2.BZ2Decompressor(), data),
    "deflate": _inflated,
    "snappy": _unsnap,
    "xz": lambda data: _to_its_end(lzma.LZMADecompressor(), data),
    "zstandard": _unzstd,
}


def _snappy_size(data: bytes) -> int:
    """The decompressed size, which snappy data begins with."""
    size, shift = 0, 0
    for byte in data[:5]:
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return size
