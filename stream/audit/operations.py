"""The worker's operations as spans, derived from its events, in the traces to which the spans of records link.

A unit's operations are in the unit's trace, so that a trace store shows them together with the spans of its records, and the trace id in a
log line leads there. Operations outside units are in the trace of the worker's hold on the shard. The proof does not depend on these spans:
if one is dropped, no record is lost.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from stream import events as ev
from stream.audit.ids import operation_trace, unit_span, unit_trace
from stream.contracts import Clock

CLIENT: Final = "client"
INTERNAL: Final = "internal"

_MAX_UNSEALED: Final = 64
"""Most unsealed units per shard that are remembered; beyond that, the oldest is forgotten. Normally, there are at most three."""

_WITHOUT_HOLD: Final = (
    ev.CallRepeated,
    ev.ExportHalted,
    ev.ExportLagged,
    ev.ExportRefused,
    ev.ExportResumed,
    ev.LeaseCreated,
    ev.LeaseDropped,
    ev.LeaseVanished,
    ev.LeaseWanted,
    ev.LeaseWritten,
    ev.LoadParked,
    ev.NotificationFailed,
    ev.SpansExported,
)
"""Events that may be about a shard that the worker does not hold, or no longer holds."""

Attributes: TypeAlias = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Operation:
    """One span. Times are nanoseconds since 1970; ``error`` is the class of an error, or empty."""

    name: str
    kind: str
    trace: bytes
    span: bytes
    parent: bytes | None
    start: int
    end: int
    attributes: Attributes
    error: str = ""


@dataclass(frozen=True, slots=True)
class EventSpans:
    """The result of one event: the ids, in hex, of the span that a log line about it should name, and the spans that it ended."""

    trace: str
    span: str
    ended: tuple[Operation, ...] = ()


@dataclass(slots=True)
class _Unit:
    after: int
    last: int
    trace: bytes
    root: bytes
    begun: int
    moment: int
    """When the next operation that does not report its duration begins."""
    attributes: dict[str, str | int] = field(default_factory=dict)


@dataclass(slots=True)
class _Hold:
    """A worker's hold on one shard. ``units``: cut but not yet sealed, oldest first. ``parent``: the hold's span, if it will have one."""

    trace: bytes
    parent: bytes | None
    root: bytes
    begun: int
    started: bool = False
    units: deque[_Unit] = field(default_factory=lambda: deque(maxlen=_MAX_UNSEALED))


class Operations:
    """Follows the events of one worker. Callable from any thread; pass each event once, in order."""

    def __init__(self, application: str, worker: str, clock: Clock) -> None:
        self._application = application
        self._worker = worker
        self._clock = clock
        self._holds: dict[tuple[str, str], _Hold] = {}
        self._number = 0
        self._lock = threading.Lock()

    def __call__(self, event: ev.Event) -> EventSpans:
        """Process ``event``."""
        with self._lock:
            self._number += 1
            now = int(self._clock.now().timestamp() * 1e9)
            hold = self._holds.get((event.stream, event.shard)) or self._begin(event, now)
            return self._spans_of(event, hold, now)

    def _spans_of(self, event: ev.Event, hold: _Hold, now: int) -> EventSpans:  # noqa: PLR0911 - one case per kind of event
        match event:
            case ev.UnitCut():
                attributes: dict[str, str | int] = {"kst.unit.trigger": event.trigger, "kst.unit.records": event.records}
                hold.units.append(self._unit(event, event.last, now, attributes))
                return _naming(hold.units[-1])
            case ev.StageApplied() | ev.RecordsRejected():
                return self._transformed(event, hold, now)
            case ev.IntentCreated() | ev.IntentAdopted() | ev.IntentAmended() | ev.ManifestSealed() | ev.UnitSealed():
                return self._committed(event, hold, now)
            case ev.FileWritten() | ev.Checkpointed() if hold.units:
                return self._stored(event, hold.units[0], now)
            case ev.CallRepeated() if hold.units:
                return _naming(hold.units[0])
            case ev.PageReceived() | ev.PollRepeated():
                return self._polled(event, hold, now)
            case ev.LeaseDropped() if not hold.started:
                self._holds.pop((event.stream, event.shard), None)
                return EventSpans(hold.trace.hex(), hold.root.hex())
            case _:
                return self._lease(event, hold, now)

    def _transformed(self, event: ev.StageApplied | ev.RecordsRejected, hold: _Hold, now: int) -> EventSpans:
        """Events of stages come only after all have run. So their spans are laid end to end from the cut on, which is when they ran."""
        if not hold.units:
            return EventSpans(hold.trace.hex(), hold.root.hex())
        unit = hold.units[-1]
        if isinstance(event, ev.RecordsRejected):
            return _naming(unit)
        attributes: Attributes = {"kst.stage": event.stage, "kst.stage.rows_in": event.rows_in, "kst.stage.rows_out": event.rows_out}
        end = min(now, unit.moment + int(event.seconds * 1e9))
        done = self._in_unit(unit, f"transform {event.stage}", INTERNAL, unit.moment, end, attributes)
        unit.moment = end
        return _ended(done)

    def _committed(self, event: ev.Event, hold: _Hold, now: int) -> EventSpans:
        after, last = getattr(event, "after"), getattr(event, "last")  # noqa: B009 - each of these events has them
        unit = next((unit for unit in hold.units if unit.after == after), None)
        if unit is None:
            unit = self._unit(event, last, now, {})
            if last is not None and not isinstance(event, ev.UnitSealed):
                hold.units.appendleft(unit)  # another worker's intent, which this one completes
        if isinstance(event, ev.ManifestSealed):
            done = self._in_unit(unit, f"seal {event.stream}", CLIENT, unit.moment, now, {})
            unit.moment = now
            return _ended(done)
        if isinstance(event, ev.UnitSealed):
            hold.units = deque((each for each in hold.units if each.after > after), _MAX_UNSEALED)
            outcomes = {f"kst.unit.{label}": count for label, count in event.outcomes}
            return _ended(self._commit_span(unit, event.stream, now, outcomes))
        unit.moment = now
        return _naming(unit)

    def _stored(self, event: ev.FileWritten | ev.Checkpointed, unit: _Unit, now: int) -> EventSpans:
        if isinstance(event, ev.Checkpointed):
            return _ended(
                self._in_unit(unit, f"checkpoint {event.stream}", CLIENT, unit.moment, now, {"messaging.operation.type": "settle"})
            )
        attributes: Attributes = {"kst.sink": event.sink, "kst.dest.rows": event.rows, "kst.dest.bytes": event.size}
        unit.moment = now
        return _ended(self._in_unit(unit, f"write {event.sink}", CLIENT, now - int(event.seconds * 1e9), now, attributes))

    def _polled(self, event: ev.PageReceived | ev.PollRepeated, hold: _Hold, now: int) -> EventSpans:
        """Polls without records get no span: an idle shard would fill the trace store with them."""
        if isinstance(event, ev.PollRepeated):
            failed = self._in_hold(hold, f"get_records {event.stream}", now, now, {"kst.wait_ms": round(event.wait * 1000)}, event.why)
            return _ended(failed)
        if not event.records:
            return EventSpans(hold.trace.hex(), hold.root.hex())
        attributes: Attributes = {
            "messaging.operation.type": "receive",
            "messaging.batch.message_count": event.user_records,
            "kst.source.records": event.records,
            "kst.source.bytes": event.payload_bytes,
            "kst.source.behind_ms": event.behind_ms,
        }
        return _ended(self._in_hold(hold, f"get_records {event.stream}", now - int(event.seconds * 1e9), now, attributes))

    def _lease(self, event: ev.Event, hold: _Hold, now: int) -> EventSpans:
        where = event.stream, event.shard
        match event:
            case ev.ShardStarted():
                hold.started = True
                return _ended(self._in_hold(hold, f"take shard {event.stream}", now, now, {"kst.unit.after_seq": str(event.position)}))
            case ev.RecoveryFinished():
                unfinished = tuple(self._commit_span(unit, event.stream, now, {}) for unit in hold.units)
                hold.units.clear()
                start, attributes = now - int(event.seconds * 1e9), {"kst.recovery.units": event.units_followed}
                done = self._in_hold(hold, f"recover shard {event.stream}", start, now, attributes)
                return EventSpans(done.trace.hex(), done.span.hex(), (*unfinished, done))
            case ev.RecordsExpired():
                return _ended(self._in_hold(hold, f"lose records {event.stream}", now, now, {}, "expired_gap"))
            case ev.ExportHalted():
                return _ended(
                    self._in_hold(hold, f"halt export {event.stream}", now, now, {"http.response.status_code": event.status}, "export")
                )
            case ev.ShardEnded() | ev.ShardReleased() | ev.ShardHalted():
                self._holds.pop(where, None)
                error = "halted" if isinstance(event, ev.ShardHalted) else ""
                what: Attributes = {"kst.lease.end": event.why if isinstance(event, ev.ShardReleased) else error or "shard_end"}
                attributes_of = {**self._shared(event), **what}
                held = Operation(f"hold shard {event.stream}", INTERNAL, hold.trace, hold.root, None, hold.begun, now, attributes_of, error)
                return _ended(held)
            case _:
                return EventSpans(hold.trace.hex(), hold.root.hex())

    def _begin(self, event: ev.Event, now: int) -> _Hold:
        """The hold that begins with ``event``; for events without a shard or in ``_WITHOUT_HOLD``, one without a span that is not kept."""
        if not event.shard or isinstance(event, _WITHOUT_HOLD):
            trace = operation_trace(self._application, event.stream, event.shard, self._worker)
            return _Hold(trace, None, unit_span(trace, "hold"), now)
        trace = operation_trace(self._application, event.stream, event.shard, self._worker, str(self._number))
        root = unit_span(trace, "hold")
        hold = self._holds[event.stream, event.shard] = _Hold(trace, root, root, now)
        return hold

    def _unit(self, event: ev.Event, last: int | None, now: int, attributes: dict[str, str | int]) -> _Unit:
        after: int = getattr(event, "after")  # noqa: B009 - events about units have it
        trace = unit_trace(self._application, event.stream, event.shard, after, last)
        root = unit_span(trace, f"commit by {self._worker}", self._number)
        bounds = {"kst.unit.after_seq": str(after), "kst.unit.last_seq": str(last)}
        return _Unit(after, last or after, trace, root, now, now, {**self._shared(event), **bounds, **attributes})

    def _commit_span(self, unit: _Unit, stream: str, now: int, attributes: Attributes) -> Operation:
        return Operation(f"commit {stream}", INTERNAL, unit.trace, unit.root, None, unit.begun, now, {**unit.attributes, **attributes})

    def _in_unit(self, unit: _Unit, name: str, kind: str, start: int, end: int, attributes: Attributes) -> Operation:
        span = unit_span(unit.trace, f"{name} by {self._worker}", self._number)
        return Operation(name, kind, unit.trace, span, unit.root, min(start, end), end, attributes)

    def _in_hold(self, hold: _Hold, name: str, start: int, end: int, attributes: Attributes, error: str = "") -> Operation:
        span = unit_span(hold.trace, name, self._number)
        return Operation(name, CLIENT, hold.trace, span, hold.parent, start, end, attributes, error)

    def _shared(self, event: ev.Event) -> dict[str, str | int]:
        return {
            "messaging.destination.name": event.stream,
            "messaging.destination.partition.id": event.shard,
            "messaging.client.id": self._worker,
        }


def _naming(unit: _Unit) -> EventSpans:
    return EventSpans(unit.trace.hex(), unit.root.hex())


def _ended(done: Operation) -> EventSpans:
    return EventSpans(done.trace.hex(), done.span.hex(), (done,))
