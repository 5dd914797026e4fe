"""A worker whose clock is ahead of the service's."""

from __future__ import annotations

from datetime import timedelta

from stream import events
from stream.commit.manifest import Kind
from tests.integration.stage import ShiftedClock, Stage


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
