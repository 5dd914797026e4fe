"""Before the shards of a stream are first listed, it is recognised, whatever that takes; and again when it may be another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from stream.aws.errors import StreamMissing
from stream.aws.kinesis import StreamSummary, open_kinesis
from stream.aws.session import AwsSession
from stream.budget import ByteBudget
from stream.errors import Fatal, OtherStream, Retryable
from stream.local.kinesis.faults import Action, Fault
from stream.local.kinesis.server import serve
from stream.source.access import StreamAccess
from stream.storage.memory import MemoryStore
from stream.worker.opening.identity import PinnedStream, Pinning
from tests.simulation.completing import LeapingClock

pytestmark = pytest.mark.usefixtures("aws_keys")


class Recogniser:
    """``source.access.Recognition`` that accepts what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.refuses = False
        self.takes_for_another = 0
        """How often the stream is refused as another one."""
        self.asked: list[StreamSummary] = []
        self.done = False

    async def __call__(self, summary: StreamSummary) -> None:
        self.asked.append(summary)
        if len(self.asked) <= self.takes_for_another:
            msg = "of another stream"
            raise OtherStream(msg)
        if self.refuses:
            msg = "another stream"
            raise Fatal(msg)
        self.done = True


def create(emulator: Any, clock: LeapingClock) -> None:
    emulator.server.state.account.create("numbers", 2, "PROVISIONED", 2**20, round(clock.now().timestamp() * 1000))


def with_access(run: Callable[[StreamAccess, Recogniser, Any, LeapingClock], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        clock, recogniser = LeapingClock(), Recogniser()
        async with serve(clock=clock) as emulator:
            create(emulator, clock)
            session = AwsSession(region="us-east-1", endpoints={"kinesis": emulator.url})
            async with open_kinesis(session, clock) as client:
                access = StreamAccess(
                    client,
                    "numbers",
                    budget=ByteBudget(2**20),
                    clock=clock,
                    emit=lambda _: None,
                    random=lambda: 0.5,
                    recognition=recogniser,
                )
                await run(access, recogniser, emulator, clock)

    asyncio.run(all_of_it())


def test_no_shard_is_listed_before_the_stream_is_recognised() -> None:
    async def run(access: StreamAccess, recogniser: Recogniser, emulator: Any, _clock: LeapingClock) -> None:
        emulator.faults.add(Fault(Action.ERROR500, "DescribeStreamSummary", times=8))
        with pytest.raises(Retryable):
            await access.shards()
        assert not recogniser.asked
        assert len(await access.shards()) == 2
        assert len(await access.shards()) == 2
        assert [summary.arn.rpartition("/")[2] for summary in recogniser.asked] == ["numbers"]

    with_access(run)


def test_once_it_is_recognised_shards_are_listed_although_the_stream_cannot_be_described() -> None:
    async def run(access: StreamAccess, recogniser: Recogniser, emulator: Any, _clock: LeapingClock) -> None:
        recogniser.done = True
        emulator.faults.add(Fault(Action.ERROR500, "DescribeStreamSummary", times=1))
        assert len(await access.shards()) == 2
        assert not recogniser.asked

    with_access(run)


def test_another_stream_is_refused_each_time() -> None:
    async def run(access: StreamAccess, recogniser: Recogniser, _emulator: Any, _clock: LeapingClock) -> None:
        recogniser.refuses = True
        for _ in range(2):
            with pytest.raises(Fatal, match="another stream"):
                await access.shards()
        with pytest.raises(Fatal, match="another stream"):
            await access.retention()
        assert len(recogniser.asked) == 3

    with_access(run)


def test_a_stream_that_was_missing_is_recognised_again() -> None:
    async def run(access: StreamAccess, recogniser: Recogniser, emulator: Any, clock: LeapingClock) -> None:
        await access.shards()
        emulator.server.state.account.streams.clear()
        with pytest.raises(StreamMissing):
            await access.shards()
        clock.time += timedelta(minutes=1)
        create(emulator, clock)
        await access.shards()
        first, second = recogniser.asked
        assert second.created > first.created

    with_access(run)


def test_a_stream_that_was_created_again_while_it_was_described_is_described_again_before_it_counts_as_another_one() -> None:
    """Another worker has pinned the new stream already, and what was described is the old one."""

    async def run(access: StreamAccess, recogniser: Recogniser, emulator: Any, clock: LeapingClock) -> None:
        state = MemoryStore()
        ours, theirs = (PinnedStream(state, "numbers", "here", Pinning(clock, name, lambda _: None)) for name in ("ours", "theirs"))

        async def pin_successor(summary: StreamSummary) -> None:
            if not recogniser.asked:
                emulator.server.state.account.streams.clear()
                clock.time += timedelta(minutes=1)
                create(emulator, clock)
                await theirs(await access.client.describe_stream_summary("numbers"))
            await recogniser(summary)
            await ours(summary)

        recognition: Any = pin_successor
        recognition.done = False
        access.recognition = recognition
        assert len(await access.shards()) == 2
        first, second = recogniser.asked
        assert second.created > first.created
        pin = await ours.pin()
        assert pin is not None
        assert (pin.worker, pin.created, pin.former) == ("theirs", second.created.isoformat(), ())

    with_access(run)


def test_a_stream_that_stays_another_one_is_refused() -> None:
    async def run(access: StreamAccess, recogniser: Recogniser, _emulator: Any, _clock: LeapingClock) -> None:
        recogniser.takes_for_another = 2
        with pytest.raises(OtherStream, match="of another stream"):
            await access.shards()
        assert len(recogniser.asked) == 2

    with_access(run)
