"""The regular work on one shard, over an in-memory log and a scripted source."""

import asyncio
from types import SimpleNamespace

import pytest

from stream.batch import Batch
from stream.budget import ByteBudget
from stream.commit.cut import Limits
from stream.contracts import Page, Shard
from stream.worker.halts.breaker import Breaker
from stream.worker.recipes.recipe import render
from stream.worker.shards import shard as shards
from tests.sealed import START, records, sequence, shard_id, three_units

PAGES = 3
SECONDS = 60.0
"""After this time, a test gives up."""


class Narrow:
    """A source whose second page has room in the budget only after the first one was committed, and so on."""

    def __init__(self, budget):
        self.budget = budget

    async def read(self, shard, after, start, complete_until=None):
        for number in range(PAGES):
            await self.budget.acquire(self.budget.limit)
            first = 200 + 10 * number
            yield Page(Batch.of(records(0, first, 5)), sequence(0, first + 4), 0, self.budget.limit, paused=number == PAGES - 1)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_reader_that_waits_for_memory_gets_it_at_once_if_a_thread_is_idle(monkeypatch, threads):
    monkeypatch.setattr(shards, "NUDGE_SECONDS", 10 * SECONDS)

    async def run():
        sealed, budget, cut = await three_units(), ByteBudget(1000, threads), []

        async def rendered(recipe, unit):
            cut.append((unit.trigger, sum(batch.rows for batch in unit.batches)))
            return render(recipe, unit)

        parts = SimpleNamespace(
            source=Narrow(budget),
            budget=budget,
            committer=sealed.committer,
            recipe=sealed.recipe,
            render=rendered,
            limits=Limits(10**9, 10**9, 1e9),
            breaker=Breaker(1.0, 1),
            emit=lambda _event: None,
            export=None,
            clock=sealed.clock,
            worker="w",
            stop_listeners=[],
            stops=lambda _shard: None,
        )
        name = shard_id(0)
        work = shards._ShardRun(Shard("events", name), START, parts, sealed.heads[name], None)
        head = await asyncio.wait_for(work.run(), SECONDS)
        assert head.position == sequence(0, 200 + 10 * (PAGES - 1) + 4)
        assert cut == [("pressure", 5), ("pressure", 5), ("drain", 5)]
        assert budget.held == 0
        assert not budget.relief._filling

    asyncio.run(run())
