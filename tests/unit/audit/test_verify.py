"""Every deleted, duplicated, moved or edited object must be found, with its shard."""

import asyncio
import json

import msgspec
import polars as pl
import pytest

from stream.audit.report import EXIT, Check, Verdict
from stream.audit.verify import Scope, Verifier
from stream.commit.manifest import State, decode, encode, with_seal
from stream.errors import Halted
from stream.lease.checkpoints import StoredCheckpoints
from stream.storage.memory import MemoryStore
from tests.sealed import Sealed, StillClock, another, sequence, shard_id, superseding, three_units
from tests.unit.audit.tampering import CASES, KINDS, OF_OBJECTS, edited, keys, on_object, report_on, store_of


def verify(sealed, scope=None, repair=False):
    return asyncio.run(Verifier(sealed.evidence(), scope or Scope(), StillClock()).run(repair=repair))


def objects(kind):
    """The keys of all objects of one kind in the small application, in a fixed order."""

    async def collect():
        sealed = await three_units()
        return await keys(*store_of(sealed, kind))

    return asyncio.run(collect())


OBJECTS = [(kind, key) for kind in KINDS for key in objects(kind)]


def test_the_sample_application_has_objects_of_every_kind():
    counts = {kind: sum(1 for each, _ in OBJECTS if each == kind) for kind in KINDS}
    assert counts["data file"] == 10
    assert counts["ledger file"] == 5
    assert counts["manifest"] == 8
    assert counts["checkpoint"] == 2
    assert counts["rejects file"] >= 4


@pytest.mark.parametrize("how", OF_OBJECTS)
@pytest.mark.parametrize(("kind", "key"), OBJECTS, ids=lambda value: value.split("/")[-1][-48:])
def test_every_damaged_object_is_found(kind, key, how):
    report = asyncio.run(report_on(on_object(kind, how, key)))
    assert report.verdict is Verdict.FAILED
    shard = next(shard_id(n) for n in range(2) if shard_id(n) in key)
    assert any(finding.shard == shard and finding.after for finding in report.findings), report.findings


@pytest.mark.parametrize("case", [case for case in CASES if " row " in case])
def test_every_changed_row_is_found(case):
    """Even if all checksums and seals were corrected after the change, except for what only the stream can show."""
    report = asyncio.run(report_on(CASES[case]))
    if case in UNSEEN:
        assert report.verdict is Verdict.OK, "take it out of the list of what cannot be seen"
        return
    assert report.verdict is Verdict.FAILED
    assert any(finding.shard and finding.after for finding in report.findings), report.findings


UNSEEN = {"ledger row edited, chain sealed again"}
"""Arrival times are only in the ledger, so somebody who can rewrite the whole chain can change them."""


def test_a_sound_log_has_no_findings_and_correct_totals():
    report = verify(asyncio.run(three_units()))
    assert report.findings == ()
    assert EXIT[report.verdict] == 0
    assert report.records == 170
    assert sum(report.outcomes.values()) == 170
    assert [(shard.units, shard.ended) for shard in report.shards] == [(3, False), (2, True)]
    assert report.checked[Check.SOURCE] == 170
    assert report.checked[Check.CONSERVATION] == 170


