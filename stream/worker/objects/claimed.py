"""Which versions of which objects are claimed: sixteen bytes for each, in memory and in the state.

A watched source may have claimed millions of objects when a worker starts, and reading every claim would take longer the older the
pipeline is. So 64 claims in a row are summed up in one object of the state, and 64 of those in another. They are made from claims alone,
which never change, so every worker makes the same ones, and any of them may be missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from stream.contracts import ObjectInfo
from stream.source.objects import PinnedObject

FAN: Final = 64
"""Claims in a block of the first level, and blocks of each level in one of the next."""

LEVELS: Final = 2

_CHUNK: Final = 2**16
_MERGED: Final = 16
"""Chunks that are merged into a larger one: a search looks at each chunk, and merging stops the event loop, for 0.1 s at this size."""

Digests: TypeAlias = npt.NDArray[np.uint64]

_DTYPE: Final = np.dtype("<u8")


class Block(msgspec.Struct, frozen=True):
    """What a run of claims claimed under ``url``: digests of keys and, in the same order, of versions, eight bytes each.

    ``bounded``: the numbers of those claims that have shards of their own. ``others``: the numbers of those that name other URLs, of which
    nothing is in the digests.
    """

    url: str
    keys: bytes
    versions: bytes
    bounded: tuple[int, ...] = ()
    others: tuple[int, ...] = ()


def block_key(stream: str, level: int, last: int) -> str:
    """Where the block of that level is kept whose last claim has the number ``last``."""
    return f"claimed/{stream}/{level}/{last:012d}"


def last_of(key: str) -> int:
    """The number of the last claim in the block under that key."""
    return int(key.rpartition("/")[2])


def joined(blocks: Sequence[Block]) -> Block:
    """One block in place of several in a row, which have the same URL."""
    return Block(
        blocks[0].url,
        b"".join(block.keys for block in blocks),
        b"".join(block.versions for block in blocks),
        tuple(number for block in blocks for number in block.bounded),
        tuple(number for block in blocks for number in block.others),
    )


def key_digest(key: str) -> int:
    """Eight bytes of a key's digest.

    Two keys with the same digest would be taken for two versions of one object: the second is refused, aloud. With a hundred million
    claimed objects, that happens to one new key in two hundred thousand million.
    """
    return _digest(key.encode("utf-8", "surrogatepass"))


def version_digest(size: int, version: str) -> int:
    """Eight bytes of the digest of an object's size and version."""
    return _digest(f"{size}:{version}".encode())


def _digest(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class Claimed:
    """The claimed objects under one URL."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._chunks: list[tuple[Digests, Digests]] = []
        self._large: list[tuple[Digests, Digests]] = []

    def __len__(self) -> int:
        """How many objects are claimed."""
        return len(self._recent) + sum(len(keys) for keys, _ in (*self._chunks, *self._large))

    def add(self, items: Iterable[tuple[str, PinnedObject]]) -> tuple[bytes, bytes]:
        """Add objects by their keys under the URL; returns the digests of keys and of versions, as a ``Block`` has them."""
        pairs = [(key_digest(key), version_digest(item.size, item.version)) for key, item in items]
        self._recent.update(pairs)
        if len(self._recent) >= _CHUNK:
            self._settle()
        return _bytes(key for key, _ in pairs), _bytes(version for _, version in pairs)

    def add_block(self, block: Block) -> None:
        """Add what a block holds, which was made under the URL."""
        keys, versions = (np.frombuffer(part, _DTYPE).astype(np.uint64) for part in (block.keys, block.versions))
        if len(keys):
            self._append(self._large if len(keys) >= _CHUNK else self._chunks, keys, versions)

    def versions(self, infos: Sequence[ObjectInfo]) -> list[int | None]:
        """For each of ``infos``, the digest of the version that is claimed; None if none is."""
        return self.of_keys([info.key for info in infos])

    def of_keys(self, names: Sequence[str]) -> list[int | None]:
        """For each key, the digest of the version that is claimed; None if none is."""
        digests = [key_digest(name) for name in names]
        found: list[int | None] = [self._recent.get(digest) for digest in digests]
        wanted = np.array(digests, np.uint64)
        for keys, versions in (*self._chunks, *self._large):
            places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            for index in np.flatnonzero(keys[places] == wanted):
                found[index] = int(versions[places[index]])
        return found

    def _settle(self) -> None:
        """Move recent entries, of which each takes a hundred bytes, into arrays."""
        keys = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        versions = np.fromiter(self._recent.values(), np.uint64, len(self._recent))
        self._recent = {}
        self._append(self._chunks, keys, versions)

    def _append(self, chunks: list[tuple[Digests, Digests]], keys: Digests, versions: Digests) -> None:
        order = np.argsort(keys, kind="stable")
        chunks.append((keys[order], versions[order]))
        if chunks is self._chunks and len(chunks) == _MERGED:
            keys, versions = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
            self._chunks = []
            self._append(self._large if len(keys) >= _CHUNK else self._chunks, keys, versions)


def _bytes(digests: Iterable[int]) -> bytes:
    return np.fromiter(digests, _DTYPE).tobytes()
