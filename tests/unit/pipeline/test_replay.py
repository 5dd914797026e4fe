from datetime import timedelta

import pytest
from pydantic import ValidationError

from stream.pipeline.digest import canonical_text, pipeline_digest, read_canonical
from stream.pipeline.model import Pipeline
from tests.unit.pipeline.definitions import least


def model(s3=None, **changes):
    data = least(**changes)
    if s3 is not None:
        data["source"] = {"s3": s3, **{key: value for key, value in data["source"].items() if key != "kinesis"}}
    return Pipeline.model_validate(data)


def test_objects_are_read_under_their_own_name():
    pipeline = model({"url": "s3://bucket/in/", "name": "archive"})
    assert pipeline.source.kinesis.stream == "archive"
    assert read_canonical(canonical_text(pipeline)) == pipeline
    assert "kinesis" not in canonical_text(pipeline)


def test_the_place_of_objects_does_not_change_the_digest():
    one, other = model({"url": "s3://bucket/in/"}), model({"url": "file:./in", "shards": 9, "time": "%Y/%m"})
    assert pipeline_digest(one, {}, "1") == pipeline_digest(other, {}, "1")
    assert pipeline_digest(one, {}, "1") != pipeline_digest(model({"url": "s3://bucket/in/", "format": "parquet"}), {}, "1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s3": {"url": "s3://bucket/in/", "format": "csv"}}, "cannot be read with the decoder `json`"),
        ({"s3": {"url": "s3://bucket/in/", "column": "raw"}}, "`column` is only for Parquet"),
        ({"s3": {"url": "nowhere"}}, "not a place"),
        ({"notify": {"sns": "alarms"}}, "is not an SNS topic"),
        ({"rejects": {"redrive": {"attempts": 0}}}, "greater than or equal to 1"),
        ({"requires": ["nowhere"]}, "not a place"),
    ],
)
def test_contradictory_options_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        model(**change)


def test_a_pipeline_has_one_source():
    data = least()
    data["source"] = {**data["source"], "s3": {"url": "s3://bucket/in/"}}
    with pytest.raises(ValidationError, match="both `kinesis` and `s3`"):
        Pipeline.model_validate(data)


def test_limits_of_redrives_are_read():
    pipeline = model(rejects={"window": "1m", "redrive": {"attempts": 2, "age": "7d", "stages": {"2:validate": {"attempts": 9}}}})
    assert pipeline.rejects.window == timedelta(minutes=1)
    assert pipeline.rejects.redrive.stages["2:validate"].attempts == 9
