"""What is found in a snapshot: each limit from just below and just above, one finding for one cause, the worst first."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.eks.monitoring.alerts import ALERTS, anchor
from stream.audit.completeness import State, Unclaimed
from stream.commit.manifest import Kind
from stream.metrics import thresholds
from stream.operations.progress.backlog import LastClaim
from stream.operations.status.finding import DETAILS, Finding, Harm, length
from stream.operations.status.rules import judge, verdict
from stream.operations.status.snapshot import (
    LEASE_ROW,
    DeadLetters,
    Exported,
    ObjectsStatus,
    Parked,
    ShardStatus,
    Snapshot,
    TableStatus,
    Unread,
)
from stream.worker.halts.note import Halt
from tests.docs.generate import ROOT

NOW = datetime(2026, 1, 1, 3, tzinfo=UTC)
AGE = timedelta(minutes=1)
DAY = timedelta(days=1)
NOTHING = Unclaimed()


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def shard(number: int = 0, **changes: Any) -> ShardStatus:
    """A shard that is all right, but for ``changes``."""
    usual = ShardStatus(
        f"shardId-{number:012}",
        True,
        State.COMPLETE,
        reach=ago(5),
        sealed_at=ago(30),
        last=Kind.UNIT,
        leased=True,
        owner="w1",
        renewed=ago(2),
    )
    return replace(usual, **changes)


def waiting(seconds: float, number: int = 0, **changes: Any) -> ShardStatus:
    """A shard whose oldest unsealed record has waited for so long."""
    return shard(number, **{"state": State.UNSEALED, "unread": ago(seconds), "reach": ago(seconds + 5)} | changes)


def snapshot_of(*shards: ShardStatus, **changes: Any) -> Snapshot:
    usual = Snapshot("numbers", NOW, AGE, retention=DAY, failover=10.0, shards=shards or (shard(),))
    return replace(usual, **changes)


def codes(snapshot: Snapshot) -> list[str]:
    return [finding.code for finding in judge(snapshot)]


def test_a_halt_for_dead_letters_leads_to_the_records_and_any_other_to_the_doctor() -> None:
    dead = Halt("numbers/shardId-000000000000: 60 of 60 records after 7 would become dead letters, most of them", "w1", ago(9))
    other = Halt("bad", "w1", ago(9))
    preview, doctor = "stream preview FILE --unsealed", "stream doctor FILE"

    def commands(*halts: Halt) -> tuple[str, ...]:
        (finding,) = judge(snapshot_of(*(shard(number, halt=halt) for number, halt in enumerate(halts))))
        return finding.commands

    assert commands(dead, dead) == (preview,)
    assert commands(other) == (doctor,)
    assert commands(other, dead) == (preview, doctor)


def test_nothing_is_wrong() -> None:
    assert judge(snapshot_of()) == []
    assert verdict([]) is Harm.HEALTHY


BEHIND = thresholds.BEHIND_SECONDS + AGE.total_seconds()
EXPIRING = thresholds.RETENTION_SHARE * DAY.total_seconds()
LETTERS = DeadLetters(ago(3600), 10, 1000, 0)


HALTED = Halt("401", "w1", ago(1))


def fresh(seconds: float) -> Unclaimed:
    return Unclaimed(fresh=2, fresh_since=ago(seconds))


def claimed(seconds: float) -> LastClaim:
    return LastClaim(3, "w1", ago(seconds), 1)


def objects(unclaimed: Unclaimed = NOTHING, *, watched: bool = True, **more: Any) -> ObjectsStatus:
    """Objects that are listed every minute."""
    return ObjectsStatus(watched, thresholds.BEHIND_SECONDS + 60, unclaimed, **more)


def test_a_halted_export_is_not_also_reported_as_late() -> None:
    late = ago(thresholds.EXPORT_LAG_SECONDS + 1)
    assert codes(snapshot_of(exported=Exported(1, late, (("s", HALTED),)))) == ["export_halted"]
    assert codes(snapshot_of(exported=Exported(2, late, (("s", HALTED),)))) == ["export_halted", "export_lag"]


@pytest.mark.parametrize(
    ("code", "harm", "fine", "bad"),
    [
        ("behind", Harm.BEHIND, snapshot_of(waiting(BEHIND)), snapshot_of(waiting(BEHIND + 1))),
        (
            "not_sealing",
            Harm.STUCK,
            snapshot_of(waiting(2000, sealed_at=ago(thresholds.UNSEALED_SECONDS))),
            snapshot_of(waiting(2000, sealed_at=ago(thresholds.UNSEALED_SECONDS + 1))),
        ),
        (
            "not_sealing",
            Harm.STUCK,
            snapshot_of(waiting(thresholds.UNSEALED_SECONDS, sealed_at=None)),
            snapshot_of(waiting(901, sealed_at=None)),
        ),
        ("expiring", Harm.EXPIRING, snapshot_of(waiting(EXPIRING)), snapshot_of(waiting(EXPIRING + 1))),
        ("records_expired", Harm.LOST, snapshot_of(shard(state=State.EARLY)), snapshot_of(shard(state=State.EXPIRED, why="gone"))),
        ("no_worker", Harm.STUCK, snapshot_of(shard(renewed=ago(60))), snapshot_of(shard(renewed=ago(61)))),
        ("no_worker", Harm.STUCK, snapshot_of(shard(renewed=ago(90)), failover=30.0), snapshot_of(shard(renewed=ago(91)), failover=30.0)),
        ("no_worker", Harm.STUCK, snapshot_of(shard(owner=None, renewed=ago(60))), snapshot_of(shard(owner=None, renewed=ago(61)))),
        ("no_worker", Harm.STUCK, snapshot_of(shard(leased=False, blocked=True)), snapshot_of(shard(leased=False))),
        ("unfinished_unit", Harm.DEGRADED, snapshot_of(shard(begun=ago(thresholds.COMMIT_SECONDS))), snapshot_of(shard(begun=ago(31)))),
        ("shard_halted", Harm.STUCK, snapshot_of(), snapshot_of(shard(halt=Halt("bad", "w1", ago(9))))),
        ("stream_halted", Harm.STUCK, snapshot_of(), snapshot_of(stream_halt=Halt("no such stream", "w1", ago(9)))),
        (
            "load_lag",
            Harm.BEHIND,
            snapshot_of(tables=(TableStatus("t", 1, ago(thresholds.LOAD_LAG_SECONDS)),)),
            snapshot_of(tables=(TableStatus("t", 1, ago(thresholds.LOAD_LAG_SECONDS + 1)),)),
        ),
        (
            "load_parked",
            Harm.STUCK,
            snapshot_of(tables=(TableStatus("t"),)),
            snapshot_of(tables=(TableStatus("t", parked=(Parked("s", "bad", ago(9)),)),)),
        ),
        (
            "dead_letters",
            Harm.DEGRADED,
            snapshot_of(dead_letters=replace(LETTERS, dead=10)),
            snapshot_of(dead_letters=replace(LETTERS, dead=11)),
        ),
        ("gap", Harm.LOST, snapshot_of(dead_letters=LETTERS), snapshot_of(dead_letters=replace(LETTERS, gaps=(("s", ago(9)),)))),
        (
            "export_lag",
            Harm.DEGRADED,
            snapshot_of(exported=Exported(1, ago(thresholds.EXPORT_LAG_SECONDS))),
            snapshot_of(exported=Exported(1, ago(thresholds.EXPORT_LAG_SECONDS + 1))),
        ),
        (
            "export_halted",
            Harm.DEGRADED,
            snapshot_of(exported=Exported(1, ago(1))),
            snapshot_of(exported=Exported(1, ago(1), (("s", HALTED),))),
        ),
        ("export_halted", Harm.STUCK, snapshot_of(), snapshot_of(exported=Exported(1, ago(1), (("s", HALTED),), blocking=True))),
        ("not_claimed", Harm.BEHIND, snapshot_of(objects=objects(fresh(360))), snapshot_of(objects=objects(fresh(361)))),
        ("not_claimed", Harm.STUCK, snapshot_of(objects=objects(fresh(360))), snapshot_of(objects=objects(fresh(1261)))),
        (
            "not_claimed",
            Harm.BEHIND,
            snapshot_of(objects=objects()),
            snapshot_of(objects=objects(fresh(9000), last_claim=claimed(899))),
        ),
        (
            "not_claimed",
            Harm.STUCK,
            snapshot_of(objects=objects()),
            snapshot_of(objects=objects(fresh(9000), last_claim=claimed(901))),
        ),
        ("not_claimed", Harm.BEHIND, snapshot_of(objects=objects(fresh(900), watched=False)), snapshot_of(objects=objects(fresh(900)))),
        (
            "objects_changed",
            Harm.DEGRADED,
            snapshot_of(objects=objects()),
            snapshot_of(objects=objects(Unclaimed(changed=1, changed_since=ago(9)))),
        ),
        ("objects_unreadable", Harm.DEGRADED, snapshot_of(objects=objects(given_up=9)), snapshot_of(objects=objects(given_up=9, recent=1))),
        ("hash_range_holes", Harm.STUCK, snapshot_of(), snapshot_of(holes=1)),
        ("not_begun", Harm.STUCK, snapshot_of(), snapshot_of(why="no worker has begun with this stream")),
        ("unreadable", Harm.UNKNOWN, snapshot_of(), snapshot_of(unread=(Unread("commit log", "denied"),))),
        ("shard_unreadable", Harm.UNKNOWN, snapshot_of(), snapshot_of(shard(state=State.SILENT, why="denied"))),
    ],
)
def test_each_finding_from_its_limit_on(code: str, harm: Harm, fine: Snapshot, bad: Snapshot) -> None:
    assert code not in codes(fine)
    (found,) = [finding for finding in judge(bad) if finding.code == code]
    assert found.harm is harm
    assert found.commands


def test_one_cause_one_finding() -> None:
    old = {"sealed_at": ago(5000)}
    assert codes(snapshot_of(waiting(5000, **old))) == ["not_sealing"]
    assert codes(snapshot_of(waiting(5000, halt=Halt("bad", "w1", ago(4000)), **old))) == ["shard_halted"]
    assert codes(snapshot_of(waiting(5000, renewed=ago(4000), **old))) == ["no_worker"]
    assert codes(snapshot_of(waiting(5000, **old), stream_halt=Halt("bad", "w1", ago(4000)))) == ["stream_halted"]
    # That records expire is never explained away.
    assert codes(snapshot_of(waiting(50_000, halt=Halt("bad", "w1", ago(4000)), **old))) == ["expiring", "shard_halted"]


def test_a_lease_row_that_cannot_be_read_leads_to_its_own_section() -> None:
    (found,) = judge(snapshot_of(unread=(Unread(LEASE_ROW, "row 'x' has no leaseCounter"),)))
    assert (found.section, found.commands) == ("streamleaserowsunreadable", ("stream leases ls FILE",))


def test_an_unread_lease_table_is_not_taken_for_a_table_without_leases() -> None:
    assert codes(snapshot_of(shard(leased=False), unread=(Unread("lease table", "denied"),))) == ["unreadable"]


def test_without_leases_nobody_knows_who_reads() -> None:
    assert codes(snapshot_of(shard(leased=False, owner=None, renewed=None), failover=None)) == []


def test_a_java_worker_is_taken_to_live() -> None:
    assert codes(snapshot_of(shard(owner="java-1", renewed=None))) == []


def test_the_worst_is_first_and_its_harm_is_the_verdict() -> None:
    found = judge(
        snapshot_of(
            waiting(50_000, sealed_at=ago(10)),
            shard(1, halt=Halt("bad", "w1", ago(9))),
            shard(2, begun=ago(40)),
            unread=(Unread("commit log", "denied"),),
        )
    )
    assert [each.code for each in found] == ["expiring", "shard_halted", "behind", "unfinished_unit", "unreadable"]
    assert verdict(found).words == "losing data soon"


def test_many_shards_are_counted_and_only_some_described() -> None:
    found = judge(snapshot_of(*(waiting(BEHIND + number, number) for number in range(1, 400))))
    (behind,) = found
    assert behind.what == "399 shards are behind, the worst by 12m39s"
    assert behind.shards[0] == "shardId-000000000399"
    assert len(behind.details) == DETAILS + 1
    assert behind.details[-1] == f"and {399 - DETAILS} more"


def test_the_longest_halted_is_first_and_its_place_is_named_once() -> None:
    halts = [shard(n, halt=Halt(f"numbers/shardId-{n:012}: bad", f"w{n}", ago(n))) for n in (1, 3, 2)]
    (found,) = judge(snapshot_of(*halts))
    assert (found.what, found.since) == ("3 shards are halted", ago(3))
    assert found.details == tuple(f"shardId-{n:012}: bad (w{n})" for n in (3, 2, 1))


def every_finding() -> list[Finding]:
    return judge(
        snapshot_of(
            waiting(50_000, 1, sealed_at=ago(5000)),
            waiting(1000, 2),
            shard(3, state=State.EXPIRED),
            shard(4, halt=Halt("bad", "w1", ago(9))),
            shard(5, renewed=ago(500)),
            shard(6, begun=ago(50)),
            shard(7, state=State.SILENT),
            stream_halt=None,
            tables=(TableStatus("t", 1, ago(9000), (Parked("s", "bad", ago(9)),)),),
            dead_letters=replace(LETTERS, dead=500, gaps=(("s", ago(9)),)),
            exported=Exported(1, ago(9000)),
            holes=1,
            why="not begun",
            unread=(Unread("part", "why"),),
        )
    )


def test_every_finding_leads_to_a_section_of_the_runbook() -> None:
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    found = every_finding()
    assert len(found) >= 14
    assert {each.section for each in found} <= anchors
    assert {each.section for each in found} - {"when-a-shard-is-halted", "when-a-part-cannot-be-read"} <= {
        anchor(alert) for alert in ALERTS
    }


def test_the_alerts_have_the_same_limits() -> None:
    expressions = {alert.name: alert.expr for alert in ALERTS}
    for name, limit in {
        "StreamBehind": thresholds.BEHIND_SECONDS,
        "StreamRetentionQuarterUsed": thresholds.RETENTION_SHARE,
        "StreamNotSealing": thresholds.UNSEALED_SECONDS,
        "StreamDeadLetters": thresholds.DEAD_LETTER_SHARE,
        "StreamCommitsSlow": thresholds.COMMIT_SECONDS,
        "StreamAuditLag": thresholds.EXPORT_LAG_SECONDS,
        "StreamLoadLag": thresholds.LOAD_LAG_SECONDS,
    }.items():
        assert f"> {limit:g}" in expressions[name]


def test_who_is_shown_first() -> None:
    shards = [shard(1), waiting(100, 2), waiting(1000, 3), shard(4, renewed=ago(500)), shard(5, halt=Halt("bad", "w1", ago(9)))]
    snapshot = snapshot_of(*shards)
    assert [int(each.name[-1]) for each in snapshot.worst] == [5, 4, 3, 2, 1]
    assert [snapshot.is_fine(each) for each in snapshot.worst] == [False, False, False, True, True]


def test_workers_from_their_leases() -> None:
    snapshot = snapshot_of(shard(1), shard(2), shard(3, owner="w0", renewed=ago(500)), shard(4, owner=None, renewed=None))
    assert [(each.name, each.shards, each.living) for each in snapshot.workers] == [("w0", 1, False), ("w1", 2, True)]


@given(st.floats(0, 10**8))
def test_a_length_is_never_longer_than_the_time_and_a_second(seconds: float) -> None:
    text = length(seconds)
    total = sum(int(number) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))
    assert seconds - 61 <= total <= seconds + 1


PAUSED = "reading of numbers is paused, by ann since 2026-01-01T00:00:00+00:00: new disks"


def test_what_is_paused_on_purpose_is_shown_and_not_wrong() -> None:
    late = waiting(4 * BEHIND, paused=PAUSED, begun=ago(4 * BEHIND), renewed=ago(4 * BEHIND), sealed_at=ago(4 * BEHIND))
    table = TableStatus("orders", 3, ago(2 * thresholds.LOAD_LAG_SECONDS), paused="loads of numbers into orders are paused")
    found = judge(snapshot_of(late, shard(1), tables=(table,)))
    assert [(each.code, each.harm, each.shards) for each in found] == [
        ("paused", Harm.HEALTHY, (late.name,)),
        ("paused", Harm.HEALTHY, ()),
    ]
    assert found[0].details == (PAUSED,)
    assert verdict(found) is Harm.HEALTHY
    assert not snapshot_of(late).is_fine(late)


def test_a_pause_hides_neither_a_halt_nor_that_records_expire() -> None:
    halted = waiting(EXPIRING + 1, paused=PAUSED, halt=Halt("broken", "w1", ago(60)))
    assert codes(snapshot_of(halted)) == ["expiring", "shard_halted", "paused"]
    parked = TableStatus("orders", 1, ago(60), (Parked("shardId-000000000000", "a column is missing", ago(60)),), paused="paused")
    assert codes(snapshot_of(tables=(parked,))) == ["load_parked", "paused"]
