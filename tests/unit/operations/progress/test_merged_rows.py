"""A table that is merged by key, in memory, loaded by the production loader: each kind of damage is found, and a right table is right."""

import asyncio
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.audit.report import Check, Verdict
from stream.operations.progress import merged_rows
from stream.operations.progress.table_rows import count
from stream.worker.recipes.definitions import Definitions
from tests.contract.warehouse import MergingMemory
from tests.sealed import sequence, shard_id
from tests.unit.worker.tables.test_loading import Rig

KEYS = "      mode: upsert\n      keys: [n]\n"
DELETES = f"{KEYS}      deletes: gone\n"
VERSIONS = f"{DELETES}      version: rank\n"
KINDS = DELETES.replace("[n]", "[kind]")
STAGES = '  - derive: {gone: "n % 3 = 0", rank: "n * 7 % 11"}'


async def opened(options=DELETES):
    rig = await Rig.open(options, STAGES)
    rig.warehouse = MergingMemory(rig.staging, rig.sealed.clock)
    return rig


async def loaded(options=DELETES):
    """Two shards that have records of the same keys; each row is in a unit so small that all its rows are looked at."""
    rig = await opened(options)
    for shard in (0, 1):
        for first in range(1, 13, 4):
            await rig.sealed.unit(shard, first, 4)
    assert await rig.loader().attempt()
    return rig


async def check(rig, seed=7):
    definitions = Definitions(rig.sealed.stores.state, Path(), {}, rig.sealed.clock)
    return await count([rig.loader().parts], rig.sealed.log, definitions, rig.sealed.stores.targets["ledger"], Random(seed))


@pytest.mark.parametrize("options", [KEYS, DELETES, VERSIONS], ids=["keys", "deletes", "version"])
def test_a_right_table_is_right_and_the_report_says_what_was_looked_at(options):
    async def run():
        rig = await loaded(options)
        return await check(rig), len(rig.warehouse.rows)

    result, rows = asyncio.run(run())
    (finding,) = result.findings
    assert (finding.verdict, finding.check, result.rows) == (Verdict.OK, Check.TABLES, rows)
    assert finding.message.startswith("its rows are merged by key, so they were not counted: no key is there twice; of ")
    assert f"of {rows} of its rows, the ledger says that their records were written to it" in finding.message
    assert finding.message.endswith("loaded rows from 6 units, it has each or a newer one of its key, or that was deleted")


def row_of(rig, n):
    return next(row for row in rig.warehouse.rows if row["n"] == n)


def double(rig):
    rig.warehouse.rows.append(dict(row_of(rig, 7), _line=99))


def remove(rig):
    rig.warehouse.rows.remove(row_of(rig, 8))


def empty(rig):
    rig.warehouse.rows.clear()


def roll_back(rig):
    """The row as the other shard, whose numbers are smaller, had it."""
    rig.warehouse.rows.remove(row := row_of(rig, 11))
    rig.warehouse.rows.append(dict(row, _shard=shard_id(0), _sequence=str(sequence(0, 11))))


def roll_back_and_forget(rig):
    """The same, and nothing says which keys were deleted."""
    roll_back(rig)
    rig.warehouse.deleted.clear()


def bring_back(rig):
    (deleted,) = [row for row in rig.warehouse.deleted if row["n"] == 9]
    rig.warehouse.deleted.remove(deleted)
    rig.warehouse.rows.append(dict(deleted, _shard=shard_id(0), _sequence=str(sequence(0, 9)), gone=False))


def filtered_record(rig):
    """A key of its own, with the place of a record that was filtered."""
    rig.warehouse.rows.append(dict(row_of(rig, 7), n=1000, _sequence=str(sequence(1, 5))))


def no_record(rig):
    rig.warehouse.rows.append(dict(row_of(rig, 7), n=1000, _sequence=str(sequence(1, 7) + 1)))


def not_loaded(rig):
    rig.warehouse.rows.append(dict(row_of(rig, 7), n=1000, _sequence=str(sequence(1, 13))))


def too_many(rig):
    rig.warehouse.rows += [dict(row_of(rig, 7), n=1000 + n, _line=99) for n in range(20)]


