"""What operators have paused, as one worker knows it: read every few seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from stream import events
from stream.contracts import Clock, Emit
from stream.errors import StreamError
from stream.lease.paused import NONE, Change, Pause, Pauses, held_at, seconds_to_next_end
from stream.lease.pauses import PauseRecord

LOOK_SECONDS: Final = 5.0
"""Seconds between two reads of the recorded pauses: each is one GET, 17,280 a day for each worker."""

CALL: Final = "look for pauses"
"""The name of that call in events. Shards do not wait for it."""


class PauseWatch:
    """The pauses that hold for one worker, as ``now``. Whenever a read finds others, ``listeners`` are called.

    ``refresh`` once before anything else is read, so that nothing is read that is paused already; then ``run``, or refresh again.
    """

    def __init__(self, record: PauseRecord, clock: Clock, emit: Emit) -> None:
        self.listeners: list[Callable[[], None]] = []
        self.now: Pauses = NONE
        self._record = record
        self._clock = clock
        self._emit = emit
        self._newest: Change | None = None

    async def refresh(self) -> None:
        """Read the recorded pauses: one GET.

        Raises:
            Fatal: what is recorded cannot be read.
            Retryable: the store did not answer; call it again.
        """
        self._newest = await self._record.newest()
        self._update()

    async def run(self) -> None:
        """Refresh every few seconds until cancelled. If a read fails, what was read last still counts; pauses with an end still end."""
        while True:
            ends = seconds_to_next_end(self.now, self._clock.now())
            await self._clock.sleep(LOOK_SECONDS if ends is None else min(LOOK_SECONDS, max(0.0, ends)))
            try:
                self._newest = await self._record.newest()
            except StreamError as error:
                self._emit(events.CallRepeated("", "", CALL, str(error), LOOK_SECONDS))
            self._update()

    def loads(self, stream: str, sink: str) -> Pause | None:
        """As ``Pauses.loads``, of those that hold now."""
        return self.now.loads(stream, sink)

    def _update(self) -> None:
        found = held_at(self._newest, self._clock.now())
        if found != self.now:
            self.now = found
            for listener in tuple(self.listeners):
                listener()
