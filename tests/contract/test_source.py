"""How the Kinesis source reads, over real HTTP against a scripted Kinesis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest

from stream.aws.errors import AwsRetryable
from stream.aws.kinesis import open_kinesis
from stream.aws.session import AwsSession
from stream.batch import DATA, ORIGIN, OUTCOME, RAW_SCHEMA, SEQUENCE, SUBSEQUENCE, Batch, Outcome
from stream.budget import FEWEST_TURNS, TURN_BYTES, ByteBudget
from stream.contracts import Page, Shard, Start, StartKind
from stream.errors import Expired, Fatal, Halted
from stream.events import BudgetWaited, Event, PageReceived, PollRepeated
from stream.native import KERNEL
from stream.source.kinesis import KinesisSource
from stream.source.pace import ReadSettings
from tests.contract.kinesis_fake import FULL, FakeKinesis, FakeShard, JumpingClock, serving
from tests.unit.source.kpl import aggregate, user

HORIZON = Start(StartKind.TRIM_HORIZON)
S0 = "shardId-000000000000"
S1 = "shardId-000000000001"
S2 = "shardId-000000000002"


@dataclass
class World:
    fake: FakeKinesis
    source: KinesisSource
    budget: ByteBudget
    clock: JumpingClock
    events: list[Event] = field(default_factory=list)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def run(aws_env: None, body: Callable[[World], Awaitable[None]], *, limit: int = 2**26, settings: ReadSettings | None = None) -> None:
    async def main() -> None:
        clock = JumpingClock()
        async with serving(FakeKinesis(clock)) as fake:
            session = AwsSession(region="eu-west-1", endpoints={"kinesis": fake.url})
            async with open_kinesis(session) as client:
                events: list[Event] = []
                budget = ByteBudget(limit)
                source = KinesisSource(client, "s", budget=budget, clock=clock, emit=events.append, settings=settings, random=lambda: 0.5)
                await body(World(fake, source, budget, clock, events))

    asyncio.run(asyncio.wait_for(main(), 120))


async def take(world: World, pages: AsyncIterator[Page], enough: Callable[[list[Page]], bool]) -> list[Page]:
    """Pages until ``enough``, or all; their bytes are returned to the budget, as the worker does."""
    taken: list[Page] = []
    async with aclosing(cast("Any", pages)) as closing:
        async for page in closing:
            taken.append(page)
            world.budget.release(page.held)
            if enough(taken):
                break
    return taken


def rows(pages: list[Page]) -> list[bytes]:
    return [data for page in pages for data in page.batch.frame.get_column(DATA)]


def having(count: int) -> Callable[[list[Page]], bool]:
    return lambda pages: len(rows(pages)) >= count


def never(pages: list[Page]) -> bool:
    return False


BODIES = [f"record {i}".encode() for i in range(10)]


def test_a_shard_is_read_from_its_start_in_pages(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES)
        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), having(10))
        assert rows(pages) == BODIES
        assert [page.batch.rows for page in pages] == [3, 3, 3, 1]
        assert [page.position for page in pages] == [sequences[i] for i in (2, 5, 8, 9)]
        assert [page.behind_ms for page in pages] == [7000, 4000, 1000, 0]
        frame = pages[0].batch.frame
        assert frame.schema == RAW_SCHEMA
        assert frame.get_column(SEQUENCE).to_list() == [str(sequence) for sequence in sequences[:3]]
        assert pages[0].batch.payload_bytes == sum(map(len, BODIES[:3]))
        assert all(page.held >= page.batch.payload_bytes for page in pages)
        assert world.budget.held == 0
        assert [event.records for event in world.of(PageReceived)] == [3, 3, 3, 1]

    run(aws_env, body)


def test_reading_resumes_after_a_sequence_number(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES)
        pages = await take(world, world.source.read(Shard("s", S0), sequences[3], HORIZON), having(6))
        assert rows(pages) == BODIES[4:]
        request = world.fake.calls("GetShardIterator")[0]
        assert request["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER"
        assert request["StartingSequenceNumber"] == str(sequences[3])

    run(aws_env, body)


def test_a_position_known_to_be_complete_is_not_probed(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES)
        known = world.clock.now()
        await take(world, world.source.read(Shard("s", S0), sequences[3], HORIZON, complete_until=known), having(6))
        assert [request["ShardIteratorType"] for request in world.fake.calls("GetShardIterator")] == ["AFTER_SEQUENCE_NUMBER"]

    run(aws_env, body)


def test_latest_and_timestamp_are_honoured(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, b"old", age=500)
        world.fake.put(S0, b"new", age=100)
        since = world.clock.now().replace(microsecond=0)
        start = Start(StartKind.AT_TIMESTAMP, since.fromtimestamp(since.timestamp() - 200, since.tzinfo))
        assert rows(await take(world, world.source.read(Shard("s", S0), ORIGIN, start), having(1))) == [b"new"]

        latest = Start(StartKind.LATEST)
        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, latest), lambda taken: len(taken) == 2)
        assert [(page.batch.rows, page.position, page.held) for page in pages] == [(0, ORIGIN, 0)] * 2

    run(aws_env, body)


def test_latest_is_not_asked_twice_when_its_iterator_expires(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, b"before", age=100)

        def arrive(pages: list[Page]) -> bool:
            if len(pages) == 1:
                world.fake.put(S0, b"between")
                world.fake.faults.append(("GetRecords", 400, "ExpiredIteratorException"))
            return bool(rows(pages))

        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, Start(StartKind.LATEST)), arrive)
        assert rows(pages) == [b"between"]

    run(aws_env, body)


def test_an_expired_iterator_is_replaced_after_the_last_record(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES)

        def expire(pages: list[Page]) -> bool:
            if len(pages) == 2:
                world.fake.faults.append(("GetRecords", 400, "ExpiredIteratorException"))
            return len(rows(pages)) == 10

        assert rows(await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), expire)) == BODIES
        assert world.fake.calls("GetShardIterator")[1]["StartingSequenceNumber"] == str(sequences[5])
        assert [(event.why, event.wait) for event in world.of(PollRepeated)] == [("expired_iterator", 0.0)]

    run(aws_env, body)


@pytest.mark.parametrize(
    ("status", "code", "why"),
    [
        (400, "ProvisionedThroughputExceededException", "throttled"),
        (500, "InternalFailure", "error"),
        (503, "Whatever", "error"),
        (400, "InvalidArgumentException", "error"),
        (0, "", "error"),
    ],
)
def test_failed_polls_are_repeated_and_nothing_is_lost(aws_env: None, status: int, code: str, why: str) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *BODIES)

        def fail(pages: list[Page]) -> bool:
            if len(pages) in {1, 3}:
                world.fake.faults += [("GetRecords", status, code)] * 3
            return len(rows(pages)) == 10

        assert rows(await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), fail)) == BODIES
        assert [event.why for event in world.of(PollRepeated)] == [why] * 6
        waits = [event.wait for event in world.of(PollRepeated)]
        assert waits[:3] == waits[3:] == sorted(waits[:3])
        assert world.budget.held == 0

    run(aws_env, body)


def test_a_repeated_page_delivers_no_record_twice(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *BODIES)
        world.fake.repeat_pages = True
        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), having(10))
        assert rows(pages) == BODIES
        positions = [page.position for page in pages]
        assert positions == sorted(positions)

    run(aws_env, body)


@pytest.mark.parametrize("last", [0, 2, 3, 4, 9])
def test_until_delivers_exactly_the_range(aws_env: None, last: int) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES)
        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON, until=sequences[last]), never)
        assert rows(pages) == BODIES[: last + 1]
        assert pages[-1].position == sequences[last]
        assert await take(world, world.source.read(Shard("s", S0), sequences[last], HORIZON, until=sequences[last]), never) == []

    run(aws_env, body)


def test_until_between_two_records_ends_exactly_there(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES)
        pages = await take(world, world.source.read(Shard("s", S0), sequences[0], HORIZON, until=sequences[2] + 1), never)
        assert rows(pages) == BODIES[1:3]
        assert pages[-1].position == sequences[2] + 1
        assert not pages[-1].ended

    run(aws_env, body)


def test_until_beyond_the_last_record_of_the_shard_halts(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES)
        with pytest.raises(Halted, match=f"no longer holds the records up to {sequences[-1] + 5}"):
            await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON, until=sequences[-1] + 5), never)
        assert world.budget.held == 0

    run(aws_env, body)


def test_a_closed_shard_ends_with_its_children(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES[:4])
        world.fake.shards[S0].closed = True
        world.fake.shards[S0].children = (S2, S1)
        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), never)
        assert rows(pages) == BODIES[:4]
        assert [page.ended for page in pages] == [False, True]
        assert (pages[-1].children, pages[-1].position) == ((S1, S2), sequences[3])

    run(aws_env, body)


def test_until_inside_the_last_page_of_a_closed_shard_does_not_end_the_shard(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES[:3])
        world.fake.shards[S0].closed = True
        world.fake.shards[S0].children = (S1,)
        [page] = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON, until=sequences[1]), never)
        assert (page.batch.rows, page.position, page.ended, page.children) == (2, sequences[1], False, ())

    run(aws_env, body)


def test_a_page_out_of_order_halts(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *BODIES[:4])
        records = world.fake.shards[S0].records
        records[1], records[2] = records[2], records[1]
        world.fake.page = 4
        with pytest.raises(Halted, match="out of order"):
            await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), never)
        assert world.budget.held == 0

    run(aws_env, body)


def test_children_come_from_list_shards_when_the_answer_names_none(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, b"x")
        world.fake.shards[S0].closed = True
        world.fake.shards[S1] = FakeShard(parents=(S0,))
        world.fake.shards[S2] = FakeShard(parents=("other", S0))
        [page] = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), never)
        assert (page.ended, page.children) == (True, (S1, S2))

    run(aws_env, body)


def test_an_end_without_children_halts_after_several_looks(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, b"x")
        world.fake.shards[S0].closed = True
        with pytest.raises(Halted, match="no shard continues it"):
            await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), never)
        assert len(world.of(PollRepeated)) == 4
        assert world.budget.held == 0

    run(aws_env, body)


def test_false_ends_now_and_then_do_not_add_up_to_an_end(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *BODIES)
        world.fake.page, world.fake.lies = 1, len(BODIES)
        assert rows(await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), having(10))) == BODIES
        assert len(world.of(PollRepeated)) == len(BODIES)

    run(aws_env, body)


def test_a_shard_listed_on_two_pages_counts_once(aws_env: None) -> None:
    async def body(world: World) -> None:
        names = [f"shardId-00000000000{number}" for number in range(5)]
        world.fake.shards = {name: FakeShard() for name in names}
        world.fake.overlap = 1
        assert [shard.shard_id for shard in await world.source.shards()] == names

    run(aws_env, body)


def test_without_a_reported_lag_a_page_with_records_does_not_count_as_the_tip(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *BODIES[:6])
        world.fake.says_how_far = False
        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), lambda taken: len(taken) == 3)
        assert [page.batch.rows for page in pages] == [3, 3, 0]
        assert [page.behind_ms > 0 for page in pages] == [True, True, False]

    run(aws_env, body)


def test_an_idle_shard_is_polled_less_and_less_often_and_yields_empty_pages(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, b"x")
        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), lambda taken: len(taken) == 12)
        assert [page.held for page in pages[1:]] == [0] * 11
        pauses = world.clock.pauses[1:]
        assert pauses == sorted(pauses)
        assert pauses[-1] == pytest.approx(1.0)

    run(aws_env, body)


def test_a_shard_that_is_behind_is_polled_within_the_call_limit(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *BODIES * 10)
        begin = world.clock.monotonic()
        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), having(100))
        assert (len(pages) - 1) / (world.clock.monotonic() - begin) == pytest.approx(4.5)

    run(aws_env, body)


def test_a_reader_that_waits_for_the_budget_reports_it(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *BODIES)
        await world.budget.acquire(world.budget.limit)

        async def give_back() -> None:
            await world.budget.pressure.wait()
            assert world.fake.calls("GetRecords") == []
            world.clock.passed += 7
            world.budget.release(world.budget.limit)

        async with asyncio.TaskGroup() as group:
            group.create_task(give_back())
            assert len(rows(await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), having(3)))) == 3
        assert [event.seconds for event in world.of(BudgetWaited)] == [pytest.approx(7)]
        assert world.budget.held == 0

    run(aws_env, body, limit=1000)


def test_with_a_small_budget_few_records_are_requested(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *[b"x" * 900] * 40)
        world.fake.page = 10_000
        await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), having(40))
        assert max(request["Limit"] for request in world.fake.calls("GetRecords")) <= 8
        assert world.budget.held == 0

    run(aws_env, body, limit=8 * 1024)


def test_closing_or_cancelling_a_reader_returns_its_bytes_to_the_budget(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *BODIES)
        asked, answer = asyncio.Event(), asyncio.Event()
        original = world.source.client.get_records

        async def slow(*args: Any) -> Any:
            asked.set()
            await answer.wait()
            return await original(*args)

        world.source.client.get_records = slow  # type: ignore[method-assign]
        pages = world.source.read(Shard("s", S0), ORIGIN, HORIZON)
        task = asyncio.ensure_future(anext(pages))
        await asked.wait()
        assert world.budget.held > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.budget.held == 0
        assert world.source.budget.readers == 0

        answer.set()
        pages = world.source.read(Shard("s", S0), ORIGIN, HORIZON)
        page = await anext(pages)
        await cast("Any", pages).aclose()
        assert world.budget.held == page.held > 0
        assert world.source.budget.readers == 0

    run(aws_env, body)


def test_aggregates_become_user_records_and_are_never_split(aws_env: None) -> None:
    async def body(world: World) -> None:
        packed = aggregate([user("a", b"1"), user("b", b"2", explicit=5), user("c", b"3", explicit=FULL)])
        world.fake.put(S0, b"plain", packed, b"last")
        shard = Shard("s", S0, first_hash=0, last_hash=FULL - 1)
        [page] = await take(world, world.source.read(shard, ORIGIN, HORIZON), having(5))
        frame = page.batch.frame
        assert frame.get_column(DATA).to_list() == [b"plain", b"1", b"2", b"3", b"last"]
        assert frame.get_column(SUBSEQUENCE).to_list() == [0, 0, 1, 2, 0]
        assert frame.get_column(SEQUENCE).n_unique() == 3
        assert frame.get_column(OUTCOME).to_list() == [0, 0, 0, int(Outcome.OUT_OF_RANGE), 0]
        [event] = world.of(PageReceived)
        assert (event.records, event.user_records) == (3, 5)

    run(aws_env, body)


def test_a_batch_counts_as_traced_if_one_of_its_records_may_hold_a_trace_context(aws_env: None) -> None:
    traced = b'{"traceparent": "00-x"}'

    async def body(world: World) -> None:
        for shard_id, records in (
            (S0, (*[b"plain"] * 3, traced)),  # on two pages
            (S1, (b"plain", aggregate([user("a", b"1"), user("b", traced)]))),
            (S2, (b"plain",)),
        ):
            world.fake.shards[shard_id] = FakeShard()
            world.fake.put(shard_id, *records)
        made = {}
        for shard_id, count in ((S0, 4), (S1, 3), (S2, 1)):
            pages = await take(world, world.source.read(Shard("s", shard_id), ORIGIN, HORIZON), having(count))
            made[shard_id] = Batch.concat([page.batch for page in pages]).traced
        # Without the compiled kernel, nobody has looked, and a record may always hold one.
        assert made == {S0: True, S1: True, S2: KERNEL is None}

    run(aws_env, body)


def test_large_pages_are_delivered_whole(aws_env: None) -> None:
    async def body(world: World) -> None:
        bodies = [bytes([i]) * 300_000 for i in range(4)]
        world.fake.put(S0, *bodies)
        world.fake.page = 10
        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), having(4))
        assert rows(pages) == bodies

    run(aws_env, body)


def test_an_expired_position_halts_when_the_service_refuses_it(aws_env: None) -> None:
    async def body(world: World) -> None:
        [sequence] = world.fake.put(S0, b"x")
        world.fake.faults.append(("GetShardIterator", 400, "InvalidArgumentException"))
        with pytest.raises(Halted, match=f"{S0}.*region eu-west-1.*after {sequence}.*keeps records for 24 hours:.*on_expired: gap"):
            await take(world, world.source.read(Shard("s", S0), sequence, HORIZON), never)

    run(aws_env, body)


@pytest.mark.parametrize("code", ["InvalidArgumentException", "ResourceNotFoundException"])
def test_a_position_just_before_a_record_is_requested_by_that_record(aws_env: None, code: str) -> None:
    """A gap, or another application's checkpoint, can end at a number without a record, which some implementations refuse."""

    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES)
        world.fake.faults.append(("GetShardIterator", 400, code))
        pages = await take(world, world.source.read(Shard("s", S0), sequences[4] - 1, HORIZON), having(6))
        assert rows(pages) == BODIES[4:]
        asked = world.fake.calls("GetShardIterator")[1]
        assert (asked["ShardIteratorType"], asked["StartingSequenceNumber"]) == ("AT_SEQUENCE_NUMBER", str(sequences[4]))

    run(aws_env, body)


