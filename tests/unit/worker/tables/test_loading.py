"""The loader on a table in memory; the production code seals the units, and only the database is emulated."""

import asyncio
import contextlib
import gc
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import events
from stream.audit.completeness import Question
from stream.commit.manifest import State, encode
from stream.contracts import Shard
from stream.errors import Fatal, Halted, Retryable
from stream.lease.loader import Hold, LoaderLease, life_for
from stream.lease.paused import Pause, What
from stream.operations.progress.loaded_tables import loaded
from stream.simulation.virtual_time import leaping
from stream.sink.loads import Failure
from stream.sink.redshift import COPY_MANIFESTS
from stream.storage.memory import MemoryStore
from stream.storage.prefixed import PrefixedStore
from stream.worker.opening.stores import Stores
from stream.worker.recipes.definitions import Definitions
from stream.worker.tables.loading import BAD_LOADS, FIRST_PARKED, LEFT_PAUSE, LONGEST_PARKED, Loader, complete_all
from stream.worker.tables.loadlog import LoadLog, LoadState, Parked, recorded_staging, table_in_words
from stream.worker.tables.parts import LoaderParts
from stream.worker.tables.standing import standing
from stream.worker.tables.warehouse import LoadFailed
from tests.contract.warehouse import MemoryWarehouse
from tests.sealed import NOON, Sealed, shard_id
from tests.turns import Turns, turns

SEEDS = 20
LIFE = life_for(timedelta(seconds=60))
PIPELINE = """\
application: flights
source:
  kinesis: {{stream: events}}
  schema: {{n: int64, kind: string}}
stages:
  - filter: n % 5 <> 0
{stages}
sinks:
  - redshift:
      staging: s3://lake/staging/
      table: {table}
      database: dev
      workgroup: analytics
      iam_role: default
{options}
state: "file:./state"
"""


class Rig:
    """One application, its table, and as many loaders as a test makes."""

    def __init__(self, sealed, staging):
        self.sealed = sealed
        self.staging = staging
        self.warehouse = MemoryWarehouse(staging, sealed.clock)
        self.heard = []
        self.left = []
        self.others = {}

    @staticmethod
    async def open(options="", stages=""):
        rig = Rig(await Rig.sealed_by(options, stages), MemoryStore(url="s3://lake/staging/"))
        await rig.redefine(options, stages)
        return rig

    @staticmethod
    async def sealed_by(options, stages, state=None, table="events"):
        return await Sealed.open(text=PIPELINE.format(options=options, stages=stages, table=table), state=state)

    async def redefine(self, options="", stages="", table="events"):
        again = await self.sealed_by(options, stages, self.sealed.root, table)
        inner = PrefixedStore(again.root, "flights/")
        own = {"rejects": PrefixedStore(inner, "rejects/"), "ledger": PrefixedStore(inner, "ledger/v1/")}
        again.stores = Stores(inner, {sink.name: self.place(sink.url) for sink in again.pipeline.sinks} | own)
        again.heads, again.source, again.clock = self.sealed.heads, self.sealed.source, self.sealed.clock
        self.sealed, self.warehouse.clock = again, again.clock

    def place(self, url):
        return self.staging if url == self.staging.url else self.others.setdefault(url, MemoryStore(url=url))

    def loader(self, worker="one", table="events", **instead):
        config = next(sink for sink in self.sealed.pipeline.sinks if sink.table == table)
        state, log = LoadState(self.sealed.stores.state, config.name, "events", table_in_words(config)), self.sealed.log
        others = [sink for sink in self.sealed.pipeline.sinks if sink is not config]
        definitions = Definitions(self.sealed.stores.state, Path(), {}, self.sealed.clock)
        parts = LoaderParts(
            config=config,
            stream="events",
            log=LoadLog(log, "events", recorded_staging(definitions, config, others, self.left.append)),
            state=state,
            warehouse=self.warehouse,
            staging=self.staging,
            lease=LoaderLease(self.sealed.stores.state, f"{state.root}lease.json", worker, self.sealed.clock, LIFE),
            clock=self.sealed.clock,
            emit=self.heard.append,
        )
        return Loader(replace(parts, **instead))

    def emitted(self, kind):
        return [event for event in self.heard if isinstance(event, kind)]

    def assert_exactly_once(self):
        numbers = sorted((row["_shard"], row["_sequence"], row["_subsequence"]) for row in self.warehouse.rows)
        assert len(numbers) == len(set(numbers))
        expected = sum(frame.height - dropped(frame) for frame in self.sealed.source.frames.values())
        assert len(numbers) == expected
        assert self.warehouse._until(None) == {name: head.position for name, head in self.sealed.heads.items()}


def dropped(frame):
    """Records that are not JSON, or that the filter drops, by the numbers that tests/sealed.py assigns."""
    import json

    def kept(data):
        try:
            return json.loads(data)["n"] % 5 != 0
        except ValueError:
            return False

    return sum(not kept(data) for data in frame["_data"])


@pytest.mark.parametrize(("first", "second"), [((1, 20), (1, 30)), ((1, 40), (1, 20))], ids=["across", "ahead"])
def test_a_table_loaded_from_another_state_is_reported_and_not_taken_as_loaded(first, second):
    """The other state's units ended elsewhere; the new one's would never be loaded, since none begins where the table ends."""

    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, *first)
        assert await rig.loader().attempt()
        before = len(rig.warehouse.rows)
        rig.sealed = await rig.sealed_by("", "")
        await rig.redefine()
        await rig.sealed.unit(0, *second)
        loader = rig.loader()
        assert not await loader.attempt()
        (refused,) = rig.emitted(events.LoadRefused)
        assert refused.kind == "setup"
        assert "no unit in memory:state/flights/ ends there" in refused.detail
        assert "no unit" in await rig.loader().complete()
        with pytest.raises(Halted, match="loaded from another state, or from a later one"):
            await standing(rig.loader().parts)
        question = Question(rig.sealed.clock.now() + timedelta(days=1), timedelta())
        assert "no unit" in (await loaded(rig.loader().parts, rig.sealed.log, question)).why
        assert len(rig.warehouse.rows) == before

    asyncio.run(run())


def test_behind_a_unit_of_newer_objects_older_ones_are_found_that_are_not_loaded(monkeypatch):
    async def run():
        rig = await Rig.open()
        monkeypatch.setattr("tests.sealed.NOON", NOON + timedelta(hours=1))
        await rig.sealed.unit(0, 1, 20)
        monkeypatch.setattr("tests.sealed.NOON", NOON)
        await rig.sealed.unit(0, 21, 20)
        question = Question(NOON + timedelta(minutes=10), timedelta())
        found = await loaded(rig.loader().parts, rig.sealed.log, question, ascending=False)
        assert (found.units, found.oldest) == (1, NOON + timedelta(milliseconds=21))
        # Records of a stream ascend, so nobody looks further there.
        assert (await loaded(rig.loader().parts, rig.sealed.log, question)).units == 0

    asyncio.run(run())


