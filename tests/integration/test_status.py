"""`stream status` beside real workers: each state is one that a worker left behind, and what is printed is compared as a whole."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import ForbiddenError
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.commit.naming import start_key
from stream.errors import Fatal
from stream.local.kinesis.server import running
from stream.worker.halts.notes import halt_key
from tests.chaos.workers import Worker
from tests.clocks import ShiftedClock
from tests.integration.stage import PIPELINE, Stage, sealed
from tests.standard_error import without_loading

STRICT = "rejects: {min_records: 10}\n"
ICEBERG = """
  - iceberg: {{location: "file:./table", table: lake.numbers, catalog: {{type: sql, uri: "sqlite:///{folder}/catalog.db"}}, every: 1s}}
"""
NATIVE = 'coordination: {{native: {{table: leases-status, failover: 3s, look: 300ms, endpoint: "{url}", region: us-east-1}}}}\n'


class StandingClock(ShiftedClock):
    """Stands still until it is moved, so that ages are exact."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = super().now().replace(microsecond=0)

    def now(self) -> Any:
        return self.begun + self.ahead


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_keys: None) -> Iterator[Stage]:
    monkeypatch.chdir(tmp_path)
    clock = StandingClock()
    with running(clock=clock) as emulator:
        client = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        made = Stage(client, emulator.url, clock, tmp_path)
        write(made)
        yield made
        client.close()


def write(stage: Stage, more: str = "") -> Path:
    file = stage.folder / "pipeline.yaml"
    file.write_text(PIPELINE.format(url=stage.url, on_expired="gap", start="trim_horizon") + more)
    return file


def say(*options: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["status", "pipeline.yaml", *options])
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.output
    return ran.exit_code, ran.output


def normalized(*options: str) -> str:
    """Exit code and text, with what differs from run to run made equal, and without the tables' frames."""
    code, text = say(*options)
    text = re.sub(r"\b[0-9]{50,60}\b", "NUMBER", text)
    text = re.sub(r"\b[\w.-]+/[0-9]+-[0-9]{9,}", "WORKER", text)
    text = re.sub(r"20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9:]{8}Z", "TIME", text)
    text = re.sub(r"127\.0\.0\.1:[0-9]+", "HOST", text)
    lines = [" | ".join(cell.strip() for cell in re.split("[┃│]", line)[1:-1]) if line[:1] in "┃│" else line for line in text.splitlines()]
    kept = [line.rstrip() for line in lines if line[:1] not in tuple("┏┡└├┌╇")]
    return f"{code}\n" + re.sub(r"\n{2,}", "\n\n", "\n".join(kept)).strip() + "\n"


def found(*options: str) -> dict[str, Any]:
    """The document's only stream."""
    (stream,) = json.loads(say("--json", *options)[1])["streams"]
    return stream


def codes() -> list[str]:
    return [finding["code"] for finding in found()["findings"]]


def halt(stage: Stage) -> None:
    """A worker halts because all that comes is bad."""
    stage.more = STRICT
    stage.put(["bad"] * 60)
    with suppress(Fatal):
        stage.work(lambda event: isinstance(event, events.ShardHalted))


def test_nothing_has_begun(stage: Stage) -> None:
    assert normalized() == (
        "1\n"
        "stuck: app on numbers, TIME\n\n"
        "1. no worker has begun with this stream\n"
        "   $ stream doctor pipeline.yaml\n"
        "   $ stream run pipeline.yaml\n"
        "   docs/runbook.md#streamdown\n"
    )


HEALTHY = """0
healthy: app on numbers, TIME
Everything that arrived before TIME is sealed.

worker | last sealed in | last seal
WORKER | 1 | 0s
shard | lag | last seal
shardId-000000000000 | 0s | 0s
1 of 1 shard is fine.
In 1 unit sealed since TIME: 50 records, 0 of them dead letters.
"""


def test_healthy(stage: Stage) -> None:
    stage.put(range(50))
    stage.work(sealed(50))
    assert normalized() == HEALTHY
    stage.clock.ahead += timedelta(hours=10)
    assert say()[0] == 0, "a shard may be quiet"


HALTED = """1
stuck: app on numbers, TIME
Everything that arrived before TIME is sealed.

1. 1 shard is halted, since TIME (5m)
   shardId-000000000000: 60 of 60 records after NUMBER would become dead letters, most of them (60) at stage `decode` with reason
"""


