"""Reads one shard from a position by polling, with pauses and retries, and never delivers a record twice.

A *position* is the greatest sequence number seen. Iterators expire, calls fail and pages may be returned again; but only records after the
position are delivered, so callers see none of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from types import TracebackType
from typing import Final, Self

import polars as pl

from stream.aws.errors import EXPIRED_ITERATOR, INVALID_ARGUMENT, NOT_FOUND, AwsFatal, AwsRetryable, is_throttle
from stream.aws.kinesis import IteratorAt, IteratorKind
from stream.aws.pages import PageFacts, RawPage
from stream.aws.retry import FOR_EVER, THROTTLED, Wait, decide
from stream.batch import ORIGIN, SEQUENCE, Batch
from stream.budget import TURN_BYTES, ByteBudget
from stream.contracts import Page, Shard, Start, StartKind
from stream.errors import Expired, Halted
from stream.events import BudgetWaited, PageReceived, PollRepeated
from stream.source.access import StreamAccess
from stream.source.aggregated import HashRange, expand, marked, without_expanding
from stream.source.pace import Pace, PageSize

_EXPAND_IN_THREAD: Final = 256 * 1024
"""Pages above this many bytes are expanded in a thread, to keep the event loop free."""
_SHORTEST_RETENTION: Final = timedelta(hours=24)
NEAR_HORIZON: Final = timedelta(minutes=5)
_CONFIRMATIONS: Final = 5
"""Consecutive equal responses before a suspected loss or a missing child is taken as fact."""
_LATEST_SLACK: Final = timedelta(seconds=5)
"""Clock difference allowed for when LATEST has to be replaced by the time of the first call."""


class Reservation:
    """Reserved bytes of the budget, which are released at the end of the ``with`` block unless they were handed on."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget = budget
        self._size = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._size:
            self._budget.release(self._size)

    def settle(self, actual: int) -> None:
        """Change the number of reserved bytes to ``actual``."""
        self._budget.adjust(self._size, actual)
        self._size = actual

    def hand_on(self) -> int:
        """Leave the release of the bytes to the caller; returns how many there are."""
        size, self._size = self._size, 0
        return size


_SMALL_PAGE_BYTES: Final = TURN_BYTES // 8
"""A smaller page ends its reader's turn, so that a reader that walks through hours without records does not make others wait."""


@dataclass(frozen=True, slots=True)
class _Response:
    raw: RawPage
    frame: pl.DataFrame
    seconds: float


