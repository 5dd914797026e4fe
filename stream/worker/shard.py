"""One shard from lease to commit, on one screen.

Three tasks run concurrently: ``fetch`` reads pages, ``prepare`` cuts units and cooks them (transforms and encodes them, off the event
loop), ``commit`` seals them in order. While one unit is committed, the next is cooked and the one after that is read; the byte budget
bounds all three.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

from stream import events
from stream.batch import Batch, SeqRange
from stream.commit import cut
from stream.commit.committer import Head, RenderedUnit, Renderer, head_behind
from stream.commit.manifest import Manifest
from stream.commit.recovery import recover
from stream.contracts import Page, Shard, Start
from stream.errors import Expired, Halted, Superseded
from stream.pipeline.limits import SPARED_SHARE
from stream.worker.breaker import Flood
from stream.worker.gap import record_gap
from stream.worker.generations import admit_foreign_progress, open_newest, open_next, refuse_recreated
from stream.worker.parts import Held, Parts, weightiest
from stream.worker.recipe import Cooked, CutUnit, with_previous

NUDGE = 0.25
"""Seconds after which a unit that is being filled is checked for memory pressure, and after which a shard that has to stop is cut."""

TIP_EVERY = timedelta(hours=1)
TIP_SLACK = timedelta(minutes=1)
"""How often it is noted that a quiet shard has been read to its tip, and by how much the service's clock may lag behind ours."""


async def run_shard(shard: Shard, start: Start, parts: Parts) -> tuple[str, ...] | None:
    """Work on ``shard`` until it ends (returns its children) or this worker has to stop (returns None); everything read by then is sealed.

    Raises:
        Halted: the shard must not continue by itself.
        LeaseLost: the shard belongs to another worker now.
        Fatal: the process cannot continue.
    """
    shard, genesis, start = await open_newest(shard, start, parts)

    async def render_again(manifest: Manifest) -> RenderedUnit:
        return await parts.render_again(shard, start, manifest)

    lost: Expired | None = None
    while True:
        head = await recover(parts.log, parts.committer, parts.checkpoints, shard, genesis, render_again, parts.clock, parts.emit)
        if head.target is not None:
            shard, genesis = await open_next(shard, start, parts, head)
            continue
        if head.ended:
            await refuse_recreated(shard, head, parts)
        gap, lost = lost, None
        try:
            head = await _go_on(shard, start, parts, head, gap, render_again)
        except Superseded:
            continue
        except Expired as error:
            if not parts.admit_gaps:
                raise
            lost = error
            continue
        if head.target is not None:
            continue
        if not head.ended:
            why = "drain" if parts.draining.is_set() else "handed_over" if parts.hands_over(shard) else "caught_up"
            parts.emit(events.ShardReleased(shard.stream, shard.shard_id, why))
            return None
        parts.emit(events.ShardEnded(shard.stream, shard.shard_id, head.children))
        return head.children


async def _go_on(shard: Shard, start: Start, parts: Parts, head: Head, gap: Expired | None, render: Renderer) -> Head:
    """Continue from a recovered head; the head at the shard's end, or when it had to stop. ``gap``: lost records to be recorded first.

    If the shard has to stop before a record shows where the gap ends, its head stays where it is.
    """
    head = await admit_foreign_progress(shard, head, parts, render)
    parts.emit(events.ShardStarted(shard.stream, shard.shard_id, head.position))
    if gap is not None and head.open:
        before, head = head, await record_gap(shard, head, parts, render, gap)
        if head is before:
            return head
    return await _Following(shard, start, parts, head).run() if head.open else head


