"""What a source promises, polled and pushed, against the emulator over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, cast

import pytest

from stream.aws.errors import AwsRetryable
from stream.aws.kinesis import open_kinesis
from stream.aws.session import AwsSession
from stream.batch import DATA, ORIGIN, PARTITION_KEY, SUBSEQUENCE
from stream.budget import ByteBudget
from stream.clock import SystemClock
from stream.contracts import Page, Shard, Start, StartKind
from stream.errors import Expired, Fatal
from stream.events import Event, RetrievalChanged, SubscriptionEnded
from stream.local.kinesis.faults import Action, Fault
from stream.local.kinesis.model import Settings
from stream.local.kinesis.server import Running, serve
from stream.local.kpl import UserRecord, aggregate
from stream.source.consumer import Consumer
from stream.source.kinesis import KinesisSource
from stream.source.pace import FanOut, ReadSettings
from tests.clocks import ShiftedClock

HORIZON = Start(StartKind.TRIM_HORIZON)
FIRST = "shardId-000000000000"
IMPATIENT = FanOut("reader", resubscribe_seconds=0.02, silence_seconds=30.0, hold_seconds=0.1, retry_seconds=30.0)
EMULATOR = Settings(region="eu-west-1", resubscribe_ms=10, heartbeat_ms=50)
BODIES = [f"record {number}".encode() for number in range(40)]


@dataclass
class World:
    client: Any
    server: Running
    source: KinesisSource
    clock: ShiftedClock
    events: list[Event] = field(default_factory=list)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def ask(self, operation: str, **members: Any) -> dict[str, Any]:
        async with await self.client.post(operation, "s", members) as answer:
            return cast("dict[str, Any]", json.loads(await answer.read() or b"{}"))

    async def put(self, *bodies: bytes) -> list[int]:
        made = []
        for body in bodies:
            data = base64.b64encode(body).decode()
            made.append(int((await self.ask("PutRecord", StreamName="s", Data=data, PartitionKey="k"))["SequenceNumber"]))
        return made

    def misbehave(self, action: Action, operation: str = "SubscribeToShard", **options: Any) -> None:
        self.server.faults.add(Fault(action, operation, **options))


@pytest.fixture(params=["polling", "fan_out"])
def run(request: pytest.FixtureRequest, aws_env: None) -> Callable[..., None]:
    def start(body: Callable[[World], Awaitable[None]], *, limit: int = 2**26, emulator: Settings = EMULATOR) -> None:
        settings = ReadSettings(
            idle_first=0.02, idle_last=0.05, calls_per_second=100, fan_out=IMPATIENT if request.param == "fan_out" else None
        )
        asyncio.run(asyncio.wait_for(world(body, limit, emulator, settings), 120))

    return start


@pytest.fixture
def pushed(aws_env: None) -> Callable[..., None]:
    def start(body: Callable[[World], Awaitable[None]], *, limit: int = 2**26, emulator: Settings = EMULATOR, **changes: Any) -> None:
        settings = ReadSettings(idle_first=0.02, idle_last=0.05, calls_per_second=100, fan_out=replace(IMPATIENT, **changes))
        asyncio.run(asyncio.wait_for(world(body, limit, emulator, settings), 120))

    return start


async def world(body: Callable[[World], Awaitable[None]], limit: int, emulator: Settings, settings: ReadSettings) -> None:
    clock, events = ShiftedClock(), list[Event]()
    async with serve(settings=emulator, clock=clock) as server:
        session = AwsSession(region="eu-west-1", endpoints={"kinesis": server.url})
        async with open_kinesis(session) as client:
            source = KinesisSource(
                client, "s", budget=ByteBudget(limit), clock=clock, emit=events.append, settings=settings, random=lambda: 0.1
            )
            made = World(client, server, source, clock, events)
            await made.ask("CreateStream", StreamName="s", ShardCount=1)
            await body(made)
            assert source.budget.held == 0
            assert source.budget.readers == 0


async def take(made: World, pages: AsyncIterator[Page], enough: Callable[[list[Page]], Any]) -> list[Page]:
    taken: list[Page] = []
    async with aclosing(cast("Any", pages)) as closing:
        async for page in closing:
            taken.append(page)
            made.source.budget.release(page.held)
            if await called(enough(taken)):
                break
    return taken


async def called(answer: Any) -> Any:
    return await answer if isinstance(answer, Awaitable) else answer


def rows(pages: list[Page]) -> list[bytes]:
    return [data for page in pages for data in page.batch.frame.get_column(DATA)]


def having(count: int) -> Callable[[list[Page]], bool]:
    return lambda pages: len(rows(pages)) >= count


def never(pages: list[Page]) -> bool:
    return False


def read(made: World, after: int = ORIGIN, start: Start = HORIZON, **options: Any) -> AsyncIterator[Page]:
    return made.source.read(Shard("s", FIRST), after, start, **options)


def test_records_are_delivered_in_order_and_once(run):
    async def body(made):
        sequences = await made.put(*BODIES)
        pages = await take(made, read(made), having(40))
        assert rows(pages) == BODIES
        assert pages[-1].position == sequences[-1]
        assert pages[-1].behind_ms == 0

    run(body)


def test_reading_resumes_after_a_sequence_number(run):
    async def body(made):
        sequences = await made.put(*BODIES)
        pages = await take(made, read(made, sequences[11]), having(28))
        assert rows(pages) == BODIES[12:]

    run(body)


def test_records_that_arrive_later_are_delivered(run):
    async def body(made):
        await made.put(*BODIES[:5])

        async def more(pages):
            if len(rows(pages)) == 5 and pages[-1].batch.rows:
                await made.put(*BODIES[5:])
            return len(rows(pages)) == 40

        assert rows(await take(made, read(made), more)) == BODIES

    run(body)


def test_records_without_a_partition_key_are_read_with_an_empty_one(run):
    async def body(made):
        arn = (await made.ask("DescribeStreamSummary", StreamName="s"))["StreamDescriptionSummary"]["StreamARN"]
        await made.ask("UpdateStreamMode", StreamARN=arn, StreamModeDetails={"StreamMode": "ON_DEMAND"})
        await made.put(b"before")
        await made.ask("UpdateStreamRecordDistributionStrategy", StreamARN=arn, RecordDistributionStrategy="AUTO")
        await made.ask("PutRecord", StreamName="s", Data=base64.b64encode(b"without").decode())
        await made.put(b"with")
        pages = await take(made, read(made), having(3))
        assert rows(pages) == [b"before", b"without", b"with"]
        assert [key for page in pages for key in page.batch.frame.get_column(PARTITION_KEY)] == ["k", "", "k"]

    run(body)


def test_latest_begins_after_the_existing_records(run):
    async def body(made):
        await made.put(b"old")

        async def more(pages):
            if len(pages) == 1:
                await made.put(b"new")
            return bool(rows(pages))

        assert rows(await take(made, read(made, start=Start(StartKind.LATEST)), more)) == [b"new"]

    run(body)


def test_a_timestamp_begins_at_the_first_record_that_is_not_older(run):
    async def body(made):
        await made.put(b"old")
        made.clock.ahead += timedelta(seconds=10)
        since = made.clock.now()
        await made.put(b"new")
        assert rows(await take(made, read(made, start=Start(StartKind.AT_TIMESTAMP, since)), having(1))) == [b"new"]

    run(body)


def test_an_idle_shard_yields_pages_without_rows(run):
    async def body(made):
        pages = await take(made, read(made), lambda taken: len(taken) == 3)
        assert [(page.batch.rows, page.position, page.held, page.ended) for page in pages] == [(0, ORIGIN, 0, False)] * 3

    run(body)


def test_a_split_shard_ends_and_names_its_children(run):
    async def body(made):
        await made.put(*BODIES)
        await made.ask("SplitShard", StreamName="s", ShardToSplit=FIRST, NewStartingHashKey=str(2**127))
        pages = await take(made, read(made), never)
        assert rows(pages) == BODIES
        assert [page.ended for page in pages] == [False] * (len(pages) - 1) + [True]
        assert pages[-1].children == ("shardId-000000000001", "shardId-000000000002")

    run(body)


def test_an_aggregate_is_opened_into_its_user_records(run):
    async def body(made):
        await made.put(b"plain", aggregate([UserRecord("a", None, b"one"), UserRecord("b", None, b"two")]))
        pages = await take(made, read(made), having(3))
        assert rows(pages) == [b"plain", b"one", b"two"]
        assert [sub for page in pages for sub in page.batch.frame[SUBSEQUENCE]] == [0, 0, 1]

    run(body)


def test_a_range_ends_at_its_last_record(run):
    async def body(made):
        sequences = await made.put(*BODIES)
        pages = await take(made, read(made, sequences[3], until=sequences[9]), never)
        assert rows(pages) == BODIES[4:10]
        assert pages[-1].position == sequences[9]
        assert not made.of(SubscriptionEnded)

    run(body)


def test_records_that_expired_unread_are_reported(run):
    async def body(made):
        sequences = await made.put(*BODIES[:3])
        made.clock.ahead += timedelta(hours=30)
        await made.put(b"later")
        with pytest.raises(Expired):
            await take(made, read(made, sequences[0]), never)

    run(body)


def test_what_was_pushed_to_a_process_that_was_frozen_is_not_taken_for_new(pushed):
    async def body(made):
        await made.put(*BODIES[:3])
        frozen = []

        def after_a_freeze(pages):
            if not frozen and pages[-1].behind_ms == 0:
                frozen.append(made.clock.now())
                made.clock.ahead += timedelta(hours=30)
                return False
            return bool(frozen)

        reader = read(made)
        made.clock.ahead += timedelta(hours=1)
        subscribed = made.clock.now()
        pages = await take(made, reader, after_a_freeze)
        assert not made.of(SubscriptionEnded)
        assert subscribed <= pages[-1].asked <= frozen[0]

    pushed(body)


def test_a_missing_stream_is_fatal(run):
    async def body(made):
        await made.ask("DeleteStream", StreamName="s", EnforceConsumerDeletion=True)
        with pytest.raises(Fatal, match="stream s"):
            await take(made, read(made), never)

    run(body)


def test_the_budget_limits_what_is_held(run):
    async def body(made):
        bodies = [bytes([number]) * 30_000 for number in range(30)]
        budget, unread, kept, most, waits = made.source.budget, list(bodies), [], 0, 0
        async with aclosing(cast("Any", read(made))) as pages:
            while len(rows(kept)) < len(bodies):
                if len(rows(kept)) + len(unread) == len(bodies):
                    await made.put(*unread[:2])
                    del unread[:2]
                async with asyncio.TaskGroup() as group:
                    following, pressed = group.create_task(_with_rows(pages)), group.create_task(budget.pressure.wait())
                    await asyncio.wait([following, pressed], return_when=asyncio.FIRST_COMPLETED)
                    if not following.done():
                        waits += 1
                        budget.release(sum(each.held for each in kept))
                        kept = [replace(each, held=0) for each in kept]
                    kept.append(await following)
                    pressed.cancel()
                most = max(most, budget.held)
        budget.release(sum(each.held for each in kept))
        assert rows(kept) == bodies
        assert waits >= 3
        assert 60_000 < most <= 200_000

    run(body, limit=200_000)


async def _with_rows(pages: Any) -> Page:
    """The next page that is not empty."""
    while True:
        page: Page = await anext(pages)
        if page.batch.rows:
            return page


# --- only pushed ----------------------------------------------------------------------------------------------------------


def test_one_consumer_is_registered_and_reused(pushed):
    async def body(made):
        await made.put(*BODIES)
        for _ in range(2):
            await take(made, read(made), having(40))
        summary = await made.client.describe_stream_summary("s")
        listed = await made.ask("ListStreamConsumers", StreamARN=summary.arn)
        assert [each["ConsumerName"] for each in listed["Consumers"]] == ["reader"]
        assert not made.of(RetrievalChanged)

    pushed(body)


def test_a_consumer_that_is_still_being_created_is_waited_for(pushed):
    async def body(made):
        made.clock.ahead += timedelta(seconds=1)
        await made.put(*BODIES)
        assert rows(await take(made, read(made), having(40))) == BODIES
        assert not made.of(RetrievalChanged)

    pushed(body, emulator=replace(EMULATOR, transition_ms=300))


def test_a_consumer_that_never_becomes_active_delays_all_shards_only_once(pushed):
    async def body(made):
        waits = []

        async def hasty(seconds):
            waits.append(seconds)
            await SystemClock().sleep(min(seconds, 0.001))

        made.clock.sleep = hasty
        await made.ask("CreateStream", StreamName="two", ShardCount=2)
        made.clock.ahead += timedelta(hours=1)
        made.source.stream = "two"
        for key in ("170141183460469231731687303715884105727", "170141183460469231731687303715884105728"):
            await made.ask("PutRecord", StreamName="two", Data="eA==", PartitionKey="k", ExplicitHashKey=key)
        shards = await made.source.shards()
        each = [take(made, made.source.read(shard, ORIGIN, HORIZON), having(1)) for shard in shards]
        assert [rows(pages) for pages in await asyncio.gather(*each)] == [[b"x"], [b"x"]]
        assert [event.to for event in made.of(RetrievalChanged)] == ["polling"] * 2
        assert waits.count(1.0) == 60
        late = Consumer(made.source, "late")
        for total in (120, 121, 122):
            with pytest.raises(AwsRetryable, match=r"late of .* is CREATING"):
                await late.arn()
            assert waits.count(1.0) == total

    pushed(body, emulator=replace(EMULATOR, transition_ms=600_000))


def test_a_subscription_is_renewed_after_the_last_record_it_delivered(pushed):
    async def body(made):
        await made.put(*BODIES[: (put := 10)])

        async def more(pages):
            nonlocal put
            # Several pages without rows may come before those with what was put.
            if pages[-1].batch.rows == 0 and len(rows(pages)) == put < 40 and len(made.of(SubscriptionEnded)) * 10 >= put:
                await made.put(*BODIES[put : put + 10])
                put += 10
            return len(rows(pages)) == 40

        assert rows(await take(made, read(made), more)) == BODIES
        assert {event.why for event in made.of(SubscriptionEnded)} == {"renewed"}

    pushed(body, emulator=replace(EMULATOR, subscription_ms=150))


@pytest.mark.parametrize("action", [Action.TRUNCATE, Action.CLOSE_BEFORE_REPLY, Action.CLOSE_AFTER_APPLY, Action.ERROR500, Action.THROTTLE])
def test_a_broken_subscription_is_made_again(pushed, action):
    async def body(made):
        await made.put(*BODIES)
        made.misbehave(action, times=3)
        assert rows(await take(made, read(made), having(40))) == BODIES
        assert [event.why for event in made.of(SubscriptionEnded)] == ["broken"] * 3
        assert not made.of(RetrievalChanged)

    pushed(body)


def test_a_silent_subscription_is_replaced(pushed):
    async def body(made):
        await made.put(*BODIES[:3])
        made.misbehave(Action.STALL)

        async def more(pages):
            if len(rows(pages)) == 3 and pages[-1].batch.rows:
                await made.put(*BODIES[3:])
            return len(rows(pages)) == 40

        assert rows(await take(made, read(made), more)) == BODIES
        assert "silence" in [event.why for event in made.of(SubscriptionEnded)]

    pushed(body, silence_seconds=0.5)


def test_a_subscription_that_is_still_in_use_is_waited_for(pushed):
    async def body(made):
        await made.put(*BODIES)
        made.misbehave(Action.ERROR, code="ResourceInUseException", status=400, times=2)
        assert rows(await take(made, read(made), having(40))) == BODIES
        assert [event.why for event in made.of(SubscriptionEnded)] == ["in_use"] * 2
        assert all(IMPATIENT.resubscribe_seconds <= event.wait for event in made.of(SubscriptionEnded))

    pushed(body)


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("SubscribeToShard", "AccessDeniedException"),
        ("RegisterStreamConsumer", "AccessDeniedException"),
        ("RegisterStreamConsumer", "LimitExceededException"),
        ("SubscribeToShard", "UnknownOperationException"),
        ("SubscribeToShard", "InvalidArgumentException"),
    ],
)
def test_a_shard_is_polled_while_subscribing_is_refused(pushed, operation, code):
    async def body(made):
        await made.put(*BODIES[:20])
        made.misbehave(Action.ERROR, operation, code=code, status=400, times=5 if code == "LimitExceededException" else 1)

        async def more(pages):
            changes = [event.to for event in made.of(RetrievalChanged)]
            if changes == ["polling", "fan_out"] and len(rows(pages)) == 20:
                await made.put(*BODIES[20:])
            return len(rows(pages)) == 40

        assert rows(await take(made, read(made), more)) == BODIES
        first, second = made.of(RetrievalChanged)
        assert (first.to, second.to) == ("polling", "fan_out")
        assert code in first.why

    pushed(body, retry_seconds=0.2)


def test_a_reader_whose_subscription_was_taken_over_polls_instead(pushed):
    async def body(made):
        await made.put(*BODIES[:20])
        rival = KinesisSource(
            made.client,
            "s",
            budget=ByteBudget(2**20),
            clock=made.clock,
            emit=lambda _: None,
            settings=made.source.settings,
            random=lambda: 0.1,
        )
        async with aclosing(cast("Any", rival.read(Shard("s", FIRST), ORIGIN, HORIZON))) as theirs:

            async def more(pages):
                if len(pages) == 1:
                    await asyncio.wait_for(anext(theirs), 120)
                    await made.put(*BODIES[20:])
                return len(rows(pages)) == 40

            assert rows(await take(made, read(made), more)) == BODIES
        assert [event.to for event in made.of(RetrievalChanged)] == ["polling"]

    pushed(body)


def test_no_subscription_is_kept_open_while_memory_is_short(pushed):
    async def body(made):
        bodies = [bytes([number]) * 40_000 for number in range(4)]
        await made.put(*bodies)
        budget = made.source.budget
        await budget.acquire(budget.limit)
        async with asyncio.TaskGroup() as group, aclosing(cast("Any", read(made))) as pages:
            first = group.create_task(anext(pages))
            while not made.of(SubscriptionEnded):
                await asyncio.wait([first], timeout=0.01)
            assert [event.why for event in made.of(SubscriptionEnded)] == ["budget"]
            budget.release(budget.limit)
            page = await first
            budget.release(page.held)
            assert rows([page]) == bodies

    pushed(body, limit=300_000)
