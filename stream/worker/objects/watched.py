"""The shards of a watched source, as leases need to know them, and the claims that they come from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from stream.aws.session import AwsSession
from stream.contracts import Checkpoint, Checkpoints, Clock, ObjectStore, Shard
from stream.errors import DefinitionError
from stream.lease.checkpoints import StoredCheckpoints
from stream.pipeline.model import Pipeline
from stream.source.dead_letters import OpenObject
from stream.source.growing import first_unfinished, growing_shard, is_growing, number_of
from stream.source.object_formats import Unreadable
from stream.source.objects import Changed, Gone, ObjectPiece, shard_name
from stream.source.unreadable import note_of
from stream.storage.open import open_store
from stream.worker.objects.claimlog import ClaimLog
from stream.worker.objects.finished_claims import FinishedClaims
from stream.worker.objects.slices import Slices, layout_of


def slices_of(
    pipeline: Pipeline, session: AwsSession, state: ObjectStore, base_url: Callable[[str], str], worker: str, clock: Clock
) -> Slices:
    """The objects of ``pipeline``, which reads objects, and what is claimed of them in ``state``; nothing is read yet."""
    config = pipeline.source.s3
    if config is None:
        msg = "the pipeline has no source.s3"
        raise DefinitionError(msg)
    return Slices(pipeline, config, open_store(base_url(config.url), session, requester_pays=config.requester_pays), state, worker, clock)


def object_opener(slices: Slices, chain: str, *, commits: bool) -> OpenObject:
    """Opens objects for the redrives of ``chain``, as the pipeline reads objects now.

    ``commits``: an object that still cannot be read, or is gone, becomes a dead letter again; otherwise only what is noted of it counts.
    """
    layout = layout_of(slices.pipeline, slices.config)
    gives_up = (Unreadable, Gone, Changed) if commits else ()
    return lambda item, shard, piece: ObjectPiece(slices.store, item, layout, note_of(slices.state, chain, shard, piece), gives_up)


class WatchedShards:
    """The shards of a watched source that are to be read: those that grow, and those of claims with shards of their own.

    Of the latter, those that had ended when the claims were opened, or have since, are left out. ``write_blocks`` as for ``ClaimLog.open``.
    """

    def __init__(self, slices: Slices, *, write_blocks: bool) -> None:
        self.slices = slices
        self._write_blocks = write_blocks
        self._finished = FinishedClaims(slices.state, slices.config.name, exported=slices.pipeline.audit.otlp is not None)
        self._log: ClaimLog | None = None
        self._bounded: list[str] = []

    async def log(self) -> ClaimLog:
        """The claims, which are opened when they are first asked for.

        Raises:
            Halted: a claim is missing or unreadable.
        """
        if self._log is None:
            log = await self.slices.log(write_blocks=self._write_blocks)
            noted = await self._finished.noted()
            numbers = [number for number in log.bounded if number > noted]
            claims = await log.slices(numbers)
            self._bounded = [
                shard_name(number, part) for number, each in zip(numbers, claims, strict=True) for part in range(1, len(each.bounds) + 1)
            ]
            self._log = log
        return self._log

    async def shards(self) -> list[Shard]:
        """All of them, ordered by id."""
        log = await self.log()
        if self._bounded:
            ended = await self._finished.ended(self._bounded)
            self._bounded = [name for name in self._bounded if name not in ended]
        growing = [growing_shard(number) for number in range(1, max(self.slices.config.shards, len(log.ends)) + 1)]
        return [Shard(self.slices.config.name, name) for name in sorted((*self._bounded, *growing))]

    async def behind(self, shard_id: str, position: int, now: datetime) -> float | None:
        """Seconds since the first object was modified that is not read to its end at ``position``; 0 if none is, None if not known."""
        if not is_growing(shard_id):
            return None
        _, found = await (await self.log()).appended(number_of(shard_id), first_unfinished(position), 1)
        return max(0.0, (now - datetime.fromisoformat(found[0].modified)).total_seconds()) if found else 0.0


class NotedEnds:
    """``inner``, and the ends of shards noted in the state as well, where ``FinishedClaims`` looks for them.

    A lease row of a shard that has ended is deleted after a while, and nobody could tell from the table whether a claim is finished.
    """

    def __init__(self, inner: Checkpoints, state: ObjectStore) -> None:
        self._inner = inner
        self._ends = StoredCheckpoints(state)

    async def read(self, shard: Shard) -> Checkpoint | None:
        """As ``contracts.Checkpoints.read``."""
        return await self._inner.read(shard)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """As ``contracts.Checkpoints.advance``."""
        if checkpoint.position is None:
            # The log has the end already, so this is true whoever holds the lease.
            await self._ends.advance(shard, checkpoint)
        await self._inner.advance(shard, checkpoint)
