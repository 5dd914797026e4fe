"""Translates periods such as `15 minutes` to cron lines."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_PERIOD: Final = re.compile(r"\s*(\d{1,6})\s*(minute|hour|day|week|month|year)s?\s*", re.IGNORECASE)
_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 30 * 86_400, "year": 365 * 86_400}
MIDNIGHT: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Period:
    """A number of units, such as 15 minutes."""

    number: int
    unit: str

    @property
    def seconds(self) -> int:
        """Its length; approximate for months and years."""
        return self.number * _SECONDS[self.unit]


def period_of(text: str) -> Period | None:
    """The period that ``text`` describes, such as `1 hours`; None if it does not describe one."""
    found = _PERIOD.fullmatch(text)
    if found is None or int(found[1]) == 0:
        return None
    return _larger(Period(int(found[1]), found[2].lower()))


def _larger(period: Period) -> Period:
    """The same period in the largest unit that divides it: 60 minutes are an hour."""
    for unit, size, larger in (("minute", 60, "hour"), ("hour", 24, "day"), ("day", 7, "week"), ("month", 12, "year")):
        if period.unit == unit and period.number % size == 0:
            period = Period(period.number // size, larger)
    return period


MORE_OFTEN: Final = (
    "cron cannot express this period: the schedule in the values runs more often, and so reads new data sooner; in Airflow, use "
    "`DeltaDataIntervalTimetable` for the exact period"
)
EARLIER: Final = "not every month has that day: the schedule in the values runs on the 28th"


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron line, in UTC. ``difference``: how its runs differ from the period; empty if they do not."""

    line: str
    difference: str = ""


def cron_of(period: Period, start: datetime | None) -> Cron:
    """The cron line for a run every ``period``, one of them at ``start``; without ``start``, at midnight or at the full hour."""
    at = start or MIDNIGHT
    number, unit = period.number, period.unit
    at_time = f"{at.minute} {at.hour}"
    if unit == "minute":
        step = math.gcd(number, 60)
        return Cron(f"{_every(at.minute, step, 60)} * * * *", "" if step == number else MORE_OFTEN)
    if unit == "hour":
        step = math.gcd(number, 24)
        return Cron(f"{at.minute} {_every(at.hour, step, 24)} * * *", "" if step == number else MORE_OFTEN)
    often = "" if number == 1 else MORE_OFTEN
    if unit == "day":
        return Cron(f"{at_time} * * *", often)
    if unit == "week":
        return Cron(f"{at_time} * * {at.isoweekday() % 7}", often)
    day = min(at.day, 28)
    early = "" if day == at.day else EARLIER
    if unit == "month":
        step = math.gcd(number, 12)
        months = sorted((at.month - 1 + step * one) % 12 + 1 for one in range(12 // step))
        line = f"{at_time} {day} {'*' if step == 1 else ','.join(map(str, months))} *"
        return Cron(line, early or ("" if step == number else MORE_OFTEN))
    return Cron(f"{at_time} {day} {at.month} *", early or often)


def _every(first: int, step: int, whole: int) -> str:
    if step == 1:
        return "*"
    if step == whole:
        return str(first)
    return (
        f"*/{step}"
        if first % step == 0
        else ",".join(str(each) for each in sorted((first + step * one) % whole for one in range(whole // step)))
    )


def last_run(start: datetime, period: Period, occurrences: int) -> datetime | None:
    """When the last of ``occurrences`` runs ends, approximately; None if that is after the year 9999."""
    try:
        return start + timedelta(seconds=period.seconds * occurrences)
    except OverflowError:
        return None
