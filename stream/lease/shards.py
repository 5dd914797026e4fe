"""The shard graph: which shards may be read when, so that children follow their parents."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from stream.contracts import Shard


def ready(shards: Iterable[Shard], ended: Collection[str], started: Collection[str]) -> list[Shard]:
    """The shards to start on now, ordered by id.

    A shard is ready once each of its parents is in ``ended`` or no longer known to the service (so not among ``shards``), and it
    is neither in ``ended`` nor in ``started`` itself. Both parents of a merge count.
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
