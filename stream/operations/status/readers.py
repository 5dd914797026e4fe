"""What an inspector reads through: the lease table, the stream or the objects, and what went wrong meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from stream import events
from stream.audit.completeness import Found, Lookahead, Unclaimed
from stream.commit.log import CommitLog
from stream.commit.lookup import shards_of
from stream.contracts import Checkpoint, Clock, Shard, Start, shard_of_chain
from stream.errors import LeaseLost
from stream.lease.native import checkpoint_in
from stream.lease.rows import Lease
from stream.operations.progress.completeness import SourceLookahead
from stream.operations.progress.object_lookahead import ObjectsLookahead


class ScannedCheckpoints:
    """The checkpoints in ``leases``, by shard, as the last scan found them, so that they cost no call of their own."""

    def __init__(self) -> None:
        self.leases: Mapping[str, Lease] = {}

    async def read(self, shard: Shard) -> Checkpoint | None:
        """As ``contracts.Checkpoints.read``."""
        lease = self.leases.get(shard.shard_id)
        return None if lease is None else checkpoint_in(lease)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """Always refuse.

        Raises:
            LeaseLost: always.
        """
        msg = f"{shard.stream}/{shard.shard_id} is opened for reading only; {checkpoint} was not stored"
        raise LeaseLost(msg)


class Listing:
    """A stream that remembers which shards it listed. While ``why`` says that it cannot be read, it lists those of the log.

    ``objects``: what lists objects; then ``arrived`` and ``listed_at`` are what it found and when it began, None if it could not be listed.
    """

    def __init__(self, inner: SourceLookahead, log: CommitLog, stream: str, clock: Clock, objects: ObjectsLookahead | None = None) -> None:
        self.objects = objects
        self.arrived: Unclaimed | None = None
        self.listed_at: datetime | None = None
        self.listed: list[Shard] = []
        self.why = ""
        self._inner = inner
        self._log = log
        self._stream = stream
        self._clock = clock

    async def time(self) -> datetime:
        """As ``completeness.SourceLookahead.time``."""
        return self.listed_at or (self._clock.now() if self.why else await self._inner.time())

    async def list_objects(self, objects: ObjectsLookahead) -> Unclaimed:
        """List the objects, which may take longer than everything else."""
        self.arrived = self.listed_at = None
        begun = await objects.time()
        self.arrived, self.listed_at = await objects.unclaimed(), begun
        return self.arrived

    async def unclaimed(self) -> Unclaimed | None:
        """As ``completeness.SourceLookahead.unclaimed``, by the last ``list_objects``."""
        return None if self.objects is None else self.arrived or Unclaimed()

    async def shards(self) -> list[Shard]:
        """As ``completeness.SourceLookahead.shards``."""
        if self.why:
            chains = [shard_of_chain(chain)[0] async for chain in shards_of(self._log.store, self._stream)]
            self.listed = [Shard(self._stream, name) for name in dict.fromkeys(chains)]
        else:
            self.listed = await self._inner.shards()
        return self.listed

    async def after(
        self, shard: Shard, position: int, start: Start, complete_until: datetime | None, asked_at: datetime, done: int = -1
    ) -> Lookahead:
        """As ``completeness.SourceLookahead.after``."""
        if self.why:
            return Lookahead(Found.SILENT, why="the stream could not be read")
        return await self._inner.after(shard, position, start, complete_until, asked_at, done)


class Troubles:
    """An ``Emit`` that remembers what went wrong last, and which rows of the lease table could not be read."""

    def __init__(self) -> None:
        self.last = ""
        self.rows: list[str] = []

    def __call__(self, event: events.Event) -> None:
        """Remember ``event`` if it says that something cannot be read."""
        match event:
            case events.CallRepeated(detail=detail):
                self.last = detail
            case events.LeaseRowUnreadable(detail=detail):
                self.rows.append(detail)
            case _:
                pass
