"""What has arrived of the objects of ``source.s3``, and what of them is sealed, without reading any: for commands that ask no worker.

Objects are listed and compared with the claims, and the claims with the log. When an object arrived is what S3 says of it: its last
modification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from stream.audit.completeness import Found, Lookahead, Unclaimed
from stream.aws.errors import Call
from stream.aws.identity import server_time
from stream.aws.session import AwsSession
from stream.contracts import Clock, ObjectInfo, ObjectStore, Shard, Start
from stream.operations.progress.backlog import Backlog, LastClaim
from stream.pipeline.model import Pipeline
from stream.source.growing import first_unfinished, growing_shard, is_growing, number_of
from stream.source.notifications import place_of_notices
from stream.source.objects import PinnedObject, shard_name
from stream.worker.objects.choosing import CLAIM_OBJECTS, sort_out
from stream.worker.objects.claimlog import ClaimLog
from stream.worker.objects.finished_claims import FinishedClaims
from stream.worker.objects.slices import Slices
from stream.worker.objects.watched import slices_of
from stream.worker.opening.places import located

AT_ONCE: Final = 16
"""Claims that are read at a time."""

EXAMPLES: Final = 3

MOST_AHEAD: Final = timedelta(minutes=5)
"""How far this machine's clock may be ahead of that of S3 without calls being refused."""


