import gzip
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from stream.audit.outputs import rows_of
from stream.batch import LINEAGE, ROW, SEQUENCE
from stream.contracts import Sink
from stream.sink.encode import COMPRESSIONS, Format
from stream.sink.objects import ObjectsSink, ObjectsSinkConfig, checked_key
from stream.sink.partition import SinkMismatch
from tests.unit.sink.frames import rows, sequence

UNIT = "shardId-000000000003-1-9"


def sink(**options):
    return ObjectsSink(ObjectsSinkConfig(url="s3://lake/flights/", **options))


def read(file):
    return rows_of(file.key, file.body).collect()


def test_the_sink_satisfies_the_protocol():
    made: Sink = sink(name="lake")
    assert made.name == "lake"


def test_keys_consist_of_partition_unit_part_and_digest():
    encoded = sink(partition_by=["k"]).encode(rows(pl.DataFrame({"k": ["a", "b", "a"]})), UNIT)
    assert [file.key for file in encoded.files] == [
        f"k=a/{UNIT}.0.{encoded.files[0].sha256[:16]}.parquet",
        f"k=b/{UNIT}.0.{encoded.files[1].sha256[:16]}.parquet",
    ]
    assert [(file.sink, file.rows) for file in encoded.files] == [("s3", 2), ("s3", 1)]


def test_no_rows_make_no_files():
    encoded = sink().encode(rows(pl.DataFrame({"k": []}, schema={"k": pl.String})), UNIT)
    assert encoded.files == ()
    assert encoded.placement.height == 0


@pytest.mark.parametrize("kind", [pl.Struct([]), pl.List(pl.Struct([])), pl.Struct({"a": pl.Int64, "b": pl.Struct([])})])
def test_an_object_without_fields_is_refused_in_parquet_and_accepted_in_ndjson(kind):
    schema = pl.Schema({"k": kind})
    with pytest.raises(SinkMismatch, match="without fields"):
        ObjectsSinkConfig(url="s3://lake/flights/", lineage=False).check(schema)
    ObjectsSinkConfig(url="s3://lake/flights/", lineage=False, format="ndjson").check(schema)


def test_nan_and_infinity_become_null_in_ndjson():
    frame = rows(pl.DataFrame({"f": [float("nan"), float("inf"), 0.5]}))
    assert read(sink(format="ndjson", lineage=False).encode(frame, UNIT).files[0])["f"].to_list() == [None, None, 0.5]


def test_lineage_follows_the_columns_unless_switched_off_and_the_row_number_is_never_written():
    frame = rows(pl.DataFrame({"k": ["a"]}))
    assert read(sink().encode(frame, UNIT).files[0]).columns == ["k", *LINEAGE]
    assert read(sink(lineage=False).encode(frame, UNIT).files[0]).columns == ["k"]


def test_the_same_rows_give_the_same_files_whatever_their_layout_in_memory():
    frame = rows(pl.DataFrame({"k": ["a", "b", "c", "a"] * 20, "v": range(80)}))
    pieces = pl.concat([frame.slice(start, 9) for start in range(0, 80, 9)], rechunk=False)
    maker = sink(partition_by=["k"])
    assert maker.encode(pieces, UNIT).files == sink(partition_by=["k"]).encode(frame, UNIT).files


KEYS = st.none() | st.sampled_from(["a", "b", "", "../x", "c/d"])


@given(
    st.lists(st.tuples(KEYS, st.integers(1, 3)), max_size=60),
    st.sampled_from(list(Format)),
    st.sampled_from([("k",), (), ({"x": "LOWER(k)"},)]),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_every_row_is_where_the_placement_says_and_none_is_lost_duplicated_or_reordered(records, form, partition_by, limit):
    numbers = [number for number, (_, copies) in enumerate(records) for _ in range(copies)]
    keys = [records[number][0] for number in numbers]
    frame = rows(pl.DataFrame({"k": keys, "at": range(len(keys))}, schema={"k": pl.String, "at": pl.Int64}), numbers)
    encoded = sink(format=form, partition_by=partition_by, max_partitions=limit).encode(frame, UNIT)
    files = [read(file).with_columns(pl.col("at").cast(pl.Int64)) for file in encoded.files]
    assert [file.rows for file in encoded.files] == [body.height for body in files]
    assert sorted(at for body in files for at in body["at"]) == list(range(len(keys)))
    assert all(body["at"].is_sorted() for body in files)
    assert encoded.placement.height == len(keys)
    for row, file, line in encoded.placement.iter_rows():
        assert files[file][SEQUENCE][line] == sequence(row)


def test_split_files_have_numbered_parts_and_the_placement_follows():
    size = 30_000
    frame = rows(pl.DataFrame({"v": [f"{row * 2654435761 % 2**32:x}" for row in range(size)]}))
    encoded = sink(file_bytes="64KiB", partition_by=[]).encode(frame, UNIT)
    assert len(encoded.files) > 2
    assert [file.key.split(".")[1] for file in encoded.files] == [str(part) for part in range(len(encoded.files))]
    assert_frame_equal(pl.concat([read(file) for file in encoded.files]), frame.drop(ROW))
    assert encoded.placement[ROW].to_list() == list(range(size))
    assert encoded.placement.filter(pl.col("file") == 1)["line"].to_list() == list(range(encoded.files[1].rows))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
@settings(max_examples=100, deadline=None)
def test_no_value_can_leave_the_prefix(value):
    frame = rows(pl.DataFrame({"k": [value]}))
    (file,) = sink(partition_by=["k"]).encode(frame, UNIT).files
    assert checked_key(file.key) == file.key
    assert file.key.count("/") == 1


@pytest.mark.parametrize("key", ["/x", "a//b", "../x", "a/./b", "", "a b", "x" * 900, "é"])
def test_invalid_keys_are_refused(key):
    with pytest.raises(ValueError, match="is not a valid key"):
        checked_key(key)


def test_ndjson_lines_are_plain_objects():
    (file,) = sink(format="ndjson").encode(rows(pl.DataFrame({"k": ["a"], "v": [1.5]})), UNIT).files
    line = json.loads(gzip.decompress(file.body))
    assert (line["k"], line["v"], line[SEQUENCE]) == ("a", 1.5, sequence(0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "lake"}, "not a place for files"),
        ({"url": "s3://"}, "not a place for files"),
        ({"url": "s3://lake/" + "x" * 200}, "at most 200"),
        ({"format": "orc"}, "parquet"),
        ({"format": "ndjson", "compression": "snappy"}, "ndjson, which takes gzip, zstd, none"),
        ({"format": "csv", "compression": "deflate"}, "csv, which takes gzip, zstd, none"),
        ({"format": "avro", "compression": "gzip"}, "avro, which takes deflate, zstd, snappy, none"),
        ({"format": "arrow", "compression_level": 23}, "1 to 22"),
        ({"csv": {}}, "but the format is parquet"),
        ({"format": "csv", "csv": {"quoting": "sometimes"}}, "always"),
        ({"compression_level": 23}, "1 to 22"),
        ({"compression": "none", "compression_level": 1}, "no level"),
        ({"partition_by": {"d": "MAX(x)"}}, "more than one row"),
        ({"file_bytes": "12 parsecs"}, "integer"),
        ({"file_bytes": 10}, "greater than or equal"),
        ({"colour": "red"}, "Extra inputs"),
        ({"name": "Not A Name"}, "pattern"),
    ],
)
def test_invalid_options_are_refused_with_the_allowed_values(options, says):
    with pytest.raises(ValidationError, match=says):
        ObjectsSinkConfig(**{"url": "s3://lake/", **options})


