from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import DefinitionError
from stream.pipeline.checks.lint import check_content
from stream.pipeline.components import STAGES
from stream.pipeline.digest import canonical_text, pipeline_digest, read_canonical
from stream.pipeline.model import Pipeline
from tests.unit.pipeline.definitions import EXAMPLES, least

WRITTEN = """\
application: flights
source:
  kinesis: {stream: flights}
  schema: {carrier: string, delay: int64?}
stages:
  - filter: delay > 5
  - derive: {late: delay > 15, later: delay > 60}
sinks:
  - s3: {url: s3://lake/flights/}
state: s3://lake/_stream/
"""
REWRITTEN = """\
# the same, otherwise written
state: "s3://lake/_stream/"
metrics: {port: 9999}
sinks: [{files: {name: s3, "url": "s3://lake/flights/"}}]
stages:
- filter:  {where: "${OP:-delay > 5}"}
- derive:
    columns:
      late: "delay > 15"   # a quarter
      later: >-
        delay > 60
source:
  unknown: ignore
  schema:
    carrier: string
    delay: 'int64?'
  decode: {json: {}}
  kinesis: {start: latest, stream: flights, region: eu-west-1}
flush: {rows: 5, age: 5m}
memory: {budget: 1GiB}
application: flights
"""


def pipeline(text, tmp_path):
    result = check_content(text.encode(), "p.yaml", tmp_path, {})
    assert result.pipeline is not None, [each.render() for each in result.findings]
    return result.pipeline


def digest(definition, tables=None, build="1"):
    return pipeline_digest(definition, tables or {}, build)


def test_formatting_and_operational_settings_do_not_change_the_digest(tmp_path):
    text = REWRITTEN.replace("{where:", "{" + next(iter(STAGES["filter"].model_fields)) + ":")
    first, second = pipeline(WRITTEN, tmp_path), pipeline(text, tmp_path)
    assert digest(first) == digest(second)
    assert len(digest(first)) == 32
    assert int(digest(first), 16) >= 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("delay > 5", "delay > 6"),
        ("delay > 5\n  - derive: {late: delay > 15, later: delay > 60}", "delay > 5"),
        ("{late: delay > 15, later: delay > 60}", "{later: delay > 60, late: delay > 15}"),
        ("carrier: string, delay: int64?", "delay: int64?, carrier: string"),
        ("int64?", "int32?"),
        ("stream: flights", "stream: other"),
        ("lake/flights", "lake/other"),
        ("application: flights", "application: other"),
        ("schema:", "unknown: capture\n  schema:"),
        ("stream: flights", "stream: flights, kpl_out_of_range: keep"),
        ("flights/}", "flights/, format: ndjson}"),
    ],
)
def test_anything_that_changes_rows_changes_the_digest(old, new, tmp_path):
    assert digest(pipeline(WRITTEN, tmp_path)) != digest(pipeline(WRITTEN.replace(old, new), tmp_path))


@pytest.mark.parametrize(
    ("sink", "known"),
    [
        ("url: s3://lake/flights/", "4530b7b2a3472dc9041bb49a057fcdc4"),
        ("url: s3://lake/flights/, format: ndjson, compression: zstd", "a5468f60bd807dd640724846d9e16dc5"),
    ],
)
def test_definitions_of_builds_without_newer_options_have_the_digest_that_those_gave_them(sink, known, tmp_path):
    """A manifest names the digest; a unit that an older build began is finished by the definition of that digest."""
    assert digest(pipeline(WRITTEN.replace("url: s3://lake/flights/", sink), tmp_path)) == known


@pytest.mark.parametrize("options", ["format: csv", "format: csv, csv: {delimiter: ';'}", "format: avro", "format: arrow"])
def test_every_format_survives_being_recorded_and_counts(options, tmp_path):
    definition = pipeline(WRITTEN.replace("url: s3://lake/flights/", f"url: s3://lake/flights/, {options}"), tmp_path)
    assert read_canonical(canonical_text(definition)) == definition
    assert digest(definition) != digest(pipeline(WRITTEN, tmp_path))


def test_the_order_of_stages_changes_the_digest(tmp_path):
    swapped = WRITTEN.replace("  - filter: delay > 5\n", "").replace("delay > 60}\n", "delay > 60}\n  - filter: delay > 5\n")
    assert digest(pipeline(WRITTEN, tmp_path)) != digest(pipeline(swapped, tmp_path))


def test_tables_and_build_change_the_digest(tmp_path):
    definition = pipeline(WRITTEN, tmp_path)
    digests = {digest(definition, *case) for case in [({}, "1"), ({}, "2"), ({"t": "00"}, "1"), ({"t": "01"}, "1"), ({"u": "00"}, "1")]}
    assert len(digests) == 5
    assert digest(definition, {"a": "1", "b": "2"}) == digest(definition, {"b": "2", "a": "1"})


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_stage_reads_back_from_the_recorded_definition(name):
    definition = Pipeline.model_validate(least(stages=[{name: STAGES[name].example.config}]))
    assert read_canonical(canonical_text(definition)) == definition


def test_the_example_reads_back_from_the_recorded_definition(tmp_path):
    definition = pipeline((EXAMPLES / "flights" / "pipeline.yaml").read_text(), tmp_path)
    recorded = canonical_text(definition)
    assert read_canonical(recorded) == definition
    assert canonical_text(read_canonical(recorded)) == recorded
    assert digest(read_canonical(recorded)) == digest(definition)


AWKWARD = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text("$\u200b{}:-#'\"\\ \n\t\r%@!&*?|>[],\x85\u2028ab01.eE~", min_size=1),
    st.sampled_from(
        [
            "on",
            "no",
            "1e5",
            "0o17",
            "0x1",
            "null",
            "~",
            "true",
            "010",
            "1_0",
            "2026-01-01",
            "<<",
            "=",
            "${A}",
            "$${A}",
            "- a",
            "a: b",
        ]
    ),
)


@given(AWKWARD, AWKWARD)
@settings(max_examples=150)
def test_any_text_reads_back_from_the_recorded_definition(name, expression):
    if "${" in name:
        name = name.replace("${", "$")
    definition = Pipeline.model_validate(least(stages=[{"derive": {name: expression}}], metrics={"host": expression}))
    recorded = canonical_text(definition)
    assert read_canonical(recorded) == definition
    assert canonical_text(read_canonical(recorded)) == recorded


def test_text_that_is_not_a_recorded_definition_is_refused():
    with pytest.raises(DefinitionError, match="mapping of keys"):
        read_canonical("- a")
    with pytest.raises(DefinitionError, match="not one that this version understands"):
        read_canonical("application: x")


def test_no_secret_is_recorded(tmp_path):
    text = WRITTEN.replace("  - filter", "  - mask: {columns: [carrier], method: keyed_hash, key: {env: MASK_KEY}}\n  - filter")
    result = check_content(text.encode(), "p.yaml", tmp_path, {"MASK_KEY": "hunter2"})
    assert result.findings == ()
    assert "hunter2" not in canonical_text(result.pipeline) + repr(result)
    assert "MASK_KEY" in canonical_text(result.pipeline)
