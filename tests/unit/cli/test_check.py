from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from stream.cli.check import check
from stream.pipeline.digest import read_canonical

GOOD = """\
application: ${NAME:-flights}
source:
  kinesis: {stream: flights}
  schema: {carrier: string}
sinks:
  - s3: {url: s3://lake/flights/}
state: s3://lake/_stream/
"""


@pytest.fixture
def run(tmp_path):
    app = typer.Typer()
    app.command()(check)
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD.replace("source", "sorce") + "x: 1\n")

    def invoke(*arguments, **env):
        paths = [str(tmp_path / each) if each.endswith(".yaml") else each for each in arguments]
        return CliRunner().invoke(app, paths, env=env)

    return invoke


def test_a_valid_file_is_summarised_in_one_line(run):
    result = run("good.yaml")
    assert result.exit_code == 0
    assert result.stdout.endswith("good.yaml: ok, flights: flights, 0 stages, 1 sink\n")


def test_an_invalid_file_gives_one_plain_line_per_finding(run):
    result = run("bad.yaml")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split("bad.yaml:")[1].split(" ")[0:2] for line in lines] == [
        ["1:1", "missing_key"],
        ["2:1", "unknown_key"],
        ["8:1", "unknown_key"],
    ]
    assert lines[1].endswith("there is no option `sorce` here - did you mean `source`?")
    assert "\x1b" not in result.stdout


def test_one_invalid_file_among_valid_ones_fails(run):
    assert run("good.yaml", "bad.yaml").exit_code == 1


def test_a_missing_file_is_a_usage_error(run):
    assert run("none.yaml").exit_code == 2
    assert run().exit_code == 2


def test_json_holds_every_finding(run):
    result = run("good.yaml", "bad.yaml", "--json", "--resolved")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert [each["ok"] for each in answer["files"]] == [True, False]
    assert read_canonical(answer["files"][0]["resolved"]).application == "flights"
    assert answer["files"][1]["resolved"] is None
    assert set(answer["files"][1]["findings"][0]) == {"file", "line", "column", "severity", "code", "message", "hint"}


def test_no_option_prints_a_secret(run, tmp_path):
    (tmp_path / "key").write_text("hidden-value")
    stages = "stages:\n  - mask: {columns: [carrier], method: keyed_hash, key: {env: STREAM_KEY}}\n"
    stages += "  - mask: {columns: [carrier], method: keyed_hash, key: {file: key}}\n"
    (tmp_path / "good.yaml").write_text(GOOD + stages)
    for options in ([], ["--json"], ["--resolved"], ["--json", "--resolved"]):
        result = run("good.yaml", *options, STREAM_KEY="hidden-value")
        assert result.exit_code == 0
        assert "hidden-value" not in result.output
    assert "env:STREAM_KEY" in result.stdout


def test_resolved_prints_a_pipeline_that_can_be_piped_on(run):
    result = run("good.yaml", "--resolved", NAME="other")
    assert result.exit_code == 0
    assert read_canonical(result.stdout).application == "other"
    assert "ok" in result.stderr
