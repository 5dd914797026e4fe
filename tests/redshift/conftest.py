"""PostgreSQL, the double and an S3, started once; every test has a bucket and a table of its own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any

import boto3
import pytest

from stream.local.moto import moto
from tests.redshift.double.postgres import postgres
from tests.redshift.double.server import SNAPSHOT, Double, running_double
from tests.redshift.loader import prepare
from tests.redshift.world import World

_NUMBERS = count(1)
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, moto() as process:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL_S3": process.url}.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=process.url)
        yield client
        client.close()


@pytest.fixture(scope="session")
def redshift(s3: Any) -> Iterator[Double]:
    with postgres() as socket, running_double(socket, s3) as double, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_REDSHIFT_DATA", double.url)
        prepare()
        yield double


@pytest.fixture
def make_world(redshift: Double, s3: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., World]]:
    """Makes worlds; the seed is derived from the name of the test."""

    def make(**given: Any) -> World:
        number = next(_NUMBERS)
        bucket = f"b-{number}"
        s3.create_bucket(Bucket=bucket)
        rng = Random(given.pop("seed", zlib.crc32(request.node.nodeid.encode())))
        return World(redshift, s3, bucket, f"t{number}", rng=rng, **given)

    yield make
    redshift.hook = lambda point: ""
    redshift.forget_tokens = False
    redshift.isolation = SNAPSHOT


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
