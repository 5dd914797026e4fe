"""One shard from lease to commit, on one screen.

Three tasks run concurrently: ``fetch`` reads pages; ``prepare`` cuts units and renders them, that is, transforms and encodes them, off the
event loop; ``commit`` seals them in order. While one unit is committed, the next is rendered and the one after that is read. The byte
budget bounds all three.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from stream import events
from stream.batch import Batch, SeqRange
from stream.commit import cut
from stream.commit.committer import Head, RenderedUnit, Renderer, head_after
from stream.commit.manifest import Manifest
from stream.commit.recovery import recover
from stream.contracts import Page, Shard, Start
from stream.errors import Expired, Halted, Superseded, most_severe
from stream.pipeline.limits import SMALL_UNIT_SHARE
from stream.source.access import MOST_AHEAD
from stream.worker.halts.breaker import ShardBreaker
from stream.worker.parts import HeldBytes, Parts, Stop
from stream.worker.recipes.recipe import CutUnit, Rendered, with_previous
from stream.worker.shards.gap import record_gap
from stream.worker.shards.generations import admit_foreign_progress, open_newest, open_next, refuse_recreated

NUDGE_SECONDS = 0.25
"""How often a unit being filled is checked for memory pressure, and how long a shard that has to stop still waits for records."""

TIP_INTERVAL = timedelta(hours=1)
"""How often the log notes that a quiet shard has been read to its tip."""


async def run_shard(shard: Shard, start: Start, parts: Parts) -> tuple[str, ...] | Stop:
    """Work on ``shard`` until it ends (returns its children) or work has to stop (returns why); everything read by then is sealed.

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
        head = await recover(parts.committer, shard, genesis, render_again)
        if head.target is not None:
            shard, genesis = await open_next(shard, start, parts, head)
            continue
        if head.ended:
            await refuse_recreated(shard, head, parts)
        gap, lost = lost, None
        try:
            head, stop = await _continue(shard, start, parts, head, gap, render_again)
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
            parts.emit(events.ShardReleased(shard.stream, shard.shard_id, stop))
            return stop
        parts.emit(events.ShardEnded(shard.stream, shard.shard_id, head.children))
        return head.children


async def _continue(shard: Shard, start: Start, parts: Parts, head: Head, gap: Expired | None, render: Renderer) -> tuple[Head, Stop]:
    """Continue from a recovered head. Returns the head at the shard's end, or where work had to stop, and why it stopped.

    ``gap``: loss to record first. If work has to stop before a record shows where the gap ends, the head stays where it is.
    """
    head = await admit_foreign_progress(shard, head, parts, render)
    parts.emit(events.ShardStarted(shard.stream, shard.shard_id, head.position))
    if gap is not None and head.open:
        recovered, head = head, await record_gap(shard, head, parts, render, gap)
        if head is recovered:
            return head, parts.stops(shard) or Stop.CAUGHT_UP
    if not head.open:
        return head, Stop.CAUGHT_UP
    run = _ShardRun(shard, start, parts, head, render)
    return await run.run(), run.stop


@dataclass(slots=True)
class _UnitBeingFilled:
    """The records read after ``after``, up to ``position``, and how many bytes of the byte budget they hold.

    ``size`` is None while there is nothing to commit.
    """

    after: int
    position: int
    batches: list[Batch] = field(default_factory=list)
    size: cut.OpenUnit | None = None
    held: int = 0

    def add(self, page: Page, now: float) -> None:
        self.position = page.position
        self.held += page.held
        if page.batch.rows or self.position > self.after:
            self.batches.append(page.batch)
            before = self.size or cut.OpenUnit(0, 0, now)
            self.size = cut.OpenUnit(before.rows + page.batch.rows, before.payload_bytes + page.batch.payload_bytes, before.since)


