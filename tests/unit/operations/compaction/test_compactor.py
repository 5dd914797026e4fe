"""Compaction beside the production commit log, on stores that fail, kill and meet other compactors."""

import asyncio
import io
import itertools
from dataclasses import replace
from datetime import timedelta

import msgspec
import polars as pl
import pytest

from stream.audit.verify import Scope, Verifier
from stream.batch import SEQUENCE, SUBSEQUENCE
from stream.commit import compaction as compactions
from stream.commit.compaction import Catalogue, CompactionError, State
from stream.commit.log import CommitLog
from stream.errors import DefinitionError, Retryable
from stream.operations.compaction.compactor import Compactor
from stream.operations.compaction.sources_removal import delete_sources
from stream.sink.encode import Compression
from stream.sink.merge import merge
from stream.storage.memory import MemoryStore
from tests.sealed import NOON, PIPELINE, Sealed, shard_id, three_units

LATER = NOON + timedelta(days=1)


class Killed(BaseException):
    """The process ends here."""


class Store:
    """A store that counts writes and calls ``act`` in the middle of each: before it with ``done`` False, then with True."""

    def __init__(self, inner, act):
        self.inner = inner
        self.act = act

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def _write(self, name, *args):
        await self.act(name, args[0], False)
        result = await getattr(self.inner, name)(*args)
        await self.act(name, args[0], True)
        return result

    async def create(self, *args):
        return await self._write("create", *args)

    async def replace(self, *args):
        return await self._write("replace", *args)

    async def put(self, *args):
        return await self._write("put", *args)

    async def delete(self, *args):
        return await self._write("delete", *args)


async def nothing(name, key, done):
    pass


def compactor(sealed, target, *, act=nothing, size=2**20, worker="compactor", build=""):
    log = CommitLog(Store(sealed.stores.state, act), "flights", sealed.clock, worker)
    config = sealed.pipeline.sinks[0]
    if build:  # makes other files of the same rows
        config = config.model_copy(update={"compression": Compression.SNAPPY})
    return Compactor(log, "events", config, Store(sealed.stores.targets["s3"], act), Store(target, act), sealed.clock, size)


async def run(one, before=LATER, *, closed=True, only=()):
    return await one.run(before, closed=closed, only=only)


def compact(*args, before=LATER, closed=True, only=(), **options):
    return asyncio.run(run(compactor(*args, **options), before, closed=closed, only=only))


def rows(store):
    """All rows of the Parquet files of a store, in the order of the records, and by file."""

    async def bodies():
        return {info.key: (await store.get(info.key)).body async for info in store.list("")}

    files = {key: pl.read_parquet(io.BytesIO(body)) for key, body in asyncio.run(bodies()).items()}
    return (pl.concat(files.values()).sort(SEQUENCE, SUBSEQUENCE) if files else None), files


def links(sealed, sink="s3"):
    async def read():
        catalogue = Catalogue(sealed.stores.state, "events", sink)
        found = []
        for name in await catalogue.partitions():
            found += [link async for link in catalogue.all(name)]
        return found

    return asyncio.run(read())


@pytest.fixture
def sealed():
    return asyncio.run(three_units())


def same_rows(sealed, target):
    before, _ = rows(sealed.stores.targets["s3"])
    after, _ = rows(target)
    assert after is not None
    assert after.equals(before), "the dataset does not have the rows of the sink"


def test_the_rows_of_many_files_are_in_one_per_partition(sealed):
    target = MemoryStore(url="memory:large")
    done = compact(sealed, target)
    same_rows(sealed, target)
    _, small = rows(sealed.stores.targets["s3"])
    _, large = rows(target)
    assert sorted(key.rpartition("/")[0] for key in large) == ["kind=a", "kind=b"]
    assert sum(each.files for each in done) == len(small) == 10
    assert [link.compaction.state for link in links(sealed)] == [State.PUBLISHED] * 2
    assert compact(sealed, target) == []


