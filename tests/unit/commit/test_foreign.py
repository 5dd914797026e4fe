"""Taking over from another application: what its progress becomes in the log, and who gives way if the log went on meanwhile."""

import asyncio
from dataclasses import replace

import pytest

from stream import events
from stream.commit.committer import FOREIGN, RenderedUnit
from stream.commit.foreign import admit_foreign
from stream.commit.manifest import Kind
from stream.commit.rewind import skip_link
from stream.contracts import Checkpoint, Reached
from stream.errors import Superseded
from stream.lease.checkpoints import StoredCheckpoints
from tests.unit.commit.manifests import SHARD, file, unit
from tests.unit.commit.test_committer import Setting, never


class Ahead(StoredCheckpoints):
    """Another application has ``reached`` further, as its row says until somebody stores a checkpoint there."""

    def __init__(self, store, *reached):
        super().__init__(store)
        self.reached = Reached(*reached)

    async def read(self, shard):
        stored = await super().read(shard)
        return None if stored is None else replace(stored, foreign=self.reached)

    async def advance(self, shard, checkpoint):
        await super().advance(shard, checkpoint)
        self.reached = None


async def children():
    return ("b", "a")


async def admitted(setting, head, *reached):
    return await admit_foreign(setting.committer, SHARD, replace(head, foreign=Reached(*reached)), children, never)


def progress(setting):
    return [(event.after, event.last) for event in setting.emitted if isinstance(event, events.ForeignProgress)]


@pytest.mark.parametrize("reached", [Reached(50, 3), Reached(None, 0)], ids=["position", "end"])
def test_until_it_is_in_the_log_other_progress_stays_in_the_checkpoint(reached):
    """Else it would be lost with the worker that has seen it, and its records would be processed twice."""

    async def test():
        b = Setting()
        await b.chain(10, 20)
        await b.checkpoints.advance(SHARD, Checkpoint(10, 0, 0))
        b.committer.checkpoints = Ahead(b.state, reached.position, reached.subsequence)
        for _ in range(2):
            head = await b.recover(never)
            assert (head.position, head.foreign) == (20, reached)
            assert b.committer.checkpoints.reached == reached
        await admit_foreign(b.committer, SHARD, head, children, never)
        after = await b.recover(never)
        assert (after.position, after.ended, after.foreign) == ((49, False, None) if reached.position else (20, True, None))

    asyncio.run(test())


@pytest.mark.parametrize("ended", [False, True])
def test_other_progress_that_the_log_has_too_is_none(ended):
    async def test():
        b = Setting()
        head = await b.chain(10, 20)
        if ended:
            await b.committer.end(SHARD, head, ("a",))
        await b.checkpoints.advance(SHARD, Checkpoint(10, 0, 0))
        b.committer.checkpoints = Ahead(b.state, 50 if ended else 20, 3)
        assert (await b.recover(never)).foreign is None
        assert await b.checkpoints.read(SHARD) == Checkpoint(None if ended else 20, 0, 20 if ended else 10)

    asyncio.run(test())


def test_a_link_ends_before_the_record_that_was_reached_and_the_next_unit_knows_how_much_of_that_was_processed():
    async def test():
        b = Setting()
        head = await admitted(b, await b.chain(10), 50, 3)
        assert (head.position, head.foreign_subsequence, head.foreign) == (49, 3, None)
        link = (await b.log.read(SHARD, 10)).manifest
        assert (link.kind, link.sealed, link.after, link.last, link.foreign_subsequence) == (Kind.FOREIGN, True, "10", "49", 3)
        again = await b.recover(never)
        assert (again.position, again.foreign_subsequence) == (49, 3)
        # The unit that reads that record settles it: nothing of a later record was processed by anybody else.
        rest = unit(file("rest"), after=49, last=60, previous=again.previous, foreign_subsequence=3)
        await b.committer.commit(SHARD, rest, never)
        assert (await b.recover(never)).foreign_subsequence == -1
        assert progress(b) == [(10, 49)]

    asyncio.run(test())


def test_progress_within_the_next_record_needs_no_link():
    async def test():
        b = Setting()
        before = await b.chain(10)
        head = await admitted(b, before, 11, 2)
        assert head == replace(before, foreign_subsequence=2)
        assert await b.log.read(SHARD, 10) is None

    asyncio.run(test())


def test_a_shard_that_was_read_to_its_end_elsewhere_ends_in_the_log_with_its_children():
    async def test():
        b = Setting()
        head = await admitted(b, await b.chain(10), None, 0)
        assert (head.ended, head.children) == (True, ("a", "b"))
        assert await b.checkpoints.read(SHARD) == Checkpoint(None, 0, 10)
        assert progress(b) == [(10, None)]

    asyncio.run(test())


@pytest.mark.parametrize("reached", [(50, 3), (None, 0)], ids=["position", "end"])
def test_other_progress_is_outdated_where_one_of_our_own_workers_has_gone_on(reached):
    async def test():
        b = Setting()
        head = await b.chain(10)
        await b.chain(10, 20)
        with pytest.raises(Superseded) as raised:
            await admitted(b, head, *reached)
        assert raised.value.position == (20 if reached[0] else 10)
        assert progress(b) == []

    asyncio.run(test())


def test_of_two_workers_that_saw_different_progress_one_gives_way():
    async def test():
        b = Setting()
        head = await b.chain(10)
        first = await admitted(b, head, 50, 3)
        assert await admitted(b, head, 50, 3) == first
        for other in ((50, 4), (60, 3), (40, 3)):
            with pytest.raises(Superseded):
                await admitted(b, head, *other)

    asyncio.run(test())


@pytest.mark.parametrize("operator", [False, True])
def test_a_worker_that_has_read_to_the_end_gives_way_to_a_link_that_is_no_unit(operator):
    """As if the shard had been listed, and its end read, before somebody moved it on; its own progress is behind that."""

    async def test():
        b = Setting()
        head = await b.chain(10)
        if operator:
            await b.committer.commit(SHARD, RenderedUnit(skip_link(b.log, SHARD, head, 49, "", ""), ()), never)
        else:
            await admitted(b, head, 50, 3)
        for trigger in ("shard_end", FOREIGN):
            with pytest.raises(Superseded) as raised:
                await b.committer.end(SHARD, head, ("a",), trigger)
            assert raised.value.position == 10

    asyncio.run(test())
