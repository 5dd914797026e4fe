"""The leases that this worker holds. Writes of a row are serialized, so that a renewal and a checkpoint never collide."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from stream import events
from stream.contracts import Clock, Emit
from stream.errors import LeaseLost, Retryable
from stream.lease.fleet_rules import wanted_elsewhere
from stream.lease.rows import ExtendedSequenceNumber, Lease, Progress
from stream.lease.settings import LeaseSettings
from stream.lease.table import LeaseTable

AT_ONCE: Final = 20
"""Concurrent writes of different rows, as many as KCL has renewal threads."""

MOST_RENEWALS: Final = 400
"""Concurrent renewals while the table is slow: with a failover time of 10 s and 0.2 s for a write, enough for 6,000 leases."""

UNANSWERED_SECONDS: Final = 300.0
ANSWERED_SECONDS: Final = 150.0
"""Seconds for which a shard's calls get no answer before its worker counts as having no access, and between two such calls at most: the
longest call takes 120 s, and the longest wait before it is made again 20 s."""

TOGETHER: Final = 1 / 20
"""Share of a renewal interval by which a renewal may be late, so that several are made each time the loop wakes up."""


@dataclass(slots=True)
class Held:
    """A held lease. It is valid until ``until`` (monotonic), which is counted from before its last write was sent.

    ``wanted``: since when another worker is to take it over, or None. ``seen_bytes``: bytes received since ``counted``.
    ``refused``: access is refused to this worker, or nothing answers; ``received``: records were received since that was noted.
    ``unanswered``: when calls for the shard began to get no answer, and when the last one did not. ``inherited``: the worker
    that had it before had no access.
    """

    stream: str
    lease: Lease
    until: float
    renewed: float
    counted: float
    wanted: float | None = None
    seen_bytes: int = 0
    rate: float | None = None
    refused: bool = False
    received: bool = False
    unanswered: tuple[float, float] = (-math.inf, -math.inf)
    inherited: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Holdings:
    """This worker's leases by key. ``changed`` is called whenever a lease is added, dropped or wanted elsewhere."""

    def __init__(self, table: LeaseTable, me: str, settings: LeaseSettings, clock: Clock, emit: Emit, changed: Callable[[], None]) -> None:
        self._table = table
        self._me = me
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self._changed = changed
        self.held: dict[str, Held] = {}
        self.unlisted: set[str] = set()
        """Watched sources whose objects this worker may not list, which the rows of its leases say with their next writes."""

    def add(self, stream: str, lease: Lease, asked: float, *, inherited: bool = False) -> None:
        """Add a lease that was taken by a write sent at ``asked``."""
        self.held[lease.key] = Held(stream, lease, asked + self._settings.failover, asked, asked, inherited=inherited)
        self._changed()

    def drop(self, key: str, why: str) -> None:
        """Remove a lease that is no longer this worker's; work on its shard has to stop."""
        held = self.held.pop(key, None)
        if held is not None:
            # What the row said last counts: that is why another worker took it.
            why = "refused" if why == "lost" and held.lease.out_of_reach else why
            self._emit(events.LeaseDropped(held.stream, held.lease.shard, why))
            self._changed()

    def expire(self) -> None:
        """Drop leases that could not be renewed in time: another worker may have them by now."""
        now = self._clock.monotonic()
        for key in [key for key, held in self.held.items() if now > held.until]:
            self.drop(key, "expired")

    def overdue(self, seconds: float) -> list[str]:
        """Keys of leases that have been wanted elsewhere for longer than ``seconds``."""
        now = self._clock.monotonic()
        return [key for key, held in self.held.items() if held.wanted is not None and now - held.wanted > seconds]

    def count(self, key: str, size: int) -> None:
        """Count bytes received from the shard."""
        if (held := self.held.get(key)) is not None:
            held.seen_bytes += size

    def refuse(self, key: str, *, begins_anew: bool) -> bool:
        """Say in the row, with its next renewal, that this worker has no access; False if it does not hold the lease.

        ``begins_anew``: nothing that was received is left, and the shard is read again from its last seal.
        """
        if (held := self.held.get(key)) is None:
            return False
        held.refused = True
        held.received = held.received and not begins_anew
        return True

    def no_answer(self, key: str) -> bool:
        """Note that a call for the shard got no answer; returns whether that has been so for ``UNANSWERED_SECONDS``."""
        if (held := self.held.get(key)) is None:
            return False
        now, (since, last) = self._clock.monotonic(), held.unanswered
        held.unanswered = (since if now - last <= ANSWERED_SECONDS else now), now
        return now - held.unanswered[0] >= UNANSWERED_SECONDS

    def work_on(self, key: str, *, sealed: bool, records: bool = False) -> None:
        """Note that the shard was read, or that a unit of it was ``sealed``.

        A quiet shard of which nothing is to be sealed can be worked on once it was read to its tip.
        """
        if (held := self.held.get(key)) is None:
            return
        held.received = held.received or records
        if sealed or not held.received:
            held.refused = False
            held.unanswered = (-math.inf, -math.inf)

    async def keep_renewed(self) -> None:
        """Renew each lease when it is due, until cancelled. A write that gets no answer delays no other lease's.

        As many are renewed at a time as it takes: if leases that are due still wait at the next look, more are renewed at a time.
        """
        every = self._settings.renew_every
        due: asyncio.Queue[str] = asyncio.Queue()
        queued: set[str] = set()

        async def lane() -> None:
            while True:
                key = await due.get()
                await self.renew(key)
                queued.discard(key)

        async def schedule(group: asyncio.TaskGroup) -> None:
            lanes = 0
            while True:
                for _ in range(AT_ONCE if lanes == 0 or (due.qsize() and lanes < MOST_RENEWALS) else 0):
                    group.create_task(lane(), name="renew a lease")
                    lanes += 1
                now = self._clock.monotonic()
                left = {key: held.renewed + every - now for key, held in self.held.items() if key not in queued}
                for key in [key for key, seconds in left.items() if seconds <= 0]:
                    del left[key]
                    queued.add(key)
                    due.put_nowait(key)
                waits = 0.0 if due.qsize() else min([every, *left.values()])
                await self._clock.sleep(max(TOGETHER * every, waits))

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(schedule(group), name="schedule renewals")
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None

    async def renew(self, key: str) -> None:
        """Renew the lease, unless another write of the row has just done so."""
        held = self.held.get(key)
        if held is None:
            return
        async with held.lock:
            asked = self._clock.monotonic()
            if self.held.get(key) is not held or asked < held.renewed + self._settings.renew_every:
                return
            rate = self._rate(held, asked)
            try:
                unlisted = held.stream in self.unlisted
                after = await self._table.renew(held.lease, rate, held.until, refused=held.refused, unlisted=unlisted)
            except Retryable:
                self.drop(key, "expired")
                return
            self._written(key, held, after, asked)

    async def checkpoint(self, key: str, checkpoint: ExtendedSequenceNumber, progress: Progress) -> None:
        """Store a checkpoint; it counts as a renewal.

        Raises:
            LeaseLost: the lease is not, or no longer, this worker's; nothing was stored.
        """
        held = self.held.get(key)
        if held is not None:
            async with held.lock:
                if self.held.get(key) is held:
                    asked = self._clock.monotonic()
                    # With frequent checkpoints no renewal is ever due, so the throughput is written with the checkpoint.
                    rate = self._rate(held, asked) if asked >= held.counted + self._settings.renew_every else None
                    unlisted = held.stream in self.unlisted
                    after = await self._table.checkpoint(held.lease, checkpoint, progress, held.until, rate, unlisted=unlisted)
                    self._written(key, held, after, asked)
                    if after is not None:
                        return
        msg = f"the lease {key} in table {self._table.name} belongs to another worker; it stops reading the shard, and nothing is lost"
        raise LeaseLost(msg)

    async def release(self, key: str, successor: str | None = None) -> None:
        """Release the lease now, so that nobody waits for its expiry. If no worker was named to take over, ``successor`` gets it."""
        held = self.held.get(key)
        if held is None:
            return
        async with held.lock:
            if self.held.get(key) is not held:
                return
            wanted = held.wanted is not None
            try:
                await self._table.assign(held.lease, held.lease.owner if wanted else successor, held.until)
            except Retryable:
                self.drop(key, "expired")
                return
            self.drop(key, "handed_over" if wanted or successor else "released")

    def refresh(self, row: Lease) -> None:
        """Take over what others wrote without changing the counter, such as children. Ignored while a write of the row is in flight.

        If the counter has advanced under another owner, the lease was taken from this worker: the next renewal would fail.
        """
        held = self.held.get(row.key)
        if held is None or held.lock.locked():
            return
        if row.counter == held.lease.counter:
            if row.set_back and not held.lease.set_back and (progress := row.progress) is not None:
                self._emit(events.CheckpointSetBack(held.stream, row.shard, row.checkpoint.text, progress.position))
            held.lease = row
            self._note_wanted(held)
        elif row.counter > held.lease.counter and row.owner != held.lease.owner:
            self.drop(row.key, "lost")

    def _written(self, key: str, held: Held, after: Lease | None, asked: float) -> None:
        if after is None:
            self.drop(key, "lost")
            return
        held.lease, held.renewed, held.until = after, asked, asked + self._settings.failover
        self._note_wanted(held)

    def _note_wanted(self, held: Held) -> None:
        if not wanted_elsewhere(held.lease, self._me):
            held.wanted = None
        elif held.wanted is None:
            held.wanted = self._clock.monotonic()
            self._emit(events.LeaseWanted(held.stream, held.lease.shard, held.lease.owner or ""))
            self._changed()

    def _rate(self, held: Held, now: float) -> float:
        """KB/s as KCL 3.x computes it: the mean of the previous value and that of the last interval."""
        latest = held.seen_bytes / 1024 / max(now - held.counted, 1e-3)
        held.seen_bytes, held.counted = 0, now
        held.rate = latest if held.rate is None else (held.rate + latest) / 2
        return held.rate
