"""Packs spans and log records into OTLP requests of bounded size, compresses requests, and splits those that are too large.

A request is a plan: the bytes that its messages share, and the arrays with the fields that differ. Its bytes are generated only when
needed. The compiled kernel compresses while it generates, so the uncompressed body never exists in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
import pyarrow as pa
from isal import igzip

from stream.audit import wire
from stream.audit.wire import Piece
from stream.native import KERNEL

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"

SMALL: Final = 65_536
"""In bytes. Smaller requests go to a general-purpose compressor, which compresses them better at negligible cost."""


class Compression(StrEnum):
    """Content encodings of requests; every collector accepts gzip."""

    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Block:
    """``count`` messages of equal size. Message i uses row ``start + i`` of the pieces, or row ``chosen[start + i]`` (uint32)."""

    pieces: list[Piece]
    count: int
    start: int = 0
    chosen: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One export request. ``path`` is ``/v1/traces`` or ``/v1/logs``; ``items`` counts spans or log records.

    The body is ``head``, the messages of ``blocks``, then ``tail``: ``size`` bytes uncompressed.
    """

    path: str
    items: int
    size: int
    head: bytes
    blocks: tuple[Block, ...] = ()
    tail: bytes = b""

    @property
    def body(self) -> memoryview:
        """The request's uncompressed body, generated on each call."""
        body = np.empty(self.size, np.uint8)
        start, tail_start = len(self.head), self.size - len(self.tail)
        body[:start], body[tail_start:] = np.frombuffer(self.head, np.uint8), np.frombuffer(self.tail, np.uint8)
        for block in self.blocks:
            end = start + block.count * wire.width(block.pieces)
            wire.write(body[start:end].reshape(block.count, -1), block.pieces, block.start, block.chosen)
            start = end
        return body.data

    def __eq__(self, other: object) -> bool:
        """Whether both send the same bytes to the same path."""
        return isinstance(other, Request) and (self.path, self.items, self.body) == (other.path, other.items, other.body)

    __hash__ = None  # type: ignore[assignment]


def compressed(request: Request, compression: Compression) -> bytes | memoryview:
    """The request's body, compressed at the fastest level."""
    if compression is Compression.NONE:
        return bytes(request.body)
    # The kernel compresses what blocks describe; the halves of a request have none.
    if KERNEL is not None and request.size >= SMALL and request.blocks:
        compress = KERNEL.zstd if compression is Compression.ZSTD else KERNEL.gzip
        blocks = tuple((tuple(block.pieces), block.chosen, block.start, block.count) for block in request.blocks)
        return memoryview(compress(request.head, blocks, request.tail))
    if compression is Compression.ZSTD:
        packed: bytes = pa.Codec("zstd", compression_level=1).compress(request.body, asbytes=True)
        return packed
    return igzip.compress(request.body, compresslevel=1)


def split(request: Request) -> list[Request]:
    """The request as two requests of half the items each; an empty list if it has a single item."""
    if request.items < 2:
        return []
    preamble, messages = _unpacked(request.body)
    halves = []
    for part in (messages[: len(messages) // 2], messages[len(messages) // 2 :]):
        head, tail = _around(preamble, sum(map(len, part)))
        body = b"".join((head, *part, tail))
        halves.append(Request(request.path, len(part), len(body), body))
    return halves


def packed(path: str, preamble: tuple[bytes, bytes], blocks: Iterable[Block], limit: int) -> Iterator[Request]:
    """``blocks`` packed into requests of at most ``limit`` bytes, unless a single message is larger."""
    room = limit - len(preamble[0]) - len(preamble[1]) - len(SCHEMA_URL) - 64
    parts: list[Block] = []
    size = items = 0
    for block in blocks:
        width, done = wire.width(block.pieces), 0
        while done < block.count:
            take = min(block.count - done, max(1 if not items else 0, (room - size) // width))
            if take:
                parts.append(replace(block, count=take, start=block.start + done))
                size, items, done = size + take * width, items + take, done + take
            if done < block.count:
                yield _request(path, preamble, parts, size, items)
                parts, size, items = [], 0, 0
    if items:
        yield _request(path, preamble, parts, size, items)


def _request(path: str, preamble: tuple[bytes, bytes], parts: Iterable[Block], size: int, items: int) -> Request:
    head, tail = _around(preamble, size)
    return Request(path, items, len(head) + size + len(tail), head, tuple(parts), tail)


def _around(preamble: tuple[bytes, bytes], size: int) -> tuple[bytes, bytes]:
    """The bytes before and after ``size`` bytes of items in an ``ExportTraceServiceRequest`` or ``ExportLogsServiceRequest``.

    Both have the same field numbers.
    """
    resource, scope = preamble
    url = wire.text(3, SCHEMA_URL)
    inner = wire.prefixed(2, len(scope) + size + len(url))
    outer = wire.prefixed(1, len(resource) + len(inner) + len(scope) + size + 2 * len(url))
    return outer + resource + inner + scope, url + url


def _unpacked(body: memoryview) -> tuple[tuple[bytes, bytes], list[bytes]]:
    """The preamble and the items of a body, the inverse of ``_request``. Reads only what this module wrote."""
    _, offset = _length(body, 0)
    resource, offset = _field(body, offset)
    _, offset = _length(body, offset)
    scope, offset = _field(body, offset)
    items = []
    while body[offset] == 2 << 3 | 2:
        item, offset = _field(body, offset)
        items.append(item)
    return (resource, scope), items


def _field(body: memoryview, offset: int) -> tuple[bytes, int]:
    """The bytes of the field at ``offset``, with its key and length, and the offset after it."""
    size, start = _length(body, offset)
    return bytes(body[offset : start + size]), start + size


def _length(body: memoryview, offset: int) -> tuple[int, int]:
    """The length after the one-byte key at ``offset``, and the offset at which the content starts."""
    return wire.read_varint(body, offset + 1)
