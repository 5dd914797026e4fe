"""Few typed objects are read at a time, since the process that reads one takes memory beside the worker's budget."""

import asyncio
import io
from contextlib import AsyncExitStack, aclosing

import pyarrow as pa
import pyarrow.parquet as pq

from stream.source.object_formats import Layout, ObjectFormat
from stream.source.objects import TYPED_AT_ONCE, ObjectPiece, PinnedObject
from stream.storage.directory import DirectoryStore

ROWS = 1000


def pieces(folder, count):
    body = io.BytesIO()
    pq.write_table(pa.table({"text": ["x" * 5000] * ROWS}), body, row_group_size=100)
    names = [f"{number}.parquet" for number in range(count)]
    for name in names:
        (folder / name).write_bytes(body.getvalue())
    return asyncio.run(listed(folder))


async def listed(folder):
    store = DirectoryStore(folder)
    items = [PinnedObject(info.key, info.size, info.version, info.modified.isoformat()) async for info in store.list("")]
    return [ObjectPiece(store, item, Layout(ObjectFormat.PARQUET)) for item in items]


async def rows(blocks):
    return sum([len(block.numbers) async for block in blocks])


def test_an_object_waits_for_its_turn_but_a_range_is_read_again_meanwhile(tmp_path):
    *first, last = pieces(tmp_path, TYPED_AT_ONCE + 1)

    async def read():
        async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
            begun = [await stack.enter_async_context(aclosing(piece.blocks(0))) for piece in first]
            for blocks in begun:
                await anext(blocks)
            waiting = group.create_task(rows(last.blocks(0)))
            # What has begun stands still, as a shard does that waits for memory, until a range has been read again.
            assert await rows(first[0].blocks(0, ROWS)) == ROWS
            assert not waiting.done()
            await begun[0].aclose()
            assert await waiting == ROWS
            assert await rows(begun[1]) < ROWS

    asyncio.run(read())