def test_rows_are_in_the_order_of_shard_and_sequence(sealed):
    target = MemoryStore(url="memory:large")
    compact(sealed, target)
    _, large = rows(target)
    for frame in large.values():
        by_shard = frame.select(pl.col("_shard"), pl.col(SEQUENCE).str.zfill(60))
        assert by_shard.equals(by_shard.sort("_shard", SEQUENCE)), "rows of a shard are out of order"
        assert by_shard["_shard"].n_unique() == 2


def test_a_file_is_closed_by_its_size_at_the_end_of_a_unit(sealed):
    target = MemoryStore(url="memory:large")
    sizes = [file.size for unit in asyncio.run(manifests(sealed)) for file in unit.files if file.sink == "s3"]
    compact(sealed, target, size=2 * max(sizes))
    same_rows(sealed, target)
    found = [link.compaction for link in links(sealed)]
    assert [len(each.sources) for each in found] == [2, 2, 1, 2, 2, 1]
    assert [each.number for each in found] == [1, 2, 3, 1, 2, 3]


async def manifests(sealed):
    return [
        entry.manifest for shard in (0, 1) async for entry in sealed.log.chain("events", shard_id(shard)) if entry.manifest.last is not None
    ]


def test_a_partition_that_may_get_rows_is_left_alone_unless_a_moment_is_given(sealed):
    target = MemoryStore(url="memory:large")
    between = max(file.last_arrival for file in asyncio.run(manifests(sealed)))
    before = NOON + timedelta(milliseconds=81)
    assert str(before) < between
    assert compact(sealed, target, before=before) == []
    assert rows(target)[0] is None
    compact(sealed, target, before=before, closed=False)
    found, _ = rows(target)
    assert found["_arrival"].max() < before
    taken = {(each.shard, each.after) for link in links(sealed) for each in link.compaction.sources}
    assert len(taken) == 4
    compact(sealed, target)
    same_rows(sealed, target)


def test_only_the_partitions_that_are_named_are_compacted(sealed):
    target = MemoryStore(url="memory:large")
    assert [each.partition for each in compact(sealed, target, only=["kind=b"])] == ["kind=b"]
    assert [each.partition for each in compact(sealed, target, only=["kind=c", "kind=a"])] == ["kind=a"]
    same_rows(sealed, target)


def test_later_units_are_compacted_by_later_runs_which_read_no_more_of_the_log_than_they_must(sealed):
    target = MemoryStore(url="memory:large")
    compact(sealed, target)
    asyncio.run(sealed.unit(0, 121, 40))
    one = compactor(sealed, target)
    read = []
    whole = one._log.read

    async def counted(shard, after):
        read.append((shard.chain, after))
        return await whole(shard, after)

    one._log.read = counted
    asyncio.run(run(one))
    same_rows(sealed, target)
    assert sum(chain == shard_id(0) for chain, _ in read) < 8, "the log was read from its beginning"
    assert [link.compaction.number for link in links(sealed)] == [1, 2, 1, 2]


def test_a_lost_cursor_changes_nothing(sealed):
    target = MemoryStore(url="memory:large")
    compact(sealed, target)
    before = links(sealed)
    asyncio.run(sealed.stores.state.put("compacting/events/s3.json", b"{}x"))
    assert compact(sealed, target) == []
    assert links(sealed) == before
    same_rows(sealed, target)


def steps(sealed):
    """Every write of a complete run: what, which key."""
    found = []

    async def note(name, key, done):
        if not done:
            found.append((name, key))

    compact(sealed.copy(), MemoryStore(url="memory:large"), act=note, size=6000)
    return found


def killing(at, *, done, how=Killed):
    counter = itertools.count()

    async def act(name, key, is_done):
        if is_done == done and next(counter) == at:
            raise how(f"{name} {key}")

    return act


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("how", [Killed, Retryable], ids=["killed", "no reply"])
def test_a_run_that_ends_or_gets_no_reply_at_any_write_is_completed_by_the_next_to_the_same_files(sealed, done, how):
    every = steps(sealed)
    assert len(every) > 10
    whole = MemoryStore(url="memory:large")
    compact(sealed.copy(), whole, size=6000)
    for at in range(len(every)):
        copy, target = sealed.copy(), MemoryStore(url="memory:large")
        try:
            compact(copy, target, act=killing(at, done=done, how=how), size=6000)
            assert how is Retryable, "nobody was killed"
        except Killed:
            pass
        except Retryable:
            # Only the hint at the very end is not written again.
            assert every[at][0] == "put", every[at]
        assert set(rows(target)[1]) <= set(rows(whole)[1]), f"killed at {every[at]}: files that nobody names"
        compact(copy, target, size=6000)
        same_rows(copy, target)
        assert set(rows(target)[1]) == set(rows(whole)[1])
        assert all(link.compaction.published for link in links(copy))