def test_halted(stage: Stage) -> None:
    stage.put(range(50))
    stage.work(sealed(50))
    halt(stage)
    stage.clock.ahead += timedelta(minutes=5)
    assert " ".join(normalized().split()).startswith(" ".join(HALTED.split()))
    assert codes() == ["shard_halted"]
    (shard,) = found()["shards"]
    assert shard["halted"]["reason"].startswith("numbers/shardId-000000000000: 60 of 60 records")

    # It halts again at the same place: since the first time. Once the remedy is applied, nothing is left of it.
    halted_since = shard["halted"]["since"]
    halt(stage)
    assert found()["shards"][0]["halted"]["since"] == halted_since
    stage.more = "rejects: {min_records: 10, max_ratio: 1}\n"
    stage.work(lambda event: isinstance(event, events.UnitSealed) and sum(count for _, count in event.outcomes) >= 60)
    assert not list((stage.folder / "state").rglob("halts/**/*.json"))
    assert "shard_halted" not in codes()


def test_a_note_that_is_out_of_date_is_not_believed(stage: Stage) -> None:
    """Its worker could not remove it."""
    halt(stage)
    note = stage.folder / "state" / "app" / halt_key("numbers", stage.shard)
    kept = note.read_bytes()
    stage.more = "rejects: {min_records: 10, max_ratio: 1}\n"
    stage.work(lambda event: isinstance(event, events.UnitSealed))
    assert not note.exists()
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_bytes(kept)
    assert "shard_halted" not in codes()


BEHIND = """1
behind: app on numbers, TIME
Everything that arrived before TIME is sealed.

1. 1 shard is behind, the worst by 10m, since TIME (10m)
   10m; the limit is 5m
   shardId-000000000000: the oldest record that is not sealed has waited for 10m; last sealed at TIME
   $ stream shards pipeline.yaml
   docs/runbook.md#streambehind

worker | last sealed in | last seal
WORKER | 1 | 10m
shard | lag | last seal | expires in | note
shardId-000000000000 | 10m | 10m | 23h50m | unsealed
0 of 1 shard is fine.
In 1 unit sealed since TIME: 50 records, 0 of them dead letters.
"""


def test_behind_then_not_sealing_then_losing_data_soon(stage: Stage) -> None:
    stage.put(range(50))
    stage.work(sealed(50))
    stage.put(range(50, 60))
    assert say()[0] == 0
    stage.clock.ahead += timedelta(minutes=10)
    assert normalized() == BEHIND
    stage.clock.ahead += timedelta(minutes=10)
    assert normalized().startswith("1\nstuck: app on numbers")
    assert codes() == ["not_sealing"]
    stage.clock.ahead += timedelta(hours=6)
    assert normalized().startswith("1\nlosing data soon: app on numbers")
    assert codes() == ["expiring", "not_sealing"]
    stage.clock.ahead += timedelta(hours=30)
    assert normalized().startswith("1\nlosing data: app on numbers")
    assert codes() == ["records_expired"]
    assert say("--without", stage.shard)[0] == 0
    code, text = say("--without", "shardId-000000000009")
    assert (code, "error: shardId-000000000009: numbers has no such shard" in text) == (2, True)


def test_a_recorded_loss_is_reported_for_an_hour(stage: Stage) -> None:
    stage.put(range(50))
    stage.work(sealed(50))
    stage.put(range(50, 60))
    stage.clock.ahead += timedelta(hours=30)
    stage.put(range(60, 70))
    stage.work(sealed(10), clock=stage.clock)
    assert codes() == ["gap"]
    stage.clock.ahead += timedelta(hours=2)
    assert codes() == []


UNFINISHED = """1
stuck: app on numbers, TIME
Everything that arrived before TIME is sealed.

1. 1 shard has unread records, of which nothing is sealed, since TIME (20m)
   20m; the limit is 15m
   shardId-000000000000: nothing was ever sealed; the oldest record that is not sealed has waited for 20m
   $ stream doctor pipeline.yaml
   $ stream run pipeline.yaml
   docs/runbook.md#streamnotsealing

2. 1 unit was begun and is not sealed, since TIME (20m)
   20m; the limit is 30s
   shardId-000000000000: begun at TIME by WORKER
   $ stream doctor pipeline.yaml
   docs/runbook.md#streamcommitsslow

shard | lag | begun | expires in | note
shardId-000000000000 | 20m | 20m | 23h40m | unsealed
0 of 1 shard is fine.
"""