class _ShardRun:
    """The regular work on a shard: fetch, prepare and commit, starting from a recovered head."""

    def __init__(self, shard: Shard, start: Start, parts: Parts, head: Head, render_again: Renderer) -> None:
        self.shard = shard
        self.start = start
        self.parts = parts
        self.head = head
        self.render_again = render_again
        self.stop = Stop.CAUGHT_UP
        self.held = HeldBytes(parts.budget)
        self.breaker = ShardBreaker(parts.breaker)
        self.pages: asyncio.Queue[Page | None] = asyncio.Queue(maxsize=1)
        self.nudge_timer: asyncio.TimerHandle | None = None
        self.lost: Expired | None = None
        self.rendered: asyncio.Queue[tuple[Rendered, int] | Page | None] = asyncio.Queue(maxsize=1)

    async def run(self) -> Head:
        """Work on the shard. Returns the head at its end, or where work had to stop; ``stop`` then says why.

        Raises:
            Expired: the next records have expired in the stream; everything read before them is sealed.
        """
        listener_lists = self.parts.stop_listeners
        for listeners in listener_lists:
            listeners.append(self.nudge)
        self.nudge()
        try:
            async with asyncio.TaskGroup() as group:
                where = f"{self.shard.stream}/{self.shard.shard_id}"
                fetching = group.create_task(self.fetch(), name=f"fetch {where}")
                group.create_task(self.prepare(fetching), name=f"prepare {where}")
                group.create_task(self.commit(), name=f"commit {where}")
        except ExceptionGroup as group_error:
            raise most_severe(group_error) from group_error
        finally:
            for listeners in listener_lists:
                listeners.remove(self.nudge)
            if self.nudge_timer is not None:
                self.nudge_timer.cancel()
            self.parts.budget.relief.stopped(self)
            self.held.release_all()
        if self.lost is not None:
            raise self.lost
        return self.head

    def nudge(self) -> None:
        """If the shard has to stop, wake ``prepare`` in a moment, so that records that have already arrived are sealed too."""
        if self.parts.stops(self.shard):
            self.nudge_timer = asyncio.get_running_loop().call_later(NUDGE_SECONDS, self.wake_prepare)

    def wake_prepare(self) -> None:
        """Wake ``prepare``, unless a queued page will do so."""
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
            # Records read but not yet sealed may have expired by now, too, so they are sealed before the gap is recorded. The marker
            # follows the last page, so that no page stays in the queue.
            await self.pages.put(None)
            self.lost = error

    async def prepare(self, fetching: asyncio.Task[None]) -> None:
        clock, limits = self.parts.clock, self.parts.limits
        unit, foreign_subsequence = _UnitBeingFilled(self.head.position, self.head.position), self.head.foreign_subsequence
        while True:
            page = await self._next_page(cut.seconds_until_due(unit.size, limits, clock.monotonic(), NUDGE_SECONDS))
            if page is not None:
                if page.behind_ms == 0 and page.position == unit.after:
                    await self.note_tip(page.position, page.asked or clock.now())
                unit.add(page, clock.monotonic())
            stop = self.parts.stops(self.shard)
            circumstances = cut.Circumstances(
                ended=page is not None and page.ended,
                draining=stop is not None or self.lost is not None or (page is not None and page.paused),
                pressure=self._pressed(unit.held, page),
                closed=page is not None and page.closes,
            )
            why = cut.trigger(unit.size, limits, clock.monotonic(), circumstances)
            if why is not None and unit.position > unit.after:
                span, raw, held = SeqRange(unit.after, unit.position), unit.batches, unit.held
                unit, page = _UnitBeingFilled(span.last, span.last), page if circumstances.ended else None
                rendered = await self._render(CutUnit(self.shard, span, raw, why, foreign_subsequence))
                foreign_subsequence = -1
                # The raw records are no longer needed, and the byte budget does not allow for keeping them.
                del raw
                await self.rendered.put((rendered, held))
                del rendered
            elif why is None and unit.size is not None:
                self.parts.budget.relief.filling(self, unit.held, self.wake_prepare)
            if circumstances.ended:
                await self.rendered.put(page)
                return
            if circumstances.draining:
                self.stop = stop or Stop.CAUGHT_UP
                fetching.cancel()
                await self.rendered.put(None)
                return

    async def commit(self) -> None:
        while isinstance(item := await self.rendered.get(), tuple):
            rendered, held = item
            await self._seal(rendered)
            self.held.release(held)
            del item, rendered
        if item is not None:
            self.head = await self.parts.committer.end(self.shard, self.head, item.children)

    def _pressed(self, held: int, page: Page | None) -> bool:
        """Whether to cut the unit being filled because readers are waiting for memory.

        A small unit is not cut as long as pages arrive; otherwise many shards that are catching up would write only tiny files. If no page
        has arrived for a while, this shard may itself be waiting for memory, so even a small unit is cut.
        """
        return self.parts.budget.pressure.is_set() and (page is None or held >= self.parts.limits.payload_bytes * SMALL_UNIT_SHARE)

    async def note_tip(self, position: int, asked: datetime) -> None:
        """Note in the log, now and then, that a quiet shard had been read to its tip at ``asked``.

        Once the last committed record has expired, the stream can no longer show that nothing was missed after it.
        """
        read_until, noted = asked - MOST_AHEAD, self.head.complete_until
        if self.head.position == position and noted is not None and read_until - noted > TIP_INTERVAL:
            self.head = await self.parts.committer.note_tip(self.shard, self.head, read_until)

    async def _next_page(self, timeout: float | None) -> Page | None:
        try:
            async with asyncio.timeout(timeout):
                return await self.pages.get()
        except TimeoutError:
            return None

    async def _render(self, unit: CutUnit) -> Rendered:
        where = (self.shard.stream, self.shard.shard_id)
        rows, payload_bytes = sum(each.rows for each in unit.batches), sum(each.payload_bytes for each in unit.batches)
        self.parts.emit(events.UnitCut(*where, unit.span.after, unit.span.last, unit.trigger, rows, payload_bytes))
        with self.parts.budget.relief.transforming(self):
            rendered = await self.parts.render(self.parts.recipe, unit)
        for stage, rows_in, rows_out, seconds in rendered.stage_rows:
            self.parts.emit(events.StageApplied(*where, stage, rows_in, rows_out, seconds))
        for stage, reason, records in rendered.rejected:
            self.parts.emit(events.RecordsRejected(*where, stage, reason, records))
        self._halt_on_too_many_dead_letters(rendered)
        if self.parts.export is not None and rendered.segment is not None:
            self.parts.export.recent.put(rendered.unit.files[-1].sha256, rendered.segment)
        return replace(rendered, segment=None)

    async def _seal(self, rendered: Rendered) -> None:
        parts, started = self.parts, self.parts.clock.monotonic()
        own = with_previous(rendered.unit, self.head.previous, parts.worker, parts.clock.now())
        entry = await parts.committer.commit(self.shard, own, self.render_again)
        self.head = head_after(entry)
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
                (now - rendered.oldest).total_seconds() if rendered.oldest else 0.0,
                (now - rendered.newest).total_seconds() if rendered.newest else 0.0,
                parts.clock.monotonic() - started,
            )
        )
        if entry.manifest.span.last != own.manifest.span.last:
            msg = f"{self.shard.stream}/{self.shard.shard_id}: another worker cut the unit after {own.manifest.after} elsewhere"
            raise Superseded(msg, position=entry.manifest.span.last)

    def _halt_on_too_many_dead_letters(self, rendered: Rendered) -> None:
        manifest = rendered.unit.manifest
        excess = self.breaker.trips(self.parts.clock.monotonic(), manifest.records, rendered.dead_letters)
        if excess is None:
            return
        worst = max(rendered.rejected, key=lambda row: row[2])
        msg = (
            f"{self.shard.stream}/{self.shard.shard_id}: {excess} after {manifest.after} "
            f"would become dead letters, most of them ({worst[2]}) at stage `{worst[0]}` with reason `{worst[1]}`. This suggests that "
            "the pipeline is wrong, not the data. Nothing of this unit was written. `stream preview` shows such records and what is wrong "
            f"with them. Correct the pipeline, or raise rejects.max_ratio (now {self.parts.breaker.max_ratio})."
        )
        raise Halted(msg)
