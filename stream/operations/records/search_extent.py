"""How much of the log a search for records goes through: which units, and what was found on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final

from stream.audit.chain import Bounds, arrivals
from stream.batch import ORIGIN
from stream.commit.lookup import last_starts, starts_of
from stream.commit.naming import manifest_key
from stream.contracts import Checkpoints, ObjectStore, Shard
from stream.operations.compaction.opening import MARGIN
from stream.worker.opening.links import link_of

ALL: Final = Bounds()

MOST_FOUND: Final = 1_000
"""Records at which a search ends: nobody reads more, and each takes memory."""


@dataclass(slots=True)
class SearchExtent:
    """How much was searched. ``gone``: files that are not there any more; ``without_ledger``: units whose ledger cannot be read.

    ``columns``: how many files have each column of the search, ``whole``: how many have all of them. ``letters``: dead letters that were
    looked into; ``by_text``: those that were found by their bytes alone. ``left``: units that were not searched, or not to their ends,
    because enough had been found.
    """

    units: int = 0
    files: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    gone: int = 0
    without_ledger: int = 0
    letters: int = 0
    by_text: int = 0
    left: int = 0

    def add(self, other: SearchExtent) -> None:
        """Count what ``other`` counts, too."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


async def newest_starts(store: ObjectStore, checkpoints: Checkpoints, shard: Shard, units: int) -> list[int]:
    """The starts of the newest ``units`` of a chain, ascending."""
    near = await checkpoints.read(shard)
    position = near.unit_after if near is not None else ORIGIN
    ended = near is not None and near.position is None  # then the last link is the shard's end
    return await last_starts(store, shard.stream, shard.shard_id, units + ended, max(ORIGIN, position))


async def starts_within(store: ObjectStore, shard: Shard, bounds: Bounds) -> list[int]:
    """The starts, ascending, of all units of a chain that may touch ``bounds``. About two dozen manifests are read to find them."""
    starts = [each async for each in starts_of(store, shard.stream, shard.shard_id)]

    async def first(is_beyond: Callable[[datetime | None, datetime | None], bool]) -> int:
        low, high = 0, len(starts)
        while low < high:
            middle = (low + high) // 2
            key = manifest_key(shard.stream, shard.shard_id, starts[middle])
            stored = await store.get(key)
            beyond = stored is not None and is_beyond(*arrivals(link_of(key, stored.body, starts[middle])))
            low, high = (low, middle) if beyond else (middle + 1, high)
        return low

    begin, end = bounds.begin, bounds.end
    # Arrival times of one shard are not quite in order. A link without them, such as a gap, leaves more units to look at.
    lowest = 0 if begin is None else await first(lambda _, last: last is None or last >= begin - MARGIN)
    highest = len(starts) if end is None else await first(lambda oldest, _: oldest is not None and oldest >= end + MARGIN)
    return starts[lowest:highest]
