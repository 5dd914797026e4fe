"""Metrics of the process itself: memory, descriptors, garbage collection, and how late its event loop is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from stream.contracts import Clock

LOOK_SECONDS: Final = 1.0
REMEMBERED: Final = 60
"""How many past looks a report covers: a scrape every half a minute would otherwise miss nearly every block of a few seconds."""


def register_process(registry: CollectorRegistry) -> None:
    """Add ``process_*`` (Linux) and ``python_gc_*`` to ``registry``."""
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)


async def watch_loop(clock: Clock, report: Callable[[float], None]) -> None:
    """Until cancelled, report every ``LOOK_SECONDS`` by how much the event loop woke this task too late, at worst recently."""
    latest: deque[float] = deque(maxlen=REMEMBERED)
    while True:
        asleep = clock.monotonic()
        await clock.sleep(LOOK_SECONDS)
        latest.append(max(0.0, clock.monotonic() - asleep - LOOK_SECONDS))
        report(max(latest))
