"""Ranges that are read again, over a stream in memory."""

import asyncio

from stream.budget import ByteBudget
from stream.commit.repeat import Repeater
from stream.contracts import Shard
from stream.worker.recipe import render
from stream.worker.reread import AT_ONCE, Rereader
from tests.sealed import START, shard_id, three_units
from tests.unit.lease.tables import settle


def test_only_so_many_ranges_are_in_memory_at_once_as_are_rendered():
    async def run():
        sealed = await three_units()
        first = await sealed.log.read(Shard("events", shard_id(0)), 0)
        inner, running, most = sealed.source, 0, 0
        inner.budget = ByteBudget(1)

        class Recorded:
            async def recorded(self, digest):
                return sealed.recipe

        async def rendered(recipe, unit):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await settle()
            running -= 1
            return render(recipe, unit)

        rereader = Rereader(inner, Recorded(), rendered, Repeater(sealed.clock, print), print, admit_gaps=False)
        units = await asyncio.gather(*(rereader.render(Shard("events", shard_id(0)), START, first.manifest) for _ in range(3 * AT_ONCE)))
        return most, {unit.manifest.files == first.manifest.files for unit in units}

    assert asyncio.run(run()) == (AT_ONCE, {True})
