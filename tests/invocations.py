"""Events of an event source mapping, made of what GetRecords returns; and a function's environment that can be killed at any event."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stream.clock import SystemClock
from stream.contracts import Clock, Emit
from stream.events import Event
from stream.hosts.allowance import allowance
from stream.hosts.invoked import Function
from stream.pipeline.checks.lint import check
from stream.source.mapping import Delivery, delivery_of
from stream.worker.assemble import WorkerOptions

ACCOUNT = "123456789012"
REGION = "us-east-1"


def held(client: Any, stream: str, shard: str) -> list[dict[str, Any]]:
    """Every record of a shard, as GetRecords returns it."""
    iterator = client.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    found: list[dict[str, Any]] = []
    while iterator:
        page = client.get_records(ShardIterator=iterator)
        found += page["Records"]
        iterator = page.get("NextShardIterator") if page["MillisBehindLatest"] else None
    return found


def event_of(stream: str, shard: str, records: Sequence[Mapping[str, Any]], consumer: str = "") -> dict[str, Any]:
    """The event with which Lambda delivers ``records``, as documented; ``consumer``: of enhanced fan-out."""
    arn = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{stream}" + (f"/consumer/{consumer}:1545084650" if consumer else "")
    return {"Records": [_record(record, arn, shard) for record in records]}


def _record(record: Mapping[str, Any], arn: str, shard: str) -> dict[str, Any]:
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": base64.b64encode(record["Data"]).decode(),
            "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{record['SequenceNumber']}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": f"arn:aws:iam::{ACCOUNT}:role/lambda-role",
        "awsRegion": REGION,
        "eventSourceARN": arn,
    }


def delivery(stream: str, shard: str, records: Sequence[Mapping[str, Any]]) -> Delivery:
    made = delivery_of(event_of(stream, shard, records))
    assert made is not None
    return made


class Killed(Exception):
    """The environment is gone."""


class HastenedLoop(asyncio.SelectorEventLoop):
    """The machine's time, by which an invocation measures its own, set ahead by ``ahead`` seconds."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class TimeIsOver:
    """A listener of an environment. At the first event for which ``when`` holds, an invocation of ``seconds`` has to stop reading.

    ``entirely``: it has to stop whatever it does. Nothing happens while ``seconds`` is 0, as it is at first and after that event.
    """

    def __init__(self, when: Callable[[Event], bool], *, entirely: bool = False) -> None:
        self.seconds = 0.0
        self._when = when
        self._entirely = entirely

    def __call__(self, event: Event) -> None:
        if self.seconds and self._when(event):
            loop = asyncio.get_running_loop()
            assert isinstance(loop, HastenedLoop)
            allowed = allowance(self.seconds)
            loop.ahead += allowed.working if self._entirely else allowed.reading
            self.seconds = 0.0


class Environment:
    """One execution environment. ``events`` has every event of its invocations."""

    def __init__(self, path: Path, env: Mapping[str, str], *listeners: Emit, clock: Clock | None = None) -> None:
        pipeline = check(path, env).pipeline
        assert pipeline is not None
        self.events: list[Event] = []
        self._left = -1
        self._task: asyncio.Task[Any] | None = None
        options = WorkerOptions(path.parent, env, 0.0, 1, (self.events.append, self._count, *listeners), clock or SystemClock())
        self.function = Function(pipeline, options)

    async def deliver(self, delivery: Delivery, seconds: float = 60.0) -> int | None:
        return await self.function.deliver(delivery, seconds)

    async def killed(self, delivery: Delivery, after: int) -> bool:
        """Invoke, and end the environment for good at the ``after``-th event; returns whether it came to that."""
        self._left, self._task = after, asyncio.ensure_future(self.function.deliver(delivery, 60.0))
        try:
            await self._task
        except asyncio.CancelledError:
            return True
        finally:
            self._left, self._task = -1, None
            await self.function.close()
        return False

    def _count(self, event: Event) -> None:
        self._left -= 1
        if self._left == 0 and self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def with_environments(body: Callable[[Callable[..., Environment]], Any]) -> Any:
    """Run ``body`` with a function that makes environments; they are closed at the end."""

    async def main() -> Any:
        made: list[Environment] = []

        def make(*args: Any, **options: Any) -> Environment:
            made.append(Environment(*args, **options))
            return made[-1]

        try:
            return await body(make)
        finally:
            for environment in made:
                await environment.function.close()

    with asyncio.Runner(loop_factory=HastenedLoop) as runner:
        return runner.run(asyncio.wait_for(main(), 240))
