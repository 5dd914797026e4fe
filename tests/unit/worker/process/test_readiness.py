import pytest

from stream import events
from stream.metrics.server import Health
from stream.worker.process.readiness import Readiness

WHERE = "flights", "shardId-1"


def listening():
    health = Health()
    health.clear("worker")
    return health, Readiness(health)


@pytest.mark.parametrize(
    "end",
    [events.ShardReleased(*WHERE, "lease_lost"), events.ShardEnded(*WHERE, ()), events.ExportResumed(*WHERE)],
    ids=lambda end: type(end).__name__,
)
def test_a_blocking_halted_export_makes_the_worker_unready_while_it_holds_the_shard(end):
    health, heard = listening()
    heard(events.ExportHalted(*WHERE, 401, "refused", 10.0, blocking=True))
    assert not health.ready
    heard(end)
    assert health.ready


def test_a_halted_export_that_blocks_nothing_leaves_the_worker_ready():
    health, heard = listening()
    heard(events.ExportHalted(*WHERE, 401, "refused", 10.0, blocking=False))
    assert health.ready


def page(records, behind_ms=0):
    return events.PageReceived(*WHERE, records, records, 10 * records, behind_ms, 0.1)


SEALED = events.ManifestSealed(*WHERE, 0, 9)


@pytest.mark.parametrize(
    "happened",
    [
        [events.ShardReleased(*WHERE, "lease_lost")],
        [events.ShardEnded(*WHERE, ())],
        [events.ShardPaused(*WHERE, "ann", "", "", 0.0)],
        [events.ShardStarted(*WHERE, 0), page(3), SEALED],
        [events.ShardStarted(*WHERE, 0), page(0)],
    ],
    ids=["released", "ended", "paused", "sealed", "at its tip"],
)
def test_a_halted_shard_makes_the_worker_unready_until_it_is_known_to_go_on(happened):
    health, heard = listening()
    heard(events.ShardHalted(*WHERE, "look here"))
    for event in happened:
        assert not health.ready
        heard(event)
    assert health.ready


def test_a_halted_shard_that_is_tried_again_and_halts_again_never_makes_the_worker_ready_in_between():
    health, heard = listening()
    for _ in range(3):
        heard(events.ShardHalted(*WHERE, "refused"))
        for event in (events.ShardStarted(*WHERE, 0), page(0, behind_ms=900), page(3), page(0), events.UnitCut(*WHERE, 0, 9, "age", 3, 30)):
            heard(event)
            assert not health.ready


def test_what_was_received_before_a_shard_was_started_again_does_not_count():
    health, heard = listening()
    heard(page(3))
    heard(events.ShardHalted(*WHERE, "refused"))
    heard(events.ShardStarted(*WHERE, 0))
    heard(page(0))
    assert health.ready


def test_another_shard_that_goes_on_clears_nothing():
    health, heard = listening()
    heard(events.ShardHalted(*WHERE, "refused"))
    heard(events.ManifestSealed("flights", "shardId-2", 0, 9))
    heard(events.PageReceived("flights", "shardId-2", 0, 0, 0, 0, 0.1))
    assert not health.ready
