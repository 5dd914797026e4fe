from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.aws.kinesis import IteratorAt, IteratorKind
from stream.aws.pages import RECORD_SCHEMA, PageFacts, RawPage
from stream.batch import ORIGIN, SEQUENCE
from stream.contracts import Shard, Start, StartKind
from stream.errors import Halted
from stream.source.progress import Progress

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHARD = Shard("events", "shardId-000000000000")


def response(numbers: list[int], facts: PageFacts | None = None) -> RawPage:
    frame = pl.DataFrame({name: [None] * len(numbers) for name in RECORD_SCHEMA}, schema=RECORD_SCHEMA)
    return RawPage(frame.with_columns(pl.Series(SEQUENCE, [str(each) for each in numbers], pl.String())), "next", 0, facts=facts)


def progress(after: int = ORIGIN, until: int | None = None, kind: StartKind = StartKind.TRIM_HORIZON) -> Progress:
    return Progress(SHARD, after, Start(kind), until)


@given(st.lists(st.lists(st.integers(1, 60), unique=True).map(sorted), max_size=6), st.integers(1, 30), st.none() | st.integers(0, 30))
def test_of_responses_that_overlap_each_row_of_the_range_is_new_once(responses: list[list[int]], after: int, length: int | None) -> None:
    until = None if length is None else after + length
    reading, reached = progress(after, until), after
    for numbers in responses:
        raw = response(numbers)
        new = reading.new_rows(raw)
        assert [int(text) for text in new[SEQUENCE]] == [each for each in numbers if reached < each and (until is None or each <= until)]
        reading.advance(raw, new)
        reached = max([reached, *(each if until is None else min(each, until) for each in numbers)])
        assert reading.position == reached
    assert reading.complete == (until is not None and reached >= until)


def test_all_rows_after_the_position_are_new() -> None:
    reading = progress(after=10)
    assert reading.new_rows(response([9, 10, 11, 100]))[SEQUENCE].to_list() == ["11", "100"]
    assert reading.new_rows(response([3, 4])).is_empty()


def test_a_response_that_goes_on_beyond_the_end_completes_the_range_at_its_end() -> None:
    reading = progress(after=10, until=20)
    raw = response([15, 25])
    new = reading.new_rows(raw)
    assert new[SEQUENCE].to_list() == ["15"]
    assert reading.passed_by(raw)
    reading.advance(raw, new)
    assert (reading.position, reading.complete) == (20, True)


def test_a_response_that_ends_with_the_range_does_not_go_beyond_it() -> None:
    reading = progress(after=10, until=20)
    assert not reading.passed_by(response([15, 20]))
    assert not reading.passed_by(response([]))


@pytest.mark.parametrize("facts", [None, PageFacts(rising=False, aggregates=0, payload_bytes=0, traced=False)])
def test_rows_that_do_not_ascend_halt_the_shard(facts: PageFacts | None) -> None:
    with pytest.raises(Halted, match=r"shard shardId-000000000000 of stream events: .* out of order after 10"):
        progress(after=10).new_rows(response([12, 11], facts))


def test_latest_is_asked_for_once_and_then_the_time_of_that_moment() -> None:
    reading = progress(kind=StartKind.LATEST)
    assert reading.beginning(NOW) == IteratorAt(IteratorKind.LATEST)
    later = reading.beginning(NOW + timedelta(minutes=1))
    assert later == IteratorAt(IteratorKind.AT_TIMESTAMP, timestamp=NOW - timedelta(seconds=5))


def test_after_the_first_rows_reading_continues_behind_them_wherever_it_started() -> None:
    reading = progress(kind=StartKind.LATEST)
    raw = response([7])
    reading.advance(raw, reading.new_rows(raw))
    assert reading.beginning(NOW) == IteratorAt(IteratorKind.AFTER, sequence="7")


@pytest.mark.parametrize(("ahead", "may"), [(-1, True), (299, True), (-301, False)])
def test_a_start_in_the_future_may_be_refused_only_at_the_origin(ahead: int, may: bool) -> None:
    start = Start(StartKind.AT_TIMESTAMP, NOW + timedelta(seconds=ahead))
    assert Progress(SHARD, ORIGIN, start, None).may_begin_too_early(NOW) is may
    assert not Progress(SHARD, 7, start, None).may_begin_too_early(NOW)
