"""How often one shard is polled, and for how much: small state machines without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream.aws.kinesis import MAX_RECORDS
from stream.source.aggregated import OutOfRange

MAX_PAGE_BYTES: Final = 10 * 2**20
"""Most bytes that one GetRecords call returns (Kinesis API reference)."""
MEMORY_FACTOR: Final = 2.4
"""Bytes in memory per byte of a page while it is read: the page, and the response, which is base64 inside JSON."""
_FIRST_ESTIMATE: Final = 2**19
_SMALLEST_ESTIMATE: Final = 64 * 2**10
_FIRST_RECORD_BYTES: Final = 1024
_DECAY: Final = 0.8

SOONEST: Final = 0.2
"""Shortest pause in seconds between polls of a shard at its tip: Kinesis allows five calls per second for all readers of a shard."""
LATEST: Final = 1.0
"""Longest such pause in seconds; the KCL uses the same."""
UNIT_SHARE: Final = 0.1
"""Pause as a share of the time for which a unit is filled; records that wait that long in the stream hardly delay the unit."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """How shards are subscribed to, through the registered consumer named ``consumer``.

    ``resubscribe_seconds``: how long after a subscription the service refuses another. ``silence_seconds``: a subscription
    brings at least a heartbeat every few seconds; one that is silent for this long is dead. ``hold_seconds``: how long a message may wait
    in the connection for room in memory. ``retry_seconds``: how long to poll before trying again after a refusal.
    """

    consumer: str
    resubscribe_seconds: float = 5.0
    silence_seconds: float = 30.0
    hold_seconds: float = 5.0
    retry_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How shards are read: by polling, or with ``fan_out`` by subscription.

    ``calls_per_second`` stays below the 5 GetRecords calls per second that all readers of a shard share. At the tip of a shard the pause
    between polls is ``idle_first`` seconds. It grows to ``idle_last`` while no records arrive, or longer, so that all quiet shards of a
    process make ``idle_polls`` polls per second together: even an empty poll costs up to a millisecond of CPU time.
    """

    limit: int = MAX_RECORDS
    calls_per_second: float = 4.5
    idle_first: float = SOONEST
    idle_last: float = LATEST
    idle_polls: float = 50.0
    kpl_out_of_range: OutOfRange = OutOfRange.DROP
    fan_out: FanOut | None = None


def tip_seconds(unit_seconds: float) -> float:
    """Seconds between polls of a shard at its tip, if units are filled for ``unit_seconds`` before they are visible."""
    return min(max(unit_seconds * UNIT_SHARE, SOONEST), LATEST)


class Pace:
    """When the next poll of a shard is due."""

    def __init__(self, settings: ReadSettings) -> None:
        self._settings = settings
        self._free_at = 0.0
        self._due_at = 0.0
        self._idle = settings.idle_first

    def wait(self, now: float) -> float:
        """Seconds from ``now`` (monotonic) until a poll may be made."""
        return max(0.0, self._due_at - now)

    def polled(self, now: float) -> None:
        """Note that a poll was sent at ``now``; the next one may follow after the interval of ``calls_per_second``."""
        self._free_at = max(self._free_at, now) + 1.0 / self._settings.calls_per_second
        self._due_at = self._free_at

    def answered(self, now: float, *, records: int, behind_ms: int, readers: int = 1) -> None:
        """Note a response at ``now``. Polling slows down only at the tip. ``readers``: number of shards that this process reads."""
        if records or behind_ms:
            self._idle = self._settings.idle_first
        if behind_ms == 0:
            self._due_at = max(self._free_at, now + self._idle)
        if not records and behind_ms == 0:
            self._idle = min(self._idle * 1.5, max(self._settings.idle_last, readers / self._settings.idle_polls))


class PageSize:
    """How many bytes to reserve for the next page and how many records to request, estimated from earlier pages."""

    def __init__(self, limit: int = MAX_RECORDS) -> None:
        self._limit = limit
        self._page = float(_FIRST_ESTIMATE)
        self._record = float(_FIRST_RECORD_BYTES)

    def ask(self, share: int) -> tuple[int, int]:
        """Bytes to reserve and records to request, if ``share`` bytes of the budget belong to this shard."""
        fitting = int(share / self._record)
        limit = max(1, min(self._limit, fitting))
        return int(min(self._page, limit * self._record * 2, MAX_PAGE_BYTES) * MEMORY_FACTOR) or 1, limit

    def learn(self, records: int, size: int) -> None:
        """Note that a page of ``records`` records had ``size`` bytes."""
        self._page = min(max(float(size), self._page * _DECAY, _SMALLEST_ESTIMATE), MAX_PAGE_BYTES)
        if records:
            mean = size / records
            self._record = max(1.0, mean, self._record * _DECAY + mean * (1 - _DECAY))
