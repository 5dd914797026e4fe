"""Valid records of every decoder, with a schema that has one column of each type, and the parts of hostile records."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import fastavro

from stream.transform.types import RecordSchema, parse_schema
from tests.unit.transform.decoders import test_dynamodb_stream as dynamodb
from tests.unit.transform.decoders import test_protobuf as protobuf

SCHEMA: Final = parse_schema(
    {
        "a": "int64",
        "s": "string?",
        "small": "int8?",
        "f": "float32?",
        "t": "timestamp?",
        "e": "timestamp(ms)?",
        "d": "decimal(6,2)?",
        "b": "binary?",
        "day": "date?",
        "l": "list<timestamp?>?",
        "o": "object{x: int8?, y: date?}?",
        "j": "json?",
    }
)
FULL: Final = {
    "a": 12, "s": "Flugzeug ✈ \"x\"", "small": -3, "f": 1.5, "t": "2013-01-01T05:00:00-05:00", "e": 1357020000000, "d": 1234.25,
    "b": "eHl6", "day": "2013-01-01", "l": ["2013-01-01", None, "2013-01-01T00:00:00.123456Z"], "o": {"x": 1, "y": "2013-01-01"},
    "j": [1, {"k": None}], "new": {"deep": [1, 2, [3]]},
}  # fmt: skip
OBJECTS: Final = [json.dumps(FULL, ensure_ascii=False).encode(), json.dumps(FULL).encode(), b'{"a":1}', b' {"a": -1, "s": null, "l": []} ']

CSV_SCHEMA: Final = parse_schema({"a": "int64", "s": "string?", "t": "timestamp?", "d": "decimal(6,2)?", "f": "float64?", "b": "bool?"})
AVRO_SCHEMA: Final = {
    "type": "record",
    "name": "r",
    "fields": [
        {"name": "a", "type": "long"},
        {"name": "s", "type": ["null", "string"]},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "fixed", "type": {"type": "fixed", "name": "f8", "size": 4}},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "kind", "type": {"type": "enum", "name": "k", "symbols": ["JET", "PROP"]}},
        {"name": "l", "type": {"type": "array", "items": ["null", "double"]}},
        {"name": "m", "type": {"type": "map", "values": "int"}},
        {
            "name": "o",
            "type": {"type": "record", "name": "o", "fields": [{"name": "x", "type": "float"}, {"name": "y", "type": "boolean"}]},
        },
    ],
}


def _avro(**changed: Any) -> bytes:
    datum = {
        "a": 7, "s": "x", "d": Decimal("123.45"), "fixed": b"abcd", "t": datetime(2013, 1, 1, tzinfo=UTC), "day": 15706,
        "id": "12345678-1234-5678-1234-567812345678", "kind": "JET", "l": [1.0, None], "m": {"k": 1}, "o": {"x": 1.0, "y": True}, **changed,
    }  # fmt: skip
    target = io.BytesIO()
    fastavro.schemaless_writer(target, fastavro.parse_schema(AVRO_SCHEMA), datum)
    return target.getvalue()


def _logs(*messages: str, **changed: Any) -> bytes:
    events = [{"id": str(at), "timestamp": 1357020000000 + at, "message": message} for at, message in enumerate(messages)]
    document = {"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g", "logStream": "s", "subscriptionFilters": ["f"], **changed}
    return json.dumps({**document, "logEvents": events}).encode()


def _dms(**changed: Any) -> bytes:
    meta = {
        "timestamp": "2013-01-01T06:00:00.000000Z", "record-type": "data", "operation": "insert", "schema-name": "public",
        "table-name": "t", "transaction-id": 7, **changed,
    }  # fmt: skip
    return json.dumps({"data": FULL, "before-image": {**FULL, "a": 0}, "metadata": meta}).encode()


def _changes() -> list[bytes]:
    made = [dynamodb.change(), dynamodb.change("REMOVE", None, dynamodb.ITEM), dynamodb.change("MODIFY", dynamodb.ITEM, dynamodb.ITEM)]
    return [json.dumps(each).encode() for each in made]


_STAMP: Final = datetime(2013, 1, 1, tzinfo=UTC)
CORPUS: Final[dict[str, tuple[dict[str, Any], RecordSchema | None, list[bytes]]]] = {
    "avro": (
        {"schema": json.dumps(AVRO_SCHEMA)},
        None,
        [_avro(), _avro(s=None, l=[], m={}), _avro(m={"a": 1, "b": 2}, d=Decimal("-1.00"))],
    ),
    "cloudwatch_logs": (
        {"compression": "none"},
        SCHEMA,
        [_logs(*(each.decode() for each in OBJECTS)), _logs(OBJECTS[2].decode()), _logs(messageType="CONTROL_MESSAGE")],
    ),
    "csv": ({}, CSV_SCHEMA, [b'1,x,2013-01-01T00:00:00Z,1.25,0.5,true\n2,"y, ""z""",,,,\r\n', b"3,,2013-01-01,-7,1e3,false"]),
    "dms": ({"before_image": "before-image"}, SCHEMA, [_dms(), _dms(operation="update"), _dms(**{"record-type": "control"})]),
    "dynamodb_stream": ({"image": "both"}, dynamodb.SCHEMA, _changes()),
    "json": ({"unknown": "capture"}, SCHEMA, OBJECTS),
    "json_lines": ({}, SCHEMA, [b"\n".join(OBJECTS), OBJECTS[0] + b"\n\n", OBJECTS[2]]),
    "protobuf": (
        {"message": "f.Flight", "descriptors": protobuf.TEXT},
        None,
        [
            protobuf.flight(number=1, gate="A", kind=1, at=_STAMP, tags={"k": 1, "l": 2}, raw=b"\xff", share=0.5).SerializeToString(),
            protobuf.flight(plane={"tail": "N1", "seats": [1, 2, 300]}).SerializeToString(),
        ],
    ),
    "raw": ({}, None, [b"any bytes", OBJECTS[0]]),
}
"""Options, schema and good records by decoder."""

TOKENS: Final = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\n", b"\r", b"\x00", b" ", b"null", b"true", b"-", b"0", b"1e999", b"1e-999",
    b"NaN", b"Infinity", b"-0", b"9" * 40, b"9223372036854775808", b"18446744073709551616", b"0.1", b"1.0", b'"a":', b'"a":1,', b'"r":{}',
    b'},"q":{', b"}\n{", b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b"\xc3", b"\xed\xa0\x80", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8",
    b"[" * 140, b'{"a":' * 140, b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:60Z", b"2013-02-30",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x7f" * 20, b'{"N": "1"}', b'""',
    b"//", b"'",
)  # fmt: skip
"""What parsers stumble over."""
