"""What a worker knows of pauses: it looks in a bounded rhythm, and goes on with what it knows while it cannot look."""

import asyncio
from datetime import timedelta

import pytest

from stream import events
from stream.errors import Fatal, Retryable
from stream.lease.paused import Pause, Target, What, paused, resumed
from stream.lease.pauses import NEWEST, PauseRecord
from stream.storage.memory import MemoryStore
from stream.worker.coordination.pausing import CALL, LOOK_SECONDS, PauseWatch
from tests.sealed import NOON, StillClock


class Store(MemoryStore):
    """A store that counts its calls and may not answer."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.silent = False

    async def get(self, key):
        self.calls.append(key)
        if self.silent:
            raise Retryable("no answer")
        return await super().get(key)


class Steps:
    """A clock whose ``sleep`` lets the test act before the time has passed; ends the watch after so many."""

    def __init__(self, *acts):
        self.clock = StillClock()
        self.acts = list(acts)
        self.slept = []

    def now(self):
        return self.clock.time

    def monotonic(self):
        return self.clock.monotonic()

    async def sleep(self, seconds):
        self.slept.append(seconds)
        if not self.acts:
            raise asyncio.CancelledError
        if (act := self.acts.pop(0)) is not None:
            await act()
        await self.clock.sleep(seconds)


def pause(until=None):
    return Pause(what=What.READING, stream="s", by="ann@a", note="new disks", since=NOON, until=until)


def pausing(store, until=None):
    return lambda: PauseRecord(store).change(lambda newest: paused(newest, [pause(until)], "ann@a", "new disks", NOON))


def resuming(store):
    return lambda: PauseRecord(store).change(lambda newest: resumed(newest, [Target(What.READING, "s")], "ann@a", "", NOON))


def watched(store, *acts, before=None):
    """What the listener saw after each call: whether the stream was paused; and the clock and what was told."""

    async def run():
        if before is not None:
            await before()
        store.calls.clear()
        steps, emitted, seen = Steps(*acts), [], []
        watch = PauseWatch(PauseRecord(store), steps, emitted.append)
        watch.listeners.append(lambda: seen.append((watch.now.reading("s", "0") is not None, steps.now() - NOON)))
        await watch.refresh()
        try:
            await watch.run()
        except asyncio.CancelledError:
            return seen, steps, emitted

    return asyncio.run(run())


def test_what_is_paused_already_is_known_before_anything_is_read():
    store = Store()
    seen, _, _ = watched(store, before=pausing(store))
    assert seen == [(True, timedelta())]


def test_a_pause_and_its_end_are_noticed_within_five_seconds_at_a_get_each_time():
    store = Store()

    async def both():
        store.calls.append("pause")
        await pausing(store)()
        del store.calls[store.calls.index("pause") :]

    seen, steps, _ = watched(store, None, both, None, resuming(store))
    assert LOOK_SECONDS == 5.0
    assert steps.slept == [LOOK_SECONDS] * 5
    assert seen == [(True, timedelta(seconds=10)), (False, timedelta(seconds=20))]
    # One at the start, one each five seconds; the operator's own are beside that.
    assert store.calls.count(NEWEST) == 1 + 4 + 1


def test_a_pause_with_an_end_ends_on_time_although_the_store_is_silent():
    store = Store()

    async def fall_silent():
        store.silent = True

    seen, steps, emitted = watched(store, fall_silent, None, None, before=pausing(store, NOON + timedelta(seconds=8)))
    assert seen == [(True, timedelta()), (False, timedelta(seconds=8))]
    assert steps.slept == [5.0, 3.0, 5.0, 5.0]
    assert {(event.call, event.wait) for event in emitted} == {(CALL, LOOK_SECONDS)}


def test_while_the_store_is_silent_a_pause_stays_and_none_begins():
    store = Store()

    async def fall_silent():
        await pausing(store)()
        store.silent = True

    async def answer():
        store.silent = False

    seen, _, emitted = watched(store, None, fall_silent, None, answer)
    assert seen == [(True, timedelta(seconds=20))]
    assert [type(event) for event in emitted] == [events.CallRepeated] * 2


def test_a_worker_does_not_begin_while_it_cannot_know_what_is_paused():
    async def run(store, error):
        with pytest.raises(error):
            await PauseWatch(PauseRecord(store), StillClock(), print).refresh()

    store = Store()
    asyncio.run(store.put(NEWEST, b"{broken"))
    asyncio.run(run(store, Fatal))
    store.silent = True
    asyncio.run(run(store, Retryable))
