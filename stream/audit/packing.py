"""Spans and log records dealt out to OTLP requests of bounded size, and requests cut in two again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from stream.audit import wire
from stream.audit.wire import Piece

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"


@dataclass(frozen=True, slots=True)
class Request:
    """One export request, not compressed. ``path`` is ``/v1/traces`` or ``/v1/logs``; ``items`` counts spans or log records."""

    path: str
    body: memoryview
    items: int


@dataclass(frozen=True, slots=True)
class Block:
    """``count`` messages of one width."""

    pieces: list[Piece]
    count: int


def split(request: Request) -> list[Request]:
    """The request as two halves, or nothing if it holds a single item."""
    preamble, items = _unpacked(request.body)
    if len(items) < 2:
        return []
    halves = []
    for part in (items[: len(items) // 2], items[len(items) // 2 :]):
        head, tail = _around(preamble, sum(map(len, part)))
        halves.append(Request(request.path, memoryview(b"".join((head, *part, tail))), len(part)))
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
                parts.append(Block(wire.part(block.pieces, done, done + take), take))
                size, items, done = size + take * width, items + take, done + take
            if done < block.count:
                yield Request(path, _rendered(preamble, parts, size), items)
                parts, size, items = [], 0, 0
    if items:
        yield Request(path, _rendered(preamble, parts, size), items)


def _rendered(preamble: tuple[bytes, bytes], parts: Iterable[Block], size: int) -> memoryview:
    """The request with the items of ``parts``, written straight to where they belong: copying them is what would take the time."""
    head, tail = _around(preamble, size)
    body = np.empty(len(head) + size + len(tail), np.uint8)
    body[: len(head)], body[len(head) + size :] = np.frombuffer(head, np.uint8), np.frombuffer(tail, np.uint8)
    at = len(head)
    for block in parts:
        end = at + block.count * wire.width(block.pieces)
        wire.write(body[at:end].reshape(block.count, -1), block.pieces)
        at = end
    return body.data


def _around(preamble: tuple[bytes, bytes], size: int) -> tuple[bytes, bytes]:
    """What stands before and behind ``size`` bytes of items in an ``ExportTraceServiceRequest`` or ``ExportLogsServiceRequest``.

    The two have the same field numbers.
    """
    resource, scope = preamble
    url = wire.text(3, SCHEMA_URL)
    inner = wire.prefixed(2, len(scope) + size + len(url))
    outer = wire.prefixed(1, len(resource) + len(inner) + len(scope) + size + 2 * len(url))
    return outer + resource + inner + scope, url + url


def _unpacked(body: memoryview) -> tuple[tuple[bytes, bytes], list[bytes]]:
    """The inverse of ``_rendered``, items apart; reads what this module wrote and nothing else."""
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
