"""The leases of one table as one worker knows them: its own as they are now, the others as they were last seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stream.contracts import Clock, StartKind
from stream.lease import decide
from stream.lease.decide import ObservedLease
from stream.lease.holding import Holdings
from stream.lease.rows import TRIM_HORIZON, Lease
from stream.lease.settings import LeasedStream, LeaseSettings
from stream.lease.shards import ended_by_others_before, unblocked


class LeaseView:
    """The leases of ``streams``, by stream. ``holdings``: those that the worker holds. ``observed``: all, by key, as of the last scan."""

    def __init__(self, streams: Sequence[LeasedStream], holdings: Holdings, settings: LeaseSettings, clock: Clock) -> None:
        self.streams = {each.stream: each for each in streams}
        self.holdings = holdings
        self.settings = settings
        self.observed: dict[str, ObservedLease] = {}
        self._clock = clock

    def runnable(self, stream: str) -> set[str]:
        """Ids of the stream's shards that this worker may read now: leased by it, not ended, their parents ended."""
        return self.waiting(stream).keys() & self.held(stream)

    def finished_elsewhere(self, stream: str, shard_id: str) -> list[str]:
        """Ids of shards before this one that another application has read to the end, of which the commit log may not know yet."""
        return ended_by_others_before(shard_id, self.leases(stream))

    def from_its_beginning(self, stream: str, shard_id: str) -> bool:
        """Whether the shard must be read from its first record, although the stream is read from its tip.

        Its lease says so if it continues a leased shard, which another application may have read before this one began.
        """
        lease = self.leases(stream).get(shard_id)
        return self.streams[stream].start is StartKind.LATEST and lease is not None and lease.checkpoint.text == TRIM_HORIZON

    def held(self, stream: str) -> set[str]:
        """Ids of all shards whose lease this worker holds."""
        return {held.lease.shard for held in self.holdings.held.values() if held.stream == stream}

    def leases(self, stream: str) -> dict[str, Lease]:
        """The stream's leases by shard id."""
        found = {observed.lease.shard: observed.lease for key, observed in self.observed.items() if self.streams[stream].owns(key)}
        return found | {held.lease.shard: held.lease for held in self.holdings.held.values() if held.stream == stream}

    def waiting(self, stream: str) -> dict[str, str | None]:
        """The holders of the stream's shards that may be read now: not ended, their parents ended."""
        leases = self.leases(stream)
        return {shard: lease.holder for shard, lease in leases.items() if not lease.ended and unblocked(lease, leases)}

    def wanted_elsewhere(self, stream: str, shard_id: str) -> bool:
        """Whether work on the shard must stop at the next safe point, because a leader gives its lease to another worker."""
        held = self.holdings.held.get(self.streams[stream].key(shard_id))
        return held is not None and held.wanted is not None

    def first_holder(self, stream: str) -> str | None:
        """The live worker that holds the stream's first lease of those that anybody holds; None if nobody holds any."""
        owns, now = self.streams[stream].owns, self._clock.monotonic()
        observed = {key: row for key, row in self.observed.items() if owns(key)}
        for key, held in self.holdings.held.items():
            if owns(key):
                barred = held.lease.holder if stream in self.holdings.unlisted else None
                observed[key] = ObservedLease(replace(held.lease, unlisted=barred), now, now)
        return decide.first_holder(observed, now, self.settings.failover)

    def stream_of(self, key: str) -> str:
        """The stream to which the lease ``key`` belongs."""
        return next(each.stream for each in self.streams.values() if each.owns(key))
