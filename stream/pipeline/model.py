"""The pipeline file as frozen models: what may be written, what it means, what is assumed where nothing is written."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from stream.audit import ledger
from stream.audit.context import DEFAULT_PATHS
from stream.audit.export import Destinations, Mode
from stream.audit.packing import Compression
from stream.audit.shape import Signal, Tier, Trust
from stream.contracts import CONSOLE, Start, StartKind
from stream.pipeline.components import canonical_name
from stream.pipeline.coordination import Coordination, LocalCoordination
from stream.pipeline.replay import DEFAULT_NAME, Notify, ObjectsSource, Part, RedriveBudget
from stream.pipeline.units import parse_duration, parse_size
from stream.pipeline.values import (
    ApplicationName,
    CollectorUrl,
    ConsumerName,
    Count,
    Decoder,
    Duration,
    Endpoint,
    Location,
    Port,
    Ratio,
    Region,
    SecretReference,
    Sink,
    Size,
    Stage,
    StartPosition,
    StreamName,
    TracePath,
    fail_at,
    fail_with,
    problem,
)
from stream.sink import rejects
from stream.sink.objects import SinkConfig
from stream.transform.decode import Unknown
from stream.transform.stage import SchemaMismatch
from stream.transform.types import RecordSchema, parse_schema, widened


class KplOutOfRange(StrEnum):
    """What happens to a KPL user record whose hash key lies outside the shard that carried it."""

    DROP = "drop"
    KEEP = "keep"


class OnExpired(StrEnum):
    """What happens when records expired in the stream before they were read."""

    GAP = "gap"
    HALT = "halt"


class Retrieval(StrEnum):
    """How records are fetched."""

    POLLING = "polling"
    FAN_OUT = "fan_out"


class StreamEntry(Part):
    """One of several streams."""

    stream: StreamName = Field(description="Name of the stream.")
    start: StartPosition | None = Field(default=None, description="Where its shards begin that were never read.")


def _entry(value: Any) -> Any:
    return {"stream": value} if isinstance(value, str) else value


class KinesisSource(Part):
    """One Kinesis stream, or several that are read alike.

    After validation either ``stream`` is named, or ``streams`` lists several with a start each and ``stream`` is empty.
    """

    stream: StreamName = Field(default="", description="Name of the stream; this or `streams` is required.")
    streams: tuple[Annotated[StreamEntry, BeforeValidator(_entry)], ...] = Field(
        default=(),
        validate_default=True,
        description="Several streams for one worker: names, or {stream: name, start: position} for a start of its own.",
    )
    start: StartPosition = Field(
        default=Start(StartKind.TRIM_HORIZON),
        description="Where a shard begins that was never read: trim_horizon, latest, or {at_timestamp: 2026-01-01T00:00:00Z}.",
    )
    retrieval: Retrieval = Field(
        default=Retrieval.POLLING,
        description="polling (shares 2 MB/s of a shard with every other reader) or fan_out (2 MB/s of its own, costs extra).",
    )
    consumer: ConsumerName | None = Field(
        default=None, description="With `retrieval: fan_out`: name of the registered consumer; the application's where not given."
    )
    region: Region | None = Field(default=None, description="AWS region; the environment's where not given.")
    endpoint: Endpoint | None = Field(default=None, description="URL of the service, for an emulator or a VPC endpoint.")
    kpl_out_of_range: KplOutOfRange = Field(
        default=KplOutOfRange.DROP,
        description="KPL user records outside the shard's hash range: drop (another shard has them after a reshard) or keep.",
    )
    on_expired: OnExpired = Field(
        default=OnExpired.GAP,
        description="Records that expired unread: gap (record it in the commit log, raise an alarm, go on) or halt the shard.",
    )

    @field_validator("streams")
    @classmethod
    def _named_once(cls, entries: tuple[StreamEntry, ...], info: ValidationInfo) -> tuple[StreamEntry, ...]:
        one = info.data.get("stream")
        if one == "" and not entries:
            fail_at((), "missing_key", "no stream is named", "add `stream: NAME`, or `streams: [NAME, ...]`")
        if one and entries:
            fail_at((), "bad_value", "both `stream` and `streams` are given", "name every stream in `streams`")
        names = [entry.stream for entry in entries]
        for index, name in enumerate(names):
            if name in names[:index]:
                fail_at((index,), "duplicate_stream", f"the stream `{name}` is listed twice", "remove one of the two")
        return entries

    @model_validator(mode="after")
    def _each_with_its_start(self) -> Self:
        if all(entry.start is not None for entry in self.streams):
            return self
        resolved = [entry.model_copy(update={"start": entry.start or self.start}) for entry in self.streams]
        return self.model_copy(update={"streams": tuple(resolved)})

    @model_serializer(mode="wrap")
    def _without_the_other(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of ``stream`` and ``streams`` only the one that is used, so that a definition with one stream is written as it always was."""
        data: dict[str, Any] = handler(self)
        return {key: value for key, value in data.items() if value or key not in {"stream", "streams"}}

    @property
    def names(self) -> tuple[str, ...]:
        """Every stream, in the order of the file."""
        return tuple(entry.stream for entry in self.streams) if self.streams else (self.stream,)

    def each(self) -> tuple[KinesisSource, ...]:
        """The same source for each stream by itself: ``stream`` is that stream's name and ``start`` its start."""
        if not self.streams:
            return (self,)
        return tuple(self.model_copy(update={"stream": entry.stream, "start": entry.start}) for entry in self.streams)


