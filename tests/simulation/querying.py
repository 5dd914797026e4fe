"""A reader that asks, at random moments of a schedule of `stream simulate`, for everything that the pipeline has produced.

The workers are real, and are killed, frozen, paused, rewound and resharded around it. What is true is known without asking anybody: which
records were put, and what the definition makes of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import polars as pl

from stream.batch import ROW, SEQUENCE, SUBSEQUENCE, Outcome
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind, Manifest, State, decode
from stream.contracts import Checkpoints, shard_of_chain
from stream.lease.checkpoints import StoredCheckpoints
from stream.lease.native import TableCheckpoints
from stream.operations.query.contents import Contents, Queried, Wanted
from stream.operations.query.sink_rows import FILE, LETTERS, ROWS, SEALED, Recipes
from stream.operations.query.unsealed import Room
from stream.simulation.fleet import FIRST, Tools, leases_of, source_of, table_of
from stream.simulation.judge import batch_of, left, state_of
from stream.simulation.places import SimulatedStore, at_once
from stream.simulation.process import Process
from stream.simulation.schedule import Schedule
from stream.simulation.subject import Subject
from stream.simulation.virtual_time import leaping
from stream.simulation.world import Put, World
from stream.worker.opening.evidence import StoredEvidence
from stream.worker.opening.places import located
from stream.worker.opening.stores import Stores
from stream.worker.recipes.recipe import Recipe

EVERY = 1.5
"""Mean virtual seconds between an answer and the next question."""

AFTERWARDS = 30.0
"""Virtual seconds for which questions are asked once nothing goes wrong any more."""


@dataclass(frozen=True)
class Asked:
    """What had been put before the question, the units that were begun and not sealed from before it until after it, and the answer."""

    before: Sequence[Put]
    begun: Sequence[Manifest]
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
        files = list(zip((False, True), await self.subject.recipes(), strict=False))
        while self.clock.monotonic() < self.schedule.until + AFTERWARDS:
            await self.clock.sleep(dice.expovariate(1 / EVERY))
            for stream in self.subject.streams:
                before, begun = [put for put in self.puts if put.stream == stream], self.units(stream, State.INTENT)
                newer, recipe = dice.choice(files)
                queried = await self._queried(stream, newer, recipe)
                contents = await queried.read(Wanted(queried.recipes.pipeline.sinks[0]), Room(2**30))
                still = self.units(stream, State.INTENT)
                self.asked.append(Asked(before, [each for each in begun if each in still], contents))

    def units(self, stream: str, state: State) -> list[Manifest]:
        """All units of ``stream`` in ``state``, also those that a rewind has taken back."""

        async def read() -> list[Manifest]:
            stored = [(info.key, await self.bucket.get(info.key)) async for info in self.bucket.list(f"{state_of(self)}commits/{stream}/")]
            return [decode(each.body, key) for key, each in stored if each is not None]

        return [each for each in at_once(read()) if each.kind is Kind.UNIT and each.state is state]

    async def _queried(self, stream: str, newer: bool, own: Recipe) -> Queried:
        subject, process = self.subject, self.observer("query")
        pipeline, _ = subject.version(newer=newer)

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
        got = _got(asked.contents, table)
        # What no worker has begun is made with one definition, whichever it is: of all shards the same one.
        tails = [_differences(world, asked, table, got, digest) for digest in sorted(world.subject.known.recipes)]
        found += [f"answer {number}, {table} {each}" for each in min(tails, key=len)]
        if got.keys() - shards.keys():
            found.append(f"answer {number} has rows of {got.keys() - shards.keys()}")
    return found


Key = tuple[int, int]


def _differences(world: Questioned, asked: Asked, table: str, got: Mapping[str, list[Any]], tail: str) -> list[str]:
    """How the rows ``got`` differ from the truth, if what no worker has begun is made with the definition ``tail``."""
    found, made = [], {digest: _expected(world, asked.contents.stream, table, digest) for digest in world.subject.known.recipes}
    sealed = world.units(asked.contents.stream, State.SEALED)
    for shard in asked.contents.shards:
        reach = max(shard.position, shard.read_to or 0)
        rows: dict[Key, list[Any]] = {}
        for key, row, is_sealed in got.get(shard.shard, []):
            rows.setdefault(key, []).append((row, is_sealed))
        for key in sorted({*rows, *(key for each in made.values() for key in each.get(shard.shard, {}) if key[0] <= reach)}):
            is_sealed = key[0] <= shard.position
            stable = _definitions(asked.begun, shard.shard, key)
            digests = _definitions(sealed, shard.shard, key) if is_sealed else stable or {tail, *_definitions(sealed, shard.shard, key)}
            wanted = [[(row, is_sealed) for row in made[each].get(shard.shard, {}).get(key, [])] for each in sorted(digests)]
            if rows.get(key, []) not in wanted or key[0] > reach:
                found.append(f"of {shard.shard} up to {shard.position}, {reach}: {key} is {rows.get(key)} instead of one of {wanted}")
    return found


def _definitions(units: Sequence[Manifest], shard: str, key: Key) -> set[str]:
    """The definitions with which the units were made that hold, or held until a rewind, the record ``key`` of ``shard``."""
    return {unit.pipeline for unit in units if shard_of_chain(unit.shard)[0] == shard and int(unit.after) < key[0] <= int(unit.last or 0)}


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


def _expected(world: Questioned, stream: str, table: str, digest: str) -> dict[str, dict[Key, list[tuple[str, ...]]]]:
    """What the definition ``digest`` makes of everything that was put: rows by record, by shard."""
    recipe = world.subject.known.recipes[digest]
    found: dict[str, dict[Key, list[tuple[str, ...]]]] = {}
    for shard in {put.shard for put in world.puts if put.stream == stream}:
        batch = batch_of([put for put in world.puts if (put.stream, put.shard) == (stream, shard)])
        done = recipe.chain.run(batch, shard)
        if table == ROWS:
            frame = done.frame.select(SEQUENCE, SUBSEQUENCE, "id", "city", "amount", "big")
        else:
            dead = done.settled.filter(pl.col("outcome") == Outcome.DEAD_LETTERED)
            frame = batch.frame[dead[ROW]].select(SEQUENCE, SUBSEQUENCE).hstack(dead.select("stage", "reason"))
        found[shard] = {}
        for row in sorted(frame.iter_rows()):
            found[shard].setdefault((int(row[0]), row[1]), []).append(tuple(map(str, row[2:])))
    return found
