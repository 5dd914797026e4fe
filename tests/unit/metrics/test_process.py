import asyncio

import pytest
from prometheus_client import CollectorRegistry

from stream.metrics.process import register_process, watch_loop
from tests.unit.metrics.every_event import FixedClock


class LateClock(FixedClock):
    """Wakes its sleepers later than they asked, and stops them after the last of ``delays``."""

    def __init__(self, delays):
        super().__init__()
        self.delays = list(delays)

    async def sleep(self, seconds):
        if not self.delays:
            raise asyncio.CancelledError
        self.seconds += seconds + self.delays.pop(0)


def test_the_delay_of_the_loop_is_reported_and_never_negative():
    seen = []
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch_loop(LateClock([0.0, 0.25, -0.5]), seen.append))
    assert seen == pytest.approx([0.0, 0.25, 0.25])


def test_a_blocked_loop_shows_for_a_minute_and_is_forgotten_then():
    seen = []
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch_loop(LateClock([6.0] + [-0.5] * 60), seen.append))
    assert seen == pytest.approx([6.0] * 60 + [0.0])


def test_process_metrics_are_in_the_given_registry():
    registry = CollectorRegistry()
    register_process(registry)
    names = {family.name for family in registry.collect()}
    assert {"process_resident_memory_bytes", "process_open_fds", "python_gc_collections"} <= names