class Source(Part):
    """Where records come from and how their bytes become columns.

    Where ``s3`` is given, ``kinesis`` only carries the name under which the commit log keeps what was read.
    """

    kinesis: KinesisSource = Field(description="The stream or streams to read; this or `s3` is required.")
    s3: ObjectsSource | None = Field(default=None, description="Objects to read instead of a stream, once: see docs/replay.md.")
    decode: Decoder = Field(default="json", validate_default=True, description="Decoder: a name, or {name: options}.")
    fields: Annotated[dict[str, Any] | None, WithJsonSchema({"x-is": "columns"})] = Field(
        default=None,
        alias="schema",
        description="Columns of a record, `name: type`; `?` behind a type means that it may be null.",
    )
    unknown: Unknown | None = Field(
        default=None, description="Fields that the schema does not name: ignore, reject or capture. Same as the decoder's option."
    )
    widen: bool = Field(
        default=False,
        description="Read each column in the widest type of its family (int64, float64, decimal(38,s)), so that values which outgrow "
        "the schema are no dead letters.",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("s3"), dict):
            return value
        if "kinesis" in value:
            fail_at(("kinesis",), "bad_value", "both `kinesis` and `s3` are given", "a pipeline has one source; keep one of them")
        return {**value, "kinesis": {"stream": value["s3"].get("name", DEFAULT_NAME)}}

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        return {key: value for key, value in data.items() if key != ("s3" if self.s3 is None else "kinesis")}

    @field_validator("fields")
    @classmethod
    def _readable(cls, fields: dict[str, Any] | None) -> dict[str, Any] | None:
        problems = []
        for name, text in (fields or {}).items():
            try:
                parse_schema({name: text})
            except SchemaMismatch as error:
                problems.append((error.path, problem("bad_schema", error.message, error.hint)))
        if problems:
            fail_with(problems)
        return fields

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        """``unknown`` and the decoder's own option agree, wherever it was written, so that equal meanings are equal models."""
        if self.widen and self.fields is None:
            fail_at(("widen",), "bad_value", "there is no schema whose types could be widened", "remove this line")
        own = getattr(self.decode, "unknown", None)
        if self.unknown is None or self.unknown == own:
            return self if self.unknown == own else self.model_copy(update={"unknown": own})
        name = canonical_name(self.decode)
        if own is None:
            fail_at(("unknown",), "bad_value", f"the decoder `{name}` has no policy for unknown fields", "remove this line")
        if "unknown" in self.decode.model_fields_set:
            fail_at(("unknown",), "bad_value", f"`unknown` is {self.unknown} here and {own} in decode.{name}", "keep one of them")
        return self.model_copy(update={"decode": self.decode.model_copy(update={"unknown": self.unknown})})

    def record_schema(self) -> RecordSchema | None:
        """The columns of a record, or None where the file names none."""
        if self.fields is None:
            return None
        schema = parse_schema(self.fields)
        return widened(schema) if self.widen else schema


