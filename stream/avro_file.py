"""Avro object container files (Avro 1.12, "Object Container Files"): a header with the schema, then blocks of encoded rows."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

MAGIC: Final = b"Obj\x01"
SYNC_BYTES: Final = 16
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
    if not body.startswith(MAGIC):
        msg = "it does not begin like an Avro container file"
        raise ValueError(msg)
    cursor = _Cursor(body, len(MAGIC))
    metadata = dict(_metadata(cursor))
    marker = cursor.take(SYNC_BYTES)
    codec = metadata.get("avro.codec", b"null").decode()
    blocks: list[Block] = []
    while not cursor.at_end:
        rows, data = cursor.long(), cursor.take(cursor.long())
        if cursor.take(SYNC_BYTES) != marker:
            msg = f"block {len(blocks)} does not end with the sync marker"
            raise ValueError(msg)
        blocks.append(Block(rows, _plain(data, codec)))
    if "avro.schema" not in metadata:
        msg = "its header has no schema"
        raise ValueError(msg)
    return Container(json.loads(metadata["avro.schema"]), codec, tuple(blocks))


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

    def __init__(self, body: bytes, at: int) -> None:
        self._body = body
        self._at = at

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._body)

    def take(self, size: int) -> bytes:
        part = self._body[self._at : self._at + size]
        if size < 0 or len(part) != size:
            msg = "it is cut off"
            raise ValueError(msg)
        self._at += size
        return part

    def long(self) -> int:
        value, shift = 0, 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)


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
    if codec == "null":
        return data
    if codec == "deflate":
        try:
            return zlib.decompress(data, _WINDOW)
        except zlib.error as error:
            msg = f"a block cannot be decompressed: {error}"
            raise ValueError(msg) from error
    if codec == "zstandard":
        return bytes(pa.input_stream(pa.BufferReader(data), compression="zstd").read())
    if codec == "snappy":
        size = _snappy_size(data)
        return bytes(pa.Codec("snappy").decompress(data[:-4], size, asbytes=True))
    msg = f"its codec is {codec}; null, deflate, snappy and zstandard can be read"
    raise ValueError(msg)


def _snappy_size(data: bytes) -> int:
    """The decompressed size, which snappy data begins with."""
    size, shift = 0, 0
    for byte in data:
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return size
