"""When dead letters say that the pipeline is wrong and not the data: of one unit, and of all units in a stretch of time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Breaker:
    """More than ``max_ratio`` dead letters stop a shard, of at least ``min_records`` records in a unit or within ``window`` seconds."""

    max_ratio: float
    min_records: int
    window: float = 300.0


@dataclass(slots=True)
class Flood:
    """What one shard's breaker has seen since the shard was taken up."""

    breaker: Breaker
    seen: deque[tuple[float, int, int]] = field(default_factory=deque)

    def trips(self, now: float, records: int, dead: int) -> str | None:
        """Take in a unit that was cooked at the monotonic second ``now``; in words what is too much, None if nothing is.

        A unit without dead letters never trips, whatever came before it.
        """
        while self.seen and self.seen[0][0] <= now - self.breaker.window:
            self.seen.popleft()
        self.seen.append((now, records, dead))
        if self._too_many(records, dead):
            return f"{dead} of {records} records"
        records_, dead_ = sum(each[1] for each in self.seen), sum(each[2] for each in self.seen)
        if dead and self._too_many(records_, dead_):
            return f"{dead_} of {records_} records of the last {self.breaker.window:g} s, {dead} of {records} in this unit,"
        return None

    def _too_many(self, records: int, dead: int) -> bool:
        return records >= self.breaker.min_records and dead > self.breaker.max_ratio * records
