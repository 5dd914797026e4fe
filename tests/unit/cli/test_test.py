from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from stream.cli.test import run_cases
from tests.unit.pipeline.definitions import EXAMPLES

PIPELINE = """\
application: flights
source:
  kinesis: {stream: flights}
  schema: {carrier: string}
sinks:
  - s3: {url: s3://lake/flights/}
state: s3://lake/_stream/
"""
GOOD = "{name: good, given: [{json: {carrier: UA}}], expect: {rows: [{carrier: UA}]}}"
BAD = "{name: bad, given: [{json: {carrier: UA}}], expect: {rows: [{carrier: AA}]}}"


@pytest.fixture
def run(tmp_path):
    app = typer.Typer()
    app.command()(run_cases)
    (tmp_path / "p.yaml").write_text(PIPELINE)

    def invoke(cases, *options, pipeline="p.yaml"):
        if cases is not None:
            (tmp_path / "p.test.yaml").write_text(f"cases:\n  - {cases}\n")
        return CliRunner().invoke(app, [str(tmp_path / pipeline), *options])

    return invoke


def test_cases_that_pass_exit_with_0(run):
    result = run(GOOD)
    assert result.exit_code == 0
    assert result.stdout == "ok   good\n1 case, 0 failed\n"


def test_a_failing_case_is_explained_and_exits_with_1(run):
    result = run(f"{GOOD}\n  - {BAD}")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "ok   good",
        "FAIL bad",
        '     row 1: column \'carrier\': expected "AA", got "UA"',
        "2 cases, 1 failed",
    ]


def test_cases_can_be_selected_by_name(run):
    assert run(f"{GOOD}\n  - {BAD}", "--only", "goo").exit_code == 0
    assert run(GOOD, "--only", "none").exit_code == 2


def test_golden_files_are_written_on_request(run, tmp_path):
    golden = "{name: g, given: [{json: {carrier: UA}}], expect: {golden: golden/g.ndjson}}"
    assert run(golden).exit_code == 1
    assert run(golden, "--update").exit_code == 0
    assert (tmp_path / "golden" / "g.ndjson").read_text() == '{"row": {"carrier": "UA"}}\n'
    assert run(golden).exit_code == 0


def test_cases_that_cannot_be_run_exit_with_2(run, tmp_path):
    assert "unreadable" in run(None).stderr
    assert run(None).exit_code == 2
    assert run("{name: x}").exit_code == 2
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("source", "sorce"))
    result = run(GOOD)
    assert result.exit_code == 2
    assert "did you mean `source`?" in result.stderr


def test_a_missing_secret_is_an_error_and_the_cases_can_provide_it(run, tmp_path):
    stages = "stages:\n  - mask: {columns: [carrier], method: keyed_hash, key: {env: STREAM_TEST_KEY}}\n"
    (tmp_path / "p.yaml").write_text(PIPELINE + stages)
    case = "{name: c, given: [{json: {carrier: UA}}], expect: {outcomes: {written: 1}}}"
    result = run(case)
    assert result.exit_code == 2
    assert "STREAM_TEST_KEY" in result.stderr
    assert run(f"{case}\nenv: {{STREAM_TEST_KEY: k}}").exit_code == 0


def test_the_cases_can_provide_a_secret_kept_elsewhere(run, tmp_path):
    stages = "stages:\n  - mask: {columns: [carrier], method: keyed_hash, key: {secrets_manager: prod/mask}}\n"
    (tmp_path / "p.yaml").write_text(PIPELINE + stages)
    case = "{name: c, given: [{json: {carrier: UA}}], expect: {outcomes: {written: 1}}}"
    result = run(case)
    assert result.exit_code == 2
    assert "the cases give no value for the secret 'prod/mask'" in result.stderr
    assert run(f"{case}\nsecrets: {{prod/mask: k}}").exit_code == 0


def test_cases_can_be_in_another_file(run, tmp_path):
    (tmp_path / "other.yaml").write_text(f"cases: [{GOOD}]")
    assert run(None, "--cases", str(tmp_path / "other.yaml")).exit_code == 0


def test_a_file_can_replace_a_database(run, tmp_path):
    stage = '{enrich: {table: "postgresql://h/db", query: SELECT 1, on: carrier, take: [name]}}'
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("sinks:", f"stages: [{stage}]\nsinks:"))
    (tmp_path / "airlines.csv").write_text("carrier,name\nUA,United\n")
    tables = 'tables: {"postgresql://h/db#SELECT 1": airlines.csv}'
    (tmp_path / "p.test.yaml").write_text(f"{tables}\ncases: [{GOOD.replace('{carrier: UA}]}}', '{carrier: UA, name: United}]}}')}]")
    result = run(None)
    assert (result.exit_code, result.stdout) == (0, "ok   good\n1 case, 0 failed\n"), result.output


def test_the_pipeline_is_found_from_its_file_of_cases(run):
    result = run(GOOD, pipeline="p.test.yaml")
    assert result.exit_code == 0
    assert result.stdout == "ok   good\n1 case, 0 failed\n"


def test_the_cases_of_the_example_pass():
    app = typer.Typer()
    app.command()(run_cases)
    result = CliRunner().invoke(app, [str(EXAMPLES / "flights" / "pipeline.yaml")])
    assert result.exit_code == 0, result.stdout
