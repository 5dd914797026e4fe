"""The definition of every metric. Labels are few and bounded: never a sequence number, a key, or an object name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The Prometheus type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Buckets for durations of calls and computations, as the OpenTelemetry conventions advise for messaging."""
AGES: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Buckets for the seconds from arrival in the stream to commit."""
ROWS: Final = (1.0, 10.0, 100.0, 1e3, 1e4, 5e4, 1e5, 5e5, 1e6)
BYTES: Final = tuple(float(2**power) for power in range(12, 30, 2))


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's full definition; ``unit`` is the base unit of its values, empty for plain counts and flags."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


def _counter(name: str, labels: tuple[str, ...], text: str, unit: str = "") -> Metric:
    return Metric(f"kst_{name}_total", Kind.COUNTER, unit, labels, text)


def _gauge(name: str, labels: tuple[str, ...], text: str, unit: str = "") -> Metric:
    return Metric(f"kst_{name}", Kind.GAUGE, unit, labels, text)


def _histogram(name: str, labels: tuple[str, ...], buckets: tuple[float, ...], text: str) -> Metric:
    unit = {"seconds": "seconds", "bytes": "bytes"}.get(name.rsplit("_", 1)[-1], "")
    return Metric(f"kst_{name}", Kind.HISTOGRAM, unit, labels, text, buckets)


_STREAM: Final = ("stream",)
_SHARD: Final = ("stream", "shard")

SOURCE_RECORDS = _counter("source_records", _STREAM, "Kinesis records received.")
SOURCE_USER_RECORDS = _counter("source_user_records", _STREAM, "User records after KPL de-aggregation.")
SOURCE_BYTES = _counter("source_bytes", _STREAM, "Payload bytes received.", "bytes")
SOURCE_POLLS = _counter("source_polls", (*_STREAM, "result"), "Polls: ok, empty, throttled, expired_iterator, error.")
SOURCE_POLL_SECONDS = _histogram("source_poll_seconds", _STREAM, SECONDS, "Duration of one GetRecords call.")
SOURCE_POLL_WAIT = _counter("source_poll_wait_seconds", _STREAM, "Time waited before polls were repeated.", "seconds")
SOURCE_SUBSCRIPTIONS = _counter("source_subscriptions_ended", (*_STREAM, "why"), "Subscriptions: renewed, silence, budget, in_use, broken.")
SOURCE_FALLBACK = _gauge("source_fan_out_fallback", _SHARD, "1 while a shard with fan-out is polled, because subscribing was refused.")
SOURCE_OMITTED = _counter(
    "source_omitted_records", _STREAM, "Kinesis records that the events of a function left out; they were read from the stream."
)
BEHIND_LATEST = _gauge(
    "source_behind_latest_seconds",
    _SHARD,
    "How far reading, or of a halted shard what is sealed, is behind the tip; grows while there is no news.",
    "seconds",
)
RETENTION = _gauge("source_retention_seconds", _STREAM, "How long the stream keeps records; older ones are lost.", "seconds")
OPEN_SHARDS = _gauge("source_open_shards", _STREAM, "Open shards of the stream.")
BACKPRESSURE = _counter("backpressure_seconds", _STREAM, "Time readers waited for room in the memory budget.", "seconds")
BUFFER_BYTES = _gauge("buffer_bytes", (), "Bytes of the memory budget in use.", "bytes")
BUFFER_LIMIT_BYTES = _gauge("buffer_limit_bytes", (), "Size of the memory budget.", "bytes")

OBJECTS_CLAIMED = _counter("objects_claimed", _STREAM, "Objects of a watched source that this worker claimed.")
OBJECT_CLAIMS = _counter("object_claims", _STREAM, "Claims of objects that this worker appended.")
OBJECTS_SKIPPED = _counter(
    "objects_skipped",
    (*_STREAM, "why"),
    "Objects in notifications that need no claim: claimed, deleted, empty, other_event, other_place, test_event.",
)
OBJECTS_REFUSED = _counter(
    "objects_refused", (*_STREAM, "why"), "Objects and messages left alone until a person looks at them: changed, content, key, unreadable."
)
OBJECTS_UNREAD = _gauge("objects_unread", _SHARD, "Objects of a shard that are claimed and not read to their ends yet.")
OBJECTS_UNCLAIMED = _gauge("objects_unclaimed", _STREAM, "Objects that are known and not claimed yet.")
OBJECTS_UNCLAIMED_SINCE = _gauge(
    "objects_unclaimed_timestamp_seconds",
    _STREAM,
    "Since when a worker knows objects that are not claimed; 0: there are none.",
    "seconds",
)
QUEUE_FAILING = _gauge("objects_queue_failing", _STREAM, "1 while the queue of notifications is missing or refuses calls.")

UNITS_CUT = _counter("units_cut", (*_STREAM, "trigger"), "Units cut: rows, bytes, age, pressure, shard_end, drain, unreadable.")
UNIT_RECORDS = _histogram("unit_records", _STREAM, ROWS, "User records in one unit.")
UNIT_BYTES = _histogram("unit_bytes", _STREAM, BYTES, "Payload bytes in one unit.")
UNITS_SEALED = _counter("units_sealed", _STREAM, "Units committed.")
MANIFESTS_SEALED = _counter("manifests_sealed", _STREAM, "Links of the commit log sealed by this worker, including ends of shards.")
UNIT_SECONDS = _histogram("unit_seconds", _STREAM, (*SECONDS, 30.0, 60.0), "Time from the cut of a unit to its commit.")
INTENTS = _counter("intents", (*_STREAM, "how"), "Manifests created by this worker, adopted from another (and how), or amended.")
RECORDS = _counter("records", (*_STREAM, "outcome"), "Committed user records by outcome.")
RECORD_AGE = _histogram(
    "record_age_at_commit_seconds", (*_STREAM, "record"), AGES, "Age of a unit's oldest and newest record when it is committed."
)
SEALED_TIMESTAMP = _gauge(
    "shard_sealed_timestamp_seconds",
    _SHARD,
    "When the shard's last unit was committed, or else when this worker started the shard.",
    "seconds",
)

STAGE_RECORDS_IN = _counter("stage_records_in", (*_STREAM, "stage"), "Rows that entered the stage.")
STAGE_RECORDS_OUT = _counter("stage_records_out", (*_STREAM, "stage"), "Rows that left the stage.")
STAGE_SECONDS = _histogram("stage_seconds", (*_STREAM, "stage"), SECONDS, "Duration of one stage for one unit.")
DLQ_RECORDS = _counter("dlq_records", (*_STREAM, "stage", "reason"), "Records that became dead letters.")

SINK_OBJECTS = _counter("sink_objects", (*_STREAM, "sink"), "Objects written.")
SINK_RECORDS = _counter("sink_records", (*_STREAM, "sink"), "Rows written.")
SINK_BYTES = _counter("sink_bytes", (*_STREAM, "sink"), "Encoded bytes written.", "bytes")
SINK_PUT_SECONDS = _histogram("sink_put_seconds", (*_STREAM, "sink"), (*SECONDS, 30.0, 60.0), "Time to write one object.")
LEFTOVERS = _counter("leftovers_removed", _STREAM, "Files removed because no committed unit lists them.")
CALLS_REPEATED = _counter("calls_repeated", ("call",), "Storage and coordination calls repeated.")
CALL_WAIT = _counter("call_wait_seconds", ("call",), "Time waited before calls were repeated.", "seconds")

AUDIT_SPANS = _counter("audit_spans", (*_STREAM, "result"), "Spans and log records exported: accepted, rejected, parked.")
AUDIT_REFUSALS = _counter("audit_refusals", (*_STREAM, "status"), "Responses in which a collector refused spans, by HTTP status.")
AUDIT_EXPORT_LAG = _gauge(
    "audit_export_lag_seconds", _SHARD, "How long the oldest unit that is not exported yet has been waiting.", "seconds"
)
AUDIT_EXPORT_HALTED = _gauge("audit_export_halted", _SHARD, "1 while the shard's spans cannot be exported and somebody must act.")
TELEMETRY_SPANS = _counter("telemetry_spans", ("result",), "Spans of the worker's own operations: exported, failed, dropped.")
TELEMETRY_FAILURES = _counter("telemetry_failures", (), "Errors that the OpenTelemetry SDK reported about its collector.")

LOADS = _counter("loads", (*_STREAM, "sink", "result"), "Loads: done, transient, setup, unexpected, parked.")
LOAD_UNITS = _counter("load_units", (*_STREAM, "sink"), "Sealed units loaded into the sink's table.")
LOAD_RECORDS = _counter("load_records", (*_STREAM, "sink"), "Rows loaded into the sink's table.")
LOAD_SECONDS = _histogram("load_seconds", (*_STREAM, "sink"), (*SECONDS, 30.0, 60.0, 300.0), "Duration of one load.")
LOAD_AGE = _histogram("load_age_seconds", (*_STREAM, "sink"), AGES, "Time from the seal of a load's first unit to the end of the load.")
LOAD_WAITING = _gauge("load_units_waiting", (*_STREAM, "sink"), "Sealed units with rows that wait for the loader.")
LOAD_LAG = _gauge("load_lag_seconds", (*_STREAM, "sink"), "How long the oldest unit has been waiting for the loader.", "seconds")
LOADS_PAUSED = _gauge("loads_paused", (*_STREAM, "sink"), "1 while an operator has paused the loads into the sink's table.")
LOAD_PARKED = _gauge("load_parked_shards", (*_STREAM, "sink"), "Shards whose units are not loaded until a person acts.")
REFERENCE_REFRESHES = _counter("reference_refreshes", ("result",), "How often reference tables were read again: changed, same, failed.")
REFERENCE_FAILING = _gauge("reference_tables_failing", (), "Reference tables whose last reading failed.")
REFERENCE_AGE = _gauge("reference_age_seconds", (), "Time since all refreshing reference tables were last known to be current.", "seconds")

CHECKPOINTS = _counter("checkpoints", _STREAM, "Checkpoints stored.")
RECOVERIES = _counter("recoveries", _STREAM, "How often the commit log was followed to its end.")
RECOVERY_UNITS = _counter("recovery_units", _STREAM, "Committed units found after a checkpoint.")
RECOVERY_SECONDS = _histogram("recovery_seconds", _STREAM, (*SECONDS, 30.0, 60.0, 300.0), "Duration of a recovery.")
LEASES_HELD = _gauge("leases_held", _STREAM, "Shards that this worker is reading, or keeps while they are paused.")
LEASES_TAKEN = _counter("leases_taken", (*_STREAM, "why"), "Leases taken: free, expired, stolen, own, assigned, refused.")
LEASES_DROPPED = _counter("leases_dropped", (*_STREAM, "why"), "Leases given up: released, handed_over, lost, expired, vanished, refused.")
LEASES_WANTED = _counter("leases_wanted", _STREAM, "Leases that the leader of a KCL 3.x fleet wanted another worker to have.")
LEASE_WRITES = _counter(
    "lease_writes", ("call",), "Writes to the lease table: take, adopt, renew, checkpoint, release, assign, create, delete."
)
LEASE_SCANS = _counter("lease_scans", (), "Scans of the whole lease table.")
LEASE_SCAN_BYTES = _counter("lease_scan_bytes", (), "Bytes of lease rows scanned; 8 KiB are one read unit.", "bytes")
LEASE_ROWS_UNREADABLE = _counter("lease_rows_unreadable", (), "Lease rows ignored because they are not as the KCL writes them.")
LEASE_ROWS_VANISHED = _counter("lease_rows_vanished", _STREAM, "Rows of held leases that somebody deleted.")
LEASE_ROWS_SET_BACK = _counter("lease_rows_set_back", _STREAM, "Checkpoints in lease rows that somebody set back, which changed nothing.")
LEASE_ROWS = _counter("lease_rows_created", _STREAM, "Lease rows created for shards that had none.")
LEASE_HOLES = _gauge(
    "lease_hash_range_holes", _STREAM, "Parts of the stream's hash range that no lease covers: nobody reads their records."
)
FLEET_LED = _gauge("lease_fleet_led", (), "1 while the leader of a KCL 3.x fleet assigns leases to this worker, 0 while it takes them.")
FOREIGN_OWNERS = _gauge("lease_foreign_owners", (), "Workers of another application, such as a Java KCL, that hold leases.")
FOREIGN_RANGES = _counter("foreign_ranges", _STREAM, "Ranges that another application processed, as recorded in the log.")
REWINDS = _counter("rewinds", _STREAM, "Rewound shards started again.")
SHARDS_STARTED = _counter("shards_started", _STREAM, "Shards taken up.")
SHARDS_ENDED = _counter("shards_ended", _STREAM, "Shards read to their end.")
SHARDS_RELEASED = _counter("shards_released", (*_STREAM, "why"), "Shards given up: drain, caught_up, handed_over, paused, lease_lost.")
SHARDS_RESUMED = _counter("shards_resumed", _STREAM, "Paused shards that an operator, or the end of the pause, let this worker read again.")
PARTS_OPENED = _counter("source_parts_opened", _STREAM, "Shards of sources that end (objects, dead letters) that were started.")
NOTIFICATIONS_FAILED = _counter(
    "notifications_failed", (*_STREAM, "call"), "Notifications of a halted shard that could not be sent, by channel."
)
GAPS = _counter("expired_gaps", _STREAM, "How often records expired in the stream before they were read; the log has a gap for each.")
SHARD_HALTED = _gauge("shard_halted", _SHARD, "1 while the shard stands still until a person acts, also while it is tried again.")
SHARD_PAUSED = _gauge("shard_paused", _SHARD, "1 while an operator has paused the shard, so that it is not read.")
SHARD_STALLED = _gauge("shard_stalled", _SHARD, "1 while nothing moves in the shard and nothing explains it; /healthz then says not alive.")

CREDENTIALS_EXPIRE = _gauge(
    "credentials_expire_timestamp_seconds", (), "When the AWS credentials in use expire; 0 if they do not, or if there are none.", "seconds"
)
BUILD_INFO = _gauge("build_info", ("version", "worker"), "Always 1; the labels say what runs.")
WORKER_FAILURES = _counter("worker_failures", (), "How often the process ended because it could not continue: once, at its very end.")
LOG_LINES_DROPPED = _counter("log_lines_dropped", (), "Lines of the log that were dropped, since nobody read standard error.")
STORE_HUNG = _gauge("store_hung", ("store",), "1 while a call to the `file:` store has not returned for a minute.")
DRAINING = _gauge("draining", (), "1 once a signal has asked the worker to stop.")
LOOP_LAG = _gauge("event_loop_lag_seconds", (), "By how much the event loop woke up too late, at worst in the last minute.", "seconds")

CATALOG: Final[tuple[Metric, ...]] = tuple(value for value in list(vars().values()) if isinstance(value, Metric))
"""All of the above, in order."""

PER_SHARD: Final[tuple[Metric, ...]] = tuple(metric for metric in CATALOG if "shard" in metric.labels)
"""Metrics whose series disappear with the shard."""