def test_loading_continues_after_skipped_units_that_the_table_already_has():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 40)
        assert await rig.loader().attempt()
        before = len(rig.warehouse.rows)
        rig.sealed = await rig.sealed_by("", "")
        await rig.redefine()
        await rig.sealed.unit(0, 1, 20)
        await rig.sealed.gap(0, 40)
        loader = rig.loader()
        assert await loader.attempt()
        await rig.sealed.unit(0, 41, 20)
        assert await loader.attempt()
        numbers = {(row["_shard"], row["_sequence"]) for row in rig.warehouse.rows}
        assert len(rig.warehouse.rows) == len(numbers) > before

    asyncio.run(run())


def test_every_sealed_unit_is_loaded_once_with_few_queries():
    async def run():
        rig = await Rig.open()
        for shard, units in ((0, 3), (1, 2)):
            for unit in range(units):
                await rig.sealed.unit(shard, 1 + 20 * unit, 20)
        await rig.sealed.end(1)
        loader = rig.loader()
        assert await loader.attempt()
        rig.assert_exactly_once()
        asked = rig.warehouse.asked
        for _ in range(3):
            assert await loader.attempt()
        assert (len(rig.warehouse.loads), rig.warehouse.asked) == (1, asked)
        await rig.sealed.unit(0, 61, 20)
        assert await loader.attempt()
        rig.assert_exactly_once()
        assert loader.ended == {shard_id(1)}
        return rig

    rig = asyncio.run(run())
    assert [event.units for event in rig.emitted(events.UnitsLoaded)] == [5, 1]
    assert rig.emitted(events.LoadsWaiting)[-1] == events.LoadsWaiting("events", "", "redshift", 0, 0.0, 0)


@pytest.mark.parametrize(("shards", "units"), [(1, 24), (24, 1)])
def test_the_number_of_shards_does_not_add_loads(shards, units):
    async def run():
        rig = await Rig.open(options="      units: 10")
        for shard in range(shards):
            for unit in range(units):
                await rig.sealed.unit(shard, 1 + 3 * unit, 3)
        assert await rig.loader().attempt()
        rig.assert_exactly_once()
        return len(rig.warehouse.loads), len(rig.warehouse.fitted), rig.warehouse.asked

    assert asyncio.run(run()) == (3, 1, 2)


def test_units_without_rows_advance_the_position_without_a_load():
    async def run():
        rig = await Rig.open()
        for n in (5, 10, 15):
            await rig.sealed.unit(0, n, 1)
        loader = rig.loader()
        assert await loader.attempt()
        assert rig.warehouse.loads == []
        await rig.sealed.unit(0, 16, 1)
        await rig.sealed.unit(0, 20, 1)
        assert await loader.attempt()
        rig.assert_exactly_once()
        return [link.links for link in rig.warehouse.loads[0].links]

    assert asyncio.run(run()) == [3, 1, 1]


def test_units_of_another_definition_are_loaded_separately():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)
        await rig.redefine(stages="  - derive: {twice: n * 2}")
        await rig.sealed.unit(0, 11, 10)
        await rig.sealed.unit(1, 1, 10)
        assert await rig.loader().attempt()
        rig.assert_exactly_once()
        return [[column.name for column in layout.columns] for layout in rig.warehouse.fitted]

    first, second = asyncio.run(run())
    assert second == [first[0], first[1], "twice", *first[2:]]


ARCHIVE = "\n  - s3: {url: s3://lake/archive/, name: %s}"
OTHER = """
  - redshift: {name: %s, staging: s3://lake/others/, table: others, database: dev, workgroup: analytics, iam_role: default}
"""


def test_a_unit_that_is_begun_is_loaded_only_once_it_is_sealed():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)
        shard, log, after = Shard("events", shard_id(0)), rig.sealed.log, rig.sealed.heads[shard_id(0)].position
        await rig.sealed.unit(0, 11, 10)
        entry = await log.read(shard, after)
        begun = msgspec.structs.replace(entry.manifest, state=State.INTENT, seal="", sealed_by="", sealed_at="")
        tag = await log.replace(shard, encode(begun), after, entry.etag)
        loader = rig.loader()
        assert await loader.attempt()
        assert rig.warehouse._until(None) == {shard_id(0): after}
        assert await log.replace(shard, entry.body, after, tag) is not None
        assert await loader.attempt()
        rig.assert_exactly_once()

    asyncio.run(run())


def test_a_unit_without_rows_for_the_table_has_no_columns_whatever_sink_its_files_were_for():
    """Where the columns change with the next unit, both are loaded together."""

    async def run():
        archive = "  - s3: {url: s3://lake/archive/, name: archive}"
        rig = await Rig.open(options=f"      name: flights\n      lineage: false\n      where: n < 0\n{archive}")
        await rig.sealed.unit(0, 1, 10)
        await rig.redefine(options="      name: flights")
        await rig.sealed.unit(0, 11, 10)
        links = (await rig.loader().parts.log.read_on({shard_id(0): ()}, {}, set()))[shard_id(0)]
        assert [(len(link.files), link.layout is None) for link in links] == [(0, True), (1, False)]

    asyncio.run(run())


def test_a_note_about_a_parked_shard_that_cannot_be_read_parks_it():
    async def run():
        rig = await Rig.open()
        for shard in range(2):
            await rig.sealed.unit(shard, 1, 10)
        loader, parked = rig.loader(), shard_id(0)
        key = f"{loader.parts.state.root}parked/{parked}.json"
        await rig.sealed.stores.state.put(key, b"{")
        for _ in range(2):
            assert await loader.attempt()
            assert rig.warehouse._until(None) == {shard_id(1): rig.sealed.heads[shard_id(1)].position}
        assert f"the object {key} cannot be read" in (await loader.parts.state.parked())[parked].reason
        assert await loader.parts.state.retry() == [parked]
        assert await loader.attempt()
        rig.assert_exactly_once()

    asyncio.run(run())


def test_a_run_does_not_fail_because_of_a_parked_shard_of_which_nothing_is_left_to_load():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)
        loader = rig.loader()
        assert await loader.attempt()
        await rig.sealed.stores.state.put(f"{loader.parts.state.root}parked/{shard_id(0)}.json", b"{")
        assert await loader.complete() == ""
        await rig.sealed.unit(0, 11, 10)
        assert "cannot be read" in await loader.complete()

    asyncio.run(run())


def test_a_retry_of_one_shard_has_the_other_parked_ones_tried_too():
    """Whoever asks for it has corrected something that they may have waited for."""

    async def run():
        rig = await Rig.open()
        for shard in range(2):
            await rig.sealed.unit(shard, 1, 10)
        lost = await lost_files(rig, range(2), lambda links: links[0])
        loader = rig.loader()
        assert await loader.attempt()
        assert len(await loader.parts.state.parked()) == 2
        for key, body in lost:
            await rig.staging.put(key, body)
        assert await loader.parts.state.retry(shard_id(1)) == [shard_id(1)]
        assert await loader.attempt()
        assert await loader.parts.state.parked() == {}
        rig.assert_exactly_once()

    asyncio.run(run())


def test_a_retry_of_one_shard_leaves_the_others_parked():
    async def run():
        state, parked = LoadState(MemoryStore(), "redshift", "events"), Parked("5", "why", NOON)
        for shard in ("a", "b"):
            await state.park(shard, parked)
        assert await state.retry("a") == ["a"]
        assert await state.retry("a") == []
        assert await state.parked() == {"b": parked}
        assert await state.retry() == ["b"]

    asyncio.run(run())


