from __future__ import annotations

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.aws.pages import parse_get_records
from stream.source.pace import MAX_PAGE_BYTES, MEMORY_FACTOR, Pace, PageSize, ReadSettings, tip_seconds


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1000]), st.floats(0, 0.5)), min_size=20, max_size=60))
def test_no_second_has_more_than_five_calls(answers: list[tuple[int, int, float]]) -> None:
    pace, now, calls = Pace(ReadSettings()), 0.0, []
    for records, behind, seconds in answers:
        now += pace.wait(now)
        calls.append(now)
        pace.polled(now)
        now += seconds
        pace.answered(now, records=records, behind_ms=behind)
    for index, begin in enumerate(calls):
        assert sum(1 for call in calls[index:] if call < begin + 1.0 - 1e-9) <= 5


def test_polling_slows_down_only_at_the_tip_and_recovers_at_once() -> None:
    pace, now = Pace(ReadSettings()), 0.0
    waits = []
    for records, behind in [(5, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (3, 0), (0, 9), (0, 9)]:
        pace.polled(now)
        pace.answered(now, records=records, behind_ms=behind)
        waits.append(round(pace.wait(now), 3))
        now += pace.wait(now)
    shortest = round(1 / 4.5, 3)
    assert waits == [shortest, shortest, 0.3, 0.45, 0.675, 1.0, 1.0, shortest, shortest, shortest]


@pytest.mark.parametrize(("unit", "wait"), [(0.15, 0.2), (1, 0.2), (5, 0.5), (60, 1.0), (3600, 1.0)])
def test_the_longer_units_take_to_fill_the_less_often_a_shard_at_its_tip_is_polled(unit: float, wait: float) -> None:
    pace, now, polls = Pace(ReadSettings(calls_per_second=5, idle_first=tip_seconds(unit))), 0.0, []
    for _ in range(4):
        polls.append(now)
        pace.polled(now)
        pace.answered(now, records=7, behind_ms=0)
        now += pace.wait(now)
    assert polls == pytest.approx([at * wait for at in range(4)])


def test_a_shard_behind_its_tip_is_polled_as_often_as_allowed_however_long_units_take() -> None:
    pace = Pace(ReadSettings(idle_first=tip_seconds(60)))
    pace.polled(0.0)
    pace.answered(0.0, records=7, behind_ms=9)
    assert pace.wait(0.0) == pytest.approx(1 / 4.5)


def test_many_quiet_shards_of_one_process_are_each_polled_less_often() -> None:
    pace, now, polls = Pace(ReadSettings()), 0.0, []
    for _ in range(20):
        polls.append(now)
        pace.polled(now)
        pace.answered(now, records=0, behind_ms=0, readers=200)
        now += pace.wait(now)
    assert polls[-1] - polls[-2] == 4.0
    pace.polled(now)
    pace.answered(now, records=1, behind_ms=0, readers=200)
    assert round(pace.wait(now), 3) == round(1 / 4.5, 3)


def test_a_slow_answer_counts_towards_the_wait_for_the_call_limit() -> None:
    pace = Pace(ReadSettings())
    pace.polled(10.0)
    pace.answered(10.9, records=5, behind_ms=1)
    assert pace.wait(10.9) == 0.0


def test_the_estimate_of_page_size_follows_the_pages_within_limits() -> None:
    appetite = PageSize()
    assert appetite.ask(2**30)[0] == int(2**19 * MEMORY_FACTOR)
    appetite.learn(10_000, 9 * 2**20)
    assert appetite.ask(2**30)[0] == int(9 * 2**20 * MEMORY_FACTOR)
    appetite.learn(3, 40 * 2**20)
    assert appetite.ask(2**30)[0] == int(MAX_PAGE_BYTES * MEMORY_FACTOR)
    for _ in range(60):
        appetite.learn(0, 0)
    assert appetite.ask(2**30)[0] == int(64 * 2**10 * MEMORY_FACTOR)


@pytest.mark.parametrize("shape", ["click", "order"])
def test_the_reservation_covers_an_answer_and_its_page(shape: str) -> None:
    lines = [b"x" * {"click": 340, "order": 826}[shape]] * 10_000
    entries = [
        {"SequenceNumber": str(10**55 + at), "ApproximateArrivalTimestamp": 1.5, "Data": b64encode(line).decode(), "PartitionKey": f"k{at}"}
        for at, line in enumerate(lines)
    ]
    body = json.dumps({"Records": entries}, separators=(",", ":")).encode()
    page = parse_get_records(body).frame.estimated_size()
    appetite = PageSize()
    appetite.learn(len(lines), int(page))

    assert appetite.ask(2**30)[0] == pytest.approx(len(body) + page, rel=0.1)


@given(st.integers(1, 10_000), st.integers(0, 10 * 2**20), st.integers(1, 2**30))
def test_with_a_small_share_fewer_records_are_requested(records: int, size: int, share: int) -> None:
    appetite = PageSize()
    for _ in range(30):
        appetite.learn(records, size)
    reserve, limit = appetite.ask(share)
    assert 1 <= limit <= 10_000
    assert reserve >= 1
    assert limit == 1 or limit * size / records <= share * 1.1
