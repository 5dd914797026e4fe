"""What the process says of itself: memory, descriptors, garbage collection, and how late its event loop is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from stream.contracts import Clock

LOOK_SECONDS: Final = 1.0
REMEMBERED: Final = 60
"""Looks back that a report covers: whoever scrapes each half a minute would miss nearly every block that lasts for seconds."""


def register_process(registry: CollectorRegistry) -> None:
    """Add ``process_*`` (Linux) and ``python_gc_*`` to ``registry``."""
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)


async def watch_loop(clock: Clock, report: Callable[[float], None], interval: float = LOOK_SECONDS) -> None:
    """Report, every ``interval`` seconds until cancelled, by how many seconds the event loop woke this task too late, at worst of late."""
    latest: deque[float] = deque(maxlen=REMEMBERED)
    while True:
        asleep = clock.monotonic()
        await clock.sleep(interval)
        latest.append(max(0.0, clock.monotonic() - asleep - interval))
        report(max(latest))
