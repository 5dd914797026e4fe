"""Which stream a log is of: what is pinned, what belongs to it, and what is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from stream.commit.identity import ATTEMPTS, Former, Pin, Relation, StreamPins, identity_key, relation
from stream.errors import Fatal
from stream.storage.memory import MemoryStore
from tests.clocks import StandingClock

OURS, THEIRS = (f"arn:aws:kinesis:us-east-1:{account}:stream/events" for account in ("111111111111", "222222222222"))
BORN = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)
LATER = BORN + timedelta(days=1)
KEY = identity_key("events")


class Contested(MemoryStore):
    """A memory store in which somebody else writes ``rival`` right before each of the first ``times`` writes."""

    def __init__(self, rival: bytes, times: int = 1) -> None:
        super().__init__()
        self.rival, self.times = rival, times

    async def _intervene(self, key: str) -> None:
        if self.times:
            self.times -= 1
            await self.put(key, self.rival)

    async def create(self, key: str, body: bytes) -> str | None:
        await self._intervene(key)
        return await super().create(key, body)

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        await self._intervene(key)
        return await super().replace(key, body, etag)


def recognise(store: MemoryStore, arn: str, created: datetime | None, worker: str = "w") -> tuple[Pin, Relation]:
    return asyncio.run(StreamPins(store).recognise("events", arn, created, StandingClock(), worker))


@pytest.mark.parametrize(
    ("arn", "created", "expected"),
    [
        (OURS, BORN, Relation.SAME),
        (OURS, None, Relation.SAME),
        (OURS, BORN.replace(microsecond=0), Relation.SAME),
        (OURS, BORN + timedelta(seconds=1), Relation.SAME),
        (OURS, BORN - timedelta(seconds=1), Relation.SAME),
        (OURS, BORN + timedelta(seconds=1.001), Relation.SUCCESSOR),
        (OURS, BORN - timedelta(seconds=1.001), Relation.EARLIER),
        (THEIRS, BORN, Relation.OTHER),
        (THEIRS, None, Relation.OTHER),
    ],
)
def test_a_stream_is_told_by_its_arn_and_the_time_of_its_creation(arn: str, created: datetime | None, expected: Relation) -> None:
    pin = Pin(OURS, BORN.isoformat(), "2026-01-03T00:00:00+00:00", "w")
    assert relation(pin, arn, created) is expected
    assert expected.belongs is (expected in {Relation.SAME, Relation.SUCCESSOR})


def test_without_a_known_time_of_creation_every_stream_of_the_arn_is_the_same() -> None:
    assert relation(Pin(OURS, "", "2026-01-03T00:00:00+00:00", "w"), OURS, LATER) is Relation.SAME


def test_the_first_stream_is_pinned_and_stays_pinned_whoever_comes() -> None:
    store = MemoryStore()
    first, how = recognise(store, OURS, BORN, "first")
    assert (first.arn, first.created, first.worker, how) == (OURS, BORN.isoformat(), "first", Relation.SAME)
    for arn, created, expected in (
        (OURS, BORN, Relation.SAME),
        (THEIRS, LATER, Relation.OTHER),
        (OURS, BORN - timedelta(1), Relation.EARLIER),
    ):
        assert recognise(store, arn, created, "second") == (first, expected)
    assert asyncio.run(StreamPins(store).read("events")) == first
    assert asyncio.run(StreamPins(store).read("others")) is None


def test_a_successor_takes_the_place_of_the_pinned_stream_once() -> None:
    store = MemoryStore()
    first, _ = recognise(store, OURS, BORN, "first")
    pin, how = recognise(store, OURS, LATER, "second")
    assert how is Relation.SUCCESSOR
    assert (pin.arn, pin.created, pin.pinned_at, pin.worker) == (OURS, LATER.isoformat(), first.pinned_at, "first")
    assert [(each.created, each.worker) for each in pin.former] == [(BORN.isoformat(), "second")]
    assert recognise(store, OURS, LATER, "third") == (pin, Relation.SAME)
    assert recognise(store, OURS, BORN, "stale") == (pin, Relation.EARLIER)
    again, _ = recognise(store, OURS, LATER + timedelta(days=1), "fourth")
    assert [(each.created, each.worker) for each in again.former] == [(BORN.isoformat(), "second"), (LATER.isoformat(), "fourth")]


def test_of_two_deployments_that_pin_together_one_is_refused() -> None:
    rival = MemoryStore()
    recognise(rival, THEIRS, BORN, "rival")
    stored = asyncio.run(rival.get(KEY))
    assert stored is not None
    pin, how = recognise(Contested(stored.body), OURS, BORN)
    assert (pin.arn, pin.worker, how) == (THEIRS, "rival", Relation.OTHER)


def test_of_two_workers_that_find_a_successor_together_one_notes_it() -> None:
    other = MemoryStore()
    recognise(other, OURS, BORN, "first")
    recognise(other, OURS, LATER, "rival")
    stored = asyncio.run(other.get(KEY))
    assert stored is not None
    store = Contested(stored.body, 0)
    recognise(store, OURS, BORN, "first")
    store.times = 1
    pin, how = recognise(store, OURS, LATER, "slower")
    assert how is Relation.SAME
    assert [each.worker for each in pin.former] == ["rival"]


def test_a_pin_that_somebody_keeps_deleting_is_not_waited_for_for_ever() -> None:
    class Emptied(MemoryStore):
        async def create(self, key: str, body: bytes) -> str | None:
            tag = await super().create(key, body)
            await self.delete(key)
            return tag

    with pytest.raises(Fatal, match=rf"{KEY} was written {ATTEMPTS} times .*see who else writes or deletes it"):
        recognise(Emptied(), OURS, BORN)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"{}",
        b'{"arn": 1, "created": "", "pinned_at": "", "worker": ""}',
        b'{"arn": "a", "created": "soon", "pinned_at": "", "worker": ""}',
        b'{"arn": "a", "created": "2026-01-02T03:04:05", "pinned_at": "", "worker": ""}',
    ],
)
def test_a_damaged_pin_is_refused_and_says_what_to_do(body: bytes) -> None:
    store = MemoryStore()
    asyncio.run(store.put(KEY, body))
    with pytest.raises(
        Fatal, match=rf"object {KEY} does not say which stream.*Restore its previous version, or stop all workers and delete it"
    ):
        recognise(store, OURS, BORN)


def test_fields_of_later_versions_are_passed_over() -> None:
    store = MemoryStore()
    former = b'[{"created": "", "followed_at": "f", "worker": "v", "x": 1}]'
    body = b'{"arn": "%s", "created": "", "pinned_at": "p", "worker": "w", "former": %s, "y": 2}'
    asyncio.run(store.put(KEY, body % (OURS.encode(), former)))
    assert asyncio.run(StreamPins(store).read("events")) == Pin(OURS, "", "p", "w", (Former("", "f", "v"),))


def test_a_refusal_names_both_streams_the_place_and_every_way_out() -> None:
    store = MemoryStore()
    pin, _ = recognise(store, OURS, BORN, "first")
    said = StreamPins(store).refusal("events", pin, THEIRS, LATER, "region us-east-1, endpoint https://kinesis")
    facts = (store.url, "`events`", "region us-east-1, endpoint https://kinesis", "first", pin.pinned_at)
    streams = (f"{OURS}, created at 2026-01-02 03:04:05 UTC", f"{THEIRS}, created at 2026-01-03 03:04:05 UTC")
    ways = ("credentials", "`application`", "`state`", "source.kinesis.stream", f"delete the object {KEY}")
    for words in (*facts, *streams, *ways):
        assert words in said