class ObjectsLookahead:
    """``completeness.Stream`` over the objects of one pipeline. Reads claims and listings, writes nothing.

    ``time``: asks for the service's time; None if the objects are on this machine. ``backlogs``: of the shards that were looked at last.
    ``lists``: whether to list objects; if not, only claimed ones are known.
    """

    def __init__(
        self, slices: Slices, clock: Clock, time: Callable[[], Awaitable[datetime]] | None, *, exported: bool, lists: bool = True
    ) -> None:
        self._lists = lists
        self.backlogs: dict[str, Backlog] = {}
        self._slices = slices
        self._clock = clock
        self._time = time
        self._finished = FinishedClaims(slices.state, slices.config.name, exported=exported)
        self._log: ClaimLog | None = None
        self._done = 0
        self._bounded: dict[str, Sequence[PinnedObject]] = {}
        """The objects of each unfinished shard of a claim that has shards of its own."""
        self._sums: dict[int, tuple[Backlog, ...]] = {}
        """For claims with unfinished objects, what each of them appended to each shard; claims never change."""
        self._summing = asyncio.Lock()

    async def time(self) -> datetime:
        """As ``completeness.SourceLookahead.time``."""
        return self._clock.now() if self._time is None else await self._time()

    async def unclaimed(self) -> Unclaimed:
        """As ``completeness.SourceLookahead.unclaimed``: lists all objects. Claims that are made meanwhile count."""
        log, found, page = await self._known(), Unclaimed(), list[ObjectInfo]()
        if not self._lists:
            return found
        async for info in self._slices.store.list(""):
            if info.size:
                page.append(info)
            if len(page) == CLAIM_OBJECTS:
                found, page = await self._compared(log, page, found), []
        return await self._compared(log, page, found)

    async def _compared(self, log: ClaimLog, page: Sequence[ObjectInfo], found: Unclaimed) -> Unclaimed:
        if sort_out(page, log.claimed).fresh:
            await log.follow(write_blocks=False)
        now = sort_out(page, log.claimed)
        fresh, changed = ([info.modified for info in infos] for infos in (now.fresh, now.changed))
        return Unclaimed(
            found.fresh + len(fresh),
            min((found.fresh_since, *fresh) if found.fresh_since else fresh, default=None),
            found.changed + len(changed),
            min((found.changed_since, *changed) if found.changed_since else changed, default=None),
            (*found.examples, *(info.key for info in now.changed))[:EXAMPLES],
        )

    async def shards(self) -> list[Shard]:
        """As ``completeness.SourceLookahead.shards``: the shards that grow, and the unfinished ones of claims that have their own."""
        log = await self._known()
        await log.follow(write_blocks=False)
        self._done = max(self._done, await self._finished.noted())
        new = [number for number in log.bounded if number > self._done]
        for number, claim in zip(new, await log.slices(new), strict=True):
            parts = enumerate(claim.bounds, 1)
            self._bounded |= {shard_name(number, part): claim.objects[begin:end] for part, (begin, end) in parts}
            self._done = number
        for name in await self._finished.ended(list(self._bounded)):
            del self._bounded[name]
        watched = self._slices.config.watch is not None
        growing = range(1, max(self._slices.config.shards if watched else 0, len(log.ends)) + 1)
        return [Shard(self._slices.config.name, name) for name in sorted((*self._bounded, *map(growing_shard, growing)))]

    async def after(self, shard: Shard, position: int, start: Start, complete_until: datetime | None, asked_at: datetime) -> Lookahead:  # noqa: ARG002
        """As ``completeness.SourceLookahead.after``: the oldest object of ``shard`` that is not known to be sealed to its end."""
        piece = first_unfinished(position)
        if is_growing(shard.shard_id):
            backlog = await self._appended(number_of(shard.shard_id), piece)
        else:
            backlog = _sum(self._bounded.get(shard.shard_id, ())[piece - 1 :])
        self.backlogs[shard.shard_id] = backlog
        if backlog.objects:
            return Lookahead(Found.RECORD, backlog.oldest)
        return Lookahead(Found.TIP if is_growing(shard.shard_id) else Found.END)

    async def last_claim(self) -> LastClaim | None:
        """The newest claim; None if there is none."""
        log = await self._known()
        if not log.last:
            return None
        (claim,) = await log.slices([log.last])
        return LastClaim(log.last, claim.worker, datetime.fromisoformat(claim.claimed_at), len(claim.objects))

    async def _known(self) -> ClaimLog:
        if self._log is None:
            self._log = await self._slices.log(write_blocks=False)
        return self._log

    async def _appended(self, shard: int, piece: int) -> Backlog:
        log = await self._known()
        number, rest = await log.appended(shard, piece, 1)
        if not rest:
            return Backlog()
        found = _sum(rest)
        for later in range(number + 1, log.last + 1):
            sums = await self._summed(log, later)
            found += sums[shard - 1] if shard <= len(sums) else Backlog()
        return found

    async def _summed(self, log: ClaimLog, number: int) -> tuple[Backlog, ...]:
        async with self._summing:
            if number not in self._sums:
                ahead = [each for each in range(number, min(number + AT_ONCE, log.last + 1)) if each not in self._sums]
                for each, claim in zip(ahead, await log.slices(ahead), strict=True):
                    self._sums[each] = tuple(_sum(claim.objects_of(shard)) for shard in range(1, len(claim.appended) + 1))
            return self._sums[number]


def _sum(objects: Sequence[PinnedObject]) -> Backlog:
    oldest = min((datetime.fromisoformat(item.modified) for item in objects), default=None)
    return Backlog(len(objects), sum(item.size for item in objects), oldest)


def open_lookahead(
    pipeline: Pipeline, base: Path, state: ObjectStore, session: AwsSession, clock: Clock, *, lists: bool = True
) -> ObjectsLookahead:
    """For a pipeline that reads objects; ``state`` is its application's store. Nothing is read yet. ``lists`` as for the class."""
    slices = slices_of(pipeline, session, state, partial(located, base=base), "", clock)
    bucket, prefix = place_of_notices(slices.config.url)

    async def time() -> datetime:
        call, before = Call("s3:ListBucket", f"bucket {bucket}", session.region), clock.now()
        answer = await session.ask("s3", "list_objects_v2", call, retries=2, Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return server_time(answer) or before - MOST_AHEAD

    return ObjectsLookahead(slices, clock, time if bucket else None, exported=pipeline.audit.otlp is not None, lists=lists)