DAMAGE = {
    double: "1 keys are in the table several times, though it is merged by n",
    remove: "was loaded, but the table has no row of its key",
    empty: "was loaded, but the table has no row of its key",
    roll_back: "was loaded, but 1 rows of its key are older",
    roll_back_and_forget: "was loaded, but 1 rows of its key are older",
    bring_back: "was loaded, but 1 rows of its key are older, or should have been deleted",
    filtered_record: "the ledger says that it was filtered",
    no_record: "the ledger has no such record",
    not_loaded: f"has a row of {shard_id(1)} with the sequence number {sequence(1, 13)}, but is loaded up to {sequence(1, 12)} only",
    too_many: "were loaded",
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_each_kind_of_damage_is_found(damage, words):
    async def run():
        rig = await loaded()
        assert (await check(rig)).findings[0].verdict is Verdict.OK
        damage(rig)
        return await check(rig)

    result = asyncio.run(run())
    assert Verdict.FAILED in {finding.verdict for finding in result.findings} <= {Verdict.FAILED, Verdict.UNKNOWN}
    assert any(words in finding.message for finding in result.findings), [finding.message for finding in result.findings]


@pytest.mark.parametrize(
    ("options", "older", "verdict"),
    [
        (KINDS, None, Verdict.UNKNOWN),
        (KINDS, 5, Verdict.UNKNOWN),
        (KINDS, 1, Verdict.FAILED),
        (f"{KINDS}      version: rank\n", None, Verdict.UNKNOWN),
        (f"{KINDS}      version: rank\n", 1, Verdict.UNKNOWN),
    ],
)
def test_a_key_without_rows_is_damage_for_certain_only_if_its_deletion_would_be_remembered(options, older, verdict):
    """The key `a` was written by the records 2 and 4 and deleted by 6; ``older``: a record of which a deletion is still remembered."""

    async def run():
        rig = await opened(options)
        await rig.sealed.unit(0, 1, 7)
        assert await rig.loader().attempt()
        rig.warehouse.rows = [row for row in rig.warehouse.rows if row["kind"] == "b"]
        rest = [] if older is None else [dict.fromkeys(rig.warehouse.layout.keys, "z") | {"_sequence": str(sequence(0, older))}]
        rig.warehouse.deleted = [{"rank": 0, "_subsequence": 0, "_line": 0, **row} for row in rest]
        return await check(rig)

    findings = asyncio.run(run()).findings
    assert {finding.verdict for finding in findings} == {verdict}, [finding.message for finding in findings]
    said = {Verdict.FAILED: "no row of its key", Verdict.UNKNOWN: "Their keys were deleted"}
    assert any(said[verdict] in finding.message for finding in findings)


def test_records_are_looked_up_in_every_generation_of_a_shard():
    async def run(damaged):
        rig = await opened(KEYS)
        await rig.sealed.unit(0, 1, 4)
        await rig.sealed.rewind(0, 4)
        await rig.sealed.unit(0, 5, 4)
        assert await rig.loader().attempt()
        if damaged:
            row_of(rig, 7)["_sequence"] = str(sequence(0, 5))
        return await check(rig)

    (finding,) = asyncio.run(run(damaged=False)).findings
    assert (finding.verdict, "of 7 of its rows, the ledger says" in finding.message) == (Verdict.OK, True), finding.message
    assert any("the ledger says that it was filtered" in finding.message for finding in asyncio.run(run(damaged=True)).findings)


def test_what_was_appended_before_rows_were_merged_is_no_damage_and_is_not_looked_at():
    async def run():
        rig = await opened("")
        await rig.sealed.unit(0, 1, 8)
        await rig.sealed.unit(1, 1, 8)
        assert await rig.loader().attempt()
        await rig.redefine(KEYS, STAGES)
        await rig.sealed.unit(0, 9, 4)
        assert await rig.loader().attempt()
        assert len(rig.warehouse.rows) > len({row["n"] for row in rig.warehouse.rows})
        return await check(rig)

    (finding,) = asyncio.run(run()).findings
    assert (finding.verdict, "some are merged by key and others not" in finding.message) == (Verdict.OK, True)


def test_files_that_are_gone_cost_samples_and_nothing_else():
    async def run():
        rig = await loaded()
        for key in [info.key async for info in rig.staging.list("")]:
            await rig.staging.delete(key)
        return await check(rig)

    (finding,) = asyncio.run(run()).findings
    assert finding.verdict is Verdict.OK
    assert finding.message.endswith("of 0 loaded rows from 0 units, it has each or a newer one of its key, or that was deleted")


def test_a_table_that_a_loader_changes_meanwhile_is_looked_at_again(monkeypatch):
    async def run(times):
        rig = await loaded()
        inner, calls = rig.warehouse.merged_rows, []

        async def meanwhile(layout):
            if len(calls) < times:
                calls.append(1)
                await rig.sealed.unit(1, 13 + 4 * len(calls), 4)
                assert await rig.loader().attempt()
            return await inner(layout)

        monkeypatch.setattr(rig.warehouse, "merged_rows", meanwhile)
        return await check(rig)

    assert [finding.verdict for finding in asyncio.run(run(2)).findings] == [Verdict.OK]
    (finding,) = asyncio.run(run(3)).findings
    assert finding.verdict is Verdict.UNKNOWN


@settings(max_examples=40, deadline=None, print_blob=True)
@given(
    st.sampled_from([KEYS, DELETES, VERSIONS, KINDS, VERSIONS.replace("[n]", "[kind]")]),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.booleans()), min_size=1, max_size=8),
    st.integers(0, 2**32),
)
def test_a_table_that_was_loaded_in_any_order_is_never_called_damaged(options, units, seed):
    """Of each unit: its shard, how many records, and whether everything is loaded after it."""

    async def run():
        rig, begun = await opened(options), {}
        for shard, size, loads in units:
            first = begun.get(shard, 1)
            begun[shard] = first + size
            await rig.sealed.unit(shard, first, size)
            if loads:
                assert await rig.loader().attempt()
        return await check(rig, seed)

    assert not [finding.message for finding in asyncio.run(run()).findings if finding.verdict is not Verdict.OK]


def test_the_sample_has_the_newest_units_and_each_other_as_often_as_any():
    class Unit:
        def __init__(self, number):
            self.stream, self.shard, self.number = "s", f"shard-{number % 2}", number

    counts = dict.fromkeys(range(100), 0)
    for seed in range(2_000):
        sample = merged_rows.Sample(Random(seed))
        for number in range(100):
            sample.add(Unit(number))
        units = sample.units()
        assert len(units) == len({unit.number for unit in units}) == merged_rows.UNITS
        for unit in units:
            counts[unit.number] += 1
    assert counts[98] == counts[99] == 2_000
    others = [counts[number] for number in range(98)]
    assert min(others) > 90
    assert max(others) < 260
