"""`stream complete` beside whole workers over the emulator: what it says of idle shards, reshards, rewinds, deaths, gaps and tables."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import ForbiddenError
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.commit.manifest import Kind
from tests.integration.stage import PIPELINE, Stage, sealed

ICEBERG = """
  - iceberg: {{location: "file:./table", table: lake.numbers, catalog: {{type: sql, uri: "sqlite:///{folder}/catalog.db"}}}}
"""


def moment_after_everything(stage: Stage) -> datetime:
    """A whole second, like the service's date, after everything that was put so far and before everything put later."""
    stage.clock.ahead += timedelta(seconds=2)
    return stage.clock.now().replace(microsecond=0)


def ask(stage: Stage, *options: str, until: datetime | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and document of the command, for everything put before."""
    until = until or moment_after_everything(stage)
    file = stage.folder / "pipeline.yaml"
    if not file.exists():
        file.write_text(PIPELINE.format(url=stage.url, on_expired="gap", start="trim_horizon"))
    ran = CliRunner().invoke(app, ["complete", str(file), "--until", until.isoformat(), "--margin", "0", "--json", *options])
    assert ran.exit_code in {0, 1}, ran.output
    document = json.loads(ran.stdout)
    assert document["complete"] is (ran.exit_code == 0)
    return ran.exit_code, document


def states(document: dict[str, Any]) -> dict[str, str]:
    return {shard["shard"][-1]: shard["state"] for shard in document["streams"][0]["shards"]}


def test_a_shard_is_complete_only_while_all_of_its_records_are_sealed(stage: Stage) -> None:
    code, found = ask(stage)
    assert (code, found["streams"][0]["why"]) == (1, "no worker has begun with this stream")

    stage.put(range(5))
    stage.work(sealed(5))
    code, found = ask(stage)
    assert (code, states(found)) == (0, {"0": "complete"})

    stage.put(range(5, 7))
    arrived = stage.clock.now()
    code, found = ask(stage)
    (shard,) = found["streams"][0]["shards"]
    assert (code, shard["state"]) == (1, "unsealed")
    assert datetime.fromisoformat(shard["sealed_to"]) < datetime.fromisoformat(found["complete_up_to"]) <= arrived
    assert ask(stage, until=datetime.fromisoformat(found["complete_up_to"]))[0] == 0

    stage.work(sealed(2))
    assert ask(stage)[0] == 0


def test_a_moment_ahead_of_the_services_clock_is_not_complete(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    code, found = ask(stage, until=stage.clock.now() + timedelta(minutes=5))
    assert (code, states(found)) == (1, {"0": "early"})


def test_children_count_before_any_worker_has_begun_them(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.client.split_shard(StreamName="numbers", ShardToSplit=stage.shard, NewStartingHashKey=str(2**127))
    code, found = ask(stage)
    assert (code, states(found)) == (0, {"0": "ended", "1": "complete", "2": "complete"})

    stage.put(range(5, 6))
    code, found = ask(stage)
    assert code == 1
    assert sorted(states(found).values()) == ["complete", "ended", "unsealed"]

    stage.work(sealed(1))
    assert ask(stage)[0] == 0
    assert [manifest.kind for manifest in stage.manifests()] == [Kind.UNIT, Kind.END, Kind.UNIT]


def test_rewound_records_are_not_complete_until_they_are_processed_again(stage: Stage) -> None:
    for numbers in (range(3), range(3, 6)):
        stage.put(numbers)
        stage.work(sealed(3))
    until = moment_after_everything(stage)
    assert ask(stage, until=until)[0] == 0
    second = [manifest.last for manifest in stage.manifests()][1]
    done = CliRunner().invoke(app, ["leases", "rewind", str(stage.folder / "pipeline.yaml"), stage.shard, str(second), "--yes"])
    assert done.exit_code == 0, done.output
    code, found = ask(stage, until=until)
    assert (code, states(found)) == (1, {"0": "unsealed"})
    stage.work(sealed(3))
    assert ask(stage, until=until)[0] == 0


def test_a_unit_whose_worker_died_before_the_seal_is_not_complete(stage: Stage) -> None:
    stage.put(range(3))
    stage.work(sealed(3))
    stage.unseal_last()
    assert ask(stage)[0] == 1
    stage.work(lambda event: isinstance(event, events.ManifestSealed))
    assert ask(stage)[0] == 0


def test_records_that_expired_unread_are_not_complete_until_a_gap_is_recorded(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.put(range(5, 8))
    stage.clock.ahead = timedelta(hours=30)
    code, found = ask(stage)
    assert (code, states(found)) == (1, {"0": "expired"})
    assert "may have expired unread" in found["streams"][0]["shards"][0]["why"]

    stage.put(range(8, 12))
    code, found = ask(stage)
    assert (code, states(found)) == (1, {"0": "expired"})

    stage.work(sealed(4))
    assert [manifest.kind for manifest in stage.manifests()] == [Kind.UNIT, Kind.GAP, Kind.UNIT]
    assert ask(stage)[0] == 0


def test_a_quiet_shard_whose_last_record_expired_is_complete_while_its_worker_runs(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.clock.ahead = timedelta(hours=20)
    polls = 0

    def looked_around(event: events.Event) -> bool:
        nonlocal polls
        polls += isinstance(event, events.PageReceived)
        return polls > 2

    stage.work(looked_around)
    stage.clock.ahead = timedelta(hours=40)
    assert ask(stage)[0] == 0


def test_a_shard_missing_from_the_stream_counts_unless_it_is_excluded_by_hand(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.client.split_shard(StreamName="numbers", ShardToSplit=stage.shard, NewStartingHashKey=str(2**127))
    stage.clock.ahead = timedelta(hours=30)
    code, found = ask(stage)
    assert (code, states(found)) == (1, {"0": "gone", "1": "complete", "2": "complete"})
    assert ask(stage, "--without", stage.shard)[0] == 0
    ran = CliRunner().invoke(app, ["complete", str(stage.folder / "pipeline.yaml"), "--until", "2026-01-01", "--without", "shardId-9"])
    assert ran.exit_code == 2
    assert "shardId-9: numbers has no such shard; it has shardId-000000000000," in ran.stderr


def test_a_moment_before_the_start_of_the_pipeline_is_refused(stage: Stage) -> None:
    stage.put(range(3))
    stage.work(lambda event: isinstance(event, events.ShardStarted), start="latest")
    ran = CliRunner().invoke(app, ["complete", str(stage.folder / "pipeline.yaml"), "--until", "2026-01-01"])
    assert ran.exit_code == 2
    assert "and nothing that arrived before; ask for a later moment than 2026-01-01T00:00:00+00:00" in ran.stderr
    assert ask(stage)[0] == 0


def test_rows_waiting_to_be_loaded_into_a_table_count_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stage.folder / "pipeline.yaml"
    text = PIPELINE.format(url=stage.url, on_expired="gap", start="trim_horizon")
    file.write_text(text.replace('sinks: [s3: {url: "file:lake"}]', "sinks:" + ICEBERG.format(folder=stage.folder)))
    stage.put(range(3))

    def refuse(*_given: Any, **_more: Any) -> None:
        raise ForbiddenError("not this role")

    with monkeypatch.context() as patched:
        patched.setattr(SqlCatalog, "commit_table", refuse)
        assert CliRunner().invoke(app, ["run", str(file), "--once"]).exit_code == 1
    code, found = ask(stage)
    (table,) = found["streams"][0]["tables"]
    assert (code, states(found)) == (1, {"0": "complete"})
    assert (table["sink"], table["loaded"], table["units_waiting"], table["rows_waiting"]) == ("iceberg", False, 1, 3)
    assert found["complete_up_to"] == table["oldest_arrival"]
    assert ask(stage, until=datetime.fromisoformat(table["oldest_arrival"]))[0] == 0

    assert CliRunner().invoke(app, ["run", str(file), "--once"]).exit_code == 0
    code, found = ask(stage)
    assert (code, found["streams"][0]["tables"][0]["loaded"]) == (0, True)


def test_the_answer_is_printed_in_words(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    until = moment_after_everything(stage)
    file = str(stage.folder / "pipeline.yaml")
    ran = CliRunner().invoke(app, ["complete", file, "--until", until.isoformat(), "--margin", "0"])
    assert ran.exit_code == 0
    assert f"Complete: everything that arrived before {until.isoformat()} is there." in ran.stdout
    stage.put(range(5, 6))
    until = moment_after_everything(stage)
    ran = CliRunner().invoke(app, ["complete", file, "--until", until.isoformat(), "--margin", "0"])
    assert ran.exit_code == 1
    assert f"Not yet: not everything that arrived before {until.isoformat()} is there." in ran.stdout
    assert "is not sealed" in ran.stdout


def test_a_stream_that_cannot_be_asked_exits_with_2(stage: Stage) -> None:
    text = PIPELINE.format(url=stage.url, on_expired="gap", start="trim_horizon").replace("{stream: numbers", "{stream: strangers")
    (stage.folder / "pipeline.yaml").write_text(text)
    ran = CliRunner().invoke(app, ["complete", str(stage.folder / "pipeline.yaml"), "--until", "2026-01-01"])
    assert ran.exit_code == 2, ran.output
    assert "strangers" in " ".join(ran.stderr.split())
