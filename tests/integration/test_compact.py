"""`stream compact` beside whole workers over the emulator: what it takes, what it leaves, and what the other commands then say."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from tests.integration.stage import PIPELINE, Stage, sealed


@pytest.fixture
def worked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Three sealed units; commands run in the folder of the pipeline file."""
    monkeypatch.chdir(stage.folder)
    for numbers in (range(4), range(4, 8), range(8, 12)):
        stage.put(numbers)
        stage.work(sealed(4))
    return stage


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code, f"{words}: {done.output}"
    return done.stdout if code == 0 else done.output


def compact(*options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("compact", "pipeline.yaml", "--json", *options))["partitions"]
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def numbers(folder: Path) -> list[int]:
    return sorted(n for file in files(folder) for n in pl.read_parquet(file)["n"])


def test_what_is_quiet_and_complete_is_compacted_and_the_rest_is_left_alone(worked: Stage) -> None:
    lake, large = worked.folder / "lake", worked.folder / "lake-compacted"
    assert compact() == [], "records arrived a moment ago"
    worked.clock.ahead = timedelta(hours=2)
    worked.put(range(12, 14))
    worked.clock.ahead = timedelta(hours=5)
    assert [each["files"] for each in compact("--dry-run")] == [3], (
        "a record that is not sealed keeps nothing back that is older by an hour"
    )
    assert not large.exists()
    (done,) = compact()
    assert (done["partition"], done["files"], done["outputs"], done["rows"]) == ("", 3, 1, 12)
    assert numbers(large) == numbers(lake) == list(range(12))
    worked.work(sealed(2))
    assert [each["files"] for each in compact()] == [1]
    assert numbers(large) == numbers(lake) == list(range(14))
    assert compact() == []
    assert "Nothing to compact" in run("compact", "pipeline.yaml")


def test_records_that_are_late_keep_their_partition_open(worked: Stage) -> None:
    worked.put(range(12, 14))
    worked.clock.ahead = timedelta(hours=2)
    assert compact() == [], "a record that arrived two hours ago is not sealed, and may be for any partition"
    assert [each["files"] for each in compact("--before", "2100-01-01")] == [3]


def test_after_the_small_files_are_gone_every_command_finds_the_rows(worked: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, large = worked.folder / "lake", worked.folder / "lake-compacted"
    compact("--before", "2100-01-01")
    assert "give at least 1h" in run("compact", "pipeline.yaml", "--delete-sources", "10m", code=2)
    assert "0 files" in run("compact", "pipeline.yaml", "--delete-sources", "1h")
    assert len(files(lake)) == 3
    monkeypatch.setattr("stream.cli.compact.SystemClock", lambda: worked.clock)
    worked.clock.ahead = timedelta(days=8)
    assert json.loads(run("compact", "pipeline.yaml", "--delete-sources", "7d", "--json"))["deleted_files"] == 3
    worked.clock.ahead = timedelta()
    assert files(lake) == []
    assert numbers(large) == list(range(12))
    assert "All 12 records are accounted for, once." in run("audit", "verify", "pipeline.yaml")

    (file,) = files(large)
    rows = pl.read_parquet(file)
    for at, number in enumerate(rows["_sequence"]):
        said = run("trace", "pipeline.yaml", number)
        assert f"compacted s3 file:{large}/{file.name} row {at}\n" in said
        assert run("trace", "pipeline.yaml", "--object", file.name, "--row", str(at)) == said
    for n in range(12):
        for more in ((), ("--since", "1d"), ("--since", "1d", "--source")):
            (fate,) = json.loads(run("trace", "pipeline.yaml", "message", f"n={n}", "--json", *more))
            assert [place["compacted"]["row"] for place in fate["places"]] == [n]
    worked.put(range(12, 15))
    worked.work(sealed(3))
    assert numbers(lake) == [12, 13, 14]

    file.write_bytes(file.read_bytes()[:-8])
    said = run("audit", "verify", "pipeline.yaml", code=1)
    assert "the compacted file has other content than was published" in said


def test_the_trace_of_a_compacted_record(worked: Stage) -> None:
    compact("--before", "2100-01-01")
    second = worked.manifests()[1]
    said = run("trace", "pipeline.yaml", str(second.last))
    lines = [line for line in said.splitlines() if line.startswith(("in s3", "compacted"))]
    shown = [re.sub(r"file:\S*/|\d{30,}|[0-9a-f]{16}", "*", line) for line in lines]
    assert shown == [
        "in s3      *shardId-000000000000-*-*.0.*.parquet row 3",
        "compacted s3 *numbers.s3.00000001.0.*.parquet row 7",
    ]
    (found,) = json.loads(run("trace", "pipeline.yaml", str(second.last), "--json"))
    (place,) = found["places"]
    assert place["compacted"]["row"] == 7
    assert place["compacted"]["url"].endswith(".parquet")


def test_a_rewind_over_what_was_compacted_is_refused(worked: Stage) -> None:
    first, second, third = worked.manifests()
    worked.put(range(12, 14))
    worked.work(sealed(2))
    limit = third.last_arrival
    compact("--before", limit)
    for wanted in (first, second):
        said = run("leases", "rewind", "pipeline.yaml", worked.shard, str(wanted.last), "--yes", code=2)
        assert "were compacted: the compacted files stay" in said
        assert f"Rewind to after {second.last}" in said
    run("leases", "rewind", "pipeline.yaml", worked.shard, str(third.last), "--yes")
    worked.work(sealed(6))
    compact("--before", "2100-01-01")
    assert numbers(worked.folder / "lake-compacted") == list(range(14))
    run("audit", "verify", "pipeline.yaml")


@pytest.mark.parametrize(
    ("sink", "options", "why"),
    [
        ("s3: {url: file:lake, format: ndjson}", (), "writes ndjson, and only Parquet can be compacted"),
        ("s3: {url: file:lake}", ("--sink", "other"), "the pipeline has no such sink; it has s3"),
        ("s3: {url: file:lake}", ("--to", "file:lake/large"), "sink s3 is at file:lake, and readers of one would see both"),
        ("s3: {url: file:lake}", ("--to", "file:state"), "the state is at file:state"),
        ("s3: {url: file:lake}", ("--to", "lake"), "does not name a store"),
        ("s3: {url: file:lake}", ("--target-size", "1XB"), "has the unknown unit"),
        ("s3: {url: file:lake}", ("--target-size", "1KB"), "give 1MiB to 4GiB"),
        ("s3: {url: file:lake}", ("--before", "soon"), "give a moment"),
        ("s3: {url: file:lake}", ("--delete-sources", "7d", "--dry-run"), "goes with none of"),
        ("s3: {url: file:lake}", (), "up to when numbers is complete is not known (no worker has begun with this stream)"),
    ],
)
def test_what_cannot_be_done_is_refused(stage: Stage, sink: str, options: tuple[str, ...], why: str) -> None:
    text = PIPELINE.format(url=stage.url, on_expired="gap", start="trim_horizon").replace('s3: {url: "file:lake"}', sink)
    (stage.folder / "pipeline.yaml").write_text(text)
    done = CliRunner().invoke(app, ["compact", str(stage.folder / "pipeline.yaml"), *options])
    assert done.exit_code == 2, done.output
    assert why in re.sub(r"[\s│]+", " ", done.output)
