"""Options shared by sinks that feed a table: their files are sealed as for any sink, then a loader loads them."""

from __future__ import annotations

import re
from abc import abstractmethod
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, field_validator

from stream.sink.objects import SinkConfig

MAX_UNITS: Final = 1_000
"""Most units in one load: their ledger rows have to fit into a few Redshift statements of 100 KB."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = {"type": "string", "pattern": r"^\d{1,6}\s*[smhd]$"}
_WINDOW: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def _duration(value: object) -> object:
    match = re.fullmatch(r"(\d{1,6})\s*([smhd])", value.strip()) if isinstance(value, str) else None
    if match is not None:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    if isinstance(value, timedelta):
        return value
    msg = f"{value!r} is not a duration; write one like 60s, 5m, 12h or 7d"
    raise ValueError(msg)


def _duration_text(value: timedelta) -> str:
    seconds = round(value.total_seconds())
    unit = next(name for name, size in reversed(_UNITS.items()) if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(_duration_text, return_type=str), WithJsonSchema(_DURATION)]


class Evolve(StrEnum):
    """What happens when the pipeline has columns that the table lacks."""

    ADD = "add"
    HALT = "halt"


class TableSinkConfig(SinkConfig):
    """Options of every sink that feeds a table: which table, how often it is loaded, and how much at a time."""

    table: str
    units: Annotated[int, Field(ge=1, le=MAX_UNITS)] = Field(default=200, description="Most units in one load.")
    every: Duration = Field(default=timedelta(seconds=60), description="Between looks for units to load.")
    quiet: tuple[str, ...] = Field(default=(), max_length=24, description="Times of day, UTC, without loads: `22:00-02:30`.")

    @field_validator("every")
    @classmethod
    def _not_too_often(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            msg = "`every` is at least 1s"
            raise ValueError(msg)
        return value

    @field_validator("quiet", mode="before")
    @classmethod
    def _windows(cls, value: Any) -> Any:
        windows = [value] if isinstance(value, str) else value
        for each in windows if isinstance(windows, list | tuple) else ():
            match = _WINDOW.fullmatch(each) if isinstance(each, str) else None
            if match is None or match[1] + match[2] == match[3] + match[4]:
                msg = f"{each!r} is not a time of day; write one like 22:00-02:30 (UTC), between quotes"
                raise ValueError(msg)
        return windows

    @property
    @abstractmethod
    def unique_table(self) -> tuple[object, ...]:
        """Identifies the table. It must differ between sinks, or they would share one record of what is loaded."""

    @property
    def keeps_files(self) -> bool:
        """Whether the table consists of the sealed files themselves, so that only table maintenance may delete them."""
        return False

    @property
    def staged_for(self) -> timedelta:
        """How long staged files are kept after their load, if the table has copies of their rows."""
        return timedelta.max
