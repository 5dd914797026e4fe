"""Records and options made to block or exhaust a worker: each must have a clear outcome in bounded time."""

import gzip
import io
import json

import polars as pl
import pytest

from stream.sink.objects import ObjectsSink, ObjectsSinkConfig
from stream.transform.decoders import DECODERS
from stream.transform.decoders.csv import Csv
from stream.transform.decompress import Compression, decompress
from stream.transform.engine import compile_chain
from stream.transform.expressions import compile_expression
from stream.transform.patterns import MAX_REPEATED, check_pattern, repetitions
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.explode import Explode
from stream.transform.stages.parse import Parse
from stream.transform.types import parse_schema
from tests.frames import apply, batch, rows, ticks
from tests.fuzz.corpus import CORPUS

pytestmark = pytest.mark.timeout(300)

MEGABYTE = 1_000_000


def fate(decoder, columns, *records, **options):
    config = DECODERS[decoder].model_validate(options)
    got = compile_chain(config, columns and parse_schema(columns), [], Resources(), ticks()).run(batch(records), "s")
    assert sorted([*got.frame["_row"].unique(), *got.settled["_row"]]) == list(range(len(records)))
    return dict(got.settled.select("_row", "reason").iter_rows())


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(.*a){20}$", r"^(a|a)*$", r"^(?:a?){200}a{200}$", r"(.*,){50}P"])
def test_patterns_that_explode_in_backtracking_engines_take_linear_time(pattern):
    frame = rows({"x": ["a" * MEGABYTE + "!"]})
    _, refused = apply(Parse(column="x", regex=f"(?P<found>{pattern})"), frame)
    assert refused == {0: "parse_failed:x"}


@pytest.mark.parametrize("pattern", ["[01]*1[01]{8000}x", "(?:(?:a{0,100}){0,100}){0,100}", "(x{40}){51}", r"\w{1000}x", "a{9999999999}"])
def test_patterns_that_are_too_expensive_are_refused(pattern):
    with pytest.raises(SchemaMismatch):
        check_pattern(pattern, ())


@pytest.mark.parametrize("expression", ["x ~ '1[01]{8000}x'", "REGEXP_LIKE(x, '(a{100}){100}')", "x RLIKE 'a{5000}'"])
def test_patterns_in_expressions_have_the_same_limits(expression):
    with pytest.raises(SchemaMismatch, match=f"more than {MAX_REPEATED} characters"):
        compile_expression(expression, pl.Schema({"x": pl.String()}))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("ab*", 0),
        ("a{2}(?:bc){2}", 6),
        (r"\d{4}-\d\d", 4),
        (r"[\]{5}]{3}", 3),
        (r"\p{L}{3}", 3),
        (r"a\{3}", 0),
        ("(?P<n>(?i:ab){1,3}){2}", 12),
        ("a{2,}", 2),
        (")a{3}", 3),
    ],
)
def test_nested_repetitions_are_multiplied(pattern, expected):
    assert repetitions(pattern) == expected


def test_a_record_of_many_small_gzip_members_takes_linear_time():
    member = gzip.compress(b"x", mtime=0)
    count = 4 * MEGABYTE // len(member)
    assert decompress(member * count, Compression(codec="gzip")) == b"x" * count
    assert decompress(member * count + member[:-1], Compression(codec="gzip")) == "bad_compression"
    assert decompress(member * 3, Compression(codec="gzip", max_bytes=2)) == "decompressed_too_large"


