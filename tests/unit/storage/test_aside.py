"""Calls of a file system that do not return: what waits for them, what they hold up, and what they do when they come back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from stream.clock import SystemClock
from stream.errors import Retryable
from stream.storage import aside, directory
from stream.storage.aside import HUNG_SECONDS, Aside, Hung, Unanswered, all_hung
from stream.storage.directory import DirectoryStore


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are frequent. What they find depends on a clock that only the tests set."""
    monkeypatch.setattr(aside, "_LOOK_SECONDS", 0.001)


class Clock(SystemClock):
    """Seconds that only the test lets pass."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


class Mount:
    """A file system that hangs as long as it is ``dead``: calls made then return once it is not."""

    def __init__(self, clock: Clock) -> None:
        self.alive = threading.Event()
        self.clock = clock
        self._entered = threading.Semaphore(0)

    def wait(self) -> None:
        self._entered.release()
        self.alive.wait()

    async def entered(self, calls: int = 1) -> None:
        """As many calls have been made."""
        for _ in range(calls):
            await asyncio.to_thread(self._entered.acquire)

    async def hangs(self, calls: int = 1) -> None:
        """As many calls have been made, and none has returned for two minutes."""
        await self.entered(calls)
        self.clock.seconds += 120


def play(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(_as_coroutine(test), 120))


async def _as_coroutine(test: Callable[[], Awaitable[None]]) -> None:
    await test()


def test_a_call_that_does_not_return_is_given_up_and_named() -> None:
    async def test() -> None:
        clock = Clock()
        mount, store = Mount(clock), Aside("file:/data", clock, threads=2)
        hanging = asyncio.ensure_future(store("to read /data/a", mount.wait))
        await mount.hangs()
        with pytest.raises(Unanswered) as caught:
            await hanging
        assert (caught.value.call, caught.value.seconds) == ("to read /data/a", 120)
        assert [each for each in all_hung() if each.place == store.place] == [Hung("file:/data", "to read /data/a", 120)]
        assert await store("to add", sum, (1, 2)) == 3
        mount.alive.set()
        await returned(store)

    play(test)


async def returned(store: Aside) -> None:
    while store.hung():  # noqa: ASYNC110 - nothing says when the thread is done
        await asyncio.sleep(0)  # noqa: TID251 - lets the thread go on


def test_calls_that_have_not_begun_are_given_up_and_never_made() -> None:
    """However many are tried again, no more threads hang than the store has."""

    async def test() -> None:
        clock, made = Clock(), []
        mount, store = Mount(clock), Aside("file:/data", clock, threads=2)
        hanging = [asyncio.ensure_future(store(f"to read {number}", mount.wait)) for number in range(2)]
        await mount.hangs(2)
        for number in range(5):
            with pytest.raises(Unanswered, match=r"to read [01]"):
                await store("to write", made.append, number)
        mount.alive.set()
        await returned(store)
        await store("to write", made.append, 9)
        assert made == [9]
        assert [type(each) for each in await asyncio.gather(*hanging, return_exceptions=True)] == [Unanswered, Unanswered]

    play(test)


def test_a_call_that_waits_behind_one_that_has_only_begun_is_not_given_up() -> None:
    """A disk that is only slow returns from each call before it counts as hung."""

    async def test() -> None:
        clock = Clock()
        mount, store = Mount(clock), Aside("file:/data", clock, threads=1)
        first, second = (asyncio.ensure_future(each) for each in (store("first", mount.wait), store("second", int)))
        await mount.hangs()
        clock.seconds -= 61
        await asyncio.sleep(0.01)  # noqa: TID251 - both are looked at in between
        assert [first.done(), second.done()] == [False, False]
        mount.alive.set()
        assert await second == 0
        await first

    play(test)


def test_a_call_that_has_only_begun_is_not_given_up_because_another_one_hangs() -> None:
    async def test() -> None:
        clock = Clock()
        mount, slow, store = Mount(clock), Mount(clock), Aside("file:/data", clock, threads=2)
        hanging = asyncio.ensure_future(store("to read a", mount.wait))
        await mount.hangs()
        with pytest.raises(Unanswered):
            await hanging
        begun = asyncio.ensure_future(store("to read b", slow.wait))
        await slow.entered()
        await asyncio.sleep(0.01)  # noqa: TID251 - it is looked at in between
        assert not begun.done()
        for each in (slow, mount):
            each.alive.set()
        await begun

    play(test)


def test_a_call_that_hangs_is_given_up_beside_one_that_does_not_and_for_which_the_next_one_waits() -> None:
    async def test() -> None:
        clock = Clock()
        mount, slow, store = Mount(clock), Mount(clock), Aside("file:/data", clock, threads=2)
        hanging = asyncio.ensure_future(store("to read a", mount.wait))
        await mount.entered()
        clock.seconds += 50
        begun = asyncio.ensure_future(store("to read b", slow.wait))
        await slow.entered()
        next_one = asyncio.ensure_future(store("to add", sum, (1, 2)))
        clock.seconds += 50
        with pytest.raises(Unanswered, match="to read a"):
            await hanging
        await asyncio.sleep(0.01)  # noqa: TID251 - they are looked at in between
        assert [begun.done(), next_one.done()] == [False, False]
        slow.alive.set()
        assert await next_one == 3
        await begun
        mount.alive.set()
        await returned(store)

    play(test)


def test_calls_that_come_together_do_not_all_wait_for_the_one_thread_that_is_free() -> None:
    """The free thread takes the first of them, which hangs."""

    async def test() -> None:
        clock = Clock()
        mount, store = Mount(clock), Aside("file:/data", clock, threads=2)
        assert await store("to add", sum, (1, 2)) == 3
        await asyncio.sleep(0.01)  # noqa: TID251 - its thread waits for another call by then
        hanging, adding = (asyncio.ensure_future(each) for each in (store("to read a", mount.wait), store("to add", sum, (3, 4))))
        assert await adding == 7
        mount.alive.set()
        await hanging

    play(test)


def test_of_several_calls_that_hang_the_oldest_is_named_as_soon_as_it_counts_as_hung() -> None:
    async def test() -> None:
        clock = Clock()
        mount, store = Mount(clock), Aside("file:/data", clock, threads=2)
        calls = []
        for call in ("first", "second"):
            calls.append(asyncio.ensure_future(store(call, mount.wait)))
            await mount.entered()
            clock.seconds += 10
        clock.seconds = HUNG_SECONDS - 1
        assert store.hung() is None
        clock.seconds = HUNG_SECONDS
        assert store.hung() == Hung("file:/data", "first", HUNG_SECONDS)
        clock.seconds += 10
        assert store.hung() == Hung("file:/data", "first", HUNG_SECONDS + 10)
        given_up = await asyncio.gather(*calls, return_exceptions=True)
        assert [(type(each), getattr(each, "call", "")) for each in given_up] == [(Unanswered, "first")] * 2
        mount.alive.set()
        await returned(store)

    play(test)


def test_threads_without_work_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "_IDLE_SECONDS", 0.0)

    async def test() -> None:
        used: set[threading.Thread] = set()
        store = Aside("file:/data")
        for _ in range(3):
            used.add(await store("to ask", threading.current_thread))
            await asyncio.to_thread(max(used, key=lambda thread: thread.is_alive()).join)
        assert len(used) == 3

    play(test)


def test_an_error_is_raised_to_the_one_who_waits() -> None:
    async def test() -> None:
        with pytest.raises(ZeroDivisionError):
            await Aside("file:/data")("to divide", divmod, 1, 0)

    play(test)


def test_a_write_that_comes_back_after_its_object_was_replaced_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up as a call without an answer, and then the version that it was to replace is no longer there."""
    clock = Clock()
    mount, real = Mount(clock), DirectoryStore._replace

    def hanging(store: DirectoryStore, path: Path, body: bytes, etag: str) -> str | None:
        if body == b"late":
            mount.wait()
        return real(store, path, body, etag)

    monkeypatch.setattr(directory.DirectoryStore, "_replace", hanging)

    async def test() -> None:
        ours, others = DirectoryStore(tmp_path), DirectoryStore(tmp_path)
        ours._aside = Aside(ours.url, clock)
        tag = await ours.create("log/a", b"intent")
        assert tag is not None
        late = asyncio.ensure_future(ours.replace("log/a", b"late", tag))
        await mount.hangs()
        with pytest.raises(
            Retryable, match=rf"file://{tmp_path} does not answer: the call to replace {tmp_path}/log/a has not returned for 120"
        ):
            await late
        assert await others.replace("log/a", b"sealed", tag) is not None
        mount.alive.set()
        await returned(ours._aside)
        stored = await others.get("log/a")
        assert stored is not None
        assert stored.body == b"sealed"

    play(test)


