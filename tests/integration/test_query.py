"""`stream query` beside whole workers over the emulator: what it reads of files and of the stream, and what it says of both."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.operations.query.contents import open_queried
from stream.pipeline.checks.lint import check
from stream.worker.objects.slices import Window
from stream.worker.sources.reading import Reading
from tests.integration.stage import PIPELINE, Stage, sealed


@pytest.fixture(autouse=True)
def clock_of_the_stream(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("query", "times"):
        monkeypatch.setattr(f"stream.cli.{module}.SystemClock", lambda: stage.clock)


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
        for n in range(3):
            stage.clock.ahead = timedelta(hours=hour, milliseconds=n)
            stage.put([10 * hour + n])
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
    stage.clock.ahead += timedelta(minutes=20)
    newest = document(stage, "SELECT min(_arrival) AS first FROM rows WHERE n >= 30")["rows"][0]["first"]
    assert numbers(stage, "--from", newest) == marked(range(0), range(30, 33))


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


def test_rows_of_compacted_files_are_found_after_the_small_ones_are_gone(stage: Stage) -> None:
    for some in (range(3), range(3, 6)):
        stage.put(some)
        stage.work(sealed(3))
    stage.put(range(6, 8))
    run("compact", str(stage.folder / "pipeline.yaml"), "--before", "2100-01-01")
    assert numbers(stage) == marked(range(6), range(6, 8))
    before = document(stage, "SELECT DISTINCT _file FROM rows WHERE _sealed")["rows"]
    for file in (stage.folder / "lake").glob("*.parquet"):
        file.unlink()
    assert numbers(stage) == marked(range(6), range(6, 8))
    after = document(stage, "SELECT DISTINCT _file FROM rows WHERE _sealed")["rows"]
    assert (len(before), len(after)) == (2, 1)
    assert "-compacted/" in after[0]["_file"]


def test_a_file_that_is_missing_or_changed_is_named(stage: Stage) -> None:
    stage.put(range(3))
    stage.work(sealed(3))
    (file,) = (stage.folder / "lake").glob("*.parquet")
    body = file.read_bytes()
    file.write_bytes(body[:-9] + b"?" + body[-8:])
    said = run("query", str(stage.folder / "pipeline.yaml"), "SELECT * FROM rows", code=2)
    assert f"the file {file.name} was changed after it was written" in said
    file.unlink()
    said = run("query", str(stage.folder / "pipeline.yaml"), "SELECT * FROM rows", code=2)
    assert f"{file.name} is missing, though the log lists it; `stream audit verify` says" in said
    assert run("query", str(stage.folder / "pipeline.yaml"), "SELECT count(*) AS letters FROM dead_letters", "--csv") == "letters\n0\n"


def test_a_manifest_that_is_missing_or_edited_ends_the_query(stage: Stage) -> None:
    for some in (range(3), range(3, 6)):
        stage.put(some)
        stage.work(sealed(3))
    first, _ = sorted((stage.folder / "state" / "app" / "commits").rglob("0*.json"))
    body = first.read_bytes()
    first.write_bytes(body.replace(b'"records":3', b'"records":4'))
    assert "it was edited" in run("query", str(stage.folder / "pipeline.yaml"), "SELECT * FROM rows", code=2)
    first.unlink()
    assert "is missing" in run("query", str(stage.folder / "pipeline.yaml"), "SELECT * FROM rows", code=2)
    first.write_bytes(body)
    assert numbers(stage) == marked(range(6))


SENSITIVE = """
application: app
source:
  kinesis: {{stream: numbers, endpoint: "{url}", start: trim_horizon}}
  schema: {{n: int64, name: string?}}
stages:
  - derive: {{shout: upper(name), other: n + 1}}
