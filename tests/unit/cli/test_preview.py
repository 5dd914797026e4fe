from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from stream.cli.main import app

PIPELINE = """\
application: flights
source:
  kinesis: {stream: flights}
  schema: {carrier: string, delay: int64?}
stages:
  - filter: delay > 10
  - derive: {late: delay > 25}
  - mask: {columns: [carrier], method: keyed_hash, key: {env: STREAM_TEST_KEY}, length: 8}
sinks:
  - s3: {url: s3://lake/flights/, partition_by: [late]}
state: s3://lake/_stream/
"""
RECORDS = b'{"carrier": "UA", "delay": 20}\n{\n{"carrier": "AA", "delay": 1}\n'


@pytest.fixture
def run(tmp_path):
    (tmp_path / "p.yaml").write_text(PIPELINE)
    (tmp_path / "new.yaml").write_text(PIPELINE.replace("delay > 25", "delay > 15"))
    (tmp_path / "s.ndjson").write_bytes(RECORDS)

    def invoke(verb, *arguments, **env):
        paths = [str(tmp_path / each) if each.endswith((".yaml", ".ndjson")) else each for each in arguments]
        return CliRunner().invoke(app, [verb, *paths], env={"STREAM_TEST_KEY": "hidden-value", **env})

    return invoke


def test_a_sample_is_shown_step_by_step(run):
    result = run("preview", "p.yaml", "--sample", "s.ndjson")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[1:] == [
        "decode  3 rows in, 2 out, 1 dead_lettered",
        "  1 x json_syntax",
        "    such as record 2: {",
        '  record 1: {"carrier": "UA", "delay": 20} -> carrier="UA", delay=20',
        "  record 2: dead_lettered, json_syntax",
        '  record 3: {"carrier": "AA", "delay": 1} -> carrier="AA", delay=1',
        "1:filter  2 rows in, 1 out, 1 filtered",
        "  record 1: as before",
        "  record 3: filtered",
        "2:derive  1 rows in, 1 out",
        "  record 1: + late=false",
        "3:mask  1 rows in, 1 out",
        '  record 1: carrier="UA" -> "76e2e4d2"',
        "sink s3",
        "  late=false  1 row",
        lines[-1],
    ]
    assert lines[-1].startswith("nothing was written; the files would have ")
    assert "hidden-value" not in result.output


def test_json_has_the_rows(run):
    document = json.loads(run("preview", "p.yaml", "--sample", "s.ndjson", "--json").stdout)
    assert document["stages"][2]["passed"][0]["after"] == {"carrier": "UA", "delay": 20, "late": False}
    assert document["partitions"] == {"s3": {"late=false": 1}}


def test_records_can_be_generated_from_the_schema(run):
    result = run("preview", "p.yaml", "--generate", "3", "--records", "40")
    assert result.exit_code == 0
    assert result.stdout.startswith("40 records made up from the schema, seed 3\n")


@pytest.mark.parametrize("more", [["--generate", "1"], ["--since", "5m"]])
def test_records_from_two_places_are_refused(run, more):
    result = run("preview", "p.yaml", "--sample", "s.ndjson", *more)
    assert result.exit_code == 2
    assert "--sample already names the records" in result.stderr


def test_a_missing_secret_is_named(run):
    result = run("preview", "p.yaml", "--sample", "s.ndjson", STREAM_TEST_KEY=None)
    assert result.exit_code == 2
    assert "error: the secret env:STREAM_TEST_KEY is not set" in result.stderr


def test_a_difference_is_shown_by_column_and_key(run):
    result = run("diff", "p.yaml", "new.yaml", "--sample", "s.ndjson", "--key", "delay")
    assert result.exit_code == 1, result.stderr
    lines = result.stdout.splitlines()
    assert lines[1:-1] == ["column late: 1 of 1 rows differ", "  record 1 (delay=20): false -> true"]
    assert lines[-1].startswith("speed of decoder and stages")


def test_equal_pipelines_have_no_difference(run):
    result = run("diff", "p.yaml", "p.yaml", "--sample", "s.ndjson")
    assert result.exit_code == 0
    assert "no difference: the same 1 rows, the same outcomes and reasons" in result.stdout