def test_records_that_expire_while_the_process_is_frozen_with_a_response_are_not_passed_over(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, b"read")
        answer, frozen = world.fake.GetRecords, []

        def freeze(request: dict[str, Any]) -> Any:
            response = answer(request)
            if len(world.fake.calls("GetRecords")) == 3:
                assert response["Records"] == []
                world.clock.passed += 30 * 3600
                frozen.extend(world.fake.put(S0, b"lost", b"left"))
                world.fake.expire(S0, 2)
            return response

        world.fake.GetRecords = freeze  # type: ignore[method-assign]
        pages: list[Page] = []
        with pytest.raises(Expired, match=rf"cannot continue after {sequences[0]}: that record has expired"):
            await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), lambda taken: pages.extend(taken[-1:]) or False)
        assert rows(pages) == [b"read"]
        assert len(frozen) == 2
        assert all(page.asked < world.clock.now() - timedelta(hours=29) for page in pages)

    run(aws_env, body)


def test_an_expired_position_halts_when_the_lag_exceeds_the_retention(aws_env: None) -> None:
    async def body(world: World) -> None:
        [sequence] = world.fake.put(S0, b"x")
        world.fake.behind = 24 * 3600 * 1000
        with pytest.raises(Halted, match="further back than the stream's retention"):
            await take(world, world.source.read(Shard("s", S0), sequence, HORIZON), never)

    run(aws_env, body)


