"""Keeps this worker's leases: takes and renews them, cleans up the table, and says which shards may be worked on.

The decisions are made in ``decide.py`` and ``shards.py``; this file schedules them and carries them out. The output is correct whatever
happens here, because the commit log does not rely on leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from stream import events
from stream.aws.errors import AccessRefused
from stream.concurrency import run_concurrently
from stream.contracts import Clock, Emit, Shard, StartKind
from stream.errors import Fatal, LeaseLost, Retryable
from stream.lease import decide, fleet_rules
from stream.lease.decide import ObservedLease, Take
from stream.lease.follower import Follower
from stream.lease.holding import AT_ONCE, Holdings
from stream.lease.hole_watch import HoleWatch
from stream.lease.row_keeper import RowKeeper
from stream.lease.rows import TRIM_HORIZON, Lease
from stream.lease.settings import Balance, LeasedStream, LeaseSettings, refuse_other_keys
from stream.lease.shards import ended_by_others_before, unblocked
from stream.lease.table import LeaseTable

STEALS: Final = 8
"""Most leases that ``balance: even`` moves to one worker per round."""

TENURE: Final = 6.0
"""Failover times for which a lease stays after a move: each move costs the work in progress."""

REFUSED_SECONDS: Final = 5.0
"""Seconds before the table is looked at again while access to it is refused."""

SEIZE_ATTEMPTS: Final = 10
"""Attempts to take a lease. Its owner writes the row only a few times per failover time, so one attempt will not collide."""


class Coordinator:
    """The leases of one worker in one table, for any number of streams. ``order`` shuffles candidates."""

    def __init__(
        self,
        table: LeaseTable,
        me: str,
        streams: Sequence[LeasedStream],
        settings: LeaseSettings,
        clock: Clock,
        emit: Emit,
        order: decide.Order,
    ) -> None:
        self.me = me
        self.table = table
        self.settings = settings
        self.streams = {each.stream: each for each in streams}
        self.holdings = Holdings(table, me, settings, clock, emit, self._notify)
        self.rows = RowKeeper(table, self.holdings, emit)
        self.follower = Follower(table, me, settings, clock, emit)
        self.listeners: list[Callable[[], None]] = []
        self._clock = clock
        self._emit = emit
        self._order = order
        self._observed: dict[str, ObservedLease] = {}
        self._avoided: set[str] = set()
        self._stolen_at = -settings.steal_every
        self._size = 0
        self._mixed = 0
        self._holes = HoleWatch(emit)
        self._wake = asyncio.Event()
        self._leaving = False

    # --- what the worker calls --------------------------------------------------------------------------------------------

    def runnable(self, stream: str) -> set[str]:
        """Ids of the stream's shards that this worker may read now: leased by it, not ended, their parents ended."""
        return self.waiting(stream).keys() & self.held(stream)

    def finished_elsewhere(self, stream: str, shard_id: str) -> list[str]:
        """Ids of shards before this one that another application has read to the end, of which the commit log may not know yet."""
        return ended_by_others_before(shard_id, self.leases(stream))

    def from_its_beginning(self, stream: str, shard_id: str) -> bool:
        """Whether the shard must be read from its first record, although the stream is read from its tip.

        Its lease says so if it continues a leased shard, which another application may have read before this one began.
        """
        lease = self.leases(stream).get(shard_id)
        return self.streams[stream].start is StartKind.LATEST and lease is not None and lease.checkpoint.text == TRIM_HORIZON

    def held(self, stream: str) -> set[str]:
        """Ids of all shards whose lease this worker holds."""
        return {held.lease.shard for held in self.holdings.held.values() if held.stream == stream}

    def leases(self, stream: str) -> dict[str, Lease]:
        """The stream's leases by shard id: this worker's own as they are now, the others as last seen."""
        found = {observed.lease.shard: observed.lease for key, observed in self._observed.items() if self.streams[stream].owns(key)}
        return found | {held.lease.shard: held.lease for held in self.holdings.held.values() if held.stream == stream}

    def waiting(self, stream: str) -> dict[str, str | None]:
        """The holders of the stream's shards that may be read now: not ended, their parents ended."""
        leases = self.leases(stream)
        return {shard: lease.holder for shard, lease in leases.items() if not lease.ended and unblocked(lease, leases)}

    def first_holder(self, stream: str) -> str | None:
        """The live worker that holds the stream's first lease of those that anybody holds; None if nobody holds any."""
        owns, now = self.streams[stream].owns, self._clock.monotonic()
        observed = {key: row for key, row in self._observed.items() if owns(key)}
        for key, held in self.holdings.held.items():
            if owns(key):
                observed[key] = ObservedLease(held.lease, now, now)
        return decide.first_holder(observed, now, self.settings.failover)

    def count(self, event: events.Event) -> None:
        """An ``Emit`` that counts the traffic of each shard."""
        if isinstance(event, events.PageReceived) and (leased := self.streams.get(event.stream)) is not None:
            self.holdings.count(leased.key(event.shard), event.payload_bytes)

    def wanted_elsewhere(self, stream: str, shard_id: str) -> bool:
        """Whether work on the shard must stop at the next safe point, because a leader gives its lease to another worker."""
        held = self.holdings.held.get(self.streams[stream].key(shard_id))
        return held is not None and held.wanted is not None

    async def release(self, stream: str, shard_id: str, *, avoid: bool = False) -> None:
        """Release the shard's lease, to the worker that is to take it over, if any; with ``avoid``, never take it again in this process."""
        key = self.streams[stream].key(shard_id)
        if avoid:
            self._avoided.add(key)
        await self._give_up(key)

    async def done(self, stream: str, shard_id: str) -> None:
        """Note that the shard has been read to its end. KCL keeps its lease until the row is deleted; by our own rules it is released."""
        if not self._as_kcl():
            await self.release(stream, shard_id)

    async def seize(self, stream: str, shard_id: str) -> Lease | None:
        """Take the lease from its holder, regardless of the rules. Returns the lease as it was, or None if there is none.

        Raises:
            LeaseLost: others keep changing the row.
        """
        key = self.streams[stream].key(shard_id)
        for _ in range(SEIZE_ATTEMPTS):
            lease = await self.table.get(key)
            if lease is None:
                return None
            asked = self._clock.monotonic()
            if (taken := await self.table.take(lease, self.me)) is not None:
                self.holdings.add(stream, taken, asked)
                return lease
        msg = f"the lease {key} in table {self.table.name} changes faster than it can be taken; try again"
        raise LeaseLost(msg)

    async def stop_taking(self) -> None:
        """Take no more leases, and have none assigned; leases that are held continue to be renewed."""
        self._leaving = True
        await self.follower.leave()

    async def leave(self) -> None:
        """Take no more leases and release all of them at once."""
        await self.stop_taking()
        await run_concurrently([self._give_up(key) for key in self.holdings.held], AT_ONCE)

    async def settle_end(self, stream: str, shard_id: str) -> None:
        """Prepare the end of a shard, as ``RowKeeper.settle_end`` does."""
        await self.rows.settle_end(self.streams[stream], shard_id, self.leases(stream))
        self.scan_soon()

    def scan_soon(self) -> None:
        """Scan the table soon, because something in it has changed."""
        self._wake.set()

    # --- the life of a coordinator ----------------------------------------------------------------------------------------

    async def start(self, observed: Mapping[str, ObservedLease] | None = None) -> None:
        """Create missing rows and take free leases; after this, work can begin. ``observed``: the leases as observed before.

        Raises:
            Fatal: the table is missing, or belongs to a fleet that this worker must not join.
        """
        self._observed = dict(observed or {})
        await self.follower.refresh()
        await self.scan()
        if not self._observed:
            refuse_other_keys(self.table.name, (await self.table.scan()).leases, self.streams.values())
        await self.sync()
        await self.scan()

    async def run(self) -> None:
        """Renew leases, scan the table and clean it up until cancelled. While access is refused, leases expire, and are taken again later.

        Raises:
            Fatal: the table can no longer be used, or the fleet on it has changed to rules that this worker must not join.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self.holdings.keep_renewed(), name="renew leases")
            group.create_task(self._expiring(), name="drop expired leases")
            group.create_task(self._scanning(), name="look at leases")
            group.create_task(self._syncing(), name="create leases")
            group.create_task(self._following(), name="follow the fleet")

    async def keep(self) -> None:
        """Only renew what is held, until cancelled; for a caller that has taken a lease for the duration of one operation."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.holdings.keep_renewed(), name="renew leases")
            group.create_task(self._expiring(), name="drop expired leases")

    async def scan(self, *, consistent: bool = False) -> None:
        """Scan the table, take what the rules or the leader give to this worker, and notice rows that are gone."""
        started = self._clock.monotonic()
        scanned = await self.table.scan(consistent=consistent)
        now = self._clock.monotonic()
        self._size = scanned.size
        self._emit(events.LeasesScanned("", "", len(scanned.leases), scanned.size, now - started))
        known = [lease for lease in scanned.leases if any(each.owns(lease.key) for each in self.streams.values())]
        # Counters were read at some moment during the scan: counting from its beginning would expire leases too early.
        self._observed = decide.observe(self._observed, known, now)
        for lease in known:
            self.holdings.refresh(lease)
        await self._notice_vanished({lease.key for lease in known}, started)
        if self.follower.following:
            assigned = fleet_rules.assigned(known, self.me, self.holdings.held, self._avoided)
            await run_concurrently([self._adopt(lease) for lease in assigned], AT_ONCE)
        elif not self._leaving:
            takes = self._decide(now)
            if takes and now - started > self.settings.renew_every / 2:
                takes = await self._without_renewed(takes)
            await run_concurrently([self._take(take) for take in takes], AT_ONCE)
        self._notify()

    async def settle(self) -> None:
        """Scan the table with consistent reads, and with rows for all shards that exist now."""
        await self.scan(consistent=True)
        await self.sync()
        await self.scan(consistent=True)

    async def sync(self) -> None:
        """Create the lease rows that the shards of each stream need, remove those that are no longer needed, and look for holes."""
        for leased in self.streams.values():
            await self._keep_rows(leased, await leased.list_shards())

    # --- loops ------------------------------------------------------------------------------------------------------------

    async def _expiring(self) -> None:
        while True:
            self.holdings.expire()
            await run_concurrently([self._give_up(key) for key in self.holdings.overdue(fleet_rules.HAND_OFF_SECONDS)], AT_ONCE)
            await self._clock.sleep(self.settings.renew_every / 4)

    async def _scanning(self) -> None:
        while True:
            await self._pause(self.settings.look_after(self._size))
            await self._unless_refused(self.scan())

    async def _syncing(self) -> None:
        while True:
            await self._clock.sleep(self.settings.sync)
            for leased in self.streams.values():
                try:
                    listed = await leased.list_shards()
                except (Retryable, Fatal) as error:
                    # If the stream is gone, its readers find out, and end it; the leases of other streams must go on.
                    self._emit(events.CallRepeated(leased.stream, "", "list shards", str(error), self.settings.sync))
                else:
                    await self._unless_refused(self._keep_rows(leased, listed))

    async def _following(self) -> None:
        while True:
            await self._clock.sleep(self.follower.every)
            await self._unless_refused(self.follower.refresh(self._observed.values()))

    async def _unless_refused(self, work: Awaitable[None]) -> None:
        """Do ``work`` on the table. If access to it is refused, say so and wait: somebody has taken it away, and may give it back."""
        try:
            await work
        except AccessRefused as error:
            self._emit(events.CallRepeated("", "", "lease table", str(error), REFUSED_SECONDS))
            await self._clock.sleep(REFUSED_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Wait until ``seconds`` have passed, or a scan has been requested."""
        waiting = asyncio.ensure_future(self._wake.wait())
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait((waiting, sleeping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (waiting, sleeping):
                task.cancel()
        self._wake.clear()

    # --- steps ------------------------------------------------------------------------------------------------------------

    async def _keep_rows(self, leased: LeasedStream, listed: Sequence[Shard]) -> None:
        leases = self.leases(leased.stream)
        await self.rows.keep(leased, listed, leases, self._idle)
        self._holes.check(leased.stream, leases.values())

    def _idle(self, lease: Lease) -> bool:
        """Whether no other live worker holds the lease; a live worker removes its own rows."""
        observed = self._observed.get(lease.key)
        available = observed is None or decide.is_available(observed, self._clock.monotonic(), self.settings.failover)
        return lease.holder in {None, self.me} or available

    def _decide(self, now: float) -> list[Take]:
        steal = now - self._stolen_at >= self.settings.steal_every
        if steal:
            self._stolen_at = now
        observed = {key: row for key, row in self._observed.items() if key not in self._avoided}
        for key, held in self.holdings.held.items():
            if key in observed:
                observed[key] = ObservedLease(held.lease, max(observed[key].changed, held.renewed), observed[key].since)
        rules = decide.Rules(
            failover=self.settings.failover,
            max_leases=self.settings.max_leases,
            max_steal=1 if self._as_kcl() else STEALS,
            steal=steal,
            tenure=TENURE * self.settings.failover,
        )
        if self._as_kcl():
            takes = decide.take_as_kcl(observed, self.me, now, rules, self._order)
        else:
            takes = decide.take_evenly(observed, self.me, now, rules)
        takes = decide.marked_as_stolen(takes, observed, now, self.settings.failover)
        return [take for take in takes if take.lease.key not in self.holdings.held]

    def _as_kcl(self) -> bool:
        """Whether KCL's rules apply: by configuration, because a KCL leader assigns leases, or because KCL workers hold leases, too."""
        foreign = {observed.lease.owner for observed in self._observed.values() if observed.lease.owned_elsewhere}
        if len(foreign) != self._mixed:
            self._mixed = len(foreign)
            self._emit(events.MixedFleet("", "", self._mixed))
        return self.settings.balance is Balance.KCL or self.follower.following or bool(foreign)

    async def _take(self, take: Take) -> None:
        asked = self._clock.monotonic()
        if (taken := await self.table.take(take.lease, self.me)) is None:
            return
        if self._leaving:
            await self.table.release(taken)
            return
        stream = self._stream_of(taken.key)
        self.holdings.add(stream, taken, asked)
        self._emit(events.LeaseTaken(stream, taken.shard, take.why, take.lease.owner or ""))

    async def _adopt(self, lease: Lease) -> None:
        """Accept a lease that was assigned to this worker; a scan may be stale, so the row is read once more (as KCL does)."""
        asked = self._clock.monotonic()
        fresh = await self.table.get(lease.key)
        if fresh is None or not fleet_rules.assigned([fresh], self.me, self.holdings.held, self._avoided):
            return
        if self._leaving:
            await self.table.assign(fresh, self.follower.successor(self._observed.values()))
        elif (adopted := await self.table.adopt(fresh)) is not None:
            self.holdings.add(self._stream_of(lease.key), adopted, asked)
            self._emit(events.LeaseTaken(self._stream_of(lease.key), lease.shard, decide.Why.ASSIGNED, lease.signed or ""))

    async def _give_up(self, key: str) -> None:
        await self.holdings.release(key, self.follower.successor(self._observed.values()))

    async def _without_renewed(self, takes: Iterable[Take]) -> list[Take]:
        """``takes`` without leases that were renewed since: a long scan may be stale (KCL also re-reads before it steals)."""
        still_valid = []
        for take in takes:
            row = await self.table.get(take.lease.key)
            if row is not None and (row.counter == take.lease.counter or take.why is decide.Why.STOLEN) and row.owner == take.lease.owner:
                still_valid.append(Take(row, take.why))
        return still_valid

    async def _notice_vanished(self, scanned: set[str], started: float) -> None:
        missing = [key for key, held in self.holdings.held.items() if key not in scanned and held.renewed < started - self.settings.look]
        for key in missing:
            held = self.holdings.held.get(key)
            if held is not None and await self.table.get(key) is None:
                self._emit(events.LeaseVanished(held.stream, held.lease.shard, key))
                self.holdings.drop(key, "vanished")

    def _stream_of(self, key: str) -> str:
        return next(each.stream for each in self.streams.values() if each.owns(key))

    def _notify(self) -> None:
        for listener in self.listeners:
            listener()
