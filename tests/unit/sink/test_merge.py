"""Merging Parquet files: rows, order and types stay, per schema; the result is checked part by part."""

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from polars.testing.parametric import dataframes

from stream.sink import merge as merging
from stream.sink.encode import Compression, parquet
from stream.sink.merge import Content, UnreadableFileError, differs, lineage, merge

EVERY = pl.DataFrame(
    {
        "n": [1, None, 3],
        "u": pl.Series([1, 2**64 - 1, None], dtype=pl.UInt64),
        "text": ["a", None, "\u00fc" * 5000],
        "bytes": [b"a", b"", None],
        "real": [0.5, float("nan"), None],
        "flag": [True, None, False],
        "day": [datetime(2026, 1, 1, tzinfo=UTC).date(), None, None],
        "at": [datetime(2026, 1, 1, 12, 0, 0, 1, UTC), None, datetime(1969, 1, 1, tzinfo=UTC)],
        "clock": [datetime(2026, 1, 1, 12, 30, tzinfo=UTC).time(), None, None],
        "local": [datetime(2026, 1, 1), None, None],  # noqa: DTZ001 - the type without a zone
        "long": [timedelta(days=3), None, timedelta(microseconds=1)],
        "money": pl.Series([Decimal("1.25"), None, Decimal("-99.99")], dtype=pl.Decimal(10, 2)),
        "list": [[1, 2], [], None],
        "object": [{"x": 1, "y": ["a"]}, {"x": None, "y": None}, None],
        "nothing": [None, None, None],
    }
)


def merged(frames, **options):
    return merge([parquet(frame) for frame in frames], Compression.ZSTD, 1, **options)


def read(body):
    return pl.read_parquet(io.BytesIO(body))


def test_rows_of_every_type_are_copied_in_order():
    frames = [EVERY, EVERY.reverse(), EVERY.slice(1, 1)]
    found = merged(frames)
    assert found.output_of == (0, 0, 0)
    (body,) = found.outputs
    assert_frame_equal(read(body), pl.concat(read(parquet(frame)) for frame in frames))
    assert [content.rows for content in found.contents] == [3, 3, 1]
    assert found.contents[0] == found.contents[1] != found.contents[2]
    assert differs(body, found.contents) == ""


@given(dataframes(min_cols=1, max_cols=4, max_size=8, allowed_dtypes=[pl.Int64, pl.String, pl.Boolean, pl.Datetime("us")]), st.data())
def test_however_rows_are_cut_into_files_the_merged_file_is_the_same(frame, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, frame.height), max_size=3)))
    ends = [*cuts, frame.height]
    parts = [frame.slice(start, end - start) for start, end in zip([0, *cuts], ends, strict=True)]
    found = merged(parts)
    assert len(found.outputs) == 1
    assert_frame_equal(read(found.outputs[0]), frame)
    assert differs(found.outputs[0], found.contents) == ""


def test_files_of_different_columns_are_never_made_equal():
    narrow, wide = pl.DataFrame({"n": pl.Series([1, 2], dtype=pl.Int32)}), pl.DataFrame({"n": [3]})
    more = pl.DataFrame({"n": [4], "text": ["a"]})
    found = merged([narrow, wide, more, narrow, wide])
    assert found.output_of == (0, 1, 2, 0, 1)
    first, second, third = map(read, found.outputs)
    assert (first["n"].to_list(), first.schema) == ([1, 2, 1, 2], narrow.schema)
    assert (second["n"].to_list(), second.schema) == ([3, 3], wide.schema)
    assert found.outputs[2] == parquet(more), "what is alone is copied byte for byte"
    assert_frame_equal(third, more)


def test_a_wide_row_group_is_written_before_it_has_many_rows(monkeypatch):
    monkeypatch.setattr(merging, "ROW_GROUP_BYTES", 100_000)
    monkeypatch.setattr(merging, "ROW_GROUP_ROWS", 1000)
    wide = pl.DataFrame({"text": [f"{n:06d}" * 100 for n in range(400)]})
    flat = pl.DataFrame({"text": [str(n) for n in range(400)]})
    groups = [pq.ParquetFile(io.BytesIO(merged([frame] * 10).outputs[0])).metadata for frame in (wide, flat)]
    assert groups[0].num_rows == groups[1].num_rows == 4000
    assert groups[0].num_row_groups == 10
    assert [groups[1].row_group(at).num_rows for at in range(groups[1].num_row_groups)] == [1000] * 4


def test_columns_whose_statistics_would_mislead_get_none():
    sound = pl.DataFrame({"real": [1.0], "text": ["a"], "null": pl.Series([None], dtype=pl.Int64)})
    for column, bad in {"real": float("nan"), "text": "x" * 10_000}.items():
        body = merged([sound, sound.with_columns(pl.lit(bad).alias(column))]).outputs[0]
        group = pq.ParquetFile(io.BytesIO(body)).metadata.row_group(0)
        with_statistics = {group.column(at).path_in_schema for at in range(group.num_columns) if group.column(at).is_stats_set}
        assert with_statistics == {"real", "text", "null"} - {column}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda frame: frame.head(5), "it has 5 rows instead of 6"),
        (lambda frame: pl.concat([frame, frame.head(1)]), "it has 7 rows instead of 6"),
        (lambda frame: frame.reverse(), "its rows from 0 on are others"),
        (lambda frame: frame.with_columns(text=pl.lit("a")), "its rows from 0 on are others"),
        (
            lambda frame: frame.with_row_index("at").with_columns(n=pl.when(pl.col("at") == 4).then(9).otherwise("n")).drop("at"),
            "from 3 on",
        ),
    ],
)
def test_every_change_of_the_rows_is_noticed(change, why):
    frames = [pl.DataFrame({"n": [1, 2, 3], "text": ["x", "y", None]}), pl.DataFrame({"n": [4, 5, 6], "text": ["x", "y", "z"]})]
    found = merged(frames)
    assert differs(found.outputs[0], found.contents) == ""
    assert why in differs(parquet(change(pl.concat(frames))), found.contents)


def test_what_is_no_parquet_file_is_named():
    with pytest.raises(UnreadableFileError) as caught:
        merge([parquet(EVERY), b"PAR1 or not"], Compression.ZSTD, 1)
    assert caught.value.args == (1,)
    assert "it cannot be read" in differs(b"PAR1 or not", [Content(1, 2)])


def test_a_file_without_lineage_names_no_records():
    assert list(lineage(parquet(EVERY), ("_sequence", "n"))) == []
    (frame,) = lineage(parquet(EVERY), ("text", "n"))
    assert frame.columns == ["text", "n"]


def test_equal_files_give_equal_bytes():
    frames = [EVERY, EVERY.reverse()]
    assert merged(frames).outputs == merged(frames).outputs
