"""Which files are compacted, in which groups, and how an edited record shows itself."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.commit import compaction
from stream.commit.compaction import Catalogue, Compaction, CompactionError, Link, Output, SealedFile, State
from stream.storage.memory import MemoryStore

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def file(shard, unit, part=0, *, size=10, hours=0, key=None):
    name = key or f"kind=a/{shard}-{unit * 100}-{unit * 100 + 100}.{part}.x.parquet"
    return SealedFile(shard, unit * 100, unit * 100 + 100, name, 3, size, "0" * 64, NOON + timedelta(hours=hours))


@st.composite
def logs(draw):
    """Files of some shards in the order of their log; arrival times may be out of order."""
    found = []
    for shard in draw(st.lists(st.sampled_from(["s0", "s1", "s1_r1", "s2"]), unique=True, min_size=1)):
        for unit in range(draw(st.integers(0, 6))):
            hours = draw(st.integers(-3, 3))
            found += [file(shard, unit, part, size=draw(st.integers(1, 60)), hours=hours) for part in range(draw(st.integers(0, 3)))]
    return found


@given(logs(), st.integers(1, 120), st.lists(st.tuples(st.integers(-4, 5), st.booleans()), max_size=6), st.randoms())
def test_whatever_moments_are_asked_for_each_file_is_taken_once_and_in_order(files, target, runs, random):
    shuffled = list(files)
    random.shuffle(shuffled)
    covered, taken = {}, []
    for hours, closed in [*runs, (9, True)]:
        while group := next(
            compaction.groups(compaction.eligible(shuffled, covered, NOON + timedelta(hours=hours), closed=closed), target), ()
        ):
            taken.append(group)
            covered = compaction.covered_by([each.origin() for each in group], covered)
    flat = [each for group in taken for each in group]
    assert sorted(flat, key=lambda each: each.key) == sorted(files, key=lambda each: each.key)
    for shard in {each.shard for each in files}:
        order = [(each.after, each.key) for each in flat if each.shard == shard]
        assert order == sorted(order)
    for group in taken:
        units = {(each.shard, each.after) for each in group}
        assert sum(each.size for each in group) <= target or len(units) == 1
        assert all(each in group for each in files if (each.shard, each.after) in units), "files of one unit stay together"


def test_groups_are_filled_in_order():
    files = [file("s0", unit, size=40) for unit in range(5)]
    assert [len(group) for group in compaction.groups(files, 100)] == [2, 2, 1]
    assert [len(group) for group in compaction.groups(files, 10)] == [1] * 5
    assert list(compaction.groups([], 100)) == []


def test_a_group_has_no_more_files_than_a_record_can_list(monkeypatch):
    monkeypatch.setattr(compaction, "MOST_SOURCES", 3)
    assert [len(group) for group in compaction.groups([file("s0", unit) for unit in range(7)], 10**9)] == [3, 3, 1]


def test_one_late_record_keeps_its_partition_open_and_its_shard_waits_behind_it():
    files = [file("s0", 0), file("s0", 1, hours=2), file("s0", 2), file("s1", 0)]
    before = NOON + timedelta(hours=1)
    assert compaction.eligible(files, {}, before, closed=True) == []
    assert compaction.eligible(files, {}, before, closed=False) == [files[0], files[3]]
    assert compaction.eligible(files, {"s0": "200"}, before, closed=True) == [files[2], files[3]]


@pytest.mark.parametrize("partition", ["", "month=2013-01", "month=2013-01/carrier=A%2CB", "a=all"])
def test_every_partition_has_a_folder_of_its_own(partition):
    catalogue = Catalogue(MemoryStore(), "events", "s3")
    made = {other: catalogue.key(other, 1) for other in ["", "x=1", "x=1/y=2", partition]}
    assert len(set(made.values())) == len(made)
    folder = catalogue.key(partition, 1).split("/")[3]
    assert compaction.partition_of(folder) == partition


def published(number=1, sources=2, previous=None):
    origins = tuple(file("s0", unit).origin() for unit in range(number * 10, number * 10 + sources))
    output = Output(f"kind=a/events.s3.{number:08d}.0.{'0' * 16}.parquet", 3 * sources, 100, "0" * 64)
    before = previous.covered if previous else {}
    fixed = ("flights", "events", "s3", "kind=a", number, "memory:lake", "memory:large", origins, (output,), 3 * sources)
    made = Compaction(State.PUBLISHED, *fixed, compaction.covered_by(origins, before), previous=previous.seal if previous else "")
    return compaction.sealed(made)


def link(made):
    return Link(made, "key", compaction.encode(made), "1")


def test_a_sound_chain_has_no_problems():
    first = published()
    assert compaction.problems(link(first), None) == []
    second = published(2, previous=first)
    assert compaction.problems(link(second), first) == []
    removed = msgspec.structs.replace(first, removed_at="2026-01-08T00:00:00+00:00")
    assert compaction.problems(link(removed), None) == []
    assert compaction.problems(link(second), removed) == []


@pytest.mark.parametrize("name", [name for name in Compaction.__struct_fields__ if name not in {"removed_at", "state", "format"}])
def test_an_edit_of_any_field_is_found(name):
    first = published()
    second = published(2, previous=first)
    value = getattr(second, name)
    edits = {
        str: lambda: f"{value}x",
        int: lambda: value + 1,
        tuple: lambda: value[:-1] if value else ("x",),
        dict: lambda: {**value, "s9": "1"},
    }
    edited = msgspec.structs.replace(second, **{name: edits[type(value)]()})
    assert compaction.problems(link(edited), first) != []
    if name not in {"previous", "seal", "sources", "outputs", "rows", "covered"}:
        third = published(3, previous=second)
        assert compaction.problems(link(third), compaction.sealed(edited)) != [], "with a new seal the next one does not fit"


def test_a_file_that_is_taken_again_is_found():
    first = published()
    again = msgspec.structs.replace(published(previous=first), number=2)
    assert any("its rows are in the dataset twice" in why for why in compaction.problems(link(compaction.sealed(again)), first))


@pytest.mark.parametrize(
    "change",
    [
        lambda made: {"sources": (msgspec.structs.replace(made.sources[0], after="-1"),)},
        lambda made: {"sources": (msgspec.structs.replace(made.sources[0], last="x"),)},
        lambda made: {"sources": (msgspec.structs.replace(made.sources[0], output=1),)},
        lambda made: {"covered": {"s0": "1.5"}},
        lambda made: {"format": 2},
    ],
)
def test_what_cannot_be_used_is_refused(change):
    made = published()
    body = compaction.encode(msgspec.structs.replace(made, **change(made)))
    with pytest.raises(CompactionError, match="the compaction some/key"):
        compaction.decode(body, "some/key")
    with pytest.raises(CompactionError, match="is not readable"):
        compaction.decode(b"{", "some/key")


def test_the_row_in_the_output_counts_only_rows_of_the_same_output():
    origins = [msgspec.structs.replace(file("s0", unit).origin(), output=unit % 2) for unit in range(4)]
    made = msgspec.structs.replace(published(), sources=tuple(origins))
    assert [made.first_row(each) for each in origins] == [0, 0, 3, 3]


def test_of_two_that_begin_the_same_compaction_one_does():
    async def body():
        catalogue = Catalogue(MemoryStore(), "events", "s3")
        assert await catalogue.newest("kind=a") is None
        first = published()
        assert await catalogue.create(first)
        assert await catalogue.create(msgspec.structs.replace(first, created_by="other")) is None
        found = await catalogue.newest("kind=a")
        assert found.compaction == first
        assert await catalogue.replace(found, msgspec.structs.replace(first, removed_at="now"))
        assert await catalogue.replace(found, first) is None
        assert await catalogue.partitions() == ["kind=a"]

    asyncio.run(body())


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("month=1/events.s3.00000012.0.0123456789abcdef.parquet", 12),
        ("s3://lake/large/events.s3.00000001.1.0123456789abcdef.parquet", 1),
        ("events.other.00000001.0.0123456789abcdef.parquet", None),
        ("more.events.s3.00000001.0.0123456789abcdef.parquet", None),
        ("shardId-000000000000-0-1.0.0123456789abcdef.parquet", None),
        ("part-0.parquet", None),
    ],
)
def test_the_number_is_in_the_name_of_an_output(key, number):
    assert compaction.number_of(key, "events", "s3") == number
