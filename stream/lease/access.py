"""Which leases a worker may take, given that access to what their shards need is refused to their holder, or to itself. Pure.

A worker that cannot work on a shard, because access is refused or nothing answers, keeps its lease and says so in the row. Others see that,
and take the lease if they have reason to believe that they have access. If none of them has, because access is refused to all, every lease
stays where it is: a worker to which access was refused takes nothing over until it has sealed something again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from stream.lease.decide import VERY_OLD, ObservedLease, is_available

FIRST_HOLD: Final = 300.0
LONGEST_HOLD: Final = 3600.0
"""Seconds for which a worker to which access was refused takes no leases from others, doubled each time from the first to the longest. Its
access may have come back by then; if not, it delays one shard for a few failover times."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a worker knows of its access to what the shards of one stream need. Monotonic times in seconds; ``-inf``: never.

    ``sealed``: when it last sealed a unit. ``refused``: when access was last refused to it, if it has sealed nothing since. ``tried``: when
    it last took a lease to see whether it has access. ``hold``: seconds after either for which it takes nothing from others.
    """

    sealed: float = -math.inf
    refused: float = -math.inf
    tried: float = -math.inf
    hold: float = FIRST_HOLD

    def after_seal(self, now: float) -> Access:
        """After it has sealed a unit."""
        return replace(self, sealed=now, refused=-math.inf, hold=FIRST_HOLD)

    def after_refusal(self, now: float) -> Access:
        """After access was refused, once more or for the first time."""
        again = self.refused > -math.inf and now - self.refused > self.hold
        return replace(self, refused=now, hold=min(2 * self.hold, LONGEST_HOLD) if again else self.hold)

    def is_cut_off(self, now: float) -> bool:
        """Whether it must be assumed that it still has no access."""
        return self.refused > -math.inf and now - max(self.refused, self.tried) <= self.hold

    def has_access(self, since: float) -> bool:
        """Whether it has sealed something after ``since``, and access was not refused to it after that."""
        return self.sealed > since and self.refused == -math.inf

    def may_try(self, now: float) -> bool:
        """Whether it may take one lease from a worker to which access is refused, to see whether its own access is better.

        A worker with nothing to seal could not know otherwise. It tries once, unless it seals something.
        """
        return self.refused == -math.inf and (self.tried <= self.sealed or now - self.tried > self.hold)


@dataclass(slots=True)
class AccessRecord:
    """What one worker knows of its access: by stream, and when access was refused to it on a lease, by key."""

    streams: dict[str, Access] = field(default_factory=dict)
    leases: dict[str, float] = field(default_factory=dict)

    @property
    def in_doubt(self) -> bool:
        """Whether access was refused to the worker in a stream in which it has sealed nothing since."""
        return any(each.refused > -math.inf for each in self.streams.values())

    def of(self, stream: str) -> Access:
        """What is known about ``stream``."""
        return self.streams.get(stream, Access())

    def seal(self, stream: str, key: str, now: float) -> None:
        """Note that the worker has sealed a unit of the shard with the lease ``key``."""
        self.streams[stream] = self.of(stream).after_seal(now)
        self.leases.pop(key, None)

    def refuse(self, stream: str, key: str, now: float) -> None:
        """Note that access was refused to the worker, or that nothing answers, while it worked on the shard with the lease ``key``."""
        self.streams[stream] = self.of(stream).after_refusal(now)
        self.leases[key] = now

    def attempt(self, stream: str, now: float) -> None:
        """Note that the worker has taken a lease from another one to see whether it has access."""
        self.streams[stream] = replace(self.of(stream), tried=now)


def within_reach(
    observed: Mapping[str, ObservedLease], me: str, now: float, failover: float, known: AccessRecord, stream_of: Callable[[str], str]
) -> dict[str, ObservedLease]:
    """The part of ``observed`` from which ``me`` may choose; what is left out, it must leave alone.

    A lease whose holder has no access counts as one that has not been renewed since that was first seen, if ``me`` may take it. A worker
    without access takes only what nobody has taken for a few failover times. Nobody takes back, within ``LONGEST_HOLD``, a lease of a
    worker without access on which access was refused to itself: some shard may be out of reach for everybody.
    """
    found: dict[str, ObservedLease] = {}
    tries: dict[str, tuple[float, str]] = {}
    for key, row in observed.items():
        stream = stream_of(key)
        access = known.of(stream)
        if row.lease.holder == me and not is_available(row, now, failover):
            found[key] = row
        elif is_available(row, now, failover):
            if not access.is_cut_off(now) or _free_for(row, now) > VERY_OLD * failover:
                found[key] = row
        elif row.refused is None:
            if not access.is_cut_off(now):
                found[key] = row
        elif now - row.refused > failover and now - known.leases.get(key, -math.inf) > LONGEST_HOLD and not row.lease.ended:
            if access.has_access(row.refused):
                found[key] = replace(row, changed=row.refused)
            elif access.may_try(now):
                tries[stream] = min(tries.get(stream, (math.inf, "")), (row.refused, key))
    return found | {key: replace(observed[key], changed=refused) for refused, key in tries.values()}


def _free_for(row: ObservedLease, now: float) -> float:
    """Seconds for which nobody has taken the free lease, as ``take_evenly`` counts them."""
    return now - (row.since if row.changed == -math.inf else row.changed)
