"""What `stream complete` says after a worker was killed at any point."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.clock import SystemClock


def next_second(world) -> datetime:
    """A whole second, like the service's date, that has begun when this returns and is after everything that was put."""
    moment = SystemClock().now().replace(microsecond=0) + timedelta(seconds=1)
    while SystemClock().now() < moment:
        world.shards()
    return moment


@pytest.mark.parametrize("at", ["PageReceived", "IntentCreated:2", "FileWritten:3", "ManifestSealed:3", "UnitSealed:4"])
def test_after_a_kill_the_answer_is_no_and_after_the_next_worker_it_is_yes(world, at, monkeypatch):
    world.produce(900)
    path = world.pipeline()
    world.crash(path, at)
    until = next_second(world)
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)

    def ask():
        ran = CliRunner().invoke(app, ["complete", str(path), "--until", until.isoformat(), "--margin", "0", "--json"])
        return ran.exit_code, json.loads(ran.stdout)

    sealed = sum(manifest.get("records", 0) for manifest in world.manifests() if manifest["state"] == "sealed")
    assert ask()[0] == (1 if sealed < world.put_so_far else 0)
    world.split()
    world.produce(100)
    until = next_second(world)
    assert ask()[0] == 1
    world.finish(path)
    code, found = ask()
    assert (code, found["verdict"]) == (0, "complete")
    assert {shard["state"] for shard in found["streams"][0]["shards"]} == {"complete", "ended"}
