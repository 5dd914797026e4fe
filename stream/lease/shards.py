"""The shard graph: which shards may be read when, and which lease rows must exist. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from stream.batch import ORIGIN
from stream.contracts import Shard, StartKind
from stream.lease.rows import AT_TIMESTAMP, LATEST, TRIM_HORIZON, ExtendedSequenceNumber, Lease

SENTINELS: Final = {StartKind.TRIM_HORIZON: TRIM_HORIZON, StartKind.LATEST: LATEST, StartKind.AT_TIMESTAMP: AT_TIMESTAMP}
HASH_KEYS: Final = 2**128


def ready(shards: Iterable[Shard], ended: Collection[str], started: Collection[str]) -> list[Shard]:
    """The shards to start now, ordered by id.

    A shard is ready if it is neither in ``ended`` nor in ``started``, and each of its parents (two after a merge) is in ``ended`` or no
    longer listed by Kinesis (so not among ``shards``).
    """
    listed = list(shards)
    waiting = {shard.shard_id for shard in listed}.difference(ended)
    fresh = waiting.difference(started)
    return sorted(
        (shard for shard in listed if shard.shard_id in fresh and waiting.isdisjoint(shard.parents)),
        key=lambda shard: shard.shard_id,
    )


def children_of(shards: Iterable[Shard], shard_id: str) -> list[Shard]:
    """The shards that continue ``shard_id``: two after a split, one after a merge, none while it is open; ordered by id."""
    return sorted((shard for shard in shards if shard_id in shard.parents), key=lambda shard: shard.shard_id)


def recreated(shard: Shard, end: int, children: Collection[str], listed: Iterable[Shard]) -> bool:
    """Whether ``shard``, one of ``listed``, is not the shard that the log has read to its end (at the record ``end``), but a new one.

    If a stream is deleted and created again under its name, shard ids start over, while sequence numbers keep rising. ``children``: the
    children of the shard in the log. For a shard without records and children this cannot be determined.
    """
    # A gap may end right before the shard's first number.
    later = end != ORIGIN and shard.begins > end + 1
    return later or (shard.is_open and bool(children) and not children_of(listed, shard.shard_id))


def unblocked(lease: Lease, leases: Mapping[str, Lease]) -> bool:
    """Whether the shard of ``lease`` may be read: each parent that has a lease has ended. ``leases`` by shard id."""
    return all(leases[parent].ended for parent in lease.parents if parent in leases)


def missing_leases(shards: Iterable[Shard], leases: Mapping[str, Lease], start: StartKind) -> list[tuple[Shard, str]]:
    """Shards that need a lease row now, and the sentinel it begins with. ``leases`` by shard id.

    Works like KCL's ``HierarchicalShardSyncer``, from every open shard without a lease up to its ancestors. A child of a leased shard gets
    its row when its parents end; other ancestors without a lease get one. If no ancestor has a lease, rows are created for the oldest
    shards, or with ``latest`` for the open shard itself. If a crash left an ended parent without rows for its children, they are created
    here. Children begin at ``TRIM_HORIZON``, whatever ``start`` says; otherwise, records since the split would be lost.
    """
    graph = {shard.shard_id: shard for shard in shards}
    continued = {parent for shard in graph.values() for parent in shard.parents}
    ancestry = _Ancestry(graph, leases)
    found: dict[str, str] = {}

    def cover(shard_id: str) -> None:
        if shard_id in leases or shard_id in found:
            return
        parents = [parent for parent in graph[shard_id].parents if parent in graph]
        if not parents:
            found[shard_id] = SENTINELS[start]
        elif all(parent in leases and leases[parent].ended for parent in parents):
            found[shard_id] = TRIM_HORIZON
        elif start is not StartKind.LATEST or any(ancestry.has_lease(parent) for parent in parents):
            for parent in parents:
                cover(parent)
        else:
            found[shard_id] = LATEST

    for shard_id in sorted(graph.keys() - continued - leases.keys()):
        cover(shard_id)
    return [(graph[shard_id], found[shard_id]) for shard_id in sorted(found)]


class _Ancestry:
    """Whether a shard or one of its ancestors has a lease; each is examined once."""

    def __init__(self, graph: Mapping[str, Shard], leases: Collection[str]) -> None:
        self._graph = graph
        self._leases = leases
        self._known: dict[str, bool] = {}

    def has_lease(self, shard_id: str) -> bool:
        if shard_id not in self._known:
            parents = self._graph[shard_id].parents if shard_id in self._graph else ()
            self._known[shard_id] = shard_id in self._leases or any(self.has_lease(parent) for parent in parents)
        return self._known[shard_id]


def new_lease(key: str, shard: Shard, sentinel: str, *, stream_name: str | None = None) -> Lease:
    """A row as KCL creates it: without owner, with counter 0."""
    return Lease(
        key=key,
        checkpoint=ExtendedSequenceNumber(sentinel),
        parents=frozenset(shard.parents),
        hash_range=(shard.first_hash, shard.last_hash),
        stream_name=stream_name,
        shard_id=shard.shard_id if stream_name else None,
    )


def removable(leases: Mapping[str, Lease], listed: Collection[str]) -> list[Lease]:
    """Rows of ended shards that are no longer needed. ``leases`` by shard id; ``listed``: ids of the shards that Kinesis lists.

    Works like KCL's ``LeaseCleanupManager``: every child must have a row and a checkpoint past its beginning, and the rows of the shard's
    own parents must be gone, so that a child is never started before its parents, nor a second time from the beginning. The row of a shard
    that another application has ended also stays until one of our workers has made progress on the shards after it: before its first
    unit there, it writes that end to the commit log. The row of a shard that Kinesis no longer lists, or that
    another one has ``replaced``, is removed at once.
    """
    found = []
    for shard_id, lease in sorted(leases.items()):
        if not lease.ended:
            continue
        children = _continuing(lease, leases)
        begun = children and all(child in leases and leases[child].checkpoint.text not in _UNREAD for child in children)
        alone = begun and not any(parent in leases for parent in lease.parents)
        if shard_id not in listed or (alone and (lease.foreign is None or _recorded(lease, leases))):
            found.append(lease)
    return found


def ended_by_others_before(shard_id: str, leases: Mapping[str, Lease]) -> list[str]:
    """Ids of the shards that lead to ``shard_id`` and that another application has read to their ends, oldest first."""
    found: set[str] = set()
    rest = [shard_id]
    while rest:
        parents = leases[name].parents if (name := rest.pop()) in leases else frozenset()
        fresh = {parent for parent in parents - found if parent in leases and leases[parent].ended and leases[parent].foreign is not None}
        found |= fresh
        rest += fresh
    return sorted(found)


def _continuing(lease: Lease, leases: Mapping[str, Lease]) -> set[str]:
    return {*lease.children, *(other.shard for other in leases.values() if lease.shard in other.parents)}


def _recorded(lease: Lease, leases: Mapping[str, Lease]) -> bool:
    """Whether all shards that continue ``lease``, directly or not, and are not ended by others have progress of ours."""
    rest, seen = [lease], {lease.shard}
    while rest:
        for child in _continuing(rest.pop(), leases) - seen:
            seen.add(child)
            if child not in leases:
                return False
            if leases[child].progress is None:
                if not leases[child].ended:
                    return False
                rest.append(leases[child])
    return True


def replaced(leases: Iterable[Lease], listed: Collection[Shard]) -> set[str]:
    """Ids of ended shards in place of which the service lists another one: see ``recreated``. The rows say that nobody has to read it."""
    graph = {shard.shard_id: shard for shard in listed}
    ended = {lease.shard: lease for lease in leases if lease.ended and lease.shard in graph}
    return {
        shard_id
        for shard_id, lease in ended.items()
        if recreated(graph[shard_id], ORIGIN if lease.progress is None else lease.progress.unit_after, lease.children, listed)
    }


_UNREAD: Final = {TRIM_HORIZON, AT_TIMESTAMP, LATEST}


def holes(leases: Iterable[Lease]) -> list[tuple[int, int]]:
    """Hash ranges, inclusive, that no lease of an unfinished shard covers, so that records with such hash keys are not read.

    Overlaps are fine: parents and children overlap after each reshard. If rows have no range (KCL before 2.3), this is unknown, and the
    result is empty.
    """
    open_leases = [lease for lease in leases if not lease.ended]
    if any(lease.hash_range is None for lease in open_leases):
        return []
    found, position = [], 0
    for first, last in sorted(lease.hash_range for lease in open_leases if lease.hash_range is not None):
        if first > position:
            found.append((position, first - 1))
        position = max(position, last + 1)
    return found if position >= HASH_KEYS else [*found, (position, HASH_KEYS - 1)]
