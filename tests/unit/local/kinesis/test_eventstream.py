from botocore.eventstream import EventStreamBuffer, EventStreamMessage
from hypothesis import given
from hypothesis import strategies as st

from stream.local.kinesis import eventstream
from stream.local.kinesis.errors import in_use
from stream.local.kinesis.protocol import Records, Wire


def _read(data: bytes) -> list[EventStreamMessage]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


@given(st.dictionaries(st.text("abc:-", min_size=1, max_size=9), st.text(max_size=20), max_size=4), st.binary(max_size=200))
def test_botocore_reads_the_messages(headers: dict[str, str], payload: bytes) -> None:
    first, second = _read(eventstream.frame(headers, payload) * 2)
    assert first.headers == second.headers == headers
    assert first.payload == second.payload == payload


def test_a_stream_begins_with_an_initial_response() -> None:
    (message,) = _read(eventstream.initial_response(Wire.JSON))
    assert message.headers[":event-type"] == "initial-response"
    assert message.payload == b"{}"


def test_an_event_carries_records_in_the_subscribers_encoding() -> None:
    (message,) = _read(eventstream.event(Records([b'{"Data":""}'], {"MillisBehindLatest": 0}), Wire.JSON))
    assert message.headers[":event-type"] == "SubscribeToShardEvent"
    assert message.headers[":content-type"] == "application/x-amz-json-1.1"
    assert message.payload == b'{"Records":[{"Data":""}],"MillisBehindLatest":0}'


def test_an_exception_is_not_an_event() -> None:
    (message,) = _read(eventstream.exception(in_use("taken"), Wire.JSON))
    assert message.headers[":message-type"] == "exception"
    assert message.headers[":exception-type"] == "ResourceInUseException"
