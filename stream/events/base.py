"""What all events have in common."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; ``stream`` and ``shard`` say where."""

    stream: str
    shard: str
