"""A reader that asks, at random moments of a schedule of `stream simulate`, for everything that the pipeline has produced.

The workers are real, and are killed, frozen, paused, rewound and resharded around it. What is true is known without asking anybody: which
records were put, and what the definition makes of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import polars as pl

from stream.batch import ROW, SEQUENCE, SUBSEQUENCE, Outcome
from stream.commit.log import CommitLog
from stream.contracts import Checkpoints
from stream.lease.checkpoints import StoredCheckpoints
from stream.lease.native import TableCheckpoints
from stream.operations.query.contents import Contents, Queried, Wanted
from stream.operations.query.sink_rows import FILE, LETTERS, ROWS, SEALED, Recipes
from stream.operations.query.unsealed import Room
from stream.simulation.fleet import FIRST, Tools, leases_of, source_of, table_of
from stream.simulation.judge import batch_of, left
from stream.simulation.places import SimulatedStore
from stream.simulation.process import Process
from stream.simulation.schedule import Schedule
from stream.simulation.subject import Subject
from stream.simulation.virtual_time import leaping
from stream.simulation.world import Put, World
from stream.worker.opening.auditing import StoredEvidence, Stores
from stream.worker.opening.places import located
from stream.worker.recipes.recipe import Recipe

EVERY = 1.5
"""Mean virtual seconds between an answer and the next question."""

AFTERWARDS = 30.0
"""Virtual seconds for which questions are asked once nothing goes wrong any more."""


@dataclass(frozen=True)
class Asked:
    """What had been put before the question, and the answer."""

    before: Sequence[Put]
    contents: Contents


class Questioned(World):
    """A world in which somebody asks. ``kind``: what answers, which may have a planted defect."""

    def __init__(self, subject: Subject, schedule: Schedule, tools: Tools, kind: type[Queried] = Queried) -> None:
        super().__init__(subject, schedule, tools)
        self.kind = kind
        self.asked: list[Asked] = []

    async def play(self, left: Any) -> None:
        """See ``World``."""
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._ask())
            await super().play(left)
            asking.cancel()

    async def _ask(self) -> None:
        dice = Random(self.schedule.seed)
        recipes = await self.subject.recipes()
        while self.clock.monotonic() < self.schedule.until + AFTERWARDS:
            await self.clock.sleep(dice.expovariate(1 / EVERY))
            for stream in self.subject.streams:
                before = [put for put in self.puts if put.stream == stream]
                queried = await self._queried(stream, recipes[0])
                contents = await queried.read(Wanted(self.subject.pipeline.sinks[0]), Room(2**30))
                self.asked.append(Asked(before, contents))

    async def _queried(self, stream: str, own: Recipe) -> Queried:
        subject, process = self.subject, self.observer("query")
        pipeline = subject.pipeline

        def open_place(url: str) -> SimulatedStore:
            return SimulatedStore(self.bucket, url, process, _refuse)

        stores = Stores.over(pipeline, subject.base, open_place)
        log = CommitLog(stores.state, pipeline.application, process.clock, process.name)
        checkpoints = await self._checkpoints(stream, process, stores)
        areas = stores.areas(located(pipeline.state, subject.base), stream)
        evidence = StoredEvidence(log, areas, checkpoints, stream, open_place=open_place)
        definitions = subject.definitions(self.bucket)
        definitions._store = stores.state

        async def compiled() -> Recipe:
            return own

        source = source_of(subject, stream, self.state, process)
        return self.kind(Recipes(pipeline, definitions, compiled), [(evidence, checkpoints)], log, FIRST, source, process.clock)

    async def _checkpoints(self, stream: str, process: Process, stores: Stores) -> Checkpoints:
        leases = await leases_of(self.around, process, newer=False)
        if leases is None:
            return StoredCheckpoints(stores.state)
        return TableCheckpoints(table_of(self.subject.pipeline, self.tables, process), leases.streams[stream].prefix)


def _refuse(what: str, key: str) -> None:
    raise AssertionError(f"the query did {what} {key}")


def play(world: Questioned) -> Questioned:
    """``world``, once its schedule was played."""
    leaping(lambda: world.play(left))
    return world


def wrong(world: Questioned) -> list[str]:
    """What is wrong with the answers: nothing, if each is a prefix of the truth per shard, and has all that had been put before."""
    return [text for number, asked in enumerate(world.asked) for text in _wrong(world, number, asked)]


def _wrong(world: Questioned, number: int, asked: Asked) -> list[str]:
    found = []
    shards = {shard.shard: shard for shard in asked.contents.shards}
    late = {put.shard for put in asked.before} - shards.keys()
    if late:
        found.append(f"answer {number} says nothing of {late}, into which records had been put")
    for name, shard in shards.items():
        reach = max(shard.position, shard.read_to or 0)
        missing = [put.sequence for put in asked.before if put.shard == name and put.sequence > reach]
        if missing:
            found.append(f"answer {number} ends at {reach} of {name}, but {missing} had been put before the question")
    for table in (ROWS, LETTERS):
        got, expected = _got(asked.contents, table), _expected(world, asked.contents.stream, table)
        for name, shard in shards.items():
            reach = max(shard.position, shard.read_to or 0)
            wanted = [(key, row, key[0] <= shard.position) for key, row in expected.get(name, ()) if key[0] <= reach]
            if got.get(name, []) != wanted:
                found.append(f"answer {number}, {table} of {name} up to {shard.position}, {reach}: {got.get(name)} instead of {wanted}")
        if got.keys() - shards.keys():
            found.append(f"answer {number} has rows of {got.keys() - shards.keys()}")
    return found


Key = tuple[int, int]


def _got(contents: Contents, table: str) -> dict[str, list[tuple[Key, tuple[Any, ...], bool]]]:
    rows: dict[str, list[tuple[Key, tuple[Any, ...], bool]]] = {}
    names = ("id", "city", "amount", "big") if table == ROWS else ("stage", "reason")
    for frame in contents.frames[table]:
        for row in frame.collect().iter_rows(named=True):
            assert (row[FILE] is not None) == row[SEALED]
            key = (int(row[SEQUENCE]), row[SUBSEQUENCE])
            shard = row["_shard"].rpartition("/")[2]
            rows.setdefault(shard, []).append((key, tuple(str(row[name]) for name in names), row[SEALED]))
    return {name: sorted(each) for name, each in rows.items()}


def _expected(world: Questioned, stream: str, table: str) -> dict[str, list[tuple[Key, tuple[Any, ...]]]]:
    recipe = next(iter(world.subject.known.recipes.values()))
    found = {}
    for shard in {put.shard for put in world.puts if put.stream == stream}:
        batch = batch_of([put for put in world.puts if (put.stream, put.shard) == (stream, shard)])
        done = recipe.chain.run(batch, shard)
        if table == ROWS:
            frame = done.frame.select(SEQUENCE, SUBSEQUENCE, "id", "city", "amount", "big")
        else:
            dead = done.settled.filter(pl.col("outcome") == Outcome.DEAD_LETTERED)
            frame = batch.frame[dead[ROW]].select(SEQUENCE, SUBSEQUENCE).hstack(dead.select("stage", "reason"))
        found[shard] = sorted(((int(row[0]), row[1]), tuple(map(str, row[2:]))) for row in frame.iter_rows())
    return found
