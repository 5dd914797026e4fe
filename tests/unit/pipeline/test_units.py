from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.pipeline.units import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("1d1ms", 86400.001), ("0s", 0), ("90m", 5400)],
)
def test_durations_are_parsed(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("60", "no unit after 60; write 60s"),
        ("5min", "unknown unit 'min'; write 5m "),
        ("5 minutes", "no unit right after 5; write 5m "),
        ("90 Seconds", "no unit right after 90; write 90s "),
        ("20 millis", "write 20ms "),
        ("20 msec", "write 20ms "),
        ("1h 30 min", "not a duration"),
        ("2 days", "write 2d "),
        ("3hrs", "write 3h "),
        ("1H", "unknown unit 'H'"),
        ("30m1h", "after a smaller unit"),
        ("1s1s", "twice"),
        ("1 h", "no unit right after 1; write 1h "),
        ("-5s", "not a duration"),
        ("1.5h", "not made of whole numbers; write a smaller unit"),
        ("h", "not a duration"),
        ("999999999d", "longer than ten years"),
        ("٣s", "not a duration"),
    ],
)
def test_an_invalid_duration_is_refused_with_a_reason(text, says):
    with pytest.raises(ValueError, match=says):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=3660 * 86_400_000))
def test_a_duration_reads_back_from_its_text(milliseconds):
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(value)) == value


@given(st.integers(0, 48), st.integers(0, 200), st.integers(0, 5000))
def test_a_duration_is_the_sum_of_its_parts(hours, minutes, seconds):
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == timedelta(hours=hours, minutes=minutes, seconds=seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("64MiB", 64 * 2**20),
        ("10MB", 10**7),
        ("1.5GiB", 3 * 2**29),
        ("2 KiB", 2048),
        ("7B", 7),
        ("1kB", 1000),
        ("3TB", 3 * 10**12),
    ],
)
def test_sizes_are_parsed(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("64mb", r"write 64MiB \(powers of 1024\) or 64MB"),
        ("64M", "write 64MiB"),
        ("64mib", "write 64MiB"),
        ("64 parsecs", "unknown unit 'parsecs'"),
        ("", "not a size"),
        ("-1", "not a size"),
        ("1e6", "not a size"),
        ("0.3B", "not a whole number"),
        ("99999999TiB", "more than"),
    ],
)
def test_an_invalid_size_is_refused_with_a_reason(text, says):
    with pytest.raises(ValueError, match=says):
        parse_size(text)


@given(st.integers(0, 2**40), st.sampled_from(["B", "kB", "MB", "KiB", "MiB"]))
def test_a_size_is_its_number_times_its_unit(number, unit):
    factor = {"B": 1, "kB": 1000, "MB": 10**6, "KiB": 1024, "MiB": 2**20}[unit]
    assert parse_size(f"{number}{unit}") == number * factor
