"""Alert rules, from the metric catalogue. Each has a section in docs/runbook.md that says what to do."""

from dataclasses import dataclass

from stream.metrics import catalog as m
from stream.metrics import thresholds as limit

BY_STREAM = "namespace, stream"
BY_SHARD = "namespace, stream, shard"
BY_POD = "namespace, pod, instance"


@dataclass(frozen=True)
class Alert:
    """One rule; ``wait`` is how long ``expr`` must hold."""

    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    description: str


def rate(metric, window="5m", **labels):
    return f"rate({metric.name}{matcher(labels)}[{window}])"


def matcher(labels):
    return "{" + ", ".join(f'{name}=~"{value}"' for name, value in labels.items()) + "}" if labels else ""


def risen(metric, by, window="1h", **labels):
    """By how much a counter rose within ``window``; of a series younger than that, all of it, since no scrape saw it at zero."""
    name = f"{metric.name}{matcher(labels)}"
    return f"sum by ({by}) ((max_over_time({name}[{window}]) unless {name} offset {window}) or increase({name}[{window}]))"


# What is paused on purpose is not late; that its records grow old is told by StreamRetentionQuarterUsed all the same.
PAUSED = f"max by ({BY_SHARD}) ({m.SHARD_PAUSED.name}) > 0"
BEHIND_UNPAUSED = f"max by ({BY_STREAM}) (max by ({BY_SHARD}) ({m.BEHIND_LATEST.name}) unless {PAUSED})"

BEHIND, RETENTION = f"max by ({BY_STREAM}) ({m.BEHIND_LATEST.name})", f"max by ({BY_STREAM}) ({m.RETENTION.name})"

FULL = f"{m.BUFFER_BYTES.name} / {m.BUFFER_LIMIT_BYTES.name}"

