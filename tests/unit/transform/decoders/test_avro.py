import contextlib
import io
import json
import uuid
import zlib
from datetime import UTC, date, datetime, time
from decimal import Decimal

import fastavro
import pytest
from pydantic import ValidationError

from stream.transform.decoders.avro import Avro
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.types import parse_schema
from tests.frames import batch, ticks
from tests.kernel import no_kernel

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


def test_invalid_data_are_rejected_one_by_one():
    good = packed(SCHEMA, {"a": 1, "b": "x"})[0]
    got = run([good, b"", good[:-1], good + b"\x00", b"\x02\x04", b"\x02\x02\x02\xff", good])
    assert got.frame["_row"].to_list() == [0, 6]
    assert got.settled["reason"].to_list() == ["empty_record", "avro_datum", "trailing_bytes", "avro_datum", "avro_datum"]


def test_numbers_and_times_out_of_range_are_rejected():
    schema = record(("i", "int", {}), ("at", {"type": "long", "logicalType": "timestamp-millis"}, {}))
    wide = record(("i", "long", {}), ("at", "long", {}))
    got = run(packed(wide, {"i": 2**40, "at": 0}, {"i": 1, "at": 2**62}, {"i": 1, "at": 0}), schema)
    assert got.frame["_row"].to_list() == [2]


def test_records_with_the_header_of_the_glue_registry_are_read():
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


def logical(kind, name, **more):
    return {"type": kind, "logicalType": name, **more}


TWO = {"precision": 10, "scale": 2}
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
MILLIS = 1_704_067_200_000


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (logical("int", "time-millis"), time(1, 2, 3), 3_723_000),
        (logical("long", "time-micros"), time(1, 2, 3), 3_723_000_000),
        (logical("long", "local-timestamp-millis"), datetime(2024, 1, 1), MILLIS),  # noqa: DTZ001 - that is what it is
        (logical("long", "timestamp-nanos"), 17, 17),
        (logical("long", "nobody's"), 17, 17),
        ({"type": "fixed", "name": "u", "size": 16, "logicalType": "uuid"}, uuid.UUID(int=7).bytes, uuid.UUID(int=7).bytes),
    ],
)
@pytest.mark.parametrize("kernel", [True, False])
def test_a_logical_type_without_a_column_type_is_read_as_its_base_type(kind, given, expected, kernel):
    records = packed(record(("v", kind, {})), {"v": given})
    with contextlib.nullcontext() if kernel else no_kernel():
        done = run(records, record(("v", kind, {})))
    assert done.frame["v"].to_list() == [expected]


@pytest.mark.parametrize(
    ("writer", "reader", "given", "expected"),
    [
        (logical("long", "timestamp-millis"), "long", NEW_YEAR, MILLIS),
        ("long", logical("long", "timestamp-millis"), MILLIS, NEW_YEAR),
        (logical("long", "timestamp-millis"), logical("long", "timestamp-micros"), NEW_YEAR, NEW_YEAR),
        (logical("int", "date"), "int", date(2024, 1, 1), 19723),
        ("int", logical("int", "date"), 19723, date(2024, 1, 1)),
        (logical("int", "date"), "double", date(2024, 1, 1), 19723.0),
        (logical("bytes", "decimal", **TWO), "bytes", Decimal("1.23"), b"{"),
        ("bytes", logical("bytes", "decimal", **TWO), b"{", Decimal("1.23")),
        (["null", "long"], ["null", logical("long", "timestamp-millis")], MILLIS, NEW_YEAR),
        ({"type": "array", "items": logical("long", "timestamp-millis")}, {"type": "array", "items": "long"}, [NEW_YEAR], [MILLIS]),
        (logical("bytes", "decimal", precision=10, scale=4), logical("bytes", "decimal", **TWO), Decimal("1.2300"), Decimal("1.23")),
    ],
)
@pytest.mark.parametrize("kernel", [True, False])
def test_the_readers_logical_type_decides_the_meaning_of_a_value(writer, reader, given, expected, kernel):
    with contextlib.nullcontext() if kernel else no_kernel():
        done = evolved(record(("v", writer, {})), record(("v", reader, {})), {"v": given})
    assert done.frame["v"].to_list() == [expected]


