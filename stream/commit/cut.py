"""When a unit ends. A unit holds whole pages, and a page never splits a KPL aggregate, so neither does a unit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Trigger(StrEnum):
    """Why a unit was cut."""

    ROWS = "rows"
    BYTES = "bytes"
    AGE = "age"
    PRESSURE = "pressure"
    SHARD_END = "shard_end"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Limits:
    """A unit is cut when it has reached ``rows`` user records, ``payload_bytes``, or ``age_seconds`` since its first page."""

    rows: int
    payload_bytes: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Filling:
    """A unit that is being filled: its size so far, and the monotonic time at which its first page arrived."""

    rows: int
    payload_bytes: int
    since: float


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What may end a unit apart from its size and age."""

    ended: bool = False
    draining: bool = False
    pressure: bool = False


def trigger(filling: Filling | None, limits: Limits, now: float, around: Circumstances) -> Trigger | None:
    """Why the unit ends now, or None to keep filling it; always None for an empty unit."""
    if filling is None:
        return None
    conditions = (
        (Trigger.SHARD_END, around.ended),
        (Trigger.DRAIN, around.draining),
        (Trigger.ROWS, filling.rows >= limits.rows),
        (Trigger.BYTES, filling.payload_bytes >= limits.payload_bytes),
        (Trigger.AGE, now - filling.since >= limits.age_seconds),
        (Trigger.PRESSURE, around.pressure),
    )
    return next((why for why, true in conditions if true), None)


def patience(filling: Filling | None, limits: Limits, now: float, idle: float) -> float | None:
    """Seconds, at most ``idle``, until ``trigger`` must be called again even if no page arrives; None for an empty unit: never."""
    if filling is None:
        return None
    return max(0.0, min(idle, limits.age_seconds - (now - filling.since)))
