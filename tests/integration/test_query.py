"""`stream query` beside whole workers over the emulator: what it reads of files and of the stream, and what it says of both."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from tests.integration.stage import PIPELINE, Stage, sealed


@pytest.fixture(autouse=True)
def clock_of_the_stream(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.cli.query.SystemClock", lambda: stage.clock)


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code, f"{words}: {done.output}"
    return done.stdout if code == 0 else " ".join(done.stderr.split())


def document(stage: Stage, sql: str, *options: str) -> dict[str, Any]:
    file = stage.folder / "pipeline.yaml"
    if not file.exists():
        file.write_text(PIPELINE.format(url=stage.url, on_expired="gap", start="trim_horizon") + stage.more)
    found: dict[str, Any] = json.loads(run("query", str(file), sql, "--json", *options))
    return found


def numbers(stage: Stage, *options: str) -> list[tuple[int, bool]]:
    rows = document(stage, "SELECT n, _sealed, _file FROM rows ORDER BY _sequence", *options)["rows"]
    assert all((row["_file"] is not None) == row["_sealed"] for row in rows)
    return [(row["n"], row["_sealed"]) for row in rows]


def marked(sealed_ones: range, others: range = range(0)) -> list[tuple[int, bool]]:
    return [*((n, True) for n in sealed_ones), *((n, False) for n in others)]


def test_sealed_and_unsealed_rows_are_there_once(stage: Stage) -> None:
    assert numbers(stage) == []
    stage.put(range(3))
    assert numbers(stage) == marked(range(0), range(3)), "no worker has begun"
    stage.work(sealed(3))
    assert numbers(stage) == marked(range(3))
    stage.put(range(3, 5))
    assert numbers(stage) == marked(range(3), range(3, 5))
    assert numbers(stage, "--no-tail") == marked(range(3))
    found = document(stage, "SELECT count(*) AS many FROM rows")
    assert found["rows"] == [{"many": 5}]
    (shard,) = found["streams"][0]["shards"]
    assert (shard["sealed_rows"], shard["unsealed_records"], shard["unsealed_rows"], shard["why"]) == (3, 2, 2, "")
    assert int(shard["read_to"]) > int(shard["sealed_position"]) == int(stage.manifests()[-1].last or 0)
    stage.work(sealed(2))
    assert numbers(stage) == marked(range(5))
    assert sorted(path.name for path in stage.folder.iterdir()) == ["lake", "pipeline.yaml", "state"]


def test_a_unit_that_is_begun_and_not_sealed_is_there_once(stage: Stage) -> None:
    for some in (range(3), range(3, 6)):
        stage.put(some)
        stage.work(sealed(3))
    stage.put(range(6, 7))
    stage.unseal_last()
    assert numbers(stage) == marked(range(3), range(3, 7))
    stage.work(lambda event: isinstance(event, events.ManifestSealed))
    assert numbers(stage) == marked(range(7))


def test_children_and_rewound_units_are_there_once(stage: Stage) -> None:
    for some in (range(3), range(3, 6)):
        stage.put(some)
        stage.work(sealed(3))
    _, second = stage.manifests()
    run("leases", "rewind", str(stage.folder / "pipeline.yaml"), stage.shard, str(second.last), "--yes")
    assert numbers(stage) == marked(range(3), range(3, 6))
    stage.work(sealed(3))
    assert numbers(stage) == marked(range(6))
    stage.client.split_shard(StreamName="numbers", ShardToSplit=stage.shard, NewStartingHashKey=str(2**127))
    stage.put(range(6, 9))
    assert numbers(stage) == marked(range(6), range(6, 9)), "no worker has ended the parent or begun the children"
    stage.work(sealed(3))
    assert numbers(stage) == marked(range(9))


def test_records_that_expired_unread_are_told_and_the_rest_is_there(stage: Stage) -> None:
    stage.put(range(3))
    stage.work(sealed(3))
    stage.put(range(3, 5))
    stage.clock.ahead = timedelta(hours=30)
    stage.put(range(5, 7))
    assert numbers(stage) == marked(range(3), range(5, 7))
    (shard,) = document(stage, "SELECT n FROM rows")["streams"][0]["shards"]
    assert "may be gone, and no gap is recorded yet" in shard["why"]
    stage.work(sealed(2))
    assert numbers(stage) == marked([*range(3), *range(5, 7)])  # type: ignore[arg-type]
    assert document(stage, "SELECT n FROM rows")["streams"][0]["shards"][0]["why"] == ""


def test_a_time_range_has_exactly_the_rows_that_arrived_in_it(stage: Stage) -> None:
    begun = stage.clock.now()
    for hour in range(4):
        stage.clock.ahead = timedelta(hours=hour)
        stage.put(range(10 * hour, 10 * hour + 3))
        if hour < 3:
            stage.work(sealed(3))
    for since, until in ((0, 4), (1, 4), (1, 3), (2, 3), (3, 4), (0, 1)):
        bounds = [(begun + timedelta(hours=at) - timedelta(minutes=1)).isoformat() for at in (since, until)]
        found = numbers(stage, "--from", bounds[0], "--to", bounds[1])
        assert found == [(10 * hour + n, hour < 3) for hour in range(since, until) for n in range(3)]
    moments = document(stage, "SELECT _arrival FROM rows WHERE n = 11 OR n = 12 ORDER BY n")["rows"]
    (only,) = numbers(stage, "--from", moments[0]["_arrival"], "--to", moments[1]["_arrival"])
    assert only == (11, True), "the beginning is included, the end is not"
    assert numbers(stage, "--since", "1h") == marked(range(0), range(30, 33))
    assert numbers(stage, "--since", "1h", "--no-tail") == []


MORE = """
stages:
  - derive: {{half: "CAST(n AS DOUBLE) / 2", came: "_arrival", yes: "n % 2 = 0"}}
