from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from stream.cli.main import app

PIPELINE = """\
application: orders
source:
  kinesis: {stream: orders}
  schema: {id: int64, city: string}
stages:
  - derive: {big: id > 10}
sinks:
  - s3: {url: s3://lake/orders/, partition_by: big}
state: s3://lake/_stream/
"""
IMPURE = PIPELINE.replace("sinks:", "  - python: {function: 'tests.unit.simulation.impure:dice', adds: {x: float64}}\nsinks:")
RECORDS = "".join(f'{{"id": {number}, "city": "Oslo"}}\n' for number in range(1, 21))


def objects(options, sink, more=""):
    """A pipeline that reads objects of a format, and writes another."""
    source = f"s3: {{url: s3://lake/in/, {options}}}{more}"
    return PIPELINE.replace("kinesis: {stream: orders}", source).replace("partition_by: big", f"partition_by: big, {sink}")


@pytest.fixture
def run(tmp_path):
    for name, text in {
        "p.yaml": PIPELINE,
        "impure.yaml": IMPURE,
        "new.yaml": PIPELINE.replace("id > 10", "id > 5"),
        "other.yaml": PIPELINE.replace("application: orders", "application: others"),
        "objects.yaml": PIPELINE.replace("kinesis: {stream: orders}", "s3: {url: s3://lake/in/}"),
        "parquet.yaml": objects("format: parquet", sink="format: ndjson"),
        "avro.yaml": objects("format: avro", sink="format: csv"),
        "csv.yaml": objects("format: csv", sink="format: avro", more="\n  decode: csv"),
        "broken.yaml": PIPELINE.replace("derive", "drive"),
        "s.ndjson": RECORDS,
    }.items():
        (tmp_path / name).write_text(text)

    def invoke(*arguments):
        paths = [str(tmp_path / each) if each.endswith((".yaml", ".ndjson")) else each for each in arguments]
        return CliRunner().invoke(app, ["simulate", *paths])

    return invoke


def test_a_sound_pipeline_keeps_every_promise(run):
    done = run("p.yaml", "--sample", "s.ndjson", "--seeds", "5", "--with", "new.yaml")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("20 records of ")
    assert lines[1].startswith("every stage gives each record the same result")
    assert lines[2].startswith("5 schedules in ")
    assert lines[-1].startswith("every promise held: ")


def test_an_impure_stage_is_named_and_a_failing_schedule_is_printed_and_played_again(run):
    done = run("impure.yaml", "--sample", "s.ndjson", "--json")
    assert done.exit_code == 1, done.output
    document = json.loads(done.stdout)
    assert not document["holds"]
    assert [(each["stage"], each["column"]) for each in document["differences"]] == [("2:python", "x")]
    failed = document["failed"]
    assert failed["failures"][0]["promise"] == "rows"
    assert [each["stage"] for each in failed["differences"]] == ["2:python"]
    assert any("seals the unit" in line for line in failed["narration"])
    (seed,) = re.findall(r"--seed (\d+)$", failed["replay"])
    again = json.loads(run("impure.yaml", "--sample", "s.ndjson", "--json", "--seed", seed).stdout)
    assert again["failed"]["narration"] == failed["narration"]
    assert again["schedules"] == 1


@pytest.mark.parametrize("name", ["objects.yaml", "parquet.yaml", "avro.yaml", "csv.yaml"])
def test_a_pipeline_that_reads_objects_is_played_with_their_records_and_says_so(run, name):
    done = run(name, "--generate", "3", "--seeds", "3")
    assert done.exit_code == 0, done.output
    assert "played as records of a stream: how objects are claimed and read is not played" in done.stdout
    assert re.search(r"\b3 schedules in .* [1-9]\d* units", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["broken.yaml"], "drive"),
        (["p.yaml", "--with", "other.yaml"], "`application` is 'others' there and 'orders' here"),
        (["p.yaml", "--sample", "s.ndjson", "--generate", "1"], "omit --generate"),
    ],
)
def test_what_cannot_be_simulated_is_refused(run, arguments, says):
    done = run(*arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_no_schedule_is_begun_after_the_time_is_up(run):
    done = run("p.yaml", "--sample", "s.ndjson", "--seeds", "1000", "--seconds", "0", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["schedules"] == 1
