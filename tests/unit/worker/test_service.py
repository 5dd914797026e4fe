import pytest

from stream import events
from stream.metrics.server import Health
from stream.worker.service import _HealthListener

WHERE = "flights", "shardId-1"


def listening():
    health = Health()
    health.clear("worker")
    return health, _HealthListener(health)


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


@pytest.mark.parametrize(
    "event", [events.ShardStarted(*WHERE, 0), events.ShardReleased(*WHERE, "lease_lost")], ids=lambda event: type(event).__name__
)
def test_a_halted_shard_makes_the_worker_unready_until_it_restarts_or_is_released(event):
    health, heard = listening()
    heard(events.ShardHalted(*WHERE, "look here"))
    assert not health.ready
    heard(event)
    assert health.ready
