"""Options of the export: what is sent for a unit, and in which form."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Signal(StrEnum):
    """What a record becomes."""

    SPANS = "spans"
    LOGS = "logs"
    BOTH = "both"


class Tier(StrEnum):
    """Which records are sent. The ledger has all of them in any case."""

    FULL = "full"
    ANOMALIES = "anomalies"
    SAMPLE = "sample"


class Trust(StrEnum):
    """How a record's span uses the producer's trace context: as a link, as its parent, or not at all."""

    LINK = "link"
    PARENT = "parent"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Shape:
    """How units become requests. ``request_bytes``: most bytes of a request before compression; ``sample``: one in so many is sent."""

    signal: Signal = Signal.SPANS
    tier: Tier = Tier.FULL
    trust: Trust = Trust.LINK
    sample: int = 100
    request_bytes: int = 3_670_016