def test_of_two_tables_each_gets_the_columns_of_its_own_sink():
    async def run():
        rig = await Rig.open(options=f"      name: flights{OTHER.replace('iam_role', 'lineage: false, iam_role') % 'delays'}")
        await rig.sealed.unit(0, 1, 10)
        found = {}
        for table in ("events", "others"):
            ((link,),) = (await rig.loader(table=table).parts.log.read_on({shard_id(0): ()}, {}, set())).values()
            found[table] = [column.name for column in link.layout.columns]
        return found

    assert asyncio.run(run()) == {"events": ["n", "kind", "_shard", "_sequence", "_subsequence", "_arrival"], "others": ["n", "kind"]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("      name: hourly", "      name: flights"),
        ("", f"      name: flights{OTHER % 'delays'}"),
        (f"      name: flights{OTHER % 'delays'}", f"      name: delays{OTHER % 'flights'}"),
        (f"      name: flights{OTHER % 'delays'}", "      name: delays"),
        ("      name: flights", f"      name: delays{OTHER % 'flights'}"),
        ("      name: flights", f"      name: delays{ARCHIVE % 'flights'}"),
    ],
)
def test_units_sealed_under_an_earlier_name_of_the_sink_are_loaded(before, after):
    async def run():
        rig = await Rig.open(options=before)
        await rig.sealed.unit(0, 1, 10)
        assert await rig.loader().attempt()
        await rig.sealed.unit(0, 11, 10)
        await rig.redefine(options=f"      keep_staged: 1d\n{after}")
        assert [row.units for row in await standing(rig.loader().parts)] == [1]
        await rig.sealed.unit(0, 21, 10)
        await rig.sealed.unit(1, 1, 10)
        loader = rig.loader("two")
        rig.sealed.clock.time += LIFE
        assert await loader.attempt(), rig.heard
        rig.assert_exactly_once()
        rig.sealed.clock.time += timedelta(days=2)
        loader._clean_up.done_at, loader._clean_up.needed = None, True
        assert await loader.attempt(), rig.heard
        return [info.key async for info in rig.staging.list("")]

    assert asyncio.run(run()) == []


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        (("      name: flights", "events"), (f"      name: delays{OTHER % 'flights'}", "events"), 0),
        ((f"      name: delays{ARCHIVE % 'flights'}", "events"), (f"      name: delays{OTHER % 'flights'}", "events"), 0),
        (("      name: flights", "events"), ("      name: flights", "others"), 1),
    ],
    ids=["of a table that is still loaded", "of files", "of a table that is not loaded any more"],
)
def test_a_table_under_the_name_of_another_sink_gets_rows_of_that_one_only_if_it_takes_its_place(before, after, units):
    async def run():
        rig = await Rig.open()
        await rig.redefine(before[0], table=before[1])
        await rig.sealed.unit(0, 1, 10)
        await rig.redefine(after[0], table=after[1])
        return [row.units for row in await standing(rig.loader(table="others").parts)]

    assert asyncio.run(run()) == [units]


def test_one_worker_loads_until_its_lease_expires_or_is_given_up():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)
        one, two = rig.loader("one"), rig.loader("two")
        assert await one.attempt()
        await rig.sealed.unit(0, 11, 10)
        assert await two.attempt()
        assert len(rig.warehouse.loads) == 1
        assert (await one.parts.lease.holder(), await two.parts.lease.holder()) == ("one", "one")
        rig.sealed.clock.time += LIFE + timedelta(seconds=1)
        assert await two.attempt()
        assert len(rig.warehouse.loads) == 2
        await two.finish()
        await rig.sealed.unit(0, 21, 10)
        assert await one.attempt()
        rig.assert_exactly_once()

    asyncio.run(run())


@pytest.mark.parametrize("back", [5, 0])
def test_a_shard_rewound_before_the_table_existed_is_loaded_from_where_it_continued(back):
    async def run():
        rig = await Rig.open(options="      keep_staged: 1d")
        # All records are filtered out: nothing is staged, as before the sink was there.
        for n in (5, 10):
            await rig.sealed.unit(0, n, 1)
        await rig.sealed.rewind(0, back)
        await rig.sealed.unit(0, back + 1, 20)
        await rig.sealed.unit(0, back + 21, 20)
        await rig.sealed.unit(1, 1, 20)
        loader = rig.loader()
        assert await loader.attempt(), rig.heard
        await rig.sealed.unit(0, back + 41, 20)
        assert await loader.attempt(), rig.heard
        assert await rig.loader().attempt(), rig.heard
        numbers = [(row["_shard"], row["_sequence"]) for row in rig.warehouse.rows]
        expected = {name: frame.height - dropped(frame) for name, frame in rig.sealed.source.frames.items()}
        assert len(numbers) == len(set(numbers)) == sum(expected.values())
        assert [event.parked for event in rig.emitted(events.LoadsWaiting)][-1] == 0
        rig.sealed.clock.time += timedelta(days=2)
        loader._clean_up.done_at = None
        assert await loader.attempt()
        return [info.key async for info in rig.staging.list("")]

    assert asyncio.run(run()) == []


def test_a_rewound_shard_of_which_nothing_is_sealed_again_yet_holds_up_no_load():
    """The load of another shard has taken the ledger to where the rewound one goes on, at which no unit of its chain ends."""

    async def run():
        rig = await Rig.open()
        for n in (5, 10):
            await rig.sealed.unit(0, n, 1)
        await rig.sealed.rewind(0, 5)
        for unit in range(3):
            await rig.sealed.unit(1, 1 + 10 * unit, 10)
            loader = rig.loader()
            assert await loader.attempt(), rig.heard
        await rig.sealed.unit(0, 6, 10)
        assert await loader.attempt(), rig.heard
        numbers = {(row["_shard"].partition("/")[0], row["_sequence"]) for row in rig.warehouse.rows}
        expected = sum(frame.height - dropped(frame) for frame in rig.sealed.source.frames.values())
        assert len(numbers) == len(rig.warehouse.rows) == expected

    asyncio.run(run())


def test_nothing_is_loaded_in_a_quiet_window():
    async def run():
        rig = await Rig.open(options='      quiet: ["11:30-12:30"]')
        await rig.sealed.unit(0, 1, 10)
        loader = rig.loader()
        assert await loader.attempt()
        assert rig.warehouse.loads == []
        rig.sealed.clock.time += timedelta(minutes=31)
        assert await loader.attempt()
        rig.assert_exactly_once()

    asyncio.run(run())


def test_nothing_is_loaded_while_loads_are_paused_and_waiting_units_are_still_reported():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)
        pauses, pause = [], Pause(what=What.LOADS, stream="events", by="ann@a", note="resize", since=rig.sealed.clock.now())
        loader = rig.loader(pause=lambda: pauses[0] if pauses else None)
        assert await loader.attempt()
        await rig.sealed.unit(0, 11, 10)
        await loader.parts.lease.give_up()
        pauses.append(pause)
        before = len(rig.warehouse.loads)
        for _ in range(3):
            rig.sealed.clock.time += timedelta(minutes=10)
            assert await loader.attempt()
        assert len(rig.warehouse.loads) == before
        assert rig.emitted(events.LoadsPaused) == [events.LoadsPaused("events", "", loader.parts.config.name, "ann@a", "resize", "")]
        ages = [event.age for event in rig.emitted(events.LoadsWaiting)][-3:]
        assert [round(age - ages[0]) for age in ages] == [0, 600, 1200]
        assert ages[0] > 600
        assert await loader.parts.lease.holder() == "", "the lease is not kept by a loader that does not load"
        assert await loader.complete() == str(pause)
        assert rig.emitted(events.LoadsResumed) == []
        pauses.clear()
        assert await loader.attempt()
        assert len(rig.emitted(events.LoadsResumed)) == 1
        rig.assert_exactly_once()

    asyncio.run(run())


