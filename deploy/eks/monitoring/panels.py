"""The dashboard, from the metric catalogue, with what an operator looks at first at the top."""

from dataclasses import dataclass

from stream.metrics import catalog as m

WINDOW = "$__rate_interval"
CHOSEN = 'namespace=~"$namespace", stream=~"$stream"'
DEAD = 'outcome="dead_lettered"'
EACH = "namespace, stream"
"""What tells streams apart, and their shards, which have the same names."""
HERE = 'namespace=~"$namespace"'


@dataclass(frozen=True)
class Panel:
    """``queries`` are legends and expressions; ``needs`` names what must be configured, or happen, for the panel to show data.

    ``empty``: what it means that it shows none, for those who would take it for a fault.
    """

    title: str
    unit: str
    queries: tuple
    description: str
    kind: str = "timeseries"
    needs: str = ""
    empty: str = ""


def of(metric, labels=CHOSEN, more=""):
    return f"{metric.name}{{{labels}{', ' + more if more else ''}}}"


def per_second(metric, by, more="", labels=CHOSEN):
    return f"sum by ({by}) (rate({of(metric, labels, more)}[{WINDOW}]))"


def quantile(metric, share, by="", more=""):
    grouped = f"{by}, le" if by else "le"
    return (
        f"histogram_quantile({share}, sum by ({grouped}) (rate({metric.name}_bucket{{{CHOSEN}{', ' + more if more else ''}}}[{WINDOW}])))"
    )


ROWS = (
    (
        "Is anything lost, late or stuck",
        (
            Panel(
                "Until records are lost",
                "s",
                (
                    (
                        "{{stream}}",
                        f"min by (stream) ({of(m.RETENTION)} - on (namespace, instance, stream) group_right {of(m.BEHIND_LATEST)})",
                    ),
                ),
                "Retention minus the lag of the worst shard. At 0, records expire unread.",
                "stat",
            ),
            Panel(
                "Lag by retention",
                "percentunit",
                (
                    (
                        "{{stream}}",
                        f"max by (stream) (max by ({EACH}) ({of(m.BEHIND_LATEST)}) / max by ({EACH}) ({of(m.RETENTION)}))",
                    ),
                ),
                "Share of the retention used up; the alert fires at a quarter.",
                "stat",
            ),
            Panel("Halted shards", "none", (("halted", f"sum({of(m.SHARD_HALTED)})"),), "Each needs an operator.", "stat"),
            Panel("Paused shards", "none", (("paused", f"sum({of(m.SHARD_PAUSED)})"),), "On purpose, by `stream pause`.", "stat"),
            Panel(
                "Gaps in a day",
                "none",
                (("{{stream}}", f"sum by (stream) (increase({of(m.GAPS)}[1d]))"),),
                "Times that records expired unread.",
                "stat",
            ),
            Panel("Behind the tip, worst shard", "s", (("{{stream}}", f"max by (stream) ({of(m.BEHIND_LATEST)})"),), "Of reading."),
            Panel(
                "Since the last commit, by shard",
                "s",
                (("{{stream}} {{shard}}", f"time() - max by ({EACH}, shard) ({of(m.SEALED_TIMESTAMP)})"),),
                "Also grows on a shard that receives no records.",
            ),
            Panel(
                "Freshness: age of records at their commit",
                "s",
                (
                    ("oldest of a unit, p99", quantile(m.RECORD_AGE, 0.99, more='record="oldest"')),
                    ("newest of a unit, median", quantile(m.RECORD_AGE, 0.5, more='record="newest"')),
                ),
                "From arrival in the stream to the commit.",
            ),
        ),
    ),
    (
        "Throughput and outcomes",
        (
            Panel("Records received", "rps", (("{{stream}}", per_second(m.SOURCE_USER_RECORDS, "stream")),), "After de-aggregation."),
            Panel(
                "Objects waiting",
                "none",
                (
                    ("{{stream}}: claimed, to be read", f"sum by (stream) (max by ({EACH}, shard) ({of(m.OBJECTS_UNREAD)}))"),
                    ("{{stream}}: to be claimed", f"sum by (stream) ({of(m.OBJECTS_UNCLAIMED)})"),
                ),
                "Of watched sources.",
                needs="objects",
                empty="only of pipelines with source.s3.watch",
            ),
            Panel("Bytes received", "Bps", (("{{stream}}", per_second(m.SOURCE_BYTES, "stream")),), "Payload."),
            Panel("Outcomes", "rps", (("{{outcome}}", per_second(m.RECORDS, "outcome")),), "Committed records by outcome."),
            Panel(
                "Dead letters, share",
                "percentunit",
                (
                    (
                        "{{stream}}",
                        f"{per_second(m.RECORDS, 'stream', more=DEAD)} / {per_second(m.RECORDS, 'stream')}",
                    ),
                ),
                "If a unit exceeds `rejects.max_ratio`, its shard halts.",
            ),
            Panel("Dead letters by cause", "rps", (("{{stage}}: {{reason}}", per_second(m.DLQ_RECORDS, "stage, reason")),), "Of rejects."),
            Panel("Bytes written", "Bps", (("{{sink}}", per_second(m.SINK_BYTES, "sink")),), "Encoded."),
        ),
    ),
    (
        "Commits and shards",
        (
            Panel(
                "Commit latency",
                "s",
                (("p50", quantile(m.UNIT_SECONDS, 0.5)), ("p99", quantile(m.UNIT_SECONDS, 0.99))),
                "From the cut of a unit to its seal.",
            ),
            Panel("Units cut, by cause", "ops", (("{{trigger}}", per_second(m.UNITS_CUT, "trigger")),), "`pressure` means little memory."),
            Panel(
                "Shards taken up and given up",
                "ops",
                (
                    ("taken up", f"sum(rate({of(m.SHARDS_STARTED)}[{WINDOW}]))"),
                    ("given up: {{why}}", per_second(m.SHARDS_RELEASED, "why")),
                ),
                "A high rate means that leases keep moving.",
            ),
            Panel("Shards held", "none", (("{{pod}} {{instance}}", f"sum by (pod, instance) ({of(m.LEASES_HELD)})"),), "By worker."),
            Panel("Time of one object", "s", (("p99 {{sink}}", quantile(m.SINK_PUT_SECONDS, 0.99, "sink")),), "PUT."),
            Panel("Time of a stage, p99", "s", (("{{stage}}", quantile(m.STAGE_SECONDS, 0.99, "stage")),), "For one unit."),
        ),
    ),
    (
        "Kinesis, memory, process",
        (
            Panel("Polls by result", "ops", (("{{result}}", per_second(m.SOURCE_POLLS, "result")),), "`throttled`: another reader."),
            Panel(
                "Calls made again",
                "ops",
                (("{{call}}", per_second(m.CALLS_REPEATED, "call", labels=HERE)),),
                "Storage and leases.",
                needs="trouble",
                empty="none had to be",
            ),
            Panel(
                "Memory budget in use",
                "percentunit",
                (("{{pod}} {{instance}}", f"{of(m.BUFFER_BYTES, HERE)} / {of(m.BUFFER_LIMIT_BYTES, HERE)}"),),
                "At 1 readers wait.",
            ),
            Panel(
                "Readers waiting for memory",
                "none",
                (("{{stream}}", per_second(m.BACKPRESSURE, "stream")),),
                "Seconds a second.",
                needs="pressure",
                empty="none had to wait",
            ),
            Panel(
                "Memory of the process",
                "bytes",
                (("{{pod}} {{instance}}", f"process_resident_memory_bytes{{{HERE}}} and on (instance) {of(m.BUILD_INFO, HERE)}"),),
                "Resident.",
            ),
            Panel("Event loop late", "s", (("{{pod}} {{instance}}", of(m.LOOP_LAG, HERE)),), "Something blocks it where this grows."),
            Panel(
                "Credentials end in",
                "s",
                (("{{pod}} {{instance}}", f"({of(m.CREDENTIALS_EXPIRE, HERE)} > 0) - time()"),),
                "Renewed at 15 minutes.",
                needs="credentials that end",
                empty="only of keys that expire",
            ),
        ),
    ),
    (
        "Audit, loads, reference tables",
        (
            Panel(
                "Spans",
                "rps",
                (("{{result}}", per_second(m.AUDIT_SPANS, "result")),),
                "Exported.",
                needs="collector",
                empty="only with audit.otlp",
            ),
            Panel(
                "Audit lag",
                "s",
                (("{{stream}}", f"max by (stream) ({of(m.AUDIT_EXPORT_LAG)})"),),
                "Oldest unit.",
                needs="collector",
                empty="only with audit.otlp",
            ),
            Panel(
                "Load lag",
                "s",
                (("{{sink}}", f"max by (sink) ({of(m.LOAD_LAG)})"),),
                "Oldest sealed unit.",
                needs="redshift",
                empty="only of Redshift and Iceberg tables",
            ),
            Panel("Age of reference tables", "s", (("{{pod}} {{instance}}", of(m.REFERENCE_AGE, HERE)),), "0 without `enrich`."),
        ),
    ),
)


