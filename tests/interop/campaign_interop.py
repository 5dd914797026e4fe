"""Our workers and the real Java KCL share one lease table: every record is processed by one of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.moto import moto
from tests.chaos.conftest import KEYS, client
from tests.chaos.workers import Worker
from tests.chaos.world import World
from tests.contract.peers import kinesis_local
from tests.forked import prepare
from tests.interop.beside import NATIVE, Beside, shape

MakeBeside = Callable[[str, int], Beside]


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, str]]:
    prepare()
    with kinesis_local() as kinesis, moto() as dynamodb:
        yield KEYS | {"AWS_ENDPOINT_URL_KINESIS": kinesis.url, "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.url}


_NUMBERS = count()


@pytest.fixture
def make(services: dict[str, str], tmp_path: Path) -> Iterator[MakeBeside]:
    with ExitStack() as stack:

        def one(version: str, shards: int) -> Beside:
            kinesis = stack.enter_context(closing(client("kinesis", services["AWS_ENDPOINT_URL_KINESIS"])))
            dynamodb = stack.enter_context(closing(client("dynamodb", services["AWS_ENDPOINT_URL_DYNAMODB"])))
            stream = f"i{next(_NUMBERS)}"
            kinesis.create_stream(StreamName=stream, ShardCount=shards)
            world = World(tmp_path, kinesis, stream, services["AWS_ENDPOINT_URL_KINESIS"], services, 1)
            beside = Beside(world, dynamodb, version, f"app-{stream}", ours(world, f"app-{stream}"))
            stack.callback(lambda: [worker.end() for worker in world.workers])
            stack.callback(lambda: [worker.kill() for worker in beside.java])
            return beside

        yield one


def ours(world: World, table: str) -> Path:
    path = world.pipeline(table, keep="id >= 0")
    path.write_text(path.read_text() + NATIVE.format(table=table))
    return path


def until(worker: Worker, condition: Callable[[], bool]) -> None:
    """``worker.until`` with more patience, for what takes a JVM long."""
    for attempt in range(6):
        try:
            worker.until(condition)
        except AssertionError:
            if attempt == 5 or worker.ended() is not None:
                raise
        else:
            return


def settle(beside: Beside) -> None:
    beside.world.client.get_waiter("stream_exists").wait(StreamName=beside.world.stream, WaiterConfig={"Delay": 1})


def test_a_mixed_fleet_shares_shards_and_takes_over_in_both_directions(make: MakeBeside, monkeypatch: pytest.MonkeyPatch) -> None:
    """KCL 2.x creates the table; our worker joins; shards change; each side leaves, and dies, in the middle of the stream."""
    beside = make("2.5.8", 4)
    java = beside.start_java()
    beside.produce(60)
    java.until(lambda: len(java.records()) >= 60)
    made_by_java = beside.rows()

    mine = beside.start_ours()
    until(mine, lambda: set(beside.owners()) == {"java", "ours"})
    beside.produce(60)
    beside.world.split()
    settle(beside)
    beside.produce(60)
    beside.world.merge(2)
    settle(beside)
    beside.produce(60)
    until(mine, beside.complete)
    # Who has which of them is KCL's affair: it counts shards that have ended too.
    until(mine, lambda: len(beside.rows()) > 0 and len(beside.known[beside.table]) == 7)
    assert beside.doubled() == {}

    beside.produce(40)
    java.stop()
    beside.produce(40)
    until(mine, lambda: beside.complete() and beside.owners() == {"ours": 4})
    assert beside.doubled() == {}

    second = beside.start_java()
    second.until(lambda: beside.owners()["java"] >= 1)
    beside.produce(40)
    assert mine.drain() == 0
    beside.produce(40)
    second.until(lambda: beside.complete() and beside.owners() == {"java": 4})
    assert beside.doubled() == {}

    third = beside.start_ours()
    second.kill()
    beside.produce(40)
    until(third, lambda: beside.complete() and beside.owners() == {"ours": 4})
    third.signal(signal.SIGKILL)
    last = beside.start_ours()
    beside.produce(40)
    until(last, beside.complete)
    assert last.drain() == 0
    known_by_kcl(made_by_java, beside)
    audited(beside, monkeypatch)


def known_by_kcl(made_by_java: dict[str, dict[str, dict[str, str]]], beside: Beside) -> None:
    """Rows that both have written have the attributes, and the types, of rows that only the KCL has touched."""
    of_java = next(shape(row) for row in made_by_java.values())
    for row in beside.rows().values():
        known = {name: kind for name, kind in shape(row).items() if name in of_java}
        assert known == {name: of_java[name] for name in known}
        assert set(shape(row)) - set(of_java) <= {"parentShardId", "childShardIds", "throughputKBps"}


def audited(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in beside.world.environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["audit", "verify", str(beside.path)])
    assert result.exit_code == 0, result.output
    assert "another application" in result.output


def test_lease_rows_equal_those_of_the_kcl_attribute_by_attribute(make: MakeBeside) -> None:
    """Both read the same stream to the same place, through a split, each with a table of its own."""
    beside = make("3.1.3", 2)
    world, theirs = beside.world, beside.table
    java = beside.start_java()
    beside.path = ours(world, "own")
    mine = beside.start_ours()
    beside.produce(60)
    # kinesis-local lists no shards from which the KCL could begin once one has been split.
    java.until(lambda: len(java.records()) >= 60)
    world.split()
    settle(beside)
    beside.produce(60)
    count = world.put_so_far
    java.until(lambda: _both_ended(beside, theirs) and len(set(beside.noted())) == len(set(beside.lake())) == count)
    until(mine, lambda: _followed(beside, "own") and _followed(beside, theirs))
    of_ours, of_java = ({key: comparable(row) for key, row in beside.known[table].items()} for table in ("own", theirs))
    assert of_ours == of_java
    assert len(beside.lake()) == count
    assert mine.drain() == 0


def test_a_kcl_3_x_fleet_is_followed_and_left_cleanly(make: MakeBeside, monkeypatch: pytest.MonkeyPatch) -> None:
    """KCL 3.x leads; our worker gets leases by hand-off, keeps them through a split, hands them back at its end, and later takes all."""
    beside = make("3.1.3", 4)
    world = beside.world
    java = beside.start_java()
    beside.produce(60)
    java.until(lambda: len(java.records()) >= 60)

    mine = beside.start_ours()
    until(mine, lambda: beside.owners()["ours"] >= 1)
    beside.produce(60)
    world.split()
    settle(beside)
    beside.produce(60)
    until(mine, lambda: beside.complete() and beside.owners()["nobody"] == 0)
    assert beside.doubled() == {}
    taken = [line for line in mine.said().splitlines() if '"event":"lease_taken"' in line]
    assert taken
    assert all('"why":"assigned"' in line for line in taken)

    beside.produce(40)
    assert mine.drain() == 0
    assert set(beside.reports()) == {"java-0"}
    assert beside.owners()["nobody"] == 0
    beside.produce(40)
    java.until(lambda: beside.complete() and set(beside.owners()) == {"java"})
    assert beside.doubled() == {}

    last = beside.start_ours()
    java.stop()
    beside.produce(40)
    until(last, lambda: beside.complete() and set(beside.owners()) == {"ours"})
    assert beside.doubled() == {}
    assert last.drain() == 0
    audited(beside, monkeypatch)


OWN_BUSINESS = {"leaseOwner", "leaseCounter", "ownerSwitchesSinceCheckpoint"}
"""Attributes whose values are each fleet's own; a lease that its owner gave up, as ours does with ended ones, has no owner."""