def test_a_table_that_was_rolled_back_during_a_pause_is_loaded_again_from_there():
    async def run():
        rig = await Rig.open()
        pauses, pause = [], Pause(what=What.LOADS, stream="events", by="ann@a", note="rollback", since=rig.sealed.clock.now())
        loader = rig.loader(pause=lambda: pauses[0] if pauses else None)
        for first in (1, 11):
            await rig.sealed.unit(0, first, 10)
            assert await loader.attempt()
        pauses.append(pause)
        assert await loader.attempt()
        del rig.warehouse.ledger[1:], rig.warehouse.rows[rig.warehouse.loads[0].rows :]
        pauses.clear()
        assert await loader.attempt()
        rig.assert_exactly_once()

    asyncio.run(run())


def test_a_pause_stops_a_loader_between_two_loads():
    async def run():
        rig = await Rig.open(options="      units: 1")
        for unit in range(3):
            await rig.sealed.unit(0, 1 + 10 * unit, 10)
        pauses = [Pause(what=What.LOADS, stream="events", by="ann@a", note="resize", since=rig.sealed.clock.now())]
        loader = rig.loader(pause=lambda: pauses[0] if pauses and rig.warehouse.loads else None)
        assert await loader.attempt()
        assert len(rig.warehouse.loads) == 1
        pauses.clear()
        assert await loader.attempt()
        rig.assert_exactly_once()

    asyncio.run(run())


def test_a_loader_keeps_its_lease_for_as_long_as_it_loads():
    async def run():
        rig = await Rig.open(options="      units: 1")
        for unit in range(4):
            await rig.sealed.unit(0, 1 + 10 * unit, 10)
        two, taken = rig.loader("two").parts.lease, []

        async def load(load):
            await loading(load)
            rig.sealed.clock.time += LIFE * 2 / 3
            taken.append(await two.take())

        loading, rig.warehouse.load = rig.warehouse.load, load
        assert await rig.loader("one").attempt()
        assert taken == [Hold.NO] * 4
        rig.assert_exactly_once()

    asyncio.run(run())


def test_a_loader_whose_lease_another_worker_has_taken_leaves_it_the_rest():
    async def run():
        rig = await Rig.open(options="      units: 1")
        for unit in range(3):
            await rig.sealed.unit(0, 1 + 10 * unit, 10)
        two = rig.loader("two")

        async def slowly(load):
            await loading(load)
            rig.sealed.clock.time += LIFE + timedelta(seconds=1)
            assert await two.parts.lease.take() is Hold.ANEW

        loading, rig.warehouse.load = rig.warehouse.load, slowly
        assert await rig.loader("one").attempt()
        assert len(rig.warehouse.loads) == 1
        rig.warehouse.load = loading
        assert await two.attempt()
        rig.assert_exactly_once()

    asyncio.run(run())


def test_a_unit_that_cannot_be_loaded_parks_only_its_shard():
    async def run():
        rig = await Rig.open()
        for shard in range(3):
            for unit in range(3):
                await rig.sealed.unit(shard, 1 + 10 * unit, 10)
        loader = rig.loader()
        bad = (await loader.parts.log.read_on({shard_id(1): ()}, {}, set()))[shard_id(1)][1]
        key = bad.files[0].url.removeprefix(rig.staging.url)
        body = (await rig.staging.get(key)).body
        await rig.staging.delete(key)
        assert await loader.attempt()
        parked = await loader.parts.state.parked()
        loaded = rig.warehouse._until(None)
        assert {shard: loaded[shard] for shard in (shard_id(0), shard_id(2))} == {
            shard: rig.sealed.heads[shard].position for shard in (shard_id(0), shard_id(2))
        }
        assert loaded[shard_id(1)] == bad.after
        assert list(parked) == [shard_id(1)]
        assert parked[shard_id(1)].after == str(bad.after)
        await rig.sealed.unit(0, 31, 10)
        assert await loader.attempt()
        (row,) = [row for row in await standing(loader.parts) if row.parked]
        assert (row.shard, row.units) == (shard_id(1), 2)
        await rig.staging.put(key, body)
        fitted, fit = [], rig.warehouse.fit

        async def noted(layout):
            fitted.append(layout)
            await fit(layout)

        rig.warehouse.fit = noted
        await loader.parts.state.release(shard_id(1))
        assert await loader.attempt()
        assert len(fitted) == 1, "the table may have been changed before the shard was released"
        rig.assert_exactly_once()
        return rig

    rig = asyncio.run(run())
    (event,) = rig.emitted(events.LoadParked)
    assert event.shard == shard_id(1)
    assert "stream loads retry" in event.reason
    assert rig.emitted(events.LoadsWaiting)[-1].parked == 0


@pytest.mark.parametrize("again", [None, Failure.TRANSIENT, Failure.RACE])
def test_a_unit_that_fails_once_is_not_given_up(again):
    """A second attempt loads it, or says that the reason is not in the unit."""

    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)
        failures = [failure for failure in (Failure.DATA, again) if failure is not None]

        def fail(load):
            if failures:
                raise LoadFailed("a value does not fit", failures.pop(0))

        rig.warehouse.before = fail
        loader = rig.loader()
        assert await loader.attempt() is (again is None)
        assert await loader.attempt()
        rig.assert_exactly_once()
        assert await loader.parts.state.parked() == {}
        assert [(event.units, event.rows) for event in rig.emitted(events.UnitsLoaded)] == [(1, 8)]
        assert rig.emitted(events.LoadParked) == []

    asyncio.run(run())


def test_a_table_that_was_altered_since_it_was_looked_at_parks_no_shard():
    async def run():
        rig = await Rig.open()
        for shard in range(2):
            await rig.sealed.unit(shard, 1, 10)
        loader = rig.loader()
        assert await loader.attempt()
        for shard in range(2):
            await rig.sealed.unit(shard, 11, 10)
        fit = rig.warehouse.fit

        def too_large(load):
            raise LoadFailed("integer out of range", Failure.DATA)

        async def altered(layout):
            raise LoadFailed("column n is int4 in the table and bigint in the pipeline", Failure.SETUP)

        rig.warehouse.before, rig.warehouse.fit = too_large, altered
        assert not await loader.attempt()
        assert await loader.parts.state.parked() == {}
        rig.warehouse.before, rig.warehouse.fit = lambda load: None, fit
        assert await loader.attempt()
        rig.assert_exactly_once()
        return rig

    (event,) = asyncio.run(run()).emitted(events.LoadRefused)
    assert (event.kind, event.detail) == ("setup", "column n is int4 in the table and bigint in the pipeline")


