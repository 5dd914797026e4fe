"""Tables that change while a worker runs: new units use the new version, and older units can still be reproduced."""

from __future__ import annotations

import asyncio
import threading

import polars as pl
import pytest

from stream import events
from stream.batch import SeqRange
from stream.contracts import Shard
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import fetch_resources
from stream.storage.memory import MemoryStore
from stream.worker.recipes.definitions import KEPT, Definitions
from stream.worker.recipes.recipe import CutUnit, render
from stream.worker.recipes.refreshing import CurrentRecipe, Refresher, intervals
from tests.frames import batch
from tests.unit.metrics.every_event import FixedClock
from tests.unit.pipeline.definitions import least

STAGES = [
    {"enrich": {"table": "a.csv", "on": "carrier", "take": {"airline": "name"}, "refresh": "1m"}},
    {"enrich": {"table": "b.csv", "on": "carrier", "take": {"home": "hub"}, "refresh": "10m"}},
]


class World:
    def __init__(self, folder):
        self.folder = folder
        self.write("a", name="United")
        self.write("b", hub="EWR")
        self.pipeline = Pipeline.model_validate(least(stages=STAGES))
        self.clock = FixedClock()
        self.store = MemoryStore()
        self.definitions = Definitions(self.store, folder, {}, self.clock)
        self.heard = []
        self.read = []

    def write(self, table, **columns):
        pl.DataFrame({"carrier": ["UA"], **{name: [value] for name, value in columns.items()}}).write_csv(self.folder / f"{table}.csv")

    async def fetch(self, given):
        self.read.append(sorted({"a.csv", "b.csv"} - set(given)))
        return await fetch_resources(self.pipeline, self.folder, {}, known=given)

    async def start(self):
        fetched = await self.fetch({})
        self.current = CurrentRecipe(await self.definitions.record(self.pipeline, fetched))
        self.refresher = Refresher(self.pipeline, fetched, self.fetch, self.definitions, self.current, self.clock, self.heard.append)

    async def after(self, seconds):
        self.clock.seconds += seconds
        await self.refresher.refresh()
        return self.heard[-1]

    def unit(self, recipe=None):
        raw = batch([b'{"carrier": "UA", "delay": 1}'])
        return render(recipe or self.current.now, CutUnit(Shard("flights", "shardId-0"), SeqRange(0, 10**20), (raw,), "rows")).unit


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_changed_table_is_a_new_definition_and_the_old_one_stays_reproducible(world):
    async def run():
        await world.start()
        old = world.unit()
        world.write("a", name="United Air Lines")
        event = await world.after(60)
        new = world.unit()
        again = Definitions(world.store, world.folder, {}, world.clock)
        return old, event, new, world.unit(await again.recorded(old.manifest.pipeline))

    old, event, new, repeated = asyncio.run(run())
    assert event == events.ReferenceRefreshed("flights", "", 1, new.manifest.pipeline, 60.0)
    assert old.manifest.pipeline != new.manifest.pipeline
    assert old.files != new.files
    assert repeated == old


def test_only_due_tables_are_read_and_unchanged_ones_change_nothing(world):
    async def run():
        await world.start()
        before = world.current.now
        first = await world.after(60)
        second = await world.after(600)
        return before, first, second

    before, first, second = asyncio.run(run())
    assert world.read == [["a.csv", "b.csv"], ["a.csv"], ["a.csv", "b.csv"]]
    assert (first.changed, second.changed) == (0, 0)
    assert world.current.now is before
    assert second.age == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda world: (world.folder / "a.csv").unlink(), "there is no table a.csv"),
        (lambda world: world.write("a", other="x"), "has no column 'name'"),
        (lambda world: world.write("a", name=5), "the type of the column 'airline' would change"),
        (lambda world: (world.folder / "a.csv").write_text("carrier,name\nUA,x\nUA,y\n"), "more than one row"),
    ],
)
def test_an_unusable_version_leaves_the_current_one_in_use(world, spoil, says):
    async def run():
        await world.start()
        before = world.unit()
        spoil(world)
        event = await world.after(90)
        after = world.unit()
        world.write("a", name="good again")
        return before, event, after, await world.after(60)

    before, event, after, mended = asyncio.run(run())
    assert isinstance(event, events.ReferenceRefreshFailed)
    assert says in event.detail
    assert (event.age, event.failing) == (90.0, 1)
    assert after == before
    assert isinstance(mended, events.ReferenceRefreshed)
    assert (mended.changed, mended.failing) == (1, 0)


def test_a_good_table_does_not_hide_a_failed_one(world):
    async def run():
        await world.start()
        (world.folder / "b.csv").unlink()
        failed = await world.after(600)
        return failed, await world.after(60)

    failed, other = asyncio.run(run())
    assert isinstance(failed, events.ReferenceRefreshFailed)
    assert isinstance(other, events.ReferenceRefreshed)
    assert other.failing > 0


def test_it_runs_until_cancelled_and_sleeps_as_long_as_all_tables_are_fresh(world):
    async def run():
        await world.start()
        begun = world.clock.seconds
        async with asyncio.TaskGroup() as group:
            task = group.create_task(world.refresher.run())
            while len(world.heard) < 3:
                await asyncio.wait([task], timeout=0.001)
            task.cancel()
        return begun

    begun = asyncio.run(run())
    assert world.clock.seconds >= begun + 180
    assert (world.clock.seconds - begun) % 60 == 0


def test_a_pipeline_without_refreshed_tables_has_no_intervals():
    assert intervals(Pipeline.model_validate(least())) == {}
    assert intervals(Pipeline.model_validate(least(stages=STAGES))) == {"a.csv": 60.0, "b.csv": 600.0}


def test_few_definitions_are_kept_in_memory(world):
    async def run():
        await world.start()
        for number in range(KEPT + 3):
            world.write("a", name=f"version {number}")
            await world.after(60)

    asyncio.run(run())
    assert len(world.definitions._recipes) == KEPT
    assert world.current.now in world.definitions._recipes.values()


class SingleThreadDict(dict):
    """A dictionary that only the thread that made it may change."""

    def __init__(self):
        super().__init__()
        self._owner = threading.get_ident()

    def __setitem__(self, key, value):
        assert threading.get_ident() == self._owner
        super().__setitem__(key, value)

    def __delitem__(self, key):
        assert threading.get_ident() == self._owner
        super().__delitem__(key)


def test_definitions_compiled_concurrently_do_not_interfere(world):
    """Compiling is done in threads, none of which changes the cached recipes."""

    async def run():
        recipes = []
        for number in range(KEPT + 3):
            world.write("a", name=f"version {number}")
            recipes.append(await world.definitions.record(world.pipeline, await world.fetch({})))
        again = Definitions(world.store, world.folder, {}, world.clock)
        again._recipes = SingleThreadDict()
        found = await asyncio.gather(*(again.recorded(recipe.digest) for recipe in recipes))
        assert [recipe.digest for recipe in found] == [recipe.digest for recipe in recipes]
        return len(again._recipes)

    assert asyncio.run(run()) == KEPT
