"""Gaps, over an in-memory log and an in-memory stream."""

import asyncio
from types import SimpleNamespace

import pytest

from stream.batch import Batch
from stream.budget import ByteBudget
from stream.contracts import Page, Shard
from stream.errors import Expired, Halted
from stream.worker.shards.gap import record_gap
from tests.sealed import records, sequence, shard_id, three_units


def test_a_stream_whose_numbers_start_over_makes_no_backward_gap():
    class Anew:
        async def read(self, shard, after, start):
            yield Page(Batch.of(records(0, 7, 1)), sequence(0, 7), 0, 0)

    async def run():
        sealed = await three_units()
        before = [info.key async for info in sealed.root.list("flights/commits/")]
        parts = SimpleNamespace(
            source=Anew(),
            budget=ByteBudget(1),
            log=sealed.log,
            committer=sealed.committer,
            emit=lambda _event: None,
            clock=sealed.clock,
            worker="w",
        )
        with pytest.raises(Halted, match="another stream of that name"):
            await record_gap(Shard("events", shard_id(0)), sealed.heads[shard_id(0)], parts, None, Expired("gone"))
        return before == [info.key async for info in sealed.root.list("flights/commits/")]

    assert asyncio.run(run())
