"""A sample of a shard is spread over the requested time, stays within its limit, and leaves other readers enough calls."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from stream.aws.kinesis import KinesisClient, open_kinesis
from stream.aws.session import AwsSession
from stream.batch import ARRIVAL, DATA
from stream.errors import Fatal
from stream.local.kinesis.faults import Action, Fault
from stream.local.kinesis.server import Running, serve
from stream.local.kinesis.state import Settings
from stream.source.excerpt import CALL_SECONDS, FIRST_LIMIT, PAGE_BYTES, Excerpt, Excerpts
from tests.contract.kinesis_fake import FakeKinesis, JumpingClock, serving

S0 = "shardId-000000000000"


@dataclass
class World:
    emulator: Running
    client: KinesisClient
    clock: JumpingClock
    begin: datetime

    async def call(self, operation: str, **members: Any) -> None:
        await (await self.client.post(operation, "s", members)).read()

    async def put(self, seconds: int, each: int, size: int = 10) -> None:
        """Put records in each second of a period, with their numbers as payloads."""
        for second in range(seconds):
            for at in range(0, each, 50):
                numbers = range(second * each + at, second * each + min(each, at + 50))
                records = [{"Data": _blob(b"%d" % n, size), "PartitionKey": f"k{n}"} for n in numbers]
                await self.call("PutRecords", StreamName="s", Records=records)
            self.clock.passed += 1.0

    async def read(self, pages: int, seconds: int) -> Excerpt:
        excerpts = Excerpts(self.client, "s", pages, self.clock, random=lambda: 1.0)
        return await excerpts.read(S0, self.begin, self.begin + timedelta(seconds=seconds))


def _blob(data: bytes, size: int) -> str:
    return base64.b64encode(data.ljust(size)).decode()


def run(body: Callable[[World], Awaitable[None]], *, throttle: bool = False) -> None:
    async def main() -> None:
        clock = JumpingClock()
        async with AsyncExitStack() as stack:
            emulator = await stack.enter_async_context(serve(clock=clock, settings=Settings(throttle=throttle)))
            session = AwsSession(region="eu-west-1", endpoints={"kinesis": emulator.url})
            world = World(emulator, await stack.enter_async_context(open_kinesis(session, clock)), clock, clock.now())
            await world.call("CreateStream", StreamName="s", ShardCount=1)
            clock.passed += 60.0
            world.begin = clock.now()
            await body(world)

    asyncio.run(asyncio.wait_for(main(), 120))


def numbers(found: Excerpt) -> list[int]:
    return [int(value) for page in found.pages for value in page[DATA]]


def test_a_sample_that_fits_reads_every_record_once(aws_env: None) -> None:
    async def body(world: World) -> None:
        await world.put(10, 10)
        found = await world.read(5, 10)
        assert numbers(found) == list(range(100))
        assert (found.covered, found.calls, found.why) == (10.0, 5, "")

    run(body)


def test_a_page_that_reaches_into_the_next_part_covers_its_own_part(aws_env: None) -> None:
    async def body(world: World) -> None:
        await world.put(10, 5)
        found = await world.read(5, 10)
        assert (numbers(found), found.covered) == (list(range(50)), 10.0)

    run(body)


def test_a_partial_sample_reports_how_much_time_it_covers(aws_env: None) -> None:
    async def body(world: World) -> None:
        size = 8 * 1024
        await world.put(10, 100, size)
        found = await world.read(5, 10)
        first, second = FIRST_LIMIT, PAGE_BYTES // size
        assert [page.height for page in found.pages] == [first, *[second] * 4]
        assert [page[ARRIVAL][0] for page in found.pages] == [world.begin + timedelta(seconds=at) for at in range(0, 10, 2)]
        assert (found.calls, found.covered) == (5, 0.0)

    run(body)


def test_records_before_and_after_the_window_are_left_out(aws_env: None) -> None:
    async def body(world: World) -> None:
        await world.put(10, 3)
        world.begin += timedelta(seconds=2)
        assert numbers(await world.read(1, 5)) == list(range(6, 21))

    run(body)


def test_calls_are_a_second_apart(aws_env: None) -> None:
    async def body(world: World) -> None:
        await world.put(2, 2)
        await world.read(4, 2)
        assert world.clock.pauses == pytest.approx([CALL_SECONDS] * 3)

    run(body, throttle=True)


def test_empty_answers_are_followed_up_to_a_limit(aws_env: None) -> None:
    async def body(world: World) -> None:
        await world.put(4, 2)
        world.emulator.faults.add(Fault(Action.EMPTY_PAGE, "GetRecords", times=2))
        found = await world.read(2, 4)
        assert (numbers(found), found.calls, found.covered) == (list(range(8)), 4, 4.0)
        world.emulator.faults.add(Fault(Action.EMPTY_PAGE, "GetRecords", times=None))
        found = await world.read(2, 4)
        assert (numbers(found), found.calls, found.covered) == ([], 4, 0.0)

    run(body)


def test_a_refused_call_is_repeated_and_after_that_the_partial_sample_counts(aws_env: None) -> None:
    async def body(world: World) -> None:
        await world.put(4, 2)
        world.emulator.faults.add(Fault(Action.THROTTLE, "GetRecords", times=3))
        assert numbers(await world.read(2, 4)) == list(range(8))
        world.emulator.faults.add(Fault(Action.THROTTLE, "GetRecords", skip=1, times=4))
        found = await world.read(2, 4)
        assert (numbers(found), found.covered) == (list(range(4)), 2.0)
        assert "ProvisionedThroughputExceeded" in found.why

    run(body)


def test_a_closed_shard_is_read_to_its_end(aws_env: None) -> None:
    async def body(world: World) -> None:
        await world.put(2, 2)
        await world.call("SplitShard", StreamName="s", ShardToSplit=S0, NewStartingHashKey=str(2**127))
        found = await world.read(2, 2)
        assert (numbers(found), found.covered) == ([0, 1, 2, 3], 2.0)

    run(body)


def test_a_missing_stream_is_an_error_and_not_an_empty_sample(aws_env: None) -> None:
    async def body(world: World) -> None:
        await world.call("DeleteStream", StreamName="s")
        world.clock.passed += 60.0
        with pytest.raises(Fatal):
            await world.read(1, 1)

    run(body)


@pytest.mark.parametrize(
    ("details", "on_demand"),
    [
        ({}, False),
        ({"StreamModeDetails": None}, False),
        ({"StreamModeDetails": {}}, False),
        ({"StreamModeDetails": {"StreamMode": "ON_DEMAND"}}, True),
    ],
)
def test_a_stream_that_does_not_give_its_mode_counts_as_provisioned(aws_env: None, details: dict[str, Any], on_demand: bool) -> None:
    class FakeKinesisWithDetails(FakeKinesis):
        def DescribeStreamSummary(self, body: dict[str, Any]) -> Any:  # noqa: N802
            answer = super().DescribeStreamSummary(body)
            answer["StreamDescriptionSummary"] |= details
            return answer

    async def main() -> None:
        async with AsyncExitStack() as stack:
            fake = await stack.enter_async_context(serving(FakeKinesisWithDetails(JumpingClock())))
            client = await stack.enter_async_context(open_kinesis(AwsSession(region="eu-west-1", endpoints={"kinesis": fake.url})))
            assert (await client.describe_stream_summary("s")).on_demand is on_demand

    asyncio.run(asyncio.wait_for(main(), 120))
