"""Our child under the real MultiLangDaemon: records, checkpoints, resharding, shutdown and crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.local.moto import moto
from tests.chaos.conftest import KEYS, client
from tests.chaos.world import World
from tests.contract.peers import kinesis_local
from tests.kcl.fleet import DaemonProcess
from tests.kcl.jars import WHEELS


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
    name = f"k{version.replace('.', '')}"
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


def test_a_stream_under_the_real_daemon(services, world, version):
    path = world.pipeline()
    path.write_text(path.read_text() + "coordination: kcl\n")
    world.produce(300)
    log = world.folder / "daemon.log"
    table = {"applicationName": world.stream, "workerId": "w1"}
    first = DaemonProcess(path, version, services, log, **table)
    try:
        first.until(world.committed)
        world.split()
        world.produce(200)
        first.until(lambda: settled(services, world))
        world.produce(100)
        first.until(lambda: log.read_text(errors="replace").count("unit_sealed") > 3)
    finally:
        first.kill()
    world.produce(100)
    second = DaemonProcess(path, version, services, log, **table)
    try:
        second.until(lambda: settled(services, world))
        world.produce(50)
        second.until(lambda: settled(services, world))
        second.terminate()
        assert "drain_started" in second.said()
        world.exact()
    finally:
        second.kill()
