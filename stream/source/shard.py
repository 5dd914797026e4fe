"""Reads one shard from a position by polling, with pauses and retries, and never delivers a record twice.

Iterators expire, calls fail and pages may be returned again; but only records after the position are delivered, so callers see none of
that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from stream.aws.errors import EXPIRED_ITERATOR, INVALID_ARGUMENT, NOT_FOUND, AwsFatal, AwsRetryable, is_throttle
from stream.aws.pages import PageFacts, RawPage
from stream.aws.retry import FOR_EVER, THROTTLED, Wait, decide
from stream.batch import ORIGIN, Batch
from stream.contracts import Page, Shard, Start
from stream.errors import Expired, Halted
from stream.events import PageReceived, PollRepeated
from stream.source.access import StreamAccess, shown
from stream.source.aggregated import HashRange, expand, marked, without_expanding
from stream.source.expiry_watch import CONFIRMATIONS, ExpiryWatch, iterator_at
from stream.source.memory import BudgetShare, Reservation
from stream.source.pace import Pace, PageSize
from stream.source.progress import Progress

_EXPAND_IN_THREAD: Final = 256 * 1024
"""Pages above this many bytes are expanded in a thread, to keep the event loop free."""


class ShardReader:
    """Reads one shard once; see ``contracts.Source.read`` for what ``pages`` delivers."""

    def __init__(
        self, source: StreamAccess, shard: Shard, after: int, start: Start, until: int | None, complete_until: datetime | None
    ) -> None:
        self._source = source
        self._shard = shard
        self._progress = Progress(shard, after, start, until)
        self._expiry = ExpiryWatch(source, shard, complete_until)
        self._share = BudgetShare(source.budget, shard, source.clock, source.emit)
        self._hashes = HashRange(shard.first_hash, shard.last_hash, source.settings.kpl_out_of_range)
        self._pace = Pace(source.settings)
        self._page_size = PageSize(source.settings.limit)
        self._asked = source.clock.now()
        """When the service was asked for the response at hand. It may be handled much later, if this process was frozen in between."""
        self._iterator: str | None = None
        self._failures = self._childless = 0

    async def pages(self) -> AsyncIterator[Page]:
        """Pages in order. Closing or cancelling releases the bytes of a page that was not delivered."""
        with self._share:
            while not self._progress.complete:
                page = await self._attempt()
                if page is None:
                    continue
                yield page
                if page.ended:
                    return

    async def _attempt(self) -> Page | None:
        """The next page, or None if the call has to be retried; waits as long as it takes."""
        clock = self._source.clock
        try:
            if self._iterator is None:
                self._iterator = await self._new_iterator()
            await clock.sleep(self._pace.wait(clock.monotonic()))
            await self._share.wait_for_turn()
            size, limit = self._page_size.ask(self._share.limit)
            with await self._share.reserve(size) as reservation:
                raw, seconds = await self._fetch(self._iterator, limit)
                page = await self._page(raw, seconds, reservation)
            self._share.end_turn_if_due(page)
        except AwsRetryable as error:
            await self._repeat(error)
            return None
        except AwsFatal as error:
            await self._refused(error)
            return None
        self._failures = self._childless = 0
        return page

    async def _new_iterator(self) -> str:
        source, position = self._source, self._progress.position
        try:
            return await source.client.get_shard_iterator(source.stream, self._shard.shard_id, self._progress.beginning(source.clock.now()))
        except AwsFatal as error:
            # A recorded gap, or a range that another application processed, ends right before a record, at no record's number. Kinesis
            # refuses such a number as an invalid argument, kinesis-local as a resource that it cannot find.
            if error.code not in {INVALID_ARGUMENT, NOT_FOUND} or position == ORIGIN:
                raise
            if (iterator := await iterator_at(source, self._shard, position + 1)) is not None:
                return iterator
            if error.code == NOT_FOUND:
                raise
            raise Expired(await self._expiry.why_lost(position, f"the service does not accept that position ({error})")) from error

    async def _fetch(self, iterator: str, limit: int) -> tuple[RawPage, float]:
        """A response, and how many seconds it took."""
        source = self._source
        begin, self._asked = source.clock.monotonic(), source.clock.now()
        self._pace.polled(begin)
        raw = await source.client.get_records(source.stream, iterator, limit)
        now = source.clock.monotonic()
        self._pace.answered(now, records=raw.frame.height, behind_ms=raw.behind_ms, readers=source.budget.readers)
        return raw, now - begin

    async def _page(self, raw: RawPage, seconds: float, reservation: Reservation) -> Page:
        """The page made from a response that took ``seconds``; advances the position."""
        progress, shard = self._progress, self._shard
        frame = progress.new_rows(raw)
        await self._expiry.check(progress, raw, frame)
        ended = raw.next_iterator is None and not progress.passed_by(raw)
        children = await self._children(raw) if ended else ()
        batch = await self._batch(frame, raw.facts if frame is raw.frame else None)
        size = 0 if batch.rows == 0 else max(batch.payload_bytes, int(batch.frame.estimated_size()))
        self._page_size.learn(frame.height, size)
        reservation.settle(size)
        self._iterator = raw.next_iterator
        progress.advance(raw, frame)
        # Records can expire between two pages, too.
        self._expiry.complete_until = self._asked - timedelta(milliseconds=raw.behind_ms)
        sizes, oldest = (frame.height, batch.rows, batch.payload_bytes), batch.oldest
        self._source.emit(PageReceived(shard.stream, shard.shard_id, *sizes, raw.behind_ms, seconds, oldest))
        return Page(batch, progress.position, raw.behind_ms, reservation.hand_on(), ended, children, asked=self._asked)

    async def _batch(self, frame: pl.DataFrame, facts: PageFacts | None) -> Batch:
        """The user records of ``frame``; ``facts`` is what is known about the whole frame."""
        if frame.height == 0:
            return Batch.empty()
        if facts is not None and not facts.aggregates:
            return Batch(without_expanding(frame), facts.payload_bytes, traced=facts.traced)
        if frame.estimated_size() > _EXPAND_IN_THREAD and marked(frame):
            expanded = await asyncio.to_thread(expand, frame, self._hashes)
        else:
            expanded = expand(frame, self._hashes)
        return Batch.of(expanded)

    async def _repeat(self, error: AwsRetryable) -> None:
        if error.code == EXPIRED_ITERATOR:
            self._iterator = None
        throttled = is_throttle(error)
        self._share.end_turn()
        self._failures += 1
        step = decide(error, self._failures, self._source.random(), THROTTLED if throttled else FOR_EVER)
        # The first new iterator after an expiry needs no pause: nothing was overloaded.
        fresh = error.code == EXPIRED_ITERATOR and self._failures == 1
        wait = step.seconds if isinstance(step, Wait) and not fresh else 0.0
        why = "throttled" if throttled else "expired_iterator" if error.code == EXPIRED_ITERATOR else "error"
        self._source.emit(PollRepeated(self._shard.stream, self._shard.shard_id, why, str(error), wait))
        await self._source.clock.sleep(wait)

    async def _refused(self, error: AwsFatal) -> None:
        """Raise the error that a refusal means for this shard, or return if a new iterator may help."""
        if error.code == INVALID_ARGUMENT and (self._iterator is not None or self._progress.may_begin_too_early(self._source.clock.now())):
            self._iterator = None
            await self._repeat(AwsRetryable(str(error), code=error.code))
            return
        if error.code != NOT_FOUND:
            raise error
        # ResourceNotFound may mean the stream or the shard; listing the shards fails if it means the stream.
        known = await self._source.shards()
        if all(shard.shard_id != self._shard.shard_id for shard in known):
            finding = "the service no longer knows the shard, so its records have expired"
            raise Expired(await self._expiry.why_lost(self._progress.position, finding)) from error
        self._iterator = None
        await self._repeat(AwsRetryable(str(error), code=error.code))

    async def _children(self, raw: RawPage) -> tuple[str, ...]:
        """The ids of this shard's children, from the response or else from the list of shards."""
        if raw.children:
            return tuple(sorted(raw.children))
        listed = await self._source.shards()
        children = tuple(shard.shard_id for shard in listed if self._shard.shard_id in shard.parents)
        if children:
            return children
        self._childless += 1
        if self._childless < CONFIRMATIONS:
            msg = f"{shown(self._shard)}: the service says that the shard has ended, but names no shard that continues it"
            raise AwsRetryable(msg, code="EndWithoutChildren")
        msg = (
            f"{shown(self._shard)}: the shard has ended after {self._progress.position}, but no shard continues it. All records up to "
            "there were read. Check in the list of shards whether the stream was deleted and recreated."
        )
        raise Halted(msg)