def test_a_file_whose_rollout_would_write_everything_again_is_no_match_whatever_the_rows(run, tmp_path):
    (tmp_path / "renamed.yaml").write_text(PIPELINE.replace("application: ", "application: another-", 1))
    result = run("diff", "p.yaml", "renamed.yaml", "--sample", "s.ndjson")
    assert result.exit_code == 1, result.stderr
    assert result.stdout.startswith("! application: ")
    assert "where records would be twice" in result.stdout
    assert "no difference: the same 1 rows" in result.stdout


def test_a_difference_is_available_as_json(run):
    result = run("diff", "p.yaml", "new.yaml", "--sample", "s.ndjson", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["same"] is False
    assert document["columns"][0]["examples"] == [{"record": 1, "key": [], "before": False, "after": True}]


def test_pipelines_that_cannot_be_compared_exit_with_2(run):
    assert run("diff", "p.yaml", "new.yaml", "--sample", "s.ndjson", "--key", "none").exit_code == 2
    assert run("diff", "p.yaml", "none.yaml").exit_code == 2
    assert run("diff", "p.yaml", "new.yaml", "--generate", "1", "--since", "x").exit_code == 2


SENSITIVE = (
    PIPELINE.replace("{late: delay > 25}", "{late: delay > 25, code: LOWER(carrier)}")
    + "sensitive: {columns: [carrier], allowed_in: [s3]}\n"
)


def test_sensitive_values_are_hidden_until_they_are_masked(run, tmp_path):
    (tmp_path / "p.yaml").write_text(SENSITIVE)
    result = run("preview", "p.yaml", "--sample", "s.ndjson")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert '  record 1: (hidden) -> carrier="(hidden)", delay=20' in lines
    assert '  record 1: + late=false; + code="(hidden)"' in lines
    assert '  record 1: carrier="(hidden)" -> "76e2e4d2"' in lines
    as_json = run("preview", "p.yaml", "--sample", "s.ndjson", "--json").stdout
    for text in (result.stdout, as_json):
        assert "UA" not in text
        assert '"ua"' not in text
    assert '+ code="ua"' in run("preview", "p.yaml", "--sample", "s.ndjson", "--reveal").stdout


def test_a_difference_in_a_sensitive_column_is_counted_and_hidden(run, tmp_path):
    (tmp_path / "p.yaml").write_text(SENSITIVE)
    (tmp_path / "new.yaml").write_text(SENSITIVE.replace("LOWER(carrier)", "LOWER(carrier) || '!'").partition("sensitive")[0])
    arguments = ("diff", "p.yaml", "new.yaml", "--sample", "s.ndjson", "--key", "code")
    result = run(*arguments)
    assert result.exit_code == 1, result.stderr
    assert result.stdout.splitlines()[1:3] == [
        "column code: 1 of 1 rows differ",
        '  record 1 (code="(hidden)"): "(hidden)" -> "(hidden)"',
    ]
    assert '(code="ua"): "ua" -> "ua!"' in run(*arguments, "--reveal").stdout


def test_a_sensitive_value_that_would_reach_a_sink_unmasked_is_not_previewed(run, tmp_path):
    (tmp_path / "p.yaml").write_text(SENSITIVE.replace(", allowed_in: [s3]", ""))
    result = run("preview", "p.yaml", "--sample", "s.ndjson")
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        "sensitive_column the sensitive column `code`, which may hold values of `carrier`, reaches the sink `s3` unmasked" in result.stderr
    )


def test_a_sample_that_would_halt_a_shard_is_an_error(run, tmp_path):
    (tmp_path / "p.yaml").write_text(PIPELINE + "rejects: {max_ratio: 0.25, min_records: 3}\n")
    result = run("preview", "p.yaml", "--sample", "s.ndjson")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: 1 of 3 records would become dead letters. From 3 records on, a share above rejects.max_ratio (0.25) halts a shard.\n"
    )
    (tmp_path / "p.yaml").write_text(PIPELINE + "rejects: {max_ratio: 0.25, min_records: 4}\n")
    assert run("preview", "p.yaml", "--sample", "s.ndjson").exit_code == 0


def test_values_without_a_partition_of_their_own_are_explained(run, tmp_path):
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("[late]", "[carrier], max_partitions: 1").replace("delay > 10", "delay > 0"))
    assert "the other rows share __overflow__" in run("preview", "p.yaml", "--sample", "s.ndjson").stdout
