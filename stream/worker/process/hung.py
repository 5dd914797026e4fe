"""Tells that a call of a file system does not return: for people, probes and metrics."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from stream import events
from stream.contracts import Clock, Emit
from stream.storage.aside import Hung, all_hung
from stream.storage.directory_errors import hanging

LOOK_SECONDS: Final = 15.0
AGAIN_SECONDS: Final = 180.0
"""Seconds between two reports about one store, so that there is one soon after ``DEAD_SECONDS``."""


class HungWatch:
    """Emits what changes: that a store hangs, now and then that it still does, and that it answers again."""

    def __init__(self, clock: Clock, emit: Emit, hung: Callable[[], Sequence[Hung]] | None = None) -> None:
        self._clock = clock
        self._emit = emit
        self._hung = hung or all_hung
        self._told: dict[str, float] = {}

    def look(self) -> None:
        """Look once."""
        now, found = self._clock.monotonic(), {each.place: each for each in self._hung()}
        for place in [*self._told]:
            if place not in found:
                del self._told[place]
                self._emit(events.StoreAnswered("", "", place))
        for place, each in found.items():
            if now - self._told.get(place, -math.inf) >= AGAIN_SECONDS:
                self._told[place] = now
                self._emit(events.StoreHung("", "", place, hanging(each.call, each.seconds), each.seconds))

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await self._clock.sleep(LOOK_SECONDS)


@asynccontextmanager
async def watching_files(clock: Clock, emit: Emit) -> AsyncIterator[None]:
    """Watch while the block runs, from before the first call to a store."""
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(HungWatch(clock, emit).run(), name="watch calls of file systems")
        yield
        watching.cancel()
