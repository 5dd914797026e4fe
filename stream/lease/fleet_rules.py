"""Decides what a worker does in a KCL 3.x fleet, whose leader assigns leases: follow or not, and to whom to hand over when leaving. Pure.

Clocks of other machines are never compared: a leader or a worker is alive as long as this worker sees its row change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from stream.lease.decide import ObservedLease, is_available
from stream.lease.rows import Lease

REPORT_SECONDS: Final = 30.0
"""Seconds between two reports of a KCL worker (``workerMetricsReporterFreqInMillis``)."""

ALIVE_SECONDS: Final = 2 * REPORT_SECONDS
"""Seconds without a report after which a worker gets no more leases (``LeaseAssignmentManager``)."""

FIRST_LOOK_SECONDS: Final = 1.5 * REPORT_SECONDS
"""Seconds in which a report that existed before this worker started must be replaced: a live worker replaces it within one interval."""

HAND_OFF_SECONDS: Final = 30.0
"""Seconds in which a worker must finish a graceful hand-off (``gracefulLeaseHandoffTimeoutMillis``), or the leader takes the lease."""


class Version(StrEnum):
    """Values of the attribute ``cv`` of the row ``Migration3.0`` (KCL ``ClientVersion``)."""

    INIT = "CLIENT_VERSION_INIT"
    TWO = "CLIENT_VERSION_2X"
    UPGRADING = "CLIENT_VERSION_UPGRADE_FROM_2X"
    THREE_WITH_ROLLBACK = "CLIENT_VERSION_3X_WITH_ROLLBACK"
    THREE = "CLIENT_VERSION_3X"


_TAKERS: Final = {None, Version.INIT, Version.TWO, Version.UPGRADING}
_REPORTERS: Final = {Version.UPGRADING, Version.THREE_WITH_ROLLBACK, Version.THREE}


def refusal(table: str, version: str | None) -> str | None:
    """Why this worker must not join the fleet on ``table``, or None if it may. ``version``: what ``cv`` says, None without such a row."""
    if version is None or version in list(Version):
        return None
    return (
        f"the lease table {table} follows the rules `{version}`, which this build does not know (it knows {', '.join(Version)}). A worker "
        "that takes leases by other rules would fight with the rest. Update this service, or give this pipeline its own lease table "
        "(coordination.native.table)"
    )


def reports(version: str | None) -> bool:
    """Whether workers of the fleet report regularly; KCL's leader does not leave 2.x before all of them do."""
    return version in _REPORTERS


@dataclass(frozen=True, slots=True)
class Leader:
    """The holder of the leader lock. ``heartbeat`` changes with each renewal; the lock is free ``duration`` seconds after the last one."""

    worker: str
    heartbeat: str
    duration: float


@dataclass(frozen=True, slots=True)
class Member:
    """A worker that has reported; ``heartbeat`` changes with each report. ``ours``: it runs this service."""

    worker: str
    heartbeat: str
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A heartbeat's ``value`` and the monotonic time at which it was first seen; ``has_changed``: a different one had been seen before."""

    value: str
    at: float
    has_changed: bool = False


@dataclass(frozen=True, slots=True)
class FleetView:
    """The fleet as observed: its leader, and its workers by name."""

    leader: Leader | None = None
    leader_heartbeat: Heartbeat | None = None
    members: Mapping[str, Member] = field(default_factory=dict)
    heartbeats: Mapping[str, Heartbeat] = field(default_factory=dict)


def observe(before: FleetView, leader: Leader | None, members: Iterable[Member], now: float) -> FleetView:
    """The fleet as observed at ``now``."""
    present = {member.worker: member for member in members}
    same_leader = leader is not None and before.leader is not None and leader.worker == before.leader.worker
    return FleetView(
        leader=leader,
        leader_heartbeat=None if leader is None else _heartbeat(before.leader_heartbeat if same_leader else None, leader.heartbeat, now),
        members=present,
        heartbeats={worker: _heartbeat(before.heartbeats.get(worker), member.heartbeat, now) for worker, member in present.items()},
    )


def _heartbeat(before: Heartbeat | None, value: str, now: float) -> Heartbeat:
    if before is None:
        return Heartbeat(value, now)
    return before if before.value == value else Heartbeat(value, now, has_changed=True)


def alive(fleet: FleetView, worker: str, now: float) -> bool:
    """Whether the worker has reported recently."""
    last = fleet.heartbeats.get(worker)
    return last is not None and now - last.at < (ALIVE_SECONDS if last.has_changed else FIRST_LOOK_SECONDS)


def seen_alive(fleet: FleetView) -> bool:
    """Whether the leader's lock, or the report of a KCL worker, has changed while this worker looked."""
    theirs = [last for name, last in fleet.heartbeats.items() if not fleet.members[name].ours]
    return any(last.has_changed for last in (*theirs, fleet.leader_heartbeat) if last is not None)


def leads(fleet: FleetView, now: float) -> bool:
    """Whether the leader lock is held: its duration has not passed, so nobody else can have taken it."""
    leader, last = fleet.leader, fleet.leader_heartbeat
    return leader is not None and last is not None and now - last.at < leader.duration


def dead_workers(observed: Iterable[ObservedLease], now: float, failover: float) -> set[str]:
    """Workers all of whose leases have expired: they are dead, whatever they reported last."""
    owners: dict[str, bool] = {}
    for row in observed:
        if row.lease.holder is not None:
            owners[row.lease.holder] = owners.get(row.lease.holder, True) and is_available(row, now, failover)
    return {owner for owner, dead in owners.items() if dead}


def follows(version: str | None, fleet: FleetView, dead: Collection[str], now: float) -> bool:
    """Whether leases are assigned to this worker, so that it must take none by itself.

    True in a 3.x fleet while it has a leader or a live KCL worker that can become the leader: between two leaders nobody assigns leases,
    and a worker that took some then would fight with the next leader. A table that no KCL worker uses any more belongs to our workers
    alone.
    """
    if version in _TAKERS:
        return False
    kcl = (name for name, member in fleet.members.items() if not member.ours)
    return leads(fleet, now) or any(alive(fleet, name, now) and name not in dead for name in kcl)


def assigned(leases: Iterable[Lease], me: str, held: Collection[str], avoided: Collection[str]) -> list[Lease]:
    """Leases that were assigned to this worker and released by their previous owners, but that it does not work on yet."""
    return [
        lease
        for lease in leases
        if lease.owner == me and lease.checkpoint_owner is None and lease.key not in held and lease.key not in avoided
    ]


def wanted_elsewhere(lease: Lease, me: str) -> bool:
    """Whether this worker must release a lease that it still holds, because the leader has named the next owner."""
    return lease.checkpoint_owner == me and lease.owner is not None and lease.owner != me


def successor(
    fleet: FleetView, observed: Collection[ObservedLease], handed_over: Mapping[str, int], me: str, now: float, failover: float
) -> str | None:
    """The worker to which a leaving worker gives a lease: as the leader would choose, the least loaded live one; None if there is none.

    ``handed_over``: how many leases this worker has already given to each. Among equals, our own workers come first: they look more often.
    """
    counts, dead = Counter(handed_over), dead_workers(observed, now, failover)
    counts.update(row.lease.owner for row in observed if row.lease.owner is not None and not row.lease.ended)
    candidates = [member for name, member in fleet.members.items() if name != me and alive(fleet, name, now) and name not in dead]
    chosen = min(candidates, key=lambda member: (counts[member.worker], not member.ours, member.worker), default=None)
    return None if chosen is None else chosen.worker
