"""Worlds in which every object agrees with itself, and something is wrong nevertheless: what was lost is consistent with what is left."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from stream.audit.chain import LinkKind
from stream.audit.chain_checks import check_unit
from stream.audit.ledger import read_segment
from stream.audit.report import Check, Verdict
from stream.audit.verify import Scope, Verifier
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind, decode, digest
from stream.commit.naming import pipeline_key, tables_key
from stream.contracts import Shard
from tests.sealed import START, Head, Sealed, StillClock, records, sequence, shard_id, three_units
from tests.unit.audit.tampering import keys


def verify(sealed, scope=None, **changes):
    evidence = sealed.evidence()
    for name, value in changes.items():
        setattr(evidence, name, value)
    return asyncio.run(Verifier(evidence, scope or Scope(), StillClock()).run())


def found(report, verdict=Verdict.FAILED):
    """Check, shard, start of the range and message of each finding with that verdict."""
    return [(each.check, each.shard, each.after, each.message) for each in report.findings if each.verdict is verdict]


def only(report, verdict=Verdict.FAILED):
    assert report.verdict is verdict, report.findings
    (finding,) = found(report, verdict)
    return finding


async def remove(store, contained):
    for key in await keys(store, ""):
        if contained in key:
            await store.delete(key)


async def without(sealed, chain, after=None):
    """Remove everything that there is of a chain, or of its unit that begins after ``after``: also all files."""
    name = chain if after is None else f"{chain}-{after}-"
    for target in ("s3", "rejects", "ledger"):
        await remove(sealed.stores.targets[target], f"{name}-" if after is None else name)
    if after is None:
        await remove(sealed.root, f"commits/events/{chain}/")


# --- rewinds -----------------------------------------------------------------------------------------------------------------


def test_a_rewind_into_the_middle_of_a_unit_leaves_records_without_an_outcome():
    async def run():
        sealed = await three_units()
        await sealed.rewind(0, 60)
        for store in ("s3", "rejects"):
            await remove(sealed.stores.targets[store], f"{shard_id(0)}-{sequence(0, 40)}-")
            await remove(sealed.stores.targets[store], f"{shard_id(0)}-{sequence(0, 80)}-")
        await sealed.unit(0, 61, 60)
        return sealed

    report = verify(asyncio.run(run()))
    check, shard, after, message = only(report)
    assert (check, shard, after) == (Check.CHAIN, shard_id(0), str(sequence(0, 120)))
    assert f"goes back to {sequence(0, 60)}, where no unit ends" in message


@pytest.mark.parametrize("target", [0, 40, 80])
def test_a_rewind_that_nobody_has_followed_yet_is_sound(target):
    """Sealed by an operator, and no worker has opened the next generation."""

    async def run():
        sealed = await three_units()
        await sealed.rewind(0, target)
        for store in ("s3", "rejects"):
            for each in range(target, 120, 40):
                await remove(sealed.stores.targets[store], f"{shard_id(0)}-{sequence(0, each) if each else 0}-")
        await remove(sealed.root, f"commits/events/{shard_id(0)}_r1/")
        return sealed

    report = verify(asyncio.run(run()))
    assert report.verdict is Verdict.OK, report.findings
    assert report.records == 50 + target


def test_a_generation_that_is_lost_with_all_of_its_files_is_missed_by_the_checkpoint():
    async def run():
        sealed = await three_units()
        await sealed.rewind(0, 40)
        for store in ("s3", "rejects"):
            for each in (40, 80):
                await remove(sealed.stores.targets[store], f"{shard_id(0)}-{sequence(0, each)}-")
        await sealed.unit(0, 41, 30)
        await without(sealed, f"{shard_id(0)}_r1")
        return sealed

    check, shard, _, message = only(verify(asyncio.run(run())))
    assert (check, shard) == (Check.CHECKPOINT, shard_id(0))
    assert "in generation 1 of the shard, of which the log has no manifest" in message


# --- shards ------------------------------------------------------------------------------------------------------------------


async def resharded():
    """The second shard has ended, and of its two children one was read to its end, and then its child was begun."""
    sealed = await three_units()
    sealed.heads[shard_id(3)] = await opened(sealed, 3, parents=(1,))
    await sealed.unit(3, 1, 10)
    await sealed.end(3, [shard_id(4)])
    sealed.heads[shard_id(4)] = await opened(sealed, 4, parents=(3,))
    await sealed.unit(4, 1, 10)
    return sealed


async def opened(sealed, shard, parents=(), after=0):
    log = CommitLog(sealed.stores.state, "flights", sealed.clock, "worker-1")
    where = Shard("events", shard_id(shard), tuple(map(shard_id, parents)))
    return Head(after, digest((await log.open_chain(where, START, after)).body))


def test_children_that_nobody_has_begun_yet_are_sound():
    sealed = asyncio.run(resharded())
    report = verify(sealed)
    assert (report.verdict, report.records) == (Verdict.OK, 190)


@pytest.mark.parametrize("source", [True, False])
def test_a_lost_child_whose_children_have_begun_cannot_be_proven(source):
    async def run():
        sealed = await resharded()
        await without(sealed, shard_id(3))
        await remove(sealed.root, f"checkpoints/events/{shard_id(3)}")
        return sealed

    report = verify(asyncio.run(run()), Scope(source=source))
    check, shard, _, message = only(report, Verdict.UNKNOWN)
    assert (check, shard) == (Check.CHAIN, shard_id(1))
    assert f"its child {shard_id(3)} has no chain in the log, and shards that continue it have one" in message
    assert verify(asyncio.run(run()), Scope(shard=shard_id(4), source=False)).findings == ()


def test_a_child_that_the_stream_has_dropped_unread_cannot_be_proven():
    sealed = asyncio.run(resharded())
    del sealed.source.frames[shard_id(2)]
    check, shard, _, message = only(verify(sealed), Verdict.UNKNOWN)
    assert (check, shard) == (Check.CHAIN, shard_id(1))
    assert f"its child {shard_id(2)} has no chain in the log, and the stream does not have the shard any more" in message


def test_an_end_that_came_before_the_last_record_is_found():
    sealed = asyncio.run(three_units())
    frames = sealed.source.frames
    frames[shard_id(1)] = pl.concat([frames[shard_id(1)], records(1, 51, 3)])
    check, shard, after, message = only(verify(sealed))
    assert (check, shard, after) == (Check.SOURCE, shard_id(1), str(sequence(1, 50)))
    assert message == f"the stream holds 3 records here, the first {sequence(1, 51)}, of which the log says nothing"
    assert verify(sealed, Scope(shard=shard_id(1), last=sequence(1, 50))).findings == ()


def test_a_shard_that_ended_without_a_unit_although_it_has_records_is_found():
    async def run():
        sealed = await three_units()
        sealed.heads[shard_id(2)] = await opened(sealed, 2, parents=(1,))
        sealed.source.frames[shard_id(2)] = records(2, 1, 4)
        await sealed.end(2)
        return sealed

    check, shard, after, message = only(verify(asyncio.run(run())))
    assert (check, shard, after) == (Check.SOURCE, shard_id(2), "0")
    assert "the stream holds 4 records here" in message


@pytest.mark.parametrize(("begins", "verdict"), [(0, Verdict.FAILED), (sequence(1, 51) + 1, Verdict.UNKNOWN)])
def test_an_ended_shard_that_is_open_in_the_stream_is_found(begins, verdict):
    sealed = asyncio.run(three_units())
    listed = sealed.source.shards

    async def shards():
        return [replace(each, is_open=each.shard_id == shard_id(1), begins=begins) for each in await listed()]

    sealed.source.shards = shards
    check, shard, _, message = only(verify(sealed), verdict)
    assert (check, shard) == (Check.CHAIN, shard_id(1))
    assert ("is not read" if verdict is Verdict.FAILED else "created again") in message


def test_a_chain_that_does_not_begin_with_the_first_record_is_found():
    """Whoever forges a log that begins later must make it from the first link on; the stream contradicts it, as long as it can."""

    async def run():
        sealed = await three_units()
        sealed.heads[shard_id(4)] = await opened(sealed, 4, after=sequence(4, 10))
        await sealed.unit(4, 11, 10)
        sealed.source.frames[shard_id(4)] = pl.concat([records(4, 1, 10), sealed.source.frames[shard_id(4)]])
        return sealed

    check, shard, _, message = only(verify(asyncio.run(run())))
    assert (check, shard) == (Check.CHAIN, shard_id(4))
    assert f"begins after {sequence(4, 10)}, not with the first record" in message


# --- the stream --------------------------------------------------------------------------------------------------------------


def test_more_records_than_the_log_has_are_no_matter_of_age():
    """Records expire; they do not appear. So a unit with one too few is wrong, however old it is."""
    sealed = asyncio.run(three_units())
    extra = records(0, 50, 1).with_columns(_sequence=pl.lit(str(sequence(0, 50) + 1)))
    frame = sealed.source.frames[shard_id(0)]
    sealed.source.frames[shard_id(0)] = pl.concat([frame[:50], extra, frame[50:]])
    report = verify(sealed, horizon=sealed.clock.now())
    assert [each[:3] for each in found(report)] == [(Check.SOURCE, shard_id(0), str(sequence(0, 40)))]


# --- definitions -------------------------------------------------------------------------------------------------------------


def test_a_definition_that_is_missing_or_another_is_found():
    sealed = asyncio.run(three_units())
    (key,) = [each for each in asyncio.run(keys(sealed.stores.state, "pipelines/")) if each.endswith(".yaml")]
    tables = key.replace(".yaml", ".tables.json")
    text = asyncio.run(sealed.stores.state.get(key)).body
    asyncio.run(sealed.stores.state.put(key, text.replace(b"n * 2", b"n * 3")))
    check, shard, after, message = found(verify(sealed))[0]
    assert (check, shard, after) == (Check.SEAL, shard_id(0), "0")
    assert f"{key}, is not the one that was recorded under this name; restore" in message
    asyncio.run(sealed.stores.state.put(key, b"application: 7"))
    assert all(f"{key}, cannot be read" in message for *_, message in found(verify(sealed)))
    asyncio.run(sealed.stores.state.delete(key))
    assert [(shard, f"{key}, is missing" in message) for _, shard, _, message in found(verify(sealed))] == [
        (shard_id(0), True),
        (shard_id(1), True),
    ]
    asyncio.run(sealed.stores.state.put(key, text))
    assert verify(sealed).findings == ()
    asyncio.run(sealed.stores.state.delete(tables))
    assert all(f"{tables}, is missing" in message for *_, message in found(verify(sealed)))


TEXT = """\
application: flights
source:
  kinesis: {stream: events}
  schema: {n: int64, kind: string}
