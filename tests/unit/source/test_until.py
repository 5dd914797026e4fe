"""Reading a stream up to a point in time, over a list of pages."""

import asyncio
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from stream.batch import RAW_SCHEMA, Batch
from stream.budget import ByteBudget
from stream.contracts import Page, Shard, Start, StartKind
from stream.errors import Retryable
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
