"""Our child under the real MultiLangDaemon: records, checkpoints, resharding, shutdown and crash."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from stream.local.moto import moto
from stream.pipeline.access.actions import Account
from stream.pipeline.access.roles import Role, accesses, policy
from stream.pipeline.checks.lint import check
from stream.pipeline.coordination import COORDINATOR_STATE, WORKER_STATS
from tests.chaos.conftest import KEYS, client
from tests.chaos.world import World
from tests.contract.peers import kinesis_local
from tests.kcl.fleet import DaemonProcess
from tests.kcl.jars import WHEELS
from tests.kcl.overhearing import overhearing
from tests.recording import ACCOUNT, OF_CONSUMERS, REGION, Asked, Naming, judge, recording

NUMBERS = count(1)


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, str]]:
    with kinesis_local() as kinesis, moto() as dynamodb:
        yield KEYS | {"AWS_ENDPOINT_URL_KINESIS": kinesis.url, "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.url}


@pytest.fixture(params=sorted(WHEELS))
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def world(services: dict[str, str], tmp_path: Path, version: str) -> Iterator[World]:
    kinesis = client("kinesis", services["AWS_ENDPOINT_URL_KINESIS"])
    name = f"k{version.replace('.', '')}-{next(NUMBERS)}"
    kinesis.create_stream(StreamName=name, ShardCount=2)
    made = World(tmp_path, kinesis, name, services["AWS_ENDPOINT_URL_KINESIS"], services, 1)
    yield made
    kinesis.close()


def leases(services: dict[str, str], table: str) -> dict[str, Any]:
    dynamodb = client("dynamodb", services["AWS_ENDPOINT_URL_DYNAMODB"])
    try:
        rows = dynamodb.scan(TableName=table)["Items"]
    finally:
        dynamodb.close()
    return {row["leaseKey"]["S"]: row["checkpoint"]["S"] for row in rows if "checkpoint" in row}


def settled(services: dict[str, str], world: World) -> bool:
    """Whether everything is committed and the daemon's checkpoints have followed: to the head, or to the last record before it that the KCL
    delivered, since of some aggregates it delivers nothing."""
    if not world.committed():
        return False
    heads = {}
    for manifest in world.manifests():
        if manifest["kind"] == "end":
            heads[manifest["shard"]] = "SHARD_END"
        elif manifest["kind"] == "unit" and heads.get(manifest["shard"]) != "SHARD_END":
            heads[manifest["shard"]] = str(max(int(heads.get(manifest["shard"], 0)), int(manifest["last"])))
    found = leases(services, world.stream)
    return all(_followed(found.get(shard, ""), head) for shard, head in heads.items())


def _followed(checkpoint: str, head: str) -> bool:
    if head == "SHARD_END":
        return checkpoint == head
    return checkpoint.isdigit() and int(checkpoint) <= int(head)


AFTER_MINUTES = {("dynamodb:DeleteItem", "")}
"""The KCL removes the leases of ended shards five minutes after its start at the earliest."""


def test_a_stream_is_committed_under_the_real_daemon(services, world, version):
    path = world.pipeline()
    path.write_text(path.read_text() + "coordination: kcl\n")
    world.produce(300)
    naming = Naming(stream=world.stream)
    with (
        overhearing(services["AWS_ENDPOINT_URL_KINESIS"]) as (java, heard),
        recording(services["AWS_ENDPOINT_URL_KINESIS"], naming) as (child, kinesis),
        recording(services["AWS_ENDPOINT_URL_DYNAMODB"], naming) as (tables, dynamodb),
    ):
        fronts = services | {"AWS_ENDPOINT_URL_KINESIS": child, "AWS_ENDPOINT_URL_DYNAMODB": tables}
        properties = {"applicationName": world.stream, "workerId": "w1", "kinesisEndpoint": java}
        daemon = functools.partial(DaemonProcess, path, version, fronts, world.folder / "daemon.log", **properties)
        with ended(daemon()) as first:
            first.until(world.committed)
            if version.startswith("3."):
                _lead_for_a_while(first, services, world.stream, dynamodb)
            _split(services, world, first)
        _continue_after_a_crash(services, world, daemon)
    document = policy(accesses(_read(path), Role.WORKER, Account(ACCOUNT, REGION)))
    judge_kinesis(document, kinesis.seen, heard.operations, naming.arn("kinesis", f"stream/{world.stream}"))
    lease_table = f":table/{world.stream}"
    asked = {(each.action, each.resource.partition(lease_table)[2]) for each in dynamodb.seen}
    allowed = _of_tables(document, ":table/chaos")
    only_3 = {(action, rest) for action, rest in allowed if rest or action == "dynamodb:UpdateTable"}
    assert asked - allowed == set()
    assert allowed - asked == AFTER_MINUTES | (set() if version.startswith("3.") else only_3)


def judge_kinesis(document, by_child, by_java, stream):
    consumer = f"{stream}/consumer/chaos:0"
    seen = by_child | {Asked(f"kinesis:{name}", consumer if name in OF_CONSUMERS else stream) for name in by_java}
    judge({"Statement": [each for each in document["Statement"] if each["Sid"].startswith("Kinesis")]}, seen)


def test_calls_to_kinesis_with_fan_out_are_allowed_by_the_policy(services, world, version):
    path = world.pipeline(start="trim_horizon, retrieval: fan_out")
    path.write_text(path.read_text() + "coordination: kcl\n")
    world.produce(300)
    kinesis_url, naming = services["AWS_ENDPOINT_URL_KINESIS"], Naming(stream=world.stream)
    with overhearing(kinesis_url) as (java, heard), recording(kinesis_url, naming) as (child, kinesis):
        properties = {"applicationName": world.stream, "workerId": "w1", "kinesisEndpoint": java}
        fronts = services | {"AWS_ENDPOINT_URL_KINESIS": child}
        with ended(DaemonProcess(path, version, fronts, world.folder / "daemon.log", **properties)) as process:
            process.until(world.committed)
    assert "SubscribeToShard" in heard.operations
    document = policy(accesses(_read(path), Role.WORKER, Account(ACCOUNT, REGION)))
    judge_kinesis(document, kinesis.seen, heard.operations, naming.arn("kinesis", f"stream/{world.stream}"))


def _read(path):
    made = check(path, {}).pipeline
    assert made is not None
    return made


def _of_tables(document, lease_table):
    """Each action that is allowed, with what follows the name of the lease table in the resource."""
    statements = [each for each in document["Statement"] if each["Sid"].startswith("Dynamodb")]
    return {
        (action, resource.partition(lease_table)[2]) for each in statements for action in each["Action"] for resource in each["Resource"]
    }


@contextmanager
def ended(process):
    try:
        yield process
    finally:
        process.kill()


def _split(services, world, process):
    world.split()
    world.produce(200)
    process.until(lambda: settled(services, world))
    world.produce(100)
    process.until(lambda: process.said().count("unit_sealed") > 3)


def _continue_after_a_crash(services, world, daemon):
    world.produce(100)
    with ended(daemon()) as second:
        second.until(lambda: settled(services, world))
        world.produce(50)
        second.until(lambda: settled(services, world))
        second.terminate()
        assert "drain_started" in second.said()
        world.exact()


def _lead_for_a_while(process, services, table, dynamodb):
    """A leader keeps its lock, removes the report of a worker that ended long ago, and releases the lock when it can no longer scan."""
    client_ = client("dynamodb", services["AWS_ENDPOINT_URL_DYNAMODB"])
    try:
        gone = {"wid": {"S": "gone"}, "lut": {"N": "1"}, "sts": {"M": {}}, "opr": {"M": {}}}
        client_.put_item(TableName=f"{table}{WORKER_STATS}", Item=gone)
    finally:
        client_.close()

    def asked(name, ending):
        return any(each.action == f"dynamodb:{name}" and each.resource.endswith(f"{table}{ending}") for each in dynamodb.seen)

    process.until(lambda: asked("DeleteItem", WORKER_STATS))
    process.until(lambda: asked("UpdateItem", COORDINATOR_STATE))
    dynamodb.denied = frozenset({"dynamodb:Scan"})
    process.until(lambda: asked("DeleteItem", COORDINATOR_STATE))
    dynamodb.denied = frozenset()
