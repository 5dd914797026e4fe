"""Turns events into JSON lines. No line contains record data, because no event does."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final

import orjson

from stream import events as ev
from stream.contracts import Clock

QUIET_SECONDS: Final = 30.0
"""Seconds in which noisy classes get one line per shard and cause; the next line says for how many more events it stands."""

NO_CONTEXT: Final[Mapping[str, str]] = MappingProxyType({})
MAX_TEXT: Final = 500
MAX_REASON: Final = 8000
"""Of errors, which a person must act on: runbooks go by their words, the remedy is at the end. Container runtimes cut lines at 16 KiB."""
_MAX_CAUSES: Final = 4096
_SAFE_INTEGER: Final = 2**53 - 1


class Level(IntEnum):
    """Severities, numbered as in ``logging``."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


LEVELS: Final[dict[type[ev.Event], Level]] = {
    ev.PageReceived: Level.DEBUG,
    ev.PartOpened: Level.INFO,
    ev.EventIncomplete: Level.WARNING,
    ev.PollRepeated: Level.WARNING,
    ev.SubscriptionEnded: Level.INFO,
    ev.RetrievalChanged: Level.WARNING,
    ev.BudgetWaited: Level.INFO,
    ev.ObjectsClaimed: Level.INFO,
    ev.ObjectsUnread: Level.DEBUG,
    ev.ObjectsWaiting: Level.DEBUG,
    ev.ObjectsSkipped: Level.DEBUG,
    ev.ObjectRefused: Level.ERROR,
    ev.QueueFailed: Level.ERROR,
    ev.QueueAnswered: Level.INFO,
    ev.UnitCut: Level.DEBUG,
    ev.StageApplied: Level.DEBUG,
    ev.RecordsRejected: Level.WARNING,
    ev.RecordsTransformed: Level.INFO,
    ev.IntentCreated: Level.DEBUG,
    ev.IntentAdopted: Level.INFO,
    ev.IntentAmended: Level.INFO,
    ev.FileWritten: Level.DEBUG,
    ev.ManifestSealed: Level.DEBUG,
    ev.UnitSealed: Level.INFO,
    ev.Checkpointed: Level.DEBUG,
    ev.RecoveryFinished: Level.INFO,
    ev.LeftoversRemoved: Level.INFO,
    ev.CallRepeated: Level.WARNING,
    ev.SpansExported: Level.DEBUG,
    ev.ExportRefused: Level.WARNING,
    ev.ExportHalted: Level.ERROR,
    ev.ExportResumed: Level.INFO,
    ev.ReferenceRefreshed: Level.INFO,
    ev.ReferenceRefreshFailed: Level.WARNING,
    ev.ExportLagged: Level.DEBUG,
    ev.TelemetryFailed: Level.WARNING,
    ev.UnitsLoaded: Level.INFO,
    ev.LoadsWaiting: Level.DEBUG,
    ev.LoadRefused: Level.WARNING,
    ev.LoadParked: Level.ERROR,
    ev.LoadsPaused: Level.WARNING,
    ev.UnitsPassedOver: Level.WARNING,
    ev.LoadsResumed: Level.INFO,
    ev.ShardStarted: Level.INFO,
    ev.ShardEnded: Level.INFO,
    ev.ShardReleased: Level.INFO,
    ev.ShardPaused: Level.WARNING,
    ev.ShardResumed: Level.INFO,
    ev.ShardHalted: Level.ERROR,
    ev.StreamDescribed: Level.DEBUG,
    ev.StreamResumed: Level.INFO,
    ev.StreamSucceeded: Level.WARNING,
    ev.ShardStalled: Level.ERROR,
    ev.StoreHung: Level.ERROR,
    ev.StoreAnswered: Level.INFO,
    ev.LoopBlocked: Level.WARNING,
    ev.StackTaken: Level.INFO,
    ev.CredentialsRenewed: Level.INFO,
    ev.RecordsExpired: Level.ERROR,
    ev.NotificationFailed: Level.ERROR,
    ev.WorkerStarted: Level.INFO,
    ev.MemoryShort: Level.WARNING,
    ev.LogLinesDropped: Level.WARNING,
    ev.WorkerFailed: Level.ERROR,
    ev.DrainStarted: Level.INFO,
    ev.LeaseTaken: Level.INFO,
    ev.LeaseDropped: Level.INFO,
    ev.LeaseVanished: Level.ERROR,
    ev.CheckpointSetBack: Level.WARNING,
    ev.LeaseCreated: Level.INFO,
    ev.LeaseWritten: Level.DEBUG,
    ev.LeasesScanned: Level.DEBUG,
    ev.LeaseRowUnreadable: Level.WARNING,
    ev.LeaseHoles: Level.ERROR,
    ev.MixedFleet: Level.WARNING,
    ev.FleetLed: Level.WARNING,
    ev.LeaseWanted: Level.INFO,
    ev.ForeignProgress: Level.WARNING,
    ev.ShardRewound: Level.WARNING,
}

