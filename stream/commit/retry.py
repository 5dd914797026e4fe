"""Repeats idempotent calls until their outcome is known, and says when something is tried again to which access was refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from stream import events
from stream.contracts import Clock, Emit, Shard
from stream.errors import Retryable

T = TypeVar("T")

FIRST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 20.0
"""Seconds between repeated calls, doubled each time from the first to the longest: an hour's outage of S3 costs 180 calls per shard."""


def longer(wait: float) -> float:
    """The wait after one of ``wait`` seconds."""
    return min(2 * wait, LONGEST_WAIT)


FIRST_REFUSED_SECONDS: Final = 1.0
REFUSED_SECONDS: Final = 60.0
"""Seconds before something is tried again to which access was refused, doubled each time from the first to the most."""


class RefusedWaits:
    """How long to wait each time that access is refused to the same thing. Access that was there for a while begins anew."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at = float("-inf")
        self._waited = 0.0

    def next(self) -> float:
        """Seconds to wait now, after one more refusal."""
        now = self._clock.monotonic()
        again = now - self._at <= 2 * REFUSED_SECONDS
        self._at, self._waited = now, min(2 * self._waited, REFUSED_SECONDS) if again else FIRST_REFUSED_SECONDS
        return self._waited


class Repeater:
    """Repeats idempotent calls, with exponential backoff, and emits an event for each wait."""

    def __init__(self, clock: Clock, emit: Emit) -> None:
        self._clock = clock
        self._emit = emit

    async def __call__(self, call: str, shard: Shard, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of ``attempt``, which is repeated while it raises ``Retryable``. Any other error is raised unchanged."""
        wait = FIRST_WAIT
        while True:
            try:
                return await attempt()
            except Retryable as error:
                await self.pause(call, shard, error, wait)
                wait = longer(wait)

    async def pause(self, call: str, shard: Shard, error: Retryable, wait: float = FIRST_WAIT) -> None:
        """Wait ``wait`` seconds, and say why."""
        self._emit(events.CallRepeated(shard.stream, shard.shard_id, call, str(error), wait))
        await self._clock.sleep(wait)
