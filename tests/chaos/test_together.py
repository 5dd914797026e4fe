"""Several workers on one state: leases say who should work, and none of these workers has one."""

from __future__ import annotations

import signal

import pytest

from tests.chaos.oracle import Definition
from tests.chaos.world import KNOWN, LARGE


@pytest.mark.parametrize(
    "at", ["UnitCut", "IntentCreated", "IntentCreated:2", "FileWritten", "FileWritten:4", "ManifestSealed", "PageReceived:2"]
)
def test_a_worker_that_wakes_up_after_it_was_replaced_changes_nothing(world, at):
    world.produce(500)
    path = world.pipeline()
    zombie = world.start(path, "--at", at, "--signal", "STOP")
    zombie.until_frozen()
    other = world.start(path)
    other.until(world.committed)
    zombie.signal(signal.SIGCONT)
    world.produce(200)
    other.until(world.committed)
    assert [zombie.drain(), other.drain()] == [0, 0]
    world.exact()


def test_two_workers_at_the_same_time(make_world):
    world = make_world(3)
    path = world.pipeline()
    workers = [world.start(path) for _ in range(2)]
    for change in (world.split, world.merge, lambda: None):
        world.produce(300)
        change()
    workers[0].until(world.committed)
    assert [worker.drain() for worker in workers] == [0, 0]
    world.exact()


def test_two_workers_that_cannot_make_each_others_bytes(make_world):
    world = make_world(2)
    path = world.pipeline(stages="  - mask: {columns: [note], method: keyed_hash, key: {env: MASK_KEY}}")
    masked = Definition(KNOWN.mark, KNOWN.keeps, masked=frozenset({"note"}))
    workers = [world.start(path, MASK_KEY=key) for key in ("one", "two")]
    for _ in range(3):
        world.produce(300)
    workers[0].until(world.committed)
    assert [worker.drain() for worker in workers] == [0, 0]
    world.exact(masked, leftovers=True)


SIZE = "  - derive: {size: \"CASE WHEN value > 75 THEN 'large' ELSE 'medium' END\"}"


def test_two_definitions_side_by_side(make_world):
    world = make_world(2)
    world.produce(300)
    paths = [world.pipeline("old"), world.pipeline("new", keep=LARGE.mark, partition="size", stages=SIZE)]
    workers = [world.start(path) for path in paths]
    for _ in range(3):
        world.produce(200)
    workers[0].until(world.committed)
    assert [worker.drain() for worker in workers] == [0, 0]
    world.exact(KNOWN, LARGE, leftovers=True)


@pytest.mark.parametrize("at", ["IntentCreated", "FileWritten"])
def test_a_new_definition_finishes_what_the_old_one_began(world, at):
    world.produce(400)
    world.crash(world.pipeline("old"), at)
    world.finish(world.pipeline("new", keep=LARGE.mark, partition="size", stages=SIZE))
    verdict = world.exact(KNOWN, LARGE)
    assert len({manifest["pipeline"] for manifest in world.manifests() if manifest["kind"] == "unit"}) == 2
    assert any("size" in row for row in verdict.rows)
