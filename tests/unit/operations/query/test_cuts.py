"""Where the sealed part of a shard ends, over logs of every kind of link."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from stream.audit.chain import Bounds
from stream.clock import SystemClock
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind, Manifest, State, digest, encode, with_seal
from stream.contracts import Checkpoint, Reached, Shard, Start, StartKind
from stream.lease.checkpoints import StoredCheckpoints
from stream.operations.query.cuts import CutReader, DamagedLogError, newest_definition
from stream.storage.memory import MemoryStore
from stream.worker.opening.evidence import StoredEvidence

SHARD = Shard("s", "shardId-000000000000")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HORIZON = Start(StartKind.TRIM_HORIZON)


class CountingStore(MemoryStore):
    """Counts what is read."""

    gets = 0

    async def get(self, key):
        self.gets += 1
        return await super().get(key)


class Hinted(StoredCheckpoints):
    """Says of every shard what ``hint`` says."""

    hint: Checkpoint | None = None

    async def read(self, shard):
        return self.hint


class World:
    def __init__(self):
        self.store = CountingStore()
        self.log = CommitLog(self.store, "app", SystemClock(), "w")
        self.hints = Hinted(self.store)
        self.head, self.previous = 0, ""

    async def begin(self):
        self.previous = digest((await self.log.open_chain(SHARD, HORIZON)).body)

    async def link(self, kind, last, state=State.SEALED, **more):
        link = Manifest(
            kind=kind,
            state=state,
            application="app",
            stream="s",
            shard=SHARD.chain,
            after=str(self.head),
            last=None if last is None else str(last),
            previous=self.previous,
            **{"created_at": (NOON + timedelta(seconds=self.head)).isoformat(), **more},
        )
        if state is State.SEALED:
            link = with_seal(link)
        await self.log.create(SHARD, link)
        self.head, self.previous = last or self.head, digest(encode(link))

    async def units(self, many):
        for at in range(many):
            moment = (NOON + timedelta(minutes=at)).isoformat()
            await self.link(Kind.UNIT, self.head + 10, first_arrival=moment, last_arrival=moment, pipeline=f"p{at}")

    async def cut(self, bounds=Bounds()):  # noqa: B008 - it is frozen
        self.store.gets = 0
        evidence = StoredEvidence(self.log, {}, self.hints, "s")
        return await CutReader(evidence, self.log, self.hints, HORIZON, bounds).cut(SHARD.shard_id)


def played(course):
    async def run():
        world = World()
        await world.begin()
        return await course(world)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("kind", "state", "after", "begun"),
    [
        (Kind.UNIT, State.INTENT, 20, True),
        (Kind.SKIP, State.INTENT, 30, False),
        (Kind.GAP, State.INTENT, 30, False),
        (Kind.FOREIGN, State.INTENT, 30, False),
        (Kind.SKIP, State.SEALED, 30, False),
    ],
)
def test_what_is_decided_is_not_read_though_it_is_not_sealed(kind, state, after, begun):
    async def course(world):
        await world.units(2)
        await world.link(kind, 30, state)
        return await world.cut()

    cut = played(course)
    assert (cut.position, cut.after) == (20 if state is State.INTENT else 30, after)
    assert (cut.begun is not None) == begun
    assert [unit.last for unit in cut.units] == [10, 20]
    assert cut.newest.pipeline == ("" if begun else "p1")


@pytest.mark.parametrize(
    ("reached", "after", "sub", "ended"),
    [
        (Reached(25, 3), 24, 3, False),
        (Reached(21, 0), 20, 0, False),
        (Reached(15, 2), 20, -1, False),
        (Reached(None, 0), 20, -1, True),
    ],
)
def test_what_another_application_has_processed_is_not_read(reached, after, sub, ended):
    async def course(world):
        await world.units(2)
        world.hints.hint = Checkpoint(20, 0, 10, foreign=reached)
        return await world.cut()

    cut = played(course)
    assert (cut.position, cut.after, cut.foreign_subsequence, cut.ended) == (20, after, sub, ended)


def test_of_an_aggregate_that_another_application_has_begun_the_rest_is_read():
    async def course(world):
        await world.units(1)
        await world.link(Kind.FOREIGN, 30, foreign_subsequence=4)
        return await world.cut()

    cut = played(course)
    assert (cut.position, cut.after, cut.foreign_subsequence) == (30, 30, 4)


def test_the_end_of_a_shard_is_its_end():
    async def course(world):
        await world.units(1)
        await world.link(Kind.END, None)
        return await world.cut()

    assert played(course).ended


@pytest.mark.parametrize("hinted", [True, False])
@pytest.mark.parametrize(("first", "end", "expected"), [(290, None, 10), (290, 295, 5), (0, 5, 5), (300, None, 0)])
def test_only_links_near_the_time_range_are_read(hinted, first, end, expected):
    async def course(world):
        await world.units(300)
        if hinted:
            world.hints.hint = Checkpoint(3000, 0, 2990)
        bounds = Bounds(NOON + timedelta(minutes=first), None if end is None else NOON + timedelta(minutes=end))
        return await world.cut(bounds), world.store.gets

    cut, gets = played(course)
    assert (cut.position, len(cut.units)) == (3000, expected)
    assert gets < 40 or first == 0


def test_a_log_with_a_hole_is_damaged_and_one_that_is_only_begun_is_not():
    async def course(world):
        await world.units(3)
        key = sorted([info.key async for info in world.store.list("commits/s/")])[1]
        stored = await world.store.get(key)
        await world.store.delete(key)
        with pytest.raises(DamagedLogError, match="is missing"):
            await world.cut()
        # As it was a moment before it was sealed, and before the next one was begun.
        intent = msgspec.structs.replace(msgspec.json.decode(stored.body, type=Manifest), state=State.INTENT, seal="")
        await world.store.put(key, encode(intent))
        return await world.cut()

    cut = played(course)
    assert (cut.position, cut.begun.last) == (10, 20)


def test_a_shard_without_a_log_begins_at_the_start():
    async def run():
        return await World().cut()

    cut = asyncio.run(run())
    assert (cut.position, cut.after, cut.units, cut.newest, cut.start) == (0, 0, (), None, HORIZON)


def test_what_no_worker_has_begun_is_made_with_the_definition_of_the_newest_unit_of_all_shards():
    """Units of a rolling update: the newest one may be in any shard, and begun only."""

    async def cut(*units):
        world = World()
        await world.begin()
        for seconds, state, pipeline in units:
            await world.link(
                Kind.UNIT, world.head + 10, state, pipeline=pipeline, created_at=(NOON + timedelta(seconds=seconds)).isoformat()
            )
        return await world.cut()

    async def run():
        old = await cut((1, State.SEALED, "old"), (3, State.SEALED, "old"))
        new = await cut((2, State.SEALED, "old"), (4, State.INTENT, "new"))
        none = await cut()
        assert newest_definition({"a": old, "b": new, "c": none}) == newest_definition({"a": new, "b": none, "c": old}) == "new"
        assert newest_definition({"a": old, "c": none}) == "old"
        assert newest_definition({"c": none}) is None

    asyncio.run(run())
