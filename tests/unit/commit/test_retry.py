"""How long it takes until something is tried again."""

import asyncio

import pytest

from stream.commit.retry import RefusedWaits, Repeater
from stream.errors import Fatal, Retryable
from tests.clocks import StandingClock
from tests.unit.commit.manifests import SHARD
from tests.unit.commit.test_committer import Sleepless


class Ticking(StandingClock):
    """Time is what a test says."""

    seconds = 0.0

    def monotonic(self):
        return self.seconds


def test_a_call_is_repeated_less_and_less_often_until_it_succeeds_and_each_time_the_reason_is_told():
    clock, told, left = Sleepless(), [], [Retryable(f"failure {n}") for n in range(10)]

    async def attempt():
        if left:
            raise left.pop(0)
        return "done"

    assert asyncio.run(Repeater(clock, told.append)("read manifest", SHARD, attempt)) == "done"
    assert clock.slept == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0, 20.0]
    assert [(event.shard, event.call, event.detail, event.wait) for event in told] == [
        (SHARD.shard_id, "read manifest", f"failure {n}", seconds) for n, seconds in enumerate(clock.slept)
    ]


def test_an_error_that_a_repetition_cannot_help_is_raised_at_once():
    clock = Sleepless()

    async def attempt():
        raise Fatal("denied")

    with pytest.raises(Fatal, match="denied"):
        asyncio.run(Repeater(clock, lambda event: None)("read manifest", SHARD, attempt))
    assert clock.slept == []


def test_refused_access_is_tried_less_and_less_often_and_anew_after_it_was_there_for_a_while():
    clock = Ticking()
    waits, found = RefusedWaits(clock), []
    for _ in range(9):
        found.append(waits.next())
        clock.seconds += found[-1]
    assert found == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    clock.seconds += 60
    assert waits.next() == 60
    clock.seconds += 121
    assert waits.next() == 1
