import gzip
import hashlib
import io
from datetime import UTC, date, datetime, timedelta

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stream.sink.encode import COMPRESSIONS, ROW_GROUP_ROWS, Compression, Encoder, Format, parquet

EVERY_TYPE = pl.DataFrame(
    {
        "text": ["a", None, ""],
        "number": [1, 2, None],
        "big": [2**64 - 1, 0, 1],
        "real": [1.5, float("nan"), None],
        "flag": [True, None, False],
        "raw": [b"\xff\x00", b"", None],
        "day": [date(2013, 1, 1), None, date(1970, 1, 1)],
        "when": [datetime(2013, 1, 1, 5, tzinfo=UTC)] * 3,
        "naive": [datetime.fromisoformat("2013-01-01T05:00:00.000123")] * 3,
        "span": [timedelta(seconds=1), None, timedelta(days=-1)],
        "list": [["a", None], [], None],
        "struct": [{"x": 1, "y": "z"}, None, {"x": None, "y": ""}],
        "money": pl.Series(["1.50", None, "-2.25"]).cast(pl.Decimal(10, 2)),
    },
    schema_overrides={"big": pl.UInt64},
)


def test_parquet_reads_back_as_the_same_frame():
    assert_frame_equal(pl.read_parquet(parquet(EVERY_TYPE)), EVERY_TYPE)


def test_parquet_without_durations_carries_no_writer_specific_schema():
    body = parquet(EVERY_TYPE.drop("span"))
    assert pq.read_metadata(pa.BufferReader(body)).metadata is None
    assert_frame_equal(pl.read_parquet(body), EVERY_TYPE.drop("span"))


def test_categories_and_wide_integers_become_text():
    frame = pl.DataFrame({"c": pl.Series(["x", "y"], dtype=pl.Categorical), "w": pl.Series([2**70, -1], dtype=pl.Int128)})
    assert pl.read_parquet(parquet(frame)).rows() == [("x", str(2**70)), ("y", "-1")]


def test_the_bytes_do_not_depend_on_the_layout_of_rows_in_memory():
    whole = pl.concat([EVERY_TYPE] * 50)
    pieces = pl.concat([whole.slice(start, 7) for start in range(0, whole.height, 7)], rechunk=False)
    gathered = pl.concat([whole, whole])[list(range(whole.height))]
    for form, codecs in COMPRESSIONS.items():
        rows = [each.drop("list", "struct") if form is Format.CSV else each for each in (pieces, whole, gathered)]
        for codec in codecs:
            assert len({Encoder(form, codec).encode(each) for each in rows}) == 1, (form, codec)


@pytest.mark.parametrize(
    ("form", "digest"),
    [
        (Format.CSV, "e3c7c9f5871b0767"),
        (Format.AVRO, "625b0568e31e3264"),
        (Format.ARROW, "ed370e6ea8f76289"),
    ],
)
def test_bytes_are_those_of_earlier_builds_so_that_these_finish_what_others_began(form, digest):
    """If this fails after a dependency was updated, units in flight during the update are written anew: say so in the change log."""
    rows = pl.concat([EVERY_TYPE.drop("list", "struct")] * 3, rechunk=False)
    assert hashlib.sha256(Encoder(form, Compression.NONE).encode(rows)).hexdigest()[:16] == digest


def test_categories_in_another_order_give_the_same_bytes():
    one = pl.DataFrame({"c": pl.Series(["b", "a"], dtype=pl.Enum(["a", "b"]))})
    other = pl.DataFrame({"c": pl.Series(["b", "a"], dtype=pl.Enum(["b", "a"]))})
    assert parquet(one) == parquet(other)


def test_repetitive_values_inside_lists_and_structs_get_a_dictionary():
    rows = [{"who": {"name": f"n{at}", "city": "Lyon"}, "lines": [{"sku": f"s{at}", "count": at % 3}] * (at % 2)} for at in range(400)]
    group = pq.read_metadata(pa.BufferReader(parquet(pl.DataFrame(rows)))).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]

    assert [column.path_in_schema for column in columns if column.has_dictionary_page] == ["who.city", "lines.list.element.count"]


def test_only_repetitive_columns_get_a_dictionary():
    frame = pl.DataFrame({"id": [f"id-{row}" for row in range(5000)], "kind": ["a", "b"] * 2500})
    group = pq.read_metadata(pa.BufferReader(parquet(frame))).row_group(0)
    assert [group.column(index).has_dictionary_page for index in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("compression", "unpack", "ending"),
    [
        (Compression.GZIP, gzip.decompress, ".ndjson.gz"),
        (Compression.ZSTD, lambda body: pa.input_stream(pa.BufferReader(body), compression="zstd").read(), ".ndjson.zst"),
        (Compression.NONE, bytes, ".ndjson"),
    ],
)
def test_ndjson_reads_back_line_by_line(compression, unpack, ending):
    encoder = Encoder(Format.NDJSON, compression)
    frame = EVERY_TYPE.select("text", "number", "big", "flag", "list", "struct")
    read = pl.read_ndjson(io.BytesIO(unpack(encoder.encode(frame))), schema=frame.schema)
    assert_frame_equal(read, frame)
    assert encoder.extension == ending


