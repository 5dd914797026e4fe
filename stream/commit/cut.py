"""Decides when a unit ends. A unit consists of whole pages, and a page never splits a KPL aggregate, so neither does a unit."""

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
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Limits:
    """A unit is cut when it has reached ``rows`` user records, ``payload_bytes``, or ``age_seconds`` since its first page."""

    rows: int
    payload_bytes: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class OpenUnit:
    """A unit that is being filled: its size so far, and the monotonic time at which its first page arrived."""

    rows: int
    payload_bytes: int
    since: float


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What may end a unit other than its size and age. ``closed``: its last page has to be that of a unit."""

    ended: bool = False
    draining: bool = False
    pressure: bool = False
    closed: bool = False


def trigger(unit: OpenUnit | None, limits: Limits, now: float, circumstances: Circumstances) -> Trigger | None:
    """Why the unit ends now, or None to keep filling it; always None for an empty unit."""
    if unit is None:
        return None
    conditions = (
        (Trigger.SHARD_END, circumstances.ended),
        (Trigger.DRAIN, circumstances.draining),
        (Trigger.UNREADABLE, circumstances.closed),
        (Trigger.ROWS, unit.rows >= limits.rows),
        (Trigger.BYTES, unit.payload_bytes >= limits.payload_bytes),
        (Trigger.AGE, now - unit.since >= limits.age_seconds),
        (Trigger.PRESSURE, circumstances.pressure),
    )
    return next((why for why, true in conditions if true), None)


def seconds_until_due(unit: OpenUnit | None, limits: Limits, now: float, idle: float) -> float | None:
    """Seconds until ``trigger`` must be called again even if no page arrives, at most ``idle``; None (never) for an empty unit."""
    if unit is None:
        return None
    return max(0.0, min(idle, limits.age_seconds - (now - unit.since)))
