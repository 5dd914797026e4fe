"""Objects read once, dead letters sent through again: end to end over directories, checked by rows and by the proof."""

import asyncio
import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from stream import events
from stream.audit.trace import RecordQuery
from stream.cli.main import app
from stream.cli.trace import _found
from stream.clock import SystemClock
from stream.commit.log import CommitLog
from stream.errors import DefinitionError
from stream.pipeline.namespace import in_namespace
from stream.worker.objects.slices import Window
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.sources.dead_letters import CLAIMED, EXHAUSTED, STATE, WAITING
from stream.worker.sources.reading import Reading
from tests.replays import Place, row


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return Place(tmp_path)


def truth(numbers):
    made = [{**row(n), "doubled": None if row(n)["value"] is None else row(n)["value"] * 2} for n in numbers]
    return pl.DataFrame(made, schema={"id": pl.Int64, "kind": pl.String, "value": pl.Int64, "doubled": pl.Int64}).sort(pl.all())


def written(place, lake="lake"):
    return place.rows(lake, lineage=False).select("id", "kind", "value", "doubled").sort(pl.all())


def as_csv(number):
    return ",".join("" if value is None else str(value) for value in row(number).values())


def zstd(body):
    return pa.compress(body, codec="zstd", asbytes=True)


@pytest.mark.parametrize(("name", "pack"), [("x.json", bytes), ("x.json.gz", gzip.compress), ("x.json.zst", zstd)])
def test_lines_give_their_rows_with_every_compression(place, name, pack):
    place.lines(f"a/{name}", range(1200), pack=pack)
    place.lines(f"b/{name}", range(1200, 1500), pack=pack)
    assert place.run().code == 0
    assert written(place).equals(truth(range(1500)))
    assert place.proof() == []


def test_csv_and_parquet_give_the_same_rows_as_lines(place):
    place.folder.joinpath("in").mkdir()
    body = "id,kind,value\n" + "".join(f"{as_csv(n)}\n" for n in range(900))
    (place.folder / "in" / "x.csv").write_text(body)
    assert place.run(s3=", format: csv", decode="{csv: {header: true}}", lake="from_csv", state="s1").code == 0
    (place.folder / "in" / "x.csv").unlink()
    pl.DataFrame([row(n) for n in range(900)], schema={"id": pl.Int64, "kind": pl.String, "value": pl.Int64}).write_parquet(
        place.folder / "in" / "x.parquet", row_group_size=250
    )
    assert place.run(s3=", format: parquet", lake="from_parquet", state="s2").code == 0
    assert written(place, "from_csv").equals(truth(range(900)))
    assert written(place, "from_parquet").equals(truth(range(900)))


def test_pages_add_up_to_units_and_each_unit_begins_where_the_last_one_ended(place):
    heard = []
    place.lines("large.json", range(20), render=lambda number: json.dumps(row(number)) + " " * 600_000)
    assert place.run(listeners=(heard.append,), rows=10).code == 0
    pages = [event.records for event in heard if isinstance(event, events.PageReceived)]
    units = [event for event in heard if isinstance(event, events.UnitCut)]
    assert max(pages) < 10
    assert sum(pages) == sum(unit.records for unit in units) == 20, "a page was read twice"
    assert [unit.trigger for unit in units] == ["rows", "shard_end"]
    assert [unit.after for unit in units] == [0, units[0].last]
    assert written(place).equals(truth(range(20)))


def test_each_run_reads_the_new_objects_and_none_twice(place):
    place.lines("1.json", range(100))
    assert place.run().code == 0
    place.lines("0.json", range(100, 150))
    place.lines("2.json", range(150, 200))
    assert place.run().code == 0
    assert place.result()["records"] == 100
    assert place.run().code == 0
    assert (place.result()["records"], place.result()["shards"]) == (0, [])
    assert written(place).equals(truth(range(200)))
    assert place.proof() == []


def test_a_changed_object_halts_and_nothing_of_it_is_written(place):
    path = place.lines("1.json", range(100))
    assert place.run().code == 0
    path.write_text(json.dumps(row(7)) + "\n")
    end = place.run()
    assert end.code == 1
    assert "1.json" in end.error
    assert "is not the one that was listed" in end.error
    assert written(place).equals(truth(range(100)))