def with_another_at(sealed, at, **options):
    """What was sealed, and the dataset that two compactors made of it at once: another one, with ``options``, did all at step ``at``."""
    copy, target = sealed.copy(), MemoryStore(url="memory:large")
    counter = itertools.count()

    async def run_the_other(name, key, done):
        if not done and next(counter) == at:
            await run(compactor(copy, target, worker="other", **options))

    compact(copy, target, act=run_the_other, size=6000)
    return copy, target


@pytest.mark.parametrize("size", [6000, 2**20, 1])
def test_two_compactors_at_once_publish_each_file_once(sealed, size):
    every = steps(sealed)
    for at in range(len(every)):
        copy, target = with_another_at(sealed, at, size=size)
        same_rows(copy, target)
        sources = [each.key for link in links(copy) for each in link.compaction.sources]
        assert len(sources) == len(set(sources)), f"met at {every[at]}"
        _, large = rows(target)
        assert set(large) == {each.key for link in links(copy) for each in link.compaction.outputs}


def test_compactors_that_really_run_at_once_agree(sealed):
    async def yielding(name, key, done):
        await asyncio.get_running_loop().run_in_executor(None, str)

    target = MemoryStore(url="memory:large")

    async def together():
        await asyncio.gather(*(run(compactor(sealed, target, act=yielding, size=6000, worker=f"w{n}")) for n in range(3)))

    asyncio.run(together())
    same_rows(sealed, target)
    sources = [each.key for link in links(sealed) for each in link.compaction.sources]
    assert len(sources) == len(set(sources)) == 10


def test_what_another_build_began_is_finished_and_its_files_are_removed(sealed):
    target = MemoryStore(url="memory:large")
    with pytest.raises(Killed):
        compact(sealed, target, act=killing(1, done=False))
    (begun,) = links(sealed)
    assert begun.compaction.state is State.BEGUN
    (output,) = begun.compaction.outputs
    foreign = msgspec.structs.replace(output, key=output.key.replace(output.sha256[:16], "0" * 16), sha256="0" * 64)
    other = msgspec.structs.replace(begun.compaction, outputs=(foreign,))
    asyncio.run(sealed.stores.state.put(begun.key, compactions.encode(other)))
    asyncio.run(target.put(foreign.key, b"half a file"))
    compact(sealed, target)
    same_rows(sealed, target)
    assert links(sealed)[0].compaction.superseded == (foreign.key,)


def test_two_builds_that_compact_at_once_leave_one_dataset(sealed):
    """Whichever of them takes over what the other has begun, and when: what the dataset has is named, and is there."""
    every = steps(sealed)
    for at in range(len(every)):
        copy, target = with_another_at(sealed, at, size=6000, build="other")
        same_rows(copy, target)
        named = {each.key for link in links(copy) for each in link.compaction.outputs}
        assert set(rows(target)[1]) == named, f"met at {every[at]}"


def test_what_does_not_have_the_rows_of_its_sources_is_not_published(sealed, monkeypatch):
    def loses_a_row(*args):
        merged = merge(*args)
        frames = [pl.read_parquet(io.BytesIO(body)) for body in merged.outputs]
        return replace(merged, outputs=tuple(body_of(frame.head(frame.height - 1)) for frame in frames))

    monkeypatch.setattr("stream.operations.compaction.compactor.merge", loses_a_row)
    with pytest.raises(CompactionError, match=r"was written and read back, and .*: it is not published"):
        compact(sealed, MemoryStore(url="memory:large"))
    assert [link.compaction.state for link in links(sealed)] == [State.BEGUN] * 2


