from __future__ import annotations

import json

import jsonschema
import pytest

from stream.pipeline.checks.lint import check
from stream.pipeline.components import DECODERS, SINKS, STAGES
from stream.pipeline.digest import canonical_text
from stream.pipeline.load import load
from stream.pipeline.model import Pipeline
from stream.pipeline.schema import SHORT, installed_stages, json_schema
from tests.unit.pipeline.checks.test_lint import CORPUS
from tests.unit.pipeline.definitions import DESIGNED, EXAMPLES, least

SCHEMA = json_schema()
WHOLE = jsonschema.Draft7Validator(SCHEMA)
SHAPES = {
    "compression_codec", "compression_option", "coordination", "decoder_option", "decoder_unknown", "dedupe_across_units",
    "duration_without_unit", "mask_method", "missing_keys", "number_as_name", "port_out_of_range",
    "rows_a_boolean", "rows_not_a_number", "sink_format", "sink_unknown", "stage_two_names", "stage_unknown", "start_word",
    "unknown_key_nested", "unknown_key_top", "unknown_keys_everywhere", "validate_unknown_rule",
}  # fmt: skip
"""Wrong files whose shape alone shows it."""


def part(name):
    return jsonschema.Draft7Validator({"definitions": SCHEMA["definitions"], "$ref": f"#/definitions/{name}"})


def errors(validator, value):
    return [error.message for error in validator.iter_errors(json.loads(json.dumps(value)))]


def data(text):
    return load(text.encode(), "p.yaml", {}).data


def test_the_schema_is_valid_json_schema():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    dangling = {ref for ref in _refs(SCHEMA) if ref.removeprefix("#/definitions/") not in SCHEMA["definitions"]}
    assert dangling == set()
    assert "x-is" not in json.dumps(SCHEMA)


def _refs(value):
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
        for each in value.values():
            yield from _refs(each)
    elif isinstance(value, list):
        for each in value:
            yield from _refs(each)


@pytest.mark.parametrize("text", [DESIGNED, (EXAMPLES / "flights" / "pipeline.yaml").read_text()], ids=["designed", "flights"])
def test_valid_files_satisfy_the_schema(text):
    raw = load(text.replace("${", "$${").encode(), "p.yaml", {}).data
    assert errors(WHOLE, raw) == []


def test_a_canonical_definition_satisfies_the_schema():
    pipeline = check(EXAMPLES / "flights" / "pipeline.yaml", {"MASK_KEY": "k"}).pipeline
    assert errors(WHOLE, data(canonical_text(pipeline))) == []


@pytest.mark.parametrize("name", STAGES)
def test_the_example_of_each_stage_satisfies_the_schema_in_every_form(name):
    stage = STAGES[name].model_validate(STAGES[name].example.config)
    assert errors(part("stage"), {name: STAGES[name].example.config}) == []
    assert errors(part("stage"), {name: stage.model_dump(mode="json", by_alias=True)}) == []
    assert errors(part("stage"), {name: {"no_such_option": 1, "nor_this": [2]}}) != []


@pytest.mark.parametrize("name", DECODERS)
def test_the_example_of_each_decoder_satisfies_the_schema(name):
    assert errors(part("decoder"), {name: DECODERS[name].example.config}) == []
    assert errors(part("decoder"), name) == []
    assert errors(part("decoder"), {name: {"no_such_option": 1}}) != []


@pytest.mark.parametrize(
    "stage",
    [
        {"dedupe": ["carrier"]},
        {"lookup": {"table": "t.csv", "on": ["a", "b"], "take": ["c"], "missing": None}},
        {"mask": {"columns": "a", "keep_last": 4}},
        {"mask": {"columns": ["a"], "method": "keyed_hash", "key": {"secrets_manager": "prod/mask#key"}}},
        {"mask": {"columns": ["a"], "method": "${METHOD}"}},
        {"parse": {"column": "u", "url": True}},
        {"select": {"drop": ["a"]}},
    ],
)
def test_every_form_the_loader_accepts_satisfies_the_schema(stage):
    Pipeline.model_validate(least(stages=[json.loads(json.dumps(stage).replace("${METHOD}", "redact"))]))
    assert errors(part("stage"), stage) == []


def test_a_secret_must_be_a_reference():
    assert errors(part("secret"), "the secret itself") != []


@pytest.mark.parametrize("path", [path for path in CORPUS if path.stem in SHAPES], ids=lambda path: path.stem)
def test_invalid_files_do_not_satisfy_the_schema(path):
    raw = data(path.read_text())
    assert raw is None or errors(WHOLE, raw) != []


def test_every_name_is_offered_with_a_description():
    for kind, known in (("stage", STAGES), ("sink", SINKS)):
        offered = {
            name: value["description"] for form in SCHEMA["definitions"][kind]["anyOf"] for name, value in form["properties"].items()
        }
        assert list(offered) == list(known)
        assert all(offered.values())
    assert set(SHORT) <= set(STAGES)


def test_installed_stages_include_the_built_in_ones():
    assert set(STAGES) <= set(installed_stages())


def test_a_source_is_either_a_stream_or_objects():
    objects, stream = {"s3": {"url": "s3://bucket/in/"}}, {"kinesis": {"stream": "flights"}}
    assert errors(part("Source"), objects) == []
    assert errors(part("Source"), stream) == []
    assert errors(part("Source"), objects | stream)
    assert errors(part("Source"), {"decode": "json"})


@pytest.mark.parametrize("declared", ["tailnum", ["tailnum"], {"columns": ["tailnum"], "safe": ["n"], "allowed_in": ["s3"]}])
def test_each_form_of_declaring_sensitive_columns_is_accepted(declared):
    assert errors(WHOLE, least(sensitive=declared)) == []
    assert errors(WHOLE, least(sensitive={"column": "tailnum"})) != []
