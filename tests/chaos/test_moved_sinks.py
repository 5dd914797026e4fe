"""A worker dies between a unit's intent and its seal, and the next one's pipeline has the sink at another place or under another name."""

from __future__ import annotations

import signal

import pytest

from tests.chaos.test_iceberg import of_files, of_table, with_table
from tests.chaos.world import World


def elsewhere(world: World) -> dict[str, dict[str, str]]:
    sea = f"{world.place}sea/"
    return {"renamed": {"sink": "clean"}, "moved": {"lake": sea}, "another": {"sink": "clean", "lake": sea}}


def files_by_place(world: World) -> dict[str, int]:
    objects = world.objects()
    return {place: sum(key.startswith(f"{place}/") for key in objects) for place in ("lake", "sea")}


@pytest.mark.parametrize(
    ("change", "at"), [("renamed", "IntentCreated"), ("moved", "IntentCreated"), ("moved", "FileWritten:2"), ("another", "IntentCreated")]
)
def test_the_unit_is_finished_where_it_was_begun_and_the_next_ones_go_to_the_new_place(make_world, change, at):
    world = make_world(2, s3=True)
    world.produce(400)
    world.crash(world.pipeline("old"), at)
    new = world.pipeline("new", **elsewhere(world)[change])
    world.finish(new)
    world.produce(200)
    world.finish(new)
    world.exact()
    found = files_by_place(world)
    assert found["lake"] > 0
    assert (found["sea"] > 0) == ("lake" in elsewhere(world)[change])


@pytest.mark.parametrize("at", ["IntentCreated", "FileWritten"])
def test_a_worker_of_the_old_definition_that_wakes_up_doubles_nothing(make_world, at):
    world = make_world(1, s3=True)
    world.produce(400)
    old = world.start(world.pipeline("old"), "--at", at, "--signal", "STOP")
    old.until_frozen()
    new = world.start(world.pipeline("new", **elsewhere(world)["moved"]))
    new.until(world.committed)
    old.signal(signal.SIGCONT)
    world.produce(200)
    new.until(world.committed)
    assert [old.drain(), new.drain()] == [0, 0]
    world.exact()


def test_a_table_gets_the_unit_that_was_begun_for_it_under_another_name(make_world):
    world = make_world(1)
    world.produce(200)
    path = with_table(world, world.pipeline(partition=""))
    world.crash(path, "IntentCreated")
    path.write_text(path.read_text().replace("  - iceberg:\n", "  - iceberg:\n      name: events\n"))
    last = world.start(path, "--once")
    assert last.exit() == 0, last.said()
    found = of_table(world)
    assert found.equals(of_files(world))
    assert found.height == found.unique().height > 100


def test_a_place_that_is_gone_halts_the_shard_until_it_is_back(make_world):
    world = make_world(1, s3=True)
    world.produce(100)
    world.s3.create_bucket(Bucket=f"{world.bucket}-old")
    world.crash(world.pipeline("old", lake=f"s3://{world.bucket}-old/lake/"), "IntentCreated")
    world.s3.delete_bucket(Bucket=f"{world.bucket}-old")
    new = world.pipeline("new")
    halted = world.start(new, "--once")
    assert halted.exit() == 1
    assert f"writes to the sink `s3` at s3://{world.bucket}-old/lake, which was its place when the unit was begun" in halted.said()
    assert "does not exist" in halted.said()
    assert not world.sealed_units()
    world.s3.create_bucket(Bucket=f"{world.bucket}-old")
    assert world.start(new, "--once").exit() == 0
    assert world.committed()
    (first, *_) = sorted((each for each in world.manifests() if each["kind"] == "unit"), key=lambda each: int(each["after"]))
    assert first["targets"]["s3"] == f"s3://{world.bucket}-old/lake"
