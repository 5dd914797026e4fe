"""When it is told that a store does not answer, and what that means for probes and metrics."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from stream import events
from stream.metrics.recorder import Recorder
from stream.metrics.server import Health
from stream.storage.aside import Hung
from stream.worker.process import hung
from stream.worker.process.hung import HungWatch, watching_files
from stream.worker.process.readiness import DEAD_SECONDS, Readiness
from tests.clocks import StandingClock


class Clock(StandingClock):
    """Seconds that only the test lets pass."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_store_that_hangs_is_told_at_once_and_then_now_and_then_and_that_it_answers_once() -> None:
    clock, told, found = Clock(), [], [Hung("file:/a", "to read /a/k", 60.0)]
    watch = HungWatch(clock, told.append, lambda: found)
    for _ in range(5):
        watch.look()
        clock.seconds += 60
        found = [Hung("file:/a", "to read /a/k", 60.0 + clock.seconds)]
    assert [(type(event), event.store, event.seconds) for event in told] == [
        (events.StoreHung, "file:/a", 60.0),
        (events.StoreHung, "file:/a", 240.0),
    ]
    assert "the call to read /a/k has not returned for 60 s. Remedy: see why the file system no longer answers" in told[0].detail
    found, told[:] = [], []
    for _ in range(2):
        watch.look()
    assert told == [events.StoreAnswered("", "", "file:/a")]


def test_it_is_watched_as_long_as_the_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hung, "all_hung", lambda: [Hung("file:/a", "to read /a/k", 60.0)])
    heard = asyncio.Event()

    async def test() -> set[str]:
        async with watching_files(Clock(), lambda _: heard.set()):
            await heard.wait()
        return {task.get_name() for task in asyncio.all_tasks()}

    assert "watch calls of file systems" not in asyncio.run(asyncio.wait_for(test(), 60))


def store_hung(store: str, seconds: float) -> events.StoreHung:
    return events.StoreHung("", "", store, f"the call to read {store}/k has not returned for {seconds:.0f} s", seconds)


def test_a_worker_whose_store_hangs_is_not_ready_and_in_the_end_not_alive() -> None:
    health = Health()
    health.clear("worker")
    readiness = Readiness(health)
    readiness(store_hung("file:/a", 60.0))
    assert (health.alive, health.ready) == (True, False)
    assert health.obstacles == {"store file:/a": "the call to read file:/a/k has not returned for 60 s"}
    readiness(store_hung("file:/a", DEAD_SECONDS))
    assert health.fault == "the store file:/a does not answer: the call to read file:/a/k has not returned for 600 s"
    readiness(events.StoreAnswered("", "", "file:/a"))
    assert health.ready


def test_each_of_two_stores_has_to_answer() -> None:
    health = Health()
    health.clear("worker")
    readiness = Readiness(health)
    for store in ("file:/a", "file:/b"):
        readiness(store_hung(store, DEAD_SECONDS))
    readiness(events.StoreAnswered("", "", "file:/b"))
    assert health.fault is not None
    assert "file:/a" in health.fault
    assert not health.ready
    readiness(events.StoreAnswered("", "", "file:/a"))
    assert health.ready


def test_a_store_that_answers_does_not_heal_a_shard_that_stalls() -> None:
    health = Health()
    readiness = Readiness(health)
    readiness(store_hung("file:/a", DEAD_SECONDS))
    readiness(events.ShardStalled("s", "0", 700.0))
    readiness(events.StoreAnswered("", "", "file:/a"))
    assert health.fault is not None
    assert "s/0" in health.fault


def test_stores_that_hang_are_measured() -> None:
    registry = CollectorRegistry()
    recorder = Recorder(registry, Clock())
    for event in (store_hung("a", 60.0), store_hung("b", 60.0), store_hung("a", 240.0), events.StoreAnswered("", "", "a")):
        recorder(event)
    assert [registry.get_sample_value("kst_store_hung", {"store": store}) for store in "ab"] == [0, 1]
