"""Our workers and the real Java KCL share one lease table: every record is processed by one of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from stream.cli.main import app
from stream.clock import SystemClock
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


def fed(beside: Beside) -> Beside:
    """``beside`` with a few more records: the leader of KCL 3.x moves no lease while nothing arrives."""
    beside.produce(4)
    return beside


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
    assert "another application" in asked(beside, monkeypatch, "audit", "verify", str(beside.path)).output


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
    until(mine, lambda: fed(beside).owners()["ours"] >= 1)
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


def test_commands_beside_a_kcl_2_x_count_what_it_processed_and_a_run_that_ends_comes_after_it(
    make: MakeBeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = make("2.5.8", 4)
    world, path = beside.world, str(beside.path)
    java = beside.start_java()
    beside.produce(60)
    java.until(lambda: len(java.records()) >= 60)
    mine = beside.start_ours()
    until(mine, lambda: beside.owners() == {"java": 2, "ours": 2})
    beside.produce(60)
    until(mine, beside.complete)
    shows_both(beside, monkeypatch)
    run = world.operate("run", "--once", path)
    assert run.exit() == 1
    assert "workers of another application, such as a Java KCL, hold leases" in run.said()
    assert "java-0 reads" in run.said()

    asked(beside, monkeypatch, "pause", path, "--note", "new disks")
    until(mine, lambda: mine.said().count('"event":"shard_paused"') == 2)
    written = sorted(beside.lake())
    beside.produce(60)
    java.until(lambda: caught_up(beside))
    assert sorted(beside.lake()) == written
    assert beside.owners() == {"java": 2, "ours": 2}
    rows = asked(beside, monkeypatch, "query", path, "SELECT count(*) AS n FROM rows WHERE NOT _sealed", "--csv").stdout.split()
    left = world.put_so_far - len(written) - len(set(beside.noted("checkpointed")))
    assert left > 0
    assert rows == ["n", str(left)]
    assert "that application does not know of the pause" in asked(beside, monkeypatch, "status", path).stdout
    asked(beside, monkeypatch, "resume", path)
    until(mine, beside.complete)
    assert beside.doubled() == {}

    assert mine.drain() == 0
    beside.produce(40)
    java.stop()
    beside.produce(40)
    run = world.operate("run", "--once", path)
    assert run.exit() == 0, run.said()
    assert beside.complete()
    assert beside.doubled() == {}
    assert beside.owners() == {"nobody": 4}
    audited(beside, monkeypatch)


def test_commands_beside_a_kcl_3_x_leader_and_a_paused_worker_that_leaves(make: MakeBeside, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = make("3.1.3", 4)
    world, path = beside.world, str(beside.path)
    java = beside.start_java()
    beside.produce(60)
    java.until(lambda: len(java.records()) >= 60)
    mine = beside.start_ours()
    until(mine, lambda: fed(beside).owners()["ours"] >= 1)
    until(mine, beside.complete)
    shows_both(beside, monkeypatch)
    known = set(beside.reports())
    run = world.operate("run", "--once", path)
    assert run.exit() == 1
    assert "the leader of a KCL 3.x fleet assigns the leases" in run.said()
    assert set(beside.reports()) == known

    asked(beside, monkeypatch, "pause", path, "--note", "new disks")
    until(mine, lambda: mine.said().count('"event":"shard_paused"') >= beside.owners()["ours"])
    written = sorted(beside.lake())
    beside.produce(60)
    java.until(lambda: caught_up(beside))
    assert sorted(beside.lake()) == written
    assert mine.drain() == 0
    # The KCL knows of no pause: it goes on where the paused worker had sealed.
    java.until(lambda: beside.complete() and beside.owners() == {"java": 4})
    assert sorted(beside.lake()) == written
    assert beside.doubled() == {}
    asked(beside, monkeypatch, "resume", path)
    audited(beside, monkeypatch)


def asked(beside: Beside, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """What the command says, which must end with 0."""
    for name, value in beside.world.environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result


def shows_both(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is processed: by our worker, or by the KCL, which the commands tell apart."""
    path, now = str(beside.path), SystemClock().now().isoformat()
    answer = json.loads(asked(beside, monkeypatch, "complete", path, "--until", now, "--wait", "60", "--json").stdout)
    status = json.loads(asked(beside, monkeypatch, "status", path, "--json").stdout)
    (stream,), (found,) = answer["streams"], status["streams"]
    theirs = {each["shard"] for each in found["shards"] if each["owner"].startswith("java-")}
    assert theirs
    assert {each["shard"] for each in found["shards"] if each["elsewhere"]} == theirs
    assert [each["code"] for each in found["findings"]] == ["read_elsewhere"]
    assert {each["shard"] for each in stream["shards"] if "another application has processed" in each["why"]} >= theirs
    counted = asked(beside, monkeypatch, "query", path, "SELECT count(*) AS n FROM rows", "--csv").stdout.split()
    assert counted == ["n", str(len(beside.lake()))]


def caught_up(beside: Beside) -> bool:
    """Whether the KCL has checkpointed everything in the shards whose leases it has."""
    theirs = {name for name, row in beside.rows().items() if row.get("leaseOwner", {}).get("S", "").startswith("java-")}
    return {place for place in beside.truth() if place[0] in theirs} <= {*beside.noted("checkpointed"), *beside.lake()}


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
