import io
import random
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stream.sink.arrow import BATCH_ROWS, arrow

EVERY = pl.DataFrame(
    {
        "text": ["ä\0", "", None],
        "flag": [True, False, None],
        "tiny": pl.Series([-128, 127, None], dtype=pl.Int8),
        "ubig": pl.Series([2**64 - 1, 2**63, None], dtype=pl.UInt64),
        "single": pl.Series([1.5, -0.0, None], dtype=pl.Float32),
        "money": pl.Series([Decimal("1.28"), Decimal("-2.56"), None], dtype=pl.Decimal(10, 2)),
        "raw": [b"\x00\xff", b"", None],
        "day": [date(1969, 12, 31), date(9999, 12, 31), None],
        "at": pl.Series([datetime(2026, 1, 1, tzinfo=UTC), None, None], dtype=pl.Datetime("ms", "UTC")),
        "clock": [time(1, 2, 3, 4), time(0), None],
        "took": [timedelta(seconds=1), timedelta(days=-1), None],
        "list": [["a", None], [], None],
        "object": [{"a": 1, "deep": [{"x": "y"}]}, {"a": None, "deep": None}, None],
        "flags": [[True, None], [], None],
        "nothing": pl.Series([None, None, None], dtype=pl.Null),
    }
)


@pytest.mark.parametrize(("codec", "level"), [("zstd", 1), ("lz4", None), (None, None)])
def test_a_file_reads_back_as_the_frame_it_was(codec, level):
    body = arrow(EVERY, codec, level)
    assert_frame_equal(pl.read_ipc(io.BytesIO(body)), EVERY)
    with pa.ipc.open_file(pa.BufferReader(body)) as file:
        file.read_all().validate(full=True)


def test_categories_and_wide_integers_become_text_and_arrays_lists():
    frame = pl.DataFrame(
        {
            "c": pl.Series(["x", None], dtype=pl.Categorical()),
            "w": pl.Series([2**70, None], dtype=pl.Int128),
            "l": pl.Series([["y"], None], dtype=pl.List(pl.Enum(["z", "y"]))),
            "f": pl.Series([[1, 2], None], dtype=pl.Array(pl.Int8, 2)),
        }
    )
    assert pl.read_ipc(io.BytesIO(arrow(frame, None, None))).rows() == [("x", str(2**70), ["y"], [1, 2]), (None, None, None, None)]


def test_rows_are_in_batches():
    body = arrow(pl.DataFrame({"n": range(BATCH_ROWS + 1)}), "zstd", 1)
    with pa.ipc.open_file(pa.BufferReader(body)) as file:
        assert [file.get_batch(at).num_rows for at in range(file.num_record_batches)] == [BATCH_ROWS, 1]
        rows = file.read_all()
    assert rows.num_rows == BATCH_ROWS + 1
    assert duckdb.sql("SELECT sum(n)::BIGINT FROM rows").fetchall() == [(BATCH_ROWS * (BATCH_ROWS + 1) // 2,)]


VALUES = st.lists(
    st.none()
    | st.fixed_dictionaries(
        {
            "n": st.none() | st.integers(-9, 9),
            "t": st.none() | st.text(max_size=20),
            "l": st.none() | st.lists(st.none() | st.fixed_dictionaries({"b": st.none() | st.booleans()}), max_size=3),
        }
    ),
    min_size=1,
    max_size=40,
)
KIND = pl.Struct({"n": pl.Int64(), "t": pl.String(), "l": pl.List(pl.Struct({"b": pl.Boolean()}))})


def otherwise(frame, seed):
    """Equal rows with other values below what is null, in other pieces."""
    rng = random.Random(seed)
    order = rng.sample(range(frame.height), frame.height)
    beside = frame[order]
    hidden = [
        pl.when(pl.col(name).is_null()).then(None).otherwise(pl.coalesce(pl.col(name), beside[name])).alias(name) for name in frame.columns
    ]
    made = frame.select(hidden)
    cut = rng.randrange(frame.height + 1)
    return pl.concat([made.head(cut), made.slice(cut)], rechunk=False)


@given(VALUES, st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_equal_rows_give_equal_bytes_whatever_is_left_below_null(values, seed):
    frame = pl.DataFrame({"s": pl.Series(values, dtype=KIND)})
    frame = frame.with_columns(n=pl.col("s").struct.field("n"), t=pl.col("s").struct.field("t"), l=pl.col("s").struct.field("l"))
    body = arrow(frame, None, None)
    assert arrow(otherwise(frame, seed), None, None) == body
    assert arrow(pl.concat([frame, frame])[frame.height :], None, None) == body
    assert pl.read_ipc(io.BytesIO(body)).equals(frame, null_equal=True)


def test_what_was_computed_below_null_does_not_show():
    numbers = pl.DataFrame({"n": [1, 2, 3]})
    hidden = numbers.select(pl.when(pl.col("n") != 2).then(pl.col("n")))
    assert arrow(hidden, None, None) == arrow(pl.DataFrame({"n": [1, None, 3]}), None, None)
    plain = io.BytesIO(), io.BytesIO()
    for frame, out in zip((hidden, pl.DataFrame({"n": [1, None, 3]})), plain, strict=True):
        frame.write_ipc(out, compat_level=pl.CompatLevel.oldest())
    assert plain[0].getvalue() != plain[1].getvalue(), "Polars makes equal bytes now: is stream.sink.arrow still needed?"
