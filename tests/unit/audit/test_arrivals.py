"""Arrivals are counted from ledger segments, by second, and to the millisecond at both ends of the period."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.audit.arrivals import Arrivals
from stream.audit.ledger import SegmentError

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = st.lists(st.tuples(st.integers(-1500, 6000), st.integers(0, 2), st.integers(0, 2**31 - 1)), max_size=30)


def segment(rows):
    start = int(BEGIN.timestamp() * 1000)
    columns = {"seq": ["1"] * len(rows), "sub": [row[1] for row in rows], "arrival_ms": [start + row[0] for row in rows]}
    frame = pl.DataFrame(
        {**columns, "bytes": [row[2] for row in rows]},
        schema={"seq": pl.String, "sub": pl.UInt32, "arrival_ms": pl.Int64, "bytes": pl.Int32},
    )
    body = io.BytesIO()
    frame.write_parquet(body)
    return body.getvalue()


@given(ROWS, ROWS, st.integers(1, 5000))
def test_each_second_counts_what_arrived_in_it(one, other, length):
    found = Arrivals(BEGIN, BEGIN + timedelta(milliseconds=length))
    found.add(segment(one))
    found.add(segment(other))
    inside = [row for row in [*one, *other] if 0 <= row[0] < length]
    assert len(found.size) == -(-length // 1000)
    assert found.users == len(inside)
    for second in range(len(found.size)):
        rows = [row for row in inside if row[0] // 1000 == second]
        assert found.size[second] == sum(row[2] for row in rows)
        assert found.records[second] == sum(row[1] == 0 for row in rows)


@pytest.mark.parametrize("length", [1000, 1500])
def test_the_period_includes_its_beginning_and_excludes_its_end(length):
    found = Arrivals(BEGIN, BEGIN + timedelta(milliseconds=length))
    found.add(segment([(-1, 0, 1), (0, 0, 2), (length - 1, 0, 4), (length, 0, 8)]))
    assert (found.size.sum(), found.users) == (6.0, 2)


@pytest.mark.parametrize("body", [b"", b"no parquet", segment([(0, 0, 1)])[:-5]])
def test_a_file_that_is_not_a_segment_is_refused(body):
    with pytest.raises(SegmentError, match="a ledger segment is a Parquet file with the columns sub, arrival_ms, bytes"):
        Arrivals(BEGIN, BEGIN + timedelta(seconds=1)).add(body)


def test_a_segment_without_a_needed_column_is_refused():
    body = io.BytesIO()
    pl.DataFrame({"sub": [0], "bytes": [1]}).write_parquet(body)
    with pytest.raises(SegmentError, match="arrival_ms"):
        Arrivals(BEGIN, BEGIN + timedelta(seconds=1)).add(body.getvalue())
