import io
import json
import uuid
import zlib
from datetime import UTC, date, datetime
from decimal import Decimal

import fastavro
import pytest
from pydantic import ValidationError

from stream.transform.decoders.avro import Avro
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.types import parse_schema
from tests.frames import batch, ticks

VERSION = uuid.UUID("12345678-1234-1234-1234-123456789abc")


def record(*fields):
    return {"type": "record", "name": "r", "fields": [{"name": name, "type": kind, **more} for name, kind, more in fields]}


SCHEMA = record(("a", "long", {}), ("b", ["null", "string"], {"default": None}))


def packed(schema, *data):
    out = []
    for datum in data:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), datum)
        out.append(buffer.getvalue())
    return out


def run(records, schema=SCHEMA, resources=None, **options):
    text = {} if "schema_file" in options else {"schema": json.dumps(schema)}
    decoder = Avro.model_validate({**text, **options})
    return compile_chain(decoder, None, [], resources or Resources(), ticks()).run(batch(records), "s")


def test_every_type_becomes_a_column():
    inner = {"type": "record", "name": "i", "fields": [{"name": "x", "type": "int"}]}
    schema = record(
        ("s", "string", {}),
        ("i", "int", {}),
        ("f", "float", {}),
        ("d", "double", {}),
        ("y", "bytes", {}),
        ("t", "boolean", {}),
        ("e", {"type": "enum", "name": "e", "symbols": ["A", "B"]}, {}),
        ("x", {"type": "fixed", "name": "x", "size": 2}, {}),
        ("at", {"type": "long", "logicalType": "timestamp-millis"}, {}),
        ("on", {"type": "int", "logicalType": "date"}, {}),
        ("n", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, {}),
        ("u", {"type": "string", "logicalType": "uuid"}, {}),
        ("l", {"type": "array", "items": ["null", inner]}, {}),
        ("m", {"type": "map", "values": "long"}, {}),
    )
    datum = {
        "s": "é",
        "i": 5,
        "f": 0.5,
        "d": 1.25,
        "y": b"\xff",
        "t": True,
        "e": "B",
        "x": b"ab",
        "at": datetime(2013, 1, 1, tzinfo=UTC),
        "on": date(2013, 1, 1),
        "n": Decimal("12.30"),
        "u": VERSION,
        "l": [{"x": 1}, None],
        "m": {"z": 1, "a": 2},
    }
    got = run(packed(schema, datum), schema)
    (row,) = got.frame.drop("_shard", "_sequence", "_subsequence", "_arrival", "_row").to_dicts()
    assert row == {**datum, "u": str(VERSION), "m": [{"key": "a", "value": 2}, {"key": "z", "value": 1}]}


def test_bad_data_are_rejected_one_by_one():
    good = packed(SCHEMA, {"a": 1, "b": "x"})[0]
    got = run([good, b"", good[:-1], good + b"\x00", b"\x02\x04", b"\x02\x02\x02\xff", good])
    assert got.frame["_row"].to_list() == [0, 6]
    assert got.settled["reason"].to_list() == ["empty_record", "avro_datum", "trailing_bytes", "avro_datum", "avro_datum"]


def test_numbers_and_times_beyond_their_types():
    schema = record(("i", "int", {}), ("at", {"type": "long", "logicalType": "timestamp-millis"}, {}))
    wide = record(("i", "long", {}), ("at", "long", {}))
    got = run(packed(wide, {"i": 2**40, "at": 0}, {"i": 1, "at": 2**62}, {"i": 1, "at": 0}), schema)
    assert got.frame["_row"].to_list() == [2]


def test_the_header_of_the_glue_registry():
    old = record(("a", "int", {}))
    body = packed(old, {"a": 7})[0]
    head = bytes([3, 0]) + VERSION.bytes
    squeezed = bytes([3, 5]) + VERSION.bytes
    bomb = squeezed + zlib.compress(bytes(70_000_000))
    records = [head + body, squeezed + zlib.compress(body), b"\x03\x00", b"\x02" + head[1:] + body, bytes([3, 0]) + bytes(16) + body]
    records += [squeezed + b"junk", squeezed + zlib.compress(body)[:-2], bomb]
    got = run(records, header="glue", writers={str(VERSION): json.dumps(old)})
    assert got.frame.select("a", "b").rows() == [(7, None)] * 2
    assert got.settled["reason"].to_list() == [
        "avro_header",
        "avro_header",
        "unknown_schema_version",
        "bad_compression",
        "bad_compression",
        "decompressed_too_large",
    ]


def test_schemas_in_files():
    files = {"r.avsc": json.dumps(SCHEMA).encode(), "w.avsc": json.dumps(record(("a", "int", {}))).encode()}
    options = {"schema_file": "r.avsc", "header": "glue", "versions": {str(VERSION): "w.avsc"}}
    assert Avro.model_validate(options).file_urls() == ("r.avsc", "w.avsc")
    got = run([bytes([3, 0]) + VERSION.bytes + b"\x0e"], resources=Resources(files=files), **options)
    assert got.frame["a"].to_list() == [7]
    with pytest.raises(SchemaMismatch, match="is not loaded"):
        run([], schema_file="other.avsc")


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("long", "not one of records"),
        (record(("a", ["long", "string"], {})), "no single type"),
        (record(("a", {"type": "array", "items": "null"}, {})), "take no bytes"),
        (record(("a", ["null", "r"], {})), "by its name"),
        (record(("a", "lnog", {})), "cannot be read"),
        (record(("_row", "long", {})), "reserved"),
    ],
)
def test_schemas_that_cannot_be_columns(schema, says):
    with pytest.raises(SchemaMismatch, match=says):
        Avro.model_validate({"schema": json.dumps(schema)}).output(None)


def test_a_schema_of_the_source_has_no_use():
    with pytest.raises(SchemaMismatch, match="takes its columns"):
        Avro.model_validate({"schema": json.dumps(SCHEMA)}).output(parse_schema({"a": "int64"}))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schema": "{}", "schema_file": "f"},
        {"schema": "{}", "header": "glue"},
        {"schema": "{}", "writers": {str(VERSION): "{}"}},
        {"schema": "{}", "header": "glue", "writers": {"x": "{}"}},
    ],
)
def test_options_that_do_not_go_together(options):
    with pytest.raises(ValidationError):
        Avro.model_validate(options)
