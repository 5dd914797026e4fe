"""A rolling update from one process to leases, and back, with live workers of both settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.conftest import client
from tests.chaos.test_leases import Fleet, command
from tests.chaos.world import World


@pytest.fixture
def fleet(make_world: Callable[..., World], s3_url: str) -> Iterator[Fleet]:
    dynamo = client("dynamodb", s3_url)
    yield Fleet(make_world(3), s3_url, dynamo)
    dynamo.close()


def test_workers_with_and_without_leases_side_by_side_leave_each_record_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    world = fleet.world
    alone = world.pipeline("alone")
    world.produce(300)
    local = world.start(alone)
    local.until(world.committed)
    native = fleet.join()
    world.produce(300)
    native.until(world.committed)
    world.split()
    world.produce(300)
    assert local.drain() == 0
    native.until(world.committed)
    world.merge(2)
    world.produce(200)
    back = world.start(alone)
    back.until(lambda: '"event":"shard_started"' in back.said())
    world.produce(200)
    assert native.drain() == 0
    back.until(world.committed)
    assert back.drain() == 0
    assert "shard_halted" not in local.said() + native.said() + back.said()
    world.produce(100)
    again = fleet.join()
    again.until(world.committed)
    assert again.drain() == 0
    world.exact()
    command(monkeypatch, fleet, "audit", "verify", str(fleet.path))
