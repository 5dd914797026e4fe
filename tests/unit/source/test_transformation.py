"""Events of Firehose: what they hold, and what is refused."""

import base64
from datetime import UTC, datetime

import pytest

from stream.batch import ARRIVAL, DATA, PARTITION_KEY, SEQUENCE, SHARD, SUBSEQUENCE
from stream.errors import DefinitionError
from stream.source.mapping import is_delivery
from stream.source.transformation import is_transformation, transformation_of
from tests.invocations import event_of
from tests.transformations import FIRST_SEQUENCE, asked


def test_records_of_a_stream_say_where_they_come_from():
    found = transformation_of(asked([b"a", b"", b"\xff\x00"]))
    assert (found.delivery_stream, found.stream) == ("orders-out", "s")
    assert found.ids == tuple(f"{FIRST_SEQUENCE + at}000000" for at in range(3))
    assert found.batch.frame[DATA].to_list() == [b"a", b"", b"\xff\x00"]
    assert found.batch.payload_bytes == 3
    assert found.batch.frame[PARTITION_KEY].to_list() == ["key-0", "key-1", "key-2"]
    assert found.batch.frame[ARRIVAL][1] == datetime(2017, 11, 9, 19, 7, 49, 500_000, UTC)
    assert found.batch.first_read[SHARD].to_list() == ["shardId-000000000000", "shardId-000000000001", "shardId-000000000000"]
    assert found.batch.first_read[SEQUENCE].to_list() == [str(FIRST_SEQUENCE + at) for at in range(3)]


def test_of_several_streams_the_shard_names_the_stream_too():
    assert transformation_of(asked([b"a"]), several=True).batch.first_read[SHARD][0] == "s/shardId-000000000000"


@pytest.mark.parametrize(("given", "number"), [("", 0), (None, 0), ("7", 7), (7, 7)])
def test_a_record_of_an_aggregate_has_a_sub_sequence_number(given, number):
    event = asked([b"a"])
    event["records"][0]["kinesisRecordMetadata"]["subsequenceNumber"] = given
    assert transformation_of(event).batch.first_read[SUBSEQUENCE][0] == number


def test_records_that_were_put_into_firehose_have_their_id_alone():
    found = transformation_of(asked([b"a", b"b"], stream=""))
    assert found.stream == ""
    assert found.batch.first_read.select(SHARD, SEQUENCE).rows() == [("orders-out", name) for name in found.ids]


def test_an_event_without_records_is_one():
    assert transformation_of(asked([])).batch.rows == 0


def test_events_of_other_services_are_distinguished():
    mapped = event_of("s", "shardId-000000000000", [])
    assert (is_transformation(mapped), is_delivery(mapped)) == (False, True)
    assert (is_transformation(asked([])), is_delivery(asked([]))) == (True, False)
    assert not any(is_transformation(each) for each in (None, [], {"records": []}, {"detail-type": "Scheduled Event"}))


def without(name):
    event = asked([b"a"])
    del event["records"][0][name]
    return event


def changed(**values):
    event = asked([b"a", b"b"])
    event["records"][1] |= values
    return event


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (without("recordId"), "a record has no 'recordId'"),
        (without("data"), "a record has no 'data'"),
        (changed(data="%%%"), "a record is not as documented"),
        (changed(approximateArrivalTimestamp="yesterday"), "a record is not as documented"),
        (changed(kinesisRecordMetadata={"shardId": "a"}), "a record has no 'sequenceNumber'"),
        (changed(recordId=asked([b""])["records"][0]["recordId"]), "two records of the event have the same recordId"),
        (asked([b"a"], sourceKinesisStreamArn="arn:aws:sqs:x"), "names no Kinesis stream"),
        (asked([], records=[{"kafkaRecordValue": base64.b64encode(b"a").decode()}]), "reads Amazon MSK"),
    ],
)
def test_what_is_not_as_documented_is_refused_without_the_words_of_a_value(event, says):
    with pytest.raises(DefinitionError, match=says) as raised:
        transformation_of(event)
    assert "yesterday" not in str(raised.value)
