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
def test_an_export_that_stands_still_is_in_the_way_as_long_as_the_shard_is_here(end):
    health, heard = listening()
    heard(events.ExportHalted(*WHERE, 401, "refused", 10.0, blocking=True))
    assert not health.ready
    heard(end)
    assert health.ready


def test_an_export_that_nothing_waits_for_is_not_in_the_way():
    health, heard = listening()
    heard(events.ExportHalted(*WHERE, 401, "refused", 10.0, blocking=False))
    assert health.ready


@pytest.mark.parametrize(
    "event", [events.ShardStarted(*WHERE, 0), events.ShardReleased(*WHERE, "lease_lost")], ids=lambda event: type(event).__name__
)
def test_a_halted_shard_is_in_the_way_until_it_starts_again_or_is_anothers(event):
    health, heard = listening()
    heard(events.ShardHalted(*WHERE, "look here"))
    assert not health.ready
    heard(event)
    assert health.ready
