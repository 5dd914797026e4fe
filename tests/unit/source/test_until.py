"""Reading a stream up to a point in time, over a list of pages."""

import asyncio
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from stream.batch import RAW_SCHEMA, Batch
from stream.budget import ByteBudget
from stream.contracts import Page, Shard, Start, StartKind
from stream.errors import Retryable
from stream.source.access import CLOCK_SLACK
from stream.source.until import ReadUntil
from tests.sealed import NOON, StillClock


class Pages:
    """Pages of one record each, a minute apart, each holding bytes of the budget; ``shards`` fails."""

    def __init__(self):
        self.budget = ByteBudget(1000)

    async def shards(self):
        raise Retryable("the service does not list its shards")

    async def read(self, shard, after, start, until=None, complete_until=None):
        for number in range(1, 6):
            await self.budget.acquire(100)
            frame = pl.DataFrame([(str(number), 0, NOON + timedelta(minutes=number), "k", b"{}", 0)], schema=RAW_SCHEMA, orient="row")
            yield Page(Batch.of(frame), number, 60_000, 100)


def test_a_page_whose_shard_cannot_be_ended_returns_its_bytes():
    async def run():
        inner = Pages()
        source = ReadUntil(inner, NOON + timedelta(minutes=3), StillClock(datetime(2026, 1, 2, tzinfo=UTC)), end=True, name="part")
        pages = source.read(Shard("part", "0"), 0, Start(StartKind.TRIM_HORIZON))
        taken = [(await anext(pages)).held, (await anext(pages)).held]
        with pytest.raises(Retryable):
            await anext(pages)
        return taken, inner.budget.held

    assert asyncio.run(run()) == ([100, 100], 200)


class Tip:
    """Empty pages at the tip of a shard without end, one asked for every 30 seconds from 12:03 on by our clock; each moves ``clock``."""

    def __init__(self, clock, handled_late=timedelta()):
        self.budget = ByteBudget(1000)
        self.clock = clock
        self.handled_late = handled_late
        self.given = []

    async def shards(self):
        return []

    async def read(self, shard, after, start, until=None, complete_until=None):
        while len(self.given) < 100:
            asked = NOON + timedelta(minutes=3, seconds=30 * len(self.given))
            self.given.append(asked)
            self.clock.time = asked + self.handled_late
            yield Page(Batch.of(pl.DataFrame(schema=RAW_SCHEMA)), 0, 0, 0, asked=asked)


class SetClock:
    """A clock that shows ``time``."""

    time = NOON

    def now(self):
        return self.time


@pytest.mark.parametrize("minutes_ahead", [0, 1, 4])
@pytest.mark.parametrize("late", [timedelta(), timedelta(minutes=10)])
def test_a_range_ends_only_when_its_end_has_passed_by_the_clock_that_stamps_arrivals(minutes_ahead, late):
    """However far ours is ahead of it, and however late a response is handled, as by a process that was frozen."""
    clock, ahead, calls = SetClock(), timedelta(minutes=minutes_ahead), []

    async def time():
        calls.append(clock.now())
        return clock.now() - ahead

    async def run():
        inner, moment = Tip(clock, late), NOON + timedelta(minutes=4)
        source = ReadUntil(inner, moment, clock, end=True, name="part", time=time)
        pages = [page async for page in source.read(Shard("part", "0"), 0, Start(StartKind.TRIM_HORIZON))]
        assert [page.ended for page in pages] == [*[False] * (len(pages) - 1), True]
        return inner.given[-1] - ahead - moment

    assert asyncio.run(run()) == CLOCK_SLACK + timedelta(seconds=30)
    assert len(calls) == 1
