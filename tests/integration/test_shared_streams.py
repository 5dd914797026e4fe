"""Streams that another account shares: given by their ARNs, and of the same name as one of our own."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest
from typer.testing import CliRunner

from stream import events
from stream.aws.kinesis import open_kinesis
from stream.cli.main import app
from stream.commit.retry import Repeater
from stream.errors import Fatal
from stream.local.kinesis.server import running
from stream.pipeline.checks.lint import check
from stream.worker.coordination.leasing import leased_streams
from stream.worker.opening.places import session_of
from tests.clocks import ShiftedClock
from tests.integration import stage
from tests.integration.stage import Stage, sealed

OTHER, THIRD, REGION = "111122223333", "444455556666", "us-east-1"
KEYS = {"aws_secret_access_key": "test", "region_name": REGION}
SHARED = f"numbers@{OTHER}.{REGION}"


def arn(account: str) -> str:
    return f"arn:aws:kinesis:{REGION}:{account}:stream/numbers"


class Accounts(Stage):
    """Three accounts, each with a stream called `numbers`; the worker is in the first one."""

    def __init__(self, url: str, clock: ShiftedClock, folder: Path) -> None:
        self.of = {account: boto3.client("kinesis", endpoint_url=url, aws_access_key_id=account, **KEYS) for account in (OTHER, THIRD)}
        own = boto3.client("kinesis", endpoint_url=url, aws_access_key_id="test", **KEYS)
        super().__init__(own, url, clock, folder)
        for client in self.of.values():
            client.create_stream(StreamName="numbers", ShardCount=1)

    def put_into(self, account: str, numbers: range) -> None:
        for n in numbers:
            self.of[account].put_record(StreamName="numbers", Data=json.dumps({"n": n}).encode(), PartitionKey="k")

    def ask(self, *words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words), env={"COLUMNS": "300"})
        assert result.exit_code == code, result.output
        return result.output

    @property
    def file(self) -> str:
        return str(self.folder / "pipeline.yaml")

    def rows(self) -> list[tuple[str, int]]:
        found = duckdb.read_parquet(f"{self.folder}/lake/**/*.parquet").project("_shard, n").order("_shard, n").fetchall()
        return [(str(shard), int(n)) for shard, n in found]


@pytest.fixture
def accounts(tmp_path: Path, aws_keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Accounts]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    clock = ShiftedClock()
    with running(clock=clock) as emulator:
        made = Accounts(emulator.url, clock, tmp_path)
        yield made
        for client in (made.client, *made.of.values()):
            client.close()


def reading(monkeypatch: pytest.MonkeyPatch, streams: str) -> None:
    """Let the stage's pipeline read ``streams`` instead of its one stream."""
    monkeypatch.setattr(stage, "PIPELINE", stage.PIPELINE.replace("stream: numbers", streams))


def all_sealed(records: int) -> Any:
    """Whether units with so many records are sealed, in whichever streams."""
    counted: list[int] = []

    def heard(event: events.Event) -> bool:
        if isinstance(event, events.UnitSealed):
            counted.append(sum(count for _, count in event.outcomes))
        return sum(counted) >= records

    return heard