class Flush(Part):
    """When a unit ends, whichever comes first. Larger units mean fewer files, smaller ones less delay."""

    age: Duration = Field(default=parse_duration("60s"), description="Since the unit's first record was received.")
    bytes: Size = Field(default=parse_size("64MiB"), description="Record bytes as received.")
    rows: Count = Field(default=500_000, description="Records after which a unit ends, such as 100000.")


class Memory(Part):
    """How much one worker process may hold."""

    budget: Size = Field(default=parse_size("256MiB"), description="Record bytes fetched and not yet committed.")


class Encryption(Part):
    """The key of KMS that S3 encrypts everything with that this pipeline writes, whatever the bucket's own setting says."""

    kms_key: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$")] = Field(
        description="ARN of the key, such as arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab."
    )
    bucket_key: bool = Field(
        default=True, description="Let S3 ask KMS once for many objects (an S3 Bucket Key), at a fraction of the cost."
    )


class Metrics(Part):
    """Where /metrics, /healthz and /readyz are served."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 in a pod.")
    port: Port = Field(default=9464, description="TCP port; 0 takes a free one.")


class Otlp(Part):
    """Spans of every record and unit, sent to an OpenTelemetry collector by OTLP/HTTP once units are sealed."""

    endpoint: CollectorUrl = Field(description="Base URL of the collector, such as http://127.0.0.1:4318; /v1/traces is appended.")
    headers: dict[str, SecretReference] = Field(default_factory=dict, description="Headers to send, as `{name: {env: NAME}}`.")
    compression: Compression = Field(default=Compression.GZIP, description="gzip, zstd (where the collector takes it) or none.")
    mode: Mode = Field(
        default=Mode.LEDGER,
        description="ledger: the collector may lag; strict: checkpoints wait for it; best_effort: each request is tried once.",
    )
    signal: Signal = Field(default=Signal.SPANS, description="What a record becomes: spans, logs or both.")
    tier: Tier = Field(default=Tier.FULL, description="full, anomalies (all but written records), or sample (those and one in `sample`).")
    sample: Count = Field(default=100, description="With `tier: sample`: one written record in this many.")
    trust_producer_context: Trust = Field(default=Trust.LINK, description="What a producer's trace context becomes: link, parent, ignore.")
    destinations: Destinations = Field(
        default=Destinations.FULL,
        description="How spans name files: full (URLs, which hold the values of partition columns) or digest (SHA-256 only).",
    )
    request_bytes: Size = Field(
        default=parse_size("3584KiB"),
        description="Largest request before compression. Some collectors drop what comes in larger ones.",
    )


class Lineage(Part):
    """OpenLineage events of each run of a worker, with a facet that leads to the ledger."""

    url: CollectorUrl | None = Field(
        default=None, description="Where events are posted, such as http://marquez:5000/api/v1/lineage; beside the log if not given."
    )
    headers: dict[str, SecretReference] = Field(default_factory=dict, description="Headers to send, as `{name: {env: NAME}}`.")
    interval: Duration = Field(default=parse_duration("5m"), description="Between two RUNNING events.")
    namespace: str = Field(default="kinesis-stream", min_length=1, max_length=200, description="Namespace of the job.")


class Telemetry(Part):
    """Spans of the worker's own operations, by OTLP/HTTP; they may be dropped, unlike spans of records. Needs the extra `telemetry`."""

    endpoint: CollectorUrl = Field(description="Base URL of the collector, such as http://127.0.0.1:4318; /v1/traces is appended.")
    headers: dict[str, SecretReference] = Field(default_factory=dict, description="Headers to send, as `{name: {env: NAME}}`.")
    queue: Count = Field(default=2048, le=65_536, description="Spans that may wait; further ones are dropped and counted.")


class Audit(Part):
    """What is told of every record besides the ledger, which is always written."""

    otlp: Otlp | None = Field(default=None, description="Where spans go; nowhere if not given.")
    lineage: Lineage | None = Field(default=None, description="OpenLineage events; none if not given, `{}` keeps them beside the log.")
    trace_context: tuple[TracePath, ...] = Field(
        default=DEFAULT_PATHS,
        max_length=16,
        description="Where JSON records carry a W3C `traceparent`; the first path that leads to a well-formed one counts. `[]`: none.",
    )


