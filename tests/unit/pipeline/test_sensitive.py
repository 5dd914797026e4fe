from __future__ import annotations

import pytest
import yaml

from stream.pipeline.checks.lint import check_content
from stream.pipeline.digest import canonical_text, pipeline_digest, read_canonical
from stream.pipeline.findings import Severity
from stream.pipeline.sensitive import HIDDEN, Sensitive, hidden, joined, problems, sensitive_columns, unreadable
from tests.unit.pipeline.test_origins import COLUMNS, MASK, least, pipeline_of, schemas

UPPER = {"derive": {"up": "UPPER(tailnum)"}}
PARTITIONED = [{"s3": {"url": "s3://lake/x/", "partition_by": ["carrier", {"first": "LEFT(up, 1)"}]}}]


def found(*stages, **changes):
    pipeline = pipeline_of(*stages, **changes)
    return sensitive_columns(pipeline.sensitive, pipeline.stages, schemas(pipeline))


def codes(*stages, **changes):
    pipeline = pipeline_of(*stages, **changes)
    assert pipeline.sensitive is not None
    kinds = [sink.kind for sink in pipeline.sinks]
    return [
        (each.code, each.message.split("`")[1] if "`" in each.message else each.message)
        for each in problems(pipeline.sensitive, pipeline.stages, schemas(pipeline), pipeline.sinks, kinds)
    ]


def test_a_list_is_the_short_form_of_the_declaration():
    assert Sensitive.model_validate(["a"]) == Sensitive.model_validate("a") == Sensitive(columns=("a",))
    assert pipeline_of(sensitive="tailnum") == pipeline_of(sensitive={"columns": ["tailnum"]})
    with pytest.raises(ValueError, match="at least 1"):
        Sensitive.model_validate([])


def test_a_column_is_sensitive_from_where_it_appears_until_it_is_masked():
    steps = found(UPPER, MASK, {"rename": {"up": "plane"}}, sensitive=["tailnum", "up"])
    assert steps[0] == {"tailnum": {"tailnum"}}
    assert steps[1] == {"tailnum": {"tailnum"}, "up": {"tailnum", "up"}}
    assert steps[2] == {"up": {"tailnum", "up"}}
    assert steps[3] == {"plane": {"tailnum", "up"}}
    assert found(UPPER) == ({}, {})


def test_a_column_declared_safe_and_columns_computed_from_it_are_not_sensitive():
    sensitive = {"columns": ["tailnum"], "safe": ["up"]}
    assert found(UPPER, {"derive": {"more": "up"}}, sensitive=sensitive)[-1] == {"tailnum": {"tailnum"}}


def test_a_sensitive_column_that_reaches_a_sink_unmasked_is_refused():
    assert codes(UPPER, MASK, sensitive=["tailnum"]) == [("sensitive_column", "up")]
    assert codes({"derive": {"n": "LENGTH(tailnum)"}}, MASK, sensitive={"columns": ["tailnum"], "safe": ["n"]}) == []
    assert codes({"select": ["carrier"]}, sensitive=["tailnum"]) == []


def test_a_sink_can_be_allowed_to_receive_a_sensitive_column():
    sinks = [{"s3": {"url": "s3://lake/x/", "name": "vault"}}, {"s3": {"url": "s3://lake/y/", "name": "open"}}]
    pipeline = pipeline_of(sinks=sinks, sensitive={"columns": ["tailnum"], "allowed_in": ["vault"]})
    (problem,) = problems(pipeline.sensitive, pipeline.stages, schemas(pipeline), pipeline.sinks, ["s3", "s3"])
    assert problem.path == ("sinks", 1, "s3")
    assert "reaches the sink `open` unmasked" in problem.message


def test_no_sink_may_use_a_sensitive_column_in_file_names():
    sensitive = {"columns": ["tailnum"], "allowed_in": ["s3"]}
    assert codes(UPPER, sinks=PARTITIONED, sensitive=sensitive) == [("sensitive_key", "up")]
    assert codes(UPPER, sinks=PARTITIONED, sensitive={**sensitive, "safe": ["up"]}) == []
    iceberg = [{"iceberg": {"location": "s3://lake/x/", "table": "lake.flights", "partition_by": ["tailnum"]}}]
    assert codes(sinks=iceberg, sensitive={"columns": ["tailnum"], "allowed_in": ["iceberg"]}) == [("sensitive_key", "tailnum")]