sinks: [s3: {{url: "file:lake", format: {form}}}]
sensitive: {{columns: [name], allowed_in: [s3]}}
state: file:state
metrics: {{port: 0}}
"""


@pytest.mark.parametrize("form", ["parquet", "ndjson"])
def test_sensitive_values_are_hidden_before_the_query_runs(stage: Stage, form: str) -> None:
    file = str(stage.folder / "pipeline.yaml")
    Path(file).write_text(SENSITIVE.format(url=stage.url, form=form))

    def put(*records: dict[str, Any]) -> None:
        for each in records:
            stage.client.put_record(StreamName="numbers", Data=json.dumps(each).encode(), PartitionKey="k")

    put({"n": 1, "name": "ivy"}, {"n": "x", "name": "rob"})
    run("run", file, "--once")
    put({"n": 2, "name": None}, {"n": "y", "name": "zoe"})
    rows = document(stage, "SELECT n, name, shout, other FROM rows ORDER BY n")
    assert rows["rows"] == [{"n": n, "name": "(hidden)", "shout": "(hidden)", "other": n + 1} for n in (1, 2)]
    assert rows["hidden"] == ["name", "shout"]
    for leak in ("name = 'ivy'", "shout LIKE 'I%'", "length(name) = 3", "name IS NULL", "name <> '(hidden)'"):
        assert document(stage, f"SELECT n FROM rows WHERE {leak}")["rows"] == [], leak  # noqa: S608
    letters = document(stage, "SELECT _data FROM dead_letters")
    assert letters["rows"] == [{"_data": "(hidden)"}] * 2
    for sql in ("SELECT * FROM rows", "SELECT * FROM dead_letters", "SELECT name AS a FROM rows"):
        for option in ("--json", "--csv"):
            said = run("query", file, sql, option)
            assert not any(value in said for value in ("ivy", "IVY", "rob", "zoe")), said
    done = CliRunner().invoke(app, ["query", file, "SELECT name FROM rows"])
    assert "hidden before the query ran: name, shout; --reveal shows them" in done.stderr
    found = document(stage, "SELECT name, shout FROM rows WHERE n = 1", "--reveal")
    assert (found["rows"], found["hidden"]) == ([{"name": "ivy", "shout": "IVY"}], [])
    assert document(stage, "SELECT count(*) AS n FROM rows WHERE name IS NULL", "--reveal")["rows"] == [{"n": 1}]


@pytest.mark.parametrize(
    ("sql", "options", "says"),
    [
        ("SELECT _shar FROM rows", (), "unable to find column \"_shar\" - did you mean '_shard'?"),
        ("SELECT n FROM numbers", (), "the query reads no table: write FROM rows, or FROM dead_letters"),
        ("SELECT n FROM rows JOIN more ON rows.n = more.n", (), "relation 'more' was not found"),
        ("SELECT n + FROM rows", (), "the query fails: "),
        ("SELECT nope(n) FROM rows", (), "unsupported function 'nope'"),
        ("SELECT CAST(_shard AS BIGINT) FROM rows", (), "the query fails: "),
        ("DELETE FROM rows", (), "a query begins with SELECT or WITH; this one begins with 'DELETE'"),
        ("", (), "this one begins with 'nothing'"),
        ("SELECT n FROM rows; SELECT 1", (), "a query is one statement"),
        ("SELECT * FROM rows, read_parquet('lake/*')", (), "read_parquet() reads other files"),
        ("SELECT * FROM rows", ("--max-rows", "3"), "the result has more than 3 rows: aggregate them, add a LIMIT, or raise --max-rows"),
        (
            "SELECT * FROM rows",
            ("--max-bytes", "900"),
            "more than 900 bytes of files and records would be read: ask for fewer with --since",
        ),
        ("SELECT * FROM rows", ("--max-bytes", "9XB"), "unknown unit"),
        ("SELECT * FROM rows", ("--since", "soon"), "--since: 'soon' is not a duration"),
        ("SELECT * FROM rows", ("--since", "1h", "--to", "2026-01-01"), "--since already names the time; omit --from and --to"),
        ("SELECT * FROM rows", ("--from", "2026-01-02", "--to", "2026-01-01"), "must be before --to"),
        ("SELECT * FROM rows", ("--sink", "lake"), "--sink lake: the pipeline has no such sink; it has s3"),
        ("SELECT * FROM rows", ("--stream", "letters"), "--stream letters: the pipeline reads numbers"),
        ("SELECT * FROM rows", ("--csv", "--json"), "--csv and --json: choose one"),
    ],
)
def test_what_cannot_be_done_is_refused(stage: Stage, sql: str, options: tuple[str, ...], says: str) -> None:
    stage.put(range(3))
    stage.work(sealed(3))
    stage.put(range(3, 6))
    done = CliRunner().invoke(app, ["query", str(stage.folder / "pipeline.yaml"), sql, *options])
    assert done.exit_code == 2, done.output
    assert says in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_what_stands_still_and_why_is_told(stage: Stage) -> None:
    file = str(stage.folder / "pipeline.yaml")
    stage.put(range(3))
    stage.work(sealed(3))
    stage.put(range(3, 5))
    run("pause", file, "--note", "new disks")
    (shard,) = document(stage, "SELECT n FROM rows")["streams"][0]["shards"]
    assert "new disks" in shard["why"]
    done = CliRunner().invoke(app, ["query", file, "SELECT n FROM rows"])
    assert f"numbers/{stage.shard}: reading of numbers is paused, by" in done.stderr
    assert "numbers: read 3 rows of sealed units, and 2 that are not sealed" in done.stderr


def test_what_is_not_sealed_is_made_with_the_definition_that_workers_have(stage: Stage) -> None:
    stage.put(range(3))
    stage.work(sealed(3))
    stage.put(range(3, 6))
    file = stage.folder / "pipeline.yaml"
    file.write_text(file.read_text() + "stages: [filter: n > 4]\n")
    assert numbers(stage) == marked(range(3), range(3, 6))
    assert any("which is not that of this file" in note for note in document(stage, "SELECT n FROM rows")["notes"])
    run("run", str(file), "--once")
    assert numbers(stage) == [*marked(range(3)), (5, True)]


def test_a_stage_that_looks_at_whole_units_is_named(stage: Stage) -> None:
    stage.more = "stages: [dedupe: n]\n"
    stage.put([1, 1, 2])
    stage.work(sealed(3))
    stage.put([2, 3, 3])
    assert numbers(stage) == [(1, True), (2, True), (2, False), (3, False)]
    (note,) = document(stage, "SELECT n FROM rows")["notes"]
    assert note.startswith("1:dedupe looks at a unit as a whole")
    assert document(stage, "SELECT n FROM rows", "--no-tail")["notes"] == []


def test_redriven_rows_and_dead_letters_are_there(stage: Stage) -> None:
    stage.put([1, "two"])
    stage.work(sealed(2))
    stage.put(["three"])
    fixed = stage.folder / "fixed.yaml"
    fixed.write_text((stage.folder / "pipeline.yaml").read_text().replace("n: int64", "n: string"))
    run("dlq", "redrive", str(stage.folder / "pipeline.yaml"), "--pipeline", str(fixed))
    told = document(stage, "SELECT n, _sealed FROM rows ORDER BY _sequence")
    assert told["rows"] == [{"n": "1", "_sealed": True}, {"n": "two", "_sealed": True}]
    assert [(each["beside_rows"], sum(shard["sealed_rows"] for shard in each["shards"])) for each in told["streams"]] == [(1, 1)]
    done = CliRunner().invoke(app, ["query", str(stage.folder / "pipeline.yaml"), "SELECT n FROM rows", "--no-tail"])
    assert "numbers: read 1 rows of sealed units, and 0 that are not sealed, and 1 of redrives and backfills" in done.stderr
    letters = document(stage, "SELECT reason, _sealed, _attempt FROM dead_letters ORDER BY _sequence")["rows"]
    assert [(row["_sealed"], row["_attempt"]) for row in letters] == [(True, 1), (False, 1)], "workers have the old definition"


def test_several_streams_share_one_table(stage: Stage) -> None:
    stage.client.create_stream(StreamName="others", ShardCount=1)
    file = stage.folder / "pipeline.yaml"
    text = PIPELINE.format(url=stage.url, on_expired="gap", start="trim_horizon")
    file.write_text(
        text.replace("{stream: numbers,", "{streams: [{stream: numbers}, {stream: others}],").replace(", start: trim_horizon", "")
    )
    file.write_text(file.read_text().replace("{stream: numbers}", "{stream: numbers, start: trim_horizon}"))
    file.write_text(file.read_text().replace("{stream: others}", "{stream: others, start: trim_horizon}"))
    stage.put(range(2))
    run("run", str(file), "--once")
    stage.client.put_record(StreamName="others", Data=b'{"n": 7}', PartitionKey="k")
    sql = "SELECT n, _shard, _sealed FROM rows ORDER BY n"
    shards = [(row["n"], row["_shard"].partition("/")[0], row["_sealed"]) for row in document(stage, sql)["rows"]]
    assert shards == [(0, "numbers", True), (1, "numbers", True), (7, "others", False)]
    assert [row["n"] for row in document(stage, sql, "--stream", "others")["rows"]] == [7]


def test_the_answer_is_a_table_for_people_and_csv_for_programs(stage: Stage) -> None:
    stage.put(range(2))
    stage.work(sealed(2))
    file = str(stage.folder / "pipeline.yaml")
    assert run("query", file, "SELECT n, n / 2 AS half, 'a,\"b' AS t, NULL AS nil FROM rows ORDER BY n", "--csv") == (
        'n,half,t,nil\n0,0.0,"a,""b",\n1,0.5,"a,""b",\n'
    )
    wide = run("query", file, "SELECT _file, _file AS again, _sequence FROM rows WHERE n = 0")
    shown = "".join(line.split("│")[1].strip() for line in wide.splitlines() if "│" in line)
    assert any(shown.endswith(path.name) for path in (stage.folder / "lake").iterdir()), "nothing is cut off"
    said = run("query", file, "SELECT n, 'x[red]' AS t FROM rows ORDER BY n;")
    assert [line.split() for line in said.splitlines() if "x[red]" in line] == [["│", str(n), "│", "x[red]", "│"] for n in range(2)]
    found = document(stage, "SELECT count(*) AS n, max(_arrival) AS last FROM rows")
    assert found["columns"] == {"n": "int64", "last": "timestamp(ms)"}


def test_a_renamed_sink_has_the_rows_from_before(stage: Stage) -> None:
    stage.put(range(2))
    stage.work(sealed(2))
    stage.put(range(2, 4))
    file = stage.folder / "pipeline.yaml"
    text = file.read_text()
    file.write_text(text.replace('s3: {url: "file:lake"}', 's3: {url: "file:lake", name: clean}'))
    assert numbers(stage, "--sink", "clean") == marked(range(2), range(2, 4))
    run("run", str(file), "--once")
    assert numbers(stage) == marked(range(4))
    file.write_text(text.replace('"file:lake"', '"file:sea"'))
    assert numbers(stage) == marked(range(2)), (
        "the two that were sealed under this name count where they are; those of `clean` are of a sink that is no more"
    )


def test_a_backfill_counts_beside_the_stream(stage: Stage) -> None:
    begin = stage.clock.now().replace(microsecond=0) - timedelta(minutes=5)
    stage.put(range(3))
    stage.clock.ahead = timedelta(hours=2)
    stage.work(lambda _event: False, reading=Reading(window=Window(begin, begin + timedelta(minutes=30)), disjoint=True))
    stage.work(lambda event: isinstance(event, events.ShardStarted), start="latest")
    stage.put(range(3, 5))
    assert numbers(stage) == marked(range(3), range(3, 5))
    stage.work(sealed(2), start="latest")
    assert numbers(stage) == marked(range(5))


def test_the_stream_is_read_no_more_than_twice_a_second(stage: Stage) -> None:
    stage.put(range(2))
    stage.work(sealed(2))

    async def source() -> Any:
        pipeline = check(stage.folder / "pipeline.yaml", {}).pipeline
        assert pipeline is not None
        async with AsyncExitStack() as stack:
            opened = await open_queried(pipeline, pipeline, stage.folder, {}, stage.clock, lambda _event: None, stack, tail=True)
            return opened.source

    assert asyncio.run(source()).settings.calls_per_second == 2.0


def test_a_stream_without_a_worker_that_would_start_at_the_tip_has_no_rows_yet(stage: Stage) -> None:
    stage.put(range(3))
    file = stage.folder / "pipeline.yaml"
    file.write_text(PIPELINE.format(url=stage.url, on_expired="gap", start="latest"))
    found = document(stage, "SELECT n, _sealed FROM rows")
    assert found["rows"] == []
    assert found["notes"] == ["no worker has committed anything from numbers yet"]
