"""Turns events into Prometheus metrics: what is counted for each event, in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stream import events as ev
from stream.metrics import catalog as m
from stream.metrics.health import HEALTH, begin_counts
from stream.metrics.leases import LEASES
from stream.metrics.series import Series


class Recorder(Series):
    """An ``Emit`` that counts events.

    Callable from any thread. Series of a shard exist from its ``ShardStarted`` or ``ShardPaused`` to its ``ShardEnded``, or its
    ``ShardReleased`` for another reason than a pause: while it is paused, its records grow older.
    """

    def __call__(self, event: ev.Event) -> None:
        """Count ``event``; events of unknown classes are ignored."""
        count = COUNTED.get(type(event))
        if count is not None:
            count(self, event)


def _page_received(r: Series, e: ev.PageReceived) -> None:
    r.add(m.SOURCE_RECORDS, e.records, e.stream)
    r.add(m.SOURCE_USER_RECORDS, e.user_records, e.stream)
    r.add(m.SOURCE_BYTES, e.payload_bytes, e.stream)
    r.add(m.SOURCE_POLLS, 1, e.stream, "ok" if e.records else "empty")
    r.observe(m.SOURCE_POLL_SECONDS, e.seconds, e.stream)
    r.see_tip(e, e.behind_ms / 1000)
    r.receive(e, e.records, e.behind_ms, e.oldest)


def _poll_repeated(r: Series, e: ev.PollRepeated) -> None:
    r.add(m.SOURCE_POLLS, 1, e.stream, e.why)
    r.add(m.SOURCE_POLL_WAIT, e.wait, e.stream)


def _subscription_ended(r: Series, e: ev.SubscriptionEnded) -> None:
    r.add(m.SOURCE_SUBSCRIPTIONS, 1, e.stream, e.why)
    r.add(m.SOURCE_POLL_WAIT, e.wait, e.stream)


def _retrieval_changed(r: Series, e: ev.RetrievalChanged) -> None:
    r.set_shard(m.SOURCE_FALLBACK, float(e.to == "polling"), e)


def _budget_waited(r: Series, e: ev.BudgetWaited) -> None:
    r.add(m.BACKPRESSURE, e.seconds, e.stream)


def _objects_claimed(r: Series, e: ev.ObjectsClaimed) -> None:
    r.add(m.OBJECTS_CLAIMED, e.objects, e.stream)
    r.add(m.OBJECT_CLAIMS, 1, e.stream)


def _objects_waiting(r: Series, e: ev.ObjectsWaiting) -> None:
    r.set(m.OBJECTS_UNCLAIMED, e.objects, e.stream)
    r.set(m.OBJECTS_UNCLAIMED_SINCE, e.since, e.stream)


def _objects_unread(r: Series, e: ev.ObjectsUnread) -> None:
    r.set(m.OBJECTS_UNREAD, e.objects, e.stream, e.shard)


def _objects_skipped(r: Series, e: ev.ObjectsSkipped) -> None:
    r.add(m.OBJECTS_SKIPPED, e.objects, e.stream, e.why)


def _object_refused(r: Series, e: ev.ObjectRefused) -> None:
    r.add(m.OBJECTS_REFUSED, 1, e.stream, e.why)


def _queue_failed(r: Series, e: ev.QueueFailed) -> None:
    r.set(m.QUEUE_FAILING, 1, e.stream)


def _queue_answered(r: Series, e: ev.QueueAnswered) -> None:
    r.set(m.QUEUE_FAILING, 0, e.stream)


def _unit_cut(r: Series, e: ev.UnitCut) -> None:
    r.add(m.UNITS_CUT, 1, e.stream, e.trigger)
    r.observe(m.UNIT_RECORDS, e.records, e.stream)
    r.observe(m.UNIT_BYTES, e.payload_bytes, e.stream)


def _stage_applied(r: Series, e: ev.StageApplied) -> None:
    r.add(m.STAGE_RECORDS_IN, e.rows_in, e.stream, e.stage)
    r.add(m.STAGE_RECORDS_OUT, e.rows_out, e.stream, e.stage)
    r.observe(m.STAGE_SECONDS, e.seconds, e.stream, e.stage)


def _records_rejected(r: Series, e: ev.RecordsRejected) -> None:
    r.add(m.DLQ_RECORDS, e.records, e.stream, e.stage, r.bounded_reason(e.stream, e.stage, e.reason))


def _intent_created(r: Series, e: ev.IntentCreated) -> None:
    r.add(m.INTENTS, 1, e.stream, "created")


def _intent_adopted(r: Series, e: ev.IntentAdopted) -> None:
    r.add(m.INTENTS, 1, e.stream, e.how)


def _intent_amended(r: Series, e: ev.IntentAmended) -> None:
    r.add(m.INTENTS, 1, e.stream, "amended")


def _file_written(r: Series, e: ev.FileWritten) -> None:
    r.add(m.SINK_OBJECTS, 1, e.stream, e.sink)
    r.add(m.SINK_RECORDS, e.rows, e.stream, e.sink)
    r.add(m.SINK_BYTES, e.size, e.stream, e.sink)
    r.observe(m.SINK_PUT_SECONDS, e.seconds, e.stream, e.sink)


def _manifest_sealed(r: Series, e: ev.ManifestSealed) -> None:
    r.add(m.MANIFESTS_SEALED, 1, e.stream)


def _unit_sealed(r: Series, e: ev.UnitSealed) -> None:
    r.add(m.UNITS_SEALED, 1, e.stream)
    r.observe(m.UNIT_SECONDS, e.seconds, e.stream)
    # If this clock is behind the service's, ages are negative; a sum that falls would look like a restart.
    r.observe(m.RECORD_AGE, max(0.0, e.oldest_age), e.stream, "oldest")
    r.observe(m.RECORD_AGE, max(0.0, e.newest_age), e.stream, "newest")
    for outcome, records in e.outcomes:
        r.add(m.RECORDS, records, e.stream, outcome)
    r.set_shard(m.SEALED_TIMESTAMP, r.now(), e)
    r.go_on(e)


def _records_transformed(r: Series, e: ev.RecordsTransformed) -> None:
    for outcome, records in e.outcomes:
        r.add(m.RECORDS, records, e.stream, outcome)


def _checkpointed(r: Series, e: ev.Checkpointed) -> None:
    r.add(m.CHECKPOINTS, 1, e.stream)


def _recovery_finished(r: Series, e: ev.RecoveryFinished) -> None:
    r.add(m.RECOVERIES, 1, e.stream)
    r.add(m.RECOVERY_UNITS, e.units_followed, e.stream)
    r.observe(m.RECOVERY_SECONDS, e.seconds, e.stream)


def _leftovers_removed(r: Series, e: ev.LeftoversRemoved) -> None:
    r.add(m.LEFTOVERS, e.files, e.stream)


def _call_repeated(r: Series, e: ev.CallRepeated) -> None:
    r.add(m.CALLS_REPEATED, 1, e.call)
    r.add(m.CALL_WAIT, e.wait, e.call)


def _spans_exported(r: Series, e: ev.SpansExported) -> None:
    for result, items in (("accepted", e.accepted), ("rejected", e.rejected), ("parked", e.parked)):
        r.add(m.AUDIT_SPANS, items, e.stream, result)


def _export_refused(r: Series, e: ev.ExportRefused) -> None:
    r.add(m.AUDIT_REFUSALS, 1, e.stream, str(e.status))


def _export_halted(r: Series, e: ev.ExportHalted) -> None:
    r.set_shard(m.AUDIT_EXPORT_HALTED, 1, e)


def _export_resumed(r: Series, e: ev.ExportResumed) -> None:
    r.set_shard(m.AUDIT_EXPORT_HALTED, 0, e)


def _export_lagged(r: Series, e: ev.ExportLagged) -> None:
    r.set_shard(m.AUDIT_EXPORT_LAG, e.seconds, e)


def _telemetry_failed(r: Series, _: ev.TelemetryFailed) -> None:
    r.add(m.TELEMETRY_FAILURES, 1)


def _units_loaded(r: Series, e: ev.UnitsLoaded) -> None:
    r.add(m.LOADS, 1, e.stream, e.sink, "done")
    r.add(m.LOAD_UNITS, e.units, e.stream, e.sink)
    r.add(m.LOAD_RECORDS, e.rows, e.stream, e.sink)
    r.observe(m.LOAD_SECONDS, e.seconds, e.stream, e.sink)
    r.observe(m.LOAD_AGE, e.lag, e.stream, e.sink)


def _loads_waiting(r: Series, e: ev.LoadsWaiting) -> None:
    r.set(m.LOAD_WAITING, e.units, e.stream, e.sink)
    r.set(m.LOAD_LAG, e.age, e.stream, e.sink)
    r.set(m.LOAD_PARKED, e.parked, e.stream, e.sink)


def _loads_paused(r: Series, e: ev.LoadsPaused) -> None:
    r.set(m.LOADS_PAUSED, 1, e.stream, e.sink)


def _loads_resumed(r: Series, e: ev.LoadsResumed) -> None:
    r.set(m.LOADS_PAUSED, 0, e.stream, e.sink)


def _load_refused(r: Series, e: ev.LoadRefused) -> None:
    r.add(m.LOADS, 1, e.stream, e.sink, e.kind)


def _load_parked(r: Series, e: ev.LoadParked) -> None:
    r.add(m.LOADS, 1, e.stream, e.sink, "parked")


def _reference_refreshed(r: Series, e: ev.ReferenceRefreshed) -> None:
    r.add(m.REFERENCE_REFRESHES, 1, "changed" if e.changed else "same")
    r.set(m.REFERENCE_AGE, e.age)
    r.set(m.REFERENCE_FAILING, e.failing)


def _reference_refresh_failed(r: Series, e: ev.ReferenceRefreshFailed) -> None:
    r.add(m.REFERENCE_REFRESHES, 1, "failed")
    r.set(m.REFERENCE_AGE, e.age)
    r.set(m.REFERENCE_FAILING, e.failing)


def _shard_started(r: Series, e: ev.ShardStarted) -> None:
    r.add(m.SHARDS_STARTED, 1, e.stream)
    begin_counts(r, e.stream)
    r.hold(e)
    r.begin_anew(e)


def _shard_ended(r: Series, e: ev.ShardEnded) -> None:
    r.add(m.SHARDS_ENDED, 1, e.stream)
    r.let_go(e)


def _shard_released(r: Series, e: ev.ShardReleased) -> None:
    r.add(m.SHARDS_RELEASED, 1, e.stream, e.why)
    if e.why != "paused":
        r.let_go(e)


def _shard_paused(r: Series, e: ev.ShardPaused) -> None:
    r.hold(e, e.behind)
    r.go_on(e)
    r.set_shard(m.SHARD_PAUSED, 1, e)


def _shard_resumed(r: Series, e: ev.ShardResumed) -> None:
    r.add(m.SHARDS_RESUMED, 1, e.stream)
    r.set_shard(m.SHARD_PAUSED, 0, e)


def _shard_halted(r: Series, e: ev.ShardHalted) -> None:
    r.hold(e)
    r.halt(e)


def _stream_resumed(r: Series, e: ev.StreamResumed) -> None:
    r.set(m.SHARD_HALTED, 0, e.stream, "")


def _event_incomplete(r: Series, e: ev.EventIncomplete) -> None:
    r.add(m.SOURCE_OMITTED, e.missing, e.stream)


def _part_opened(r: Series, e: ev.PartOpened) -> None:
    r.add(m.PARTS_OPENED, 1, e.stream)


def _notification_failed(r: Series, e: ev.NotificationFailed) -> None:
    r.add(m.NOTIFICATIONS_FAILED, 1, e.stream, e.channel)


def _worker_started(r: Series, e: ev.WorkerStarted) -> None:
    r.set(m.BUILD_INFO, 1, e.version, e.worker)


def _drain_started(r: Series, _: ev.DrainStarted) -> None:
    r.set(m.DRAINING, 1)


def _foreign_progress(r: Series, e: ev.ForeignProgress) -> None:
    r.add(m.FOREIGN_RANGES, 1, e.stream)


def _shard_rewound(r: Series, e: ev.ShardRewound) -> None:
    r.add(m.REWINDS, 1, e.stream)


COUNTED: Final[dict[type[ev.Event], Callable[[Series, Any], None]]] = {
    ev.PageReceived: _page_received,
    ev.PollRepeated: _poll_repeated,
    ev.SubscriptionEnded: _subscription_ended,
    ev.RetrievalChanged: _retrieval_changed,
    ev.BudgetWaited: _budget_waited,
    ev.ObjectsClaimed: _objects_claimed,
    ev.ObjectsUnread: _objects_unread,
    ev.ObjectsWaiting: _objects_waiting,
    ev.ObjectsSkipped: _objects_skipped,
    ev.ObjectRefused: _object_refused,
    ev.QueueFailed: _queue_failed,
    ev.QueueAnswered: _queue_answered,
    ev.UnitCut: _unit_cut,
    ev.StageApplied: _stage_applied,
    ev.RecordsRejected: _records_rejected,
    ev.RecordsTransformed: _records_transformed,
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
    ev.LoadsPaused: _loads_paused,
    ev.LoadsResumed: _loads_resumed,
    ev.LoadRefused: _load_refused,
    ev.LoadParked: _load_parked,
    ev.ReferenceRefreshed: _reference_refreshed,
    ev.ReferenceRefreshFailed: _reference_refresh_failed,
    ev.ShardStarted: _shard_started,
    ev.ShardEnded: _shard_ended,
    ev.ShardReleased: _shard_released,
    ev.ShardPaused: _shard_paused,
    ev.ShardResumed: _shard_resumed,
    ev.ShardHalted: _shard_halted,
    ev.StreamResumed: _stream_resumed,
    ev.PartOpened: _part_opened,
    ev.EventIncomplete: _event_incomplete,
    ev.NotificationFailed: _notification_failed,
    ev.WorkerStarted: _worker_started,
    ev.DrainStarted: _drain_started,
    ev.ForeignProgress: _foreign_progress,
    ev.ShardRewound: _shard_rewound,
    **LEASES,
    **HEALTH,
}
"""What is counted for each event class."""
