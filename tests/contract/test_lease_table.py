"""The lease table over HTTP against the moto server, and on ``MemoryDynamo``, the table in memory of the unit tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from stream.aws.dynamodb import open_dynamodb
from stream.aws.errors import AwsRetryable
from stream.aws.session import AwsSession
from stream.clock import SystemClock
from stream.errors import Fatal
from stream.lease.rows import ExtendedSequenceNumber, Progress
from stream.lease.table import LeaseTable
from stream.local.moto import moto
from tests.unit.lease.tables import MemoryDynamo, lease

_NAMES = count(1)


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with moto() as process:
        yield process.url


class LosesReplies:
    """A client that makes every call, and then reports for every other one that no answer came."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.place = client.place
        self.calls = count()

    async def call(self, operation: str, table: str, request: Any) -> Any:
        answer = await self.client.call(operation, table, request)
        if next(self.calls) % 2 == 0:
            raise AwsRetryable("the connection broke", code="ConnectionError")
        return answer


@pytest.fixture(params=["moto", "memory"])
def against(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a test with a new table of each kind."""

    def run(test: Callable[[LeaseTable], Awaitable[None]], wrap: Callable[[Any], Any] = lambda client: client) -> None:
        async def body() -> None:
            async with AsyncExitStack() as stack:
                if request.param == "moto":
                    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                        monkeypatch.setenv(name, "test")
                    session = AwsSession(region="us-east-1", endpoints={"dynamodb": request.getfixturevalue("moto_url")})
                    client: Any = await stack.enter_async_context(open_dynamodb(session, SystemClock()))
                else:
                    client = MemoryDynamo()
                    client.page = 500
                marks = count()
                table = LeaseTable(wrap(client), f"leases-{next(_NAMES)}", SystemClock(), lambda _: None, lambda: f"m{next(marks)}")
                await test(table)

        asyncio.run(asyncio.wait_for(body(), 120))

    return run


def test_a_table_is_created_once_and_found_afterwards(against: Callable[..., None]) -> None:
    async def test(table: LeaseTable) -> None:
        assert not await table.exists()
        with pytest.raises(Fatal, match="does not exist"):
            await table.open(create=False)
        assert await table.open(create=True)
        assert not await table.open(create=True)
        assert not await table.open(create=False)

    against(test)


@pytest.mark.parametrize("wrap", [lambda client: client, LosesReplies], ids=["plain", "replies lost"])
def test_a_lease_is_created_taken_renewed_checkpointed_released_and_deleted(
    against: Callable[..., None], wrap: Callable[[Any], Any]
) -> None:
    async def test(table: LeaseTable) -> None:
        await table.open(create=True)
        assert await table.create(lease("s", parents=frozenset({"p"}), hash_range=(0, 2**128 - 1)))
        assert not await table.create(lease("s"))
        fresh = await table.get("s")
        assert fresh is not None
        mine = await table.take(fresh, "me")
        assert mine is not None
        assert await table.take(fresh, "late") is None
        mine = await table.renew(mine, 12.5)
        assert mine is not None
        done = ExtendedSequenceNumber("496", 3)
        mine = await table.checkpoint(mine, done, Progress(496, 3, 400, done))
        assert mine is not None
        assert mine == await table.get("s")
        assert await table.renew(replace(mine, counter=1)) is None
        assert await table.renew(replace(mine, owner="other")) is None
        free = await table.release(mine)
        assert free == await table.get("s")
        assert free is not None
        assert free.owner is None
        await table.note_children("s", frozenset({"a", "b"}))
        stored = await table.get("s")
        assert stored is not None
        assert stored.children == {"a", "b"}
        assert not await table.delete(replace(stored, counter=0))
        assert await table.delete(stored) or wrap is LosesReplies  # a repeated delete finds nothing, and says so
        assert await table.get("s") is None

    against(test, wrap)


def test_a_table_of_more_than_a_mebibyte_is_scanned_in_pages(against: Callable[..., None]) -> None:
    async def test(table: LeaseTable) -> None:
        await table.open(create=True)
        # Few large rows: a thousand calls at once wait longer for a busy moto than a client waits for an answer.
        padding = {"theirs": {"S": "x" * 60_000}}
        rows = [lease(f"shardId-{number:012}", "someone", number, unknown=padding) for number in range(20)]
        async with asyncio.TaskGroup() as group:
            for row in rows:
                group.create_task(table.create(row))
        scanned = await table.scan()
        assert scanned.size > 2**20
        assert {row.key for row in scanned.leases} == {row.key for row in rows}

    against(test)
