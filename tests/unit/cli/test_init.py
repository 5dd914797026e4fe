from __future__ import annotations

import json

import jsonschema
import pytest
from typer.testing import CliRunner

from stream.cli.init import templates
from stream.cli.main import app
from stream.pipeline.load import load


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"MASK_KEY": None})


@pytest.mark.parametrize("name", templates())
def test_each_template_is_valid_and_its_cases_pass(name, tmp_path):
    folder = tmp_path / "new" / name
    made = run("init", folder, "--template", name)
    assert made.exit_code == 0, made.output
    file = folder / "pipeline.yaml"
    checked = run("check", file, "--json")
    assert json.loads(checked.stdout)["ok"], checked.output
    assert {each["code"] for each in json.loads(checked.stdout)["files"][0]["findings"]} <= {"secret_unset"}
    tested = run("test", file)
    assert tested.exit_code == 0, tested.output
    schema = json.loads((folder / "pipeline.schema.json").read_text())
    assert file.read_text().startswith("# yaml-language-server: $schema=pipeline.schema.json\n")
    assert list(jsonschema.Draft7Validator(schema).iter_errors(load(file.read_bytes(), "p", {}).data)) == []
    assert run("explain", file).exit_code == 0


def test_the_templates_are_listed_with_their_purpose():
    listed = run("init", "--list").stdout
    assert {"kinesis-to-s3", "cloudwatch-logs-to-s3", "dynamodb-stream", "dms-cdc"} <= set(templates())
    assert all(f"{name} " in listed and about in listed and len(about) > 20 for name, about in templates().items())


def test_no_file_is_overwritten(tmp_path):
    (tmp_path / "pipeline.test.yaml").write_text("mine")
    made = run("init", tmp_path)
    assert made.exit_code == 2
    assert "pipeline.test.yaml exists already" in made.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.test.yaml"]


def test_an_unknown_template_is_refused_with_a_suggestion():
    made = run("init", "--template", "kinesis-to-s4")
    assert made.exit_code == 2
    assert "did you mean `kinesis-to-s3`?" in made.stderr
