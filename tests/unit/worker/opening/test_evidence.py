"""Files of other chains that write to the same places."""

import asyncio

import pytest

from stream.audit.verify import Scope, Verifier
from stream.commit.log import CommitLog
from stream.commit.manifest import FileEntry, Kind, Manifest, State, encode, with_seal
from stream.commit.naming import manifest_key
from stream.contracts import Shard
from stream.lease.native import TableCheckpoints
from stream.storage.memory import MemoryStore
from stream.worker.opening.evidence import StoredEvidence
from tests.sealed import StillClock, shard_id, three_units
from tests.unit.lease.tables import FakeClock, MemoryDynamo, lease, table_on

SHARD = shard_id(0)


class Counting(MemoryStore):
    def __init__(self):
        super().__init__()
        self.calls = 0

    async def get(self, key):
        self.calls += 1
        return await super().get(key)

    async def list(self, prefix, after=""):
        self.calls += 1
        async for info in super().list(prefix, after):
            yield info


def name(after, last, part=0):
    return f"kind={part}/{SHARD}-{after}-{last}.{part}.{'0' * 16}.parquet"


async def unit(store, stream, after, last):
    files = tuple(FileEntry("s3", name(after, last, part), 1, 1, "0" * 64) for part in range(5))
    manifest = Manifest(Kind.UNIT, State.SEALED, "app", stream, SHARD, after=str(after), last=str(last), files=files)
    await store.create(manifest_key(stream, SHARD, after), encode(with_seal(manifest)))


def test_each_manifest_is_read_once_however_many_chains_and_files_there_are():
    async def run():
        store = Counting()
        for chain in range(20):
            for n in range(30):
                await unit(store, f"backfill.events.{chain:02d}", 1000 * chain + n, 1000 * chain + n + 1)
        evidence = StoredEvidence(CommitLog(store, "app", StillClock(), "audit"), {}, None, "events")
        found = [
            await evidence.of_another_stream("s3", name(1000 * chain + n, 1000 * chain + n + 1, part))
            for part in range(5)
            for chain in range(20)
            for n in range(30)
        ]
        strange = [await evidence.of_another_stream("s3", name(1000 * chain + n, 10**6, 3)) for chain in range(20) for n in range(60)]
        return all(found), any(strange), store.calls

    assert asyncio.run(run()) == (True, False, 20 + 20 * 30)


def test_only_leftovers_of_the_own_chain_are_reported_beside_other_chains():
    async def run():
        sealed = await three_units()
        lake, ledger = sealed.stores.targets["s3"], sealed.stores.targets["ledger"]
        key = next([info.key async for info in lake.list("")].__iter__())
        await lake.put(f"{key.rsplit('.', 2)[0]}.{'0' * 16}.parquet", b"made for a unit of this chain")
        await lake.put("somebody/elses", b"of the other chain, as far as this one knows")
        await ledger.put("events/junk", b"where nobody else writes")
        evidence = sealed.evidence()
        evidence.shares_places = True
        return await Verifier(evidence, Scope(source=False), StillClock()).run()

    report = asyncio.run(run())
    of_the_unit, junk = sorted(finding.object for finding in report.findings)
    assert ("0" * 16 in of_the_unit, junk) == (True, "memory:state/flights/ledger/v1/events/junk")


@pytest.mark.parametrize(
    ("row", "reported"),
    [
        ({"leaseKey": {"S": SHARD}, "leaseCounter": {"S": "x"}}, "lease row 'shardId-000000000000' is not as KCL writes it: checkpoint"),
        ({"leaseKey": {"S": SHARD}}, "lease row 'shardId-000000000000': it has no leaseCounter"),
        (None, "there is no checkpoint, although the log is sealed"),
    ],
)
def test_an_unreadable_lease_row_is_reported_and_not_taken_for_a_missing_one(row, reported):
    async def run():
        sealed, dynamo = await three_units(), MemoryDynamo()
        if row is not None:
            dynamo.items[SHARD] = row
        table = TableCheckpoints(table_on(dynamo, FakeClock()), "")
        evidence = StoredEvidence(
            sealed.log, sealed.stores.areas(sealed.root.url, "events"), table, "events", deletes_ended_checkpoints=True
        )
        evidence.damage = table.damage
        report = await Verifier(evidence, Scope(source=False), StillClock()).run()
        return [finding.message for finding in report.findings if finding.shard == SHARD]

    (message,) = asyncio.run(run())
    assert reported in message
    assert ("nobody reads the shard" in message and "delete it while no worker runs" in message) is (row is not None)


def test_a_readable_lease_row_has_no_damage():
    async def run():
        dynamo = MemoryDynamo()
        table = table_on(dynamo, FakeClock())
        await table.create(lease(SHARD))
        checkpoints = TableCheckpoints(table, "")
        return await checkpoints.damage(Shard("events", SHARD)), await checkpoints.damage(Shard("events", "none"))

    assert asyncio.run(run()) == ("", "")