@pytest.mark.parametrize("field", ["worker", "created_at", "records", "last", "pipeline", "trigger", "subsequence"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_edit_of_any_field_of_any_manifest_is_found(field, which):
    async def run():
        sealed = await three_units()
        key = (await keys(sealed.root, f"flights/commits/events/{shard_id(0)}/0"))[which]
        manifest = decode((await sealed.root.get(key)).body, key)
        value = getattr(manifest, field)
        changed = value + 1 if isinstance(value, int) else str(int(value) - 1) if field == "last" else value + "x"
        await sealed.root.put(key, encode(msgspec.structs.replace(manifest, **{field: changed})))
        return await Verifier(sealed.evidence(), Scope(), StillClock()).run()

    report = asyncio.run(run())
    assert any(finding.check is Check.SEAL and finding.shard == shard_id(0) and finding.after for finding in report.findings)


def test_an_edit_with_a_new_seal_breaks_the_next_link():
    async def run():
        sealed = await three_units()
        key = (await keys(sealed.root, f"flights/commits/events/{shard_id(0)}/0"))[1]
        manifest = decode((await sealed.root.get(key)).body, key)
        await sealed.root.put(key, encode(with_seal(msgspec.structs.replace(manifest, worker="nobody"))))
        return await Verifier(sealed.evidence(), Scope(), StillClock()).run()

    assert [finding.check for finding in asyncio.run(run()).findings] == [Check.SEAL]


@pytest.mark.parametrize("change", ["lost", "doubled", "other"])
def test_a_difference_from_the_stream_is_found(change):
    sealed = asyncio.run(three_units())
    frame = sealed.source.frames[shard_id(0)]
    if change == "lost":
        changed = pl.concat([frame[:50], frame[51:]])
    elif change == "doubled":
        changed = pl.concat([frame[:50], frame[49:]])
    else:
        changed = frame.with_columns(
            _sequence=pl.when(pl.int_range(pl.len()) == 50).then(pl.lit(str(sequence(0, 51) + 1))).otherwise("_sequence")
        )
    sealed.source.frames[shard_id(0)] = changed
    report = verify(sealed)
    assert [(finding.check, finding.after) for finding in report.findings] == [(Check.SOURCE, str(sequence(0, 40)))]
    assert verify(sealed, Scope(source=False)).findings == ()


def test_records_the_stream_has_dropped_by_age_are_unknown_and_not_wrong():
    sealed = asyncio.run(three_units())
    sealed.source.frames[shard_id(0)] = sealed.source.frames[shard_id(0)][60:]
    evidence = sealed.evidence()
    evidence.horizon = sealed.clock.now()
    report = asyncio.run(Verifier(evidence, Scope(), StillClock()).run())
    (finding,) = report.findings
    assert (finding.verdict, finding.after, finding.last) == (Verdict.UNKNOWN, "0", str(sequence(0, 80)))
    assert finding.message.endswith("(2 units)")
    assert EXIT[report.verdict] == 2


def test_a_shard_missing_from_the_stream_is_unknown():
    sealed = asyncio.run(three_units())
    del sealed.source.frames[shard_id(1)]
    (finding,) = verify(sealed).findings
    units = next(each.units for each in verify(sealed).shards if each.shard == shard_id(1))
    assert (finding.shard, finding.verdict, finding.after) == (shard_id(1), Verdict.UNKNOWN, "0")
    assert units > 1
    assert finding.message.endswith(f"({units} units)")


def test_checkpoints_of_a_run_without_leases_are_not_damage_beside_a_lease_table():
    """`run --once` keeps its checkpoints in the state, and they stay there; a lease table drops a shard once its children are read."""

    async def run():
        sealed = await three_units()
        table = MemoryStore()
        key = f"checkpoints/events/{shard_id(0)}.json"
        await table.put(key, (await sealed.stores.state.get(key)).body)
        evidence = sealed.evidence()
        evidence._checkpoints, evidence.deletes_ended_checkpoints = StoredCheckpoints(table), True
        return await Verifier(evidence, Scope(source=False), sealed.clock).run()

    assert asyncio.run(run()).findings == ()


def test_a_checkpoint_one_unit_behind_is_unknown_since_it_may_be_a_crash():
    async def run():
        sealed = await three_units()
        key = f"flights/checkpoints/events/{shard_id(0)}.json"
        row = {"position": str(sequence(0, 80)), "subsequence": 0, "unit_after": str(sequence(0, 40))}
        await sealed.root.put(key, json.dumps(row).encode())
        return sealed

    report = verify(asyncio.run(run()))
    assert [(finding.check, finding.verdict) for finding in report.findings] == [(Check.CHECKPOINT, Verdict.UNKNOWN)]


def test_a_row_that_does_not_carry_its_record_is_found():
    """The ledger, the manifest and all checksums agree with each other, but the file contains other records."""

    async def run():
        sealed = await three_units()
        swapped = sealed.recipe.sinks[0]

        class Swapping:
            name = swapped.name

            def encode(self, frame, unit):
                encoded = swapped.encode(frame, unit)
                placement = encoded.placement
                first = placement.filter(pl.col("file") == 0)
                turned = first.with_columns(line=pl.col("line").reverse())
                return type(encoded)(encoded.files, pl.concat([turned, placement.filter(pl.col("file") > 0)]))

        sealed.recipe = type(sealed.recipe)(
            sealed.recipe.application, sealed.recipe.digest, sealed.recipe.build, sealed.recipe.chain, (Swapping(),)
        )
        await sealed.unit(0, 121, 40)
        return sealed

    report = verify(asyncio.run(run()))
    assert [finding.check for finding in report.findings] == [Check.OBJECTS]
    assert "other records" in report.findings[0].message


def test_a_repair_removes_superseded_files_and_nothing_else():
    async def run():
        sealed = await three_units()
        lake = sealed.stores.targets["s3"]
        listed = await keys(lake, "")
        last = (await keys(sealed.root, f"flights/commits/events/{shard_id(0)}/0"))[-1]
        leftover = another(listed[0])
        await sealed.root.put(last, superseding((await sealed.root.get(last)).body, leftover))
        # Another pipeline over the same stream cuts units at the same records.
        anothers = leftover.replace("0" * 16, "1" * 16)
        foreign = [*(f"kind=a/other-{n}.parquet" for n in range(2)), listed[0].replace("-000000000000-", "-000000000009-"), anothers]
        for key in (leftover, *foreign):
            await lake.put(key, b"x")
        report = await Verifier(sealed.evidence(), Scope(), StillClock()).run(repair=True)
        return report, await keys(lake, ""), listed, foreign, leftover

    report, after, listed, foreign, leftover = asyncio.run(run())
    assert sorted(after) == sorted([*listed, *foreign])
    assert [url.endswith(leftover) for url in report.removed] == [True]
    assert {finding.object.removeprefix("memory:lake/") for finding in report.findings} == set(foreign)
    assert [finding.object for finding in report.findings if "whether another pipeline writes here" in finding.message] == [
        f"memory:lake/{foreign[-1]}"
    ]


def test_files_of_a_unit_in_flight_are_not_leftovers():
    async def run():
        sealed = await three_units()
        key = (await keys(sealed.root, f"flights/commits/events/{shard_id(0)}/0"))[-1]
        sealed_manifest = decode((await sealed.root.get(key)).body, key)
        intent = msgspec.structs.replace(sealed_manifest, state=State.INTENT, sealed_by="", sealed_at="", seal="")
        await sealed.root.put(key, encode(intent))
        row = {"position": str(sequence(0, 80)), "subsequence": 0, "unit_after": str(sequence(0, 40))}
        await sealed.root.put(f"flights/checkpoints/events/{shard_id(0)}.json", json.dumps(row).encode())
        return await Verifier(sealed.evidence(), Scope(), StillClock()).run(repair=True)

    report = asyncio.run(run())
    assert report.findings == ()
    assert report.removed == ()
    assert report.shards[0].open_unit


def test_a_child_that_began_before_its_parent_ended_is_found():
    async def run():
        sealed = await three_units()
        from stream.commit.log import CommitLog
        from stream.contracts import Shard, Start, StartKind

        log = CommitLog(sealed.stores.state, "flights", sealed.clock, "w")
        await log.open_chain(Shard("events", shard_id(7), (shard_id(0),)), Start(StartKind.TRIM_HORIZON))
        return sealed

    report = verify(asyncio.run(run()), Scope(source=False))
    assert [(finding.shard, finding.check) for finding in report.findings] == [(shard_id(7), Check.CHAIN)]


def test_only_units_in_the_range_are_read():
    async def run():
        sealed = await three_units()
        for info in await keys(sealed.stores.targets["s3"], ""):
            if f"-{sequence(0, 40)}-" in info:
                await edited(sealed.stores.targets["s3"], info)
        return sealed

    sealed = asyncio.run(run())
    assert verify(sealed, Scope(shard=shard_id(1))).findings == ()
    assert verify(sealed, Scope(after=sequence(0, 80))).findings == ()
    assert len(verify(sealed, Scope(after=sequence(0, 79))).findings) == 2
    assert verify(sealed, Scope(contents=False, source=False)).findings == ()


async def rewound():
    """The first shard was rewound from its fifth unit to its second, and has committed two more since."""
    sealed = await three_units()
    for first in (121, 161):
        await sealed.unit(0, first, 40)
    await sealed.rewind(0, 80)
    for first in (81, 131):
        await sealed.unit(0, first, 50)
    return sealed


@pytest.mark.parametrize("contents", [True, False])
@pytest.mark.parametrize("n", [1, 40, 41, 80, 81, 120, 130, 131, 179, 180, 181, 200, 500])
def test_a_sound_log_is_sound_from_any_position_on(n, contents):
    sealed = asyncio.run(rewound())
    report = verify(sealed, Scope(after=sequence(0, n), contents=contents, source=False))
    assert {finding.verdict for finding in report.findings} <= {Verdict.OK}
    assert report.shards[1].last == str(sequence(0, 180))


def test_nothing_before_the_range_is_read():
    async def run():
        sealed = await three_units()
        for first in range(121, 301, 10):
            await sealed.unit(0, first, 10)
        (manifest, *_) = await keys(sealed.root, f"flights/commits/events/{shard_id(0)}/0")
        await sealed.root.delete(manifest)
        for name in ("ledger", "s3"):
            for key in await keys(sealed.stores.targets[name], ""):
                if f"{shard_id(0)}-0-" in key:
                    await sealed.stores.targets[name].delete(key)
        return sealed

    sealed = asyncio.run(run())
    assert {finding.check for finding in verify(sealed).findings} >= {Check.CHAIN}
    report = verify(sealed, Scope(shard=shard_id(0), after=sequence(0, 255)))
    assert (report.findings, report.shards[0].units) == ((), 6)
    assert report.checked[Check.OBJECTS] <= 5 * 4


def unlisted_files(sealed, scope):
    return sum("no manifest lists this file" in finding.message for finding in verify(sealed, scope).findings)


def test_an_unlisted_file_is_found_in_its_range_only():
    async def run():
        sealed = await three_units()
        lake = sealed.stores.targets["s3"]
        key = next(key for key in await keys(lake, "") if f"{shard_id(0)}-{sequence(0, 40)}-" in key)
        await lake.put(f"{key[: key.rindex('.', 0, -10)]}.{'0' * 16}.parquet", b"left over")
        return sealed

    sealed = asyncio.run(run())
    assert unlisted_files(sealed, Scope(after=sequence(0, 79))) == 1
    assert unlisted_files(sealed, Scope(shard=shard_id(0))) == 1
    assert unlisted_files(sealed, Scope(after=sequence(0, 80))) == 0
    assert unlisted_files(sealed, Scope(shard=shard_id(1))) == 0


def test_an_unreadable_stream_is_unknown():
    sealed = asyncio.run(three_units())

    async def refuse(shard, after, start, until=None):
        raise Halted("records before the checkpoint are gone")
        yield

    sealed.source.read = refuse
    report = verify(sealed)
    assert {finding.verdict for finding in report.findings} == {Verdict.UNKNOWN}


@pytest.mark.parametrize("contents", [True, False])
def test_units_are_checked_where_the_sink_was_when_they_were_sealed(contents):
    async def run(tamper):
        sealed = await three_units()
        sealed.move("memory:elsewhere")
        await sealed.unit(0, 121, 40)
        former = sealed.places["memory:lake"]
        if tamper:
            await former.delete(next(iter(await keys(former, ""))))
        return await Verifier(sealed.evidence(), Scope(contents=contents), StillClock()).run()

    assert asyncio.run(run(tamper=False)).findings == ()
    (finding,) = asyncio.run(run(tamper=True)).findings
    assert (finding.check, finding.verdict, finding.shard) == (Check.OBJECTS, Verdict.FAILED, shard_id(0))
    assert finding.object.startswith("memory:lake/")


def test_files_moved_together_with_the_sink_are_found_at_the_new_place():
    async def run():
        sealed = await three_units()
        sealed.move("memory:elsewhere")
        for key in await keys(sealed.places["memory:lake"], ""):
            await sealed.stores.targets["s3"].put(key, (await sealed.places["memory:lake"].get(key)).body)
            await sealed.places["memory:lake"].delete(key)
        return await Verifier(sealed.evidence(), Scope(), StillClock()).run()

    assert asyncio.run(run()).findings == ()


def test_a_new_application_is_sound():
    assert verify(asyncio.run(Sealed.open())).findings == ()


class RunningApplication:
    """Evidence about a running application: whenever the chain of the first shard has been read, another unit is sealed."""

    def __init__(self, sealed):
        self._sealed = sealed
        self._evidence = sealed.evidence()
        self._at = 121

    def __getattr__(self, name):
        return getattr(self._evidence, name)

    async def unit(self):
        await self._sealed.unit(0, self._at, 5)
        self._at += 5

    async def log(self, shard, after=0):
        log = await self._evidence.log(shard, after)
        if shard == shard_id(0):
            await self.unit()
        return log


@pytest.mark.parametrize("contents", [True, False])
def test_an_application_that_continues_during_the_audit_is_sound(contents):
    async def run():
        evidence = RunningApplication(await three_units())
        shards = evidence.shards

        async def listed():
            # What is sealed after the files were listed is in the log, which is read next.
            await evidence.unit()
            return await shards()

        evidence.shards = listed
        return await Verifier(evidence, Scope(contents=contents), StillClock()).run()

    report = asyncio.run(run())
    assert report.findings == ()
    assert report.shards[0].units == 4