def test_a_table_that_must_not_be_changed_is_reported_and_tried_again():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)
        loader = rig.loader()

        def refuse(load):
            raise LoadFailed("permission denied for relation events", Failure.SETUP)

        rig.warehouse.before = refuse
        assert not await loader.attempt()
        rig.warehouse.before = lambda load: None
        assert await loader.attempt()
        rig.assert_exactly_once()
        return rig

    (event,) = asyncio.run(run()).emitted(events.LoadRefused)
    assert (event.kind, event.detail) == ("setup", "permission denied for relation events")


def test_a_store_that_does_not_answer_does_not_delay_the_end_of_a_loader(monkeypatch):
    monkeypatch.setattr("stream.worker.tables.loading.FINISH_SECONDS", 0.0)

    async def run():
        rig = await Rig.open()
        loader = rig.loader()
        assert await loader.attempt()

        async def silence(_key):
            await asyncio.Event().wait()

        monkeypatch.setattr(loader.parts.lease._store, "get", silence)
        async with asyncio.timeout(120):
            await loader.finish()
        return rig

    (event,) = asyncio.run(run()).emitted(events.LoadRefused)
    assert event.detail == "the loader's lease could not be given up in time; it ends by itself"


@pytest.mark.parametrize("error", [Retryable("no answer"), Fatal("access denied")])
def test_a_lease_that_cannot_be_given_up_is_reported_and_holds_up_no_end(error):
    async def run():
        rig = await Rig.open()
        loader = rig.loader(lease=RefusingLease(error))
        await loader.finish()
        return rig.emitted(events.LoadRefused)

    (event,) = asyncio.run(run())
    assert event.detail == str(error)


class RefusingLease:
    """A lease of which nothing is known but ``error``."""

    def __init__(self, error):
        self.error = error

    async def take(self):
        raise self.error

    async def give_up(self):
        raise self.error


def test_a_refused_permission_is_for_a_person_and_tried_again():
    async def run():
        rig = await Rig.open()
        assert not await rig.loader(lease=RefusingLease(Fatal("access denied"))).attempt()
        return rig.emitted(events.LoadRefused)

    (event,) = asyncio.run(run())
    assert (event.kind, event.detail) == ("setup", "access denied")


def test_nothing_of_an_attempt_goes_on_after_it():
    async def run():
        rig = await Rig.open()
        assert await rig.loader().attempt()
        async with asyncio.timeout(3600):
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
        return rig.emitted(events.LoadsWaiting)

    assert len(leaping(run)) == 1


def test_what_another_loader_has_loaded_after_a_failure_is_not_waited_for():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)
        one, two = (rig.loader(name, lease=LeaseForEveryone()) for name in ("one", "two"))
        rig.warehouse.before = lambda load: (_ for _ in ()).throw(Retryable("no answer"))
        assert not await one.attempt()
        rig.warehouse.before = lambda load: None
        assert await two.attempt()
        assert await one.attempt()
        await rig.sealed.unit(0, 11, 10)
        assert await one.attempt()
        rig.assert_exactly_once()

    asyncio.run(run())


def test_lag_grows_while_the_warehouse_does_not_answer():
    async def run():
        rig = await Rig.open()
        loader, answering = rig.loader(), rig.warehouse.positions
        await rig.sealed.unit(0, 1, 10)
        assert await loader.attempt()

        async def silence():
            raise Retryable("no answer")

        rig.warehouse.positions = silence
        loader._forget()
        rig.sealed.clock.time += timedelta(minutes=40)
        assert not await loader.attempt()
        rig.sealed.clock.time += timedelta(minutes=5)
        assert not await loader.attempt()
        rig.warehouse.positions = answering
        assert await loader.attempt()
        return rig

    ages = [event.age for event in asyncio.run(run()).emitted(events.LoadsWaiting)]
    assert ages[-3:] == [40 * 60, 45 * 60, 0]


def test_lag_grows_while_a_statement_waits_for_a_lock(monkeypatch):
    async def run():
        rig = await Rig.open()
        answering, grown = rig.warehouse.positions, asyncio.Event()

        def listen(event):
            rig.heard.append(event)
            if isinstance(event, events.LoadsWaiting) and event.age >= 3600:
                grown.set()

        loader = rig.loader(emit=listen)
        await rig.sealed.unit(0, 1, 10)
        assert await loader.attempt()
        monkeypatch.setattr("stream.worker.tables.reports.REPORT_SECONDS", 0.0)

        async def locked():
            rig.sealed.clock.time += timedelta(hours=1)
            await grown.wait()
            return await answering()

        rig.warehouse.positions = locked
        loader._forget()
        async with asyncio.timeout(120):
            assert await loader.attempt()
        return rig.heard

    assert asyncio.run(run())[-1:] == [events.LoadsWaiting("events", "", "redshift", 0, 0.0, 0)]


def test_a_worker_that_is_no_longer_the_loader_reports_no_lag():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)

        def refuse(load):
            raise LoadFailed("permission denied for relation events", Failure.SETUP)

        one, two = rig.loader("one"), rig.loader("two")
        rig.warehouse.before = refuse
        assert not await one.attempt()
        rig.sealed.clock.time += timedelta(minutes=31)
        rig.warehouse.before = lambda load: None
        assert await two.attempt()
        before = len(rig.heard)
        for _ in range(3):
            assert await one.attempt()
        return rig.emitted(events.LoadsWaiting), rig.heard[before:]

    emitted, last = asyncio.run(run())
    assert any(event.units for event in emitted)
    assert last == [events.LoadsWaiting("events", "", "redshift", 0, 0.0, 0)]


def test_an_unexpected_error_is_reported_and_ends_nothing():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)

        def fail(load):
            raise ZeroDivisionError("value 4711 of a row")

        rig.warehouse.before = fail
        assert not await rig.loader().attempt()
        return rig

    (event,) = asyncio.run(run()).emitted(events.LoadRefused)
    assert event.kind == "unexpected"
    assert event.detail.startswith("unexpected ZeroDivisionError; please report it with this trace: test_loading.py:")
    assert "4711" not in event.detail


LAKE = """
  - iceberg: {name: %s, location: s3://lake/table/, table: lake.events, catalog: {type: sql, uri: "sqlite:///c.db"}}
"""


REDSHIFT = ("      name: flights", "events")
ICEBERG = (f"      name: delays{LAKE % 'flights'}", "others")


@pytest.mark.parametrize(
    ("first", "second", "table", "former"),
    [(REDSHIFT, ICEBERG, "lake.events", "redshift table events"), (ICEBERG, REDSHIFT, "events", "iceberg table lake.events")],
    ids=["redshift to iceberg", "iceberg to redshift"],
)
def test_files_are_not_loaded_into_a_table_of_another_kind_and_wait_for_their_own(first, second, table, former):
    """Their types of columns are those of one kind, and so are merging, partitions and compression."""

    async def run():
        rig = await Rig.open()
        await rig.redefine(first[0], table=first[1])
        await rig.sealed.unit(0, 1, 10)
        await rig.redefine(second[0], table=second[1])
        await rig.sealed.unit(0, 11, 10)
        parts = rig.loader(table=table).parts
        for _ in range(2):
            links = (await parts.log.read_on({shard_id(0): ()}, {}, set()))[shard_id(0)]
            assert [(link.layout is None, link.rows) for link in links] == [(True, 0), (False, 7)]
        assert [(row.units, row.rows) for row in await standing(parts)] == [(1, 7)]
        assert rig.left == [former]
        # The sink is of the former kind again: the table goes on where it ended, without what was sealed for the other one.
        await rig.redefine(first[0], table=first[1])
        await rig.sealed.unit(0, 21, 10)
        (row,) = await standing(rig.loader(table="events" if first is REDSHIFT else "lake.events").parts)
        assert (row.units, row.rows) == (2, 16)

    asyncio.run(run())


