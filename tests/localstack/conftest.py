"""One LocalStack for the tests of a file; a fresh stream and a fresh bucket in every test."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import localstack_client.session
import pytest

from stream.local.start import environment
from tests.chaos.world import World
from tests.forked import prepare
from tests.localstack.running import running

_NUMBERS = count(1)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    prepare()
    with running(os.environ["LOCALSTACK_PYTHON"]) as url:
        yield url


@pytest.fixture
def make_client(url: str) -> Iterator[Callable[[str], Any]]:
    """Clients as LocalStack's own package makes them."""
    host, _, port = url.removeprefix("http://").partition(":")
    session = localstack_client.session.Session(localstack_host=f"{host}:{port}", region_name="us-east-1")
    with ExitStack() as stack:

        def make(service: str) -> Any:
            client = session.client(service, endpoint_url=url)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def make_world(
    url: str, make_client: Callable[[str], Any], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[int], World]]:
    """Makes worlds with a stream of ``shards`` shards and a bucket, both in LocalStack."""
    with ExitStack() as stack:

        def make(shards: int) -> World:
            name = f"s{next(_NUMBERS)}"
            kinesis, s3 = make_client("kinesis"), make_client("s3")
            kinesis.create_stream(StreamName=name, ShardCount=shards)
            kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
            s3.create_bucket(Bucket=f"bucket-{name}")
            seed = zlib.crc32(request.node.nodeid.encode())
            world = World(tmp_path, kinesis, name, url, environment(url, url), seed, s3, f"bucket-{name}")
            stack.callback(lambda: [worker.end() for worker in world.workers])
            return world

        yield make
