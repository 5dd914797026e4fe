"""Times in expressions: dates, times relative to the scheduled start or end of a run, and the Joda patterns that format them."""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

START, END = "start", "end"
INTERVAL: Final = ("data_interval_start", "data_interval_end")
"""Airflow expressions for the beginning and the end of a run's interval. Airflow starts a run at the end."""

_CALENDAR: Final = {"Months": 1, "Years": 12}
_EXACT: Final = {"Minutes": "minutes", "Hours": "hours", "Days": "days", "Weeks": "weeks"}
UNITS: Final = (*_EXACT, *_CALENDAR)
FLOORS: Final[Mapping[str, str]] = {
    "midnight": "replace(hour=0, minute=0, second=0, microsecond=0)",
    "firstOfMonth": "replace(day=1)",
}
ISO: Final = "%Y-%m-%dT%H:%M:%S"
MAX_SHIFT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class ScheduledTime:
    """A time.

    ``base``: `start` or `end` of a run's interval, or a date. ``steps``: functions to apply in order, each with its argument.
    """

    base: str | datetime
    steps: tuple[tuple[str, int], ...] = ()

    def step(self, name: str, number: int = 0) -> ScheduledTime:
        """This time with one more step; applied immediately if the base is a date.

        Raises:
            OverflowError, ValueError: there is no such date.
        """
        if isinstance(self.base, datetime):
            return ScheduledTime(_applied(self.base, name, number))
        return replace(self, steps=(*self.steps, (name, number)))

    def template(self, interval: tuple[str, str]) -> str:
        """This time as an expression for Airflow templates; ``interval``: the expressions for a run's begin and end."""
        if isinstance(self.base, datetime):
            return f"macros.datetime({self.base.year}, {self.base.month}, {self.base.day}, {self.base.hour}, {self.base.minute})"
        text = interval[0] if self.base == START else interval[1]
        for name, number in self.steps:
            if name in _CALENDAR:
                text = f"{text}.add(months={number * _CALENDAR[name]})"
            elif name in _EXACT:
                text = f"{text}.add({_EXACT[name]}={number})"
            elif name == "sunday":
                text = f"{text}.subtract(days={text}.isoweekday() % 7)"
            else:
                text = f"{text}.{FLOORS[name]}"
        return text


_IN_A_DAY: Final = "hour=0, minute=0, second=0, microsecond=0"
_FOLDERS: Final[Mapping[str, tuple[str, str]]] = {
    "%M": ("minutes", "second=0, microsecond=0"),
    "%H": ("hours", "minute=0, second=0, microsecond=0"),
    "%d": ("days", _IN_A_DAY),
    "%m": ("months", f"day=1, {_IN_A_DAY}"),
    "%Y": ("years", f"month=1, day=1, {_IN_A_DAY}"),
}
"""By the finest directive of a key's time: how long such a time lasts, and what makes it begin."""


def folder_at(moment: str, pattern: str) -> tuple[str, str]:
    """Airflow expressions for the beginning and the end of the time that keys name, by ``pattern``, where they name ``moment``.

    A run at ten past two reads the folder of its whole day or hour: `source.s3.time` dates it from its beginning.
    """
    unit, begin = next(found for mark, found in _FOLDERS.items() if mark in pattern)
    return f"{moment}.replace({begin})", f"{moment}.replace({begin}).add({unit}=1)"


def _applied(moment: datetime, name: str, number: int) -> datetime:
    """``moment`` after the step ``name``; raises as ``ScheduledTime.step``."""
    if name in _CALENDAR:
        months = moment.year * 12 + moment.month - 1 + number * _CALENDAR[name]
        year, month = divmod(months, 12)
        if not 1 <= year <= 9999:
            msg = "the year lies outside 1 to 9999"
            raise ValueError(msg)
        return moment.replace(year=year, month=month + 1, day=min(moment.day, calendar.monthrange(year, month + 1)[1]))
    if name in _EXACT:
        return moment + timedelta(**{_EXACT[name]: number})
    if name == "midnight":
        return moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if name == "sunday":
        return moment - timedelta(days=moment.isoweekday() % 7)
    return moment.replace(day=1)


def date_of(text: str) -> datetime | None:
    """The date in UTC that ``text`` names, such as `2026-01-31T00:00:00`; None if it does not name one."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


_JODA: Final = {
    "YYYY": "%Y", "yyyy": "%Y", "Y": "%Y", "y": "%Y", "YY": "%y", "yy": "%y", "MM": "%m", "M": "%-m", "MMM": "%b", "MMMM": "%B", "dd": "%d",
    "d": "%-d", "DDD": "%j", "HH": "%H", "H": "%-H", "hh": "%I", "h": "%-I", "mm": "%M", "m": "%-M", "ss": "%S", "s": "%-S", "a": "%p",
    "E": "%a", "EEE": "%a", "EEEE": "%A", "z": "UTC", "Z": "+0000", "ZZ": "+00:00",
}  # fmt: skip
"""Letters of https://www.joda.org/joda-time/apidocs/org/joda/time/format/DateTimeFormat.html that strftime has, too."""

_TOKEN: Final = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+")


def strftime_of(joda: str) -> str | None:
    """The strftime pattern for the Joda pattern ``joda``; None if a part of it has no counterpart."""
    made, at = [], 0
    for found in _TOKEN.finditer(joda):
        if found.start() != at:
            return None
        at = found.end()
        word = found[0]
        if word.startswith("'"):
            made.append("'" if word == "''" else found[1].replace("''", "'").replace("%", "%%"))
        elif found[2] is None:
            made.append(word.replace("%", "%%"))
        elif word in _JODA:
            made.append(_JODA[word])
        else:
            return None
    return "".join(made) if at == len(joda) else None
