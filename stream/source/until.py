"""Reads a stream up to a point in time, for runs that have to end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from stream.batch import ARRIVAL, SEQUENCE, Batch
from stream.contracts import Clock, LendingSource, Page, Shard, Start
from stream.errors import DefinitionError, Halted
from stream.source.access import CLOCK_SLACK

AHEAD: Final = timedelta(minutes=5)
"""How far the clocks of a scheduler and of this machine may differ."""


class ReadUntil:
    """``contracts.Source`` over another one, reading each shard up to ``moment``.

    To *catch up* (``end`` False), a shard pauses at the end of a page once everything that had arrived by ``moment`` is read; the next run
    continues there. To read a *time range* (``end`` True), a shard ends right before its first record that arrived at ``moment`` or later.
    That is the same record for every reader, and a reader that starts at ``moment`` begins with it. If it has not arrived yet, nobody knows
    which it will be until ``moment`` has passed by the clock that stamps arrivals, which ``time`` asks; by default it is ``clock``.
    """

    def __init__(
        self,
        inner: LendingSource,
        moment: datetime,
        clock: Clock,
        *,
        end: bool,
        name: str,
        time: Callable[[], Awaitable[datetime]] | None = None,
    ) -> None:
        self.budget = inner.budget
        self._inner = inner
        self._moment = moment
        self._clock = clock
        self._end = end
        self._name = name
        self._time = time
        self._ahead: timedelta | None = None
        """How far our clock is ahead of the one that stamps arrivals, or more; None until that matters."""

    async def shards(self) -> list[Shard]:
        """All shards of the stream, under the name that this reading has in the log."""
        return [replace(shard, stream=self._name) for shard in await self._inner.shards()]

    async def read(
        self, shard: Shard, after: int, start: Start, until: int | None = None, complete_until: datetime | None = None
    ) -> AsyncIterator[Page]:
        """Pages as ``contracts.Source.read`` promises; they end as described above unless ``until`` is given."""
        position = after
        async with aclosing(self._inner.read(shard, after, start, until, complete_until)) as pages:  # type: ignore[type-var]
            async for page in pages:
                try:
                    last = page if until is not None else await self._last(shard, page, position)
                except BaseException:
                    self.budget.release(page.held)
                    raise
                position = page.position
                yield last or page
                if last is not None and until is None:
                    return

    async def _last(self, shard: Shard, page: Page, position: int) -> Page | None:
        """``page`` as the last one, or None if reading has to continue."""
        if page.ended:
            return page
        arrived = page.batch.frame[ARRIVAL]
        late = bool(page.batch.rows) and arrived.max() >= self._moment  # type: ignore[operator]
        at_tip = page.behind_ms == 0
        if not self._end:
            return replace(page, paused=True) if late or at_tip else None
        if not late:
            return await self._ended(shard, page) if at_tip and await self._has_passed(page.asked or self._clock.now()) else None
        first = (arrived >= self._moment).arg_true()[0]
        frame = page.batch.frame.slice(0, first)
        kept = Batch.of(frame)
        return await self._ended(shard, replace(page, batch=kept, position=int(frame[SEQUENCE][-1]) if first else position))

    async def _has_passed(self, asked: datetime) -> bool:
        """Whether no record that arrives after ``asked``, by our clock, can have arrived before the moment."""
        if asked <= self._moment + CLOCK_SLACK:
            return False
        if self._ahead is None:
            said = await self._time() if self._time is not None else self._clock.now()
            self._ahead = max(timedelta(), self._clock.now() - said)
        return asked - self._ahead > self._moment + CLOCK_SLACK

    async def _ended(self, shard: Shard, page: Page) -> Page:
        children = tuple(each.shard_id for each in await self._inner.shards() if shard.shard_id in each.parents)
        return replace(page, ended=True, children=children)


def refuse_future(until: datetime, now: datetime, stream: str) -> None:
    """Make sure that a run up to ``until`` would not have to wait for that time.

    Raises:
        DefinitionError: it is later than ``now`` by more than clocks may differ.
    """
    if until > now + AHEAD:
        msg = (
            f"the end of the range, {until.isoformat()}, has not come yet, and the run would wait for it: "
            f"it is {now.isoformat(timespec='seconds')} now. Read up to a moment that has passed; "
            f"what arrives in {stream} from now on is read by `stream run`."
        )
        raise DefinitionError(msg)


def refuse_lost(begin: datetime, now: datetime, retention: timedelta, stream: str) -> None:
    """Make sure that the stream can still hold every record that arrived at ``begin`` or later.

    Raises:
        Halted: it has dropped some of them by age.
    """
    if begin < now - retention:
        earliest = (now - retention + timedelta(minutes=5)).isoformat()
        kept = f"{retention / timedelta(hours=1):g} hours"
        msg = (
            f"the stream {stream} keeps records for {kept}: of what arrived at {begin.isoformat()} it has dropped some by age. Begin "
            f"at {earliest} or later, or read an archive with source.s3."
        )
        raise Halted(msg)
