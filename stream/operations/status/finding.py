"""A finding about a pipeline, how much harm it does, and how it is worded. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final

from stream.pipeline.units import format_duration

DETAILS: Final = 5
"""Most lines of one finding about single shards."""


class Harm(IntEnum):
    """How bad a finding is; the worst one of a pipeline is its verdict. ``UNKNOWN``: a part could not be read."""

    HEALTHY = 0
    UNKNOWN = 1
    DEGRADED = 2
    BEHIND = 3
    STUCK = 4
    EXPIRING = 5
    LOST = 6

    @property
    def words(self) -> str:
        """The verdict as people read it."""
        return _WORDS[self]


_WORDS: Final = {
    Harm.HEALTHY: "healthy",
    Harm.UNKNOWN: "not known",
    Harm.DEGRADED: "degraded",
    Harm.BEHIND: "behind",
    Harm.STUCK: "stuck",
    Harm.EXPIRING: "losing data soon",
    Harm.LOST: "losing data",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that needs a person. ``code``: stable, for programs. ``section``: of docs/runbook.md.

    ``shards`` are those it concerns, the worst first; ``since``: when it began, where known. ``details``: a line for each of a few shards.
    ``commands``: what to type next, with ``FILE`` for the pipeline file.
    """

    code: str
    harm: Harm
    what: str
    section: str
    shards: tuple[str, ...] = ()
    since: datetime | None = None
    figure: float | None = None
    limit: float | None = None
    details: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def length(seconds: float | None) -> str:
    """``seconds`` as people write it, to the second below an hour and to the minute above; a question mark if it is not known."""
    if seconds is None:
        return "?"
    whole = max(0, round(seconds))
    rounded = whole if whole < 3600 else whole // 60 * 60
    return format_duration(timedelta(seconds=rounded)) if rounded else "0s"


def clock(moment: datetime | None) -> str:
    """``moment`` as date and time in UTC, to the second; a question mark if it is not known."""
    return "?" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def count(number: int, one: str, several: str) -> str:
    """``number`` and what is counted."""
    return f"{number:,} {one if number == 1 else several}"


def lines_of(rows: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """A line for each of the first few rows, and how many there are beside them."""
    lines = [f"{name}: {text}" for name, text in rows]
    rest = len(lines) - DETAILS
    return tuple(lines) if rest <= 0 else (*lines[:DETAILS], f"and {rest:,} more")
