"""Periods as lines of cron."""

from datetime import UTC, datetime

import pytest

from stream.datapipeline.schedules import EARLIER, MORE_OFTEN, Period, cron_of, last_run, period_of

AT = datetime(2026, 1, 29, 2, 40, tzinfo=UTC)  # a Thursday


@pytest.mark.parametrize(
    ("text", "start", "line", "but"),
    [
        ("15 minutes", None, "*/15 * * * *", ""),
        ("15 Minutes", AT, "10,25,40,55 * * * *", ""),
        ("1 minute", AT, "* * * * *", ""),
        ("25 minutes", None, "*/5 * * * *", MORE_OFTEN),
        ("90 minutes", AT, "10,40 * * * *", MORE_OFTEN),
        ("60 minutes", AT, "40 * * * *", ""),
        ("1 hours", None, "0 * * * *", ""),
        ("6 hours", AT, "40 2,8,14,20 * * *", ""),
        ("12 hours", None, "0 */12 * * *", ""),
        ("5 hours", AT, "40 * * * *", MORE_OFTEN),
        ("24 hours", AT, "40 2 * * *", ""),
        ("1 day", None, "0 0 * * *", ""),
        ("3 days", AT, "40 2 * * *", MORE_OFTEN),
        ("7 days", AT, "40 2 * * 4", ""),
        ("2 weeks", AT, "40 2 * * 4", MORE_OFTEN),
        ("1 month", datetime(2026, 1, 5, 2, 40, tzinfo=UTC), "40 2 5 * *", ""),
        ("1 month", AT, "40 2 28 * *", EARLIER),
        ("3 months", datetime(2026, 2, 5, tzinfo=UTC), "0 0 5 2,5,8,11 *", ""),
        ("5 months", datetime(2026, 2, 5, tzinfo=UTC), "0 0 5 * *", MORE_OFTEN),
        ("12 months", datetime(2026, 2, 5, tzinfo=UTC), "0 0 5 2 *", ""),
        ("2 years", datetime(2026, 2, 5, tzinfo=UTC), "0 0 5 2 *", MORE_OFTEN),
    ],
)
def test_a_period_becomes_a_cron_line(text, start, line, but):
    found = cron_of(period_of(text), start)
    assert (found.line, found.difference) == (line, but)


@pytest.mark.parametrize("text", ["", "1", "hours", "0 days", "-1 days", "1.5 hours", "1 fortnight", "ONDEMAND_PERIOD", "9999999 days"])
def test_an_invalid_period_is_refused(text):
    assert period_of(text) is None


def test_the_length_of_a_period_is_known():
    assert period_of("2 hours").seconds == 7200
    assert period_of("48 hours") == Period(2, "day")
    assert last_run(AT, Period(1, "day"), 3) == datetime(2026, 2, 1, 2, 40, tzinfo=UTC)
    assert last_run(AT, Period(1, "year"), 10**9) is None
