"""Operators pause and resume real workers, amid kills, reshards and takeovers: nothing is read meanwhile, and then each record once."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.clock import SystemClock
from tests.chaos.conftest import client
from tests.chaos.test_leases import Fleet
from tests.chaos.test_together import SIZE
from tests.chaos.workers import Worker
from tests.chaos.world import KNOWN, LARGE, World
from tests.ports import free_port


@pytest.fixture
def fleet(make_world: Callable[..., World], s3_url: str) -> Iterator[Fleet]:
    dynamo = client("dynamodb", s3_url)
    yield Fleet(make_world(3), s3_url, dynamo)
    dynamo.close()


def operate(world: World, *arguments: str, code: int = 0) -> str:
    ran = CliRunner().invoke(app, list(arguments), env={**world.environment, "COLUMNS": "240"})
    assert ran.exit_code == code, ran.output
    return ran.stdout


def pause(world: World, path: Any, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(operate(world, "pause", str(path), "--note", "new disks", "--by", "ann", "--json", *options))
    return found


def resume(world: World, path: Any, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(operate(world, "resume", str(path), "--by", "bob", "--json", *options))
    return found


def logged(worker: Worker, event: str) -> list[dict[str, Any]]:
    """What the worker logged about an event."""
    return [line for text in worker.said().splitlines() if f'"event":"{event}"' in text and (line := json.loads(text))]


def standing(*workers: Worker) -> set[str]:
    """The shards that the last word about is that they are paused, whichever of the workers has said it."""
    found: dict[str, str] = {}
    lines = [json.loads(text) for worker in workers for text in worker.said().splitlines()]
    for line in sorted(lines, key=lambda line: str(line["time"])):
        if line["event"] in {"shard_paused", "shard_resumed", "shard_started", "shard_released", "shard_ended"}:
            found[line["shard"]] = line["event"]
    return {shard for shard, event in found.items() if event == "shard_paused"}


def names(world: World) -> set[str]:
    return {shard["ShardId"] for shard in world.shards()}


def moments(world: World, shard: str = "") -> list[datetime]:
    """When units were sealed."""
    units = [each for each in world.manifests() if each["kind"] == "unit" and shard in each["shard"]]
    return sorted(datetime.fromisoformat(each["sealed_at"]) for each in units if each["state"] == "sealed")


def test_a_paused_pipeline_seals_what_it_has_read_and_reads_nothing_until_it_is_resumed(world: World) -> None:
    path = world.pipeline(age="1h")  # a unit ends by its age only after an hour: what is sealed is sealed because of the pause
    world.put_all([json.dumps({"id": number, "kind": "a", "value": number}).encode() for number in range(20)])
    worker = world.start(path)
    worker.until(lambda: len(logged(worker, "shard_started")) == 2)
    change = pause(world, path)
    assert [each["stream"] for each in change["paused"]] == [world.stream]
    worker.until(lambda: standing(worker) == names(world))
    worker.until(world.committed)
    begun = SystemClock().now()
    world.put_all([json.dumps({"id": number, "kind": "a", "value": number}).encode() for number in range(20, 60)])
    found = operate(world, "complete", str(path), "--until", SystemClock().now().isoformat(), "--json", code=1)
    assert all("paused" in each["why"] and "new disks" in each["why"] for each in json.loads(found)["streams"][0]["shards"])
    assert "new disks" in operate(world, "pause", str(path), "--list")
    operate(world, "shards", str(path))
    # Whoever comes new obeys, and a run that ends says that it has not read everything.
    other = world.start(path)
    other.until(lambda: standing(other) == names(world))
    ran = CliRunner().invoke(app, ["run", str(path), "--once", "--metrics-port", "0"], env=dict(world.environment))
    assert ran.exit_code == 1
    assert "2 shard(s) are paused, so this run has not read everything" in ran.output + ran.stderr
    assert other.drain() == 0, other.said()
    assert moments(world)[-1] < begun, "something was read while it was paused"
    assert [line["why"] for line in logged(worker, "shard_released")] == ["paused", "paused"]
    resume(world, path)
    worker.until(lambda: len(logged(worker, "shard_started")) == 4)
    assert worker.drain() == 0, worker.said()
    world.finish(world.pipeline())
    world.exact()


def test_a_shard_is_paused_alone_and_ends_by_itself(world: World) -> None:
    path = world.pipeline()
    world.produce(100)
    worker = world.start(path)
    worker.until(world.committed)
    first, second = sorted(names(world))
    pause(world, path, first, "--until", "1h")
    worker.until(lambda: standing(worker) == {first})
    # Its end is moved only now: however slow the machine, the worker has obeyed before it comes.
    (moved,) = pause(world, path, first, "--until", "12s")["paused"]
    paused_at = SystemClock().now()
    world.produce(100)
    worker.until(lambda: moments(world, second)[-1] > paused_at)
    worker.until(world.committed)
    assert moments(world, first)[-1] >= datetime.fromisoformat(moved["until"]), "the shard was read before its pause ended"
    assert worker.drain() == 0, worker.said()
    world.exact()


def test_through_kills_reshards_and_takeovers_nothing_is_read_while_it_is_paused_and_then_each_record_once(fleet: Fleet) -> None:
    world, path = fleet.world, fleet.path
    world.produce(300)
    first, second = fleet.join(), fleet.join()
    first.until(lambda: world.sealed_units() >= 3)  # all may be read in one unit for each shard
    pause(world, path)
    first.until(lambda: standing(first, second) >= names(world))
    first.until(lambda: all(fleet.owners().values()))
    owners = fleet.owners()
    begun = SystemClock().now()
    world.split()
    world.produce(300)
    # The dead worker's leases are taken over, and kept; a third one obeys, too.
    first.signal(signal.SIGKILL)
    second.until(lambda: fleet.belongs_to(second, len(fleet.owners())) and standing(second) == set(owners))
    third = fleet.join()
    third.until(lambda: len(set(fleet.owners().values())) == 2)
    third.until(lambda: standing(second, third) == set(owners))
    assert third.drain() == 0
    second.until(lambda: fleet.belongs_to(second, len(fleet.owners())))
    listed = json.loads(operate(world, "leases", "ls", str(path), "--json"))
    assert all("new disks" in each["paused"] for each in listed)
    assert moments(world)[-1] < begun, "something was sealed while it was paused"
    resume(world, path)
    second.until(lambda: logged(second, "shard_resumed") != [])
    fourth = fleet.join()
    world.merge(1)
    world.produce(300)
    second.signal(signal.SIGKILL)
    fourth.until(world.committed)
    assert fourth.drain() == 0
    world.exact()
    operate(world, "audit", "verify", str(path))


def test_an_update_under_a_pause_is_rolled_back_after_the_newer_file_has_sealed(fleet: Fleet) -> None:
    """The newer file has other columns, rows and partitions. One of its workers dies half-way; then the older file is deployed again."""
    world, old = fleet.world, fleet.path
    new = world.pipeline("new", keep=LARGE.mark, partition="size", stages=SIZE)
    new.write_text(new.read_text() + old.read_text().partition("\ncoordination:")[1] + old.read_text().partition("\ncoordination:")[2])
    world.produce(300)
    first = fleet.join()
    first.until(world.committed)
    pause(world, old)
    first.until(lambda: standing(first) == names(world))
    sealed = moments(world)
    world.produce(300)
    second = world.start(new)
    second.until(lambda: '"event":"lease_taken"' in second.said())
    assert first.drain() == 0
    second.until(lambda: fleet.belongs_to(second, 3) and standing(second) == names(world))
    assert moments(world) == sealed
    resume(world, new)
    second.until(world.committed)
    third = world.start(new, "--at", "IntentCreated")
    third.until(lambda: '"event":"lease_taken"' in third.said())
    assert second.drain() == 0
    world.produce(300)
    assert third.exit() == -9
    last = fleet.join()
    world.produce(200)
    last.until(world.committed)
    assert last.drain() == 0
    units = [each for each in world.manifests() if each["kind"] == "unit"]
    by_file = {each["pipeline"] for each in units}
    assert len(by_file) == 2
    newest = max(units, key=lambda each: each["created_at"])
    assert newest["pipeline"] == min(units, key=lambda each: each["created_at"])["pipeline"]
    world.exact(KNOWN, LARGE)
    for path in (old, new):
        operate(world, "audit", "verify", str(path))
        rows = operate(world, "query", str(path), "SELECT count(*) AS n FROM rows", "--csv").split()
        assert rows == ["n", str(sum(each["outcomes"].get("written", 0) for each in units))]


def test_a_worker_that_is_killed_while_it_stops_leaves_what_it_began_for_after_the_pause(fleet: Fleet) -> None:
    world, path = fleet.world, fleet.path
    path.write_text(path.read_text().replace("age: 150ms", "age: 1h"))
    world.produce(60)
    worker = world.start(path, "--at", "IntentCreated")
    worker.until(lambda: len(logged(worker, "shard_started")) == 3)
    pause(world, path)
    assert worker.exit() == -9
    intents = [each for each in world.manifests() if each["state"] == "intent"]
    assert intents
    world.produce(60)
    other = fleet.join()
    other.until(lambda: standing(other) == names(world))
    assert [each for each in world.manifests() if each["state"] == "intent"] == intents
    resume(world, path)
    other.until(lambda: len(logged(other, "shard_resumed")) == 3)
    assert other.drain() == 0
    path.write_text(path.read_text().replace("age: 1h", "age: 150ms"))
    last = fleet.join()
    last.until(world.committed)
    assert last.drain() == 0
    world.exact()


@pytest.fixture
def port() -> Iterator[int]:
    with free_port() as found:
        yield found


def test_a_paused_worker_is_alive_and_ready_and_shows_that_it_is_paused(world: World, port: int) -> None:
    path = world.pipeline()
    path.write_text(path.read_text().replace("metrics: {port: 0}", f"metrics: {{port: {port}}}"))
    world.produce(50)
    worker = world.start(path)
    worker.until(world.committed)
    pause(world, path)
    worker.until(lambda: standing(worker) == names(world))

    def asked(page: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}") as answer:
            assert answer.status == 200
            body: str = answer.read().decode()
            return body

    asked("healthz")
    asked("readyz")
    shown = asked("metrics")
    polls = [line for line in shown.splitlines() if line.startswith("kst_source_polls_total")]
    assert polls
    world.produce(50)
    # The end of the pause is moved, which the worker tells after its next look; up to then it has asked for no record.
    pause(world, path, "--until", "1h")
    worker.until(lambda: len(logged(worker, "shard_paused")) == 4)
    assert [line for line in asked("metrics").splitlines() if line.startswith("kst_source_polls_total")] == polls
    for shard in names(world):
        assert f'kst_shard_paused{{shard="{shard}",stream="{world.stream}"}} 1.0' in shown
        assert f'kst_source_behind_latest_seconds{{shard="{shard}",stream="{world.stream}"}}' in shown
    assert worker.drain() == 0
