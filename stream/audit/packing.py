"""Spans and log records dealt out to OTLP requests of bounded size, compressed for the way, and requests cut in two again.

A request is a plan: what its messages share and where their fields lie. Its bytes come about when somebody asks for them, and where
the compiled kernel is there they are compressed while they come about, so that most of them never exist.
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
"""Bytes; below, a compressor that searches for what repeats gets less out of a request, and costs nothing worth saving."""


class Compression(StrEnum):
    """Content encoding of requests; every collector takes gzip."""

    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Block:
    """``count`` messages of one width. Message i takes row ``start + i`` of the pieces, or the row that ``chosen`` (uint32) has there."""

    pieces: list[Piece]
    count: int
    start: int = 0
    chosen: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One export request, not compressed. ``path`` is ``/v1/traces`` or ``/v1/logs``; ``items`` counts spans or log records.

    ``head`` and ``tail`` stand around what ``blocks`` describe, ``size`` bytes in all.
    """

    path: str
    items: int
    size: int
    head: bytes
    blocks: tuple[Block, ...] = ()
    tail: bytes = b""

    @property
    def body(self) -> memoryview:
        """The request's bytes, made anew each time."""
        body = np.empty(self.size, np.uint8)
        at, end = len(self.head), self.size - len(self.tail)
        body[:at], body[end:] = np.frombuffer(self.head, np.uint8), np.frombuffer(self.tail, np.uint8)
        for block in self.blocks:
            behind = at + block.count * wire.width(block.pieces)
            wire.write(body[at:behind].reshape(block.count, -1), block.pieces, block.start, block.chosen)
            at = behind
        return body.data

    def __eq__(self, other: object) -> bool:
        """Whether both send the same bytes to the same path."""
        return isinstance(other, Request) and (self.path, self.items, self.body) == (other.path, other.items, other.body)

    __hash__ = None  # type: ignore[assignment]


def compressed(request: Request, compression: Compression) -> bytes:
    """The request's body at the cheapest level."""
    if compression is Compression.NONE:
        return bytes(request.body)
    # The kernel compresses what blocks describe; the halves of a request have none.
    if KERNEL is not None and request.size >= SMALL and request.blocks:
        weave = KERNEL.zstd if compression is Compression.ZSTD else KERNEL.gzip
        woven: bytes = weave(
            request.head, tuple((tuple(each.pieces), each.chosen, each.start, each.count) for each in request.blocks), request.tail
        )
        return woven
    if compression is Compression.ZSTD:
        packed: bytes = pa.Codec("zstd", compression_level=1).compress(request.body, asbytes=True)
        return packed
    return igzip.compress(request.body, compresslevel=1)


def split(request: Request) -> list[Request]:
    """The request as two halves, or nothing if it holds a single item."""
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
    """Blocks dealt out to requests of at most ``limit`` bytes."""
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
    """What comes before and after ``size`` bytes of items in an ``ExportTraceServiceRequest`` or ``ExportLogsServiceRequest``.

    The two have the same field numbers.
    """
    resource, scope = preamble
    url = wire.text(3, SCHEMA_URL)
    inner = wire.prefixed(2, len(scope) + size + len(url))
    outer = wire.prefixed(1, len(resource) + len(inner) + len(scope) + size + 2 * len(url))
    return outer + resource + inner + scope, url + url


def _unpacked(body: memoryview) -> tuple[tuple[bytes, bytes], list[bytes]]:
    """The inverse of ``_request``, items apart; reads what this module wrote and nothing else."""
    _, at = _length(body, 0)
    end, start = _length(body, at)
    resource = bytes(body[at : start + end])
    _, at = _length(body, start + end)
    end, start = _length(body, at)
    scope = bytes(body[at : start + end])
    items = []
    at = start + end
    while body[at] == 2 << 3 | 2:
        size, start = _length(body, at)
        items.append(bytes(body[at : start + size]))
        at = start + size
    return (resource, scope), items


def _length(body: memoryview, at: int) -> tuple[int, int]:
    """The length that follows the one-byte key at ``at``, and where the content starts."""
    size = shift = 0
    at += 1
    while True:
        digit = body[at]
        size |= (digit & 0x7F) << shift
        shift += 7
        at += 1
        if digit < 0x80:
            return size, at
