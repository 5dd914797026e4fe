"""Reports how many units wait for a table, and for how long, as events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from stream import events
from stream.contracts import Clock
from stream.sink.loads import Link
from stream.worker.tables.parts import LoaderParts

REPORT_SECONDS: Final = 15.0
"""Seconds between two reports of how long units have been waiting while one attempt runs: a statement may wait for a lock for hours."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What was waiting to be loaded at ``moment`` (monotonic), when it was last read: units, seconds of the oldest, parked shards."""

    moment: float
    units: int = 0
    age: float = 0.0
    parked: int = 0


class LoadReports:
    """The reports of one loader. ``last``: what was waiting when that was last known; None while another worker reports it."""

    def __init__(self, parts: LoaderParts) -> None:
        self.last: Waiting | None = None
        self._parts = parts

    def waiting(self, links: Sequence[Link], parked: int) -> None:
        """Report ``links``, which wait, and the number of parked shards. Of a long backlog, ``links`` are only what was read."""
        self.last = Waiting(self._parts.clock.monotonic(), len(links), age_of(links, self._parts.clock), parked)
        self._emit(self.last)

    def worst_case(self) -> None:
        """Report, while nobody knows what is waiting, that everything that waited when it was last known has waited since."""
        now = self._parts.clock.monotonic()
        self.last = self.last or Waiting(now)
        self._emit(replace(self.last, age=self.last.age + now - self.last.moment))

    async def repeat_worst_case(self) -> None:
        """Report the worst case every ``REPORT_SECONDS`` until cancelled."""
        never = asyncio.Event()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):
                    await never.wait()
            self.worst_case()

    def stop(self) -> None:
        """Report nothing more, since another worker does; the gauge of this one would otherwise keep its last value."""
        if self.last is not None:
            self.last = None
            self._emit(Waiting(self._parts.clock.monotonic()))

    def failure(self, kind: str, detail: str, wait: float | None = None) -> None:
        """Report that a step failed; the next one is due after ``wait`` seconds, or after the sink's ``every`` if it is None."""
        config = self._parts.config
        due = config.every.total_seconds() if wait is None else wait
        self._parts.emit(events.LoadRefused(self._parts.stream, "", config.name, kind, detail, due))

    def _emit(self, waiting: Waiting) -> None:
        parts = self._parts
        parts.emit(events.LoadsWaiting(parts.stream, "", parts.config.name, waiting.units, waiting.age, waiting.parked))


def age_of(links: Sequence[Link], clock: Clock) -> float:
    """Seconds since the first of ``links`` was sealed; 0 if there is none."""
    sealed = min((link.sealed_at for link in links if link.sealed_at), default="")
    return max(0.0, (clock.now() - datetime.fromisoformat(sealed)).total_seconds()) if sealed else 0.0
