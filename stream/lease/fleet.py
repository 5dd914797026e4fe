"""Which kind of fleet owns a lease table, so that no two kinds of balancing ever fight over it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from stream.aws.errors import AwsFatal, AwsRetryable
from stream.contracts import Clock
from stream.errors import Fatal
from stream.lease.table import RETRY_SECONDS, LeaseTable

MIGRATION: Final = "Migration3.0"
"""Key of the row in which KCL 3.x keeps which version's rules the fleet follows."""


class Version(StrEnum):
    """Values of its attribute ``cv`` (KCL ``ClientVersion``)."""

    INIT = "CLIENT_VERSION_INIT"
    TWO = "CLIENT_VERSION_2X"
    UPGRADING = "CLIENT_VERSION_UPGRADE_FROM_2X"
    THREE_WITH_ROLLBACK = "CLIENT_VERSION_3X_WITH_ROLLBACK"
    THREE = "CLIENT_VERSION_3X"


_TAKERS: Final = {None, Version.INIT, Version.TWO, Version.UPGRADING}


def refusal(table: str, version: str | None) -> str | None:
    """Why this worker must not take leases from ``table``, or None if it may. ``version``: what ``cv`` says, None without such a row."""
    if version in _TAKERS:
        return None
    known = version in list(Version)
    what = (
        "is run by KCL 3.x, whose leader assigns leases" if known else f"says that it follows the rules `{version}`, which are unknown here"
    )
    return (
        f"the lease table {table} {what}; a worker that takes leases by itself would fight with it. Stop the KCL fleet and set it back to "
        f"2.x (KclMigrationTool, or delete the row {MIGRATION}), or give this pipeline a lease table of its own (coordination.native.table)"
    )


async def fleet_version(table: LeaseTable, clock: Clock) -> str | None:
    """``cv`` of the fleet on ``table``: KCL 3.0 to 3.4 keep it in ``<table>-CoordinatorState``, 3.5 in the lease table itself."""
    own = await table.item(MIGRATION)
    if own is not None:
        return _text(own)
    answer: dict[str, Any] = {}
    while True:
        try:
            request = {"Key": {"key": {"S": MIGRATION}}, "ConsistentRead": True}
            answer = await table.client.call("GetItem", f"{table.name}-CoordinatorState", request)
        except AwsRetryable as error:
            await clock.sleep(error.retry_after or RETRY_SECONDS)
            continue
        except AwsFatal:
            # No such table, or a role that was never allowed to read one: either way nobody set this worker up beside a KCL 3.x fleet.
            return None
        return _text(answer["Item"]) if "Item" in answer else None


async def refuse_foreign_fleet(table: LeaseTable, clock: Clock) -> None:
    """Check that leases of ``table`` may be taken.

    Raises:
        Fatal: they are assigned by the leader of a KCL 3.x fleet, or by rules that this build does not know.
    """
    if (why := refusal(table.name, await fleet_version(table, clock))) is not None:
        raise Fatal(why)


def _text(item: dict[str, dict[str, Any]]) -> str | None:
    found: str | None = item.get("cv", {}).get("S")
    return found
