"""Decisions of a worker in a KCL 3.x fleet, whose leader assigns leases: whether to follow, what to work on, who inherits leases. Pure.

Clocks of other machines are never compared: a leader or a worker is alive as long as this worker sees its row change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from stream.lease.decide import Seen, is_available
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
    """The holder of the leader lock. ``beat`` changes with each heartbeat; the lock is free ``duration`` seconds after the last one."""

    worker: str
    beat: str
    duration: float


@dataclass(frozen=True, slots=True)
class Member:
    """A worker that has reported; ``beat`` changes with each report. ``ours``: it runs this service."""

    worker: str
    beat: str
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """A ``beat`` and the monotonic time at which it was first seen; ``moved``: a different one had been seen before."""

    beat: str
    at: float
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Roster:
    """The fleet as observed: its leader, and its workers by name."""

    leader: Leader | None = None
    leader_heard: Heard | None = None
    members: Mapping[str, Member] = field(default_factory=dict)
    heard: Mapping[str, Heard] = field(default_factory=dict)


def observe(before: Roster, leader: Leader | None, members: Iterable[Member], now: float) -> Roster:
    """The fleet as observed at ``now``."""
    present = {member.worker: member for member in members}
    same_leader = leader is not None and before.leader is not None and leader.worker == before.leader.worker
    return Roster(
        leader=leader,
        leader_heard=None if leader is None else _heard(before.leader_heard if same_leader else None, leader.beat, now),
        members=present,
        heard={worker: _heard(before.heard.get(worker), member.beat, now) for worker, member in present.items()},
    )


def _heard(before: Heard | None, beat: str, now: float) -> Heard:
    if before is None:
        return Heard(beat, now)
    return before if before.beat == beat else Heard(beat, now, moved=True)


def alive(roster: Roster, worker: str, now: float) -> bool:
    """Whether the worker has reported recently."""
    heard = roster.heard.get(worker)
    return heard is not None and now - heard.at < (ALIVE_SECONDS if heard.moved else FIRST_LOOK_SECONDS)


def leads(roster: Roster, now: float) -> bool:
    """Whether the leader lock is held: its duration has not passed, so nobody else can have taken it."""
    leader, heard = roster.leader, roster.leader_heard
    return leader is not None and heard is not None and now - heard.at < leader.duration


def idlers(seen: Iterable[Seen], now: float, failover: float) -> set[str]:
    """Workers all of whose leases have expired: they are dead, whatever they reported last."""
    owners: dict[str, bool] = {}
    for row in seen:
        if row.lease.holder is not None:
            owners[row.lease.holder] = owners.get(row.lease.holder, True) and is_available(row, now, failover)
    return {owner for owner, idle in owners.items() if idle}


def follows(version: str | None, roster: Roster, idle: Collection[str], now: float) -> bool:
    """Whether leases are assigned to this worker, so that it must take none by itself.

    True in a 3.x fleet while it has a leader or a live KCL worker that can become the leader: between two leaders nobody assigns leases,
    and a worker that took some then would fight with the next leader. A table that no KCL worker uses any more belongs to our workers
    alone.
    """
    if version in _TAKERS:
        return False
    kcl = (name for name, member in roster.members.items() if not member.ours)
    return leads(roster, now) or any(alive(roster, name, now) and name not in idle for name in kcl)


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


def heir(roster: Roster, seen: Collection[Seen], handed_over: Mapping[str, int], me: str, now: float, failover: float) -> str | None:
    """The worker to which a leaving worker gives a lease: as the leader would choose, the least loaded live one; None if there is none.

    ``handed_over``: how many leases this worker has already given to each. Among equals, our own workers come first: they look more often.
    """
    counts, idle = Counter(handed_over), idlers(seen, now, failover)
    counts.update(row.lease.owner for row in seen if row.lease.owner is not None and not row.lease.ended)
    candidates = [member for name, member in roster.members.items() if name != me and alive(roster, name, now) and name not in idle]
    chosen = min(candidates, key=lambda member: (counts[member.worker], not member.ours, member.worker), default=None)
    return None if chosen is None else chosen.worker
