"""Runs that end, ranges of time, and redrives, against the emulator and real processes that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import polars as pl
import pytest

from stream.cli.run import carry_out
from stream.clock import SystemClock
from stream.local.flights import flights_table
from stream.pipeline.checks.lint import check
from stream.pipeline.namespace import in_namespace
from stream.worker.assemble import WorkerOptions
from stream.worker.objects.slices import Window
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.sources.dead_letters import DeadLetters
from stream.worker.sources.reading import Reading
from tests.backfill_check import backfill
from tests.backfill_check import rows as flat

POINTS = ["IntentCreated", "FileWritten:1", "FileWritten:3", "ManifestSealed:1", "Checkpointed:1"]


def pipeline_at(path):
    result = check(path, os.environ)
    assert result.pipeline is not None, [finding.render() for finding in result.findings]
    return result.pipeline


def rows(world, lake="lake"):
    found = sorted((world.folder / lake).rglob("*.parquet"))
    return pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in found]).sort(pl.all()) if found else pl.DataFrame()


def ids(world, lake="lake"):
    return rows(world, lake)["id"].sort().to_list()


def valid_records(numbers):
    return [json.dumps({"id": n, "kind": "a", "value": n}).encode() for n in numbers]


def run(world, path, reading, monkeypatch, namespace=None):
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    pipeline = pipeline_at(path)
    if namespace:
        pipeline = in_namespace(pipeline, namespace)
    options = WorkerOptions(world.folder, os.environ, 30.0, 2, reading=reading)
    return carry_out(pipeline, options, world.folder / "result.json")


def moment_between():
    """A moment, in whole milliseconds, after everything put so far and before everything put later."""
    begun = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= begun + 1:
        pass
    between = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= between + 1:
        pass
    return datetime.fromtimestamp(between / 1000, UTC)


def test_a_run_with_once_ends_when_all_is_committed_and_the_next_one_continues(world):
    world.produce(150)
    for more in (0, 90):
        world.produce(more)
        worker = world.start(world.pipeline(), "--once")
        assert worker.exit() == 0, worker.said()
        world.exact()


def test_a_run_with_once_follows_a_reshard(world):
    world.produce(60)
    world.split()
    world.produce(60)
    worker = world.start(world.pipeline(), "--once")
    assert worker.exit() == 0, worker.said()
    assert world.committed()
    world.exact()


@pytest.mark.parametrize("shards", [2])
def test_a_range_before_the_live_start_adds_only_what_was_not_read(make_world, shards, monkeypatch):
    world = make_world(shards)
    begin = moment_between()
    world.put_all(valid_records(range(40)))
    between = moment_between()
    world.put_all(valid_records(range(40, 80)))
    path = world.pipeline(start=f"{{at_timestamp: {between.isoformat()}}}", min_records=100_000)
    window = Reading(window=Window(begin, between))
    refused = run(world, path, window, monkeypatch)
    assert refused.code == 2
    assert "the live pipeline has not started yet" in refused.error
    assert run(world, path, Reading(once=True), monkeypatch).code == 0
    assert ids(world) == list(range(40, 80))
    for records in (40, 0):
        assert run(world, path, window, monkeypatch).code == 0
        assert json.loads((world.folder / "result.json").read_text())["records"] == records
        assert ids(world) == list(range(80))
    overlapping = run(world, path, Reading(window=Window(begin, moment_between())), monkeypatch)
    assert overlapping.code == 2
    assert "--namespace" in overlapping.error


def test_a_range_in_a_namespace_is_written_beside_the_live_output(world, monkeypatch):
    world.put_all(valid_records(range(40)))
    begin = moment_between()
    world.put_all(valid_records(range(40, 80)))
    end = moment_between()
    world.put_all(valid_records(range(80, 120)))
    path = world.pipeline()
    assert run(world, path, Reading(once=True), monkeypatch).code == 0
    window = Reading(window=Window(begin, end), disjoint=True)
    assert run(world, path, window, monkeypatch, namespace="try").code == 0
    assert ids(world) == list(range(120))
    assert ids(world, "lake-try") == list(range(40, 80))


def test_a_range_that_has_expired_from_the_stream_is_refused(world, monkeypatch):
    world.put_all(valid_records(range(3)))
    window = Window(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC))
    end = run(world, world.pipeline(), Reading(window=window, disjoint=True), monkeypatch, namespace="old")
    assert end.code == 1
    assert "it has dropped some by age" in end.error


def test_a_range_in_the_future_is_refused_and_not_waited_for(world, monkeypatch):
    path = world.pipeline()
    world.produce(10)
    begin = moment_between()
    end = run(world, path, Reading(window=Window(begin, begin + timedelta(days=30)), disjoint=True), monkeypatch, namespace="ahead")
    assert end.code == 2
    assert "has not come yet" in end.error
    assert f"what arrives in {world.stream} from now on is read by `stream run`" in end.error
    assert not (world.folder / "lake").exists()


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_redrive_is_finished_by_the_next_one_without_duplicates(make_world, point, monkeypatch):
    """The wrong definition rejects records without a value; the right one, killed half-way, must end as if it had never been wrong."""
    world = make_world(2)
    world.put_all([json.dumps({"id": n, "kind": "ab"[n % 2], "value": None if n % 3 == 0 else n}).encode() for n in range(120)])
    right = world.pipeline("right", keep="id >= 0")
    wrong = world.folder / "wrong.yaml"
    wrong.write_text(right.read_text().replace("value: int64?", "value: int64"))
    assert world.start(wrong, "--once").exit() == 0
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    pipeline = pipeline_at(right)
    stores = Stores.open(pipeline, world.folder, session_of(pipeline))
    letters = DeadLetters(world.stream, stores.state, stores.targets["rejects"], pipeline.rejects.redrive, SystemClock())
    assert asyncio.run(letters.redrive(None, None, "test")) == (1, 40)
    killed = world.start(right, "--letters", "--at", point)
    assert killed.exit() == -9, killed.said()
    worker = world.start(right, "--letters")
    assert worker.exit() == 0, worker.said()
    assert ids(world) == list(range(120))
    assert rows(world).select("_shard", "_sequence").is_duplicated().sum() == 0
    assert asyncio.run(letters.redrive(None, None, "test")) is None


@pytest.mark.parametrize("point", ["FileWritten:1", "FileWritten:2", "ManifestSealed:1"])
def test_a_unit_of_two_sinks_is_complete_in_both_after_its_worker_dies(make_world, point):
    world = make_world(1)
    world.put_all(valid_records(range(60)))
    path = world.pipeline()
    other = '  - s3: {name: other, url: "file:other/", format: ndjson, compression: none}\nflush'
    path.write_text(path.read_text().replace("flush", other, 1))
    world.crash(path, point)
    assert world.start(path, "--once").exit() == 0
    assert ids(world) == list(range(60))
    lines = [json.loads(line) for file in (world.folder / "other").rglob("*.ndjson") for line in file.read_text().splitlines()]
    assert sorted(line["id"] for line in lines) == list(range(60))
    for manifest in world.manifests():
        if manifest["kind"] == "unit":
            assert {"s3", "other"} <= {file["sink"] for file in manifest["files"]}


def test_flights_read_from_objects_equal_flights_read_from_the_stream(world, tmp_path, monkeypatch):
    flights = flights_table().head(1500)
    world.put_all(flights.write_ndjson().encode().splitlines())
    path = world.folder / "flights.yaml"
    path.write_text((files("stream.data") / "flights.yaml").read_text())
    settings = {"LAKE": "file:./lake", "STATE": "file:./state", "METRICS_PORT": "0", "MASK_KEY": "k", "STREAM": world.stream}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert run(world, path, Reading(once=True), monkeypatch).code == 0
    lake = backfill(flights, tmp_path / "objects", "k")
    assert flat(world.folder / "lake").height > 1400
    assert flat(world.folder / "lake").equals(flat(lake))
