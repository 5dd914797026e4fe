"""A few shards behind the real Kinesis JSON protocol, with faults and odd answers by script: what tests of the source need.

test_kinesis_fake.py holds it to the emulator (positions, ends of shards, lists, retention), which test_kinesis.py holds to kinesis-local.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

BASE = 49590338271490256608559692538361571095921575989136588898
FULL = 2**128 - 1


class JumpingClock:
    """Time that passes only in ``sleep``, and there at once; ``pauses`` keeps how long each was."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.pauses: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 5, 1, tzinfo=UTC) + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        self.passed += seconds
        self.pauses.append(seconds)
        await _Turn()


class _Turn:
    def __await__(self) -> Any:
        yield


@dataclass
class FakeRecord:
    """A record; ``arrival`` in Unix seconds."""

    sequence: int
    data: bytes
    key: str
    arrival: float


@dataclass
class FakeShard:
    """A shard with hash keys ``first`` to ``last``; its oldest ``trimmed`` records have expired and are gone from ``records``."""

    records: list[FakeRecord] = field(default_factory=list)
    parents: tuple[str, ...] = ()
    closed: bool = False
    children: tuple[str, ...] = ()
    first: int = 0
    last: int = FULL
    trimmed: int = 0


@dataclass
class FakeKinesis:
    """One stream. ``asked`` and ``headers`` keep what was requested; the other members make answers odd, each as it says."""

    clock: JumpingClock
    shards: dict[str, FakeShard] = field(default_factory=dict)
    faults: deque[tuple[str, int, str]] = field(default_factory=deque)
    """Operation, status and code of errors; each answers the next call of its operation once. Status 0 cuts the connection."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    page: int = 3
    """The most records in an answer of GetRecords."""
    behind: int | None = None
    """What ``MillisBehindLatest`` says, if not a second for each record that follows."""
    repeat_pages: bool = False
    """Whether each page begins with the last record of the page before it."""
    empty: int = 0
    """How many more answers to requests for a single record are empty although records follow."""
    says_how_far: bool = True
    """Whether answers have ``MillisBehindLatest``, which the API's model does not require."""
    overlap: int = 0
    """How many shards at the end of a page of ListShards are repeated at the beginning of the next page."""
    lies: int = 0
    """How many more times every other answer of GetRecords says that an open shard has ended, without child shards."""
    url: str = ""

    def expire(self, shard_id: str, count: int) -> None:
        """Remove the oldest ``count`` records of the shard, as at the end of the retention period."""
        del self.shards[shard_id].records[:count]
        self.shards[shard_id].trimmed += count

    def put(self, shard_id: str, *bodies: bytes, key: str = "k", age: float = 0.0) -> list[int]:
        shard = self.shards.setdefault(shard_id, FakeShard())
        arrival = self.clock.now().timestamp() - age
        made = []
        for body in bodies:
            sequence = BASE + 1000 * (shard.trimmed + len(shard.records)) + 7
            shard.records.append(FakeRecord(sequence, body, key, arrival))
            made.append(sequence)
        return made

    def calls(self, operation: str) -> list[dict[str, Any]]:
        return [request for name, request in self.asked if name == operation]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        body = json.loads(await request.read())
        self.asked.append((operation, body))
        self.headers.append(dict(request.headers))
        if self.faults and self.faults[0][0] == operation:
            _, status, code = self.faults.popleft()
            if status == 0:
                assert request.transport is not None
                request.transport.close()
            return _refuse(status or 500, code)
        answer = getattr(self, operation)(body)
        if isinstance(answer, web.Response):
            return answer
        return web.json_response(answer, content_type="application/x-amz-json-1.1")

    def ListShards(self, body: dict[str, Any]) -> Any:  # noqa: N802
        names = sorted(self.shards)
        start = int(body.get("NextToken", 0))
        chosen = []
        for name in names[max(0, start - self.overlap) : start + 2]:
            shard = self.shards[name]
            entry = {"ShardId": name, "HashKeyRange": {"StartingHashKey": str(shard.first), "EndingHashKey": str(shard.last)}}
            entry |= dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
            chosen.append(entry)
        return {"Shards": chosen} | ({"NextToken": str(start + 2)} if start + 2 < len(names) else {})

    def DescribeStreamSummary(self, body: dict[str, Any]) -> Any:  # noqa: N802
        summary = {
            "StreamARN": "arn:aws:kinesis:eu-west-1:1:stream/s",
            "StreamStatus": "ACTIVE",
            "RetentionPeriodHours": 24,
            "OpenShardCount": 1,
        }
        return {"StreamDescriptionSummary": summary}

    def GetShardIterator(self, body: dict[str, Any]) -> Any:  # noqa: N802
        shard = self.shards.get(body["ShardId"])
        if shard is None:
            return _refuse(400, "ResourceNotFoundException")
        kind = body["ShardIteratorType"]
        numbers = [record.sequence for record in shard.records]
        if kind.endswith("SEQUENCE_NUMBER"):
            given = int(body["StartingSequenceNumber"])
            index = sum(1 for number in numbers if number < given or (kind.startswith("AFTER") and number == given))
        elif kind == "AT_TIMESTAMP":
            index = sum(1 for record in shard.records if record.arrival < body["Timestamp"])
        else:
            index = 0 if kind == "TRIM_HORIZON" else len(numbers)
        return {"ShardIterator": f"{body['ShardId']}/{index + shard.trimmed}"}

    def GetRecords(self, body: dict[str, Any]) -> Any:  # noqa: N802
        shard_id, _, text = body["ShardIterator"].rpartition("/")
        shard = self.shards[shard_id]
        index = max(0, int(text) - shard.trimmed)
        if self.repeat_pages and index:
            index -= 1
        chosen = shard.records[index : index + min(self.page, body["Limit"])]
        if self.empty and body["Limit"] == 1:
            self.empty, chosen = self.empty - 1, []
        following = index + len(chosen)
        left = len(shard.records) - following
        answer: dict[str, Any] = {
            "Records": [
                {
                    "SequenceNumber": str(record.sequence),
                    "Data": base64.b64encode(record.data).decode(),
                    "PartitionKey": record.key,
                    "ApproximateArrivalTimestamp": record.arrival,
                }
                for record in chosen
            ],
            "MillisBehindLatest": self.behind if self.behind is not None else 1000 * left,
        }
        if not self.says_how_far:
            del answer["MillisBehindLatest"]
        if self.lies and len(self.calls("GetRecords")) % 2:
            self.lies -= 1
            return answer | {"Records": [], "NextShardIterator": None, "ChildShards": []}
        if shard.closed and not left:
            answer["ChildShards"] = [{"ShardId": name, "ParentShards": [shard_id]} for name in shard.children]
            answer["NextShardIterator"] = None
        else:
            answer["NextShardIterator"] = f"{shard_id}/{following + shard.trimmed}"
        return answer


def _refuse(status: int, code: str) -> web.Response:
    return web.json_response({"__type": f"com.amazonaws.kinesis.v20131202#{code}", "message": "as scripted"}, status=status)


@asynccontextmanager
async def serving(fake: FakeKinesis) -> AsyncIterator[FakeKinesis]:
    runner = web.ServerRunner(web.Server(fake.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    fake.url = f"http://{host}:{port}"
    try:
        yield fake
    finally:
        await runner.cleanup()
