"""The two Kinesis implementations that must behave alike: our emulator, and npm kinesis-local as an independent one."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from stream.local.kinesis.server import running

ROOT = Path(__file__).parents[2]
KINESIS_LOCAL = "kinesis-local@0.6.2"
_NAMES = count(1)


@dataclass
class Peer:
    """One implementation and a client of it that never retries."""

    name: str
    url: str
    client: Any

    def stream(self, shards: int = 1, **options: Any) -> str:
        """A new, active stream."""
        name = f"stream-{next(_NAMES)}"
        self.client.create_stream(StreamName=name, ShardCount=shards, **options)
        self.settle(name)
        return name

    def settle(self, name: str) -> None:
        """Return when the stream is active again."""
        for _ in range(2000):
            if self.client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
                return
        raise AssertionError(f"{name} never became active")

    def arn(self, name: str) -> str:
        return self.client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]

    def shards(self, name: str, **filters: Any) -> list[dict[str, Any]]:
        return self.client.list_shards(StreamName=name, **filters)["Shards"]

    def put(self, name: str, data: bytes, key: str = "k", **options: Any) -> dict[str, Any]:
        return self.client.put_record(StreamName=name, Data=data, PartitionKey=key, **options)

    def iterator(self, name: str, shard: str, kind: str = "TRIM_HORIZON", **options: Any) -> str:
        reply = self.client.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType=kind, **options)
        return reply["ShardIterator"]

    def read(self, name: str, shard: str, kind: str = "TRIM_HORIZON", **options: Any) -> list[bytes]:
        """Data of all records from there to the end of the shard, or until caught up."""
        token: str | None = self.iterator(name, shard, kind, **options)
        data: list[bytes] = []
        while token:
            page = self.client.get_records(ShardIterator=token)
            data += [record["Data"] for record in page["Records"]]
            if not page["Records"] and page["MillisBehindLatest"] == 0:
                break
            token = page.get("NextShardIterator")
        return data

    def split(self, name: str, shard: str, at: int) -> None:
        self.client.split_shard(StreamName=name, ShardToSplit=shard, NewStartingHashKey=str(at))
        self.settle(name)

    def merge(self, name: str, shard: str, adjacent: str) -> None:
        self.client.merge_shards(StreamName=name, ShardToMerge=shard, AdjacentShardToMerge=adjacent)
        self.settle(name)


@contextmanager
def client(url: str) -> Iterator[Any]:
    made = boto3.client(
        "kinesis",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - nobody checks it
        config=Config(retries={"total_max_attempts": 1}, read_timeout=120, inject_host_prefix=False),
    )
    try:
        yield made
    finally:
        made.close()


@contextmanager
def emulator() -> Iterator[Peer]:
    with running() as server, client(server.url) as made:
        yield Peer("emulator", server.url, made)


@contextmanager
def kinesis_local() -> Iterator[Peer]:
    """npm kinesis-local in a process of its own, installed on first use."""
    package = _installed()
    environment = {
        "PATH": os.environ["PATH"],
        "KINESIS_MOCK_PLAIN_PORT": "1",
        "KINESIS_MOCK_TLS_PORT": "2",
        "SHARD_LIMIT": "1000",
        "LOG_LEVEL": "ERROR",
    }
    operations = ["CREATE_STREAM", "DELETE_STREAM", "REGISTER_STREAM_CONSUMER", "DEREGISTER_STREAM_CONSUMER"]
    operations += ["MERGE_SHARDS", "SPLIT_SHARD", "UPDATE_SHARD_COUNT"]
    environment |= {f"{operation}_DURATION": "1ms" for operation in operations}
    command = ["node", "--require", str(Path(__file__).with_name("loopback.cjs")), "main.js"]
    with subprocess.Popen(command, cwd=package, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            port = _plain_port(process)
            with client(f"http://127.0.0.1:{port}") as made:
                yield Peer("kinesis-local", f"http://127.0.0.1:{port}", made)
        finally:
            process.kill()


def _plain_port(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line.decode())
        words = line.decode().split()
        if words[:2] == ["listening", "1"]:
            return int(words[2])
    raise AssertionError(f"kinesis-local did not start: {''.join(said)}")


def _installed() -> Path:
    home = ROOT / ".make" / "kinesis-local"
    package = home / "node_modules" / "kinesis-local"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (package / "main.js").exists():
            command = ["npm", "install", "--omit-lockfile-registry-resolved", "--no-audit", "--no-fund", KINESIS_LOCAL]
            subprocess.run(command, cwd=home, check=True, capture_output=True)
    return package