def test_a_unit_whose_worker_died_before_its_seal(stage: Stage) -> None:
    stage.put(range(50))
    stage.work(sealed(50), clock=stage.clock)
    stage.unseal_last()
    stage.clock.ahead += timedelta(minutes=20)
    assert normalized() == UNFINISHED


def test_dead_letters_by_cause(stage: Stage) -> None:
    stage.put([*range(95), *["bad"] * 5])
    stage.work(sealed(100), clock=stage.clock)
    text = normalized()
    assert text.startswith("1\ndegraded: app on numbers, TIME\n")
    assert (
        "1. 5.0% of the records of the last hour are dead letters (5 of 100)\n"
        "   5.0%; the limit is 1%\n"
        "   5 at decode: wrong_type:n\n"
        "   $ stream dlq top pipeline.yaml\n"
        "   docs/runbook.md#streamdeadletters\n"
    ) in text
    assert "dead letters | stage | reason\n5 | decode | wrong_type:n\n" in text
    assert found()["dead_letters"]["causes"] == [{"stage": "decode", "reason": "wrong_type:n", "records": 5}]
    stage.clock.ahead += timedelta(hours=2)
    assert codes() == []


def test_rows_that_are_not_loaded_and_a_shard_that_is_parked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stage.folder / "pipeline.yaml"
    file.write_text(file.read_text().replace('sinks: [s3: {url: "file:lake"}]', "sinks:" + ICEBERG.format(folder=stage.folder)))
    stage.put(range(30))

    def refuse(*_given: Any, **_more: Any) -> None:
        raise ForbiddenError("not this role")

    with monkeypatch.context() as patched:
        patched.setattr(SqlCatalog, "commit_table", refuse)
        assert CliRunner().invoke(app, ["run", str(file), "--once"]).exit_code == 1
    (table,) = found()["tables"]
    assert (table["sink"], table["shards_waiting"], table["parked"]) == ("iceberg", 1, [])
    assert codes() == []
    stage.clock.ahead += timedelta(hours=1)
    assert codes() == ["load_lag"]
    assert "$ stream loads ls pipeline.yaml --sink iceberg\n   docs/runbook.md#streamloadlag" in normalized()

    parked = stage.folder / "state/app/loads/iceberg/numbers/parked/shardId-000000000000.json"
    parked.parent.mkdir(parents=True, exist_ok=True)
    parked.write_text(json.dumps({"after": "0", "reason": "the file cannot be read", "since": stage.clock.now().isoformat()}))
    text = normalized()
    assert text.startswith("1\nstuck: app on numbers")
    assert (
        "1. the loader of iceberg has parked 1 shard, since TIME (0s)\n"
        "   shardId-000000000000: the file cannot be read\n"
        "   $ stream loads ls pipeline.yaml --sink iceberg\n"
        "   $ stream loads retry pipeline.yaml --sink iceberg\n"
        "   docs/runbook.md#streamloadparked\n"
    ) in text
    for command in ("ls", "retry"):
        assert CliRunner().invoke(app, ["loads", command, "pipeline.yaml", "--sink", "iceberg"]).exit_code in {0, 1}
    assert CliRunner().invoke(app, ["run", str(file), "--once"]).exit_code == 0
    assert codes() == []


# --- leases -------------------------------------------------------------------------------------------------------------------------


NOBODY = """1
stuck: app on numbers, TIME
Everything that arrived before TIME is sealed.

1. 1 open shard has no living worker, since TIME (AGE)
   AGE; the limit is 1m
   shardId-000000000000: WORKER last renewed its lease at TIME, by its own clock
   $ stream leases ls pipeline.yaml
   $ stream run pipeline.yaml
   docs/runbook.md#streamshardunread

worker | leases | last renewal | last seal
WORKER | 1 | AGE, silent | AGE
shard | owner | lag | last seal | note
shardId-000000000000 | WORKER | 0s | AGE | no worker
0 of 1 shard is fine.
In 1 unit sealed since TIME: 50 records, 0 of them dead letters.
"""


