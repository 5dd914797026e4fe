"""What `stream trace` and `stream audit verify` say of records whose files were compacted, and deleted, and of damage to the result."""

import asyncio
import hashlib
import io
from dataclasses import replace
from datetime import timedelta

import msgspec
import polars as pl
import pytest

from stream.audit.report import Check, Verdict
from stream.audit.trace import RecordQuery
from stream.audit.verify import Scope, Verifier
from stream.batch import SEQUENCE
from stream.commit import compaction as compactions
from stream.commit.compaction import Catalogue
from stream.operations.compaction.compactor import Compactor
from stream.operations.compaction.sources_removal import delete_sources
from stream.operations.records.tracing import Tracer
from stream.storage.memory import MemoryStore
from tests.sealed import sequence, shard_id, three_units
from tests.unit.operations.compaction.test_compactor import LATER, Killed, compact, compactor, killing, links, rows


class Application:
    """A sealed application whose files were compacted, and perhaps deleted."""

    def __init__(self, *, size=6000, deleted=False):
        self.sealed = asyncio.run(three_units())
        self.large = MemoryStore(url="memory:large")
        self.sealed.places["memory:large"] = self.large
        compact(self.sealed, self.large, size=size)
        if deleted:
            self.sealed.clock.time += timedelta(days=8)
            asyncio.run(delete_sources(compactor(self.sealed, self.large), timedelta(days=7)))
            assert rows(self.small)[0] is None

    @property
    def small(self):
        return self.sealed.stores.targets["s3"]

    @property
    def state(self):
        return self.sealed.stores.state

    def verify(self, **scope):
        report = asyncio.run(Verifier(self.sealed.evidence(), Scope(**scope), self.sealed.clock).run())
        return report.verdict, [(each.check, each.message, each.object) for each in report.findings]

    def find(self, text):
        tracer = Tracer(self.sealed.log, "events", self.sealed.stores.areas(self.sealed.root.url, "events"))
        return [fate for _, fate in asyncio.run(tracer.find(RecordQuery.parse(text)))]

    def find_row(self, url, row):
        tracer = Tracer(self.sealed.log, "events", self.sealed.stores.areas(self.sealed.root.url, "events"))
        return [fate for _, fate in asyncio.run(tracer.find_row(url, row))]


@pytest.fixture(params=[False, True], ids=["kept", "deleted"])
def application(request):
    return Application(deleted=request.param)


def test_a_compacted_application_is_sound(application):
    assert application.verify() == (Verdict.OK, [])
    assert application.verify(contents=False) == (Verdict.OK, [])
    assert application.verify(shard=shard_id(1)) == (Verdict.OK, [])
    assert application.verify(after=sequence(0, 41)) == (Verdict.OK, [])


def test_every_written_record_is_traced_to_its_row_of_a_compacted_file(application):
    _, files = rows(application.large)
    traced = 0
    for shard, last in ((0, 120), (1, 50)):
        for n in range(1, last + 1):
            (fate,) = application.find(f"{shard_id(shard)}:{sequence(shard, n)}")
            if fate.outcome != "written":
                assert all(place.compacted is None for place in fate.places)
                continue
            (place,) = fate.places
            there = files[place.compacted.url.removeprefix("memory:large/")]
            assert there[SEQUENCE][place.compacted.row] == str(sequence(shard, n))
            assert application.find_row(place.compacted.url, place.compacted.row) == [fate]
            traced += 1
    assert traced == sum(frame.height for frame in files.values()) > 100


def test_a_row_beyond_a_compacted_file_is_of_no_record(application):
    url = f"memory:large/{links(application.sealed)[0].compaction.outputs[0].key}"
    assert application.find_row(url, 10_000) == []


def test_what_is_not_compacted_yet_is_traced_to_its_own_file_alone():
    application = Application()
    asyncio.run(application.sealed.unit(0, 121, 40))
    (fate,) = application.find(str(sequence(0, 124)))
    assert [place.compacted for place in fate.places] == [None]
    assert application.verify() == (Verdict.OK, [])


def test_a_compaction_that_was_begun_is_no_damage():
    application = Application(size=2**20)
    asyncio.run(application.sealed.unit(0, 121, 40))
    with pytest.raises(Killed):
        compact(application.sealed, application.large, act=killing(1, done=True))
    assert application.verify() == (Verdict.OK, [])
    (fate,) = application.find(str(sequence(0, 124)))
    assert fate.places[0].compacted is None


def first(application):
    return links(application.sealed)[0].compaction


def rewrite(application, change):
    """Replace the first compacted file by one with other rows."""
    key = first(application).outputs[0].key

    async def run():
        frame = pl.read_parquet(io.BytesIO((await application.large.get(key)).body))
        out = io.BytesIO()
        change(frame).write_parquet(out)
        await application.large.put(key, out.getvalue())

    asyncio.run(run())


def edit(application, change, *, seal=False):
    """Replace the first compaction's record by an edited one; with ``seal``, with a correct seal."""
    link = links(application.sealed)[0]
    edited = change(link.compaction)
    body = compactions.encode(compactions.sealed(edited) if seal else edited)
    asyncio.run(application.state.put(link.key, body))


def forged(application, change):
    """Rewrite the last compacted file and its record, seal included: nothing in the dataset contradicts itself."""
    link = links(application.sealed)[-1]
    (output,) = link.compaction.outputs

    async def run():
        frame = change(pl.read_parquet(io.BytesIO((await application.large.get(output.key)).body)))
        out = io.BytesIO()
        frame.write_parquet(out)
        body = out.getvalue()
        sha256 = hashlib.sha256(body).hexdigest()
        key = compactions.output_key(link.compaction, 0, sha256)
        await application.large.delete(output.key)
        await application.large.put(key, body)
        now = msgspec.structs.replace(output, key=key, size=len(body), sha256=sha256)
        sealed = compactions.sealed(msgspec.structs.replace(link.compaction, outputs=(now,)))
        await application.state.put(link.key, compactions.encode(sealed))

    asyncio.run(run())


