"""A worker whose clock is ahead of the service's."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from stream import events
from stream.commit.manifest import Kind
from tests.clocks import ShiftedClock
from tests.integration.stage import Stage, sealed


def test_a_start_ahead_of_the_services_clock_is_waited_for(stage: Stage) -> None:
    """``latest`` is recorded as the time of the first worker, and Kinesis refuses to start in the future."""
    ahead = ShiftedClock()
    ahead.ahead = timedelta(minutes=4)
    stage.put(range(3))

    def passed(event: events.Event) -> bool:
        if isinstance(event, events.PollRepeated):
            assert "cannot be greater than" in event.detail
            stage.clock.ahead = timedelta(minutes=5)
            stage.put(range(3, 8))
        return isinstance(event, events.UnitSealed)

    heard = stage.work(passed, start="latest", clock=ahead)

    assert any(isinstance(event, events.PollRepeated) for event in heard)
    assert [(manifest.kind, manifest.records) for manifest in stage.manifests()] == [(Kind.UNIT, 5)]


def test_what_is_noted_of_a_quiet_shard_is_never_ahead_of_the_services_clock(stage: Stage) -> None:
    """What arrived after the noted time may expire unread, and the log would not say so."""
    ahead = ShiftedClock()
    stage.put(range(3))
    stage.work(sealed(3), clock=ahead)
    stage.clock.ahead = timedelta(hours=2)
    # AWS refuses what is signed with a clock that is further ahead.
    ahead.ahead = stage.clock.ahead + timedelta(minutes=4, seconds=59)
    polls = 0

    def quiet(event: events.Event) -> bool:
        nonlocal polls
        polls += isinstance(event, events.PageReceived)
        return polls == 3

    stage.work(quiet, clock=ahead)

    (checkpoint,) = (json.loads(file.read_text()) for file in stage.folder.rglob("checkpoints/numbers/*.json"))
    assert timedelta() < stage.clock.now() - datetime.fromisoformat(checkpoint["tip"]) < timedelta(minutes=1)


def test_a_clock_that_jumps_forwards_and_back_while_records_are_committed_changes_nothing(stage: Stage) -> None:
    jumping, jumps = ShiftedClock(), [timedelta(minutes=10), timedelta(minutes=-10), timedelta(0)]
    stage.put(range(3))

    def last(event: events.Event) -> bool:
        if isinstance(event, events.UnitSealed) and jumps:
            jumping.ahead = jumps.pop(0)
            stage.put(range(3))
            return False
        return isinstance(event, events.UnitSealed)

    heard = stage.work(last, clock=jumping)

    assert [manifest.records for manifest in stage.manifests()] == [3, 3, 3, 3]
    assert not [event for event in heard if isinstance(event, events.ShardHalted | events.CallRepeated | events.PollRepeated)]
    after = [int(manifest.after) for manifest in stage.manifests()]
    assert after == sorted(after)