"""
FORMATS = {
    "parquet": "format: parquet",
    "arrow": "format: arrow",
    "avro": "format: avro",
    "ndjson": "format: ndjson, compression: zstd",
    "csv": "format: csv",
    "csv without names": "format: csv, csv: {header: false, delimiter: '|', quote: null, escape: '\\', times: sql}",
}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("lineage", ["true", "false"])
def test_files_of_every_format_and_the_tail_have_the_same_types(stage: Stage, form: str, lineage: str) -> None:
    text = PIPELINE.format(url=stage.url, on_expired="gap", start="trim_horizon")
    part = 'partition_by: [{parity: "CAST(n % 2 AS VARCHAR)"}]'
    text = text.replace('s3: {url: "file:lake"}', f's3: {{url: "file:lake", {form}, lineage: {lineage}, {part}}}')
    (stage.folder / "pipeline.yaml").write_text(text + MORE.replace("{{", "{").replace("}}", "}"))
    stage.put([1, 2, "x"])
    run("run", str(stage.folder / "pipeline.yaml"), "--once")
    stage.put([3, 4, "y"])
    sql = "SELECT n, half, yes, parity, year(came) AS year, _sealed FROM rows WHERE n > 0 AND half >= 0.5 ORDER BY n"
    found = document(stage, sql)
    year = stage.clock.now().year
    assert found["rows"] == [
        {"n": n, "half": n / 2, "yes": n % 2 == 0, "parity": str(n % 2), "year": year, "_sealed": n < 3} for n in range(1, 5)
    ]
    assert {name: found["columns"][name] for name in ("n", "half", "yes")} == {"n": "int64", "half": "float64", "yes": "bool"}
    columns = document(stage, "SELECT * FROM rows LIMIT 0")["columns"]
    assert ("_sequence" in columns) == (lineage == "true")
    letters = document(stage, "SELECT reason, _data, _sealed FROM dead_letters ORDER BY _sequence")["rows"]
    assert [(row["_sealed"], row["reason"].partition(":")[0]) for row in letters] == [(True, "wrong_type"), (False, "wrong_type")]
    bounded = document(stage, "SELECT n FROM rows", "--since", "1h")
    assert len(bounded["rows"]) == 4
    assert any("lineage: false" in note for note in bounded["notes"]) == (lineage == "false")