def test_a_worker_that_was_killed_and_one_that_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_keys: None, moto_url: str) -> None:
    monkeypatch.chdir(tmp_path)
    clock = ShiftedClock()
    with running(clock=clock) as emulator:
        client = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        stage = Stage(client, emulator.url, clock, tmp_path)
        file = write(stage, NATIVE.format(url=moto_url))
        stage.put(range(50))
        worker = Worker([str(file)], dict(os.environ), tmp_path / "worker.log")
        try:
            worker.until(lambda: '"event":"unit_sealed"' in worker.said())
            assert codes() == []
            (seen,) = found()["workers"]
            assert (seen["shards"], seen["living"]) == (1, True)
            assert f"/{worker.pid}-" in seen["worker"]
            worker.signal(signal.SIGKILL)
            assert worker.exit() == -9
        finally:
            worker.end()
        clock.ahead = timedelta(minutes=10)
        assert re.sub(r"\b(10m(\d+s)?|9m5\ds)\b", "AGE", normalized()) == NOBODY
        clock.ahead = timedelta()
        # The next one takes the lease over, and leaves in good order: its lease has no owner.
        stage.put(range(50, 60))
        stage.more = NATIVE.format(url=moto_url)
        stage.work(sealed(10))
        assert codes() == []
        clock.ahead = timedelta(minutes=10)
        assert "shardId-000000000000: its lease has no owner" in normalized()
        boto3.client("dynamodb", endpoint_url=moto_url, region_name="us-east-1").delete_table(TableName="leases-status")
        text = normalized()
        assert text.startswith("1\nstuck: app on numbers, TIME\n")
        assert "1. 1 open shard has no living worker\n   shardId-000000000000: there is no lease for it\n" in text
        assert "shardId-000000000000 | - | 0s" in text, "the rest is there all the same"
        assert "could not be read" not in text, "that the table is gone is all there is to know about it"
        client.close()


# --- what cannot be read -------------------------------------------------------------------------------------------------------------


def test_a_stream_that_does_not_exist(stage: Stage) -> None:
    stage.put(range(50))
    stage.work(sealed(50))
    stage.client.delete_stream(StreamName="numbers")
    text = normalized()
    assert text.startswith("2\nnot known: app on numbers, TIME\n")
    assert "1. the stream could not be read\n" in text
    assert "shardId-000000000000" in text


def test_a_manifest_that_was_damaged(stage: Stage) -> None:
    stage.put(range(50))
    stage.work(sealed(50))
    manifest = max((stage.folder / "state" / "app" / "commits").rglob("0*.json"))
    manifest.write_text("{")
    text = normalized()
    assert text.startswith("2\nnot known: app on numbers, TIME\n")
    assert "1. the state of 1 shard could not be read\n" in text
    assert f"commits/numbers/{stage.shard}/NUMBER.json is not a readable manifest" in text


def test_a_log_that_cannot_be_read_at_all(stage: Stage) -> None:
    stage.put(range(50))
    stage.work(sealed(50))
    (stage.folder / "state" / "app" / start_key("numbers")).write_text("{")
    text = normalized()
    assert text.startswith("2\nnot known: app on numbers, TIME\n")
    assert "1. the commit log could not be read\n" in text


def test_without_credentials_every_part_says_so_and_there_is_no_traceback(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    file = stage.folder / "pipeline.yaml"
    file.write_text(file.read_text().replace("file:state", "s3://bucket/state"))
    code, text = say()
    assert code == 2, text
    assert "Traceback" not in text
    assert "the stream could not be read" in text
    assert "the commit log could not be read" in text
    assert "redentials" in text


def test_watching_until_interrupted(stage: Stage) -> None:
    stage.put(range(50))
    stage.work(sealed(50))
    command = [sys.executable, "-m", "stream", "status", "pipeline.yaml", "--watch", "5"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    said = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        try:
            while "dead letters." not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            process.send_signal(signal.SIGINT)
            said += process.stdout.read()
            assert process.wait(120) == 0, said
        finally:
            process.kill()
    assert without_loading(said).startswith("healthy: app on numbers")
    assert "interrupted" not in said


def test_one_document_is_not_watched(stage: Stage) -> None:
    code, text = say("--json", "--watch", "5")
    assert (code, "--json prints one document" in text) == (2, True)
