"""What happens beside the shards: export of spans, loads, reference tables."""

from __future__ import annotations

from dataclasses import dataclass

from stream.events.base import Event


@dataclass(frozen=True, slots=True)
class SpansExported(Event):
    """One unit's spans reached the collector: ``accepted``, ``rejected`` by it, and ``parked`` because it refused the request for good."""

    accepted: int
    rejected: int
    parked: int


@dataclass(frozen=True, slots=True)
class ExportRefused(Event):
    """The collector refused ``items`` spans and must not be asked again; ``detail`` is its own message."""

    status: int
    items: int
    detail: str


@dataclass(frozen=True, slots=True)
class ExportHalted(Event):
    """The export of this shard's spans has stopped until somebody fixes ``reason``; tried again after ``wait`` seconds.

    ``status``: HTTP status, or 0. ``blocking``: checkpoints wait for the export, so the shard stands still too.
    """

    status: int
    reason: str
    wait: float
    blocking: bool


@dataclass(frozen=True, slots=True)
class ExportResumed(Event):
    """Spans of this shard are exported again, from where the export had stopped."""


@dataclass(frozen=True, slots=True)
class ExportLagged(Event):
    """How long the oldest sealed unit of the shard has been waiting for its export; 0 if none is waiting."""

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
    """How many units with rows are waiting for the loader of ``sink``, the age of the oldest in seconds, and how many shards are parked."""

    sink: str
    units: int
    age: float
    parked: int


@dataclass(frozen=True, slots=True)
class LoadRefused(Event):
    """A load into ``sink`` failed and is tried again after ``wait`` seconds; ``kind``: transient, setup, unexpected."""

    sink: str
    kind: str
    detail: str
    wait: float


@dataclass(frozen=True, slots=True)
class LoadParked(Event):
    """The units of one shard are not loaded into ``sink`` until a person acts; they stay staged, and the shard is still read."""

    sink: str
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class UnitsPassedOver(Event):
    """Units that were sealed for ``table``, of another kind, when it had the name of ``sink``, are loaded by nobody; ``shard`` is empty.

    ``remedy``: how to find out whether rows of theirs are in no table, and what to do.
    """

    sink: str
    table: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LoadsPaused(Event):
    """An operator has paused the loads into ``sink``; units wait. ``until``: empty if the pause has no end. ``shard`` is empty."""

    sink: str
    by: str
    note: str
    until: str


@dataclass(frozen=True, slots=True)
class LoadsResumed(Event):
    """Loads into ``sink`` are no longer paused; ``shard`` is empty."""

    sink: str


@dataclass(frozen=True, slots=True)
class ReferenceRefreshed(Event):
    """Reference tables were read again; ``changed`` take effect with the next unit. ``age``: seconds since all were known to be current.

    ``definition``: digest of the definition now in use. ``failing``: tables whose last reading failed. ``shard`` is empty.
    """

    changed: int
    definition: str
    age: float
    failing: int = 0


@dataclass(frozen=True, slots=True)
class ReferenceRefreshFailed(Event):
    """``failing`` reference tables could not be read again or used; those in use, ``age`` seconds old, stay. ``shard`` is empty."""

    detail: str
    age: float
    failing: int = 1