def test_a_config_reads_back_from_its_json():
    config = ObjectsSinkConfig(url="file:out", partition_by={"day": "strftime(_arrival, '%Y')"}, file_bytes="64MiB")
    assert config.file_bytes == 64 * 2**20
    assert ObjectsSinkConfig(**json.loads(config.model_dump_json())) == config


def test_a_failed_check_names_the_option_at_fault():
    schema = rows(pl.DataFrame({"k": ["a"]})).schema
    with pytest.raises(SinkMismatch, match="gone") as caught:
        ObjectsSinkConfig(url="s3://lake/", partition_by=["k", "gone"]).check(schema)
    assert caught.value.path == ("partition_by", 1)


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("ndjson", pl.List(pl.Binary)),
        ("parquet", pl.Struct({"a": pl.Int128})),
        ("parquet", pl.Object()),
        ("csv", pl.List(pl.Int8)),
        ("csv", pl.Struct({"a": pl.Int8})),
        ("csv", pl.Array(pl.Int8, 2)),
        ("avro", pl.Struct({"a b": pl.Int8})),
        ("avro", pl.Struct([])),
        ("arrow", pl.List(pl.Struct([]))),
    ],
)
def test_columns_without_a_representation_are_refused_before_any_row_is_read(form, dtype):
    with pytest.raises(SinkMismatch, match="column 'x'") as caught:
        ObjectsSinkConfig(url="s3://lake/", format=form).check(pl.Schema({"x": dtype, "y": pl.Int8()}))
    assert caught.value.hint


def test_a_single_column_of_separated_values_needs_a_text_for_null():
    schema = pl.Schema({"x": pl.String()})
    options = {"url": "s3://lake/", "format": "csv", "lineage": False}
    with pytest.raises(SinkMismatch, match="readers skip blank lines") as caught:
        ObjectsSinkConfig(**options).check(schema)
    assert caught.value.path == ("csv", "null")
    ObjectsSinkConfig(**options, csv={"null": "\\N"}).check(schema)


def test_the_ending_of_a_file_says_what_it_is():
    frame = rows(pl.DataFrame({"k": ["a"]}))
    endings = {(form, codec): sink(format=form, compression=codec).encode(frame, UNIT).files[0].key.split(".", 3)[3]
               for form, codecs in COMPRESSIONS.items() for codec in codecs}  # fmt: skip
    assert {ending for (form, _), ending in endings.items() if form not in {"csv", "ndjson"}} == {"parquet", "avro", "arrow"}
    assert [endings["csv", codec] for codec in ("gzip", "zstd", "none")] == ["csv.gz", "csv.zst", "csv"]


def test_options_of_separated_values_are_recorded_only_where_they_are_given():
    assert "csv" not in json.loads(sink().config.model_dump_json())
    config = ObjectsSinkConfig(url="s3://lake/", format="csv", csv={"delimiter": "\t", "header": False})
    assert ObjectsSinkConfig(**json.loads(config.model_dump_json())) == config


def test_a_frame_without_columns_to_write_is_refused():
    with pytest.raises(SinkMismatch, match="no column is left"):
        ObjectsSinkConfig(url="s3://lake/", lineage=False).check(pl.Schema({ROW: pl.UInt32()}))


def test_hive_readers_read_the_partition_values_back(tmp_path):
    values = ["a", "..", "__x", "a/b", "é ~", "%2E", None, "."]
    encoded = sink(partition_by=[{"part": "k"}]).encode(rows(pl.DataFrame({"k": values, "v": range(len(values))})), UNIT)
    for file in encoded.files:
        path = tmp_path / file.key
        path.parent.mkdir()
        path.write_bytes(file.body)
    read = pl.scan_parquet(tmp_path, hive_partitioning=True).sort("v").select("k", "part").collect()
    assert read["part"].to_list() == read["k"].to_list() == values