def test_streams_of_one_name_in_three_accounts_are_kept_apart(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    reading(monkeypatch, f"streams: [numbers, '{arn(OTHER)}', '{arn(THIRD)}'], region: {REGION}")
    accounts.put(range(3))
    accounts.put_into(OTHER, range(10, 14))
    accounts.put_into(THIRD, range(20, 25))
    accounts.work(all_sealed(12))
    third = f"numbers@{THIRD}.{REGION}"
    expected = [(f"numbers/{accounts.shard}", n) for n in range(3)]
    expected += [(f"{SHARED}/{accounts.shard}", n) for n in range(10, 14)] + [(f"{third}/{accounts.shard}", n) for n in range(20, 25)]
    assert accounts.rows() == sorted(expected)
    kept = {path.name for path in (accounts.folder / "state/app/commits").iterdir()}
    assert kept == {"numbers", SHARED, third}
    report = json.loads(accounts.ask("audit", "verify", accounts.file, "--json"))
    assert {each["stream"]: each["verdict"] for each in report} == dict.fromkeys(kept, "ok")
    assert {each["stream"]: sum(shard["records"] for shard in each["shards"]) for each in report} == {"numbers": 3, SHARED: 4, third: 5}
    found = accounts.ask("trace", accounts.file, "message", "n=12")
    assert re.search(rf"stream +{SHARED}\n", found)
    sequence = re.search(rf"record +{accounts.shard}:(\d+)", found)
    assert sequence is not None
    assert "outcome    written" in accounts.ask("trace", accounts.file, f"{SHARED}/{accounts.shard}:{sequence[1]}")


def test_a_shared_stream_is_read_on_where_its_worker_stopped(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    reading(monkeypatch, f"stream: '{arn(OTHER)}'")
    accounts.put(range(3))
    accounts.put_into(OTHER, range(10, 14))
    accounts.work(sealed(4))
    accounts.put_into(OTHER, range(14, 16))
    accounts.unseal_last()
    accounts.work(sealed(2))
    assert [n for _, n in accounts.rows()] == list(range(10, 16))
    (kept,) = (accounts.folder / "state/app/commits").iterdir()
    assert kept.name == SHARED
    sequence = accounts.manifests()[0].last
    assert "outcome    written" in accounts.ask("trace", accounts.file, sequence)


@pytest.mark.parametrize("named", ["numbers", arn(OTHER), SHARED])
def test_a_person_may_call_a_shared_stream_by_its_name_arn_or_id(accounts: Accounts, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    reading(monkeypatch, f"stream: '{arn(OTHER)}'")
    accounts.put_into(OTHER, range(4))
    accounts.work(sealed(4))
    assert json.loads(accounts.ask("status", accounts.file, "--stream", named, "--json"))
    assert "others" in accounts.ask("status", accounts.file, "--stream", "others", code=2)


def test_a_stream_by_its_name_and_by_its_arn_is_not_read_twice(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    own = arn("123456789012")
    reading(monkeypatch, f"streams: ['{own}', numbers], region: {REGION}")
    accounts.put(range(3))
    with pytest.raises(Fatal, match=f"{own} and numbers are the same stream"):
        accounts.work(sealed(3))
    assert not list(accounts.folder.rglob("*.parquet"))


def test_leases_have_the_keys_of_the_kcl(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The KCL calls one of several streams by account, name and creation time, so no two of them share a lease."""
    reading(monkeypatch, f"streams: [numbers, '{arn(OTHER)}'], region: {REGION}")
    (accounts.folder / "pipeline.yaml").write_text(stage.PIPELINE.format(url=accounts.url, on_expired="gap", start="trim_horizon"))
    pipeline = check(accounts.folder / "pipeline.yaml", {}).pipeline
    assert pipeline is not None

    async def prefixes() -> list[str]:
        async with open_kinesis(session_of(pipeline)) as client:
            return [each.prefix for each in await leased_streams(pipeline, client, Repeater(accounts.clock, lambda _: None))]

    found = asyncio.run(prefixes())
    assert [re.sub(r"\d+:$", "*", prefix) for prefix in found] == ["123456789012:numbers:*", f"{OTHER}:numbers:*"]


def test_records_are_pushed_from_a_shared_stream(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    reading(monkeypatch, f"stream: '{arn(OTHER)}', retrieval: fan_out")
    accounts.put_into(OTHER, range(4))
    heard = accounts.work(sealed(4))
    assert [n for _, n in accounts.rows()] == list(range(4))
    described = accounts.of[OTHER].list_stream_consumers(StreamARN=arn(OTHER))
    assert [each["ConsumerName"] for each in described["Consumers"]] == ["app"]
    assert not [event for event in heard if isinstance(event, events.RetrievalChanged)]
