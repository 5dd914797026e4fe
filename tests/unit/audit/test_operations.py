"""Listeners must forget shards that are gone: over the years, streams are resharded and leases move between workers."""

import pytest

from stream import events as ev
from stream.audit.lineage import RunTotals
from stream.audit.operations import Operations
from tests.sealed import StillClock
from tests.unit.metrics.every_event import CLASSES, sample

BESIDE = [
    *(
        ev.CallRepeated,
        ev.LeaseCreated,
        ev.LeaseDropped,
        ev.LeaseVanished,
        ev.LeaseWanted,
        ev.LeaseWritten,
        ev.LoadParked,
        ev.NotificationFailed,
    ),
    *(kind for kind in CLASSES if kind.__name__.startswith(("Export", "Spans"))),
]
ENDS = [ev.ShardEnded, ev.ShardReleased, ev.ShardHalted]


@pytest.mark.parametrize("end", ENDS, ids=lambda kind: kind.__name__)
def test_shards_that_are_gone_are_forgotten(end):
    operations, totals = Operations("a", "worker", StillClock()), RunTotals()
    during = [ev.LeaseTaken, ev.RecoveryFinished, ev.ShardStarted, ev.PageReceived, ev.UnitCut, ev.StageApplied, ev.IntentCreated]
    for number in range(50):
        shard = f"shardId-{number}"
        for kind in (*during, ev.FileWritten, end, *BESIDE):
            for heard in (operations, totals):
                heard(sample(kind, shard=shard))
    assert operations._holds == {}
    assert totals._pending == {} or end is ev.ShardHalted


def test_a_lease_lost_before_its_shard_starts_is_forgotten():
    operations = Operations("a", "worker", StillClock())
    taken = operations(sample(ev.LeaseTaken))
    dropped = operations(sample(ev.LeaseDropped))
    assert taken.trace == dropped.trace
    assert operations._holds == {}


def test_a_lease_lost_during_work_on_its_shard_ends_with_the_work():
    operations = Operations("a", "worker", StillClock())
    emitted = [operations(sample(kind)) for kind in (ev.LeaseTaken, ev.ShardStarted, ev.LeaseDropped, ev.ShardReleased)]
    assert len({each.trace for each in emitted}) == 1
    assert [done.name for done in emitted[-1].ended] == ["hold shard events"]
    assert operations._holds == {}
