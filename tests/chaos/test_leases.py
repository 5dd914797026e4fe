"""Real workers that share a stream by leases: they start, drain and die, an operator rewinds, and nothing is lost or duplicated."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from stream import events
from stream.batch import ORIGIN
from stream.cli.main import app
from stream.errors import DefinitionError
from stream.operations.changes.rewinds import rewind
from stream.pipeline.checks.lint import check
from tests.chaos.conftest import client
from tests.chaos.truth import read_stream
from tests.chaos.workers import Worker
from tests.chaos.world import World

NATIVE = """
coordination:
  native: {{table: {table}, failover: {failover}, look: 300ms, endpoint: "{url}", region: us-east-1}}
"""


class Fleet:
    """Workers of one pipeline over one lease table.

    With a longer ``failover``, no lease changes hands because the machine stood still for a few seconds.
    """

    def __init__(self, world: World, url: str, dynamo: Any, failover: str = "3s") -> None:
        self.world = world
        self.dynamo = dynamo
        self.table = f"leases-{world.stream}"
        self.path = world.pipeline()
        self.path.write_text(self.path.read_text() + NATIVE.format(table=self.table, url=url, failover=failover))

    def owners(self) -> dict[str, str | None]:
        """Owners of open shards, by shard id."""
        rows = self.dynamo.scan(TableName=self.table, ConsistentRead=True)["Items"]
        open_rows = [row for row in rows if row["checkpoint"]["S"] != "SHARD_END"]
        return {row["leaseKey"]["S"]: row.get("leaseOwner", {}).get("S") for row in open_rows}

    def at_rest(self) -> bool:
        """Whether everything is committed and the checkpoints in the rows, which follow, say so."""
        if not self.world.committed():
            return False
        ends = self.world.ends()
        rows = self.dynamo.scan(TableName=self.table, ConsistentRead=True)["Items"]
        return all(row["checkpoint"]["S"] in {"SHARD_END", str(ends.get(row["leaseKey"]["S"], "TRIM_HORIZON"))} for row in rows)

    def join(self) -> Worker:
        worker = self.world.start(self.path)
        worker.until(lambda: '"event":"lease_taken"' in worker.said())
        return worker

    def belongs_to(self, worker: Worker, shards: int) -> bool:
        owners = self.owners()
        return len(owners) == shards and all(owner is not None and f"/{worker.pid}-" in owner for owner in owners.values())


@pytest.fixture
def fleet(make_world: Callable[..., World], s3_url: str) -> Iterator[Fleet]:
    dynamo = client("dynamodb", s3_url)
    yield Fleet(make_world(4), s3_url, dynamo)
    dynamo.close()


def command(monkeypatch: pytest.MonkeyPatch, fleet: Fleet, *arguments: str) -> str:
    for name, value in fleet.world.environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_workers_share_hand_over_and_take_over_shards(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    world = fleet.world
    world.produce(300)
    first = fleet.join()
    first.until(world.committed)
    second = fleet.join()
    world.produce(300)
    assert first.drain() == 0
    second.until(lambda: fleet.belongs_to(second, 4))
    world.split()
    world.produce(300)
    second.until(world.committed)
    third = fleet.join()
    second.signal(signal.SIGKILL)
    world.produce(300)
    third.until(world.committed)
    third.until(lambda: fleet.belongs_to(third, 5))
    world.exact()
    assert third.drain() == 0
    assert set(fleet.owners().values()) == {None}
    command(monkeypatch, fleet, "audit", "verify", str(fleet.path))


def test_after_an_operator_rewinds_the_worker_processes_the_records_again_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    world = fleet.world
    world.produce(400)
    worker = fleet.join()
    worker.until(world.committed)
    listed = json.loads(command(monkeypatch, fleet, "leases", "ls", str(fleet.path), "--json"))
    assert {lease["shard"] for lease in listed} == set(fleet.owners())
    shard = listed[0]["shard"]
    before = {key for key in world.objects("lake/") if shard in key}
    reported = command(monkeypatch, fleet, "leases", "rewind", str(fleet.path), shard, "start", "--yes", "--note", "wrong rates")
    assert "its start" in reported
    worker.until(lambda: f'"shard":"{shard}","position":0,"generation":1' in worker.said())
    worker.until(lambda: any(f"{shard}_r1" in key for key in world.objects("lake/")))
    report = command(monkeypatch, fleet, "leases", "release", str(fleet.path), shard, "--json")
    assert f"/{worker.pid}-" in json.loads(report)["owner"]
    worker.until(lambda: fleet.belongs_to(worker, 4))
    assert worker.drain() == 0
    assert before
    assert not before & set(world.objects("lake/"))
    report = command(monkeypatch, fleet, "audit", "verify", str(fleet.path))
    assert "wrong rates" in report
    assert f"All {world.put_so_far} records" in report.replace(",", "")


def test_progress_of_a_java_worker_is_recorded_in_the_log(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a KCL worker leaves: its own checkpoint, in the middle of an aggregate, and our attributes as they were."""
    world = fleet.world
    world.produce(200)
    worker = fleet.join()
    worker.until(world.committed)
    assert worker.drain() == 0
    world.produce(300)
    shard = sorted(fleet.owners())[0]
    iterator = world.client.get_shard_iterator(StreamName=world.stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    records = world.client.get_records(ShardIterator=iterator)["Records"]
    reached = records[-3]["SequenceNumber"]
    fleet.dynamo.update_item(
        TableName=fleet.table,
        Key={"leaseKey": {"S": shard}},
        UpdateExpression="SET checkpoint = :c, checkpointSubSequenceNumber = :s ADD leaseCounter :one",
        ExpressionAttributeValues={":c": {"S": reached}, ":s": {"N": "0"}, ":one": {"N": "1"}},
    )
    worker = fleet.join()
    worker.until(lambda: '"event":"foreign_progress"' in worker.said())
    worker.until(lambda: all(_is_covered(world, each) for each in fleet.owners()))
    assert worker.drain() == 0
    foreign = [each for each in world.manifests() if each["kind"] == "foreign"]
    assert [(each["shard"], each["last"]) for each in foreign] == [(shard, str(int(reached) - 1))]
    behind = next(each for each in world.manifests() if each["shard"] == shard and each["after"] == foreign[0]["last"])
    assert behind["outcomes"]["foreign"] == 1
    report = command(monkeypatch, fleet, "audit", "verify", str(fleet.path))
    assert "another application" in report


def _is_covered(world: World, shard: str) -> bool:
    """Whether the log covers the last record that the shard holds."""
    iterator = world.client.get_shard_iterator(StreamName=world.stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    last = world.client.get_records(ShardIterator=iterator)["Records"][-1]["SequenceNumber"]
    sealed = [each for each in world.manifests() if each["shard"] == shard and each["state"] == "sealed" and each.get("last")]
    return max((int(each["last"]) for each in sealed), default=0) >= int(last)


def test_with_start_latest_the_children_of_a_java_workers_shard_are_read_from_the_beginning(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream on demand reshards by itself, also between the end of one application and the start of the next."""
    world = fleet.world
    fleet.path.write_text(fleet.path.read_text().replace("start: trim_horizon", "start: latest"))
    world.produce(100)
    before = world.put_so_far
    fleet.dynamo.create_table(
        TableName=fleet.table,
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for shard, truth in read_stream(world.client, world.stream).items():
        last = truth.records[-1]
        row = {
            "leaseKey": {"S": shard},
            "leaseCounter": {"N": "7"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"},
            "checkpoint": {"S": str(last.sequence)},
            "checkpointSubSequenceNumber": {"N": str(last.subsequence)},
        }
        fleet.dynamo.put_item(TableName=fleet.table, Item=row)
    world.split()
    world.produce(200)
    worker = fleet.join()
    worker.until(lambda: _records_of_our_own(world) >= world.put_so_far - before)
    assert worker.drain() == 0
    command(monkeypatch, fleet, "audit", "verify", str(fleet.path))


def _records_of_our_own(world: World) -> int:
    """How many records the log has that no other application processed."""
    units = [each for each in world.manifests() if each["kind"] == "unit" and each["state"] == "sealed"]
    return sum(each["records"] - each["outcomes"].get("foreign", 0) for each in units)


def _set_back(fleet: Fleet, shard: str, checkpoint: str) -> None:
    """What people do in the KCL's table to process again."""
    fleet.dynamo.update_item(
        TableName=fleet.table,
        Key={"leaseKey": {"S": shard}},
        UpdateExpression="SET checkpoint = :c",
        ExpressionAttributeValues={":c": {"S": checkpoint}},
    )


def test_a_checkpoint_that_was_set_back_by_hand_changes_nothing_and_is_reported(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    world = fleet.world
    world.produce(200)
    worker = fleet.join()
    worker.until(fleet.at_rest)  # a checkpoint that comes later would hide what is set back here
    first, second = sorted(fleet.owners())[:2]
    _set_back(fleet, first, "TRIM_HORIZON")
    worker.until(lambda: f'"event":"checkpoint_set_back","stream":"{world.stream}","shard":"{first}"' in worker.said())
    assert worker.drain() == 0
    iterator = world.client.get_shard_iterator(StreamName=world.stream, ShardId=second, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    oldest = world.client.get_records(ShardIterator=iterator)["Records"][0]["SequenceNumber"]
    _set_back(fleet, second, oldest)
    listed = command(monkeypatch, fleet, "leases", "ls", str(fleet.path))
    assert f"stream leases rewind {fleet.path} {first} start" in listed
    assert f"stream leases rewind {fleet.path} {second} {oldest}" in listed
    worker = fleet.join()
    worker.until(lambda: f'"event":"checkpoint_set_back","stream":"{world.stream}","shard":"{second}"' in worker.said())
    world.produce(100)
    worker.until(world.committed)
    assert worker.drain() == 0
    assert "stream leases rewind" not in command(monkeypatch, fleet, "leases", "ls", str(fleet.path))
    world.exact()
    command(monkeypatch, fleet, "audit", "verify", str(fleet.path))


def test_a_parent_whose_row_was_set_back_does_not_hold_up_its_children(fleet: Fleet) -> None:
    world = fleet.world
    world.produce(200)
    world.split()
    world.produce(200)
    worker = fleet.join()
    worker.until(world.committed)
    parent = next(shard["ShardId"] for shard in world.shards() if "EndingSequenceNumber" in shard["SequenceNumberRange"])
    _set_back(fleet, parent, "TRIM_HORIZON")
    # The worker that read it to its end restores the row, and so does any other.
    worker.until(lambda: parent not in fleet.owners())
    assert worker.drain() == 0
    _set_back(fleet, parent, "TRIM_HORIZON")
    world.produce(100)
    worker = fleet.join()
    worker.until(world.committed)
    worker.until(lambda: parent not in fleet.owners())
    assert worker.drain() == 0
    world.exact()


def test_an_operator_whose_lease_another_operator_takes_gets_an_error_that_nothing_was_changed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = fleet.world
    world.produce(200)
    worker = fleet.join()
    worker.until(world.committed)
    assert worker.drain() == 0
    shard = sorted(fleet.owners())[0]
    _set_back(fleet, shard, "TRIM_HORIZON")
    links = len(world.manifests())

    def take_away(event: events.Event) -> None:
        if isinstance(event, events.LeaseWritten) and event.operation == "take":
            fleet.dynamo.update_item(
                TableName=fleet.table,
                Key={"leaseKey": {"S": shard}},
                UpdateExpression="SET leaseOwner = :o ADD leaseCounter :one",
                ExpressionAttributeValues={":o": {"S": "operator/2"}, ":one": {"N": "1"}},
            )

    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    pipeline = check(fleet.path, {}).pipeline
    assert pipeline is not None
    with pytest.raises(DefinitionError, match="somebody else has taken the lease meanwhile; nothing was changed, try again"):
        asyncio.run(rewind(pipeline, world.stream, shard, ORIGIN, "", world.folder, {}, take_away))
    assert len(world.manifests()) == links
