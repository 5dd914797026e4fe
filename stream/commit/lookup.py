"""Finds units and shards in a long log with few listings. Stores list keys in ascending order; a unit's key contains its *start*."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from stream.batch import ORIGIN
from stream.commit.naming import SEQUENCE_DIGITS, genesis_key, manifest_key, shard_prefix
from stream.contracts import ObjectStore

PAGE: Final = 1000
"""Keys that S3 returns in one response; a request for fewer costs the same."""

_SUFFIX: Final = ".json"


def position_of(key: str, prefix: str) -> int | None:
    """The sequence number after which the unit with the manifest ``key`` starts; None if ``key`` is no manifest key under ``prefix``."""
    name = key.removeprefix(prefix).removesuffix(_SUFFIX)
    whole = key == f"{prefix}{name}{_SUFFIX}" and len(name) == SEQUENCE_DIGITS
    return int(name) if whole and name.isascii() and name.isdigit() else None


async def unit_start(store: ObjectStore, stream: str, shard_id: str, sequence: int) -> int | None:
    """The start of the unit that contains ``sequence``, if any does: the greatest start below it, or None if there is none.

    Bisects the interval of possible starts: each listing ends the search, raises the lower bound to an existing start, or halves the
    interval. If starts are evenly spread, this takes about log2(units / 1000) listings. The first one is from the beginning: nearly all
    of the interval lies between the start of the first unit and that of the second, and halving it would take hundreds of listings.
    """
    prefix = shard_prefix(stream, shard_id)
    best, low, high, probe = None, ORIGIN, sequence, ORIGIN
    while low < high:
        starts, more = await _starts(store, prefix, manifest_key(stream, shard_id, probe - 1) if probe > ORIGIN else "")
        below = [start for start in starts if start < sequence]
        if below:
            best, low = below[-1], below[-1] + 1
            if len(below) < len(starts) or not more:
                break
        else:
            high = probe
        probe = (low + high) // 2
    return best


async def last_starts(store: ObjectStore, stream: str, shard_id: str, count: int, near: int = ORIGIN) -> list[int]:
    """The starts of a shard's newest ``count`` units (``count`` below ``PAGE``), ascending; all starts if there are fewer units.

    ``near`` is a guess at the newest start: the closer it is, the fewer listings are needed. At best, that is a little over
    log2(units / 1000) listings; without a guess, about three times as many.
    """
    prefix = shard_prefix(stream, shard_id)
    starts, more = await _starts(store, prefix, "")
    low, high = starts[-1] if starts else ORIGIN, near + 1
    stride = low - starts[len(starts) // 2] if starts else ORIGIN
    while more:
        # Beyond ``near``, the stride doubles each time. It starts as the width of half a page of units at the log's beginning.
        probe = (low + high) // 2 if low < high else min(low + stride, 10**SEQUENCE_DIGITS - 1)
        found, more_found = await _starts(store, prefix, manifest_key(stream, shard_id, probe))
        if more_found:
            starts, low, stride = found, found[-1], 2 * stride
            continue
        if len(found) >= count:
            return found[-count:]
        high = probe
        following, more = await _starts(store, prefix, manifest_key(stream, shard_id, low))
        starts, low = ([*starts, *following], low) if not more else (following, following[-1])
    return starts[-count:]


async def starts_of(store: ObjectStore, stream: str, chain: str) -> AsyncIterator[int]:
    """The starts of all units of a chain, ascending: one listing for each thousand."""
    prefix = shard_prefix(stream, chain)
    async for info in store.list(prefix):
        start = position_of(info.key, prefix)
        if start is not None:
            yield start


async def shards_of(store: ObjectStore, stream: str) -> AsyncIterator[str]:
    """The ids of all shards that have a chain, ascending. Takes one listing per thousand shards, however long their chains are."""
    for name in await store.folders(f"commits/{stream}/"):
        yield name


async def is_chain(store: ObjectStore, stream: str, name: str) -> bool:
    """Whether the folder ``name`` of the stream's log has a link in it: what somebody else put there has none."""
    prefix = shard_prefix(stream, name)
    async with aclosing(store.list(prefix)) as listing:  # type: ignore[type-var]
        async for info in listing:
            if position_of(info.key, prefix) is not None or info.key == genesis_key(stream, name):
                return True
    return False


async def streams_of(store: ObjectStore) -> AsyncIterator[str]:
    """The names of all streams for which the application has a log, in store order."""
    for name in await store.folders("commits/"):
        yield name


async def _starts(store: ObjectStore, prefix: str, after: str) -> tuple[list[int], bool]:
    """The starts of up to ``PAGE`` units whose keys sort after ``after``, ascending, and whether there may be more."""
    starts: list[int] = []
    seen = 0
    async with aclosing(store.list(prefix, after)) as listing:  # type: ignore[type-var]
        async for info in listing:
            seen += 1
            start = position_of(info.key, prefix)
            if start is not None:
                starts.append(start)
            if seen >= PAGE:
                return starts, True
    return starts, False
