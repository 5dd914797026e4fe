"""Two deployments of one application are told from a rollout, a rollback and a reference table that is refreshed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from stream.commit.manifest import Kind, Manifest, State
from stream.commit.naming import pipeline_key
from stream.contracts import Stored
from stream.operations.status.definitions import MOST, read_definitions
from stream.operations.status.finding import Finding, Harm
from stream.operations.status.rules import judge
from stream.operations.status.snapshot import DeadLetters, InUse, Snapshot
from stream.storage.memory import MemoryStore
from tests.unit.operations.status.test_rules import snapshot_of

NOW = datetime(2026, 1, 1, 3, tzinfo=UTC)


def unit(digest: str, minutes: float, worker: str = "w") -> Manifest:
    sealed = (NOW - timedelta(minutes=minutes)).isoformat()
    where = {"application": "a", "stream": "s", "shard": "0"}
    made = {"pipeline": digest, "sealed_at": sealed, "sealed_by": worker}
    return Manifest(kind=Kind.UNIT, state=State.SEALED, after="0", last="1", **where, **made)


def read(units: Sequence[Manifest], **texts: bytes) -> tuple[InUse, ...]:
    async def body() -> tuple[InUse, ...]:
        store = MemoryStore()
        for digest, text in texts.items():
            await store.put(pipeline_key(digest), text)
        return await read_definitions(store, units)

    return asyncio.run(body())


def found(units: Sequence[Manifest], flush_age: timedelta = timedelta(minutes=1), **texts: bytes) -> list[Finding]:
    letters = DeadLetters(NOW - timedelta(hours=1), len(units), 0, 0, definitions=read(units, **texts))
    snapshot: Snapshot = snapshot_of(dead_letters=letters, asked_at=NOW, flush_age=flush_age)
    return [each for each in judge(snapshot) if each.code == "several_definitions"]


A, B = b"sinks: one", b"sinks: two"


def sealed(digest: str, *minutes: float, worker: str = "w") -> list[Manifest]:
    return [unit(digest, each, worker) for each in minutes]


def test_two_definitions_that_both_go_on_are_found_with_their_workers() -> None:
    (finding,) = found([*sealed("a", 40, 12, 7, 1, worker="one"), *sealed("b", 30, 11, 6, 2, worker="two")], a=A, b=B)
    assert finding.harm is Harm.DEGRADED
    assert finding.since == NOW - timedelta(minutes=30)
    assert finding.what.startswith("units are sealed with 2 definitions at once")
    assert finding.details == ("a: last at 2026-01-01 02:59:00Z by one", "b: last at 2026-01-01 02:58:00Z by two")


@pytest.mark.parametrize(
    "units",
    [
        sealed("a", 14, 9, 4),
        [*sealed("a", 40, 20, 14, 6), *sealed("b", 13, 8, 3)],
        [*sealed("a", 40, 14, 9, 3), *sealed("b", 13, 8)],
        [*sealed("a", 14, 9, 4), *sealed("b", 9, 4)],
    ],
    ids=["one", "a rollout", "a rollback", "two, for ten minutes"],
)
def test_a_change_of_the_definition_is_no_finding(units: list[Manifest]) -> None:
    assert found(units, a=A, b=B) == []


def test_definitions_that_differ_in_their_reference_tables_only_are_one() -> None:
    units = [*sealed("a", 14, 9, 4), *sealed("b", 13, 8, 3)]
    assert found(units, a=A, b=A) == []
    assert [each.digest for each in read(units, a=A, b=A)] == ["b"]


def test_definitions_that_are_not_in_the_log_any_more_are_told_apart_by_their_digests() -> None:
    assert [each.digest for each in read([*sealed("a", 14), *sealed("b", 13)])] == ["a", "b"]


def test_one_definition_costs_no_request() -> None:
    class Closed(MemoryStore):
        async def get(self, key: str) -> None:
            raise AssertionError(key)

    assert asyncio.run(read_definitions(Closed(), sealed("a", 3, 2))) == ()


def test_where_units_are_sealed_seldom_it_is_looked_further_back() -> None:
    units = [*sealed("a", 50, 30, 10), *sealed("b", 45, 25, 5)]
    assert found(units, timedelta(minutes=1), a=A, b=B) == []
    assert len(found(units, timedelta(minutes=10), a=A, b=B)) == 1


def test_of_many_definitions_the_newest_are_read() -> None:
    asked: list[str] = []

    class Counting(MemoryStore):
        async def get(self, key: str) -> Stored | None:
            asked.append(key)
            return await super().get(key)

    units = [unit(f"{number:02}", number) for number in range(30)]
    asyncio.run(read_definitions(Counting(), units))
    assert asked == [pipeline_key(f"{number:02}") for number in range(MOST)]