@pytest.mark.parametrize("removed", [False, True])
def test_another_table_of_the_kind_whose_files_are_gone_says_how_to_go_on_without_them(removed):
    async def run():
        rig = await Rig.open(options="      keep_staged: 1d")
        first = await rig.sealed.unit(0, 1, 10)
        assert await rig.loader().attempt()
        rig.sealed.clock.time += timedelta(days=2)
        if removed:
            loader = rig.loader()
            assert await loader.attempt()
        rig.warehouse = MemoryWarehouse(rig.staging, rig.sealed.clock)
        await rig.redefine(table="others")
        await rig.sealed.unit(0, 11, 10)
        if not removed:
            (lost,) = [file for file in first.files if file.sink == "redshift"]
            await rig.staging.delete(lost.key)
        rig.sealed.clock.time += LIFE
        loader = rig.loader(table="others")
        assert await loader.attempt()
        (parked,) = (await loader.parts.state.parked()).values()
        return parked.reason, f"pass over {shard_id(0)} from 0 to {first.last}"

    reason, how = asyncio.run(run())
    assert ("If it need not have these rows" in reason, how in reason) == (removed, removed)
    assert "It is tried again by itself" in reason


def test_nobody_is_told_of_files_that_another_sink_loads():
    async def run():
        rig = await Rig.open()
        await rig.redefine(*REDSHIFT[:1])
        await rig.sealed.unit(0, 1, 10)
        await rig.redefine(ICEBERG[0])
        assert [row.units for row in await standing(rig.loader(table="lake.events").parts)] == [0]
        assert rig.left == []

    asyncio.run(run())


def test_a_shard_that_was_parked_for_another_table_under_the_name_is_not_parked_for_this_one():
    async def run():
        rig = await Rig.open()
        await rig.redefine(*REDSHIFT[:1])
        await rig.sealed.unit(0, 1, 10)
        await rig.loader().parts.state.park(shard_id(0), Parked("0", "the table refuses it", NOON))
        assert [row.parked for row in await standing(rig.loader().parts)] == ["the table refuses it"]
        await rig.redefine(ICEBERG[0], table="others")
        (row,) = await standing(rig.loader(table="lake.events").parts)
        assert row.parked == ""
        await rig.redefine(*REDSHIFT[:1])
        assert [row.parked for row in await standing(rig.loader().parts)] == ["the table refuses it"]
        older = msgspec.json.encode({"after": "0", "reason": "of an older build", "since": NOON})
        await rig.sealed.stores.state.put(f"loads/flights/events/parked/{shard_id(0)}.json", older)
        await rig.redefine(ICEBERG[0], table="others")
        (row,) = await standing(rig.loader(table="lake.events").parts)
        assert row.parked == "of an older build"

    asyncio.run(run())


def test_staged_files_are_removed_when_old_enough_and_the_audit_knows():
    async def run():
        rig = await Rig.open(options="      keep_staged: 1d")
        await rig.sealed.unit(0, 1, 10)
        loader = rig.loader()
        assert await loader.attempt()
        assert len([info async for info in rig.staging.list("")]) == 1
        rig.sealed.clock.time += timedelta(days=1, hours=1)
        await rig.sealed.unit(0, 11, 10)
        assert await loader.attempt()
        left = [info.key async for info in rig.staging.list("")]
        removed = await loader.parts.state.removed()
        area = replace(rig.sealed.stores.areas("memory:state", "events")["redshift"], removed=removed)
        evidence = rig.sealed.evidence(source=False)
        evidence.areas = {**evidence.areas, "redshift": area}
        from stream.audit.verify import Scope, Verifier

        report = await Verifier(evidence, Scope(), rig.sealed.clock).run()
        return rig, left, removed, report

    rig, left, removed, report = asyncio.run(run())
    first, second = (load.links[0] for load in rig.warehouse.loads)
    assert left == [second.files[0].url.removeprefix(rig.staging.url)]
    assert removed == {shard_id(0): first.last}
    assert [finding for finding in report.findings if finding.verdict == "failed"] == []


class NotedDeletes(MemoryStore):
    """Notes every key that is deleted."""

    def __init__(self, url):
        super().__init__(url=url)
        self.deleted = []

    async def delete(self, key):
        self.deleted.append(key)
        await super().delete(key)


def test_what_is_counted_and_removed_is_what_was_sealed_for_the_table_at_its_place():
    async def run():
        options = f"      keep_staged: 1d{ARCHIVE % 'archive'}"
        rig = Rig(await Rig.sealed_by(options, ""), NotedDeletes("s3://lake/staging/"))
        await rig.redefine(options)
        place = rig.staging
        manifests = [await rig.sealed.unit(0, 1 + 10 * unit, 10) for unit in range(2)]
        assert {file.sink for manifest in manifests for file in manifest.files} >= {"redshift", "archive"}
        loader, rows = rig.loader(), 15
        question = Question(rig.sealed.clock.now() + timedelta(days=1), timedelta())
        assert (await loaded(loader.parts, rig.sealed.log, question)).rows == rows
        assert await loader.attempt()
        assert len(rig.warehouse.rows) == rows
        del place.deleted[:]
        rig.sealed.clock.time += timedelta(days=2)
        assert await rig.loader().attempt()
        staged = [file.key for manifest in manifests for file in manifest.files if file.sink == "redshift"]
        assert place.deleted == staged

    asyncio.run(run())


class CountedLooks(MemoryStore):
    """Counts what is read."""

    looks = 0

    async def get(self, key):
        self.looks += 1
        return await super().get(key)

    async def list(self, prefix, after=""):
        self.looks += 1
        async for info in super().list(prefix, after):
            yield info


def test_while_nothing_is_sealed_each_look_at_the_log_costs_one_read_of_a_shard():
    """That the table was loaded from this log is looked up once."""

    async def run():
        state = CountedLooks(url="memory:state")
        rig = Rig(await Rig.sealed_by("", "", state), MemoryStore(url="s3://lake/staging/"))
        await rig.redefine()
        for shard in range(8):
            await rig.sealed.unit(shard, 1, 10)
        assert await rig.loader().attempt()
        loader, counts = rig.loader(), []
        for _ in range(3):
            before = state.looks
            assert await loader.attempt()
            counts.append(state.looks - before)
        return counts

    first, *later = asyncio.run(run())
    assert later[0] == later[1] < 8 + 5
    assert first >= later[0] + 2 * 8


