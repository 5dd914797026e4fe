from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from tests.unit.datapipeline.golden import SAMPLES, files

ORDERS = next(each for each in SAMPLES if each.stem == "orders-to-redshift")
COPY = {
    "objects": [
        {"id": "Copy", "type": "CopyActivity", "input": {"ref": "In"}, "output": {"ref": "Out"}},
        {"id": "In", "type": "S3DataNode", "directoryPath": "#{myIn}", "dataFormat": {"ref": "Form"}},
        {"id": "Form", "type": "CSV", "column": ["id INT"]},
        {"id": "Out", "type": "S3DataNode", "directoryPath": "s3://shop-out/b/"},
    ]
}


def run(*arguments):
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


@pytest.fixture
def definition(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**COPY, "values": {"myIn": "s3://shop-in/a/"}}))
    return path


def test_everything_is_written_under_one_directory(tmp_path):
    done = run(ORDERS, "--into", tmp_path / "new" / "er")
    assert done.exit_code == 1, done.stderr
    assert {str(path.relative_to(tmp_path / "new" / "er")) for path in tmp_path.rglob("*") if path.is_file()} == set(files(ORDERS))
    assert "fields: " in done.stdout
    assert f"next: read {tmp_path / 'new' / 'er' / 'report.md'}" in done.stdout


def test_with_nothing_to_do_it_exits_with_0_and_the_directory_has_the_name_of_the_file(definition):
    done = run(definition)
    assert (done.exit_code, done.stderr) == (0, "")
    assert (definition.parent / "old" / "copy" / "pipeline.yaml").is_file()
    assert run(definition.parent / "old.json", "--into", definition.parent / "again").exit_code == 0


def test_no_file_is_overwritten(definition):
    assert run(definition).exit_code == 0
    report = definition.parent / "old" / "report.md"
    report.write_text("mine")
    (definition.parent / "old" / "copy" / "pipeline.yaml").unlink()
    done = run(definition)
    assert done.exit_code == 2
    assert "exists already; choose another directory with --into" in done.stderr
    assert report.read_text() == "mine"
    assert not (definition.parent / "old" / "copy" / "pipeline.yaml").exists()


def test_a_directory_that_is_a_file_is_refused(definition):
    (definition.parent / "taken").write_text("")
    done = run(definition, "--into", definition.parent / "taken" / "x")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


def test_values_can_be_given_in_other_files(tmp_path):
    path, values = tmp_path / "old.json", tmp_path / "values.json"
    path.write_text(json.dumps(COPY))
    values.write_text(json.dumps({"values": {"myIn": "s3://shop-in/a/"}}))
    without = run(path)
    assert without.exit_code == 2
    assert "error: " in without.stderr
    assert "the parameter `myIn` has no value" in without.stderr
    assert run(path, "--values", values).exit_code == 0
    values.write_text("{")
    assert f"{values}:1:2: not JSON" in run(path, "--values", values, "--into", tmp_path / "x").stderr


def test_the_report_is_available_as_json(definition):
    done = run(definition, "--json")
    found = json.loads(done.stdout)
    assert found["counts"]["to do"] == 0
    assert found["files"] == ["copy/pipeline.yaml", "copy/values.yaml", "report.md"]


@pytest.mark.parametrize("state", ["shop", "s3://", "file:./state", "s3://${X}/"])
def test_an_invalid_place_for_the_state_is_refused(definition, state):
    done = run(definition, "--state", state)
    assert done.exit_code == 2
    assert f"--state is {state!r}; write s3://bucket/prefix/" in done.stderr


def test_a_file_that_is_not_a_definition_is_refused(tmp_path):
    path = tmp_path / "old.json"
    path.write_text("x")
    done = run(path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {path}:1:1: not JSON")
    assert list(tmp_path.iterdir()) == [path]


def test_an_activity_without_a_counterpart_is_reported(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"objects": [{"id": "Shell", "type": "ShellCommandActivity", "command": "true"}]}))
    done = run(path)
    assert done.exit_code == 1
    assert "no pipeline file for Shell: stream does not run shell commands" in done.stdout
