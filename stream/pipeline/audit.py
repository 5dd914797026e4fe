"""The options in the pipeline file for what is reported about records, runs and the worker's own operations."""

from __future__ import annotations

from pydantic import Field

from stream.audit.context import DEFAULT_PATHS
from stream.audit.export import Destinations, Mode
from stream.audit.export_options import Signal, Tier, Trust
from stream.audit.packing import Compression
from stream.pipeline.replay import Part
from stream.pipeline.units import parse_duration, parse_size
from stream.pipeline.values import CollectorUrl, Count, Duration, SecretReference, Size, TracePath


class Otlp(Part):
    """Spans of every record and unit, sent to an OpenTelemetry collector over OTLP/HTTP once units are sealed."""

    endpoint: CollectorUrl = Field(description="Base URL of the collector, such as http://127.0.0.1:4318; /v1/traces is appended.")
    headers: dict[str, SecretReference] = Field(default_factory=dict, description="Headers to send, as `{name: {env: NAME}}`.")
    compression: Compression = Field(
        default=Compression.ZSTD, description="zstd (gzip if the collector does not accept it), gzip (more CPU time) or none."
    )
    mode: Mode = Field(
        default=Mode.LEDGER,
        description="ledger: the collector may lag; strict: checkpoints wait for the collector; best_effort: each request is tried once.",
    )
    signal: Signal = Field(default=Signal.SPANS, description="What a record becomes: spans, logs or both.")
    tier: Tier = Field(
        default=Tier.FULL, description="full, anomalies (all but written records), or sample (also one in `sample` written ones)."
    )
    sample: Count = Field(default=100, description="With `tier: sample`: one written record in this many.")
    trust_producer_context: Trust = Field(default=Trust.LINK, description="What a producer's trace context becomes: link, parent, ignore.")
    destinations: Destinations = Field(
        default=Destinations.FULL,
        description="How spans name files: full (URLs, which contain the values of partition columns) or digest (SHA-256 only).",
    )
    request_bytes: Size = Field(
        default=parse_size("3584KiB"),
        description="Largest request before compression. Some collectors drop larger ones.",
    )


class Lineage(Part):
    """OpenLineage events of each run of a worker, with a facet that points to the ledger."""

    url: CollectorUrl | None = Field(
        default=None, description="Where to post events, such as http://marquez:5000/api/v1/lineage; by default, beside the log."
    )
    headers: dict[str, SecretReference] = Field(default_factory=dict, description="Headers to send, as `{name: {env: NAME}}`.")
    interval: Duration = Field(default=parse_duration("5m"), description="Time between two RUNNING events.")
    namespace: str = Field(default="kinesis-stream", min_length=1, max_length=200, description="Namespace of the job.")


class Telemetry(Part):
    """Spans of the worker's own operations, over OTLP/HTTP; unlike spans of records, they may be dropped. Needs the extra `telemetry`."""

    endpoint: CollectorUrl = Field(description="Base URL of the collector, such as http://127.0.0.1:4318; /v1/traces is appended.")
    headers: dict[str, SecretReference] = Field(default_factory=dict, description="Headers to send, as `{name: {env: NAME}}`.")
    queue: Count = Field(default=2048, le=65_536, description="Spans that may wait; further ones are dropped and counted.")


class Audit(Part):
    """What is reported about every record in addition to the ledger, which is always written."""

    otlp: Otlp | None = Field(default=None, description="Where to send spans; by default, nowhere.")
    lineage: Lineage | None = Field(default=None, description="OpenLineage events; none by default, and `{}` stores them beside the log.")
    trace_context: tuple[TracePath, ...] = Field(
        default=DEFAULT_PATHS,
        max_length=16,
        description="Where JSON records carry a W3C `traceparent`; the first path that leads to a well-formed one counts. `[]`: none.",
    )
