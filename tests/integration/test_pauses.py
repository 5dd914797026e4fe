"""`stream pause` and `stream resume` beside whole workers: what is refused, by which figures, and what every other command says of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from stream import events
from stream.aws.kinesis import KinesisClient
from stream.cli.main import app
from stream.cli.pausing import told_of_refusal
from stream.errors import DefinitionError, Fatal
from stream.lease.paused import What
from stream.operations.changes import pauses
from stream.operations.changes.pauses import Author, Operator, Outcome, Scope
from stream.pipeline.checks.lint import check
from stream.pipeline.model import Pipeline
from stream.worker.sources.reading import Reading
from tests.integration.stage import PIPELINE, Stage, sealed

ANN = Author("ann@a", "new disks")
SHARD = Stage.shard
ICEBERG = """
  - iceberg: {{location: "file:./table", table: lake.numbers, catalog: {{type: sql, uri: "sqlite:///{folder}/catalog.db"}}}}
"""


def pipeline(stage: Stage, text: str = PIPELINE) -> Pipeline:
    file = stage.folder / "pipeline.yaml"
    file.write_text(text.format(url=stage.url, on_expired="gap", start="trim_horizon"))
    found = check(file, {})
    assert found.pipeline is not None, found.findings
    return found.pipeline


def operator(stage: Stage, text: str = PIPELINE) -> Operator:
    return Operator(pipeline(stage, text), stage.folder, stage.clock, lambda _event: None)


def pause(stage: Stage, *shards: str, hours: float | None = None, may_expire: bool = False, loads: bool = False) -> Outcome:
    until = None if hours is None else stage.clock.now() + timedelta(hours=hours)
    scope = Scope(shards=shards, loads=loads)
    return asyncio.run(operator(stage).pause(scope, ANN, until, may_expire=may_expire))


def resume(stage: Stage, *shards: str, everything: bool = False) -> Outcome:
    return asyncio.run(operator(stage).resume(Scope(shards=shards), Author("bob@b", ""), everything=everything))


def command(stage: Stage, *words: str) -> Any:
    if not (stage.folder / "pipeline.yaml").exists():
        pipeline(stage)
    return CliRunner().invoke(app, [words[0], str(stage.folder / "pipeline.yaml"), *words[1:]])


def of_kind(heard: list[events.Event], kind: type[events.Event]) -> list[events.Event]:
    return [event for event in heard if isinstance(event, kind)]


def first(kind: type[events.Event]) -> Callable[[events.Event], bool]:
    return lambda event: isinstance(event, kind)


def test_a_pause_that_would_outlive_unread_records_is_refused_by_the_hour(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.put(range(5, 7))
    arrived = stage.clock.now()
    stage.clock.ahead += timedelta(hours=3)
    outcome = pause(stage, hours=21.5)
    assert outcome.change is None
    (outlook,) = outcome.too_long
    assert outlook.expires is not None
    assert abs(outlook.expires - arrived - timedelta(hours=24)) < timedelta(minutes=1)
    assert told_of_refusal(outcome.too_long, outlook.expires + timedelta(minutes=30))[0].endswith("on, 30m before the pause ends")
    assert outcome.pauses == ()
    # Up to an hour before that it is accepted, with the same figure; and past it, if that is wanted.
    outcome = pause(stage, hours=20)
    assert (len(outcome.pauses), outcome.outlooks[0].expires) == (1, outlook.expires)
    assert pause(stage, hours=40, may_expire=True).change is not None


def test_on_a_shard_without_unread_records_the_next_one_counts(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.clock.ahead += timedelta(hours=3)
    assert pause(stage, hours=25).too_long
    assert pause(stage, hours=23).change is not None


def test_a_single_shard_is_judged_by_its_own_records(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    assert pause(stage, SHARD, hours=23).change is not None
    with pytest.raises(DefinitionError, match=r"shardId-000000000007: the stream numbers has no such shard; it has shardId-000000000000"):
        pause(stage, "shardId-000000000007")
    stage.client.split_shard(StreamName="numbers", ShardToSplit=SHARD, NewStartingHashKey=str(2**127))
    resume(stage, SHARD)
    stage.work(first(events.ShardEnded))
    with pytest.raises(DefinitionError, match="has been read to its end; name the shards that continue it"):
        pause(stage, SHARD)
    # Of a whole stream, shards that have ended are a part like any other.
    assert pause(stage, hours=23).change is not None


def test_a_stream_whose_unread_records_expire_already_can_be_paused_and_it_is_said_why_no_hour_is_known(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.put(range(5, 7))
    stage.clock.ahead += timedelta(hours=25)
    outcome = pause(stage, hours=1)
    assert outcome.change is not None
    (outlook,) = outcome.outlooks
    assert outlook.expires is None
    assert outlook.why.startswith(f"{SHARD}: ")
    assert "expired" in outlook.why


def test_before_anything_is_read_it_can_be_paused_and_then_no_worker_begins(stage: Stage) -> None:
    stage.put(range(5))
    outcome = pause(stage, hours=30)
    assert outcome.outlooks[0].expires is None
    assert "no worker has begun" in outcome.outlooks[0].why
    heard = stage.work(first(events.ShardPaused))
    assert not of_kind(heard, events.ShardStarted)
    assert not of_kind(heard, events.PageReceived)
    (paused,) = of_kind(heard, events.ShardPaused)
    assert (paused.by, paused.note) == ("ann@a", "new disks")
    resume(stage)
    heard = stage.work(sealed(5))
    assert not of_kind(heard, events.ShardPaused)


def test_a_worker_that_finds_a_shard_paused_knows_from_the_log_how_far_behind_it_is(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    pause(stage)
    stage.clock.ahead += timedelta(hours=5)
    heard = stage.work(first(events.ShardPaused))
    (paused,) = of_kind(heard, events.ShardPaused)
    assert 5 * 3600 <= paused.behind < 5 * 3600 + 60
    assert not of_kind(heard, events.PageReceived)


def test_a_run_that_ends_does_not_read_what_is_paused_and_does_not_succeed(stage: Stage) -> None:
    stage.put(range(5))
    pause(stage, SHARD)
    with pytest.raises(
        Fatal, match=r"1 shard\(s\) are paused, so this run has not read everything; .*\n  numbers/shardId-000000000000: reading"
    ):
        stage.work(lambda _event: False, reading=Reading(once=True))
    resume(stage, SHARD)
    heard = stage.work(lambda _event: False, reading=Reading(once=True))
    assert sum(sum(count for _, count in event.outcomes) for event in of_kind(heard, events.UnitSealed)) == 5


def test_resuming_ends_what_is_named_and_lists_what_stays(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    pause(stage, SHARD)
    left = resume(stage)
    assert (left.change, [each.part for each in left.pauses]) == (None, [SHARD])
    pause(stage)
    left = resume(stage, SHARD)
    assert left.change is not None
    assert [each.part for each in left.pauses] == [""]
    pause(stage, SHARD)
    assert resume(stage, everything=True).pauses == ()


def test_what_the_command_says_and_its_exit_codes(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))

    def run(code: int, *words: str) -> str:
        ran = command(stage, *words)
        assert ran.exit_code == code, ran.output
        return " ".join(ran.output.split())

    assert "--note is empty: give the reason" in run(2, "pause")
    assert "--by is empty" in run(2, "pause", "--note", "x", "--by", " ")
    assert "nothing is paused" in run(0, "pause", "--list")
    assert "nothing of that is paused" in run(0, "resume")
    assert "more than 10 s" in run(2, "pause", "--note", "x", "--until", "5s")
    assert "one line of up to 500 printable characters" in run(2, "pause", "--note", "a\x1b[2J")
    assert "reads numbers" in run(2, "pause", "--note", "x", "--stream", "letters")
    assert "the pipeline loads no table; it loads none" in run(2, "pause", "--note", "x", "--loads")
    assert "add --loads" in run(2, "pause", "--note", "x", "--sink", "s3")
    assert "give a length of time such as 2h30m" in run(2, "pause", "--note", "x", "--until", "tomorrow")
    refused = run(1, "pause", "--note", "x", "--until", "2d")
    assert "error: unread records of numbers expire from" in refused
    assert "nothing was paused; choose an earlier --until" in refused
    assert "nothing is paused" in run(0, "pause", "--list")
    done = run(0, "pause", "--note", "new disks", "--by", "ann")
    assert "reading of numbers is paused, by ann since" in done
    assert "seals what it has read and stops reading within 5 s; it keeps its leases" in done
    assert "unread records of numbers expire from" in done
    assert "it was so already: nothing was changed" in run(0, "pause", "--note", "new disks", "--by", "bob")
    assert "is paused until" in run(0, "pause", "--note", "new disks", "--by", "bob", "--until", "3h")
    assert "still so: reading of numbers is paused" in run(1, "resume", SHARD)
    assert "leave out the shards" in run(2, "resume", SHARD, "--all")
    assert "--note is one line" in run(2, "resume", "--note", "a\x1b[2J")
    assert "--by is one line" in run(2, "resume", "--by", "a\nb")
    assert "goes on within 5 s, exactly where it stopped" in run(0, "resume", "--note", "done")
    listed = json.loads(command(stage, "pause", "--list", "--json").stdout)
    assert listed["paused"] == []
    assert [(each["number"], each["action"], each["note"]) for each in listed["changes"]] == [
        (1, "pause", "new disks"),
        (2, "pause", "new disks"),
        (3, "resume", "done"),
    ]
    shown = run(0, "pause", "--list")
    assert all(word in shown for word in ("ann", "bob", "new disks", "done", "reading of numbers"))


def test_other_commands_say_that_it_is_paused(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    pause(stage)
    stage.put(range(5, 7))
    doctor = json.loads(command(stage, "doctor", "--json").stdout)
    (finding,) = [each for each in doctor["findings"] if each["check"] == "paused"]
    assert finding["verdict"] == "note"
    assert "new disks" in finding["what"]
    survey = json.loads(command(stage, "shards", "--json").stdout)
    assert "paused" in survey["streams"][0]["shards"][0]["marks"]
    stage.clock.ahead += timedelta(seconds=2)
    ran = command(stage, "complete", "--until", stage.clock.now().replace(microsecond=0).isoformat(), "--margin", "0", "--json")
    (shard,) = json.loads(ran.stdout)["streams"][0]["shards"]
    assert ran.exit_code == 1
    assert "is not sealed; reading of numbers is paused, by ann@a since" in shard["why"]


def test_loads_are_paused_and_units_are_sealed_as_usual(stage: Stage) -> None:
    stage.more = ICEBERG.format(folder=stage.folder)
    text = PIPELINE.replace('sinks: [s3: {{url: "file:lake"}}]', "sinks:" + ICEBERG.replace("{folder}", str(stage.folder)))

    async def run(change: str) -> Outcome:
        one = operator(stage, text)
        scope = Scope(loads=True)
        return await (one.pause(scope, ANN, None) if change == "pause" else one.resume(scope, Author("bob@b", "")))

    outcome = asyncio.run(run("pause"))
    assert [each.what for each in outcome.pauses] == [What.LOADS]
    assert outcome.outlooks == ()
    stage.put(range(5))
    ran = command(stage, "run", "--once")
    assert ran.exit_code == 1
    assert "rows that this run sealed are not loaded (iceberg: loads of numbers into all tables are paused, by ann@a" in ran.output
    assert sum(each.records for each in stage.manifests()) == 5
    stage.clock.ahead += timedelta(seconds=2)
    until = stage.clock.now().replace(microsecond=0).isoformat()
    found = json.loads(command(stage, "complete", "--until", until, "--margin", "0", "--json").stdout)
    (table,) = found["streams"][0]["tables"]
    assert table["units_waiting"] == 1
    assert "are paused, by ann@a" in table["paused"]
    asyncio.run(run("resume"))
    assert command(stage, "run", "--once").exit_code == 0
    found = json.loads(command(stage, "complete", "--until", until, "--margin", "0", "--json").stdout)
    assert found["complete"] is True


def test_under_the_daemon_reading_cannot_be_paused_and_the_message_says_what_to_do(stage: Stage) -> None:
    text = PIPELINE + "coordination: {{kcl: {{}}}}\n"
    with pytest.raises(DefinitionError, match="stop the daemons instead; they continue where they stopped"):
        asyncio.run(operator(stage, text).pause(Scope(), ANN, None))


def test_a_whole_stream_can_be_paused_while_kinesis_does_not_answer_and_a_shard_cannot(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.client.delete_stream(StreamName="numbers")
    outcome = pause(stage)
    assert outcome.change is not None
    assert outcome.outlooks[0].expires is None
    assert outcome.outlooks[0].why
    with pytest.raises((DefinitionError, Fatal)):
        pause(stage, SHARD)


def test_a_whole_stream_can_be_paused_while_a_call_hangs_and_a_shard_cannot(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.put(range(5))
    stage.work(sealed(5))

    async def never(_client: object, _stream: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(KinesisClient, "describe_stream_summary", never)
    monkeypatch.setattr(pauses, "ANSWER_SECONDS", 3)
    with pytest.raises(Fatal, match=rf"did not answer within 3 s, so it is not known whether it has {SHARD}; only the whole stream"):
        pause(stage, SHARD)
    outcome = pause(stage)
    assert outcome.change is not None
    assert outcome.outlooks[0].why == "the stream numbers did not answer within 3 s"


def test_a_moment_is_kept_as_it_was_given(stage: Stage) -> None:
    ran = command(stage, "pause", "--note", "x", "--until", "2h", "--json")
    (found,) = json.loads(ran.stdout)["paused"]
    assert datetime.fromisoformat(found["until"]) - datetime.fromisoformat(found["since"]) < timedelta(hours=2, seconds=1)
    assert (found["shard"], found["sink"], found["stream"], found["what"]) == (None, None, "numbers", "reading")
