"""FinishedClaims claims, which later runs need not check again."""

import asyncio

import msgspec
import pytest

from stream.audit.export import Cursor
from stream.contracts import Checkpoint, Shard
from stream.lease.checkpoints import StoredCheckpoints
from stream.source.bounded import Part
from stream.storage.memory import MemoryStore
from stream.worker.objects.finished_claims import FinishedClaims


class Counting(MemoryStore):
    def __init__(self):
        super().__init__()
        self.read = []

    async def get(self, key):
        self.read.append(key)
        return await super().get(key)


def claims(number):
    return [[Part(f"objects-{n:06d}-{part:04d}", ()) for part in (1, 2)] for n in range(1, number + 1)]


async def end(state, some, *, exported=False):
    for part in some:
        await StoredCheckpoints(state).advance(Shard("objects", part.shard_id), Checkpoint(None, 0, 7))
        if exported:
            await state.put(f"export/objects/{part.shard_id}.json", msgspec.json.encode(Cursor(ended=True)))


def test_claims_are_finished_up_to_the_first_with_an_unread_shard():
    async def run():
        state, known = Counting(), claims(200)
        finished = FinishedClaims(state, "objects", exported=False)
        assert await finished.count(known) == 0
        await end(state, [part for parts in known[:150] for part in parts])
        await end(state, known[150][:1])
        await end(state, known[151])
        assert await finished.count(known) == 150
        await StoredCheckpoints(state).advance(Shard("objects", known[150][1].shard_id), Checkpoint(5, 0, 0))
        assert await finished.count(known) == 150
        await end(state, known[150])
        assert await finished.count(known) == 152
        assert await finished.count(known[:100]) == 100

    asyncio.run(run())


def test_finished_claims_are_not_checked_again():
    async def run():
        state, known = Counting(), claims(100)
        await end(state, [part for parts in known for part in parts])
        await FinishedClaims(state, "objects", exported=False).count(known)
        state.read.clear()
        assert await FinishedClaims(state, "objects", exported=False).count(known) == 100
        assert len(state.read) == 1

    asyncio.run(run())


def test_a_claim_whose_spans_are_not_exported_is_not_finished():
    async def run():
        state, known = MemoryStore(), claims(3)
        await end(state, [*known[0], *known[2]], exported=True)
        await end(state, known[1])
        assert await FinishedClaims(state, "objects", exported=False).count(known) == 3
        assert await FinishedClaims(state, "objects", exported=True).count(known) == 1
        assert await FinishedClaims(state, "objects", exported=False).count(known) == 3

    asyncio.run(run())


@pytest.mark.parametrize("hint", [b"{torn", b"[]", b'{"ended": "many"}', b"{}"])
def test_an_unreadable_hint_only_costs_checking_again(hint):
    async def run():
        state, known = MemoryStore(), claims(3)
        await state.put("finished/objects.json", hint)
        await end(state, known[0])
        return await FinishedClaims(state, "objects", exported=False).count(known)

    assert asyncio.run(run()) == 1
