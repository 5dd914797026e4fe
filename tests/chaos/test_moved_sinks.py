"""A worker dies between a unit's intent and its seal, and the next one's pipeline has the sink at another URL or under another name."""

from __future__ import annotations

import signal

import pytest

from tests.chaos.test_iceberg import rows_in_files, rows_in_table, with_table
from tests.chaos.world import World


def changes_of_sink(world: World) -> dict[str, dict[str, str]]:
    sea = f"{world.place}sea/"
    return {"renamed": {"sink": "clean"}, "moved": {"lake": sea}, "another": {"sink": "clean", "lake": sea}}


def files_by_place(world: World) -> dict[str, int]:
    objects = world.objects()
    return {place: sum(key.startswith(f"{place}/") for key in objects) for place in ("lake", "sea")}


@pytest.mark.parametrize(
    ("change", "at"), [("renamed", "IntentCreated"), ("moved", "IntentCreated"), ("moved", "FileWritten:2"), ("another", "IntentCreated")]
)
def test_an_unfinished_unit_is_finished_at_the_old_place_and_later_ones_go_to_the_new(make_world, change, at):
    world = make_world(2, s3=True)
    world.produce(400)
    world.crash(world.pipeline("old"), at)
    new = world.pipeline("new", **changes_of_sink(world)[change])
    world.finish(new)
    world.produce(200)
    world.finish(new)
    world.exact()
    found = files_by_place(world)
    assert found["lake"] > 0
    assert (found["sea"] > 0) == ("lake" in changes_of_sink(world)[change])


@pytest.mark.parametrize("at", ["IntentCreated", "FileWritten"])
def test_a_frozen_worker_of_the_old_definition_writes_nothing_twice_when_it_wakes(make_world, at):
    world = make_world(1, s3=True)
    world.produce(400)
    old = world.start(world.pipeline("old"), "--at", at, "--signal", "STOP")
    old.until_frozen()
    new = world.start(world.pipeline("new", **changes_of_sink(world)["moved"]))
    new.until(world.committed)
    old.signal(signal.SIGCONT)
    world.produce(200)
    new.until(world.committed)
    assert [old.drain(), new.drain()] == [0, 0]
    world.exact()


def test_a_unit_begun_for_a_table_is_loaded_after_the_sink_is_renamed(make_world):
    world = make_world(1)
    world.produce(200)
    path = with_table(world, world.pipeline(partition=""))
    world.crash(path, "IntentCreated")
    path.write_text(path.read_text().replace("  - iceberg:\n", "  - iceberg:\n      name: events\n"))
    last = world.start(path, "--once")
    assert last.exit() == 0, last.said()
    found = rows_in_table(world)
    assert found.equals(rows_in_files(world))
    assert found.height == found.unique().height > 100


def test_a_deleted_bucket_halts_the_shard_until_it_exists_again(make_world):
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