def test_unknown_column_and_sink_names_are_refused():
    sensitive = {"columns": ["tailnam", "_partition_key"], "safe": ["upp"], "allowed_in": ["s4"]}
    pipeline = pipeline_of(sensitive=sensitive)
    got = [(each.path, each.hint) for each in problems(pipeline.sensitive, pipeline.stages, schemas(pipeline), pipeline.sinks, ["s3"])]
    assert [path for path, _ in got] == [("sensitive", "columns", 0), ("sensitive", "safe", 0), ("sensitive", "allowed_in", 0)]
    assert got[0][1] == "did you mean `tailnum`?"


def check(tmp_path, **changes):
    text = yaml.safe_dump(least(source={"kinesis": {"stream": "flights"}, "schema": COLUMNS}, **changes), sort_keys=False)
    return check_content(text.encode(), "p.yaml", tmp_path, {})


def test_a_check_finds_an_unmasked_column_although_a_secret_is_not_set(tmp_path):
    stages = [{"mask": {"columns": ["carrier"], "method": "keyed_hash", "key": {"env": "UNSET"}}}]
    result = check(tmp_path, stages=stages, sensitive=["tailnum", "carrier"])
    assert [each.code for each in result.findings if each.severity is Severity.ERROR] == ["sensitive_column"]
    assert result.pipeline is None


def test_rows_before_a_change_must_be_declared_too(tmp_path):
    decode = {"dms": {"before_image": "before-image"}}
    source = {"kinesis": {"stream": "flights"}, "schema": COLUMNS, "decode": decode}

    def found(sensitive):
        text = yaml.safe_dump({**least(source=source, stages=[{"select": {"drop": ["tailnum"]}}]), "sensitive": sensitive}, sort_keys=False)
        return [
            (each.code, each.message)
            for each in check_content(text.encode(), "p.yaml", tmp_path, {}).findings
            if each.severity is Severity.ERROR
        ]

    ((code, message),) = found(["tailnum"])
    assert (code, message) == ("sensitive_column", "the decoder repeats the values of `tailnum` in `before`, which is not declared")
    assert [message for _, message in found(["tailnum", "before"])] == ["the sensitive column `before` reaches the sink `s3` unmasked"]
    assert found({"columns": ["tailnum"], "safe": ["before"]}) == []


def test_a_file_with_other_errors_gets_no_finding_about_sensitive_columns(tmp_path):
    result = check(tmp_path, stages=[{"filter": "nothing > 5"}], sensitive=["tailnum"])
    assert [each.code for each in result.findings] == ["schema_mismatch"]


def test_a_declaration_changes_no_row_and_therefore_no_digest():
    plain, declared = pipeline_of(MASK), pipeline_of(MASK, sensitive=["tailnum"])
    assert pipeline_digest(plain, {}, "b") == pipeline_digest(declared, {}, "b")
    assert read_canonical(canonical_text(declared)) == declared


def test_the_stricter_of_two_declarations_applies():
    one, other = Sensitive(columns=("a", "b"), safe=("x", "y")), Sensitive(columns=("b", "c"), safe=("y",), allowed_in=("s3",))
    assert joined(one, other) == Sensitive(columns=("a", "b", "c"), safe=("y",))
    assert joined(None, other) == other
    assert joined(one, None) == one
    assert joined(None, None) is None


def test_values_are_hidden_together_with_the_bytes_that_contain_them():
    values = {"a": None, "b": 1, "_data": b"x", "_partition_key": "k"}
    assert hidden(values, unreadable(None, ())) == values
    assert hidden(values, unreadable(Sensitive(columns=("a",)), ["a"])) == {**values, "a": HIDDEN, "_data": HIDDEN}
    assert hidden(values, unreadable(Sensitive(columns=("_partition_key",)), ())) == {
        **values, "_data": HIDDEN, "_partition_key": HIDDEN,
    }  # fmt: skip


def test_an_object_that_holds_a_sensitive_column_is_noted(tmp_path):
    stages = [{"flatten": "who"}, {"mask": {"columns": ["who_email"], "method": "redact"}}]
    result = check(tmp_path, stages=stages, sensitive=["who_email"])
    assert [(each.code, each.severity) for each in result.findings] == [("sensitive_inside", Severity.NOTE)]
    assert "the values of `who_email` are in `who` too" in result.findings[0].message
    assert result.pipeline is not None
    both = {"columns": ["who", "who_email"], "safe": ["who_age"]}
    assert check(tmp_path, stages=stages, sensitive=both).findings == ()
    assert check(tmp_path, stages=[{"derive": {"up": "UPPER(tailnum)"}}, {"select": {"drop": ["up"]}}], sensitive=["up"]).findings == ()