def body_of(frame):
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


def test_a_source_that_is_not_what_the_log_says_is_not_compacted(sealed):
    target = MemoryStore(url="memory:large")
    lake = sealed.stores.targets["s3"]

    async def damage():
        key = (await anext(lake.list("kind=a/"))).key
        await lake.put(key, (await lake.get(key)).body + b"x")

    key = min(rows(lake)[1])
    before = asyncio.run(lake.get(key)).body
    asyncio.run(damage())
    for _ in range(2):
        with pytest.raises(CompactionError, match="has other content than its manifest says"):
            compact(sealed, target)
        assert {key.partition("/")[0] for key in rows(target)[1]} == {"kind=b"}, "the other partition is compacted all the same"
        assert [link.compaction.partition for link in links(sealed)] == ["kind=b"]
    asyncio.run(lake.put(key, before))
    compact(sealed, target)
    same_rows(sealed, target)


def test_a_file_that_comes_back_different_is_not_published(sealed):
    class Lossy(MemoryStore):
        async def put(self, key, body):
            frame = pl.read_parquet(io.BytesIO(body))
            out = io.BytesIO()
            frame.head(frame.height - 1).write_parquet(out)
            await super().put(key, out.getvalue())

    with pytest.raises(CompactionError, match="read back, and it has other content: it is not published"):
        compact(sealed, Lossy(url="memory:large"))
    assert [link.compaction.state for link in links(sealed)] == [State.BEGUN] * 2


def test_orphans_under_the_prefix_are_not_compacted(sealed):
    lake = sealed.stores.targets["s3"]
    target, clean = MemoryStore(url="memory:large"), MemoryStore(url="memory:large")
    compact(sealed.copy(), clean)

    async def orphan():
        key = (await anext(lake.list("kind=a/"))).key
        await lake.put(key.replace("shardId-000000000000", "shardId-000000000009"), (await lake.get(key)).body)

    asyncio.run(orphan())
    compact(sealed, target)
    assert set(rows(target)[1]) == set(rows(clean)[1])


def test_units_that_a_rewind_took_back_are_not_compacted(sealed):
    target = MemoryStore(url="memory:large")
    asyncio.run(sealed.rewind(0, 40))
    asyncio.run(sealed.unit(0, 41, 60))
    compact(sealed, target)
    same_rows(sealed, target)


def test_a_rewind_during_a_compaction_withdraws_it(sealed):
    target = MemoryStore(url="memory:large")

    async def rewinding(name, key, done):
        if name == "put" and not done and not sealed.generations:
            await sealed.rewind(0, 40)

    compact(sealed, target, act=rewinding)
    found = [link.compaction.state for link in links(sealed)]
    assert found[0] is State.WITHDRAWN
    asyncio.run(sealed.unit(0, 41, 60))
    compact(sealed, target)
    same_rows(sealed, target)


def test_a_compaction_that_is_withdrawn_takes_nothing_back_of_those_before_it(sealed):
    target = MemoryStore(url="memory:large")
    compact(sealed, target)
    asyncio.run(sealed.unit(0, 121, 40))
    asyncio.run(sealed.stores.state.delete("compacting/events/s3.json"))  # nothing may rely on this hint

    async def rewinding(name, key, done):
        if name == "put" and not done and not sealed.generations:
            await sealed.rewind(0, 120)

    compact(sealed, target, act=rewinding)
    assert [link.compaction.state for link in links(sealed)].count(State.WITHDRAWN) == 1
    asyncio.run(sealed.unit(0, 121, 60))
    compact(sealed, target)
    same_rows(sealed, target)


def test_what_was_begun_before_a_rewind_is_withdrawn_also_by_a_run_after_one_of_other_partitions():
    async def one_unit():
        sealed = await Sealed.open()
        await sealed.unit(0, 1, 40)
        return sealed

    sealed, target = asyncio.run(one_unit()), MemoryStore(url="memory:large")
    with pytest.raises(Killed):
        compact(sealed, target, act=killing(1, done=True), only=["kind=a"])
    assert rows(target)[0] is not None
    asyncio.run(sealed.rewind(0, 0))
    compact(sealed, target, only=["kind=b"])
    compact(sealed, target)
    assert rows(target)[0] is None
    assert [link.compaction.state for link in links(sealed)] == [State.WITHDRAWN]