class Rejects(Part):
    """When dead letters stop a shard: a large share of them says that the pipeline is wrong, not the data."""

    max_ratio: Ratio = Field(default=0.5, description="Share of the records, of a unit or of the window, above which the shard stops.")
    min_records: Count = Field(default=1000, description="Fewer records, in the unit and in the window, never stop a shard.")
    window: Duration = Field(
        default=parse_duration("5m"), description="Units cut in this time count together, so that small ones are judged too."
    )
    redrive: RedriveBudget = Field(default=RedriveBudget(), description="How often and how long dead letters may be sent through again.")


def _some(sinks: tuple[SinkConfig, ...]) -> tuple[SinkConfig, ...]:
    if not sinks:
        fail_at((), "bad_value", "a pipeline needs at least one sink", "add `- s3: {url: s3://bucket/prefix/}`")
    return sinks


class Pipeline(Part):
    """One pipeline: a source, a chain of stages, sinks, and the place where its state is kept.

    Two pipelines are equal when they do the same; the order of keys, shorthand forms and defaults written out do not matter.
    """

    application: ApplicationName = Field(description="Names the state, so that several pipelines can share a place for it.")
    source: Source = Field(description="Where records come from.")
    stages: tuple[Stage, ...] = Field(default=(), description="Run in this order over every batch.")
    sinks: Annotated[tuple[Sink, ...], AfterValidator(_some)] = Field(description="Where rows go; each gets all of them.")
    state: Location = Field(description="Commit log and recorded definitions: s3://bucket/prefix/ or file:./directory.")
    encryption: Encryption | None = Field(
        default=None, description="How S3 encrypts what is written, state and sinks alike; as the bucket says, if not given."
    )
    coordination: Coordination = Field(
        default=Coordination(local=LocalCoordination()),
        description="Who decides which worker reads which shard: local, native, or {native: options}.",
    )
    flush: Flush = Field(default=Flush(), description="When a unit ends.")
    rejects: Rejects = Field(default=Rejects(), description="When dead letters stop a shard.")
    memory: Memory = Field(default=Memory(), description="How much a worker may hold.")
    metrics: Metrics = Field(default=Metrics(), description="Where metrics are served.")
    audit: Audit = Field(default=Audit(), description="Where spans of every record are sent.")
    telemetry: Telemetry | None = Field(default=None, description="Where spans of the worker's own operations go; nowhere if not given.")
    notify: Notify = Field(default=Notify(), description="Who is told when a shard halts.")
    requires: tuple[Location, ...] = Field(
        default=(), description="Objects that must be there before anything is read, such as s3://bucket/2026-01-01/_SUCCESS."
    )

    def each(self) -> tuple[Pipeline, ...]:
        """This pipeline for each of its streams by itself: ``source.kinesis.stream`` and ``.start`` are that stream's."""
        narrowed = [self.source.model_copy(update={"kinesis": kinesis}) for kinesis in self.source.kinesis.each()]
        return tuple(self.model_copy(update={"source": source}) for source in narrowed)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.flush.bytes > self.memory.budget:
            message = f"a unit of {self.flush.bytes} bytes does not fit into the memory budget of {self.memory.budget}"
            place = ("flush", "bytes") if "bytes" in self.flush.model_fields_set else ("memory", "budget")
            fail_at(place, "flush_over_budget", message, "lower flush.bytes or raise memory.budget")
        if problem_ := self.source.s3 and self.source.s3.misfit(canonical_name(self.source.decode)):
            fail_at(("source", "s3", "format"), "bad_value", *problem_)
        own = {ledger.NAME, rejects.NAME}
        names: set[str] = set()
        for index, sink in enumerate(self.sinks):
            if sink.name in names | own:
                whose = "belongs to the service's own files" if sink.name in own else "is that of two sinks"
                fail_at(("sinks", index), "duplicate_sink", f"the name `{sink.name}` {whose}", "give this one another `name`")
            names.add(sink.name)
            if sink.url == CONSOLE and self.coordination.kcl is not None:
                message = "a worker of the MultiLangDaemon talks with it over standard output, so nothing else can be printed there"
                fail_at(("sinks", index, sink.kind), "bad_value", message, "write files, or choose another coordination")
        return self
