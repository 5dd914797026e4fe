"""Histories that are read only from the record to which an operator rewinds."""

import asyncio

import pytest
from msgspec import structs

from stream.commit.committer import Head
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind, State
from stream.commit.rewind import History, history, rewind_link, skip_link, target_for
from stream.contracts import Shard
from stream.errors import DefinitionError
from stream.storage.memory import MemoryStore
from tests.sealed import Sealed, StillClock, sequence, shard_id
from tests.unit.commit.manifests import intent

SHARD = Shard("events", shard_id(0))


async def rewound_log(*targets):
    """Units of ten records. After every four of them, the shard is rewound to the next of ``targets``, each the end of a unit."""
    sealed, at = await Sealed.open(), 1
    for target in (*targets, None):
        for first in range(at, at + 40, 10):
            await sealed.unit(0, first, 10)
        if target is not None:
            await sealed.rewind(0, target)
            at = target + 1
    return sealed


def operation(log, known, wanted):
    try:
        target = target_for(known, wanted)
    except DefinitionError as error:
        return str(error)
    return rewind_link(log, known, Head(known.head, ""), target, "", "")


@pytest.mark.parametrize("targets", [(), (20,), (40,), (0,), (20, 30), (30, 10), (40, 40, 60), (20, 20, 0)])
def test_a_history_from_a_record_on_allows_the_same_operations_as_the_whole(targets):
    async def run():
        sealed = await rewound_log(*targets)
        whole = await history(sealed.log, SHARD)
        for n in (n for n in range(1, 135) if n % 10 in {0, 1, 5}):
            for wanted in (sequence(0, n), sequence(0, n) - 1):
                part = await history(sealed.log, SHARD, wanted)
                assert operation(sealed.log, part, wanted) == operation(sealed.log, whole, wanted)
                assert part.shard == whole.shard

    asyncio.run(run())


@pytest.mark.parametrize("targets", [(), (20,), (20, 30)])
def test_a_history_says_where_its_last_chain_begins_and_leaves_out_what_is_not_sealed(targets):
    async def run():
        sealed = await rewound_log(*targets)
        known = await history(sealed.log, SHARD)
        assert known.start == (sequence(0, targets[-1]) if targets else 0)
        entry = await sealed.log.read(known.shard, int(known.links[-1].after))
        begun = structs.replace(entry.manifest, state=State.INTENT, after=str(known.head), last=str(known.head + 1))
        assert await sealed.log.create(known.shard, begun) is not None
        assert await history(sealed.log, SHARD) == known

    asyncio.run(run())


@pytest.mark.parametrize("targets", [(), (20,), (20, 30)])
def test_a_rewind_takes_back_the_unit_that_holds_the_record_and_all_after_it_but_no_ledger(targets):
    async def run():
        sealed = await rewound_log(*targets)
        known = await history(sealed.log, SHARD)
        ends = [int(link.last) for link in known.links]
        assert ends == [sequence(0, n) for n in range(10, (targets[-1] if targets else 0) + 41, 10)]
        for n in (1, 9, 10, 11, 20, 21, 30, 31, len(ends) * 10):
            start = (n - 1) // 10 * 10
            target = target_for(known, sequence(0, n))
            assert target == (sequence(0, start) if start else 0)
            link = rewind_link(sealed.log, known, Head(known.head, ""), target, "", "")
            taken = {file for each in known.links[start // 10 :] for file in each.files if file.sink != "ledger"}
            assert set(link.superseded) == taken
            assert {file.sink for file in taken} == {"s3", "rejects"}

    asyncio.run(run())


def test_no_file_of_the_next_generation_has_the_name_of_one_that_was_taken_back():
    """The records and their range may be the same, and somebody who completes the rewind late must remove none of the new files."""

    async def run():
        sealed = await Sealed.open()
        before = await sealed.unit(0, 1, 20)
        await sealed.rewind(0, 0)
        after = await sealed.unit(0, 1, 20)
        assert (before.after, before.last, before.outcomes) == (after.after, after.last, after.outcomes)
        assert {file.sink for file in after.files} == {"s3", "rejects", "ledger"}
        assert not {(file.sink, file.key) for file in before.files} & {(file.sink, file.key) for file in after.files}

    asyncio.run(run())


def test_units_far_before_the_record_are_not_read():
    async def run():
        sealed = await rewound_log(40, 80)
        known = await history(sealed.log, SHARD, sequence(0, 105))
        assert [int(link.after) for link in known.links if link.shard == known.shard.chain] == [sequence(0, n) for n in (90, 100, 110)]

    asyncio.run(run())


def test_a_shard_that_has_ended_is_not_rewound_and_its_end_is_no_range():
    async def run():
        sealed = await Sealed.open()
        await sealed.unit(0, 1, 10)
        before = await history(sealed.log, SHARD)
        await sealed.end(0)
        return before, await history(sealed.log, SHARD)

    before, after = asyncio.run(run())
    assert before.end is None
    assert after.end is not None
    assert (after.end.kind, after.links, after.head) == (Kind.END, before.links, sequence(0, 10))
    assert target_for(before, sequence(0, 1)) == 0
    with pytest.raises(DefinitionError, match="has been read to its end and its children have begun"):
        target_for(after, sequence(0, 1))


@pytest.mark.parametrize("n", [1, 9, 10])
def test_what_is_committed_is_not_skipped(n):
    async def run():
        sealed = await Sealed.open()
        await sealed.unit(0, 1, 10)
        return sealed.log, sealed.heads[SHARD.shard_id]

    log, head = asyncio.run(run())
    with pytest.raises(DefinitionError, match=f"is committed up to {head.position}; a skip must end after that"):
        skip_link(log, SHARD, head, sequence(0, n), "", "")
    link = skip_link(log, SHARD, head, sequence(0, 11), "why", "now")
    assert (link.kind, link.after, link.last, link.previous) == (Kind.SKIP, str(head.position), str(sequence(0, 11)), head.previous)


def test_a_rewind_goes_back_to_the_last_user_record_of_the_unit_before():
    """Another application that goes on from the lease row would else repeat user records of an aggregate."""
    links = tuple(intent(after=after, last=after + 10, subsequence=after + 7) for after in (0, 10, 20))
    log = CommitLog(MemoryStore(), "app", StillClock(), "me")
    found = [rewind_link(log, History(SHARD, links), Head(30, ""), target, "", "").subsequence for target in (0, 10, 20)]
    assert found == [0, 7, 17]
