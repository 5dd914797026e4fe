"""Turns events into Prometheus metrics: what is counted for each event, in one place."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stream import events as ev
from stream.contracts import Clock
from stream.metrics import catalog as m
from stream.metrics.catalog import CATALOG, PER_SHARD, Kind, Metric
from stream.metrics.leases import LEASES
from stream.metrics.vitals import VITALS, begin_counts

MAX_REASONS: Final = 200
"""Limit on series of ``kst_dlq_records_total`` per recorder; further (stage, reason) pairs count as reason ``other``."""
OTHER: Final = "other"
QUIET_SECONDS: Final = 60.0
"""Seconds that may pass between two looks at a tip without anything being wrong, since quiet shards share a worker's polls."""


class Recorder:
    """An ``Emit`` that keeps the metrics of ``catalog.py`` in ``registry``.

    Callable from any thread. Series of a shard exist from its ``ShardStarted`` to its ``ShardReleased`` or ``ShardEnded``.
    """

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock = clock
        self._metrics: dict[str, Any] = {metric.name: _instrument(metric, registry) for metric in CATALOG}
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._held: set[tuple[str, str]] = set()
        self._tips: dict[tuple[str, str], tuple[float, float]] = {}
        self._reasons: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()

    def __call__(self, event: ev.Event) -> None:
        """Count ``event``; events of unknown classes are ignored."""
        count = COUNTED.get(type(event))
        if count is not None:
            count(self, event)

    def watch_buffer(self, held: Callable[[], int], limit: int) -> None:
        """Export what ``held`` returns, in bytes, at each scrape, and ``limit``."""
        self._metrics[m.BUFFER_BYTES.name].set_function(held)
        self.set(m.BUFFER_LIMIT_BYTES, limit)

    def now(self) -> float:
        """Wall-clock time in seconds since 1970."""
        return self._clock.now().timestamp()

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Increase a counter; a negative ``amount`` is ignored."""
        self._series(metric, labels).inc(max(0, amount))

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._series(metric, labels).set(value)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add an observation to a histogram."""
        self._series(metric, labels).observe(value)

    def set_shard(self, metric: Metric, value: float, event: ev.Event) -> None:
        """Set a gauge of the event's shard, unless the shard is no longer held."""
        with self._lock:
            if (event.stream, event.shard) in self._held:
                self.set(metric, value, event.stream, event.shard)

    def hold(self, event: ev.Event) -> None:
        """Note that the event's shard is being read from now on."""
        where = event.stream, event.shard
        with self._lock:
            if where not in self._tips and event.shard:
                # Until the first page, the distance to the tip is unknown, but it grows.
                self._look_at_tip(where, 0.0)
                self.set(m.SEALED_TIMESTAMP, self.now(), *where)
            self._held.add(where)
            self._show_held(event.stream)
            self.set(m.SHARD_HALTED, 0, *where)
            self.set(m.SHARD_STALLED, 0, *where)

    def let_go(self, event: ev.Event) -> None:
        """Note that the event's shard is no longer this worker's: remove its series."""
        with self._lock:
            self._held.discard((event.stream, event.shard))
            self._show_held(event.stream)
            self._tips.pop((event.stream, event.shard), None)
            for metric in PER_SHARD:
                self._remove(metric, event)

    def see_tip(self, event: ev.Event, behind: float) -> None:
        """Note that reading is ``behind`` seconds behind the tip of the event's shard; the lag grows with each second without news."""
        with self._lock:
            if (event.stream, event.shard) in self._held:
                self._look_at_tip((event.stream, event.shard), behind)

    def lose_sight(self, event: ev.Event) -> None:
        """Note that this worker no longer reads the event's shard, even if the shard is still shown as halted here."""
        with self._lock:
            self._tips.pop((event.stream, event.shard), None)
            self._remove(m.BEHIND_LATEST, event)

    def bounded_reason(self, stream: str, stage: str, reason: str) -> str:
        """``reason``, or ``other`` once too many different ones have been seen."""
        with self._lock:
            if (stream, stage, reason) not in self._reasons and len(self._reasons) >= MAX_REASONS:
                return OTHER
            self._reasons.add((stream, stage, reason))
            return reason

    def _show_held(self, stream: str) -> None:
        self.set(m.LEASES_HELD, sum(1 for held, shard in self._held if held == stream and shard), stream)

    def _look_at_tip(self, where: tuple[str, str], behind: float) -> None:
        if where not in self._tips:
            self._series(m.BEHIND_LATEST, where).set_function(lambda: self._behind(where))
        self._tips[where] = behind, self._clock.monotonic()

    def _behind(self, where: tuple[str, str]) -> float:
        behind, seen = self._tips.get(where, (0.0, self._clock.monotonic()))
        return behind + max(0.0, self._clock.monotonic() - seen - QUIET_SECONDS)

    def _remove(self, metric: Metric, event: ev.Event) -> None:
        self._children.pop((metric.name, (event.stream, event.shard)), None)
        with contextlib.suppress(KeyError):
            self._metrics[metric.name].remove(event.stream, event.shard)

    def _series(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        known = self._children.get((metric.name, labels))
        if known is None:
            # Looking up a series takes the library longer than counting.
            instrument = self._metrics[metric.name]
            known = self._children[metric.name, labels] = instrument.labels(*labels) if labels else instrument
        return known


def _instrument(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    match metric.kind:
        case Kind.COUNTER:
            return Counter(metric.name, metric.help, metric.labels, registry=registry)
        case Kind.GAUGE:
            return Gauge(metric.name, metric.help, metric.labels, registry=registry)
        case Kind.HISTOGRAM:
            return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)


def _page_received(r: Recorder, e: ev.PageReceived) -> None:
    r.add(m.SOURCE_RECORDS, e.records, e.stream)
    r.add(m.SOURCE_USER_RECORDS, e.user_records, e.stream)
    r.add(m.SOURCE_BYTES, e.payload_bytes, e.stream)
    r.add(m.SOURCE_POLLS, 1, e.stream, "ok" if e.records else "empty")
    r.observe(m.SOURCE_POLL_SECONDS, e.seconds, e.stream)
    r.see_tip(e, e.behind_ms / 1000)


def _poll_repeated(r: Recorder, e: ev.PollRepeated) -> None:
    r.add(m.SOURCE_POLLS, 1, e.stream, e.why)
    r.add(m.SOURCE_POLL_WAIT, e.wait, e.stream)


def _subscription_ended(r: Recorder, e: ev.SubscriptionEnded) -> None:
    r.add(m.SOURCE_SUBSCRIPTIONS, 1, e.stream, e.why)
    r.add(m.SOURCE_POLL_WAIT, e.wait, e.stream)


def _retrieval_changed(r: Recorder, e: ev.RetrievalChanged) -> None:
    r.set_shard(m.SOURCE_FALLBACK, float(e.to == "polling"), e)


def _budget_waited(r: Recorder, e: ev.BudgetWaited) -> None:
    r.add(m.BACKPRESSURE, e.seconds, e.stream)


def _unit_cut(r: Recorder, e: ev.UnitCut) -> None:
    r.add(m.UNITS_CUT, 1, e.stream, e.trigger)
    r.observe(m.UNIT_RECORDS, e.records, e.stream)
    r.observe(m.UNIT_BYTES, e.payload_bytes, e.stream)


def _stage_applied(r: Recorder, e: ev.StageApplied) -> None:
    r.add(m.STAGE_RECORDS_IN, e.rows_in, e.stream, e.stage)
    r.add(m.STAGE_RECORDS_OUT, e.rows_out, e.stream, e.stage)
    r.observe(m.STAGE_SECONDS, e.seconds, e.stream, e.stage)


def _records_rejected(r: Recorder, e: ev.RecordsRejected) -> None:
    r.add(m.DLQ_RECORDS, e.records, e.stream, e.stage, r.bounded_reason(e.stream, e.stage, e.reason))


def _intent_created(r: Recorder, e: ev.IntentCreated) -> None:
    r.add(m.INTENTS, 1, e.stream, "created")


def _intent_adopted(r: Recorder, e: ev.IntentAdopted) -> None:
    r.add(m.INTENTS, 1, e.stream, e.how)


def _intent_amended(r: Recorder, e: ev.IntentAmended) -> None:
    r.add(m.INTENTS, 1, e.stream, "amended")


def _file_written(r: Recorder, e: ev.FileWritten) -> None:
    r.add(m.SINK_OBJECTS, 1, e.stream, e.sink)
    r.add(m.SINK_RECORDS, e.rows, e.stream, e.sink)
    r.add(m.SINK_BYTES, e.size, e.stream, e.sink)
    r.observe(m.SINK_PUT_SECONDS, e.seconds, e.stream, e.sink)


def _manifest_sealed(r: Recorder, e: ev.ManifestSealed) -> None:
    r.add(m.MANIFESTS_SEALED, 1, e.stream)


def _unit_sealed(r: Recorder, e: ev.UnitSealed) -> None:
    r.add(m.UNITS_SEALED, 1, e.stream)
    r.observe(m.UNIT_SECONDS, e.seconds, e.stream)
    # If this clock is behind the service's, ages are negative; a sum that falls would look like a restart.
    r.observe(m.RECORD_AGE, max(0.0, e.oldest_age), e.stream, "oldest")
    r.observe(m.RECORD_AGE, max(0.0, e.newest_age), e.stream, "newest")
    for outcome, records in e.outcomes:
        r.add(m.RECORDS, records, e.stream, outcome)
    r.set_shard(m.SEALED_TIMESTAMP, r.now(), e)


def _checkpointed(r: Recorder, e: ev.Checkpointed) -> None:
    r.add(m.CHECKPOINTS, 1, e.stream)


def _recovery_finished(r: Recorder, e: ev.RecoveryFinished) -> None:
    r.add(m.RECOVERIES, 1, e.stream)
    r.add(m.RECOVERY_UNITS, e.units_followed, e.stream)
    r.observe(m.RECOVERY_SECONDS, e.seconds, e.stream)


def _leftovers_removed(r: Recorder, e: ev.LeftoversRemoved) -> None:
    r.add(m.LEFTOVERS, e.files, e.stream)


def _call_repeated(r: Recorder, e: ev.CallRepeated) -> None:
    r.add(m.CALLS_REPEATED, 1, e.call)
    r.add(m.CALL_WAIT, e.wait, e.call)


def _spans_exported(r: Recorder, e: ev.SpansExported) -> None:
    for result, items in (("accepted", e.accepted), ("rejected", e.rejected), ("parked", e.parked)):
        r.add(m.AUDIT_SPANS, items, e.stream, result)


def _export_refused(r: Recorder, e: ev.ExportRefused) -> None:
    r.add(m.AUDIT_REFUSALS, 1, e.stream, str(e.status))


def _export_halted(r: Recorder, e: ev.ExportHalted) -> None:
    r.set_shard(m.AUDIT_EXPORT_HALTED, 1, e)


def _export_resumed(r: Recorder, e: ev.ExportResumed) -> None:
    r.set_shard(m.AUDIT_EXPORT_HALTED, 0, e)


def _export_lagged(r: Recorder, e: ev.ExportLagged) -> None:
    r.set_shard(m.AUDIT_EXPORT_LAG, e.seconds, e)


def _telemetry_failed(r: Recorder, _: ev.TelemetryFailed) -> None:
    r.add(m.TELEMETRY_FAILURES, 1)


def _units_loaded(r: Recorder, e: ev.UnitsLoaded) -> None:
    r.add(m.LOADS, 1, e.stream, e.sink, "done")
    r.add(m.LOAD_UNITS, e.units, e.stream, e.sink)
    r.add(m.LOAD_RECORDS, e.rows, e.stream, e.sink)
    r.observe(m.LOAD_SECONDS, e.seconds, e.stream, e.sink)
    r.observe(m.LOAD_AGE, e.lag, e.stream, e.sink)


def _loads_waiting(r: Recorder, e: ev.LoadsWaiting) -> None:
    r.set(m.LOAD_WAITING, e.units, e.stream, e.sink)
    r.set(m.LOAD_LAG, e.age, e.stream, e.sink)
    r.set(m.LOAD_PARKED, e.parked, e.stream, e.sink)


def _load_refused(r: Recorder, e: ev.LoadRefused) -> None:
    r.add(m.LOADS, 1, e.stream, e.sink, e.kind)


def _load_parked(r: Recorder, e: ev.LoadParked) -> None:
    r.add(m.LOADS, 1, e.stream, e.sink, "parked")


def _reference_refreshed(r: Recorder, e: ev.ReferenceRefreshed) -> None:
    r.add(m.REFERENCE_REFRESHES, 1, "changed" if e.changed else "same")
    r.set(m.REFERENCE_AGE, e.age)
    r.set(m.REFERENCE_FAILING, e.failing)


def _reference_refresh_failed(r: Recorder, e: ev.ReferenceRefreshFailed) -> None:
    r.add(m.REFERENCE_REFRESHES, 1, "failed")
    r.set(m.REFERENCE_AGE, e.age)
    r.set(m.REFERENCE_FAILING, e.failing)


def _shard_started(r: Recorder, e: ev.ShardStarted) -> None:
    r.add(m.SHARDS_STARTED, 1, e.stream)
    begin_counts(r, e.stream)
    r.hold(e)


def _shard_ended(r: Recorder, e: ev.ShardEnded) -> None:
    r.add(m.SHARDS_ENDED, 1, e.stream)
    r.let_go(e)


def _shard_released(r: Recorder, e: ev.ShardReleased) -> None:
    r.add(m.SHARDS_RELEASED, 1, e.stream, e.why)
    r.let_go(e)


def _shard_halted(r: Recorder, e: ev.ShardHalted) -> None:
    r.hold(e)
    r.set_shard(m.SHARD_HALTED, 1, e)


def _part_opened(r: Recorder, e: ev.PartOpened) -> None:
    r.add(m.PARTS_OPENED, 1, e.stream)


def _notification_failed(r: Recorder, e: ev.NotificationFailed) -> None:
    r.add(m.NOTIFICATIONS_FAILED, 1, e.stream, e.channel)


def _worker_started(r: Recorder, e: ev.WorkerStarted) -> None:
    r.set(m.BUILD_INFO, 1, e.version, e.worker)


def _drain_started(r: Recorder, _: ev.DrainStarted) -> None:
    r.set(m.DRAINING, 1)


def _foreign_progress(r: Recorder, e: ev.ForeignProgress) -> None:
    r.add(m.FOREIGN_RANGES, 1, e.stream)


def _shard_rewound(r: Recorder, e: ev.ShardRewound) -> None:
    r.add(m.REWINDS, 1, e.stream)


COUNTED: Final[dict[type[ev.Event], Callable[[Recorder, Any], None]]] = {
    ev.PageReceived: _page_received,
    ev.PollRepeated: _poll_repeated,
    ev.SubscriptionEnded: _subscription_ended,
    ev.RetrievalChanged: _retrieval_changed,
    ev.BudgetWaited: _budget_waited,
    ev.UnitCut: _unit_cut,
    ev.StageApplied: _stage_applied,
    ev.RecordsRejected: _records_rejected,
    ev.IntentCreated: _intent_created,
    ev.IntentAdopted: _intent_adopted,
    ev.IntentAmended: _intent_amended,
    ev.FileWritten: _file_written,
    ev.ManifestSealed: _manifest_sealed,
    ev.UnitSealed: _unit_sealed,
    ev.Checkpointed: _checkpointed,
    ev.RecoveryFinished: _recovery_finished,
    ev.LeftoversRemoved: _leftovers_removed,
    ev.CallRepeated: _call_repeated,
    ev.SpansExported: _spans_exported,
    ev.ExportRefused: _export_refused,
    ev.ExportHalted: _export_halted,
    ev.ExportResumed: _export_resumed,
    ev.ExportLagged: _export_lagged,
    ev.TelemetryFailed: _telemetry_failed,
    ev.UnitsLoaded: _units_loaded,
    ev.LoadsWaiting: _loads_waiting,
    ev.LoadRefused: _load_refused,
    ev.LoadParked: _load_parked,
    ev.ReferenceRefreshed: _reference_refreshed,
    ev.ReferenceRefreshFailed: _reference_refresh_failed,
    ev.ShardStarted: _shard_started,
    ev.ShardEnded: _shard_ended,
    ev.ShardReleased: _shard_released,
    ev.ShardHalted: _shard_halted,
    ev.PartOpened: _part_opened,
    ev.NotificationFailed: _notification_failed,
    ev.WorkerStarted: _worker_started,
    ev.DrainStarted: _drain_started,
    ev.ForeignProgress: _foreign_progress,
    ev.ShardRewound: _shard_rewound,
    **LEASES,
    **VITALS,
}
"""What is counted for each event class."""
