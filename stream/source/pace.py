"""How fast one shard is polled, and for how much: small state machines without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream.aws.kinesis import MAX_RECORDS
from stream.source.aggregated import OutOfRange

MAX_PAGE_BYTES: Final = 10 * 2**20
"""The most that one GetRecords call returns (Kinesis API reference)."""
ARRIVING: Final = 2.4
"""Bytes in memory for each byte of a page while it is read: the page, and the response, which is base64 inside JSON."""
_FIRST_ESTIMATE: Final = 2**19
_SMALLEST_ESTIMATE: Final = 64 * 2**10
_FIRST_RECORD_BYTES: Final = 1024
_DECAY: Final = 0.8

SOONEST: Final = 0.2
"""Least seconds between polls of a shard at its tip: the service allows five calls a second for all readers of a shard together."""
LATEST: Final = 1.0
"""Seconds; the KCL waits as long."""
UNIT_SHARE: Final = 0.1
"""Share of the time for which a unit is filled. Records that wait that long in the stream reach readers of the unit no later."""


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

    ``calls_per_second`` stays below the 5 GetRecords calls a second that all readers of a shard share. Between polls of a shard
    that is read to its tip lie ``idle_first`` seconds, growing to ``idle_last`` if it brings nothing, or to what leaves all quiet shards
    of a process ``idle_polls`` polls a second together: a poll costs up to a millisecond of CPU time, however little it brings.
    """

    limit: int = MAX_RECORDS
    calls_per_second: float = 4.5
    idle_first: float = SOONEST
    idle_last: float = LATEST
    idle_polls: float = 50.0
    kpl_out_of_range: OutOfRange = OutOfRange.DROP
    fan_out: FanOut | None = None


def tip_seconds(unit_seconds: float) -> float:
    """How long to wait between polls of a shard at its tip, if its records are collected for ``unit_seconds`` before anybody sees them."""
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
        """Note that a poll was sent at ``now``: the next one is due after the shard's share of the call limit."""
        self._free_at = max(self._free_at, now) + 1.0 / self._settings.calls_per_second
        self._due_at = self._free_at

    def answered(self, now: float, *, records: int, behind_ms: int, readers: int = 1) -> None:
        """Note a response at ``now``: at the tip of the stream, and only there, polling slows down. ``readers``: shards of this process."""
        if records or behind_ms:
            self._idle = self._settings.idle_first
        if behind_ms == 0:
            self._due_at = max(self._free_at, now + self._idle)
        if not records and behind_ms == 0:
            self._idle = min(self._idle * 1.5, max(self._settings.idle_last, readers / self._settings.idle_polls))


class Appetite:
    """How many bytes the next page may bring and how many records to request, learned from earlier pages."""

    def __init__(self, limit: int = MAX_RECORDS) -> None:
        self._limit = limit
        self._page = float(_FIRST_ESTIMATE)
        self._record = float(_FIRST_RECORD_BYTES)

    def ask(self, share: int) -> tuple[int, int]:
        """Bytes to reserve and records to request, if ``share`` bytes of the budget belong to this shard."""
        fitting = int(share / self._record)
        limit = max(1, min(self._limit, fitting))
        return int(min(self._page, limit * self._record * 2, MAX_PAGE_BYTES) * ARRIVING) or 1, limit

    def learn(self, records: int, size: int) -> None:
        """Note that a page of ``records`` records had ``size`` bytes."""
        self._page = min(max(float(size), self._page * _DECAY, _SMALLEST_ESTIMATE), MAX_PAGE_BYTES)
        if records:
            mean = size / records
            self._record = max(1.0, mean, self._record * _DECAY + mean * (1 - _DECAY))