def test_a_loader_that_starts_removes_what_is_old_enough_and_no_manifest_that_may_be_in_use():
    async def run():
        rig = await Rig.open(options="      keep_staged: 1d")
        rig.staging = rig.warehouse.staging = MemoryStore(clock=rig.sealed.clock, url=rig.staging.url)
        await rig.redefine(options="      keep_staged: 1d")
        await rig.sealed.unit(0, 1, 10)
        one = rig.loader("one")
        assert await one.attempt()
        await one.finish()
        await rig.staging.put(f"{COPY_MANIFESTS}old.manifest", b"{}")
        rig.sealed.clock.time += timedelta(hours=20)
        await rig.staging.put(f"{COPY_MANIFESTS}young.manifest", b"{}")
        rig.sealed.clock.time += timedelta(hours=5)
        assert await rig.loader("two").attempt()
        return [info.key async for info in rig.staging.list("")]

    assert asyncio.run(run()) == [f"{COPY_MANIFESTS}young.manifest"]


TROUBLE = st.lists(st.sampled_from(["none", "before", "after", "transient", "race"]), max_size=12)


@settings(max_examples=25, deadline=None)
@given(TROUBLE, st.integers(1, 4), st.integers(1, 3))
def test_whatever_is_lost_every_row_is_in_the_table_once(trouble, units, loaders):
    """Replies lost before and after the load, failed transactions, and several loaders that each believe they are the only one."""

    async def run():
        rig = await Rig.open(options=f"      units: {units}")
        hooks = Trouble(list(trouble))
        rig.warehouse.before, rig.warehouse.after = hooks.before, hooks.after
        fleet = [rig.loader(f"w{n}", lease=LeaseForEveryone()) for n in range(loaders)]
        for turn in range(3 + len(trouble) + 2):
            for shard in range(2) if turn < 3 else ():
                await rig.sealed.unit(shard, 1 + 4 * turn, 4)
            for loader in fleet:
                await loader.attempt()
        rig.assert_exactly_once()

    asyncio.run(run())


class Trouble:
    """The fault of each load, in order; none once the list is used up."""

    def __init__(self, queue):
        self.queue = queue
        self.now = "none"

    def before(self, load):
        self.now = self.queue.pop(0) if self.queue else "none"
        if self.now == "before":
            raise Retryable("no answer")
        if self.now in {"transient", "race"}:
            raise LoadFailed("1023", Failure(self.now))

    def after(self, load):
        if self.now == "after":
            raise Retryable("no answer, and yet it is done")


class LeaseForEveryone:
    """A lease that every loader gets."""

    async def take(self):
        return Hold.KEPT


class ParksLate(LoadState):
    """Parks a shard only after ``meanwhile``, as a loader does that stood still before the call."""

    def __init__(self, inner, meanwhile):
        super().__init__(inner.store, "redshift", "events")
        self.meanwhile = meanwhile

    async def park(self, shard, parked):
        await self.meanwhile()
        await super().park(shard, parked)


def test_a_shard_that_an_overtaken_loader_parks_is_loaded_on():
    """It failed at a unit that was repaired since, and that another loader has loaded: nobody would know what to repair."""

    async def run():
        rig = await Rig.open()
        for unit in range(2):
            await rig.sealed.unit(0, 1 + 10 * unit, 10)
        two = rig.loader("two", lease=LeaseForEveryone())
        ((key, body),) = await lost_files(rig, [0], lambda links: links[0])

        async def repaired():
            await rig.staging.put(key, body)
            assert await two.attempt()
            rig.assert_exactly_once()

        one = rig.loader("one", lease=LeaseForEveryone(), state=ParksLate(two.parts.state, repaired))
        assert await one.attempt()
        assert list(await two.parts.state.parked()) == [shard_id(0)]
        await rig.sealed.unit(0, 21, 10)
        assert await two.attempt()
        rig.assert_exactly_once()
        assert await two.parts.state.parked() == {}

    asyncio.run(run())


async def lost_files(rig, shards, choose):
    """Remove the file of one unit of each shard. Returns keys and bodies."""
    waiting = await rig.loader().parts.log.read_on({shard_id(shard): () for shard in shards}, {}, set())
    found = []
    for links in waiting.values():
        key = choose(links).files[0].url.removeprefix(rig.staging.url)
        found.append((key, (await rig.staging.get(key)).body))
        await rig.staging.delete(key)
    return found


async def retried(seed):
    """How often a shard was parked while two loaders without a lease load, and two operators repair and retry; any of them may die."""
    dice = Random(seed)
    rig = await Rig.open(options=f"      units: {dice.choice((1, 3, 200))}")
    for shard in range(2):
        for unit in range(3):
            await rig.sealed.unit(shard, 1 + 10 * unit, 10)
    lost = await lost_files(rig, range(2), dice.choice)
    slow = LoadState(Turns(rig.sealed.stores.state, dice), "redshift", "events")

    async def load(worker):
        loader = rig.loader(worker, lease=LeaseForEveryone(), state=slow)
        for _ in range(4):
            await turns(dice)
            await loader.attempt()

    async def operate():
        for _ in range(4):
            await turns(dice)
            if lost and dice.random() < 0.3:
                await rig.staging.put(*lost.pop())
            await slow.retry()

    work = [asyncio.ensure_future(each) for each in (load("one"), load("two"), operate(), operate())]
    for task in dice.sample(work, dice.randrange(3)):
        await turns(dice, most=200)
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    await asyncio.gather(*(rig.staging.put(*each) for each in lost))
    await slow.retry()
    await load("last")
    rig.assert_exactly_once()
    assert await slow.parked() == {}
    return len(rig.emitted(events.LoadParked))