NOISY: Final[dict[type[ev.Event], tuple[str, ...]]] = {
    ev.PollRepeated: ("why",),
    ev.SubscriptionEnded: ("why",),
    ev.BudgetWaited: (),
    ev.EventIncomplete: (),
    ev.ObjectRefused: ("why",),
    ev.RecordsRejected: ("stage", "reason"),
    ev.CallRepeated: ("call",),
    ev.ExportRefused: ("status",),
    ev.LeaseRowUnreadable: ("detail",),
    ev.TelemetryFailed: (),
}
"""Classes that may occur many times a second, with the fields that tell their causes apart."""


@dataclass(slots=True)
class _Cause:
    written: float
    last: ev.Event
    context: Mapping[str, str]
    held_back: int = 0


class JsonLog:
    """An ``Emit`` that passes JSON lines, each ending in a newline, to ``write``. Callable from any thread; never raises.

    Integers beyond 2**53, such as sequence numbers, are written as text. If ``write`` returns False, it has dropped the line: then
    ``dropped`` is called, and before the next line that is not dropped, the log says how many were.
    """

    def __init__(
        self, write: Callable[[bytes], object], clock: Clock, level: Level = Level.INFO, dropped: Callable[[], None] = lambda: None
    ) -> None:
        self._write = write
        self._clock = clock
        self._level = level
        self._dropped = dropped
        self._missing = 0
        self._causes: dict[tuple[object, ...], _Cause] = {}
        self._swept = float("-inf")
        self._lock = threading.Lock()

    def __call__(self, event: ev.Event, context: Mapping[str, str] = NO_CONTEXT) -> None:
        """Write ``event``, unless its level is too low or it repeats a recent one; ``context`` is added to its line."""
        if not self.writes(event):
            return
        with self._lock:
            repeats = self._repeats(event, context)
            if repeats is not None:
                self._line(event, context, repeats)

    def writes(self, event: ev.Event) -> bool:
        """Whether the level of this event is one that is written."""
        return LEVELS.get(type(event), Level.INFO) >= self._level

    def flush(self) -> None:
        """Write what was held back; call it before the process ends."""
        with self._lock:
            for cause in self._causes.values():
                if cause.held_back:
                    self._line(cause.last, cause.context, cause.held_back - 1)
            self._causes.clear()
            with contextlib.suppress(OSError, ValueError):
                self._tell_missing()

    def _repeats(self, event: ev.Event, context: Mapping[str, str]) -> int | None:
        """For how many earlier events the line for this one also stands; None if it is held back."""
        fields = NOISY.get(type(event))
        if fields is None:
            return 0
        key = (type(event), event.stream, event.shard, *(getattr(event, name) for name in fields))
        now = self._clock.monotonic()
        known = self._causes.get(key)
        if known is not None and now - known.written < QUIET_SECONDS:
            known.held_back += 1
            known.last, known.context = event, context
            return None
        self._causes.pop(key, None)
        if len(self._causes) >= _MAX_CAUSES and now - self._swept >= QUIET_SECONDS:
            self._sweep(now)
        self._causes[key] = _Cause(now, event, context)
        return known.held_back if known is not None else 0

    def _sweep(self, now: float) -> None:
        """Forget causes that are over, and write what was held back of them. Slow if there are many, so it is not done for each line."""
        self._swept = now
        for key, cause in list(self._causes.items()):
            if now - cause.written >= QUIET_SECONDS:
                if cause.held_back:
                    self._line(cause.last, cause.context, cause.held_back - 1)
                del self._causes[key]

    def _line(self, event: ev.Event, context: Mapping[str, str], repeats: int) -> None:
        line = render(event) | ({"repeated": repeats} if repeats else {}) | dict(context)
        try:
            written = self._tell_missing() and self._write(self._stamped(line)) is not False
        except (OSError, ValueError):  # its reader has gone, it is closed, or its disk is full
            written = False
        if not written:
            self._missing += 1
            self._dropped()

    def _tell_missing(self) -> bool:
        """Say how many lines were dropped, if any were. Returns whether further lines can be written."""
        if self._missing and self._write(self._stamped(render(ev.LogLinesDropped("", "", self._missing)))) is not False:
            self._missing = 0
        return not self._missing

    def _stamped(self, line: dict[str, Any]) -> bytes:
        stamped = {"time": self._clock.now().isoformat(timespec="milliseconds")} | line
        return orjson.dumps(stamped, option=orjson.OPT_APPEND_NEWLINE)


def render(event: ev.Event) -> dict[str, Any]:
    """The line for ``event`` without its time: level, event name in snake case, and the event's fields, except empty places."""
    level = LEVELS.get(type(event), Level.INFO)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
    limit = MAX_REASON if level >= Level.ERROR else MAX_TEXT
    fields = {field.name: _plain(getattr(event, field.name), limit) for field in dataclasses.fields(event)}
    return {"level": level.name.lower(), "event": name} | {key: value for key, value in fields.items() if value != ""}


def _plain(value: object, limit: int = MAX_TEXT) -> object:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) <= _SAFE_INTEGER else str(value)
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, tuple):
        pairs = bool(value) and all(isinstance(item, tuple) for item in value)
        return {str(key): _plain(item) for key, item in value} if pairs else [_plain(item) for item in value]
    text = str(value)
    return text if len(text) <= limit else text[:limit] + "..."