stages:
  - lookup: {table: "file:./kinds.csv", on: kind, take: {word: name}}
sinks:
  - s3: {url: "file:./lake", partition_by: [kind]}
state: "file:./state"
"""


def test_a_reference_table_that_is_missing_or_another_is_found(tmp_path):
    (tmp_path / "kinds.csv").write_text("kind,name\na,one\nb,two\n")

    async def run():
        sealed = await Sealed.open(text=TEXT, base=tmp_path)
        await sealed.unit(0, 1, 5)
        return sealed

    sealed = asyncio.run(run())
    assert verify(sealed).findings == ()
    (key,) = asyncio.run(keys(sealed.stores.state, "reference/"))
    asyncio.run(sealed.stores.state.put(key, b"kind,name\na,two\nb,one\n"))
    assert f"{key}, was changed" in only(verify(sealed))[3]
    asyncio.run(sealed.stores.state.delete(key))
    assert f"{key}, is missing" in only(verify(sealed))[3]


def test_a_definition_of_another_build_is_only_asked_whether_it_is_there():
    """That build may have known other options, with which the definition has another digest."""

    async def run():
        sealed = await Sealed.open()
        sealed.recipe = replace(sealed.recipe, build="0.0.1", digest="0" * 32)
        (key,) = [each for each in await keys(sealed.stores.state, "pipelines/") if each.endswith(".yaml")]
        for made in (pipeline_key, tables_key):
            body = (await sealed.stores.state.get(made(key.split("/")[1].removesuffix(".yaml")))).body
            await sealed.stores.state.put(made("0" * 32), body)
        await sealed.unit(0, 1, 10)
        return sealed

    assert verify(asyncio.run(run())).findings == ()


# --- logs of others ----------------------------------------------------------------------------------------------------------


def test_a_log_that_was_copied_from_another_application_is_found():
    async def run():
        sealed = await Sealed.open(text=TEXT_OF_ANOTHER)
        await sealed.unit(0, 1, 10)
        for key in await keys(sealed.root, "other/"):
            await sealed.root.put(key.replace("other/", "flights/", 1), (await sealed.root.get(key)).body)
        ours = await Sealed.open(state=sealed.root, lake=sealed.stores.targets["s3"])
        ours.source = sealed.source
        return ours

    wrong = found(verify(asyncio.run(run())))
    assert {each[0] for each in wrong} == {Check.CHAIN}
    assert all("of the application other, and this is the log of flights" in each[3] for each in wrong)


TEXT_OF_ANOTHER = """\
application: other
source:
  kinesis: {stream: events}
  schema: {n: int64, kind: string}
