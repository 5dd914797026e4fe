from datetime import timedelta

import pytest
from pydantic import ValidationError

from stream.pipeline.digest import canonical_text, pipeline_digest, read_canonical
from stream.pipeline.model import Pipeline
from stream.pipeline.replay import Queue
from tests.unit.pipeline.definitions import least

QUEUE = "arn:aws:sqs:eu-west-1:123456789012:landing"


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
        ({"s3": {"url": "s3://bucket/in/", "column": "raw"}}, "`column` is only for parquet, arrow and avro"),
        ({"s3": {"url": "s3://bucket/in/", "records": "Records"}}, "objects of the format ndjson have no lists of records"),
        ({"s3": {"url": "s3://bucket/in/", "format": "json", "records": "a..b"}}, "'a..b' names no member"),
        ({"s3": {"url": "s3://bucket/in/", "format": "json", "records": ""}}, "'' names no member"),
        ({"s3": {"url": "s3://bucket/in/", "format": "avro", "compression": "gzip"}}, "objects of the format avro are compressed inside"),
        ({"s3": {"url": "s3://bucket/in/", "format": "arrow", "compression": "zstd"}}, "objects of the format arrow are compressed inside"),
        ({"s3": {"url": "nowhere"}}, "not a place"),
        ({"s3": {"url": "file:./in", "watch": {"queue": QUEUE}}}, "sends no notifications"),
        ({"s3": {"url": "s3://bucket/in/", "watch": {}, "manifest": "s3://bucket/list"}}, "a manifest lists objects once"),
        ({"s3": {"url": "s3://bucket/in/", "watch": {"every": "500ms"}}}, "more than once a second"),
        ({"s3": {"url": "s3://bucket/in/", "watch": {"queue": "landing"}}}, "names no queue"),
        ({"s3": {"url": "s3://bucket/in/", "watch": {"queue": "https://sqs.eu-west-1.amazonaws.com/landing"}}}, "names no queue"),
        ({"s3": {"url": "s3://bucket/in/", "watch": {"queue": "arn:aws:sns:eu-west-1:123456789012:x"}}}, "no ARN of a queue"),
        ({"s3": {"url": "s3://bucket/in/", "watch": {"queue": f"{QUEUE}.fifo"}}}, "is a FIFO queue"),
        ({"notify": {"sns": "alarms"}}, "is not an SNS topic"),
        ({"rejects": {"redrive": {"attempts": 0}}}, "greater than or equal to 1"),
        ({"requires": ["nowhere"]}, "not a place"),
    ],
)
def test_contradictory_options_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        model(**change)


@pytest.mark.parametrize(
    ("records", "path"),
    [(None, None), ("$", ()), ("Records", ("Records",)), ("$.detail.items", ("detail", "items")), ("a.$b", ("a", "$b"))],
)
def test_records_are_a_path_that_is_recorded_where_there_is_one(records, path):
    pipeline = model({"url": "s3://bucket/in/", "format": "json", **({} if records is None else {"records": records})})
    assert pipeline.source.s3.records_path == path
    assert ("    records:" in canonical_text(pipeline)) == (records is not None)
    assert read_canonical(canonical_text(pipeline)) == pipeline


def test_a_pipeline_has_one_source():
    data = least()
    data["source"] = {**data["source"], "s3": {"url": "s3://bucket/in/"}}
    with pytest.raises(ValidationError, match="both `kinesis` and `s3`"):
        Pipeline.model_validate(data)


def test_limits_of_redrives_are_read():
    pipeline = model(rejects={"window": "1m", "redrive": {"attempts": 2, "age": "7d", "stages": {"2:validate": {"attempts": 9}}}})
    assert pipeline.rejects.window == timedelta(minutes=1)
    assert pipeline.rejects.redrive.stages["2:validate"].attempts == 9


def test_without_watch_nothing_about_it_is_recorded_and_with_it_the_rows_are_the_same():
    plain, watched = model({"url": "s3://bucket/in/"}), model({"url": "s3://bucket/in/", "watch": {"queue": QUEUE, "every": "2h"}})
    assert "watch" not in canonical_text(plain)
    assert read_canonical(canonical_text(watched)) == watched
    assert pipeline_digest(plain, {}, "1") == pipeline_digest(watched, {}, "1")
    # As it was before there was `watch`: units that were begun then must be finished with the same definition.
    assert pipeline_digest(plain, {}, "1") == "d9f59da22df2fb100fa975528c6a9daa"


def test_objects_are_listed_every_minute_or_beside_a_queue_every_hour():
    every = [
        model({"url": "s3://bucket/in/", "watch": watch}).source.s3.watch.listed_every
        for watch in ({}, {"queue": QUEUE}, {"queue": QUEUE, "every": "5m"})
    ]
    assert every == [timedelta(minutes=1), timedelta(hours=1), timedelta(minutes=5)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (QUEUE, ("landing", "123456789012", "eu-west-1", "")),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/q", ("q", "123456789012", "eu-west-1", "...")),
        ("https://vpce-0a-0b.sqs.us-gov-west-1.vpce.amazonaws.com/123456789012/q", ("q", "123456789012", "us-gov-west-1", "...")),
        ("https://eu-west-1.queue.amazonaws.com/123456789012/q", ("q", "123456789012", "eu-west-1", "...")),
        ("http://127.0.0.1:4568/123456789012/q", ("q", "123456789012", "", "...")),
    ],
)
def test_a_queue_is_named_by_arn_or_url(text, parts):
    queue = Queue.of(model({"url": "s3://bucket/in/", "watch": {"queue": text}}).source.s3.watch.queue)
    assert (queue.name, queue.account, queue.region, queue.url) == tuple(text if part == "..." else part for part in parts)
