"""Takes the leases that the rules, or the leader of a KCL 3.x fleet, give to this worker.

Which leases these are is decided in ``decide.py`` and ``fleet_rules.py``; this file carries the decisions out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from stream import events
from stream.concurrency import run_concurrently
from stream.contracts import Clock, Emit
from stream.lease import access, decide, fleet_rules
from stream.lease.decide import ObservedLease, Take
from stream.lease.follower import Follower
from stream.lease.holding import AT_ONCE
from stream.lease.rows import Lease
from stream.lease.settings import Balance
from stream.lease.table import LeaseTable
from stream.lease.view import LeaseView

STEALS: Final = 8
"""Most leases that ``balance: even`` moves to one worker per round."""

TENURE: Final = 6.0
"""Failover times for which a lease stays after a move: each move costs the work in progress."""


_RENEWED: Final = {decide.Why.STOLEN, decide.Why.REFUSED}
"""Reasons for taking a lease that its owner renews."""


class LeaseTaker:
    """Takes leases for the worker ``me`` until it is told to stop. ``order`` shuffles candidates."""

    def __init__(
        self,
        table: LeaseTable,
        me: str,
        view: LeaseView,
        follower: Follower,
        clock: Clock,
        emit: Emit,
        order: decide.Order,
        known: access.AccessRecord,
    ) -> None:
        self._table = table
        self._me = me
        self._view = view
        self._follower = follower
        self._clock = clock
        self._emit = emit
        self._order = order
        self._known = known
        self._avoided: set[str] = set()
        self._stolen_at = -view.settings.steal_every
        self._mixed = 0
        self._stopped = False

    def avoid(self, key: str) -> None:
        """Never take the lease ``key`` again in this process."""
        self._avoided.add(key)

    def stop(self) -> None:
        """Take nothing more; what a leader still assigns is passed on."""
        self._stopped = True

    def follows_kcl(self) -> bool:
        """Whether KCL's rules apply: by configuration, because a KCL leader assigns leases, or because KCL workers hold leases, too."""
        foreign = {observed.lease.owner for observed in self._view.observed.values() if observed.lease.owned_elsewhere}
        if len(foreign) != self._mixed:
            self._mixed = len(foreign)
            self._emit(events.MixedFleet("", "", self._mixed))
        return self._view.settings.balance is Balance.KCL or self._follower.following or bool(foreign)

    async def take_due(self, scanned: Sequence[Lease], started: float, now: float) -> None:
        """Take what is due to this worker after a scan that was ``started`` and ended ``now`` (monotonic) and found ``scanned``."""
        if self._follower.following:
            assigned = fleet_rules.assigned(scanned, self._me, self._view.holdings.held, self._avoided)
            await run_concurrently([self._adopt(lease) for lease in assigned], AT_ONCE)
        elif not self._stopped:
            takes = self._decide(now)
            if takes and now - started > self._view.settings.renew_every / 2:
                takes = await self._without_renewed(takes)
            await run_concurrently([self._take(take) for take in takes], AT_ONCE)

    def _decide(self, now: float) -> list[Take]:
        view, settings = self._view, self._view.settings
        steal = now - self._stolen_at >= settings.steal_every
        if steal:
            self._stolen_at = now
        seen = {key: row for key, row in view.observed.items() if key not in self._avoided}
        for key, held in view.holdings.held.items():
            if key in seen:
                seen[key] = ObservedLease(held.lease, max(seen[key].changed, held.renewed), seen[key].since)
        observed = access.within_reach(seen, self._me, now, settings.failover, self._known, view.stream_of)
        as_kcl = self.follows_kcl()
        rules = decide.Rules(
            failover=settings.failover,
            max_leases=settings.max_leases,
            max_steal=1 if as_kcl or self._known.in_doubt else STEALS,
            steal=steal,
            tenure=TENURE * settings.failover,
        )
        if as_kcl:
            takes = decide.take_as_kcl(observed, self._me, now, rules, self._order)
        else:
            takes = decide.take_evenly(observed, self._me, now, rules)
        takes = decide.marked_as_stolen(takes, seen, now, settings.failover)
        return [take for take in takes if take.lease.key not in view.holdings.held]

    async def _take(self, take: Take) -> None:
        asked, stream = self._clock.monotonic(), self._view.stream_of(take.lease.key)
        if (taken := await self._table.take(take.lease, self._me)) is None:
            return
        if self._stopped or not self._view.streams[stream].owns(taken.key):
            await self._table.release(taken)
            return
        # The row of a lease that expired or was released still says so if its last holder had no access.
        inherited = take.why is decide.Why.REFUSED or take.lease.refused is not None
        if take.why is decide.Why.REFUSED or (take.why is decide.Why.STOLEN and self._known.in_doubt):
            self._known.attempt(stream, asked)
        self._view.holdings.add(stream, taken, asked, inherited=inherited)
        self._emit(events.LeaseTaken(stream, taken.shard, take.why, take.lease.owner or ""))

    async def _adopt(self, lease: Lease) -> None:
        """Accept a lease that was assigned to this worker; a scan may be stale, so the row is read once more (as KCL does)."""
        asked, stream = self._clock.monotonic(), self._view.stream_of(lease.key)
        fresh = await self._table.get(lease.key)
        if fresh is None or not fleet_rules.assigned([fresh], self._me, self._view.holdings.held, self._avoided):
            return
        if self._stopped or not self._view.streams[stream].owns(lease.key):
            await self._table.assign(fresh, self._follower.successor(self._view.observed.values()))
        elif (adopted := await self._table.adopt(fresh)) is not None:
            self._view.holdings.add(stream, adopted, asked)
            self._emit(events.LeaseTaken(stream, lease.shard, decide.Why.ASSIGNED, lease.signed or ""))

    async def _without_renewed(self, takes: Iterable[Take]) -> list[Take]:
        """``takes`` without leases that were renewed since: a long scan may be stale (KCL also re-reads before it steals)."""
        still_valid = []
        for take in takes:
            row = await self._table.get(take.lease.key)
            if row is not None and (row.counter == take.lease.counter or take.why in _RENEWED) and row.owner == take.lease.owner:
                still_valid.append(Take(row, take.why))
        return still_valid
