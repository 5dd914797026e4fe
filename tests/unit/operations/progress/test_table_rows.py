"""Rows of a table compared with the log: a table in memory, loaded by the production loader from units that production code sealed."""

import asyncio
from pathlib import Path
from random import Random

from stream.audit.report import Check, Verdict
from stream.errors import Fatal
from stream.operations.progress.table_rows import count
from stream.worker.recipes.definitions import Definitions
from tests.contract.warehouse import MemoryWarehouse
from tests.sealed import sequence, shard_id
from tests.unit.worker.tables.test_loading import LIFE, Rig


async def loaded(options=""):
    rig = await Rig.open(options)
    await rig.sealed.unit(0, 1, 40)
    await rig.sealed.unit(0, 41, 40)
    await rig.sealed.unit(1, 1, 25)
    assert await rig.loader().attempt()
    return rig


async def check(rig, parts=None):
    definitions = Definitions(rig.sealed.stores.state, Path(), {}, rig.sealed.clock)
    return await count(parts or [rig.loader().parts], rig.sealed.log, definitions, rig.sealed.stores.targets["ledger"], Random(7))


def test_a_table_with_every_loaded_row_is_sound_whatever_waits():
    async def run():
        rig = await loaded()
        await rig.sealed.unit(1, 26, 25)  # sealed and not loaded
        return await check(rig), len(rig.warehouse.rows)

    result, rows = asyncio.run(run())
    assert (result.findings, result.rows) == ([], rows)
    assert rows > 0


def test_rows_that_were_deleted_are_missed_in_their_shard():
    async def run():
        rig = await loaded()
        before = len([row for row in rig.warehouse.rows if row["_shard"] == shard_id(0)])
        gone = next(row for row in rig.warehouse.rows if row["_shard"] == shard_id(0))
        rig.warehouse.rows.remove(gone)
        return await check(rig), before

    result, before = asyncio.run(run())
    (finding,) = result.findings
    assert (finding.verdict, finding.check, finding.shard, finding.object) == (Verdict.FAILED, Check.TABLES, shard_id(0), "events")
    assert (finding.after, finding.last) == ("0", str(sequence(0, 80)))
    assert f"has {before - 1} rows of this shard, but {before} were loaded: 1 or more were deleted" in finding.message


def test_rows_of_somebody_else_are_too_many():
    async def run():
        rig = await loaded()
        rows = len(rig.warehouse.rows)
        rig.warehouse.rows += [dict(row) for row in rig.warehouse.rows[:3]]
        return await check(rig), rows

    result, rows = asyncio.run(run())
    (finding,) = result.findings
    assert (finding.verdict, finding.check) == (Verdict.FAILED, Check.TABLES)
    assert f"the table has {rows + 3} rows of the shards of events, but only {rows} were loaded by this application" in finding.message


def test_rows_with_other_shards_are_not_ours():
    async def run():
        rig = await loaded()
        rig.warehouse.rows.append({"_shard": "others/shardId-000000000000"})
        return await check(rig)

    assert asyncio.run(run()).findings == []


def test_rows_of_which_some_were_appended_before_others_were_merged_are_not_counted_and_the_report_says_so():
    async def run():
        rig = await loaded()
        await rig.redefine("      mode: upsert\n      keys: [n]\n")
        await rig.sealed.unit(1, 26, 25)
        assert await rig.loader().attempt()
        return await check(rig)

    (finding,) = asyncio.run(run()).findings
    assert (finding.verdict, finding.check) == (Verdict.OK, Check.TABLES)
    assert "were not counted: they lack the column _shard, or some are merged by key and others not" in finding.message


def test_rows_that_were_sealed_for_the_table_before_it_under_the_name_are_expected_where_they_were_loaded():
    async def run():
        rig = await loaded()
        rows = len(rig.warehouse.rows)
        rig.warehouse = MemoryWarehouse(rig.staging, rig.sealed.clock)
        await rig.redefine(table="others")
        await rig.sealed.unit(1, 26, 25)
        assert await rig.loader("two", table="others").attempt() is True
        rig.sealed.clock.time += LIFE
        assert await rig.loader("two", table="others").attempt()
        assert len(rig.warehouse.rows) > rows
        return await check(rig, [rig.loader(table="others").parts]), len(rig.warehouse.rows)

    result, rows = asyncio.run(run())
    assert (result.findings, result.rows) == ([], rows)


def test_a_table_that_was_loaded_from_another_log_is_found():
    async def run():
        rig = await loaded()
        rig.warehouse.ledger.append((shard_id(0), sequence(0, 80), sequence(0, 97), rig.sealed.clock.now()))
        return await check(rig)

    (finding,) = asyncio.run(run()).findings
    assert finding.verdict is Verdict.FAILED
    assert f"the table is loaded up to {sequence(0, 97)} of events/{shard_id(0)}, but no unit" in finding.message


def test_a_table_that_does_not_answer_cannot_be_proven():
    async def run():
        rig = await loaded()

        async def refuse():
            raise Fatal("access denied")

        rig.warehouse.row_counts = refuse
        return await check(rig)

    (finding,) = asyncio.run(run()).findings
    assert finding.verdict is Verdict.UNKNOWN
    assert "could not be compared with the log: access denied" in finding.message


def test_rows_are_counted_again_if_a_loader_adds_some_meanwhile():
    async def run(times):
        rig = await loaded()
        counts, asked = rig.warehouse.row_counts, []

        async def counted():
            found = await counts()
            if len(asked) < times:
                asked.append(1)
                await rig.sealed.unit(1, 26 + 5 * len(asked), 5)
                assert await rig.loader().attempt()
            return found

        rig.warehouse.row_counts = counted
        return await check(rig)

    assert asyncio.run(run(2)).findings == []
    (finding,) = asyncio.run(run(3)).findings
    assert finding.verdict is Verdict.UNKNOWN
    assert "a loader added rows each time" in finding.message
