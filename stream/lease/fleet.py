"""What KCL 3.x stores about a fleet besides its leases: which version's rules apply, the leader, and the workers.

KCL 3.0 to 3.4 keep this in ``<table>-CoordinatorState`` and ``<table>-WorkerMetricStats``, 3.5 in the lease table itself, to which it moves
a fleet step by step. A lease table of KCL 2.x must contain none of it: one row that is not a lease stops all of its takers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import stream
from stream import events
from stream.aws.dynamodb import ConditionFailed, Item
from stream.aws.errors import NOT_FOUND, AwsFatal, AwsRetryable
from stream.contracts import Clock, Emit
from stream.lease.fleet_rules import Leader, Member
from stream.lease.table import LeaseTable, retry_pause

MIGRATION: Final = "Migration3.0"
"""Key of the row that says which KCL version's rules the fleet follows."""

TABLE_MIGRATION: Final = "TableMigration3.5"
LEADER: Final = "Leader"
IN_LEASE_TABLE: Final = {"TABLE_MIGRATION_STATUS_PENDING", "TABLE_MIGRATION_STATUS_COMPLETE"}
"""Migration states in which workers write their reports to the lease table (KCL 3.5)."""

OURS: Final = "sxVersion"
"""Attribute that marks our workers' reports; the KCL ignores attributes it does not know."""

ATTEMPTS: Final = 10
"""Attempts at a call whose result is useful but not essential, and that somebody is waiting for."""


@dataclass(frozen=True, slots=True)
class MigrationState:
    """Which KCL version's rules the fleet follows (``cv``; None without such a row), and whether everything is in the lease table."""

    version: str | None = None
    in_lease_table: bool = False


class FleetTables:
    """Reads and writes the fleet's state. ``fleet_tables``: names of the two other tables, if they are not named after ``table``."""

    def __init__(self, table: LeaseTable, clock: Clock, emit: Emit, fleet_tables: tuple[str, str] | None = None) -> None:
        self._leases = table
        self._clock = clock
        self._emit = emit
        self._state, self._reports = fleet_tables or (f"{table.name}-CoordinatorState", f"{table.name}-WorkerMetricStats")

    async def migration_state(self) -> MigrationState:
        """The version whose rules the fleet follows now, and where it keeps its state. Without a table for it, there is no fleet.

        Raises:
            AwsFatal: the fleet's state may not be read.
        """
        own = await self._leases.item(MIGRATION)
        other = await self._state_of(MIGRATION)
        found = own if own is not None else other
        if found is None:
            return MigrationState()
        moved = await self._leases.item(TABLE_MIGRATION) or (None if other is None else await self._state_of(TABLE_MIGRATION))
        in_lease_table = _text(moved, "tm") in IN_LEASE_TABLE if moved is not None else other is None
        return MigrationState(_text(found, "cv"), in_lease_table)

    async def leader(self, migration: MigrationState) -> Leader | None:
        """The holder of the leader lock; None if it is free (a leader that stops cleanly removes it)."""
        item = await self._leases.item(LEADER) if migration.in_lease_table else await self._state_of(LEADER)
        if item is None or _text(item, "isReleased") == "1":
            return None
        duration = _text(item, "leaseDuration") or "0"
        return Leader(_text(item, "ownerName") or "", _text(item, "recordVersionNumber") or "", float(duration) / 1000)

    async def members(self, migration: MigrationState, attempts: int | None = None) -> list[Member]:
        """Every worker that has a report, however old.

        Raises:
            AwsRetryable: none of ``attempts`` calls was answered.
        """
        key, table = ("leaseKey", self._leases.name) if migration.in_lease_table else ("wid", self._reports)
        return [
            Member(item[key]["S"], item["lut"]["N"], ours=OURS in item)
            async for item in self._rows(table, attempts)
            if "lut" in item and item.get("entityType", {"S": "WORKER_METRIC_STATS"}).get("S") == "WORKER_METRIC_STATS"
        ]

    async def report(self, migration: MigrationState, me: str, *, first: bool) -> None:
        """Report this worker's presence, without CPU figures, so that the leader balances by traffic.

        Only the ``first`` report creates a row: a later one that arrives after ``withdraw`` must not re-create it.

        Raises:
            AwsRetryable: there was no answer; the next report will do.
        """
        table, key = self._place(migration, me)
        values: dict[str, Any] = {
            ":now": {"N": str(int(self._clock.now().timestamp()))},
            ":none": {"M": {}},
            ":ours": {"S": stream.__version__},
        }
        update = f"SET lut = :now, sts = :none, opr = :none, {OURS} = :ours"
        if migration.in_lease_table:
            update += ", entityType = :entity"
            values[":entity"] = {"S": "WORKER_METRIC_STATS"}
        request = {"Key": key, "UpdateExpression": update, "ExpressionAttributeValues": values}
        if not first:
            request |= {"ConditionExpression": "attribute_exists(lut)"}
        try:
            await self._patiently("UpdateItem", table, request, ATTEMPTS)
        except ConditionFailed:
            # The KCL removes the row of a worker that it considers dead.
            await self._patiently("UpdateItem", table, {name: request[name] for name in request if name != "ConditionExpression"}, ATTEMPTS)

    async def withdraw(self, migration: MigrationState, me: str) -> None:
        """Withdraw the report, so that nothing more is assigned to this worker.

        Raises:
            AwsRetryable: there was no answer; the leader finds out by itself, within a minute.
        """
        table, key = self._place(migration, me)
        await self._patiently("DeleteItem", table, {"Key": key}, ATTEMPTS)

    def _place(self, migration: MigrationState, me: str) -> tuple[str, dict[str, Any]]:
        return (self._leases.name, {"leaseKey": {"S": me}}) if migration.in_lease_table else (self._reports, {"wid": {"S": me}})

    async def _state_of(self, key: str) -> Item | None:
        request = {"Key": {"key": {"S": key}}, "ConsistentRead": True}
        try:
            answer = await self._patiently("GetItem", self._state, request)
        except AwsFatal as error:
            if error.code == NOT_FOUND:
                return None
            msg = f"it cannot be seen whether a KCL 3.x fleet owns the lease table {self._leases.name}, so no lease is taken: {error}"
            raise type(error)(msg, code=error.code, remedy=error.remedy) from error
        found: Item | None = answer.get("Item")
        return found

    async def _rows(self, table: str, attempts: int | None) -> AsyncIterator[Item]:
        request: dict[str, Any] = {}
        while True:
            answer = await self._patiently("Scan", table, request, attempts)
            for item in answer["Items"]:
                yield item
            if "LastEvaluatedKey" not in answer:
                return
            request = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def _patiently(self, operation: str, table: str, request: Mapping[str, Any], attempts: int | None = None) -> dict[str, Any]:
        """Make an idempotent call, and retry it until it is answered or ``attempts`` calls were made."""
        attempt = 0
        while True:
            try:
                return await self._leases.client.call(operation, table, request)
            except AwsRetryable as error:
                attempt += 1
                if attempt == attempts:
                    raise
                pause = retry_pause(error, attempt, table)
                self._emit(events.CallRepeated("", "", f"fleet {operation}", str(error), pause))
                await self._clock.sleep(pause)


def _text(item: Item | None, name: str) -> str | None:
    found: str | None = None if item is None else item.get(name, {}).get("S")
    return found
