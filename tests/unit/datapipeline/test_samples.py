"""Definitions of every kind of object, and what each becomes, exactly; see ``golden.py``."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from stream.datapipeline.object_types import OBJECT_TYPES
from stream.datapipeline.report import REPORT, document
from stream.datapipeline.translate import Imported
from stream.pipeline.checks.lint import check_content
from tests.unit.datapipeline.golden import EXPECTED, HERE, SAMPLES, files, imported

ROOT = HERE.parents[2]
CHART = json.loads((ROOT / "deploy" / "eks" / "chart" / "values.schema.json").read_text())
VARIABLE = re.compile(r"\$\{([A-Z_0-9]+)\}")

every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)


def written_fields(sample):
    """Every field of every object, read from the file by a JSON parser alone."""
    document = json.loads(sample.read_text())
    found = []
    for each in document.get("objects", ()):
        found += [(each["id"], name) for name in each]
    for each in document.get("pipelineObjects", ()):
        found += [(each["id"], name) for name in dict.fromkeys(["id", "name", *(field["key"] for field in each["fields"])])]
    return found


def expected(sample):
    folder = EXPECTED / sample.stem
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@every_sample
def test_each_sample_becomes_the_expected_files(sample):
    assert files(sample) == expected(sample)


@every_sample
def test_every_field_of_every_object_is_in_the_report(sample):
    done = imported(sample)
    rows = [(each.object, each.field) for each in done.rows if each.type != "parameter"]
    assert rows == written_fields(sample)
    assert all(each.text.strip() for each in done.rows)
    page = files(sample)[REPORT]
    for row in done.rows:
        section = page.partition(f"### `{row.object}` ({row.type})\n\n| field")[2].partition("\n### ")[0]
        assert f"| `{row.field}` | {row.fate} | " in section


@every_sample
def test_every_imported_pipeline_is_valid(sample):
    for name, text in imported(sample).files.items():
        if name.endswith("pipeline.yaml"):
            env = dict.fromkeys(VARIABLE.findall(text), "2026-01-01")
            result = check_content(text.encode(), name, Path(), env)
            assert [each.render() for each in result.findings] == []
            assert result.pipeline is not None


@every_sample
def test_the_values_satisfy_the_schema_of_the_chart(sample):
    found = [yaml.safe_load(text) for name, text in imported(sample).files.items() if name.endswith("values.yaml")]
    for values in found:
        jsonschema.validate(values, CHART)
        assert values["schedule"]["cron"]


@every_sample
def test_no_secret_is_written(sample):
    done = imported(sample)
    reported = [*files(sample).values(), json.dumps(document(done))]
    assert [each for each in reported if "canary" in each] == []


def test_the_samples_contain_secrets_and_every_kind_of_object():
    text = "".join(each.read_text() for each in SAMPLES)
    assert text.count("canary") >= 12
    assert {each.type for sample in SAMPLES for each in imported(sample).rows} >= set(OBJECT_TYPES)


def test_the_json_report_agrees_with_the_page():
    done: Imported = imported(next(each for each in SAMPLES if each.stem == "nightly-chain"))
    found = json.loads(json.dumps(document(done)))
    assert sum(found["counts"].values()) == len(found["fields"]) == len(done.rows)
    assert [each["id"] for each in found["activities"] if each["pipeline"] is None] == ["Fetch", "Summarise"]
    assert {"first": "Fetch", "then": "Tidy", "why": "`Raw`, which the first one writes and the second one reads"} in found["chains"]
    assert set(found["files"]) == {*done.files, "report.md"}