@pytest.mark.parametrize("moment", ["put", "replace"])
def test_what_another_compactor_withdrew_is_not_published(sealed, moment):
    target = MemoryStore(url="memory:large")

    async def rewinding(name, key, done):
        if name == moment and not done and not sealed.generations:
            await sealed.rewind(0, 40)
            await run(compactor(sealed, target, worker="other"))

    compact(sealed, target, act=rewinding)
    assert links(sealed)[0].compaction.state is State.WITHDRAWN
    same_rows(sealed, target)


def test_a_rewind_after_a_compactor_died_withdraws_what_it_began(sealed):
    target = MemoryStore(url="memory:large")
    with pytest.raises(Killed):
        compact(sealed, target, act=killing(1, done=True))
    assert rows(target)[0] is not None
    asyncio.run(sealed.rewind(0, 40))
    compact(sealed, target)
    assert links(sealed)[0].compaction.state is State.WITHDRAWN
    same_rows(sealed, target)


def test_files_from_before_the_sink_was_moved_stay_where_they_are(sealed):
    target = MemoryStore(url="memory:large")
    sealed.move("memory:elsewhere")
    asyncio.run(sealed.unit(0, 121, 40))
    compact(sealed, target)
    same_rows(sealed, target)


def test_files_from_before_the_sink_wrote_parquet_stay_where_they_are():
    async def changed():
        before = await Sealed.open(text=PIPELINE.replace("partition_by", "format: ndjson, partition_by"))
        await before.unit(0, 1, 20)
        after = await Sealed.open(state=before.root, lake=before.stores.targets["s3"])
        after.heads, after.source, after.clock = before.heads, before.source, before.clock
        await after.unit(0, 21, 20)
        return after

    sealed, target = asyncio.run(changed()), MemoryStore(url="memory:large")
    compact(sealed, target)
    assert set(rows(target)[0]["n"]) == {n for n in range(21, 41) if n % 5 and n % 13 != 12}
    sealed.places[target.url] = target
    report = asyncio.run(Verifier(sealed.evidence(), Scope(), sealed.clock).run())
    assert [finding for finding in report.findings if finding.verdict == "failed"] == []
    assert compact(sealed, target) == []


def test_a_dataset_is_in_one_place(sealed):
    compact(sealed, MemoryStore(url="memory:large"))
    asyncio.run(sealed.unit(0, 121, 40))
    with pytest.raises(DefinitionError, match="Give --to memory:large"):
        compact(sealed, MemoryStore(url="memory:other"))


def test_a_plan_writes_nothing_and_tells_what_a_run_does(sealed):
    target = MemoryStore(url="memory:large")
    one = compactor(sealed, target, act=killing(0, done=False), size=6000)

    async def planned():
        return await one.plan(LATER, closed=True)

    plan = asyncio.run(planned())
    done = compact(sealed, target, size=6000)
    facts = ("partition", "files", "size", "outputs", "rows")
    assert [[getattr(each, name) for name in facts] for each in plan] == [[getattr(each, name) for name in facts] for each in done]
    assert all(each.planned for each in plan)


def delete(sealed, target, age, act=nothing):
    return asyncio.run(delete_sources(compactor(sealed, target, act=act), age))


def test_sources_are_deleted_once_their_compaction_is_old_enough(sealed):
    target = MemoryStore(url="memory:large")
    before, _ = rows(sealed.stores.targets["s3"])
    compact(sealed, target, only=["kind=a"])
    assert delete(sealed, target, timedelta(hours=1)) == (0, 0)
    sealed.clock.time += timedelta(hours=2)
    compact(sealed, target)
    files, _ = delete(sealed, target, timedelta(hours=1))
    assert files == 5
    assert {key.partition("/")[0] for key in rows(sealed.stores.targets["s3"])[1]} == {"kind=b"}
    assert rows(target)[0].equals(before)
    assert delete(sealed, target, timedelta(hours=1)) == (0, 0)
    assert compact(sealed, target) == []