def comparable(row: dict[str, dict[str, str | list[str]]]) -> dict[str, object]:
    """Types and values of a row: those of the KCL's attributes that do not depend on who wrote them when."""
    found: dict[str, object] = {}
    for name, kind in shape(row).items():
        value = row[name][kind]
        found[name] = (kind, sorted(value) if kind == "SS" else value)
    for name in OWN_BUSINESS - {"leaseOwner"}:
        assert row[name].keys() == {"N"}
    return {name: value for name, value in found.items() if name not in OWN_BUSINESS | {"throughputKBps"}}


def _both_ended(beside: Beside, theirs: str) -> bool:
    """Whether each table was seen with the rows of all four shards, and the end of the one that was split."""
    tables = ("own", theirs)
    for table in tables:
        beside.rows(table)
    ends = [[row["checkpoint"]["S"] for row in beside.known[table].values()] for table in tables]
    return all(len(each) == 4 and each.count("SHARD_END") == 1 for each in ends)


def _followed(beside: Beside, table: str) -> bool:
    """Whether every open shard's checkpoint is at its last record."""
    last: dict[str, int] = {}
    for shard, sequence, _ in beside.truth():
        last[shard] = max(last.get(shard, 0), sequence)
    rows = {key: row for key, row in beside.rows(table).items() if row["checkpoint"]["S"] != "SHARD_END"}
    return all(row["checkpoint"]["S"] == str(last[key]) for key, row in rows.items() if key in last)
