from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.stream_ids import NAME, StreamId, as_written, name_of, parse, stream_id

names = st.from_regex(NAME, fullmatch=True)
streams = st.builds(
    StreamId,
    names,
    st.from_regex(r"[0-9]{12}", fullmatch=True),
    st.sampled_from(["eu-west-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1"]),
    st.sampled_from(["aws", "aws-cn", "aws-us-gov", "aws-eusc"]),
)


@given(streams)
def test_an_id_says_all_that_an_arn_does(stream: StreamId) -> None:
    assert parse(stream.arn) == parse(str(stream)) == stream
    assert stream_id(stream.arn) == stream_id(str(stream)) == str(stream)
    assert as_written(str(stream)) == as_written(stream.arn) == stream.arn
    assert name_of(str(stream)) == name_of(stream.arn) == stream.name


@given(streams, streams)
def test_two_streams_never_have_one_id(one: StreamId, other: StreamId) -> None:
    assert (str(one) == str(other)) == (one == other)


@given(streams, names)
def test_an_id_is_never_a_name_and_a_name_is_left_alone(stream: StreamId, name: str) -> None:
    assert str(stream) != name
    assert parse(name) is None
    assert stream_id(name) == as_written(name) == name_of(name) == name


def test_what_an_id_looks_like() -> None:
    """Ids are in keys, file names and lineage columns: they must never change."""
    assert stream_id("arn:aws:kinesis:eu-west-1:111122223333:stream/flights") == "flights@111122223333.eu-west-1"
    assert stream_id("arn:aws-cn:kinesis:cn-north-1:111122223333:stream/a.b_c-d") == "a.b_c-d@111122223333.cn-north-1.aws-cn"


@pytest.mark.parametrize(
    "text",
    [
        "arn:aws:kinesis:eu-west-1:111122223333:stream/flights/consumer/c:1",
        "arn:aws:kinesis:eu-west-1:11112222333:stream/flights",
        "arn:aws:kinesis::111122223333:stream/flights",
        "arn:aws:sqs:eu-west-1:111122223333:flights",
        "arn:aws:kinesis:eu-west-1:111122223333:stream/",
        "arn:aws:kinesis:eu-west-1:111122223333:stream/flights\n",
        "flights@111122223333",
        "flights@11112222333.eu-west-1",
    ],
)
def test_nothing_else_is_a_stream(text: str) -> None:
    assert parse(text) is None
    assert stream_id(text) == text
