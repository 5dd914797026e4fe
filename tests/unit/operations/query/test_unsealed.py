"""What follows the sealed part of a shard, as the units of which a worker would make it."""

from __future__ import annotations

import asyncio

import polars as pl

from stream.batch import RAW_SCHEMA, SEQUENCE, Batch, SeqRange
from stream.commit.manifest import Kind, State
from stream.operations.query.unsealed import _units
from tests.unit.operations.query.test_cuts import NOON, World


def test_a_unit_that_is_begun_keeps_its_definition_and_its_end_and_the_rest_is_left_to_the_newest():
    async def cut():
        world = World()
        await world.begin()
        await world.link(Kind.UNIT, 10, pipeline="older")
        await world.link(Kind.UNIT, 20, State.INTENT, pipeline="old")
        return await world.cut()

    rows = [(str(number), 0, NOON, "k", b"", 0) for number in (12, 20, 21, 25)]
    batch = Batch.of(pl.DataFrame(rows, schema=RAW_SCHEMA, orient="row"), None)
    made = [(digest, unit.span, unit.batches[0].frame[SEQUENCE].to_list()) for digest, unit in _units(asyncio.run(cut()), batch, 25)]
    assert made == [("old", SeqRange(10, 20), ["12", "20"]), (None, SeqRange(20, 25), ["21", "25"])]