sinks:
  - s3: {url: "file:./lake", partition_by: [kind]}
state: "file:./state"
"""


# --- the report --------------------------------------------------------------------------------------------------------------


def test_the_first_thing_that_is_wrong_comes_first():
    """Findings of a shard are in the order of its records, whatever they are and however long their numbers."""

    async def run():
        sealed = await three_units()
        await remove(sealed.stores.targets["s3"], f"{shard_id(0)}-{sequence(0, 80)}-")
        await remove(sealed.stores.targets["ledger"], f"{shard_id(0)}-{sequence(0, 40)}-")
        await remove(sealed.stores.targets["s3"], f"{shard_id(0)}-0-")
        return sealed

    report = verify(asyncio.run(run()))
    starts = [int(each.after) for each in report.findings]
    assert starts == sorted(starts)
    assert set(starts) == {0, sequence(0, 40), sequence(0, 80)}


def test_every_kind_of_link_is_accepted_in_a_log_that_is_sound():
    async def run():
        sealed = await three_units()
        await sealed.gap(0, 130)
        await sealed.unit(0, 131, 10)
        return sealed

    sealed = asyncio.run(run())
    report = verify(sealed)
    assert {each.verdict for each in report.findings} == {Verdict.UNKNOWN}
    kinds = {decode(asyncio.run(sealed.root.get(key)).body, key).kind for key in asyncio.run(keys(sealed.root, "flights/commits/"))}
    assert kinds == {Kind.GENESIS, Kind.UNIT, Kind.GAP, Kind.END}


def test_a_shard_that_ended_because_its_records_had_expired_cannot_be_proven():
    """A closed shard that holds no records any more is ended without a gap: nothing says where one would end."""

    async def run():
        sealed = await three_units()
        await sealed.unit(3, 1, 10)
        where = Shard("events", shard_id(3))
        await sealed.committer.end(where, sealed.heads[shard_id(3)], (), trigger="expired")
        return sealed

    check, shard, after, message = only(verify(asyncio.run(run())), Verdict.UNKNOWN)
    assert (check, shard, after) == (Check.CHAIN, shard_id(3), str(sequence(3, 10)))
    assert "expired in the stream before they were read" in message


def test_clocks_of_workers_that_differ_prove_nothing_and_disprove_nothing():
    async def run():
        sealed = await three_units()
        for number, hours in enumerate((-30, 50, -9)):
            sealed.clock.time += timedelta(hours=hours)
            await sealed.unit(0, 121 + 10 * number, 10)
        return sealed

    assert verify(asyncio.run(run())).findings == ()


@pytest.mark.parametrize(("more", "says"), [(1, "more"), (-1, "fewer")])
def test_a_ledger_that_places_another_number_of_rows_than_its_files_hold_is_a_problem(more, says):
    async def run():
        sealed = await three_units()
        (link, *_) = [each for each in (await sealed.evidence().log(shard_id(0))).links if each.kind is LinkKind.UNIT]
        return link, read_segment((await sealed.stores.targets["ledger"].get(link.ledger.key)).body)

    link, segment = asyncio.run(run())
    assert check_unit(link, segment) == []
    first = pl.int_range(pl.len()) == segment.frame["dest_0"].is_not_null().arg_true()[0]
    placed = int(segment.frame["dest_0"].is_not_null().sum())
    rows = segment.frame.with_columns(rows=pl.when(first).then(pl.col("rows") + (1 if more > 0 else 0)).otherwise("rows"))
    if more < 0:
        rows = segment.frame.with_columns(dest_0=pl.when(first).then(None).otherwise("dest_0"))
    messages = [each.message for each in check_unit(link, replace(segment, rows=rows))]
    assert f"the ledger places {placed + more} rows in s3, but its objects hold {placed}" in messages, says