def test_a_process_ends_although_a_call_hangs() -> None:
    """Nothing waits for its thread, as the interpreter does for those of a pool."""
    script = (
        "import asyncio, threading\n"
        "from stream.storage import aside\n"
        "aside.HUNG_SECONDS = aside._LOOK_SECONDS = 0.01\n"
        "async def main():\n"
        "    try:\n"
        "        await aside.Aside('file:/data')('to read', threading.Event().wait)\n"
        "    except aside.Unanswered:\n"
        "        print('ends')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "ends\n"


def test_stores_at_one_place_share_their_threads_and_others_have_their_own(tmp_path: Path) -> None:
    one, other = DirectoryStore(tmp_path / "a"), DirectoryStore(tmp_path / "b")
    assert DirectoryStore(tmp_path / "a")._aside is one._aside
    assert other._aside is not one._aside


def test_a_call_that_a_free_thread_has_not_begun_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread needs some time to start; here it needs as long as the test wants."""
    may_start = threading.Event()
    work = Aside._work

    def late(self: Aside) -> None:
        if self._running:
            may_start.wait()
        work(self)

    monkeypatch.setattr(Aside, "_work", late)

    async def test() -> None:
        clock = Clock()
        mount, store = Mount(clock), Aside("file:/data", clock, threads=2)
        hanging = asyncio.ensure_future(store("to read a", mount.wait))
        await mount.hangs()
        begun = asyncio.ensure_future(store("to read b", int))
        await asyncio.sleep(0.01)  # noqa: TID251 - it is looked at in between
        assert not begun.done()
        may_start.set()
        assert await begun == 0
        mount.alive.set()
        with pytest.raises(Unanswered):
            await hanging

    play(test)