def test_an_expired_position_halts_when_reading_would_start_at_the_oldest_record_left(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES, age=24 * 3600 - 60)
        del world.fake.shards[S0].records[:4]
        with pytest.raises(Halted, match="that record has expired"):
            await take(world, world.source.read(Shard("s", S0), sequences[1], HORIZON), never)
        assert world.budget.held == 0

    run(aws_env, body)


def test_records_that_expire_while_a_shard_is_read_halt_it(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *BODIES, age=24 * 3600 - 120)
        world.fake.behind = (24 * 3600 - 120) * 1000
        found: list[Page] = []

        def expire(pages: list[Page]) -> bool:
            found[:] = pages
            if len(pages) == 2:
                world.fake.expire(S0, 8)
            return False

        with pytest.raises(Halted, match="that record has expired"):
            await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), expire)
        assert rows(found) == BODIES[:6]
        assert world.budget.held == 0

    run(aws_env, body)


def test_a_shard_near_its_oldest_records_is_read_while_they_exist(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, *BODIES, age=24 * 3600 - 120)
        world.fake.behind = (24 * 3600 - 120) * 1000
        pages = await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), having(10))
        assert rows(pages) == BODIES

    run(aws_env, body)


def test_a_position_near_expiry_is_read_from_while_its_record_exists(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES, age=24 * 3600 - 60)
        pages = await take(world, world.source.read(Shard("s", S0), sequences[1], HORIZON), having(8))
        assert rows(pages) == BODIES[2:]

    run(aws_env, body)


