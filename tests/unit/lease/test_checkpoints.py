import asyncio

import pytest

from stream.contracts import Checkpoint, Shard
from stream.lease.checkpoints import StoredCheckpoints
from stream.storage.memory import MemoryStore

SHARD = Shard("events", "shardId-1")


@pytest.mark.parametrize("checkpoint", [Checkpoint(2**185, 3, 2**184), Checkpoint(None, 0, 7), Checkpoint(1, 0, 0)])
def test_a_stored_checkpoint_reads_back(checkpoint):
    async def run():
        store = MemoryStore()
        await StoredCheckpoints(store).advance(SHARD, checkpoint)
        assert await StoredCheckpoints(store).read(SHARD) == checkpoint
        assert await StoredCheckpoints(store).read(Shard("events", "shardId-2")) is None

    asyncio.run(run())


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"position": "x", "subsequence": 0, "unit_after": "0"}', b'{"position": 1}'])
def test_an_unreadable_checkpoint_counts_as_none(body):
    async def run():
        store = MemoryStore()
        await store.put("checkpoints/events/shardId-1.json", body)
        assert await StoredCheckpoints(store).read(SHARD) is None

    asyncio.run(run())
