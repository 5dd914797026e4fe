"""Keeps a lease row for each shard that has to be read: creates missing ones, and removes those that are no longer needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from stream import events
from stream.contracts import Emit, Shard
from stream.errors import Fatal, Retryable
from stream.lease.holding import Holdings
from stream.lease.rows import SHARD_END, ExtendedSequenceNumber, Lease
from stream.lease.settings import LeasedStream
from stream.lease.shards import children_of, missing_leases, new_lease, removable, replaced
from stream.lease.table import LeaseTable


class RowKeeper:
    """The rows of one table, as one worker keeps them; ``holdings`` are the leases that it holds."""

    def __init__(self, table: LeaseTable, holdings: Holdings, emit: Emit) -> None:
        self._table = table
        self._holdings = holdings
        self._emit = emit

    async def keep(self, leased: LeasedStream, listed: Sequence[Shard], leases: dict[str, Lease], idle: Callable[[Lease], bool]) -> None:
        """Create the rows that ``listed`` shards need, and remove those that are no longer needed, also from ``leases``.

        ``leases``: the rows of the stream by shard id. ``idle``: whether this worker may remove a row.
        """
        current = {shard.shard_id for shard in listed} - await self._replaced(leased, listed, leases)
        for lease in removable(leases, current):
            if idle(lease) and await self._table.delete(lease):
                self._holdings.drop(lease.key, "released")
                del leases[lease.shard]
        await self.create_missing(leased, listed, leases)

    async def settle_end(self, leased: LeasedStream, shard_id: str, leases: dict[str, Lease]) -> None:
        """Prepare the end of a shard: create rows for its children, and note the children in its own row.

        Follows KCL's order (``ShutdownTask``), so that a crash between any two steps leaves no shard that nobody reads.
        """
        listed = await leased.list_shards()
        if shard_id in leases:
            leases[shard_id] = replace(leases[shard_id], checkpoint=ExtendedSequenceNumber(SHARD_END))
        await self.create_missing(leased, listed, leases)
        if children := frozenset(child.shard_id for child in children_of(listed, shard_id)):
            await self._table.note_children(leased.key(shard_id), children)

    async def create_missing(self, leased: LeasedStream, listed: Sequence[Shard], leases: Mapping[str, Lease]) -> None:
        """Create the rows that ``listed`` shards need and ``leases`` do not have."""
        for shard, sentinel in missing_leases(listed, leases, leased.start):
            row = new_lease(leased.key(shard.shard_id), shard, sentinel, stream_name=leased.stream_name)
            if await self._table.create(row):
                self._emit(events.LeaseCreated(leased.stream, shard.shard_id, sentinel))

    async def _replaced(self, leased: LeasedStream, listed: Sequence[Shard], leases: Mapping[str, Lease]) -> set[str]:
        others = [lease for lease in leases.values() if lease.key not in self._holdings.held]
        try:
            # A shard may have ended after it was listed.
            return replaced(others, listed) and replaced(others, await leased.list_shards())
        except (Retryable, Fatal):
            return set()
