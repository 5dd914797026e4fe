from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from stream.aws.kinesis import StreamSummary
from stream.commit.identity import StreamPins, identity_key
from stream.contracts import Stored
from stream.errors import Fatal
from stream.events import Event, StreamSucceeded
from stream.storage.memory import MemoryStore
from stream.worker.opening.identity import PinnedStream, Pinning, created_of
from tests.clocks import StandingClock

ARN = "arn:aws:kinesis:us-east-1:111111111111:stream/events"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Counting(MemoryStore):
    """A memory store that counts reads."""

    reads = 0

    async def get(self, key: str) -> Stored | None:
        self.reads += 1
        return await super().get(key)


def described(created: datetime) -> StreamSummary:
    return StreamSummary(ARN, "ACTIVE", timedelta(hours=24), 1, created, encrypted=False)


def test_the_state_is_asked_again_only_if_the_answer_about_the_stream_has_changed() -> None:
    async def run() -> list[int]:
        store, told, reads = Counting(), list[Event](), []
        pinned = PinnedStream(store, "events", "here", Pinning(StandingClock(), "w", told.append))
        for created in (NOON, NOON, NOON, NOON + timedelta(hours=1), NOON + timedelta(hours=1)):
            await pinned(described(created))
            reads.append(store.reads)
        assert len(told) == 1
        return reads

    # Two at first, since what was created is read back.
    assert asyncio.run(run()) == [2, 2, 2, 3, 3]


def test_a_refused_stream_is_refused_whenever_it_comes_and_the_right_one_is_read_after_it() -> None:
    async def run() -> None:
        store = MemoryStore()
        await PinnedStream(store, "events", "here", Pinning(StandingClock(), "w", lambda _: None))(described(NOON))
        pinned = PinnedStream(store, "events", "here", Pinning(StandingClock(), "w", lambda _: None))
        for _ in range(2):
            with pytest.raises(Fatal, match="is of another stream than the `events` that was found here"):
                await pinned(described(NOON - timedelta(hours=1)))
            assert not pinned.done
        await pinned(described(NOON))
        assert pinned.done

    asyncio.run(run())


def test_of_each_successor_it_is_said_which_stream_was_there_right_before() -> None:
    async def run() -> list[tuple[str, str]]:
        told = list[StreamSucceeded]()

        def listen(event: Event) -> None:
            assert isinstance(event, StreamSucceeded)
            told.append(event)

        pinned = PinnedStream(MemoryStore(), "events", "here", Pinning(StandingClock(), "w", listen))
        for hours in range(3):
            await pinned(described(NOON + timedelta(hours=hours)))
        return [(event.former, event.created) for event in told]

    times = [(NOON + timedelta(hours=hours)).isoformat() for hours in range(3)]
    assert asyncio.run(run()) == list(pairwise(times))


def test_a_stream_given_by_its_arn_is_pinned_under_its_id() -> None:
    async def run() -> None:
        store = MemoryStore()
        await PinnedStream(store, ARN, "here", Pinning(StandingClock(), "w", lambda _: None))(described(NOON))
        assert await store.get(identity_key("events@111111111111.us-east-1")) is not None
        assert await StreamPins(store).read("events") is None

    asyncio.run(run())


def test_whoever_only_compares_writes_nothing() -> None:
    async def run() -> None:
        store = MemoryStore()
        pinned = PinnedStream(store, "events", "here")
        await pinned(described(NOON))
        assert pinned.done
        assert [entry async for entry in store.list("")] == []

    asyncio.run(run())


def test_a_service_that_does_not_say_when_the_stream_was_created_says_1970() -> None:
    assert created_of(described(datetime.fromtimestamp(0, UTC))) is None
    assert created_of(described(NOON)) == NOON
