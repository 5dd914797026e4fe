"""Finds shards in which nothing moves although they are behind and nothing explains it: a hung connection, a lost task, a deadlock.

A healthy shard reads a page at least every few seconds, even if it is empty. A known obstacle (a call that is repeated,
throttling, exhausted memory) excuses all shards: restarting a worker because S3 is down would only add load to S3.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from stream import events as ev
from stream.contracts import Clock

STALL_SECONDS: Final = 600.0
"""Seconds without movement before a shard counts as stalled: several times the longest call (120 s) and the longest pause between calls."""

LOOK_SECONDS: Final = 15.0

_EXCUSES: Final = (ev.CallRepeated, ev.PollRepeated, ev.BudgetWaited)
_ASIDE: Final = ("report lineage", "notify ", "receive notifications", "delete notifications", "look for pauses")
"""Prefixes of the names of calls that no shard waits for; they may fail for weeks."""
_ENDS: Final = (ev.ShardEnded, ev.ShardReleased, ev.ShardHalted)


class StallWatch:
    """An ``Emit`` that remembers when each shard last moved. Callable from any thread.

    A shard is watched from its ``ShardStarted`` to its end, release or halt. If nothing is waiting to be read or committed, every page
    that says so counts as movement.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moved: dict[tuple[str, str], float] = {}
        self._behind: dict[tuple[str, str], int] = {}
        self._excused = float("-inf")
        self._away = 0.0
        """Seconds for which the process did not run."""
        self._lock = threading.Lock()

    def __call__(self, event: ev.Event) -> None:
        """Take note of ``event``."""
        now, where = self._now(), (event.stream, event.shard)
        with self._lock:
            if isinstance(event, _EXCUSES):
                if not (isinstance(event, ev.CallRepeated) and event.call.startswith(_ASIDE)):
                    self._excused = now
            elif isinstance(event, ev.ShardStarted):
                self._moved[where] = now
                self._behind.pop(where, None)
            elif isinstance(event, _ENDS):
                self._moved.pop(where, None)
                self._behind.pop(where, None)
            elif where in self._moved and self._moves(event, where):
                self._moved[where] = now

    def stalled(self) -> list[tuple[str, str, float]]:
        """Stream, shard and seconds without movement of each shard that is stalled now, longest first."""
        now = self._now()
        with self._lock:
            if now - self._excused < STALL_SECONDS:
                return []
            found = [(stream, shard, now - since) for (stream, shard), since in self._moved.items() if now - since >= STALL_SECONDS]
        return sorted(found, key=lambda each: -each[2])

    def away(self, seconds: float) -> None:
        """Note that the process did not run for so long: frozen, or on a machine that was. Nothing could move, and nothing stalled."""
        with self._lock:
            self._away += seconds
            # What has moved since it runs again moved now, and not later than that.
            now = self._now()
            self._excused = min(self._excused, now)
            self._moved = {where: min(since, now) for where, since in self._moved.items()}

    def _now(self) -> float:
        return self._clock.monotonic() - self._away

    def _moves(self, event: ev.Event, where: tuple[str, str]) -> bool:
        if isinstance(event, ev.ExportLagged | ev.ExportRefused | ev.SpansExported | ev.ShardStalled):
            return False
        if not isinstance(event, ev.PageReceived):
            return True
        # Empty pages on the way through a gap report a shrinking delay; the same delay again and again is no movement.
        best = self._behind.get(where)
        nearer = event.records > 0 or event.behind_ms == 0 or best is None or event.behind_ms < best
        if nearer:
            self._behind[where] = event.behind_ms
        return nearer


async def watch_stalls(watch: StallWatch, clock: Clock, report: Callable[[str, str, float], None]) -> None:
    """Report each stalled shard once, until cancelled.

    A look that is late shows that the process did not run meanwhile. Judged by the clock, one that has only just been woken up would be
    restarted.
    """
    reported: set[tuple[str, str]] = set()
    while True:
        asked = clock.monotonic()
        await clock.sleep(LOOK_SECONDS)
        late = clock.monotonic() - asked - LOOK_SECONDS
        if late > LOOK_SECONDS:
            watch.away(late)
        stalled = watch.stalled()
        for stream, shard, seconds in stalled:
            if (stream, shard) not in reported:
                report(stream, shard, seconds)
        reported = {(stream, shard) for stream, shard, _ in stalled}