class _Following:
    """The ordinary work of a shard, starting from a recovered head."""

    def __init__(self, shard: Shard, start: Start, parts: Parts, head: Head) -> None:
        self.shard = shard
        self.start = start
        self.parts = parts
        self.head = head
        self.held = Held(parts.budget)
        self.flood = Flood(parts.breaker)
        self.pages: asyncio.Queue[Page | None] = asyncio.Queue(maxsize=1)
        self.nudged: asyncio.TimerHandle | None = None
        self.lost: Expired | None = None
        self.cooked: asyncio.Queue[tuple[Cooked, int] | Page | None] = asyncio.Queue(maxsize=1)

    async def run(self) -> Head:
        """The head at the shard's end, or when it had to stop.

        Raises:
            Expired: what comes next is gone from the stream; what was read before it is sealed.
        """
        bells = [self.parts.draining.listeners, *([self.parts.leases.listeners] if self.parts.leases else ())]
        for bell in bells:
            bell.append(self.nudge)
        self.nudge()
        try:
            async with asyncio.TaskGroup() as group:
                fetching = group.create_task(self.fetch())
                group.create_task(self.prepare(fetching))
                group.create_task(self.commit())
        except ExceptionGroup as group_error:
            raise weightiest(group_error) from group_error
        finally:
            for bell in bells:
                bell.remove(self.nudge)
            if self.nudged is not None:
                self.nudged.cancel()
            self.held.release_all()
        if self.lost is not None:
            raise self.lost
        return self.head

    def nudge(self) -> None:
        """If the shard has to stop, wake ``prepare`` in a moment, so that records that have arrived by now are sealed too."""
        if self.parts.stops(self.shard):
            self.nudged = asyncio.get_running_loop().call_later(NUDGE, self.look_around)

    def look_around(self) -> None:
        """Wake ``prepare``, unless a waiting page will do so."""
        if self.pages.empty():
            self.pages.put_nowait(None)

    async def fetch(self) -> None:
        head = self.head
        pages = self.parts.source.read(self.shard, head.position, self.start, complete_until=head.complete_until)
        try:
            async with aclosing(pages):  # type: ignore[type-var]
                async for page in pages:
                    self.held.add(page.held)
                    await self.pages.put(page)
        except Expired as error:
            # What is in hand may be gone from the stream by now, too. Behind the last page, so that none is left in the queue.
            await self.pages.put(None)
            self.lost = error

    async def prepare(self, fetching: asyncio.Task[None]) -> None:
        after, filling, batches, held = self.head.position, None, [], 0
        position, first = after, True
        while True:
            page = await self._next_page(cut.patience(filling, self.parts.limits, self.parts.clock.monotonic(), NUDGE))
            if page is not None:
                position, held = page.position, held + page.held
                if page.behind_ms == 0 and position == after:
                    await self.note_tip(position)
                if page.batch.rows or position > after:
                    batches.append(page.batch)
                    since = filling.since if filling else self.parts.clock.monotonic()
                    filling = cut.Filling(sum(batch.rows for batch in batches), sum(batch.payload_bytes for batch in batches), since)
            around = cut.Circumstances(
                ended=page is not None and page.ended,
                draining=self.parts.stops(self.shard) or self.lost is not None or (page is not None and page.paused),
                pressure=self._pressed(held, page),
            )
            why = cut.trigger(filling, self.parts.limits, self.parts.clock.monotonic(), around)
            if why is not None and position > after:
                span, raw = SeqRange(after, position), Batch.concat(batches)
                begun_elsewhere = self.head.foreign_subsequence if first else -1
                first = False
                after, filling, batches, page = position, None, [], page if around.ended else None
                cooked = await self._cook(CutUnit(self.shard, span, raw, why, begun_elsewhere))
                # Only what the byte budget counts may stay in memory, and the raw records are no longer needed.
                del raw
                await self.cooked.put((cooked, held))
                del cooked
                held = 0
            if around.ended:
                await self.cooked.put(page)
                return
            if around.draining:
                fetching.cancel()
                await self.cooked.put(None)
                return

    async def commit(self) -> None:
        while isinstance(item := await self.cooked.get(), tuple):
            cooked, held = item
            await self._seal(cooked)
            self.held.release(held)
            del item, cooked
        if item is not None:
            self.head = await self.parts.committer.end(self.shard, self.head, item.children)

    def _pressed(self, held: int, page: Page | None) -> bool:
        """Whether to cut the unit that is being filled because readers wait for memory.

        A small unit is spared as long as pages arrive; otherwise a fleet of shards that are far behind would write only tiny files. Once
        no page has arrived for a while, this shard may itself be waiting for memory, and somebody has to give way.
        """
        return self.parts.budget.pressure.is_set() and (page is None or held >= self.parts.limits.payload_bytes * SPARED_SHARE)

    async def note_tip(self, position: int) -> None:
        """Note occasionally on a quiet shard that nothing is missing: once its last record has expired, nobody could tell."""
        now, known = self.parts.clock.now() - TIP_SLACK, self.head.complete_until
        if self.head.position == position and known is not None and now - known > TIP_EVERY:
            self.head = await self.parts.committer.note_tip(self.shard, self.head, now)

    async def _next_page(self, patience: float | None) -> Page | None:
        try:
            async with asyncio.timeout(patience):
                return await self.pages.get()
        except TimeoutError:
            return None

    async def _cook(self, unit: CutUnit) -> Cooked:
        where = (self.shard.stream, self.shard.shard_id)
        self.parts.emit(events.UnitCut(*where, unit.span.after, unit.span.last, unit.trigger, unit.batch.rows, unit.batch.payload_bytes))
        cooked = await self.parts.cook(self.parts.recipe, unit)
        for stage, rows_in, rows_out, seconds in cooked.stage_rows:
            self.parts.emit(events.StageApplied(*where, stage, rows_in, rows_out, seconds))
        for stage, reason, records in cooked.rejected:
            self.parts.emit(events.RecordsRejected(*where, stage, reason, records))
        self._refuse_flood(cooked)
        if self.parts.export is not None and cooked.segment is not None:
            self.parts.export.recent.put(cooked.unit.files[-1].sha256, cooked.segment)
        return replace(cooked, segment=None)

    async def _seal(self, cooked: Cooked) -> None:
        parts, begun = self.parts, self.parts.clock.monotonic()
        own = with_previous(cooked.unit, self.head.previous, parts.worker, parts.clock.now())

        async def render_again(manifest: Manifest) -> RenderedUnit:
            return await parts.render_again(self.shard, self.start, manifest)

        entry = await parts.committer.commit(self.shard, own, render_again)
        self.head = head_behind(entry)
        if not self.head.open:
            msg = f"{self.shard.stream}/{self.shard.shard_id}: the chain ends at {own.manifest.after}, where an operator rewound it"
            raise Superseded(msg, position=self.head.position)
        now = parts.clock.now()
        parts.emit(
            events.UnitSealed(
                self.shard.stream,
                self.shard.shard_id,
                own.manifest.span.after,
                entry.manifest.span.last,
                tuple(sorted(entry.manifest.outcomes.items())),
                (now - cooked.oldest).total_seconds() if cooked.oldest else 0.0,
                (now - cooked.newest).total_seconds() if cooked.newest else 0.0,
                parts.clock.monotonic() - begun,
            )
        )
        if entry.manifest.span.last != own.manifest.span.last:
            msg = f"{self.shard.stream}/{self.shard.shard_id}: another worker cut the unit after {own.manifest.after} elsewhere"
            raise Superseded(msg, position=entry.manifest.span.last)

    def _refuse_flood(self, cooked: Cooked) -> None:
        manifest = cooked.unit.manifest
        too_much = self.flood.trips(self.parts.clock.monotonic(), manifest.records, cooked.dead_letters)
        if too_much is None:
            return
        worst = max(cooked.rejected, key=lambda row: row[2])
        msg = (
            f"{self.shard.stream}/{self.shard.shard_id}: {too_much} after {manifest.after} "
            f"would become dead letters, most of them ({worst[2]}) at stage `{worst[0]}` with reason `{worst[1]}`. This suggests that "
            "the pipeline is wrong, not the data. Nothing of this unit was written. Correct the pipeline, or raise rejects.max_ratio "
            f"(now {self.parts.breaker.max_ratio})."
        )
        raise Halted(msg)
