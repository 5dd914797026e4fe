"""What an event of a mapping says, and which events are refused in words."""

import copy
from datetime import UTC, datetime

import pytest

from stream.errors import DefinitionError
from stream.source.mapping import delivery_of, is_delivery, stream_of

SHARD = "shardId-000000000006"
ARN = "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"


def record(number, arrival=1545084650.987, shard=SHARD, arn=ARN):
    """A record of the event in Lambda's developer guide."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "1",
            "sequenceNumber": str(number),
            "data": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
            "approximateArrivalTimestamp": arrival,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
        "awsRegion": "us-east-2",
        "eventSourceARN": arn,
    }


FIRST = 49590338271490256608559692538361571095921575989136588898
SECOND = 49590338271490256608559692540925702759324208523137515618


def test_the_event_of_the_guide():
    made = delivery_of({"Records": [record(FIRST), record(SECOND, 1545084711.166)]})
    assert (made.stream, made.shard_id, made.numbers, made.last) == ("lambda-stream", SHARD, (FIRST, SECOND), SECOND)
    assert made.first_arrival == datetime(2018, 12, 17, 22, 10, 50, 987_000, tzinfo=UTC)
    assert made.last_arrival == datetime(2018, 12, 17, 22, 11, 51, 166_000, tzinfo=UTC)


def test_the_first_record_after_a_position():
    made = delivery_of({"Records": [record(7), record(3), record(7)]})
    assert made.numbers == (3, 7)
    assert [made.first_after(position) for position in (0, 3, 6, 7)] == [3, 7, 7, None]


def test_a_consumer_of_enhanced_fan_out_is_of_its_stream():
    made = delivery_of({"Records": [record(1, arn=f"{ARN}/consumer/mine:1545084650")]})
    assert made.stream == "lambda-stream"


def test_an_event_without_records_asks_for_nothing():
    assert delivery_of({"Records": []}) is None


@pytest.mark.parametrize(
    ("event", "answer"), [({"Records": []}, True), ({"Records": None}, False), ({"detail": 1}, False), ("text", False)]
)
def test_what_a_mapping_sends_is_distinguished_from_other_events(event, answer):
    assert is_delivery(event) is answer


def changed(**changes):
    made = record(5)
    for path, value in changes.items():
        part = made["kinesis"] if path in made["kinesis"] else made
        part[path] = value
    return {"Records": [made]}


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"Records": [record(1)], "window": {"start": "x"}, "state": {}, "isFinalInvokeForWindow": False}, "TumblingWindowInSeconds"),
        ({"Records": [record(1), record(2, shard="shardId-000000000007")]}, "records of 2 shards"),
        (changed(eventSource="aws:dynamodb"), "comes from aws:dynamodb"),
        (changed(eventSourceARN="arn:aws:sqs:us-east-2:123456789012:queue"), "names no Kinesis stream"),
        (changed(sequenceNumber="abc"), "a record is not as documented"),
        (changed(eventID=None), "a record is not as documented"),
        ({"Records": [{"Sns": {"Message": "x"}, "EventSource": "aws:sns"}]}, "a record has no 'eventSource'"),
        ({"Records": ["text"]}, "a record is not as documented"),
    ],
)
def test_what_cannot_be_worked_with_is_refused_in_words(event, says):
    before = copy.deepcopy(event)
    with pytest.raises(DefinitionError, match=says):
        delivery_of(event)
    assert event == before


@pytest.mark.parametrize("arn", ["", "stream/x", "arn:aws:kinesis:eu-west-1:1:stream/"])
def test_an_arn_of_no_stream_is_refused(arn):
    with pytest.raises(DefinitionError, match="names no Kinesis stream"):
        stream_of(arn)


def test_a_stream_that_the_pipeline_gives_by_its_arn_is_called_by_its_id() -> None:
    called = "lambda-stream@123456789012.us-east-2"
    for arn in (ARN, f"{ARN}/consumer/mine:1545084650"):
        for known, stream in (((called, "lambda-stream"), called), (("lambda-stream",), "lambda-stream"), ((), "lambda-stream")):
            made = delivery_of({"Records": [record(1, arn=arn)]}, known)
            assert made is not None
            assert made.stream == stream