ALERTS = (
    Alert(
        "StreamShardHalted",
        f"max by ({BY_SHARD}) ({m.SHARD_HALTED.name}) > 0",
        "1m",
        "critical",
        "A shard stands still until a person acts",
        "Shard {{ $labels.shard }} of {{ $labels.stream }} is halted; nothing of it is lost until its records expire.",
    ),
    Alert(
        "StreamShardStalled",
        f"max by ({BY_SHARD}) ({m.SHARD_STALLED.name}) > 0",
        "5m",
        "critical",
        "Nothing moves in a shard, and restarting did not help",
        "Shard {{ $labels.shard }} of {{ $labels.stream }} makes no progress, although nothing is known to hold it up.",
    ),
    Alert(
        "StreamRecordsExpired",
        f"{risen(m.GAPS, BY_STREAM)} > 0",
        "0m",
        "critical",
        "Records expired before they were read",
        "Records of {{ $labels.stream }} are lost; the commit log says which range. More are lost every minute until it catches up.",
    ),
    Alert(
        "StreamRetentionQuarterUsed",
        f"{BEHIND} / {RETENTION} > {limit.RETENTION_SHARE:g}",
        "5m",
        "critical",
        "Reading is behind by a quarter of the retention",
        "{{ $labels.stream }} has used {{ $value | humanizePercentage }} of its retention; at 100 % records are lost.",
    ),
    Alert(
        "StreamBehind",
        f"{BEHIND_UNPAUSED} > {limit.BEHIND_SECONDS:g}",
        "15m",
        "warning",
        "Reading is behind",
        "{{ $labels.stream }} is {{ $value | humanizeDuration }} behind the tip of its worst shard.",
    ),
    Alert(
        "StreamNotSealing",
        f"time() - max by ({BY_SHARD}) ({m.SEALED_TIMESTAMP.name}) > {limit.UNSEALED_SECONDS:g}"
        f" and max by ({BY_SHARD}) ({m.BEHIND_LATEST.name}) > 60"
        f" unless max by ({BY_SHARD}) ({m.SHARD_HALTED.name}) > 0 unless {PAUSED}",
        "5m",
        "critical",
        "Records arrive and nothing is committed",
        "Shard {{ $labels.shard }} of {{ $labels.stream }} committed its last unit {{ $value | humanizeDuration }} ago and is behind.",
    ),
    Alert(
        "StreamDeadLetters",
        f"sum by ({BY_STREAM}) ({rate(m.RECORDS, outcome='dead_lettered')}) / sum by ({BY_STREAM}) ({rate(m.RECORDS)})"
        f" > {limit.DEAD_LETTER_SHARE:g}",
        "10m",
        "warning",
        "More than one record in a hundred is a dead letter",
        "{{ $value | humanizePercentage }} of the records of {{ $labels.stream }} go to the dead letters.",
    ),
    Alert(
        "StreamObjectsUnclaimed",
        f"time() - (min by ({BY_STREAM}) ({m.OBJECTS_UNCLAIMED_SINCE.name} > 0)) > 300",
        "10m",
        "warning",
        "Objects arrive and are not claimed",
        "The oldest object of {{ $labels.stream }} that is known and unclaimed has waited {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "StreamObjectsRefused",
        f"{risen(m.OBJECTS_REFUSED, f'{BY_STREAM}, why')} > 0",
        "0m",
        "warning",
        "An object is left alone until a person looks at it",
        "{{ $value | humanize }} objects or messages of {{ $labels.stream }} were refused as `{{ $labels.why }}`; the log says which.",
    ),
    Alert(
        "StreamQueueFailing",
        f"max by ({BY_STREAM}) ({m.QUEUE_FAILING.name}) > 0",
        "5m",
        "critical",
        "The queue of notifications cannot be used",
        "Objects of {{ $labels.stream }} are only found by listing.",
    ),
    Alert(
        "StreamThrottled",
        f"sum by ({BY_STREAM}) ({rate(m.SOURCE_POLLS, result='throttled')}) / sum by ({BY_STREAM}) ({rate(m.SOURCE_POLLS)}) > 0.1",
        "15m",
        "warning",
        "Kinesis refuses reads",
        "{{ $value | humanizePercentage }} of the polls of {{ $labels.stream }} are throttled: somebody else reads the same shards.",
    ),
    Alert(
        "StreamMemoryBound",
        f"sum by ({BY_POD}) ({rate(m.BACKPRESSURE)}) > 0.5 and max by ({BY_POD}) ({FULL}) > 0.9",
        "15m",
        "warning",
        "Readers wait for memory",
        "Readers in {{ $labels.pod }} wait {{ $value | humanize }} s in every second for room in the memory budget.",
    ),
    Alert(
        "StreamCommitsSlow",
        f"histogram_quantile(0.99, sum by ({BY_STREAM}, le) (rate({m.UNIT_SECONDS.name}_bucket[5m]))) > {limit.COMMIT_SECONDS:g}",
        "15m",
        "warning",
        "Commits are slow",
        "One unit in a hundred of {{ $labels.stream }} takes {{ $value | humanizeDuration }} or more to be committed.",
    ),
    Alert(
        "StreamCallsRepeated",
        f"sum by (namespace, call) ({rate(m.CALL_WAIT)}) > 0.1",
        "10m",
        "warning",
        "Calls fail and are repeated",
        "Workers wait {{ $value | humanize }} s in every second before they repeat the call `{{ $labels.call }}`.",
    ),
    Alert(
        "StreamAuditLag",
        f"max by ({BY_STREAM}) ({m.AUDIT_EXPORT_LAG.name}) > {limit.EXPORT_LAG_SECONDS:g}",
        "10m",
        "warning",
        "Spans are late",
        "The oldest unit of {{ $labels.stream }} whose spans are not exported has waited {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "StreamAuditRefused",
        f"{risen(m.AUDIT_SPANS, BY_STREAM, result='rejected|parked')} > 0",
        "0m",
        "warning",
        "The collector refuses spans",
        "The collector has refused {{ $value | humanize }} spans of {{ $labels.stream }} for good; they are noted beside the commit log.",
    ),
    Alert(
        "StreamAuditHalted",
        f"max by ({BY_SHARD}) ({m.AUDIT_EXPORT_HALTED.name}) > 0",
        "15m",
        "warning",
        "Spans are not exported until a person acts",
        "The spans of shard {{ $labels.shard }} of {{ $labels.stream }} are not exported; with `mode: strict` the shard stands still too.",
    ),
    Alert(
        "StreamLoadLag",
        f"max by ({BY_STREAM}, sink) ({m.LOAD_LAG.name}) > {limit.LOAD_LAG_SECONDS:g}"
        f" unless max by ({BY_STREAM}, sink) ({m.LOADS_PAUSED.name}) > 0",
        "10m",
        "warning",
        "Loads into the warehouse are late",
        "The oldest unit of {{ $labels.stream }} that {{ $labels.sink }} has not loaded has waited {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "StreamLoadParked",
        f"max by ({BY_STREAM}, sink) ({m.LOAD_PARKED.name}) > 0",
        "5m",
        "critical",
        "Units are not loaded until a person acts",
        "{{ $value }} shards of {{ $labels.stream }} are parked by the loader of {{ $labels.sink }}.",
    ),
    Alert(
        "StreamPaused",
        f"max by ({BY_STREAM}) ({m.SHARD_PAUSED.name}) > 0 or max by ({BY_STREAM}) ({m.LOADS_PAUSED.name}) > 0",
        "3h",
        "warning",
        "Something has been paused for three hours",
        "Reading of {{ $labels.stream }}, or its loads, are paused by an operator, and perhaps forgotten.",
    ),
    Alert(
        "StreamReferenceStale",
        f"max by (namespace) ({m.REFERENCE_FAILING.name}) > 0",
        "30m",
        "warning",
        "Reference tables cannot be read again",
        "`enrich` stages continue with the tables they have.",
    ),
    Alert(
        "StreamShardUnread",
        f"min by ({BY_STREAM}) ({m.OPEN_SHARDS.name}) > sum by ({BY_STREAM}) ({m.LEASES_HELD.name})"
        f" unless max by ({BY_STREAM}) ({m.BEHIND_LATEST.name}) > 120 unless max by ({BY_STREAM}) ({m.SHARD_PAUSED.name}) > 0"
        f" unless on (namespace) max by (namespace) ({m.FOREIGN_OWNERS.name}) > 0",
        "15m",
        "critical",
        "Nobody reads a shard",
        "{{ $labels.stream }} has {{ $value }} open shards; the workers read fewer, although none of those they read is behind.",
    ),
    Alert(
        "StreamHashRangeHoles",
        f"max by ({BY_STREAM}) ({m.LEASE_HOLES.name}) > 0",
        "5m",
        "critical",
        "Nobody reads part of the records",
        "{{ $value }} parts of the hash range of {{ $labels.stream }} are covered by no lease.",
    ),
    Alert(
        "StreamLeaseRowsLost",
        f"{risen(m.LEASE_ROWS_VANISHED, BY_STREAM)} > 0",
        "0m",
        "warning",
        "Somebody deletes lease rows",
        "Rows of leases that workers of {{ $labels.stream }} hold were deleted; they are recreated.",
    ),
    Alert(
        "StreamLeaseRowsUnreadable",
        f"sum by (namespace) ({rate(m.LEASE_ROWS_UNREADABLE)}) > 0",
        "10m",
        "warning",
        "Lease rows cannot be read",
        "The lease table holds rows that are not leases; nobody here reads the shards they may stand for.",
    ),
    Alert(
        "StreamShardChurn",
        f"{risen(m.SHARDS_STARTED, BY_STREAM, '30m')} > 3 * clamp_min(sum by ({BY_STREAM}) ({m.LEASES_HELD.name}), 1)",
        "15m",
        "warning",
        "Shards change hands all the time",
        "Shards of {{ $labels.stream }} were started {{ $value | humanize }} times in half an hour.",
    ),
    Alert(
        "StreamCredentialsEnd",
        f"min by ({BY_POD}) (({m.CREDENTIALS_EXPIRE.name} > 0) - time()) < 480",
        "1m",
        "critical",
        "AWS credentials are not renewed",
        "The credentials of {{ $labels.pod }} expire in {{ $value | humanizeDuration }}; they should have been renewed by now.",
    ),
    Alert(
        "StreamLoopBlocked",
        f"max by ({BY_POD}) ({m.LOOP_LAG.name}) > 5",
        "5m",
        "warning",
        "The event loop is blocked",
        "Something blocks the event loop of {{ $labels.pod }} for {{ $value | humanizeDuration }} at a time.",
    ),
    Alert(
        "StreamStoreHung",
        f"sum by ({BY_POD}) ({m.STORE_HUNG.name}) > 0",
        "1m",
        "critical",
        "A file system does not answer",
        "Calls of {{ $labels.pod }} to {{ $value }} `file:` store(s) have not returned for more than a minute.",
    ),
    Alert(
        "StreamLogUnread",
        f"sum by ({BY_POD}) (increase({m.LOG_LINES_DROPPED.name}[15m])) > 0",
        "0m",
        "warning",
        "Nobody reads the log of a worker",
        "{{ $value | humanize }} lines of the log of {{ $labels.pod }} were dropped in a quarter of an hour.",
    ),
    Alert(
        "StreamRestarts",
        f"changes(process_start_time_seconds[1h]) > 3 and on (instance) {m.BUILD_INFO.name}",
        "0m",
        "warning",
        "A worker is restarted again and again",
        "{{ $labels.instance }} was started {{ $value }} times in an hour.",
    ),
    Alert(
        "StreamDown",
        f"absent({m.BUILD_INFO.name})",
        "10m",
        "critical",
        "No worker can be scraped",
        "Prometheus sees no worker at all.",
    ),
)


def anchor(alert):
    """The anchor of its section in the runbook."""
    return alert.name.lower()


def rules():
    """The content of a Prometheus rule file, which is also the `spec` of a PrometheusRule."""
    return {
        "groups": [
            {
                "name": "stream",
                "rules": [
                    {
                        "alert": each.name,
                        "expr": each.expr,
                        "for": each.wait,
                        "labels": {"severity": each.severity},
                        "annotations": {
                            "summary": each.summary,
                            "description": each.description,
                            "runbook": f"docs/runbook.md#{anchor(each)}",
                        },
                    }
                    for each in ALERTS
                ],
            }
        ]
    }
