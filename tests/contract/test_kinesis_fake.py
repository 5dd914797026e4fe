"""``FakeKinesis`` answers as the emulator does, which test_kinesis.py holds to kinesis-local."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stream.aws.errors import AwsFatal
from stream.aws.kinesis import open_kinesis
from stream.aws.session import AwsSession
from stream.local.kinesis.server import serve
from tests.contract.kinesis_fake import FULL, FakeKinesis, FakeShard, JumpingClock, serving
from tests.contract.registry import FIRST, HALF, SECOND, THIRD

MORE_THAN_A_DAY = 86_500.0


class Peer:
    """One of the two, asked over HTTP."""

    def __init__(self, client: Any, clock: JumpingClock) -> None:
        self.client = client
        self.clock = clock

    async def ask(self, operation: str, **members: Any) -> dict[str, Any]:
        async with await self.client.post(operation, "s", members) as answer:
            text = await answer.read()
            return dict(json.loads(text or b"{}"))

    async def read(self, **position: Any) -> tuple[list[bytes], bool, list[str]]:
        """Data from a position to the tip, whether the shard has ended there, and the shards that continue it."""
        token = (await self.ask("GetShardIterator", StreamName="s", ShardId=FIRST, **position))["ShardIterator"]
        data: list[bytes] = []
        while True:
            page = await self.ask("GetRecords", ShardIterator=token, Limit=2)
            data += [base64.b64decode(record["Data"]) for record in page["Records"]]
            token = page.get("NextShardIterator")
            if token is None or (not page["Records"] and page["MillisBehindLatest"] == 0):
                return data, token is None, sorted(child["ShardId"] for child in page.get("ChildShards", []))

    async def shards(self) -> list[tuple[str, str | None, str, str]]:
        found, token = [], None
        while True:
            page = await self.ask("ListShards", **({"NextToken": token} if token else {"StreamName": "s"}))
            found += page["Shards"]
            if (token := page.get("NextToken")) is None:
                break
        return [
            (each["ShardId"], each.get("ParentShardId"), each["HashKeyRange"]["StartingHashKey"], each["HashKeyRange"]["EndingHashKey"])
            for each in found
        ]

    async def put(self, body: bytes) -> int:
        raise NotImplementedError

    async def split(self) -> None:
        raise NotImplementedError

    async def expire(self) -> None:
        raise NotImplementedError


class Emulator(Peer):
    async def put(self, body: bytes) -> int:
        reply = await self.ask("PutRecord", StreamName="s", Data=base64.b64encode(body).decode(), PartitionKey="k")
        return int(reply["SequenceNumber"])

    async def split(self) -> None:
        await self.ask("SplitShard", StreamName="s", ShardToSplit=FIRST, NewStartingHashKey=str(HALF))
        self.clock.passed += 60

    async def expire(self) -> None:
        self.clock.passed += MORE_THAN_A_DAY


class Fake(Peer):
    fake: FakeKinesis

    async def put(self, body: bytes) -> int:
        return self.fake.put(FIRST, body)[0]

    async def split(self) -> None:
        parent = self.fake.shards[FIRST]
        parent.closed, parent.children = True, (SECOND, THIRD)
        self.fake.shards[SECOND] = FakeShard(parents=(FIRST,), last=HALF - 1)
        self.fake.shards[THIRD] = FakeShard(parents=(FIRST,), first=HALF)
        self.clock.passed += 60

    async def expire(self) -> None:
        self.fake.expire(FIRST, len(self.fake.shards[FIRST].records))
        self.clock.passed += MORE_THAN_A_DAY


def session(url: str) -> AwsSession:
    return AwsSession(region="eu-west-1", endpoints={"kinesis": url})


@asynccontextmanager
async def emulator() -> AsyncIterator[Peer]:
    clock = JumpingClock()
    async with serve(clock=clock) as server, open_kinesis(session(server.url), clock) as client:
        peer = Emulator(client, clock)
        await peer.ask("CreateStream", StreamName="s", ShardCount=1)
        yield peer


@asynccontextmanager
async def fake() -> AsyncIterator[Peer]:
    clock = JumpingClock()
    async with serving(FakeKinesis(clock, {FIRST: FakeShard()})) as server, open_kinesis(session(server.url), clock) as client:
        peer = Fake(client, clock)
        peer.fake = server
        yield peer


async def conversation(peer: Peer) -> dict[str, Any]:
    """What the peer answers from every kind of position, before and after a split and after the retention period."""
    said: dict[str, Any] = {"empty": await peer.read(ShardIteratorType="TRIM_HORIZON"), "one shard": await peer.shards()}
    numbers, moments = [], []
    for body in (b"a", b"b", b"c", b"d", b"e"):
        peer.clock.passed += 10
        moments.append(peer.clock.now().timestamp())
        numbers.append(await peer.put(body))
    assert numbers == sorted(numbers)
    peer.clock.passed += 1
    positions: dict[str, dict[str, Any]] = {kind: {"ShardIteratorType": kind} for kind in ("TRIM_HORIZON", "LATEST")}
    for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        for at in (0, 2, 4):
            positions[f"{kind} {at}"] = {"ShardIteratorType": kind, "StartingSequenceNumber": str(numbers[at])}
    for name, moment in (("early", moments[0] - 5), ("at c", moments[2]), ("after c", moments[2] + 5)):
        positions[f"AT_TIMESTAMP {name}"] = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": moment}
    said["open"] = {name: await peer.read(**position) for name, position in positions.items()}
    await peer.split()
    said["split"] = {name: await peer.read(**position) for name, position in positions.items()}
    said["shards"] = await peer.shards()
    with pytest.raises(AwsFatal) as refused:
        await peer.ask("GetShardIterator", StreamName="s", ShardId="shardId-000000000009", ShardIteratorType="LATEST")
    said["unknown shard"] = refused.value.code
    return said


async def after_the_retention_period(peer: Peer) -> tuple[Any, Any]:
    first = await peer.put(b"old")
    await peer.expire()
    await peer.put(b"new")
    position = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": str(first)}
    return await peer.read(ShardIteratorType="TRIM_HORIZON"), await peer.read(**position)


def answers(made: Any, talk: Any) -> Any:
    async def run() -> Any:
        async with made() as peer:
            return await talk(peer)

    return asyncio.run(run())


def test_the_fake_reads_lists_and_ends_as_the_emulator_does(aws_env: None) -> None:
    real = answers(emulator, conversation)
    assert answers(fake, conversation) == real
    assert real["open"]["AFTER_SEQUENCE_NUMBER 2"] == ([b"d", b"e"], False, [])
    assert real["split"]["AT_TIMESTAMP at c"] == ([b"c", b"d", b"e"], True, [SECOND, THIRD])
    assert [entry[2:] for entry in real["shards"]] == [("0", str(FULL)), ("0", str(HALF - 1)), (str(HALF), str(FULL))]


def test_the_fake_forgets_as_the_emulator_does(aws_env: None) -> None:
    real = answers(emulator, after_the_retention_period)
    assert answers(fake, after_the_retention_period) == real
    assert real == (([b"new"], False, []), ([b"new"], False, []))
