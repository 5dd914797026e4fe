"""What is exported of a unit, and in which form."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Signal(StrEnum):
    """What a record becomes."""

    SPANS = "spans"
    LOGS = "logs"
    BOTH = "both"


class Tier(StrEnum):
    """Which records are sent; the ledger holds all of them whatever is sent."""

    FULL = "full"
    ANOMALIES = "anomalies"
    SAMPLE = "sample"


class Trust(StrEnum):
    """What a producer's trace context does to a record's span: a link, its parent, or nothing."""

    LINK = "link"
    PARENT = "parent"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Shape:
    """How units become requests. ``request_bytes`` bounds a request before compression; ``sample`` keeps one record in that many."""

    signal: Signal = Signal.SPANS
    tier: Tier = Tier.FULL
    trust: Trust = Trust.LINK
    sample: int = 100
    request_bytes: int = 3_670_016
