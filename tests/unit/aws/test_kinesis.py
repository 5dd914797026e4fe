from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.aws.kinesis import refusal
from stream.aws.pages import RECORD_SCHEMA, parse_get_records
from stream.batch import ARRIVAL, DATA, PARTITION_KEY, SEQUENCE

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
records = st.tuples(
    st.integers(1, 2**186),
    st.binary(max_size=100),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.integers(0, 2 * 10**12),
)


@given(st.lists(records, max_size=20))
def test_columns_hold_what_the_service_sent(items: list[tuple[int, bytes, str, int]]) -> None:
    body = {
        "Records": [
            {
                "SequenceNumber": str(sequence),
                "Data": base64.b64encode(data).decode(),
                "PartitionKey": key,
                "ApproximateArrivalTimestamp": millis / 1000,
                "EncryptionType": "KMS",
            }
            for sequence, data, key, millis in items
        ],
        "NextShardIterator": "next",
        "MillisBehindLatest": 12,
    }
    page = parse_get_records(json.dumps(body).encode())
    assert page.frame.schema == RECORD_SCHEMA
    assert page.frame.get_column(SEQUENCE).to_list() == [str(item[0]) for item in items]
    assert page.frame.get_column(DATA).to_list() == [item[1] for item in items]
    assert page.frame.get_column(PARTITION_KEY).to_list() == [item[2] for item in items]
    assert page.frame.get_column(ARRIVAL).to_list() == [EPOCH + timedelta(milliseconds=item[3]) for item in items]
    assert (page.next_iterator, page.behind_ms, page.children) == ("next", 12, ())


def test_the_end_of_a_shard_names_its_children() -> None:
    body = b'{"Records":[],"NextShardIterator":null,"ChildShards":[{"ShardId":"a","ParentShards":["p"],"HashKeyRange":{}}]}'
    page = parse_get_records(body)
    assert (page.next_iterator, page.behind_ms, page.children) == (None, 0, ("a",))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"Records":[{}]}', b'{"Records":[{"SequenceNumber":"1","Data":"*"}]}'])
def test_an_undocumented_answer_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse_get_records(body)


@pytest.mark.parametrize(
    ("body", "named", "code"),
    [
        (b'{"__type":"LimitExceededException"}', "", "LimitExceededException"),
        (b'{"__type":"com.amazonaws.kinesis#ExpiredIteratorException","message":"m"}', "Other", "ExpiredIteratorException"),
        (b"{}", "ThrottlingException:http://internal.amazon.com/coral/com.amazon.coral.availability/", "ThrottlingException"),
        (b"", "com.amazon.coral.service#InternalFailure:http://internal.amazon.com/", "InternalFailure"),
        (b"<html>503", "com.amazon.coral.service#ServiceUnavailable", "ServiceUnavailable"),
        (b"<html>502", "", "Unknown"),
    ],
)
def test_the_code_of_an_error_is_read_from_body_or_header_without_its_namespace(body: bytes, named: str, code: str) -> None:
    assert refusal(body, named)[0] == code
