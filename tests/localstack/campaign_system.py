"""The service against LocalStack, an emulator that others wrote, judged as everywhere by what lies in the bucket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.chaos.workers import ROOT
from tests.chaos.world import World

MakeWorld = Callable[[int], World]


def test_the_demo_from_end_to_end(url: str, tmp_path: Path) -> None:
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


def test_splits_and_merges(make_world: MakeWorld) -> None:
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


def test_a_worker_killed_half_way_and_its_successor(make_world: MakeWorld) -> None:
    world = make_world(2)
    world.produce(300)
    path = world.pipeline()
    world.crash(path, "FileWritten:2")
    world.produce(100)
    world.finish(path)
    world.exact()