def test_ndjson_holds_bytes_as_base64_and_times_as_iso_text():
    body = Encoder(Format.NDJSON, Compression.NONE).encode(EVERY_TYPE.select("raw", "when").head(1))
    assert body == b'{"raw":"/wA=","when":"2013-01-01T05:00:00+00:00"}\n'


def test_gzip_contains_no_timestamp():
    body = Encoder(Format.NDJSON, Compression.GZIP).encode(EVERY_TYPE.select("text"))
    assert body[4:8] == b"\0\0\0\0"


def noise(rows):
    return pl.DataFrame({"n": range(rows), "t": [f"{row * 2654435761 % 2**32:x}" for row in range(rows)]})


@given(st.integers(1, 3000), st.integers(200, 20_000))
@settings(max_examples=40, deadline=None)
def test_split_files_hold_all_rows_in_order_and_respect_the_target(rows, target):
    frame, encoder = noise(rows), Encoder(Format.NDJSON, Compression.GZIP)
    files = list(encoder.encode_split(frame, target))
    assert sum(height for height, _ in files) == rows
    read = b"".join(gzip.decompress(body) for _, body in files)
    assert_frame_equal(pl.read_ndjson(io.BytesIO(read)), frame)
    assert all(height == 1 or len(body) <= target * 1.25 for height, body in files)


def test_a_file_within_the_target_is_not_split():
    assert len(list(Encoder().encode_split(noise(1000), 2**20))) == 1


def test_lists_of_objects_with_text_are_written() -> None:
    lines = [[{"sku": "a text that is longer than a view holds", "price": 1.5}], [], None, [{"sku": "b", "price": None}] * 3]
    frame = pl.DataFrame({"lines": lines, "tags": [["x", None], None, [], ["y"]]})

    read = pl.read_parquet(parquet(frame[1:]))

    assert read.equals(frame[1:])


NOT_A_NUMBER = float("nan")


@pytest.mark.parametrize(
    ("kind", "values", "path"),
    [
        (pl.Float64(), [1.5, NOT_A_NUMBER, 1.5], "f"),
        (pl.Float32(), [1.5, None, NOT_A_NUMBER], "f"),
        (pl.Struct({"x": pl.Float64(), "n": pl.Int8()}), [{"x": NOT_A_NUMBER, "n": 1}, {"x": 1.5, "n": 2}, None], "f.x"),
        (pl.List(pl.Struct({"x": pl.Float32()})), [[{"x": 1.5}, {"x": NOT_A_NUMBER}], [], None], "f.list.element.x"),
    ],
)
def test_columns_with_nan_have_no_statistics(kind, values, path):
    frame = pl.DataFrame({"n": [1, 2, 3], "f": pl.Series(values, dtype=kind), "other.one": [0.5, 1.5, 2.5]})
    metadata = pq.read_metadata(io.BytesIO(parquet(frame))).row_group(0)
    columns = {column.path_in_schema: column for column in map(metadata.column, range(metadata.num_columns))}
    assert {name for name, column in columns.items() if not column.is_stats_set} == {path}


@pytest.mark.parametrize("condition", ["f <> 1.5", "f > 1.5", "isnan(f)"])
def test_duckdb_finds_rows_with_nan(tmp_path, condition):
    file = tmp_path / "f.parquet"
    file.write_bytes(parquet(pl.DataFrame({"f": [1.5, NOT_A_NUMBER, 1.5]})))
    assert duckdb.sql(f"SELECT count(*) FROM '{file}' WHERE {condition}").fetchall() == [(1,)]  # noqa: S608 - a file of this test


def test_columns_without_nan_have_statistics():
    frame = pl.DataFrame({"f": [0.5, None, float("inf")], "l": [[1.5], [], None], "s": ["a", "b", None]})
    metadata = pq.read_metadata(io.BytesIO(parquet(frame))).row_group(0)
    assert all(metadata.column(at).is_stats_set for at in range(metadata.num_columns))


@pytest.mark.parametrize("long", ["z" * 4097, "a" * 4097, "\u00e9" * 2049])
def test_statistics_of_a_text_column_are_in_all_row_groups_or_in_none(long):
    frame = pl.DataFrame({"s": ["b"] * ROW_GROUP_ROWS + [long], "b": [b"b"] * (ROW_GROUP_ROWS + 1)})
    metadata = pq.read_metadata(io.BytesIO(parquet(frame)))
    assert [[metadata.row_group(group).column(at).is_stats_set for at in range(2)] for group in range(2)] == [[False, True]] * 2


@pytest.mark.parametrize("target", [1, 700, 900, 1500, 2500])
def test_files_of_any_size_have_every_row_once_in_order(target):
    """Also a last row that is left over alone."""
    for height in range(1, 14):
        frame = pl.DataFrame({"n": range(height)})
        files = list(Encoder().encode_split(frame, target))
        rows = [pl.read_parquet(io.BytesIO(body))["n"].to_list() for _, body in files]
        assert [len(each) for each in rows] == [count for count, _ in files]
        assert [n for each in rows for n in each] == list(range(height))
