"""Objects are read by threads that wait for the event loop, which may need threads itself."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from stream.source.object_formats import Layout, ObjectFormat
from stream.source.objects import ObjectPiece, PinnedObject
from stream.storage.directory import DirectoryStore

LAYOUT = Layout(ObjectFormat.NDJSON)


def readers():
    return {thread for thread in threading.enumerate() if thread.name.startswith("objects")}


def test_more_objects_are_read_at_once_than_the_event_loop_has_threads(tmp_path):
    """With the threads of the loop itself, each would wait for a read of the directory that no thread is left for."""
    for number in range(3):
        (tmp_path / f"{number}.json").write_bytes(b"%d\n" % number * 10)

    async def main():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        store = DirectoryStore(tmp_path)
        pinned = [PinnedObject(info.key, info.size, info.version, "2026-01-01T00:00:00+00:00") async for info in store.list("")]

        async def rows(item):
            return sum([len(block.numbers) async for block in ObjectPiece(store, item, LAYOUT).blocks(0)])

        async with asyncio.timeout(120):
            return await asyncio.gather(*map(rows, pinned))

    assert asyncio.run(main()) == [10, 10, 10]


class SilentStore:
    """A ``RangedStore`` whose reads are never answered. It promises nothing else."""

    url = "silent"

    def __init__(self):
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def read_range(self, *_):
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


def test_the_thread_of_a_read_that_is_given_up_ends():
    others = readers()  # of tests before, which may be about to end

    async def main():
        store = SilentStore()
        piece = ObjectPiece(store, PinnedObject("a", 10, "1", "2026-01-01T00:00:00+00:00"), LAYOUT)

        async def read():
            async with aclosing(piece.blocks(0)) as blocks:
                async for _ in blocks:
                    pass

        reading = asyncio.get_running_loop().create_task(read())
        await store.asked.wait()
        (thread,) = readers() - others
        reading.cancel()
        async with asyncio.timeout(120):
            await store.cancelled.wait()
            await asyncio.to_thread(thread.join)
        assert reading.done()

    asyncio.run(main())
    assert readers() <= others
