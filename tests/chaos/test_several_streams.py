"""Two streams in one worker, one lake and one state for both."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from tests.chaos.test_leases import NATIVE
from tests.sealed import another, superseding


@pytest.fixture
def two_streams(world):
    """The same folder seen as the home of each stream, and a pipeline that reads both."""
    other = replace(world, stream=f"{world.stream}.b", seed=world.seed + 1)
    other.client.create_stream(StreamName=other.stream, ShardCount=1)
    path = world.pipeline()
    listed = f"{{streams: [{world.stream}, {{stream: {other.stream}, start: trim_horizon}}],"
    path.write_text(path.read_text().replace(f"{{stream: {world.stream},", listed))
    return world, other, path


def assert_exact(*worlds):
    outcomes = [world.exact(leftovers=True).outcomes for world in worlds]
    assert [sum(each.values()) for each in outcomes] == [world.put_so_far for world in worlds]


def verified(world, path, *options):
    result = CliRunner().invoke(app, ["audit", "verify", str(path), "--json", *options], env={**world.environment, "COLUMNS": "200"})
    return result.exit_code, json.loads(result.stdout)


def test_both_streams_are_committed_and_drained(two_streams):
    left, right, path = two_streams
    left.produce(200)
    right.produce(150)
    worker = left.start(path)
    worker.until(lambda: left.committed() and right.committed())
    left.split()
    right.split()
    left.produce(100)
    right.produce(120)
    worker.until(lambda: left.committed() and right.committed())
    assert worker.drain() == 0, worker.said()
    assert_exact(left, right)
    code, reports = verified(left, path)
    assert (code, [(each["stream"], each["verdict"]) for each in reports]) == (0, [(left.stream, "ok"), (right.stream, "ok")])
    assert [sum(shard["records"] for shard in each["shards"]) for each in reports] == [left.put_so_far, right.put_so_far]


def test_a_crash_between_intent_and_seal_is_recovered_in_both_streams(two_streams):
    left, right, path = two_streams
    left.produce(200)
    right.produce(200)
    left.crash(path, "IntentCreated:3")
    worker = left.start(path)
    worker.until(lambda: left.committed() and right.committed())
    assert worker.drain() == 0, worker.said()
    assert_exact(left, right)
    assert verified(left, path)[0] == 0


def test_deleting_one_stream_does_not_stop_the_other(two_streams):
    left, right, path = two_streams
    left.produce(100)
    right.produce(100)
    worker = left.start(path)
    worker.until(lambda: left.committed() and right.committed())
    right.client.delete_stream(StreamName=right.stream)
    worker.until(lambda: "shard_halted" in worker.said())
    left.produce(100)
    worker.until(left.committed)
    worker.signal(signal.SIGTERM)
    assert worker.exit() == 1
    assert right.stream in worker.said().splitlines()[-1]
    left.exact(leftovers=True)


@pytest.mark.parametrize("operation", ["DescribeStreamSummary", "ListShards"])
@pytest.mark.parametrize("leases", ["local", "native"])
def test_a_stream_to_which_access_is_refused_at_the_start_waits_and_the_other_is_read(two_streams, s3_url, operation, leases):
    left, right, path = two_streams
    if leases == "native":
        path.write_text(path.read_text() + NATIVE.format(table=f"leases-{left.stream}", url=s3_url, failover="5s"))
    refused = {"operation": operation, "action": "error", "code": "AccessDeniedException", "status": 400, "times": None}
    right.misbehave(refused)
    left.produce(100)
    worker = left.start(path)
    worker.until(left.committed)
    worker.until(lambda: bool(halted(worker)))
    assert [(line["stream"], "shard" in line) for line in halted(worker)] == [(right.stream, False)]
    assert f"kinesis:{operation} on stream {right.stream}" in halted(worker)[0]["reason"]
    assert worker.drain() == 1
    left.exact(leftovers=True)


@pytest.mark.parametrize("leases", ["local", "native"])
def test_a_stream_that_is_missing_at_the_start_is_looked_for_and_the_other_is_read(two_streams, s3_url, leases):
    left, right, path = two_streams
    if leases == "native":
        path.write_text(path.read_text() + NATIVE.format(table=f"leases-{left.stream}", url=s3_url, failover="5s"))
    right.client.delete_stream(StreamName=right.stream)
    right.client.get_waiter("stream_not_exists").wait(StreamName=right.stream, WaiterConfig={"Delay": 1})
    left.produce(100)
    worker = left.start(path)
    worker.until(left.committed)
    worker.until(lambda: bool(halted(worker)))
    assert [(line["stream"], "shard" in line) for line in halted(worker)] == [(right.stream, False)]
    assert "there is no such stream: kinesis:" in halted(worker)[0]["reason"]
    assert worker.drain() == 1
    left.exact(leftovers=True)


def test_workers_do_not_start_without_any_of_their_streams(two_streams):
    left, right, path = two_streams
    for each in (left, right):
        each.client.delete_stream(StreamName=each.stream)
        each.client.get_waiter("stream_not_exists").wait(StreamName=each.stream, WaiterConfig={"Delay": 1})
    worker = left.start(path)
    assert worker.exit() == 1
    assert "worker_started" not in worker.said()
    assert "was refused: ResourceNotFoundException" in worker.said().splitlines()[-1]


def test_workers_to_which_access_to_every_stream_is_refused_do_not_start(two_streams):
    left, right, path = two_streams
    for each in (left, right):
        each.misbehave(
            {"operation": "DescribeStreamSummary", "action": "error", "code": "AccessDeniedException", "status": 400, "times": None}
        )
    worker = left.start(path)
    assert worker.exit() == 1
    assert "worker_started" not in worker.said()
    assert "was refused: AccessDeniedException" in worker.said().splitlines()[-1]


def halted(worker):
    return [json.loads(line) for line in worker.said().splitlines() if '"event":"shard_halted"' in line]


def test_leftovers_of_one_stream_are_not_attributed_to_the_other(two_streams):
    left, right, path = two_streams
    left.produce(100)
    right.produce(100)
    worker = left.start(path)
    worker.until(lambda: left.committed() and right.committed())
    assert worker.drain() == 0, worker.said()
    listed = next(each for each in (left.folder / "lake").rglob("*.parquet") if each.name.startswith(f"{right.stream}."))
    manifest = max((left.folder / "state/chaos/commits" / right.stream).glob("*/0*.json"))
    leftover = listed.with_name(another(listed.name))
    manifest.write_bytes(superseding(manifest.read_bytes(), leftover.relative_to(left.folder / "lake").as_posix()))
    leftover.write_bytes(b"x")
    code, reports = verified(left, path, "--no-source")
    assert (code, [len(each["findings"]) for each in reports]) == (1, [0, 1])
    code, reports = verified(left, path, "--no-source", "--repair")
    assert (code, [len(each["removed"]) for each in reports]) == (0, [0, 1])
    assert listed.exists()
    assert not leftover.exists()


def test_a_pipeline_continues_when_a_second_stream_is_added(world):
    world.produce(150)
    path = world.pipeline()
    world.finish(path)
    other = replace(world, stream=f"{world.stream}-b", put_so_far=0)
    other.client.create_stream(StreamName=other.stream, ShardCount=1)
    path.write_text(path.read_text().replace(f"{{stream: {world.stream},", f"{{streams: [{other.stream}, {world.stream}],"))
    world.produce(100)
    other.produce(50)
    worker = world.start(path)
    worker.until(lambda: world.committed() and other.committed())
    assert worker.drain() == 0, worker.said()
    assert_exact(world, other)
    code, reports = verified(world, path)
    assert (code, [each["verdict"] for each in reports]) == (0, ["ok", "ok"])


def test_a_record_can_be_traced_in_either_stream(two_streams):
    left, right, path = two_streams
    left.produce(30)
    right.produce(30)
    worker = left.start(path)
    worker.until(lambda: left.committed() and right.committed())
    assert worker.drain() == 0, worker.said()
    for world in (left, right):
        manifest = next(each for each in world.manifests() if each["kind"] == "unit")
        wanted = f"{world.stream}/{manifest['shard']}:{manifest['last']}"
        result = CliRunner().invoke(app, ["trace", str(path), wanted, "--json"], env=dict(world.environment))
        assert result.exit_code == 0, result.output
        assert {fate["stream"] for fate in json.loads(result.stdout)} == {world.stream}
        file = next((each for each in manifest["files"] if each["sink"] == "s3"), None)
        if file is not None:
            named = CliRunner().invoke(app, ["trace", str(path), "--object", file["key"], "--json"], env=dict(world.environment))
            assert {fate["stream"] for fate in json.loads(named.stdout)} == {world.stream}