def test_however_loaders_and_operators_who_retry_meet_every_row_is_in_the_table_once():
    parked = 0
    for seed in range(SEEDS):
        try:
            parked += leaping(partial(retried, seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert parked > SEEDS


def test_the_loop_runs_until_it_is_cancelled():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)
        rounds = []

        class Ticking:
            def now(self):
                return rig.sealed.clock.now()

            def monotonic(self):
                return rig.sealed.clock.monotonic()

            async def sleep(self, seconds):
                rounds.append(seconds)
                if len(rounds) == 3:
                    raise asyncio.CancelledError

        loader = rig.loader(clock=Ticking())
        with contextlib.suppress(asyncio.CancelledError):
            await loader.run()
        rig.assert_exactly_once()
        return rounds

    assert asyncio.run(run()) == [60.0, 60.0, 60.0]


def complete(trouble=lambda rig, loader: None, options=""):
    """Why a run that ends left rows unloaded, how many of ten rows are in the table, and the seconds it took."""

    async def run():
        rig = await Rig.open(options=options)
        loader = rig.loader()
        assert await loader.attempt()
        await rig.sealed.unit(0, 1, 4)
        await rig.sealed.unit(1, 1, 6)
        before = rig.sealed.clock.monotonic()
        awaited = trouble(rig, loader)
        if awaited is not None:
            await awaited
        return await complete_all([loader], asyncio.Event()), len(rig.warehouse.rows), rig.sealed.clock.monotonic() - before

    return asyncio.run(run())


def test_a_run_loads_what_it_sealed_before_it_ends():
    assert complete() == ([], 9, 0.0)


def test_a_run_fails_if_no_loads_are_allowed_at_its_end():
    (why,), rows, seconds = complete(options='      quiet: ["11:30-12:30"]')
    assert "redshift: `quiet: 11:30-12:30` (UTC) allows no loads now" in why
    assert (rows, seconds) == (0, 0.0)


@pytest.mark.parametrize(("failure", "patient"), [(Failure.TRANSIENT, True), (Failure.SETUP, False)])
def test_a_run_waits_only_for_errors_that_may_pass(failure, patient):
    def always(rig, loader):
        rig.warehouse.before = lambda load: fail()

    def twice(rig, loader):
        left = [1, 1]
        rig.warehouse.before = lambda load: fail() if left and left.pop() else None

    def fail():
        raise LoadFailed("not now", failure)

    (why,), rows, seconds = complete(always)
    assert (why, rows) == ("redshift: not now", 0)
    assert (seconds >= LIFE.total_seconds()) is patient
    assert complete(twice)[:2] == (([], 9) if patient else (["redshift: not now"], 0))


def test_a_run_waits_for_the_loader_of_another_worker():
    def elsewhere(rig, loader):
        rig.sealed.clock.time += LIFE + timedelta(seconds=1)
        return rig.loader("another").parts.lease.take()

    found, rows, seconds = complete(elsewhere)
    assert (found, rows) == ([], 9)
    assert seconds >= LIFE.total_seconds()


def test_a_run_names_the_units_that_were_refused():
    def refuse(rig, loader):
        def bad(load):
            if any(link.shard == shard_id(1) for link in load.links):
                raise LoadFailed("a value does not fit", Failure.DATA)

        rig.warehouse.before = bad

    (why,), rows, _ = complete(refuse)
    assert "a value does not fit" in why
    assert "stream loads retry" in why
    assert rows == 4


def test_a_signal_stops_a_run_that_waits_for_loads():
    async def run():
        rig, draining = await Rig.open(), asyncio.Event()
        await rig.sealed.unit(0, 1, 10)
        loader = rig.loader()

        async def sleep(seconds):
            draining.set()
            await asyncio.Event().wait()

        rig.sealed.clock.sleep = sleep
        rig.warehouse.before = lambda load: (_ for _ in ()).throw(Retryable("no answer"))
        unseen = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context["message"]))
        left = await complete_all([loader], draining)
        gc.collect()
        return left, rig.emitted(events.LoadRefused), unseen

    left, refused, unseen = asyncio.run(asyncio.wait_for(run(), 120))
    assert left == ["redshift: a signal came before all was loaded"]
    assert [(each.kind, each.detail, each.wait) for each in refused] == [("transient", "no answer", LEFT_PAUSE)]
    assert unseen == [], "an exception that nobody retrieves is a traceback on standard error"


def test_a_parked_shard_is_tried_again_by_itself_less_and_less_often_and_goes_on_after_the_repair():
    async def run():
        rig = await Rig.open()
        for shard in range(2):
            for unit in range(2):
                await rig.sealed.unit(shard, 1 + 10 * unit, 10)
        ((key, body),) = await lost_files(rig, [1], lambda links: links[0])
        loader, loads = rig.loader(), []

        def count(load):
            loads.append({link.shard for link in load.links})

        rig.warehouse.before = count
        assert await loader.attempt()
        (first,) = (await loader.parts.state.parked()).values()
        tried = []
        for minute in range(140):
            del loads[:]
            await rig.sealed.clock.sleep(60)
            assert await loader.attempt()
            if loads:
                tried.append(minute + 1)
                assert loads == [{shard_id(1)}] * BAD_LOADS
        assert tried == [5, 15, 35, 65, 95, 125]
        (parked,) = (await loader.parts.state.parked()).values()
        assert parked.since == first.since
        await rig.staging.put(key, body)
        await rig.sealed.clock.sleep(30 * 60)
        assert await loader.attempt()
        assert await loader.parts.state.parked() == {}
        rig.assert_exactly_once()
        return rig

    rig = asyncio.run(run())
    parked = rig.emitted(events.LoadParked)
    assert len(parked) == 7
    assert all("tried again by itself" in event.reason and "stream loads retry FILE --sink redshift" in event.reason for event in parked)


@pytest.mark.parametrize("forgets", [False, True])
def test_another_unit_of_a_shard_is_tried_again_soon_however_long_the_one_before_it_was_waited_for(forgets):
    async def run():
        rig = await Rig.open()
        loader = rig.loader()
        for unit in range(2):
            await rig.sealed.unit(0, 1 + 10 * unit, 10)
            ((key, body),) = await lost_files(rig, [0], lambda links: links[-1])
            assert await loader.attempt()
            for _ in range(3 * (1 - unit)):
                await rig.sealed.clock.sleep(LONGEST_PARKED)
                assert await loader.attempt()
            if forgets:
                rig.warehouse.before = lambda load: (_ for _ in ()).throw(Retryable("no answer"))
                await rig.sealed.clock.sleep(LONGEST_PARKED * (1 - unit))
                await loader.attempt()
                rig.warehouse.before = lambda load: None
            await rig.staging.put(key, body)
            if unit == 0:
                await loader.parts.state.retry()
            else:
                await rig.sealed.clock.sleep(FIRST_PARKED)
            assert await loader.attempt()
            rig.assert_exactly_once()

    asyncio.run(run())


def test_what_one_repair_helped_is_tried_for_the_other_parked_shards_at_once():
    async def run():
        rig = await Rig.open()
        for shard in range(5):
            await rig.sealed.unit(shard, 1, 10)
        loader = rig.loader()

        def refuse(load):
            raise LoadFailed("Cannot insert a NULL value into column kind", Failure.DATA)

        rig.warehouse.before = refuse
        assert await loader.attempt()
        assert len(await loader.parts.state.parked()) == 5
        rig.warehouse.before = lambda load: None
        assert await loader.attempt()
        assert len(await loader.parts.state.parked()) == 5
        await rig.sealed.clock.sleep(FIRST_PARKED)
        assert await loader.attempt()
        assert await loader.parts.state.parked() == {}
        rig.assert_exactly_once()

    asyncio.run(run())


def test_a_loader_that_starts_tries_what_another_one_has_parked():
    async def run():
        rig = await Rig.open()
        await rig.sealed.unit(0, 1, 10)
        ((key, body),) = await lost_files(rig, [0], lambda links: links[0])
        one = rig.loader("one")
        assert await one.attempt()
        await one.finish()
        await rig.staging.put(key, body)
        assert await rig.loader("two").attempt()
        rig.assert_exactly_once()

    asyncio.run(run())


def test_a_parked_unit_that_the_table_can_take_no_more_holds_up_no_other_shard():
    async def run():
        rig = await Rig.open()
        for shard in range(2):
            await rig.sealed.unit(shard, 1, 10)
        ((key, body),) = await lost_files(rig, [1], lambda links: links[0])
        loader = rig.loader()
        assert await loader.attempt()
        fit = rig.warehouse.fit

        async def refuse(layout):
            raise LoadFailed("column n is varchar in the table and bigint in the pipeline", Failure.SETUP)

        rig.warehouse.fit = refuse
        await rig.sealed.clock.sleep(FIRST_PARKED)
        await rig.sealed.unit(0, 11, 10)
        assert not await loader.attempt()
        rig.warehouse.fit = fit
        (parked,) = (await loader.parts.state.parked()).values()
        assert "column n is varchar" in parked.reason
        assert await loader.attempt()
        await rig.staging.put(key, body)
        await loader.parts.state.retry()
        assert await loader.attempt()
        rig.assert_exactly_once()

    asyncio.run(run())
