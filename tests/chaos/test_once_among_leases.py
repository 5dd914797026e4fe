"""A run that ends takes part in leasing: it reads everything alone, or nothing at all."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.chaos.conftest import client
from tests.chaos.test_leases import Fleet, command
from tests.chaos.world import World


@pytest.fixture
def fleet(make_world: Callable[..., World], s3_url: str) -> Iterator[Fleet]:
    dynamo = client("dynamodb", s3_url)
    yield Fleet(make_world(4), s3_url, dynamo)
    dynamo.close()


def test_it_reads_nothing_beside_live_workers_and_everything_once_they_are_gone(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    world = fleet.world
    # Long enough for a worker on a busy machine to keep its leases.
    fleet.path.write_text(fleet.path.read_text().replace("failover: 3s", "failover: 20s"))
    world.produce(200)
    worker = fleet.join()
    worker.until(world.committed)
    run = world.start(fleet.path, "--once")
    assert run.exit() == 1
    assert "workers hold leases in the table" in run.said()
    assert f"/{worker.pid}-" in run.said()
    assert "`stream complete FILE" in run.said()
    assert '"event":"shard_started"' not in run.said()
    assert fleet.belongs_to(worker, 4)
    assert worker.drain() == 0
    world.split()
    world.merge(2)
    world.produce(200)
    run = world.start(fleet.path, "--once")
    assert run.exit() == 0, run.said()
    assert world.committed()
    assert set(fleet.owners().values()) == {None}
    world.exact()
    # The next worker of the fleet continues from the checkpoints in the rows.
    world.produce(100)
    worker = fleet.join()
    worker.until(world.committed)
    assert worker.drain() == 0
    world.exact()
    command(monkeypatch, fleet, "audit", "verify", str(fleet.path))


def test_it_waits_for_the_failover_time_of_a_worker_that_was_killed(fleet: Fleet) -> None:
    world = fleet.world
    world.produce(200)
    worker = fleet.join()
    worker.until(world.committed)
    worker.signal(signal.SIGKILL)
    worker.exit()
    world.produce(200)
    run = world.start(fleet.path, "--once")
    assert run.exit() == 0, run.said()
    assert '"why":"expired"' in run.said()
    assert world.committed()
    world.exact()


def test_of_two_runs_at_the_same_time_one_reads_everything(fleet: Fleet) -> None:
    """As of a schedule whose runs overlap."""
    world = fleet.world
    world.produce(2000)
    slow = fleet.path.read_text().replace("age: 150ms", "age: 20s")
    fleet.path.write_text(slow)
    first = world.start(fleet.path, "--once")
    first.until(lambda: '"event":"lease_taken"' in first.said())
    second = world.start(fleet.path, "--once")
    codes = {first.exit(), second.exit()}
    assert 0 in codes, first.said() + second.said()
    assert world.committed()
    world.exact()


def test_it_continues_after_the_position_in_a_lease_row(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that `stream leases import` took over from another consumer."""
    world = fleet.world
    world.produce(300)
    lines = ["shard,sequence,subsequence"]
    for shard in world.open_shards():
        where = {"StreamName": world.stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        records = world.client.get_records(ShardIterator=world.client.get_shard_iterator(**where)["ShardIterator"])["Records"]
        lines.append(f"{shard['ShardId']},{records[-1]['SequenceNumber']},")
    positions = world.folder / "positions.csv"
    positions.write_text("\n".join(lines))
    command(monkeypatch, fleet, "leases", "import", str(fleet.path), "--from", str(positions), "--yes")
    run = world.start(fleet.path, "--once")
    assert run.exit() == 0, run.said()
    units = [each for each in world.manifests() if each["kind"] == "unit"]
    assert sum(each["records"] - each["outcomes"].get("foreign", 0) for each in units) == 0
    command(monkeypatch, fleet, "audit", "verify", str(fleet.path))


def test_it_says_that_another_application_holds_leases(fleet: Fleet) -> None:
    """A Java KCL, of whose records `stream complete` could not wait for any row."""
    world = fleet.world
    world.produce(50)
    worker = fleet.join()
    worker.until(world.committed)
    assert worker.drain() == 0
    shard = max(fleet.owners())

    def renew() -> None:
        fleet.dynamo.update_item(
            TableName=fleet.table,
            Key={"leaseKey": {"S": shard}},
            UpdateExpression="SET leaseOwner = :java ADD leaseCounter :one",
            ExpressionAttributeValues={":java": {"S": "java-1"}, ":one": {"N": "1"}},
        )

    renew()
    run = world.start(fleet.path, "--once")
    run.until(lambda: renew() is not None or run.ended() is not None)
    assert run.exit() == 1
    assert f"workers of another application, such as a Java KCL, hold leases in the table {fleet.table}: java-1 reads {shard}" in run.said()
    assert "`stream complete" not in run.said()
