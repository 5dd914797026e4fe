"""The service against LocalStack, an emulator that others wrote, judged by what is in the bucket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.world import World
from tests.forked import ROOT

MakeWorld = Callable[[int], World]


def test_the_demo_runs_from_end_to_end(url: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "stream",
        "demo",
        "--endpoint",
        url,
        "--rows",
        "4000",
        "--shards",
        "2",
        "--output",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every record is accounted for, once." in done.stdout


def test_splits_and_merges_are_followed(make_world: MakeWorld) -> None:
    world = make_world(2)
    path = world.pipeline()
    worker = world.start(path)
    for change in (world.split, world.merge, lambda: None):
        world.produce(200)
        change()
        world.client.get_waiter("stream_exists").wait(StreamName=world.stream, WaiterConfig={"Delay": 1})
    worker.until(world.committed)
    assert worker.drain() == 0
    world.exact()


def test_the_successor_of_a_killed_worker_completes_its_work(make_world: MakeWorld) -> None:
    world = make_world(2)
    world.produce(300)
    path = world.pipeline()
    world.crash(path, "FileWritten:2")
    world.produce(100)
    world.finish(path)
    world.exact()


def test_fan_out_continues_through_a_split(make_world: MakeWorld) -> None:
    world = make_world(1)
    path = world.pipeline(start="trim_horizon, retrieval: fan_out")
    worker = world.start(path)
    world.produce(200)
    worker.until(world.committed)
    assert "retrieval_changed" not in worker.said(), worker.said()
    (consumer,) = world.client.list_stream_consumers(StreamARN=_arn(world))["Consumers"]
    assert consumer["ConsumerName"] == "chaos"
    # Its subscriptions to a shard that is closed break off and never say that it has ended: polling has to find out.
    world.split()
    world.client.get_waiter("stream_exists").wait(StreamName=world.stream, WaiterConfig={"Delay": 1})
    world.produce(200)
    worker.until(world.committed)
    assert worker.drain() == 0
    world.exact()


def test_two_workers_share_leases_and_hand_over(make_world: MakeWorld, make_client: Callable[[str], Any]) -> None:
    world = make_world(4)
    path = world.pipeline()
    path.write_text(path.read_text() + "coordination: native\n")
    first, second = world.start(path), world.start(path)
    world.produce(300)
    second.until(world.committed)
    assert first.drain() == 0
    world.produce(200)
    second.until(world.committed)
    assert second.drain() == 0
    rows = make_client("dynamodb").scan(TableName="chaos")["Items"]
    assert len(rows) == 4
    assert all("leaseOwner" not in row and int(row["leaseCounter"]["N"]) > 0 for row in rows)
    world.exact()


def _arn(world: World) -> str:
    arn: str = world.client.describe_stream_summary(StreamName=world.stream)["StreamDescriptionSummary"]["StreamARN"]
    return arn
