from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from stream.audit.completeness import Found, Lookahead
from stream.aws.kinesis import open_kinesis
from stream.aws.session import AwsSession
from stream.contracts import Shard, Start, StartKind
from stream.errors import Retryable
from stream.local.kinesis.faults import Action, Fault
from stream.local.kinesis.server import serve
from stream.local.kpl import UserRecord, aggregate
from stream.operations.progress.stream_lookahead import FAILURES, StreamLookahead
from tests.simulation.completing import LeapingClock

SHARD = Shard("numbers", "shardId-000000000000")
TRIM = Start(StartKind.TRIM_HORIZON)


pytestmark = pytest.mark.usefixtures("aws_keys")


def with_stream(run: Callable[[StreamLookahead, Any, LeapingClock], Coroutine[Any, Any, None]], ours: LeapingClock | None = None) -> None:
    """``run`` over a stream of one shard in the emulator; ``ours``: the local clock, if it differs from the service's."""

    async def all_of_it() -> None:
        clock = LeapingClock()
        async with serve(clock=clock) as emulator:
            emulator.server.state.account.create("numbers", 1, "PROVISIONED", 2**20, _ms(clock))
            session = AwsSession(region="us-east-1", endpoints={"kinesis": emulator.url})
            async with open_kinesis(session, clock) as client:
                await run(StreamLookahead(client, "numbers", ours or clock), emulator, clock)

    asyncio.run(all_of_it())


def _ms(clock: LeapingClock) -> int:
    return round(clock.now().timestamp() * 1000)


def put(emulator: Any, clock: LeapingClock) -> int:
    shard = emulator.server.state.account.streams["numbers"].shards[SHARD.shard_id]
    return int(shard.put(b'"k"', b"e30=", 3, _ms(clock)))


def test_the_time_is_the_services_and_never_later_than_the_next_answer() -> None:
    ours = LeapingClock()
    ours.time += timedelta(hours=9)

    async def run(stream: StreamLookahead, _emulator: Any, clock: LeapingClock) -> None:
        clock.time += timedelta(milliseconds=900)
        assert await stream.time() == clock.now().replace(microsecond=0)

    with_stream(run, ours)


def test_it_finds_the_next_record_the_tip_and_the_end() -> None:
    async def run(stream: StreamLookahead, emulator: Any, clock: LeapingClock) -> None:
        assert await stream.after(SHARD, 0, TRIM, None, clock.now()) == Lookahead(Found.TIP)
        first = put(emulator, clock)
        arrived = clock.now()
        clock.time += timedelta(seconds=3)
        put(emulator, clock)
        assert await stream.after(SHARD, 0, TRIM, None, clock.now()) == Lookahead(Found.RECORD, arrived)
        assert await stream.after(SHARD, first, TRIM, arrived, clock.now()) == Lookahead(Found.RECORD, arrived + timedelta(seconds=3))
        emulator.server.state.account.streams["numbers"].split(SHARD.shard_id, 2**127, _ms(clock))
        assert (await stream.after(SHARD, first, TRIM, arrived, clock.now())).found is Found.RECORD
        last = emulator.server.state.account.streams["numbers"].shards[SHARD.shard_id].tip
        ended = await stream.after(SHARD, last, TRIM, clock.now(), clock.now())
        assert ended == Lookahead(Found.END, children=("shardId-000000000001", "shardId-000000000002"))

    with_stream(run)


def test_user_records_that_are_done_do_not_follow() -> None:
    """Another application has processed the first of an aggregate's three user records, then all of them."""

    async def run(stream: StreamLookahead, emulator: Any, clock: LeapingClock) -> None:
        shard = emulator.server.state.account.streams["numbers"].shards[SHARD.shard_id]
        data = aggregate([UserRecord("k", None, b"{}") for _ in range(3)])
        last = int(shard.put(json.dumps("k").encode(), base64.b64encode(data), len(data), _ms(clock)))
        arrived = clock.now()
        assert await stream.after(SHARD, last - 1, TRIM, None, clock.now(), 0) == Lookahead(Found.RECORD, arrived)
        assert await stream.after(SHARD, last - 1, TRIM, None, clock.now(), 2) == Lookahead(Found.TIP)
        clock.time += timedelta(seconds=3)
        put(emulator, clock)
        arrived = clock.now()
        assert await stream.after(SHARD, last - 1, TRIM, None, clock.now(), 2) == Lookahead(Found.RECORD, arrived)

    with_stream(run)


def test_an_empty_answer_with_a_lag_is_not_the_tip() -> None:
    async def run(stream: StreamLookahead, emulator: Any, clock: LeapingClock) -> None:
        put(emulator, clock)
        emulator.faults.add(Fault(Action.EMPTY_PAGE, "GetRecords", times=3))
        assert (await stream.after(SHARD, 0, TRIM, None, clock.now())).found is Found.RECORD

    with_stream(run)


def test_nothing_follows_a_start_in_the_services_future() -> None:
    async def run(stream: StreamLookahead, emulator: Any, clock: LeapingClock) -> None:
        put(emulator, clock)
        later = Start(StartKind.AT_TIMESTAMP, clock.now() + timedelta(minutes=1))
        assert await stream.after(SHARD, 0, later, None, clock.now()) == Lookahead(Found.TIP)

    with_stream(run)


def test_expiry_after_the_last_record_is_judged_by_the_services_clock() -> None:
    ours = LeapingClock()

    async def run(stream: StreamLookahead, emulator: Any, clock: LeapingClock) -> None:
        last, sealed = put(emulator, clock), clock.now()
        clock.time += timedelta(hours=1)
        put(emulator, clock)
        clock.time += timedelta(hours=26)
        asked_at = await stream.time()
        assert (await stream.after(SHARD, last, TRIM, sealed, asked_at)).found is Found.EXPIRED
        # Its worker was there until now: nothing can have expired unread.
        assert (await stream.after(SHARD, last, TRIM, asked_at, asked_at)).found is Found.TIP

    with_stream(run, ours)


@pytest.mark.parametrize("operation", ["GetRecords", "GetShardIterator"])
def test_a_stream_that_keeps_failing_is_silent_with_a_reason(operation: str) -> None:
    async def run(stream: StreamLookahead, emulator: Any, clock: LeapingClock) -> None:
        put(emulator, clock)
        emulator.faults.add(Fault(Action.ERROR500, operation, times=FAILURES - 1))
        assert (await stream.after(SHARD, 0, TRIM, None, clock.now())).found is Found.RECORD
        emulator.faults.add(Fault(Action.ERROR500, operation, times=None))
        found = await stream.after(SHARD, 0, TRIM, None, clock.now())
        assert found.found is Found.SILENT
        assert f"kinesis:{operation}" in found.why

    with_stream(run)


def test_asking_for_the_time_is_repeated_a_few_times() -> None:
    async def run(stream: StreamLookahead, emulator: Any, _clock: LeapingClock) -> None:
        emulator.faults.add(Fault(Action.ERROR500, "DescribeStreamSummary", times=7))
        await stream.time()
        emulator.faults.add(Fault(Action.ERROR500, "DescribeStreamSummary", times=8))
        with pytest.raises(Retryable):
            await stream.time()

    with_stream(run)
