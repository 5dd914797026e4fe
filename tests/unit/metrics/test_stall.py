from __future__ import annotations

import asyncio

import pytest

from stream import events as ev
from stream.metrics.stall import STALL_SECONDS, StallWatch, watch_stalls
from tests.unit.metrics.every_event import CLASSES, FixedClock, sample

HERE = ("s", "shardId-1")
LONG = STALL_SECONDS + 1


def page(records=0, behind_ms=5000):
    return ev.PageReceived(*HERE, records, records, 10, behind_ms, 0.1)


class Watched:
    def __init__(self):
        self.clock = FixedClock()
        self.watch = StallWatch(self.clock)
        self.watch(ev.ShardStarted(*HERE, 0))

    def later(self, seconds, *happened):
        self.clock.seconds += seconds
        for event in happened:
            self.watch(event)
        return [shard for _, shard, _ in self.watch.stalled()]


def test_silence_counts_as_a_stall_after_the_limit_and_not_before():
    watched = Watched()
    assert watched.later(STALL_SECONDS - 1) == []
    assert watched.later(1) == ["shardId-1"]
    assert watched.later(0, page(records=3)) == []


@pytest.mark.parametrize("event", [page(records=1), page(behind_ms=0), page(behind_ms=10), ev.UnitCut(*HERE, 0, 1, "age", 1, 1)])
def test_progress_prevents_a_stall(event):
    watched = Watched()
    watched.later(1, page(behind_ms=5000))
    assert watched.later(STALL_SECONDS - 1, event) == []
    assert watched.later(STALL_SECONDS - 1) == []


def test_empty_pages_with_an_unchanged_lag_are_not_progress():
    watched = Watched()
    for _ in range(int(STALL_SECONDS)):
        found = watched.later(1, page(behind_ms=5000))
    assert found == []
    assert watched.later(1, page(behind_ms=5000)) == ["shardId-1"]


def test_an_idle_shard_is_not_stalled():
    watched = Watched()
    for _ in range(10):
        assert watched.later(STALL_SECONDS / 2, page(behind_ms=0)) == []


@pytest.mark.parametrize(
    "excuse",
    [
        ev.CallRepeated("s", "other", "put", "503", 1.0),
        ev.PollRepeated("s", "other", "throttled", "", 1.0),
        ev.BudgetWaited("other", "other", 1.0),
    ],
)
def test_a_known_cause_of_delay_excuses_all_shards(excuse):
    watched = Watched()
    assert watched.later(LONG, excuse) == []
    assert watched.later(STALL_SECONDS - 1) == []
    assert watched.later(1) == ["shardId-1"]


@pytest.mark.parametrize(
    "event",
    [
        ev.CallRepeated("s", "", "report lineage", "503 at http://lineage", 0.0),
        ev.CallRepeated(*HERE, "notify webhook", "503", 1.0),
        ev.ExportRefused(*HERE, 200, 3, "attribute too long"),
    ],
    ids=lambda event: getattr(event, "call", "refused"),
)
def test_a_repeated_call_that_no_shard_waits_for_excuses_none(event):
    watched = Watched()
    for _ in range(int(STALL_SECONDS // 60)):
        found = watched.later(60, event)
    assert found == ["shardId-1"]


@pytest.mark.parametrize("end", [ev.ShardEnded(*HERE, ()), ev.ShardReleased(*HERE, "drain"), ev.ShardHalted(*HERE, "why")])
def test_a_released_shard_is_no_longer_watched(end):
    watched = Watched()
    watched.later(1, end, ev.UnitSealed(*HERE, 0, 1, (), 0.0, 0.0, 0.0))
    assert watched.later(LONG) == []


def test_events_of_the_export_are_not_progress_of_the_shard():
    watched = Watched()
    assert watched.later(LONG, ev.ExportLagged(*HERE, 3.0)) == ["shardId-1"]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_event_is_accepted(kind):
    StallWatch(FixedClock())(sample(kind))


class Steps(FixedClock):
    """Ends the task that sleeps after so many times."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    async def sleep(self, seconds):
        if not self.steps:
            raise asyncio.CancelledError
        self.steps -= 1
        self.seconds += seconds


def test_each_stall_is_reported_once():
    clock, seen = Steps(100), []
    watch = StallWatch(clock)
    watch(ev.ShardStarted(*HERE, 0))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch_stalls(watch, clock, lambda *reported: seen.append(reported)))
    assert [(stream, shard) for stream, shard, _ in seen] == [HERE]
    assert seen[0][2] == pytest.approx(STALL_SECONDS, abs=30)


class Frozen(Steps):
    """The same, in a process that is frozen for an hour in the fifth sleep."""

    def __init__(self, steps, after=lambda: None):
        super().__init__(steps)
        self._left, self._after = 5, after

    async def sleep(self, seconds):
        await super().sleep(seconds)
        self._left -= 1
        if not self._left:
            self.seconds += 3600.0
            self._after()


def stalls_of(clock, watch):
    """Seconds on the clock at which stalls were reported."""
    seen = []
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch_stalls(watch, clock, lambda *_: seen.append(clock.seconds)))
    return seen


def test_a_process_that_was_frozen_is_not_stalled_when_it_wakes_up():
    clock = Frozen(20)
    watch = StallWatch(clock)
    watch(ev.ShardStarted(*HERE, 0))
    assert stalls_of(clock, watch) == []


@pytest.mark.parametrize("moves", [True, False], ids=["moves after it woke up", "does not"])
def test_a_shard_that_stalls_after_its_process_was_frozen_is_found_as_soon_as_any_other(moves):
    clock = Frozen(100, lambda: watch(page(records=3)) if moves else None)
    watch = StallWatch(clock)
    watch(ev.ShardStarted(*HERE, 0))
    begun = clock.seconds
    (found,) = stalls_of(clock, watch)
    assert found - begun - 3600.0 == pytest.approx(STALL_SECONDS + (75.0 if moves else 0.0), abs=30)