def test_empty_answers_do_not_mean_that_the_record_at_the_position_has_expired(aws_env: None) -> None:
    async def body(world: World) -> None:
        sequences = world.fake.put(S0, *BODIES, age=24 * 3600 - 60)
        world.fake.empty = 3
        pages = await take(world, world.source.read(Shard("s", S0), sequences[1], HORIZON), having(8))
        assert rows(pages) == BODIES[2:]
        assert world.fake.empty == 0

    run(aws_env, body)


def test_a_missing_shard_halts_and_a_missing_stream_is_fatal(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, b"x")
        with pytest.raises(Halted, match="no longer knows the shard"):
            await take(world, world.source.read(Shard("s", S1), ORIGIN, HORIZON), never)
        world.fake.faults.append(("GetShardIterator", 400, "ResourceNotFoundException"))
        world.fake.faults.append(("ListShards", 400, "ResourceNotFoundException"))
        with pytest.raises(Fatal, match=r"kinesis:ListShards on stream s \(region eu-west-1.*check the name"):
            await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), never)

    run(aws_env, body)


def test_access_denied_is_fatal_and_names_the_action(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.put(S0, b"x")
        world.fake.faults.append(("GetRecords", 400, "AccessDeniedException"))
        with pytest.raises(Fatal, match="allow kinesis:GetRecords on stream s"):
            await take(world, world.source.read(Shard("s", S0), ORIGIN, HORIZON), never)
        assert world.budget.held == 0

    run(aws_env, body)


def test_shards_are_listed_across_pages_with_ranges_and_parents(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.shards = {
            S2: FakeShard(parents=(S0, S1), first=0, last=FULL),
            S0: FakeShard(first=0, last=99),
            S1: FakeShard(first=100, last=FULL),
        }
        world.fake.faults.append(("ListShards", 400, "LimitExceededException"))
        assert await world.source.shards() == [
            Shard("s", S0, (), 0, 99),
            Shard("s", S1, (), 100, FULL),
            Shard("s", S2, (S0, S1), 0, FULL),
        ]
        assert [event.shard for event in world.of(PollRepeated)] == [""]

    run(aws_env, body)


def test_a_listing_that_keeps_failing_raises(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.faults += [("ListShards", 500, "InternalFailure")] * 20
        with pytest.raises(AwsRetryable, match="kinesis:ListShards"):
            await world.source.shards()

    run(aws_env, body)


def test_requests_are_signed_for_the_region_and_ask_for_plain_bytes(aws_env: None) -> None:
    async def body(world: World) -> None:
        world.fake.shards[S0] = FakeShard()
        await world.source.shards()
        *_, headers = world.fake.headers
        assert "/eu-west-1/kinesis/aws4_request" in headers["Authorization"]
        assert headers["Accept-Encoding"] == "identity"
        assert headers["Content-Type"] == "application/x-amz-json-1.1"

    run(aws_env, body)


class ShardReaders:
    """Readers of the shards 0, 1, ..., each asked for its next page by a task of its own."""

    def __init__(self, world: World, count: int, group: asyncio.TaskGroup) -> None:
        self._budget = world.budget
        self._group = group
        self.readers = [cast("Any", world.source.read(Shard("s", f"shardId-{at:012}"), ORIGIN, HORIZON)) for at in range(count)]
        self.asked: list[asyncio.Task[Page]] = []

    def ask(self, *readers: int) -> None:
        self.asked += [self._group.create_task(self.page(at)) for at in readers]

    async def page(self, at: int) -> Page:
        page: Page = await anext(self.readers[at])
        self._budget.release(page.held)
        return page

    async def got(self, count: int) -> None:
        """Wait until that many readers have a page, and assert that no more do."""
        while sum(task.done() for task in self.asked) < count:
            await asyncio.wait([task for task in self.asked if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        for _ in range(5):
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        assert sum(task.done() for task in self.asked) == count


SOME: list[bytes] = [bytes(TURN_BYTES // 16)] * 6
"""Two pages, each less than a turn and more than next to nothing."""


def test_of_many_shards_that_are_behind_only_a_few_are_read_at_a_time(aws_env: None) -> None:
    async def body(world: World) -> None:
        for at in range(FEWEST_TURNS + 2):
            world.fake.put(f"shardId-{at:012}", *SOME)
        async with asyncio.TaskGroup() as group:
            several = ShardReaders(world, FEWEST_TURNS + 2, group)
            several.ask(*range(FEWEST_TURNS + 2))
            await several.got(FEWEST_TURNS)
            assert (await several.page(0)).behind_ms == 0  # it has caught up
            await several.got(FEWEST_TURNS + 1)
            await several.readers[1].aclose()
            await several.got(FEWEST_TURNS + 2)
            world.fake.put(S0, *BODIES[:2])
            assert (await several.page(0)).batch.rows == 2  # and needs no turn for what comes now
        assert {event.shard for event in world.of(BudgetWaited)} >= {f"shardId-{FEWEST_TURNS + more:012}" for more in (0, 1)}
        for reader in several.readers:
            await reader.aclose()

    run(aws_env, body, limit=FEWEST_TURNS * TURN_BYTES)


def test_a_reader_that_has_fetched_its_share_gives_up_its_turn(aws_env: None) -> None:
    async def body(world: World) -> None:
        large = bytes(TURN_BYTES // 3 + 1)
        for at in range(FEWEST_TURNS + 1):
            world.fake.put(f"shardId-{at:012}", *[large] * 6)
        async with asyncio.TaskGroup() as group:
            several = ShardReaders(world, FEWEST_TURNS + 1, group)
            several.ask(*range(FEWEST_TURNS))
            await several.got(FEWEST_TURNS)
            several.ask(FEWEST_TURNS)
            await several.got(FEWEST_TURNS + 1)
        for reader in several.readers:
            await reader.aclose()

    run(aws_env, body, limit=FEWEST_TURNS * TURN_BYTES)


@pytest.mark.parametrize("bodies", [[], BODIES], ids=["nothing", "little"])
def test_shards_that_are_behind_with_next_to_no_data_do_not_wait_for_each_other(aws_env: None, bodies: list[bytes]) -> None:
    async def body(world: World) -> None:
        world.fake.behind = 60_000
        for at in range(3 * FEWEST_TURNS):
            world.fake.put(f"shardId-{at:012}", *bodies)
        async with asyncio.TaskGroup() as group:
            several = ShardReaders(world, 3 * FEWEST_TURNS, group)
            several.ask(*range(3 * FEWEST_TURNS))
            await several.got(3 * FEWEST_TURNS)
            several.ask(*range(3 * FEWEST_TURNS))
            await several.got(6 * FEWEST_TURNS)
        for reader in several.readers:
            await reader.aclose()

    run(aws_env, body, limit=FEWEST_TURNS * TURN_BYTES)


def test_a_reader_that_failed_gives_up_its_turn(aws_env: None) -> None:
    async def body(world: World) -> None:
        for at in range(FEWEST_TURNS + 1):
            world.fake.put(f"shardId-{at:012}", *SOME)
        async with asyncio.TaskGroup() as group:
            several = ShardReaders(world, FEWEST_TURNS + 1, group)
            several.ask(*range(FEWEST_TURNS))
            await several.got(FEWEST_TURNS)
            several.ask(FEWEST_TURNS)
            await several.got(FEWEST_TURNS)
            world.fake.faults.append(("GetRecords", 400, "ProvisionedThroughputExceededException"))
            several.ask(0)
            await several.got(FEWEST_TURNS + 1)
            assert not several.asked[-1].done()  # the one that failed waits for another turn
            await several.readers[1].aclose()
            await several.got(FEWEST_TURNS + 2)
        assert [event.why for event in world.of(PollRepeated)] == ["throttled"]
        for reader in several.readers:
            await reader.aclose()

    run(aws_env, body, limit=FEWEST_TURNS * TURN_BYTES)
