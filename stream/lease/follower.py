"""This worker's part in a KCL 3.x fleet: reports its presence, watches the leader, and hands its leases over when it leaves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

from stream import events
from stream.aws.errors import AwsRetryable
from stream.contracts import Clock, Emit
from stream.errors import Fatal
from stream.lease import fleet_rules
from stream.lease.decide import ObservedLease
from stream.lease.fleet import ATTEMPTS, FleetTables, MigrationState
from stream.lease.fleet_rules import FleetView
from stream.lease.settings import LeaseSettings
from stream.lease.table import LeaseTable

LOOK_SECONDS: Final = 10.0
"""Seconds between looks if there may be a leader: a third of KCL's reporting interval."""


class Follower:
    """Follows the fleet's leader. ``following``: a leader assigns leases, so this worker must take none by itself."""

    def __init__(self, table: LeaseTable, me: str, settings: LeaseSettings, clock: Clock, emit: Emit) -> None:
        self.following = False
        self.every = settings.sync
        self._me = me
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self._table_name = table.name
        self._tables = FleetTables(table, clock, emit, settings.fleet_tables)
        self._migration = MigrationState()
        self._fleet = FleetView()
        self._reported = False
        self._leaving = False
        self._left = False
        self._handed_over: Counter[str] = Counter()
        self._report_lock = asyncio.Lock()

    @property
    def fleet_lives(self) -> bool:
        """Whether the leader or another KCL worker was seen to be alive since the first look."""
        return fleet_rules.seen_alive(self._fleet)

    async def refresh(self, observed: Iterable[ObservedLease] = (), *, report: bool = True) -> None:
        """Find out whose rules apply, and report if the fleet's workers do; ``observed``: the leases as last observed.

        Without ``report``, the leader does not learn of this worker, and assigns nothing to it.

        Raises:
            Fatal: rules that this build does not know, or a table that this worker may not use.
        """
        self._migration = await self._tables.migration_state()
        if (why := fleet_rules.refusal(self._table_name, self._migration.version)) is not None:
            raise Fatal(why)
        if fleet_rules.reports(self._migration.version):
            if report:
                await self._report()
            leader, members = await self._tables.leader(self._migration), await self._tables.members(self._migration)
            self._fleet = fleet_rules.observe(self._fleet, leader, members, self._clock.monotonic())
            self.every = min(LOOK_SECONDS, self._settings.sync)
        else:
            async with self._report_lock:
                await self._withdraw()
            self._fleet, self.every = FleetView(), self._settings.sync
        now = self._clock.monotonic()
        following = fleet_rules.follows(
            self._migration.version, self._fleet, fleet_rules.dead_workers(observed, now, self._settings.failover), now
        )
        if following != self.following:
            self.following = following
            worker = self._fleet.leader.worker if following and self._fleet.leader is not None else ""
            self._emit(events.FleetLed("", "", following, worker))

    async def leave(self) -> None:
        """Stop reporting, withdraw the last report, and list the other workers. After this, the leader assigns it few leases or none."""
        self._leaving = True
        async with self._report_lock:
            if self._left:
                return
            await self._withdraw()
            if self.following:
                with suppress(AwsRetryable):
                    members = await self._tables.members(self._migration, ATTEMPTS)
                    self._fleet = fleet_rules.observe(self._fleet, self._fleet.leader, members, self._clock.monotonic())
            self._left = True

    def successor(self, observed: Collection[ObservedLease]) -> str | None:
        """The worker that gets the next lease that this one releases; None if it is simply released."""
        if not (self.following and self._leaving):
            return None
        now = self._clock.monotonic()
        chosen = fleet_rules.successor(self._fleet, observed, self._handed_over, self._me, now, self._settings.failover)
        if chosen is not None:
            self._handed_over[chosen] += 1
        return chosen

    async def _report(self) -> None:
        async with self._report_lock:
            if not self._leaving:
                with suppress(AwsRetryable):
                    await self._tables.report(self._migration, self._me, first=not self._reported)
                self._reported = True

    async def _withdraw(self) -> None:
        if self._reported:
            with suppress(AwsRetryable):
                await self._tables.withdraw(self._migration, self._me)
            self._reported = False
