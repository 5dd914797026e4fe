"""When a run that ends gives up: not while anything succeeds, and not while it is only slow."""

import asyncio

import pytest

from stream import events
from stream.errors import Fatal
from stream.worker.process.patience import GIVE_UP_SECONDS, Patience
from tests.unit.lease.tables import settle

WHERE = "flights", "shardId-1"
OTHER = "flights", "shardId-2"
REFUSED = events.CallRepeated(*WHERE, "write to s3", "no answer", 20.0)
PAGE = events.PageReceived(*WHERE, 3, 3, 30, 0, 0.1)
EMPTY = events.PageReceived(*WHERE, 0, 0, 0, 0, 0.1)
SEALED = events.ManifestSealed(*WHERE, 0, 9)


class Hand:
    """A clock that a test moves; who sleeps on it moves it, too."""

    def __init__(self):
        self.seconds = 100.0

    def now(self):
        raise NotImplementedError

    def monotonic(self):
        return self.seconds

    async def sleep(self, seconds):
        self.seconds += seconds


def waited(*heard, every=20.0, until=GIVE_UP_SECONDS):
    """What has heard these events every so many seconds, with the first at 0 and the last at ``until``."""
    clock = Hand()
    patience, begun = Patience(clock), clock.seconds
    while True:
        for event in heard:
            patience(event)
        if clock.seconds >= begun + until:
            return patience, clock
        clock.seconds = min(clock.seconds + every, begun + until)


def test_a_call_that_is_repeated_without_a_success_ends_the_run_and_is_named():
    patience, _ = waited(REFUSED, events.PollRepeated(*OTHER, "error", "status 500", 1.0))
    with pytest.raises(Fatal) as ended:
        patience.judge()
    assert "nothing of this run has succeeded for 900 s" in str(ended.value)
    assert "\n  flights/shardId-1 waits for write to s3: no answer" in str(ended.value)
    assert "\n  flights/shardId-2 waits for read: status 500" in str(ended.value)


def test_it_does_not_end_a_moment_before():
    patience, clock = waited(REFUSED, until=GIVE_UP_SECONDS - 1)
    patience.judge()
    clock.seconds += 1
    with pytest.raises(Fatal):
        patience.judge()


@pytest.mark.parametrize("success", [PAGE, SEALED, events.ShardEnded(*OTHER, ()), events.FileWritten(*WHERE, "s3", 1, 1, 0.1)])
def test_a_success_of_any_shard_begins_anew(success):
    patience, clock = waited(REFUSED)
    patience(success)
    patience(REFUSED)
    patience.judge()
    clock.seconds += GIVE_UP_SECONDS
    patience(REFUSED)
    with pytest.raises(Fatal):
        patience.judge()


@pytest.mark.parametrize("event", [EMPTY, events.ShardStarted(*WHERE, 0), events.RecoveryFinished(*WHERE, 0, 0, 0.1)])
def test_what_happens_again_at_each_attempt_is_no_success(event):
    patience, _ = waited(REFUSED, event)
    with pytest.raises(Fatal):
        patience.judge()


def test_what_a_restarted_shard_reads_again_is_no_success_before_something_of_it_is_sealed():
    restart = events.CallRepeated(*WHERE, "run shard", "the object cannot be read", 5.0)
    patience, _ = waited(restart, PAGE)
    with pytest.raises(Fatal):
        patience.judge()
    patience, _ = waited(restart, SEALED, PAGE)
    patience.judge()


def test_a_run_that_repeats_nothing_any_more_is_only_slow():
    patience, clock = waited(REFUSED, until=60.0)
    clock.seconds += GIVE_UP_SECONDS
    patience.judge()


def test_many_shards_are_not_all_listed():
    patience, _ = waited(*(events.CallRepeated("flights", f"shardId-{at:02}", "seal", "no answer", 20.0) for at in range(12)))
    with pytest.raises(Fatal, match="and 2 more"):
        patience.judge()


def test_what_is_in_the_block_is_cancelled_when_patience_ends():
    ended = []

    async def main():
        clock = Hand()
        patience = Patience(clock)
        clock.sleep = lambda seconds: Hand.sleep(clock, seconds) if patience(REFUSED) is None else None
        async with patience.limiting(ends=True):
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(clock.seconds)

    with pytest.RaisesGroup(pytest.RaisesExc(Fatal, match="write to s3")):
        asyncio.run(main())
    assert ended
    assert GIVE_UP_SECONDS <= ended[0] - 100.0 <= GIVE_UP_SECONDS + 60.0


@pytest.mark.parametrize("ends", [True, False])
def test_a_block_that_ends_is_not_held_up(ends):
    async def main():
        async with Patience(Hand()).limiting(ends=ends):
            return "done"

    assert asyncio.run(main()) == "done"


def test_a_worker_without_an_end_waits_for_as_long_as_it_takes():
    async def main():
        patience, _ = waited(REFUSED)
        async with patience.limiting(ends=False):
            await settle()
            return "goes on"

    assert asyncio.run(main()) == "goes on"


def test_a_run_that_was_frozen_for_hours_tries_for_as_long_as_any_other():
    async def main():
        clock = Hand()
        patience = Patience(clock)
        freezes = iter([4 * GIVE_UP_SECONDS])

        async def sleep(seconds):
            await Hand.sleep(clock, seconds)
            patience(REFUSED)
            if clock.seconds > 200.0:
                clock.seconds += next(freezes, 0.0)
                patience(REFUSED)

        clock.sleep = sleep
        with pytest.RaisesGroup(Fatal):
            async with patience.limiting(ends=True):
                await asyncio.Event().wait()
        return clock.seconds - 100.0

    assert asyncio.run(main()) == pytest.approx(5 * GIVE_UP_SECONDS, abs=60.0)