def delete(application):
    asyncio.run(application.large.delete(first(application).outputs[0].key))


def truncate(application):
    key = first(application).outputs[0].key
    body = asyncio.run(application.large.get(key)).body
    asyncio.run(application.large.put(key, body[:-1]))


def double(application):
    key = first(application).outputs[0].key
    body = asyncio.run(application.large.get(key)).body
    asyncio.run(application.large.put(key.replace(".00000001.", ".00000009."), body))


def junk(application):
    asyncio.run(application.large.put("kind=a/part-0000.parquet", b"x"))


def swap(frame):
    return pl.concat([frame.slice(1, 1), frame.head(1), frame.slice(2)])


def fewer(compaction):
    return msgspec.structs.replace(compaction, sources=compaction.sources[1:])


def elsewhere(compaction):
    return msgspec.structs.replace(compaction, url="memory:other")


def drop_record(application):
    asyncio.run(application.state.delete(links(application.sealed)[0].key))


def drop_last_record(application):
    asyncio.run(application.state.delete(links(application.sealed)[-1].key))


def copy_record(application):
    one, *_, other = links(application.sealed)
    asyncio.run(application.state.put(other.key, one.body))


def garble(application):
    asyncio.run(application.state.put(links(application.sealed)[0].key, b"{"))


DAMAGE = {
    "a file is deleted": (delete, "the compacted file is missing"),
    "a file is cut short": (truncate, "the compacted file has other content than was published"),
    "a file is doubled": (double, "no compaction names this file"),
    "a foreign file": (junk, "no compaction names this file"),
    "rows are changed": (lambda app: rewrite(app, lambda frame: frame.head(3)), "has other content than was published"),
    "a forged file lacks a row": (lambda app: forged(app, lambda frame: frame.slice(1)), "rows, but the compaction says"),
    "a forged file has rows in another order": (lambda app: forged(app, swap), "belong to other records than the ledger says"),
    "a source is taken out": (lambda app: edit(app, fewer), "seal does not match its content"),
    "a source is taken out and sealed": (lambda app: edit(app, fewer, seal=True), "does not have as many rows after it as before"),
    "the dataset is moved": (lambda app: edit(app, elsewhere), "seal does not match its content"),
    "a record is deleted": (drop_record, "the compaction is missing, and later ones are there"),
    "the last record is deleted": (drop_last_record, "no compaction names this file"),
    "a record is copied": (copy_record, "it was moved or copied"),
    "a record is garbled": (garble, "is not readable"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_to_a_dataset_or_its_records_is_found(application, name):
    damage, why = DAMAGE[name]
    damage(application)
    verdict, findings = application.verify()
    assert verdict is Verdict.FAILED
    assert any(why in message for _, message, _ in findings), findings
    assert {check for check, _, _ in findings} <= {Check.OBJECTS, Check.SEAL}


@pytest.mark.parametrize("damage", [delete, double])
def test_missing_and_foreign_files_are_found_by_name_alone(application, damage):
    damage(application)
    assert application.verify(contents=False)[0] is Verdict.FAILED


def test_a_file_that_is_gone_before_it_was_compacted_is_still_a_loss():
    application = Application()
    asyncio.run(application.sealed.unit(0, 121, 40))
    last = [key for key in rows(application.small)[1] if f"-{sequence(0, 120)}-" in key]
    asyncio.run(application.small.delete(last[0]))
    _, findings = application.verify()
    assert any("the file is missing" in message for _, message, _ in findings)


class Forgetful(Compactor):
    """A compactor with a defect: of each partition it does not see the second file."""

    async def scan(self):
        found = await super().scan()
        return replace(found, files={name: [*files[:1], *files[2:]] for name, files in found.files.items()})


def test_a_file_that_compactions_passed_over_is_found():
    application = Application(size=2**20)
    sound = compactor(application.sealed, application.large)
    sealed = asyncio.run(three_units())
    sealed.places["memory:large"] = large = MemoryStore(url="memory:large")
    log, small = sealed.log, sealed.stores.targets["s3"]
    asyncio.run(Forgetful(log, "events", sound._config, small, large, sealed.clock, 2**20).run(LATER, closed=True))
    report = asyncio.run(Verifier(sealed.evidence(), Scope(), sealed.clock).run())
    wrong = {each.message for each in report.findings}
    assert wrong == {"compactions took files that were sealed after this one, but not this: its rows are not in the compacted dataset"}


def test_rows_that_a_rewind_took_back_are_found_in_a_dataset():
    """`stream leases rewind` refuses this; it takes a rewind at the very moment of a publication."""
    application = Application(size=2**20)
    asyncio.run(application.sealed.rewind(0, 40))
    asyncio.run(application.sealed.unit(0, 41, 40))
    verdict, findings = application.verify(source=False)
    assert verdict is Verdict.FAILED
    assert any("which a rewind took back" in message for _, message, _ in findings)


def test_a_catalogue_is_found_by_few_reads():
    application = Application(size=1)
    reads = []

    catalogue = Catalogue(application.state, "events", "s3")
    assert asyncio.run(catalogue.length("kind=a")) == 5
    store, get = application.sealed.root, application.sealed.root.get

    async def counted(key):
        reads.append(key)
        return await get(key)

    store.get = counted
    application.find(str(sequence(0, 44)))
    assert sum("compactions/" in key for key in reads) <= 3
