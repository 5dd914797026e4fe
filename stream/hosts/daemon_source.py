"""Records that the KCL's daemon delivers, as a source, supplemented by our own reads of the stream where the promises need them.

The daemon does not say whether records are missing between our log and the first record after it takes a shard, nor which children an ended
shard has. And after a split it drops user records of KPL aggregates that our own expansion keeps. In these three cases our own client reads
the range.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime

from stream.batch import ARRIVAL, ORIGIN, OUTCOME, SEQUENCE, SUBSEQUENCE, Batch, Outcome
from stream.budget import ByteBudget
from stream.contracts import Emit, Page, Shard, Start
from stream.errors import Halted
from stream.events import PageReceived
from stream.source.kinesis import KinesisSource

ALWAYS_BEHIND_MS = 1
"""The daemon buffers records: even when it reports that it has caught up, it may not have delivered everything."""


OWN_PART = 8
"""Our own client gets a byte budget of its own, of one over this share of the reading budget; it holds one page at a time."""

LOOK_AFTER = 10
"""Consecutive empty deliveries, about a second each, after which our own client looks for aggregates that the KCL does not deliver."""


class DaemonSource:
    """``contracts.Source`` of one shard; whoever listens to the daemon calls ``deliver`` and ``end``."""

    def __init__(self, own: KinesisSource, budget: ByteBudget, emit: Emit) -> None:
        # A separate budget: deliveries hold bytes of ``budget`` until our client's turn comes, so it would wait for itself.
        self._own = own.with_budget(ByteBudget(max(1, budget.limit // OWN_PART)))
        self._budget = budget
        self._emit = emit
        self._over = False
        self._taken = False
        """Whether a delivery has been taken from the queue, and the reader has not yet asked for what comes after it."""
        self._aggregates = False
        """Whether KPL aggregates were seen. The KCL drops some records of them, so from then on our own client re-reads every range."""
        self._delivered: asyncio.Queue[tuple[Batch, int, int] | None] = asyncio.Queue(maxsize=1)

    async def deliver(self, batch: Batch, behind_ms: int) -> None:
        """Pass a batch on; returns once there is room for it."""
        size = 0 if batch.rows == 0 else max(batch.payload_bytes, int(batch.frame.estimated_size()))
        await self._budget.acquire(size)
        try:
            await self._delivered.put((batch, behind_ms, size))
        except asyncio.CancelledError:
            self._budget.release(size)
            raise

    async def passed_on(self) -> None:
        """Return once whoever reads this source has been given all records delivered so far."""
        await self._delivered.join()

    async def end(self) -> None:
        """The shard has ended: nothing more will be delivered."""
        await self._delivered.put(None)

    async def shards(self) -> list[Shard]:
        """See ``contracts.Source``."""
        return await self._own.shards()

    async def read(
        self, shard: Shard, after: int, start: Start, until: int | None = None, complete_until: datetime | None = None
    ) -> AsyncIterator[Page]:
        """See ``contracts.Source``; only without ``until``. What an earlier call took and did not pass on is re-read by our own client.

        Raises:
            Halted: the daemon's records are out of order.
        """
        if until is not None:
            msg = "a range with an end must be read from the stream's own source"
            raise ValueError(msg)
        position, joined, quiet = after, False, 0
        while (item := await self._next()) is not None:
            delivered, behind_ms, size = item
            batch = _wanted(delivered, position, start)
            quiet = 0 if batch.rows else quiet + 1
            known = complete_until if position == after else None
            own = batch.rows > 0 and (not joined or self._aggregates or _aggregated(batch))
            if own or batch.rows == 0:
                self._budget.release(size)
            if own:
                until, joined = int(batch.frame[SEQUENCE][-1]), True
                async for page in self._again(shard, position, start, until, known):
                    self._aggregates = self._aggregates or _aggregated(page.batch)
                    position = page.position
                    yield page
                position = until
            elif batch.rows:
                self._emit_received(shard, batch, behind_ms)
                position = int(batch.frame[SEQUENCE][-1])
                yield Page(batch, position, max(behind_ms, ALWAYS_BEHIND_MS), size)
            elif self._aggregates and quiet % LOOK_AFTER == 0:
                async for page in self._again(shard, position, start, None, known):
                    position = page.position
                    yield page
            else:
                yield Page(batch, position, max(behind_ms, ALWAYS_BEHIND_MS), 0)
        async with aclosing(self._own.read(shard, position, start, complete_until=complete_until)) as rest:  # type: ignore[type-var]
            async for page in rest:
                yield self._counted(page)

    async def _next(self) -> tuple[Batch, int, int] | None:
        """The next delivery; None once the shard has ended, and on every call after that."""
        if self._taken:
            self._taken = False
            self._delivered.task_done()
        if self._over:
            return None
        item = await self._delivered.get()
        self._taken, self._over = True, item is None
        return item

    async def _again(self, shard: Shard, position: int, start: Start, until: int | None, known: datetime | None) -> AsyncIterator[Page]:
        """The records in ``(position, until]``, or up to the tip of the shard, as our own client reads them."""
        async with aclosing(self._own.read(shard, position, start, until, known)) as pages:  # type: ignore[type-var]
            async for page in pages:
                if page.batch.rows:
                    # ``until`` may not be the number of a record, but a commit must end at one.
                    last = int(page.batch.frame[SEQUENCE][-1])
                    yield replace(self._counted(page), position=last, behind_ms=max(page.behind_ms, ALWAYS_BEHIND_MS), ended=False)
                else:
                    self._own.budget.release(page.held)
                if until is None and (page.behind_ms == 0 or page.ended):
                    return

    def _counted(self, page: Page) -> Page:
        self._own.budget.release(page.held)
        self._budget.adjust(0, page.held)
        return page

    def _emit_received(self, shard: Shard, batch: Batch, behind_ms: int) -> None:
        records = batch.frame[SEQUENCE].n_unique()
        self._emit(PageReceived(shard.stream, shard.shard_id, records, batch.rows, batch.payload_bytes, behind_ms, 0.0, batch.oldest))


def _aggregated(batch: Batch) -> bool:
    return bool(((batch.frame[SUBSEQUENCE] > 0) | (batch.frame[OUTCOME] != Outcome.PENDING)).any())


def _wanted(batch: Batch, position: int, start: Start) -> Batch:
    """The rows after ``position`` and not before ``start``: the daemon begins at its own checkpoint, which may lag behind our log.

    Raises:
        Halted: the rows are out of order.
    """
    numbers = [int(text) for text in batch.frame[SEQUENCE]]
    if numbers != sorted(numbers):
        msg = f"the MultiLangDaemon sent records out of order after {position}. Report it with this number."
        raise Halted(msg)
    known = sum(1 for number in numbers if number <= position)
    if position == ORIGIN and start.timestamp is not None and batch.rows:
        young = batch.frame[ARRIVAL] >= start.timestamp
        known = int(young.arg_max() or 0) if young.any() else batch.rows
    if known == 0:
        return batch
    frame = batch.frame.slice(known)
    return Batch.of(frame)
