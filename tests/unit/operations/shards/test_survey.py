"""Which shards are shown, and with which notes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from stream.audit.arrivals import Arrivals
from stream.audit.completeness import FOR_EVER, Standing, State
from stream.contracts import Shard
from stream.operations.shards.survey import Keys, Measured, Row, rate_from_sample, rate_of, unfinished, with_marks, with_overhead
from stream.source.excerpt import Excerpt
from stream.source.keys import Sample
from stream.source.resharding import SHARD_BYTES, SHARD_RECORDS, Rate

NOW = datetime(2026, 1, 1, 3, tzinfo=UTC)
DAY = timedelta(hours=24)
LATE = timedelta(minutes=6)


def standing(shard: str, state: State, ago: timedelta | None = timedelta()) -> Standing:
    return Standing(shard, state, 1, None, None if ago is None else NOW - ago)


def row(state: State, ago: timedelta | None = timedelta(), rate: Rate | None = None) -> Row:
    return with_marks(Row("a", Shard("s", "a"), True, standing("a", state, ago), measured=Measured(rate)), NOW, DAY, LATE)


def test_open_shards_and_unfinished_closed_ones_are_shown():
    shards = [Shard("s", "done"), Shard("s", "left"), Shard("s", "lower", ("done",)), Shard("s", "upper", ("left",)), Shard("s", "fresh")]
    standings = [
        Standing("done", State.ENDED, 5, None, FOR_EVER),
        standing("left", State.UNSEALED),
        standing("lower", State.EARLY),
        standing("upper", State.UNSEALED),
        standing("forgotten", State.GONE, None),
    ]
    found = {each.name: each.open for each in unfinished(shards, standings)}
    assert found == {"left": False, "lower": True, "upper": True, "fresh": True, "forgotten": False}


def test_an_open_shard_is_shown_even_if_the_log_has_its_end():
    assert [each.name for each in unfinished([Shard("s", "a")], [Standing("a", State.ENDED, 5, None, FOR_EVER)])] == ["a"]


@pytest.mark.parametrize(
    ("ago", "marks"),
    [(timedelta(), ()), (LATE, ()), (LATE + timedelta(seconds=1), ("late",)), (timedelta(hours=6, seconds=1), ("late", "expiring"))],
)
def test_the_oldest_unsealed_record_decides_how_late_a_shard_is(ago, marks):
    found = row(State.UNSEALED, ago)
    assert (found.marks, found.unread, found.expires) == (marks, NOW - ago, NOW - ago + DAY)


def test_a_shard_with_all_records_sealed_is_not_late():
    assert (row(State.EARLY).unread, row(State.EARLY).expires, row(State.EARLY).marks) == (None, None, ())


@pytest.mark.parametrize("state", [State.EXPIRED, State.GONE, State.SILENT])
def test_a_shard_whose_next_record_is_unknown_shows_its_state(state):
    assert row(state, None).marks == (state.value,)


@pytest.mark.parametrize(
    ("rate", "marks"),
    [
        (Rate(0.79 * SHARD_BYTES, 0.0, 0.0, 0.0), ()),
        (Rate(0.8 * SHARD_BYTES, 0.0, 0.0, 0.0), ("hot",)),
        (Rate(0.0, 0.8 * SHARD_RECORDS, 0.0, 0.0), ("hot",)),
        (Rate(0.0, 1.0, 0.0, SHARD_RECORDS), ("peaks",)),
        (Rate(0.0, 1.0, SHARD_BYTES, 0.0), ("peaks",)),
        (Rate(0.0, 1.0), ()),
    ],
)
def test_a_shard_is_hot_from_80_percent_of_a_limit_and_peaking_if_one_second_reaches_it(rate, marks):
    assert row(State.EARLY, rate=rate).marks == marks


def test_a_shard_without_rate_or_standing_is_unknown():
    known = Measured(Rate(0.0, 0.0))
    assert not Row("a", None, True, standing("a", State.EARLY), measured=known).unknown
    assert Row("a", None, True, standing("a", State.EARLY)).unknown
    assert Row("a", None, False, standing("a", State.SILENT)).unknown
    assert Row("a", None, True, None, measured=known).unknown
    assert not Row("a", None, False, standing("a", State.UNSEALED)).unknown


def test_averages_cover_the_whole_time_and_at_least_a_second():
    arrivals = Arrivals(NOW, NOW + timedelta(seconds=4))
    arrivals.size[:], arrivals.records[:] = [8.0, 0.0, 4.0, 0.0], [2, 0, 4, 0]
    assert rate_of(arrivals) == Rate(3.0, 1.5, 8.0, 4.0)
    short = Arrivals(NOW, NOW + timedelta(milliseconds=10))
    short.size[:], short.records[:] = [8.0], [2]
    assert rate_of(short) == Rate(8.0, 2.0, 8.0, 2.0)


def test_a_sample_gives_rates_over_the_time_it_covers_completely():
    sample = Sample((), 3000.0, 30.0, 60, 1.0, 1.0)
    found = rate_from_sample(Keys(sample, Excerpt(300.0, covered=3.0)), NOW, timedelta(minutes=5))
    assert found == Measured(Rate(1000.0, 10.0), NOW - timedelta(minutes=5), NOW, sampled=True, weighed=True)
    assert rate_from_sample(Keys(sample, Excerpt(300.0, covered=0.9)), NOW, timedelta(minutes=5)) is None


def test_payload_bytes_are_scaled_to_what_kinesis_counts_by_a_sample():
    measured = Measured(Rate(400.0, 10.0, 1000.0, 20.0), NOW - DAY, NOW, aggregated=True)
    assert measured.light
    found = with_overhead(measured, Sample((), 90.0, 2.0, 6, 1.0, 1.0, payload=30.0))
    assert (found.rate, found.light) == (Rate(1200.0, 10.0, 3000.0, 20.0), False)
    assert with_overhead(measured, Sample((), 0.0, 0.0, 0, 0.0, 0.0)) == measured, "an empty sample says nothing"
    unknown = Measured(None, NOW - DAY, NOW, "a segment is missing")
    assert with_overhead(unknown, Sample((), 90.0, 2.0, 6, 1.0, 1.0, payload=30.0)) == unknown
