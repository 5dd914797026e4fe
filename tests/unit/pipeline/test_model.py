from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from stream.contracts import Start, StartKind
from stream.pipeline.digest import canonical_text, read_canonical
from stream.pipeline.model import Pipeline
from stream.transform.decode import Unknown
from tests.unit.pipeline.definitions import least


def model(**changes):
    return Pipeline.model_validate(least(**changes))


def source(**changes):
    return least()["source"] | changes


def test_omitted_options_have_defaults():
    pipeline = model()
    assert pipeline.flush.age == timedelta(seconds=60)
    assert (pipeline.flush.bytes, pipeline.flush.rows) == (64 * 2**20, 500_000)
    assert pipeline.memory.budget == 256 * 2**20
    assert pipeline.source.kinesis.start == Start(StartKind.TRIM_HORIZON)
    assert pipeline.source.decode.name == "json"
    assert pipeline.metrics.host == "127.0.0.1"
    assert pipeline.stages == ()


def test_durations_and_sizes_have_units():
    pipeline = model(flush={"age": "1h30m", "bytes": 4096, "rows": 5}, memory={"budget": "10MB"})
    assert pipeline.flush.age == timedelta(minutes=90)
    assert (pipeline.flush.bytes, pipeline.memory.budget) == (4096, 10**7)


@pytest.mark.parametrize(
    ("written", "start"),
    [
        ("trim_horizon", Start(StartKind.TRIM_HORIZON)),
        ("latest", Start(StartKind.LATEST)),
        ({"at_timestamp": "2026-01-01T01:00:00+01:00"}, Start(StartKind.AT_TIMESTAMP, datetime(2026, 1, 1, tzinfo=UTC))),
        (
            {"at_timestamp": "2026-01-01T00:00:00.5Z"},
            Start(StartKind.AT_TIMESTAMP, datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
        ),
    ],
)
def test_each_form_of_start_position_is_read(written, start):
    assert model(source=source(kinesis={"stream": "s", "start": written})).source.kinesis.start == start


@pytest.mark.parametrize("written", ["TRIM_HORIZON", 5, None, {"at_timestamp": "yesterday"}, {"at_timestamp": 1}, {"at": "x"}, ["latest"]])
def test_an_invalid_start_position_is_refused(written):
    with pytest.raises(ValidationError):
        model(source=source(kinesis={"stream": "s", "start": written}))


def test_equivalent_definitions_are_equal_models():
    short = model(source=source(unknown="capture"))
    long = model(source=source(decode={"json": {"unknown": "capture"}}))
    assert short == long
    assert short.source.unknown is Unknown.CAPTURE
    assert short.source.decode.unknown is Unknown.CAPTURE
    assert model(sinks=[{"files": {"url": "s3://lake/flights/"}}]) == model()
    assert model(stages=[{"select": ["carrier"]}]) == model(stages=[{"select": {"keep": ["carrier"]}}])


def test_the_same_policy_for_unknown_fields_may_be_written_twice():
    assert model(source=source(unknown="reject", decode={"json": {"unknown": "reject"}})).source.unknown is Unknown.REJECT


def test_a_decoder_without_unknown_fields_takes_no_policy():
    raw = {"kinesis": {"stream": "s"}, "decode": "raw"}
    assert model(source=raw).source.record_schema() is None
    with pytest.raises(ValidationError, match="has no policy for unknown fields"):
        model(source=raw | {"unknown": "ignore"})


def test_a_pipeline_is_immutable():
    with pytest.raises(ValidationError, match="frozen"):
        model().application = "other"


def test_every_option_has_a_description():
    waiting = [Pipeline]
    while waiting:
        part = waiting.pop()
        for name, field in part.model_fields.items():
            assert field.description, f"{part.__name__}.{name}"
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                waiting.append(field.annotation)


def test_each_of_several_streams_has_a_start():
    made = model(source=source(kinesis={"streams": ["a", {"stream": "b", "start": "latest"}], "start": "trim_horizon"}))
    assert made.source.kinesis.names == ("a", "b")
    narrowed = [(one.source.kinesis.stream, one.source.kinesis.start.kind) for one in made.each()]
    assert narrowed == [("a", StartKind.TRIM_HORIZON), ("b", StartKind.LATEST)]
    assert model(source=source(kinesis={"stream": "a"})).each()[0].source.kinesis.stream == "a"


@pytest.mark.parametrize(
    ("kinesis", "code"),
    [
        ({"start": "latest"}, "missing_key"),
        ({"stream": "a", "streams": ["b"]}, "bad_value"),
        ({"streams": ["a", "b", "a"]}, "duplicate_stream"),
        ({"streams": []}, "missing_key"),
        ({"streams": ["no/name"]}, "bad_name"),
    ],
)
def test_a_stream_may_be_named_only_once(kinesis, code):
    with pytest.raises(ValidationError) as raised:
        model(source=source(kinesis=kinesis))
    assert [error["ctx"]["code"] for error in raised.value.errors()] == [code]


def test_a_pipeline_with_several_streams_reads_back_from_its_text():
    made = model(source=source(kinesis={"streams": ["a", {"stream": "b", "start": "latest"}]}))
    assert read_canonical(canonical_text(made)) == made
    assert "streams" not in canonical_text(model(source=source(kinesis={"stream": "a"})))


@pytest.mark.parametrize("given", ["native", {"native": None}, {"native": {}}, {"native": {"failover": "10s", "balance": "even"}}])
def test_coordination_by_name_has_all_defaults(given):
    pipeline = Pipeline.model_validate(least(coordination=given))
    assert pipeline == Pipeline.model_validate(least(coordination="native"))
    assert read_canonical(canonical_text(pipeline)) == pipeline


def test_local_coordination_keeps_its_canonical_form():
    assert "\ncoordination: local\n" in canonical_text(Pipeline.model_validate(least()))


@pytest.mark.parametrize(
    "given", ["dynamo", {}, {"native": {}, "local": {}}, {"native": {"failover": "0s"}}, {"native": {"no": 1}}, 7, None]
)
def test_an_unknown_kind_of_coordination_is_refused(given):
    with pytest.raises(ValidationError):
        Pipeline.model_validate(least(coordination=given))
