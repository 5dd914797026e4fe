"""Kinesis in a process of its own, started once; every test gets a new stream and a new folder or bucket."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest

from stream.local.process import helper
from tests.chaos.world import World
from tests.forked import prepare

_NUMBERS = count(1)
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def client(service: str, url: str) -> Any:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", **keys)


@pytest.fixture(scope="session")
def kinesis_url() -> Iterator[str]:
    prepare()
    with helper("stream.local.kinesis") as process:
        yield process.url


@pytest.fixture(scope="session")
def s3_url(moto_url: str) -> str:
    return moto_url


@pytest.fixture
def make_world(kinesis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., World]]:
    """Makes worlds, each with a stream of ``shards`` shards; their workers end with the test."""
    with ExitStack() as stack:

        def make(shards: int = 2, *, s3: bool = False) -> World:
            kinesis = client("kinesis", kinesis_url)
            stack.callback(kinesis.close)
            number = next(_NUMBERS)
            seed = zlib.crc32(request.node.nodeid.encode())
            kinesis.create_stream(StreamName=f"s{number}", ShardCount=shards)
            environment = {**KEYS, "AWS_ENDPOINT_URL_KINESIS": kinesis_url}
            folder = tmp_path / f"w{number}"
            folder.mkdir()
            world = World(folder, kinesis, f"s{number}", kinesis_url, environment, seed)
            if s3:
                url = request.getfixturevalue("s3_url")
                world = World(
                    folder,
                    kinesis,
                    f"s{number}",
                    kinesis_url,
                    environment | {"AWS_ENDPOINT_URL_S3": url},
                    seed,
                    client("s3", url),
                    f"b-{number}",
                )
                stack.callback(world.s3.close)
                world.s3.create_bucket(Bucket=world.bucket)
            stack.callback(lambda: [worker.end() for worker in world.workers])
            return world

        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
