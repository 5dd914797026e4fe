"""Decides when dead letters suggest that the pipeline, not the data, is wrong: in one unit, or in all units of a period."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Breaker:
    """Halts a shard if, in a unit or within ``window`` seconds, more than ``max_ratio`` of at least ``min_records`` are dead letters."""

    max_ratio: float
    min_records: int
    window: float = 300.0


class ShardBreaker:
    """The breaker of one shard: the units that it has seen since the shard was started."""

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self._units: deque[tuple[float, int, int]] = deque()

    def trips(self, now: float, records: int, dead: int) -> str | None:
        """Count a unit rendered at the monotonic time ``now`` (seconds). Returns a phrase that says what is too much, or None.

        A unit without dead letters never trips, whatever came before it.
        """
        while self._units and self._units[0][0] <= now - self.breaker.window:
            self._units.popleft()
        self._units.append((now, records, dead))
        if self._too_many(records, dead):
            return f"{dead} of {records} records"
        records_, dead_ = sum(each[1] for each in self._units), sum(each[2] for each in self._units)
        if dead and self._too_many(records_, dead_):
            return f"{dead_} of {records_} records of the last {self.breaker.window:g} s, {dead} of {records} in this unit,"
        return None

    def _too_many(self, records: int, dead: int) -> bool:
        return records >= self.breaker.min_records and dead > self.breaker.max_ratio * records
