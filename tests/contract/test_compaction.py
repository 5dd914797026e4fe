"""Compaction over real stores: S3, as moto has it, and a directory. Compactors that meet leave each row once."""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stream.audit.report import Verdict
from stream.audit.verify import Scope, Verifier
from stream.aws.errors import Call
from stream.aws.session import AwsSession
from stream.batch import SEQUENCE
from stream.contracts import ObjectStore
from stream.operations.compaction.compactor import Compactor
from stream.operations.compaction.sources_removal import delete_sources
from stream.sink.objects import ObjectsSinkConfig
from stream.storage.directory import DirectoryStore
from stream.storage.open import open_store
from tests.sealed import NOON, Sealed, three_units

_buckets = itertools.count()
Open = Callable[[str], Coroutine[Any, Any, ObjectStore]]


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a store with the given name."""
    if request.param == "directory":

        async def directory(name: str) -> ObjectStore:
            return DirectoryStore(tmp_path / name, fsync=False)

        return directory
    request.getfixturevalue("aws_env")
    session = AwsSession(region="us-east-1", endpoints={"s3": request.getfixturevalue("moto_url")})
    bucket = f"compaction-{next(_buckets)}"

    async def in_s3(name: str) -> ObjectStore:
        if name == "state":
            await session.ask("s3", "create_bucket", Call("s3:CreateBucket", bucket, "moto"), Bucket=bucket)
        return open_store(f"s3://{bucket}/{name}", session)

    return in_s3


async def opened(place: Open) -> tuple[Sealed, ObjectStore]:
    sealed = await three_units(state=await place("state"), lake=await place("lake"))
    large = await place("large")
    sealed.places[large.url] = large
    return sealed, large


def compactor(sealed: Sealed, large: ObjectStore, size: int) -> Compactor:
    config = sealed.pipeline.sinks[0]
    assert isinstance(config, ObjectsSinkConfig)
    return Compactor(sealed.log, "events", config, sealed.stores.targets["s3"], large, sealed.clock, size)


async def rows(store: ObjectStore) -> list[str]:
    bodies = [await store.get(info.key) async for info in store.list("")]
    return sorted(row for stored in bodies if stored for row in pl.read_parquet(io.BytesIO(stored.body))[SEQUENCE])


async def verdict(sealed: Sealed) -> Verdict:
    return (await Verifier(sealed.evidence(), Scope(), sealed.clock).run()).verdict


def test_compactors_that_run_at_once_leave_each_row_once(place: Open) -> None:
    async def body() -> None:
        sealed, large = await opened(place)
        await asyncio.gather(*(compactor(sealed, large, 6000).run(NOON + timedelta(days=1), closed=True) for _ in range(3)))
        assert await rows(large) == await rows(sealed.stores.targets["s3"])
        assert await verdict(sealed) is Verdict.OK
        keys = [info.key async for info in large.list("")]
        assert len(keys) == 4

    asyncio.run(body())


def test_sources_are_deleted_and_the_log_is_still_sound(place: Open) -> None:
    async def body() -> None:
        sealed, large = await opened(place)
        before = await rows(sealed.stores.targets["s3"])
        one = compactor(sealed, large, 2**20)
        await one.run(NOON + timedelta(days=1), closed=True)
        sealed.clock.time += timedelta(days=8)
        assert (await delete_sources(one, timedelta(days=7)))[0] == 10
        assert await rows(sealed.stores.targets["s3"]) == []
        assert await rows(large) == before
        assert await verdict(sealed) is Verdict.OK

    asyncio.run(body())