class ShardReader:
    """Reads one shard once; see ``contracts.Source.read`` for what ``pages`` delivers."""

    def __init__(
        self,
        source: StreamAccess,
        shard: Shard,
        after: int,
        start: Start,
        until: int | None,
        complete_until: datetime | None = None,
    ) -> None:
        self._source = source
        self._shard = shard
        self._start = start
        self._until = until
        self._complete_until = complete_until
        self._asked = source.clock.now()
        """When the service was asked for the response at hand. It may be handled much later, if this process was frozen in between."""
        self._position = after
        self._position_text = str(after)
        self._hashes = HashRange(shard.first_hash, shard.last_hash, source.settings.kpl_out_of_range)
        self._pace = Pace(source.settings)
        self._page_size = PageSize(source.settings.limit)
        self._iterator: str | None = None
        self._latest_since: datetime | None = None
        self._behind = True
        self._fetched = 0
        """Bytes fetched in this turn."""
        self._failures = self._suspicions = self._childless = 0

    async def pages(self) -> AsyncIterator[Page]:
        """Pages in order. Closing or cancelling releases the bytes of a page that was not delivered."""
        self._source.budget.readers += 1
        try:
            while self._until is None or self._position < self._until:
                page = await self._attempt()
                if page is None:
                    continue
                yield page
                if page.ended:
                    return
        finally:
            self._source.budget.readers -= 1
            self._source.budget.turns.end(self)

    async def _attempt(self) -> Page | None:
        """The next page, or None if the call has to be retried; waits as long as it takes."""
        source = self._source
        try:
            if self._iterator is None:
                self._iterator = await self._new_iterator()
            await source.clock.sleep(self._pace.wait(source.clock.monotonic()))
            await self._wait_for_turn()
            size, limit = self._page_size.ask(source.budget.limit // max(1, min(source.budget.readers, source.budget.turns.count)))
            with await self._reserve(size) as reservation:
                page = await self._page(await self._fetch(self._iterator, limit), reservation)
            self._end_turn_if_due(page)
        except AwsRetryable as error:
            await self._repeat(error)
            return None
        except AwsFatal as error:
            await self._refused(error)
            return None
        self._failures = self._childless = 0
        return page

    async def _reserve(self, size: int) -> Reservation:
        clock = self._source.clock
        begin = clock.monotonic()
        await self._source.budget.acquire(size)
        self._report_wait(clock.monotonic() - begin)
        return Reservation(self._source.budget, size)

    async def _wait_for_turn(self) -> None:
        """Wait until it is this reader's turn, if it is behind the tip."""
        clock = self._source.clock
        begin = clock.monotonic()
        if self._behind:
            await self._source.budget.turns.begin(self)
        self._report_wait(clock.monotonic() - begin)

    def _report_wait(self, seconds: float) -> None:
        if seconds > 0.001:
            self._source.emit(BudgetWaited(self._shard.stream, self._shard.shard_id, seconds))

    def _end_turn_if_due(self, page: Page) -> None:
        """End this reader's turn once it has had its share, is at the tip of its shard, or gets little at a time."""
        self._behind = page.behind_ms > 0
        self._fetched += page.held
        if not self._behind or page.held < _SMALL_PAGE_BYTES or self._fetched >= TURN_BYTES:
            self._fetched = 0
            self._source.budget.turns.end(self)

    async def _fetch(self, iterator: str, limit: int) -> _Response:
        source = self._source
        begin, self._asked = source.clock.monotonic(), source.clock.now()
        self._pace.polled(begin)
        raw = await source.client.get_records(source.stream, iterator, limit)
        now = source.clock.monotonic()
        self._pace.answered(now, records=raw.frame.height, behind_ms=raw.behind_ms, readers=source.budget.readers)
        return self._response(raw, now - begin)

    def _response(self, raw: RawPage, seconds: float) -> _Response:
        return _Response(raw, self._trimmed(raw), seconds)

    async def _page(self, response: _Response, reservation: Reservation) -> Page:
        """The page made from a response; advances the position."""
        raw, frame = response.raw, response.frame
        await self._check_horizon(raw, frame)
        untrimmed = raw.frame.height == 0 or self._until is None or int(raw.frame.item(-1, SEQUENCE)) <= self._until
        ended = raw.next_iterator is None and untrimmed
        children = await self._children(raw) if ended else ()
        batch = await self._batch(frame, raw.facts if frame is raw.frame else None)
        size = 0 if batch.rows == 0 else max(batch.payload_bytes, int(batch.frame.estimated_size()))
        self._page_size.learn(frame.height, size)
        reservation.settle(size)
        self._iterator = raw.next_iterator
        self._advance(raw, frame)
        self._source.emit(
            PageReceived(
                self._shard.stream,
                self._shard.shard_id,
                frame.height,
                batch.rows,
                batch.payload_bytes,
                raw.behind_ms,
                response.seconds,
            )
        )
        return Page(batch, self._position, raw.behind_ms, reservation.hand_on(), ended, children, asked=self._asked)

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

    def _trimmed(self, raw: RawPage) -> pl.DataFrame:
        """The rows after the position, up to ``until``."""
        frame, facts = raw.frame, raw.facts
        if frame.height == 0:
            return frame
        column = frame.get_column(SEQUENCE)
        first, last = int(column[0]), int(column[-1])
        inside = first > self._position and (self._until is None or last <= self._until)
        if inside and (_ascending(column) if facts is None else facts.rising):
            return frame
        numbers = [int(text) for text in column]
        if any(left >= right for left, right in pairwise(numbers)):
            msg = f"{self._where()}: the service sent records out of order after {self._position}. Report it with this number."
            raise Halted(msg)
        known = sum(1 for number in numbers if number <= self._position)
        beyond = 0 if self._until is None else sum(1 for number in numbers if number > self._until)
        return frame.slice(known, max(0, frame.height - known - beyond))

    def _advance(self, raw: RawPage, frame: pl.DataFrame) -> None:
        # Records can expire between two pages, too.
        self._complete_until = self._asked - timedelta(milliseconds=raw.behind_ms)
        if frame.height:
            self._position_text = str(frame.item(-1, SEQUENCE))
            self._position = int(self._position_text)
        if self._until is not None and raw.frame.height and int(raw.frame.item(-1, SEQUENCE)) > self._until:
            self._position, self._position_text = self._until, str(self._until)

    # --- where to begin ---------------------------------------------------------------------------------------------------

    async def _new_iterator(self) -> str:
        source = self._source
        try:
            return await source.client.get_shard_iterator(source.stream, self._shard.shard_id, self._beginning())
        except AwsFatal as error:
            if error.code not in {INVALID_ARGUMENT, NOT_FOUND} or self._position == ORIGIN:
                raise
            if (iterator := await self.iterator_at(self._position + 1)) is not None:
                return iterator
            if error.code == NOT_FOUND:
                raise
            raise Expired(await self._lost(f"the service does not accept that position ({error})")) from error

    async def iterator_at(self, sequence: int) -> str | None:
        """An iterator at that record, or None if the stream has, or holds, no such record.

        A recorded gap, or a range that another application processed, ends right before a record, at no record's number. Kinesis refuses
        such a number as an invalid argument, kinesis-local as a resource that it cannot find.
        """
        source, at = self._source, IteratorAt(IteratorKind.AT, sequence=str(sequence))
        try:
            iterator = await source.client.get_shard_iterator(source.stream, self._shard.shard_id, at)
            for _ in range(_CONFIRMATIONS):
                found = await source.client.get_records(source.stream, iterator, 1)
                # A response without records does not mean that there are none further on.
                if found.frame.height or found.next_iterator is None or found.behind_ms == 0:
                    return iterator if found.frame.height and int(found.frame.item(0, SEQUENCE)) == sequence else None
                iterator = found.next_iterator
        except AwsFatal as error:
            if error.code != INVALID_ARGUMENT:
                raise
        return None

    def _beginning(self) -> IteratorAt:
        if self._position != ORIGIN:
            return IteratorAt(IteratorKind.AFTER, sequence=self._position_text)
        if self._start.kind is StartKind.TRIM_HORIZON:
            return IteratorAt(IteratorKind.TRIM_HORIZON)
        if self._start.kind is StartKind.AT_TIMESTAMP:
            return IteratorAt(IteratorKind.AT_TIMESTAMP, timestamp=self._start.timestamp)
        if self._latest_since is None:
            self._latest_since = self._source.clock.now() - _LATEST_SLACK
            return IteratorAt(IteratorKind.LATEST)
        # A second LATEST would skip what has arrived since the first one.
        return IteratorAt(IteratorKind.AT_TIMESTAMP, timestamp=self._latest_since)

    def _may_begin_too_early(self) -> bool:
        """Whether Kinesis may have refused a start that lies in the future by its clock. With larger differences it refuses all calls."""
        moment = self._start.timestamp or self._latest_since
        return self._position == ORIGIN and moment is not None and self._source.clock.now() < moment + timedelta(minutes=5)

    # --- what can go wrong ------------------------------------------------------------------------------------------------

    async def _repeat(self, error: AwsRetryable) -> None:
        if error.code == EXPIRED_ITERATOR:
            self._iterator = None
        throttled = is_throttle(error)
        self._source.budget.turns.end(self)
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
        if error.code == INVALID_ARGUMENT and (self._iterator is not None or self._may_begin_too_early()):
            self._iterator = None
            await self._repeat(AwsRetryable(str(error), code=error.code))
            return
        if error.code != NOT_FOUND:
            raise error
        # ResourceNotFound may mean the stream or the shard; listing the shards fails if it means the stream.
        known = await self._source.shards()
        if all(shard.shard_id != self._shard.shard_id for shard in known):
            raise Expired(await self._lost("the service no longer knows the shard, so its records have expired")) from error
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
        if self._childless < _CONFIRMATIONS:
            msg = f"{self._where()}: the service says that the shard has ended, but names no shard that continues it"
            raise AwsRetryable(msg, code="EndWithoutChildren")
        msg = (
            f"{self._where()}: the shard has ended after {self._position}, but no shard continues it. All records up to "
            "there were read. Check in the list of shards whether the stream was deleted and recreated."
        )
        raise Halted(msg)

    async def _check_horizon(self, raw: RawPage, frame: pl.DataFrame) -> None:
        """Find out whether records between the position and this response have expired unread.

        Kinesis does not report this: an iterator after an expired record starts at the oldest record that is left, or stays before the
        retention period and returns no records.
        """
        if raw.frame.height:
            self._suspicions = 0
            if self._position != ORIGIN and frame.height:
                await self._check_first(frame)
            return
        if self._until is not None and raw.behind_ms == 0 and raw.next_iterator is not None:
            finding = f"the shard no longer holds the records up to {self._until}, which were read from it before"
        elif self._position != ORIGIN and await self._beyond_retention(timedelta(milliseconds=raw.behind_ms)):
            finding = "reading has stopped further back than the stream's retention"
        else:
            if raw.next_iterator is not None:
                self._suspicions = 0
            return
        self._suspicions += 1
        if self._suspicions >= _CONFIRMATIONS:
            raise Expired(await self._lost(finding))

    async def _check_first(self, frame: pl.DataFrame) -> None:
        if int(frame.item(0, SEQUENCE)) == self._position + 1:
            return
        since = self._complete_until
        if since is not None and not await self._beyond_retention(self._source.clock.now() - since + NEAR_HORIZON):
            return
        if await self.iterator_at(self._position) is None:
            raise Expired(await self._lost("that record has expired, and others before the oldest one left may have expired too"))

    async def _beyond_retention(self, age: timedelta) -> bool:
        return age >= _SHORTEST_RETENTION and age >= await self._source.retention()

    async def _lost(self, finding: str) -> str:
        retention = await self._source.retention()
        return (
            f"{self._where()} ({self._source.client.place}): reading cannot continue after {self._position}: {finding}. The stream "
            f"keeps records for {retention}: some may have expired unread, or the stream was recreated under the same name. "
            "Raise the retention if reading fell behind. With source.kinesis.on_expired: gap, the worker records the gap and continues."
        )

    def _where(self) -> str:
        return f"shard {self._shard.shard_id} of stream {self._shard.stream}"


def _ascending(texts: pl.Series) -> bool:
    """Whether the texts have equal lengths and ascend, and so ascend as numbers, too. False does not mean that they do not."""
    return texts.str.len_bytes().n_unique() == 1 and bool((texts.slice(1) > texts.slice(0, len(texts) - 1)).all())
