"""A real worker in a fleet of KCL 3.x whose leader is the test: it hands its leases over in order and continues when it gets them back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.chaos.conftest import client
from tests.chaos.workers import Worker
from tests.chaos.world import World

NATIVE = """
coordination:
  native: {{table: {table}, failover: 3s, look: 300ms, endpoint: "{url}", region: us-east-1}}
"""
LEADER = {"key": {"S": "Leader"}, "ownerName": {"S": "java"}, "leaseDuration": {"S": "120000"}}


class LedFleet:
    """Tables as a KCL 3.x leader has made them; ``table`` holds the leases."""

    def __init__(self, world: World, url: str, dynamo: Any) -> None:
        self.world = world
        self.dynamo = dynamo
        self.table = f"led-{world.stream}"
        self.marks = count()
        self.path = world.pipeline(age="5s")
        self.path.write_text(self.path.read_text() + NATIVE.format(table=self.table, url=url))
        for suffix, key in (("", "leaseKey"), ("-CoordinatorState", "key"), ("-WorkerMetricStats", "wid")):
            dynamo.create_table(
                TableName=f"{self.table}{suffix}",
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        cv = {"key": {"S": "Migration3.0"}, "cv": {"S": "CLIENT_VERSION_3X"}}
        dynamo.put_item(TableName=f"{self.table}-CoordinatorState", Item=cv)
        self.lead()

    def lead(self) -> None:
        item = LEADER | {"recordVersionNumber": {"S": str(next(self.marks))}}
        self.dynamo.put_item(TableName=f"{self.table}-CoordinatorState", Item=item)

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["leaseKey"]["S"]: row for row in self.dynamo.scan(TableName=self.table, ConsistentRead=True)["Items"]}

    def reports(self) -> list[str]:
        return [row["wid"]["S"] for row in self.dynamo.scan(TableName=f"{self.table}-WorkerMetricStats")["Items"]]

    def assign(self, shard: str, worker: str, *, from_owner: str | None = None) -> None:
        """Assign the lease, or, if it is ``from_owner``'s, begin the hand-off; a leader never touches the counter for that."""
        request: dict[str, Any] = {"TableName": self.table, "Key": {"leaseKey": {"S": shard}}}
        values = {":new": {"S": worker}}
        if from_owner is None:
            update, values = "SET leaseOwner = :new REMOVE checkpointOwner ADD leaseCounter :one", values | {":one": {"N": "1"}}
        else:
            update, values = "SET leaseOwner = :new, checkpointOwner = :old", values | {":old": {"S": from_owner}}
        self.dynamo.update_item(**request, UpdateExpression=update, ExpressionAttributeValues=values)

    def owner(self, shard: str) -> tuple[str | None, str | None]:
        row = self.rows()[shard]
        return row.get("leaseOwner", {}).get("S"), row.get("checkpointOwner", {}).get("S")

    def triggers(self, shard: str) -> set[str]:
        """Why the units of the shard ended where they did."""
        return {each["trigger"] for each in self.world.manifests() if (each["kind"], each["shard"]) == ("unit", shard)}

    def join(self) -> tuple[Worker, str]:
        """Start a worker; the worker, and the name under which it reports."""
        before = set(self.reports())
        worker = self.world.start(self.path)
        worker.until(lambda: '"event":"worker_started"' in worker.said() and set(self.reports()) - before)
        (name,) = set(self.reports()) - before
        return worker, name


@pytest.fixture
def led_fleet(make_world: Callable[..., World], s3_url: str) -> Iterator[LedFleet]:
    dynamo = client("dynamodb", s3_url)
    yield LedFleet(make_world(2), s3_url, dynamo)
    dynamo.close()


def test_a_shard_is_sealed_before_its_handover_and_continues_when_it_returns(led_fleet: LedFleet) -> None:
    world = led_fleet.world
    world.produce(300)
    worker, me = led_fleet.join()
    shard, other = sorted(led_fleet.rows())
    assert not world.manifests()
    for each in (shard, other):
        led_fleet.assign(each, me)
    worker.until(lambda: worker.said().count('"event":"shard_started"') == 2)
    worker.until(lambda: worker.said().count('"event":"lease_taken"') == 2)
    # Nobody outside sees when a worker has records in hand: it is asked for the shard until it had some.
    while "drain" not in led_fleet.triggers(shard):
        led_fleet.assign(shard, "java", from_owner=me)
        worker.until(lambda: led_fleet.owner(shard) == ("java", None))
        if "drain" in led_fleet.triggers(shard):
            break
        started = worker.said().count('"event":"shard_started"')
        led_fleet.assign(shard, me)
        worker.until(lambda: worker.said().count('"event":"shard_started"') > started)  # noqa: B023 - called before it changes
        world.produce(100)
    assert led_fleet.rows()[shard]["checkpoint"]["S"].isdigit()
    said = worker.said()
    assert f'"event":"lease_wanted","stream":"{world.stream}","shard":"{shard}","worker":"java"' in said
    assert f'"event":"shard_released","stream":"{world.stream}","shard":"{shard}","why":"handed_over"' in said
    assert led_fleet.owner(other) == (me, None)

    world.produce(300)
    started = said.count('"event":"shard_started"')
    led_fleet.assign(shard, me)
    worker.until(lambda: worker.said().count('"event":"shard_started"') > started)
    second, _ = led_fleet.join()
    led_fleet.lead()
    assert worker.drain() == 0
    second.until(lambda: all(row.get("leaseOwner", {}).get("S") in led_fleet.reports() for row in led_fleet.rows().values()))
    second.until(world.committed)
    assert second.drain() == 0
    assert led_fleet.reports() == []
    world.exact()


def test_a_run_that_ends_is_refused_in_a_led_fleet_and_leaves_no_report(led_fleet: LedFleet) -> None:
    """With a report, the leader, or a worker that leaves, would give leases to a process that has ended."""
    world = led_fleet.world
    world.produce(100)
    worker, me = led_fleet.join()
    for shard in led_fleet.rows():
        led_fleet.assign(shard, me)
    worker.until(world.committed)
    run = world.start(led_fleet.path, "--once")
    assert run.exit() == 1
    assert "the leader of a KCL 3.x fleet assigns the leases" in run.said()
    assert led_fleet.reports() == [me]
    assert worker.drain() == 0
    # Nobody has a lease now: that the leader lives shows in its lock.
    run = world.start(led_fleet.path, "--once")
    run.until(lambda: led_fleet.lead() is not None or run.ended() is not None)
    assert run.exit() == 1
    assert "the leader of a KCL 3.x fleet assigns the leases" in run.said()
    assert led_fleet.reports() == []
    world.exact()


def test_a_run_that_ends_waits_until_the_lock_of_a_dead_leader_has_run_out(led_fleet: LedFleet) -> None:
    world = led_fleet.world
    world.produce(100)
    dead = LEADER | {"recordVersionNumber": {"S": "last"}, "leaseDuration": {"S": "2000"}}
    led_fleet.dynamo.put_item(TableName=f"{led_fleet.table}-CoordinatorState", Item=dead)
    run = world.start(led_fleet.path, "--once")
    assert run.exit() == 0, run.said()
    assert world.committed()
    assert led_fleet.reports() == []
    world.exact()
