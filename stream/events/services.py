"""What happens beside the shards: export of spans, loads, reference tables."""

from __future__ import annotations

from dataclasses import dataclass

from stream.events.base import Event


@dataclass(frozen=True, slots=True)
class SpansExported(Event):
    """One unit's spans reached the collector, which ``rejected`` some; ``parked`` ones it refused for good."""

    accepted: int
    rejected: int
    parked: int


@dataclass(frozen=True, slots=True)
class ExportRefused(Event):
    """The collector did not take ``items`` spans and must not be asked again; ``detail`` is its own word."""

    status: int
    items: int
    detail: str


@dataclass(frozen=True, slots=True)
class ExportHalted(Event):
    """Spans of this shard stand still until somebody mends ``reason``; tried again after ``wait`` seconds. ``status``: HTTP, or 0.

    ``blocking``: checkpoints wait for it, so that the shard stands still as well.
    """

    status: int
    reason: str
    wait: float
    blocking: bool


@dataclass(frozen=True, slots=True)
class ExportResumed(Event):
    """Spans of this shard are exported again, from where they stood."""


@dataclass(frozen=True, slots=True)
class ExportLagged(Event):
    """How long the oldest sealed unit of the shard has been waiting for its export; 0 when none waits."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TelemetryFailed(Event):
    """Spans of the worker's own operations did not reach their collector, in the SDK's words; ``shard`` is empty."""

    detail: str


@dataclass(frozen=True, slots=True)
class UnitsLoaded(Event):
    """Sealed units are in the table of ``sink``; ``lag``: seconds since the first of them was sealed; ``shard`` is empty."""

    sink: str
    units: int
    rows: int
    size: int
    lag: float
    seconds: float


@dataclass(frozen=True, slots=True)
class LoadsWaiting(Event):
    """Units with rows that the loader of ``sink`` sees waiting, the age of the oldest in seconds, and how many shards are parked."""

    sink: str
    units: int
    age: float
    parked: int


@dataclass(frozen=True, slots=True)
class LoadRefused(Event):
    """Loading into ``sink`` did not go through and is tried again after ``wait`` seconds; ``kind``: transient, setup, unexpected."""

    sink: str
    kind: str
    detail: str
    wait: float


@dataclass(frozen=True, slots=True)
class LoadParked(Event):
    """The units of one shard are not loaded into ``sink`` until a person acts; they stay staged, and the shard is read on."""

    sink: str
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReferenceRefreshed(Event):
    """Reference tables were read again; ``changed`` of them count from the next unit on. ``age``: seconds since all were known to be good.

    ``definition``: digest of the definition in use now. ``failing``: tables that could not be read at their last turn. ``shard`` is empty.
    """

    changed: int
    definition: str
    age: float
    failing: int = 0


@dataclass(frozen=True, slots=True)
class ReferenceRefreshFailed(Event):
    """``failing`` reference tables could not be read again, or not used; those in hand, ``age`` seconds old, stay. ``shard`` is empty."""

    detail: str
    age: float
    failing: int = 1