@pytest.mark.parametrize("length", [17, MEGABYTE])
def test_a_decimal_of_a_megabyte_is_refused_at_once(length):
    schema = {
        "type": "record",
        "name": "r",
        "fields": [{"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38}}],
    }
    record = io.BytesIO()
    number = length << 1
    while number > 127:
        record.write(bytes([number & 127 | 128]))
        number >>= 7
    record.write(bytes([number]) + b"\x7f" * length)
    assert fate("avro", None, record.getvalue(), schema=json.dumps(schema)) == {0: "avro_datum"}


@pytest.mark.parametrize("decoder", ["json", "csv"])
def test_a_schema_of_five_thousand_columns_works(decoder):
    schema = {f"c{at}": "int64?" for at in range(5000)}
    good = json.dumps(dict.fromkeys(schema, 1)).encode() if decoder == "json" else (",".join(schema) + "\n" + ",".join("1" * 5000)).encode()
    bad = good.replace(b"1}", b'"x"}') if decoder == "json" else good[:-1] + b"x"
    options = {} if decoder == "json" else {"header": True}
    assert fate(decoder, schema, *[good] * 5, bad, *[good] * 5, **options) == {5: "wrong_type:c4999"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"c":' + b"[" * MEGABYTE + b"]" * MEGABYTE + b"}", "json_too_deep"),
        (b'{"c":' + b'{"c":' * 200_000 + b"1" + b"}" * 200_001, "json_too_deep"),
        (b'{"c":[' + b"[[1]]," * 200_000 + b"1]}", "wrong_type:c"),
        (b'{"c":' + b"9" * MEGABYTE + b"}", "wrong_type:c"),
        (b'{"c":1e' + b"9" * MEGABYTE + b"}", "wrong_type:c"),
        (b'{"c":"' + b"\\u0041" * 200_000 + b'"}', "wrong_type:c"),
    ],
    ids=["lists", "objects", "broad", "digits", "exponent", "escapes"],
)
def test_a_huge_nested_record_is_rejected_alone(record, reason):
    assert fate("json", {"c": "int64"}, b'{"c":1}', record, b'{"c":2}') == {1: reason}


@pytest.mark.parametrize("decoder", ["cloudwatch_logs", "dms", "dynamodb_stream"])
def test_a_deep_envelope_is_refused(decoder):
    record = b'{"data":' + b"[" * MEGABYTE + b"]" * MEGABYTE + b"}"
    options = {**CORPUS[decoder][0]}
    assert fate(decoder, {"c": "int64"}, record, **options) == {0: "json_too_deep"}


def test_lists_that_multiply_are_refused_before_any_row_is_made():
    frame = rows({"a": [[1] * 1_000, [1, 2]], "b": [[1] * 1_000, [3, 4]]})
    first = Explode(column="a").bind(frame.schema, Resources())(frame)
    assert first.rejects is None
    second = Explode(column="b")
    done = second.bind(first.frame.schema, Resources())(first.frame)
    assert done.frame.select("_row", "a", "b").rows() == [(1, 1, 3), (1, 1, 4), (1, 2, 3), (1, 2, 4)]
    assert done.rejects.rows() == [(0, "too_many_rows:b")]


def test_other_lists_that_explode_would_repeat_count_towards_the_limit():
    frame = rows({"a": [[1] * 60_000, [1]], "b": [[1] * 60_000, [3]]})
    kept, refused = apply(Explode(column="a"), frame)
    assert kept == [{"a": 1, "b": [3]}]
    assert refused == {0: "too_many_rows:a"}


def test_a_list_over_the_limit_is_refused_and_one_at_the_limit_is_not():
    frame = rows({"a": [[1, 2, 3], [1, 2], []]})
    kept, refused = apply(Explode(column="a", max_rows=2, empty="null"), frame)
    assert kept == [{"a": 1}, {"a": 2}, {"a": None}]
    assert refused == {0: "too_many_rows:a"}


def test_partitions_beyond_the_limit_share_one_directory():
    frame = rows({"key": pl.int_range(MEGABYTE, eager=True).cast(pl.String)})
    encoded = ObjectsSink(ObjectsSinkConfig(url="file:x", partition_by=["key"], max_partitions=20)).encode(frame, "u")
    assert len(encoded.files) == 21
    assert sum(file.rows for file in encoded.files) == MEGABYTE
    assert [file.rows for file in encoded.files if "__overflow__" in file.key] == [MEGABYTE - 20]


def test_records_decode_the_same_in_small_windows():
    schema = parse_schema({"a": "int64"})
    frame = batch([b"1\n" * 9, b"x", b"2"] * 20).frame
    whole = compile_chain(Csv(), schema, [], Resources(), ticks()).run(batch(frame["_data"].to_list()), "s")

    class Small(Csv):
        window_bytes = 25

    parts = compile_chain(Small(), schema, [], Resources(), ticks()).run(batch(frame["_data"].to_list()), "s")
    assert parts.frame.equals(whole.frame)
    assert parts.settled.equals(whole.settled)