@pytest.mark.parametrize(
    ("writer", "reader", "given"),
    [
        (logical("bytes", "decimal", precision=10, scale=4), logical("bytes", "decimal", **TWO), Decimal("1.2345")),
        ("int", logical("long", "timestamp-millis"), 17),
        ("int", "string", 17),
        (["null", "int"], "int", None),
    ],
)
def test_a_value_the_reader_cannot_hold_is_rejected_and_never_null_or_rounded(writer, reader, given):
    done = evolved(record(("v", writer, {})), record(("v", reader, {})), {"v": given})
    assert done.settled["reason"].to_list() == ["avro_datum"]


def test_zero_fits_a_decimal_of_any_precision():
    reader = record(("v", logical("bytes", "decimal", precision=1, scale=1), {}))
    done = evolved(record(("v", logical("bytes", "decimal", precision=4, scale=0), {})), reader, {"v": Decimal(0)})
    assert done.frame["v"].to_list() == [Decimal(0)]


PART = {"type": "record", "name": "p", "fields": [{"name": "x", "type": "bytes", "default": "\u0002"}, {"name": "n", "type": "int"}]}


@pytest.mark.parametrize(
    ("kind", "default", "expected"),
    [
        (logical("long", "timestamp-millis"), MILLIS, NEW_YEAR),
        (logical("int", "date"), 19723, date(2024, 1, 1)),
        (logical("bytes", "decimal", **TWO), "{", Decimal("1.23")),
        ("bytes", "\u00ff", b"\xff"),
        ({"type": "array", "items": logical("int", "date")}, [19723], [date(2024, 1, 1)]),
        ({"type": "record", "name": "i", "fields": [{"name": "x", "type": "bytes"}]}, {"x": "\u0001"}, {"x": b"\x01"}),
        (["null", "bytes"], None, None),
        (PART, {"n": 1}, {"x": b"\x02", "n": 1}),
        ({"type": "record", "name": "o", "fields": [{"name": "i", "type": PART, "default": {"n": 3}}]}, {}, {"i": {"x": b"\x02", "n": 3}}),
    ],
)
def test_a_field_missing_from_the_writer_gets_its_default(kind, default, expected):
    done = evolved(record(("a", "long", {})), record(("a", "long", {}), ("v", kind, {"default": default})), {"a": 1})
    assert done.frame["v"].to_list() == [expected]


@pytest.mark.parametrize(("kind", "default"), [(logical("bytes", "decimal", **TWO), "\x7f" * 8), (PART, {"x": "\x02"})])
def test_a_default_that_its_type_cannot_hold_is_refused_before_any_record_is_read(kind, default):
    schema = record(("v", kind, {"default": default}))
    with pytest.raises(SchemaMismatch, match="default"):
        Avro.model_validate({"schema": json.dumps(schema)}).output(None)


def evolved(writer, reader, datum):
    """What becomes of ``datum``, written under one schema and read under another."""
    head = b"\x03\x00" + VERSION.bytes
    return run([head + packed(writer, datum)[0]], reader, header="glue", writers={str(VERSION): json.dumps(writer)})


def test_schemas_can_be_in_files():
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
def test_schemas_without_a_column_form_are_refused(schema, says):
    with pytest.raises(SchemaMismatch, match=says):
        Avro.model_validate({"schema": json.dumps(schema)}).output(None)


def test_the_name_of_a_file_in_place_of_a_schema_is_refused_with_the_option_for_it():
    with pytest.raises(SchemaMismatch, match="is not JSON") as refused:
        Avro.model_validate({"schema": "order.avsc"}).output(None)
    assert "`schema_file` names a file" in refused.value.hint


def test_a_schema_of_the_source_is_refused():
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
def test_contradictory_options_are_refused(options):
    with pytest.raises(ValidationError):
        Avro.model_validate(options)
