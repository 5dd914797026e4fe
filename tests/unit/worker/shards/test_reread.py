"""Re-reading ranges, over an in-memory stream."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from stream.budget import ByteBudget
from stream.commit.retry import Repeater
from stream.contracts import Shard
from stream.errors import Halted
from stream.worker.recipes.definitions import Definitions
from stream.worker.recipes.recipe import render
from stream.worker.shards.reread import AT_ONCE, Rereader
from tests.sealed import PIPELINE, START, shard_id, three_units
from tests.unit.lease.tables import settle


def test_as_many_ranges_are_in_memory_as_are_being_rendered():
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


OPTIONS = [
    "format: ndjson",
    "format: csv",
    "format: csv, csv: {quote: null, escape: '\\'}",
    "format: avro",
    "format: avro, compression: zstd",
    "format: arrow",
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_unit_in_any_format_is_made_again_byte_for_byte_from_the_recorded_definition(options):
    async def run():
        sealed = await three_units(text=PIPELINE.replace("partition_by", f"{options}, partition_by"))
        first = await sealed.log.read(Shard("events", shard_id(0)), 0)
        sealed.source.budget = ByteBudget(1)
        definitions = Definitions(sealed.stores.state, Path(), {}, sealed.clock)

        async def rendered(recipe, unit):
            return render(recipe, unit)

        rereader = Rereader(sealed.source, definitions, rendered, Repeater(sealed.clock, print), print, admit_gaps=False)
        again = await rereader.render(Shard("events", shard_id(0)), START, first.manifest)
        kept = {file.key: (await sealed.stores.targets["s3"].get(file.key)).body for file in first.manifest.files if file.sink == "s3"}
        return again, first.manifest, kept

    again, manifest, kept = asyncio.run(run())
    assert again.manifest.files == manifest.files
    assert {file.key: file.body for file in again.files if file.sink == "s3"} == kept
    assert len(kept) == 2


@pytest.mark.parametrize(("now", "halts"), [("ndjson", True), ("csv, header true", False), ("", False)])
def test_an_unfinished_unit_is_not_made_from_records_read_with_other_options(now, halts):
    async def run():
        sealed = await three_units()
        first = await sealed.log.read(Shard("events", shard_id(0)), 0)
        sealed.source.budget = ByteBudget(1)

        class Recorded:
            async def recorded(self, digest):
                return replace(sealed.recipe, reads="csv, header true")

        async def cooked(recipe, unit):
            return render(recipe, unit)

        rereader = Rereader(sealed.source, Recorded(), cooked, Repeater(sealed.clock, print), print, admit_gaps=False, reads=now)
        return await rereader.render(Shard("events", shard_id(0)), START, first.manifest)

    if not halts:
        assert asyncio.run(run()).manifest.records == 40
        return
    with pytest.raises(Halted, match="was begun when the objects were read as csv, header true; they are read as ndjson now"):
        asyncio.run(run())