def test_of_each_compaction_of_a_partition_the_sources_go_when_it_is_old_enough_also_after_one_that_was_withdrawn(sealed):
    target = MemoryStore(url="memory:large")

    async def rewinding(name, key, done):
        if name == "put" and not done and not sealed.generations:
            await sealed.rewind(0, 40)

    compact(sealed, target, act=rewinding)
    asyncio.run(sealed.unit(0, 41, 60))
    sealed.clock.time += timedelta(hours=1)
    compact(sealed, target)
    states = [link.compaction.state for link in links(sealed) if link.compaction.partition == "kind=a"]
    assert states == [State.WITHDRAWN, State.PUBLISHED, State.PUBLISHED]
    before, _ = rows(target)

    def left():
        return {info.key: info.size for info in asyncio.run(listed())}

    async def listed():
        return [info async for info in sealed.stores.targets["s3"].list("")]

    whole = left()
    first, second = (delete(sealed, target, timedelta(hours=age)) for age in (1, 0))
    assert first[0] > 0
    assert second[0] > 0
    assert (first[0] + second[0], first[1] + second[1]) == (len(whole), sum(whole.values()))
    assert left() == {}
    assert rows(target)[0].equals(before)


@pytest.mark.parametrize("elsewhere", ["sink", "dataset"])
def test_what_was_compacted_elsewhere_or_to_elsewhere_is_not_deleted(sealed, elsewhere):
    """Files of a sink that has moved have the same names in its new place, if somebody copied them, and there they are in no dataset."""
    target = MemoryStore(url="memory:large")
    compact(sealed, target)
    sealed.clock.time += timedelta(days=8)
    lake = sealed.stores.targets["s3"]
    before, _ = rows(lake)
    if elsewhere == "sink":
        sealed.move("memory:elsewhere")
        sealed.stores.targets["s3"]._objects = dict(lake._objects)
    else:
        target = MemoryStore(url="memory:another")
    assert delete(sealed, target, timedelta(days=7)) == (0, 0)
    assert rows(sealed.stores.targets["s3"])[0].equals(before)


def test_a_deletion_that_is_killed_anywhere_is_completed_by_the_next(sealed):
    for at in range(11):  # ten files, and the note at the end of each of two compactions
        copy, target = sealed.copy(), MemoryStore(url="memory:large")
        compact(copy, target)
        copy.clock.time += timedelta(days=8)
        with pytest.raises((Killed, BaseExceptionGroup)):
            delete(copy, target, timedelta(days=7), killing(at, done=False))
        delete(copy, target, timedelta(days=7))
        assert rows(copy.stores.targets["s3"])[0] is None
        assert all(link.compaction.removed_at for link in links(copy))


@pytest.mark.parametrize(("body", "how"), [(b"x", "has other content than was published"), (None, "is missing")])
def test_nothing_is_deleted_whose_compacted_file_is_not_whole(sealed, body, how):
    target = MemoryStore(url="memory:large")
    compact(sealed, target)
    sealed.clock.time += timedelta(days=8)
    before, _ = rows(sealed.stores.targets["s3"])
    for link in links(sealed):
        for output in link.compaction.outputs:
            asyncio.run(target.delete(output.key) if body is None else target.put(output.key, body))
    with pytest.raises(CompactionError, match=f"^memory:large/kind=a/.* {how}: restore it"):
        delete(sealed, target, timedelta(days=7))
    assert rows(sealed.stores.targets["s3"])[0].equals(before)


def test_a_record_of_a_compaction_that_was_edited_deletes_nothing(sealed):
    target = MemoryStore(url="memory:large")
    compact(sealed, target)
    sealed.clock.time += timedelta(days=8)
    link = links(sealed)[0]
    edited = msgspec.structs.replace(link.compaction, sources=link.compaction.sources[:1])
    asyncio.run(sealed.stores.state.put(link.key, compactions.encode(edited)))
    with pytest.raises(CompactionError, match="was edited after it was published"):
        delete(sealed, target, timedelta(days=7))
