import asyncio
import os
import select
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from stream.errors import Fatal
from stream.storage.console import ConsoleStore
from stream.storage.open import open_store


@pytest.fixture
def pipe():
    ends = list(os.pipe())
    yield ends
    for end in ends:
        os.close(end)


def read_all(reader, size):
    got = bytearray()
    while len(got) < size:
        got += os.read(reader, 65_536)
    return bytes(got)


def test_bodies_larger_than_a_pipe_are_printed_whole_and_in_order(pipe):
    reader, writer = pipe
    bodies = [bytes([65 + at]) * 300_000 for at in range(4)]
    got = []
    thread = threading.Thread(target=lambda: got.append(read_all(reader, 1_200_000)))
    thread.start()

    async def run():
        store = ConsoleStore(writer)
        await asyncio.gather(*(store.put(f"unit-{at}.ndjson", body) for at, body in enumerate(bodies)))

    asyncio.run(run())
    thread.join()
    assert sorted(got[0][at : at + 300_000] for at in range(0, 1_200_000, 300_000)) == bodies


def test_objects_are_not_kept(pipe):
    async def run():
        store = ConsoleStore(pipe[1])
        assert await store.create("a", b"x") is not None
        assert await store.create("a", b"x") is not None
        await store.delete("a")
        assert await store.replace("a", b"y", "") is None
        assert await store.get("a") is None
        assert await store.read_range("a", 0, 1, "") is None
        assert [info async for info in store.list("")] == []

    asyncio.run(run())
    assert os.read(pipe[0], 10) == b"xx"


def test_a_closed_pipe_ends_the_run(pipe):
    os.close(pipe[0])
    pipe.pop(0)
    with pytest.raises(Fatal, match=r"no more rows \(Broken pipe\)"):
        asyncio.run(ConsoleStore(pipe[0]).put("a", b"x"))


def test_a_write_to_a_pipe_nobody_reads_can_be_cancelled(pipe):
    async def run():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(ConsoleStore(pipe[1]).put("a", b"x" * 1_000_000))
            await asyncio.to_thread(os.read, pipe[0], 1)
            task.cancel()
        assert task.cancelled()

    asyncio.run(run())


def test_nothing_is_written_any_more_for_whoever_has_given_up(pipe):
    """Even if there is room again: by then, the descriptor may be another file's."""
    reader, writer = pipe

    async def run():
        store = ConsoleStore(writer)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(store.put("a", b"x" * 1_000_000))
            await asyncio.to_thread(until_full, writer)
            task.cancel()
        return store

    store = asyncio.run(run())
    os.read(reader, 1_000_000)
    store._thread.shutdown()
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)


def until_full(writer):
    while select.select([], [writer], [], 0)[1]:
        pass


def test_a_pipe_nobody_reads_leaves_the_threads_of_the_loop_to_others(pipe):
    async def run():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        store = ConsoleStore(pipe[1])
        tasks = [asyncio.ensure_future(store.put(name, b"x" * 1_000_000)) for name in "abc"]
        async with asyncio.timeout(60):
            await asyncio.to_thread(os.read, pipe[0], 1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(run())


def test_the_url_is_that_of_standard_output():
    assert isinstance(open_store("console:"), ConsoleStore)
    assert open_store("console:").url == "console:"
