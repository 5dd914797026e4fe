from typing import Any

import cbor2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.protocol import Params, Records, Timestamp, Wire, blob, decode, encode, encode_error
from stream.local.kinesis.shards import uniform

MOMENTS = st.integers(0, 2**42)


@given(MOMENTS)
def test_a_timestamp_is_fractional_seconds_in_json_and_tagged_milliseconds_in_cbor(ms: int) -> None:
    reply = {"At": Timestamp(ms)}
    assert orjson.loads(encode(reply, Wire.JSON)) == {"At": ms / 1000}
    assert cbor2.loads(encode(reply, Wire.CBOR), semantic_decoders={1: lambda value, _: ("tagged", value)}) == {"At": ("tagged", ms)}


@given(MOMENTS)
def test_a_timestamp_in_a_request_is_read_the_same_from_both_encodings(ms: int) -> None:
    assert decode(orjson.dumps({"At": ms / 1000}), Wire.JSON).moment("At") == ms
    assert decode(cbor2.dumps({"At": cbor2.CBORTag(1, ms)}), Wire.CBOR).moment("At") == ms


@given(st.binary(max_size=50), st.text(min_size=1, max_size=10), MOMENTS)
def test_records_are_the_same_in_both_encodings(data: bytes, key: str, ms: int) -> None:
    shard = uniform(1, ms)[0]
    text, size = blob(data)
    assert size == len(data)
    sequence = shard.put(orjson.dumps(key), text, size, ms)
    reply = Records(shard.read(0, 10, ms).records, {"MillisBehindLatest": 0, "NextShardIterator": None})
    json_reply = orjson.loads(encode(reply, Wire.JSON))
    cbor_reply = cbor2.loads(encode(reply, Wire.CBOR), semantic_decoders={1: lambda value, _: value})
    assert json_reply["NextShardIterator"] is cbor_reply["NextShardIterator"] is None
    (from_json,), (from_cbor,) = json_reply["Records"], cbor_reply["Records"]
    assert from_json["SequenceNumber"] == from_cbor["SequenceNumber"] == str(sequence)
    assert from_json["PartitionKey"] == from_cbor["PartitionKey"] == key
    assert blob(from_json["Data"]) == blob(from_cbor["Data"]) == (text, size)
    assert round(from_json["ApproximateArrivalTimestamp"] * 1000) == from_cbor["ApproximateArrivalTimestamp"] == ms


@pytest.mark.parametrize("wire", Wire)
def test_an_error_names_its_type(wire: Wire) -> None:
    body = encode_error(ApiError("SomeException", "why"), wire)
    read = cbor2.loads(body) if wire is Wire.CBOR else orjson.loads(body)
    assert read == {"__type": "SomeException", "message": "why"}


@pytest.mark.parametrize(("wire", "body"), [(Wire.JSON, b"{"), (Wire.JSON, b"[]"), (Wire.CBOR, b"\xff"), (Wire.CBOR, b"\x01")])
def test_a_body_that_is_not_a_structure_is_refused(wire: Wire, body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        decode(body, wire)
    assert caught.value.code == "SerializationException"


@pytest.mark.parametrize("data", ["%%%", "YQ", "YQ==\n", "é", 5, None, ["YQ=="]])
def test_data_that_is_not_a_blob_is_refused(data: object) -> None:
    with pytest.raises(ApiError) as caught:
        blob(data)
    assert caught.value.code == "SerializationException"


@pytest.mark.parametrize(
    ("read", "members", "code"),
    [
        (lambda p: p.text("A"), {}, "ValidationException"),
        (lambda p: p.text("A"), {"A": 1}, "SerializationException"),
        (lambda p: p.integer("A", 1, 5), {}, "ValidationException"),
        (lambda p: p.integer("A", 1, 5), {"A": 6}, "ValidationException"),
        (lambda p: p.integer("A", 1, 5), {"A": True}, "SerializationException"),
        (lambda p: p.integer_or("A", 1, 5, 2), {"A": "2"}, "SerializationException"),
        (lambda p: p.moment("A"), {}, "ValidationException"),
        (lambda p: p.moment("A"), {"A": "today"}, "SerializationException"),
        (lambda p: p.items("A"), {}, "ValidationException"),
        (lambda p: p.structure("A"), {"A": []}, "SerializationException"),
    ],
)
def test_a_missing_or_invalid_member_is_named(read: Any, members: dict[str, Any], code: str) -> None:
    with pytest.raises(ApiError, match="A") as caught:
        read(Params(members))
    assert caught.value.code == code
