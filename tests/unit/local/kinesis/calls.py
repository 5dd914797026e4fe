"""Calling operations without a server, and time that moves only when told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from stream.local.kinesis.faults import Fault
from stream.local.kinesis.model import Settings
from stream.local.kinesis.operations import OPERATIONS
from stream.local.kinesis.protocol import Params, Records
from stream.local.kinesis.state import Call, State

START_MS = 1_700_000_000_000
FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"
HALF = 2**127


class Kinesis:
    """An emulator without HTTP; ``now_ms`` is its clock."""

    def __init__(self, settings: Settings | None = None, seed: int = 0) -> None:
        self.state = State(settings or Settings(), seed)
        self.now_ms = START_MS

    def __call__(self, operation: str, fault: Fault | None = None, **members: Any) -> Any:
        reply = OPERATIONS[operation](self.state, Call(Params(members), self.now_ms, fault))
        return {"Records": reply.rendered, **reply.rest} if isinstance(reply, Records) else reply

    def stream(self, shards: int = 1, name: str = "s") -> str:
        self("CreateStream", StreamName=name, ShardCount=shards)
        return name

    def put(self, data: bytes = b"x", key: str = "k", name: str = "s", **members: Any) -> dict[str, Any]:
        return self("PutRecord", StreamName=name, Data=data, PartitionKey=key, **members)

    def iterator(self, kind: str = "TRIM_HORIZON", shard: str = FIRST, name: str = "s", **members: Any) -> str:
        return self("GetShardIterator", StreamName=name, ShardId=shard, ShardIteratorType=kind, **members)["ShardIterator"]


class HandClock:
    """A clock that the test advances; sleepers wake when their time has come."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._turned = asyncio.Event()

    def now(self) -> datetime:
        return datetime.fromtimestamp(START_MS / 1000 + self._seconds, UTC)

    def monotonic(self) -> float:
        return self._seconds

    async def sleep(self, seconds: float) -> None:
        until = self._seconds + seconds
        while self._seconds < until:
            await self._turned.wait()

    def turn(self, seconds: float) -> None:
        self._seconds += seconds
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()
