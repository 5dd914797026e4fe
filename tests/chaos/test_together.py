"""Several workers on one state without leases, which would say who works: the log alone must prevent duplicates."""

from __future__ import annotations

import signal

import pytest

from tests.chaos.oracle import Definition
from tests.chaos.world import KNOWN, LARGE


@pytest.mark.parametrize(
    "at", ["UnitCut", "IntentCreated", "IntentCreated:2", "FileWritten", "FileWritten:4", "ManifestSealed", "PageReceived:2"]
)
def test_a_frozen_worker_that_was_replaced_changes_nothing_when_it_wakes(world, at):
    world.produce(500)
    path = world.pipeline()
    frozen = world.start(path, "--at", at, "--signal", "STOP")
    frozen.until_frozen()
    other = world.start(path)
    other.until(world.committed)
    frozen.signal(signal.SIGCONT)
    world.produce(200)
    other.until(world.committed)
    assert [frozen.drain(), other.drain()] == [0, 0]
    world.exact()


def test_two_workers_on_the_same_shards_commit_each_record_once(make_world):
    world = make_world(3)
    path = world.pipeline()
    workers = [world.start(path) for _ in range(2)]
    for change in (world.split, world.merge, lambda: None):
        world.produce(300)
        change()
    workers[0].until(world.committed)
    assert [worker.drain() for worker in workers] == [0, 0]
    world.exact()


def test_two_workers_whose_bytes_differ_commit_each_record_once(make_world):
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


def test_two_definitions_running_side_by_side_commit_each_record_once(make_world):
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
def test_a_new_definition_finishes_the_unit_that_the_old_one_began(world, at):
    world.produce(400)
    world.crash(world.pipeline("old"), at)
    world.finish(world.pipeline("new", keep=LARGE.mark, partition="size", stages=SIZE))
    verdict = world.exact(KNOWN, LARGE)
    assert len({manifest["pipeline"] for manifest in world.manifests() if manifest["kind"] == "unit"}) == 2
    assert any("size" in row for row in verdict.rows)