def panels():
    """Every panel, in order."""
    return [panel for _, row in ROWS for panel in row]


def _variable(name, metric):
    query = f"label_values({metric.name}, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _shown(panel, number, place):
    data = {"type": "prometheus", "uid": "${datasource}"}
    made = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": data,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                **({"min": 0} if panel.kind == "timeseries" else {}),
                **({"noValue": panel.empty} if panel.empty else {}),
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(65 + at), "datasource": data, "expr": expr, "legendFormat": legend}
            for at, (legend, expr) in enumerate(panel.queries)
        ],
    }
    if panel.kind == "stat":
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return made


def _lines(row):
    """The panels of a row by lines, with height and width of each: every line is full, and panels of one kind have about equal widths."""
    for kind, most, height in (("stat", 6, 4), ("timeseries", 4, 8)):
        panels = [panel for panel in row if panel.kind == kind]
        lines = -(-len(panels) // most)
        for at in range(lines):
            here = panels[len(panels) * at // lines : len(panels) * (at + 1) // lines]
            ends = [24 * number // len(here) for number in range(len(here) + 1)]
            yield height, [(panel, begin, end - begin) for panel, begin, end in zip(here, ends[:-1], ends[1:], strict=True)]


def dashboard():
    """The dashboard as Grafana reads it."""
    shown, number, line = [], 0, 0
    for title, row in ROWS:
        number += 1
        shown.append(
            {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": {"h": 1, "w": 24, "x": 0, "y": line}, "panels": []}
        )
        line += 1
        for height, panels_here in _lines(row):
            for panel, column, width in panels_here:
                number += 1
                shown.append(_shown(panel, number, {"h": height, "w": width, "x": column, "y": line}))
            line += height
    return {
        "uid": "stream",
        "title": "stream",
        "tags": ["stream", "kinesis"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
                _variable("namespace", m.BUILD_INFO),
                _variable("stream", m.LEASES_HELD),
            ]
        },
        "panels": shown,
    }