def test_a_truncated_object_halts_its_shard_only(place):
    whole = gzip.compress("".join(f"{json.dumps(row(n))}\n" for n in range(5000)).encode())
    place.lines("good.json", range(5000, 5100))
    (place.folder / "in" / "bad.json.gz").write_bytes(whole[: len(whole) // 2])
    end = place.run()
    assert end.code == 1
    assert "bad.json.gz cannot be read as" in end.error
    states = {shard["shard"]: shard["state"] for shard in place.result()["shards"]}
    assert sorted(states.values()) == ["ended", "halted"]
    assert set(truth(range(5000, 5100))["id"]) <= set(written(place)["id"])


def test_a_truncated_object_that_is_made_whole_is_read_under_another_namespace_only(place):
    whole = gzip.compress("".join(f"{json.dumps(row(n))}\n" for n in range(5000)).encode())
    place.lines("good.json", range(5000, 5100))
    bad = place.folder / "in" / "bad.json.gz"
    bad.write_bytes(whole[: len(whole) // 2])
    assert place.run().code == 1
    bad.write_bytes(whole)
    assert "is not the one that was listed" in place.run().error
    assert place.run(pipeline=in_namespace(place.pipeline(), "again")).code == 0
    assert written(place, "lake-again").equals(truth(range(5100)))


def test_the_output_of_the_pipeline_must_not_be_inside_its_source(place):
    place.lines("1.json", range(10))
    end = place.run(lake="in/lake")
    assert end.code == 2
    assert "is under source.s3.url" in end.error


def test_objects_are_selected_by_the_time_in_their_keys_and_overlapping_ranges_read_none_twice(place):
    for day in (1, 2, 3):
        place.lines(f"2026/01/0{day}/x.json", range(day * 100, day * 100 + 50))
    day = {number: datetime(2026, 1, number, tzinfo=UTC) for number in (1, 2, 3, 4)}
    s3 = ', time: "%Y/%m/%d"'
    assert place.run(Reading(window=Window(day[1], day[3])), s3=s3).code == 0
    assert written(place).equals(truth([*range(100, 150), *range(200, 250)]))
    assert place.run(Reading(window=Window(day[2], day[4])), s3=s3).code == 0
    assert written(place).equals(truth([*range(100, 150), *range(200, 250), *range(300, 350)]))


def test_a_namespace_has_its_own_log_and_output(place):
    place.lines("1.json", range(60))
    assert place.run().code == 0
    apart = in_namespace(place.pipeline(), "try")
    assert place.run(pipeline=apart).code == 0
    assert written(place).equals(written(place, "lake-try"))
    assert place.proof() == []
    with pytest.raises(DefinitionError, match="1 to 40"):
        in_namespace(place.pipeline(), "../x")


def test_a_missing_required_object_stops_the_run_before_anything_is_read(place):
    place.lines("1.json", range(10))
    end = place.run(more='requires: ["file:./in/_SUCCESS"]')
    assert end.code == 1
    assert "_SUCCESS" in end.error
    assert not list((place.folder / "state").rglob("*.json"))
    (place.folder / "in" / "_SUCCESS").touch()
    assert place.run(more='requires: ["file:./in/_SUCCESS"]').code == 0


# --- dead letters ---------------------------------------------------------------------------------------------------------


BAD = {"value": "int64"}


def record_with_or_without_value(number):
    """A record; three in ten have no value, which the definition `BAD` does not admit."""
    return json.dumps(row(number) | ({"value": None} if number % 10 < 3 else {"value": number}))


def rows_of_a_run_with_the_right_definition(place):
    assert place.run(lake="right", state="right-state").code == 0
    return place.rows("right")


def test_after_a_redrive_nothing_remains_of_a_bad_deploy(place):
    place.lines("1.json", range(1500), render=record_with_or_without_value)
    place.lines("2.json", range(1500, 2000), render=record_with_or_without_value)
    assert place.run(**BAD).code == 0
    assert place.result()["outcomes"] == {"dead_lettered": 600, "written": 1400}
    (number, records), end = place.redrive()
    assert (number, records, end.code) == (1, 600, 0)
    assert place.result()["outcomes"] == {"written": 600}
    assert place.rows().equals(rows_of_a_run_with_the_right_definition(place))
    assert place.table()[STATE].unique().to_list() == [CLAIMED]
    assert place.proof() == []


def test_the_breaker_stops_a_bad_deploy_within_one_unit_and_the_right_definition_continues(place):
    place.lines("1.json", range(1500), render=record_with_or_without_value)
    end = place.run(max_ratio=0.2, min_records=100, rows=200, **BAD)
    assert end.code == 1
    assert "would become dead letters" in end.error
    assert place.result()["records"] == 0
    assert not list((place.folder / "lake").rglob("*.parquet"))
    assert place.run(max_ratio=0.2, min_records=100, rows=200).code == 0
    assert place.rows(lineage=False).height == 1500
    assert place.proof() == []


def test_concurrent_redrives_read_each_record_once(place):
    place.lines("1.json", range(1000), render=record_with_or_without_value)
    assert place.run(**BAD).code == 0
    letters = place.letters()
    with ThreadPoolExecutor(6) as pool:
        claims = list(pool.map(lambda n: asyncio.run(letters.redrive(None, 90, f"worker-{n}")), range(6)))
    assert sorted(claim[1] for claim in claims if claim) == [30, 90, 90, 90]
    assert place.run(Reading(letters=True)).code == 0
    claimed, end = place.redrive()
    assert (claimed, end.code) == (None, 0)
    assert place.rows().equals(rows_of_a_run_with_the_right_definition(place))
    assert place.proof() == []


def test_a_condition_selects_what_is_redriven_and_the_rest_waits(place):
    place.lines("1.json", range(300), render=lambda n: "{" if n % 50 == 0 else record_with_or_without_value(n))
    assert place.run(**BAD).code == 0
    claimed, _ = place.redrive("stage = 'decode' AND reason <> 'json_syntax'")
    assert claimed == (1, 84)
    left = place.table().filter(pl.col(STATE) == WAITING)
    assert left["reason"].unique().to_list() == ["json_syntax"]
    assert left["_data"].to_list() == [b"{"] * 6


def test_a_condition_may_refer_to_the_payload(place):
    place.lines("1.json", range(100), render=record_with_or_without_value)
    assert place.run(**BAD).code == 0
    reported = CliRunner().invoke(app, ["dlq", "redrive", str(place.file()), "--dry-run", "--where", "_data IS NOT NULL"])
    assert "30 dead letters would be redriven" in reported.output
    assert place.redrive("_data IS NULL")[0] is None
    assert place.redrive("_data IS NOT NULL")[0] == (1, 30)


def test_a_program_gets_all_dead_letters_and_a_person_the_first_fifty(place):
    place.lines("1.json", range(600), render=record_with_or_without_value)
    assert place.run(**BAD).code == 0
    listed = json.loads(CliRunner().invoke(app, ["dlq", "ls", str(place.file()), "--json"]).stdout)
    assert len(listed) == 180
    assert {datetime.fromisoformat(each["_arrival"]).isoformat() == each["_arrival"] for each in listed} == {True}
    assert len(json.loads(CliRunner().invoke(app, ["dlq", "ls", str(place.file()), "--json", "--limit", "7"]).stdout)) == 7
    assert "130 more; see --limit and --where" in CliRunner().invoke(app, ["dlq", "ls", str(place.file())]).stdout


def test_a_record_that_is_rejected_again_is_redriven_until_its_attempts_are_used_up(place):
    budget = {"rejects": ", redrive: {attempts: 3}"}
    place.lines("1.json", range(100), render=record_with_or_without_value)
    assert place.run(**BAD, **budget).code == 0
    attempts = []
    while (claim := place.redrive(**BAD, **budget)[0]) is not None:
        attempts.append(claim[1])
    assert attempts == [30, 30]
    table = place.table(**budget)
    assert table.group_by("_attempt", STATE).len().sort("_attempt").rows() == [(1, CLAIMED, 30), (2, CLAIMED, 30), (3, EXHAUSTED, 30)]
    assert (
        table.filter(pl.col("_attempt") == 3)
        .select("_shard", "_sequence")
        .equals(table.filter(pl.col("_attempt") == 1).select("_shard", "_sequence"))
    )
    assert place.proof() == []


def test_limits_of_a_stage_take_precedence_over_general_limits(place):
    place.lines("1.json", range(100), render=record_with_or_without_value)
    assert place.run(**BAD).code == 0
    assert place.redrive(rejects=", redrive: {stages: {decode: {attempts: 1}}}")[0] is None
    assert place.redrive(rejects=", redrive: {age: 1ms}")[0] is None
    assert place.redrive(rejects=", redrive: {attempts: 1, stages: {decode: {attempts: 2}}}")[0] == (1, 30)


def test_an_invalid_condition_is_refused(place):
    place.lines("1.json", range(10), render=record_with_or_without_value)
    assert place.run(**BAD).code == 0
    for where in ("reson = 'x'", "stage", "stage = ", "length(stage) over ()"):
        with pytest.raises(DefinitionError, match="--where"):
            place.redrive(where)


def test_a_trace_follows_a_record_through_its_attempts(place):
    place.lines("1.json", range(50), render=record_with_or_without_value)
    assert place.run(**BAD).code == 0
    place.redrive(**BAD)
    place.redrive()
    first = place.table().filter(pl.col("_attempt") == 1).row(7, named=True)
    pipeline = place.pipeline()
    log = CommitLog(Stores.open(pipeline, place.folder, session_of(pipeline)).state, "replay", SystemClock(), "test")
    found = asyncio.run(_found(pipeline, place.folder, log, RecordQuery(int(first["_sequence"]), None, first["_shard"])))
    fates = [fate for _, fate in found]
    assert [(fate.stream, fate.outcome, fate.attempts_before) for fate in fates] == [
        ("archive", "dead_lettered", 0),
        ("dlq.archive", "dead_lettered", 1),
        ("dlq.archive", "written", 2),
    ]
    assert {fate.first_read for fate in fates[1:]} == {f"{first['_shard']}:{first['_sequence']}:0"}


@pytest.mark.parametrize("form", ["lines", "copy"])
def test_a_manifest_selects_the_objects_and_each_of_them_must_exist(place, form):
    for number in range(3):
        place.lines(f"{number}.json", range(number * 10, number * 10 + 10))
    urls = ["file:./in/0.json", "file:./in/2.json"]
    text = "\n".join(urls) if form == "lines" else json.dumps({"entries": [{"url": url, "mandatory": True} for url in urls]})
    (place.folder / "list").write_text(text)
    s3 = ', manifest: "file:./list"'
    assert place.run(s3=s3).code == 0
    assert written(place).equals(truth([*range(10), *range(20, 30)]))
    (place.folder / "list").write_text(text.replace("2.json", "9.json"))
    end = place.run(s3=s3)
    assert end.code == 2
    assert "9.json" in end.error
    (place.folder / "list").unlink()
    assert place.run(s3=s3).code == 2


def test_the_backfill_command_reads_nothing_the_second_time(place):
    place.lines("1.json", range(30))
    file, result = place.file(), place.folder / "said.json"
    arguments = ["backfill", str(file), "--from", "2020-01-01", "--to", "2100-01-01", "--namespace", "try", "--result", str(result)]
    for records in (30, 0):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert json.loads(result.read_text())["records"] == records
    assert written(place, "lake-try").equals(truth(range(30)))
    assert CliRunner().invoke(app, ["backfill", str(file), "--from", "2026-02-01", "--to", "2026-01-01"]).exit_code == 2
    assert CliRunner().invoke(app, ["backfill", str(file), "--from", "soon", "--to", "2026-01-01"]).exit_code == 2


def test_previewing_objects_claims_none_of_them(place):
    place.lines("1.json.gz", range(30), pack=gzip.compress)
    done = CliRunner().invoke(app, ["preview", str(place.file()), "--records", "5"])
    assert done.exit_code == 0, done.output
    assert "5 records of archive" in done.output
    assert not (place.folder / "state").exists()
    done = CliRunner().invoke(app, ["explain", str(place.file())])
    assert done.exit_code == 0, done.output
    assert "archive (ndjson) below file:./in" in done.output
    assert "kinesis" not in done.output.lower()
