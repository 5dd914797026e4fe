"""The pipeline file as frozen models: what may be written, what it means, and the defaults."""

from __future__ import annotations

from collections.abc import Callable
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
from stream.contracts import CONSOLE, Start, StartKind
from stream.pipeline.audit import Audit, Telemetry
from stream.pipeline.components import canonical_name
from stream.pipeline.coordination import Coordination, LocalCoordination, NativeCoordination
from stream.pipeline.replay import DEFAULT_NAME, Notify, ObjectsSource, Part, RedriveBudget
from stream.pipeline.sensitive import Sensitive
from stream.pipeline.units import parse_duration, parse_size
from stream.pipeline.values import (
    ApplicationName,
    ConsumerName,
    Count,
    Decoder,
    Duration,
    Endpoint,
    Location,
    Port,
    Ratio,
    Region,
    Sink,
    Size,
    Stage,
    StartPosition,
    Stream,
    fail_at,
    fail_with,
    problem,
)
from stream.sink import rejects
from stream.sink.objects import SinkConfig
from stream.stream_ids import as_written, name_of, parse, stream_id
from stream.transform.decode import Unknown
from stream.transform.engine import CompiledChain, compile_chain
from stream.transform.routing import ELSE
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.types import RecordSchema, parse_schema, widened


class KplOutOfRange(StrEnum):
    """What happens to a KPL user record whose hash key is outside the shard that carried it."""

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

    stream: Stream = Field(description="Name of the stream, or its ARN.")
    start: StartPosition | None = Field(default=None, description="Where reading of its new shards begins.")


def _entry(value: Any) -> Any:
    return {"stream": value} if isinstance(value, str) else value


class KinesisSource(Part):
    """One Kinesis stream, or several that are read in the same way.

    After validation, either ``stream`` is named, or ``streams`` lists several, each with its start, and ``stream`` is empty. A stream
    that the file gives by its ARN has its id there (``stream_ids``), and ``region`` is that of the ARNs.
    """

    stream: Stream = Field(
        default="", description="Name of the stream, or its ARN if another account shares it; this or `streams` is required."
    )
    streams: tuple[Annotated[StreamEntry, BeforeValidator(_entry)], ...] = Field(
        default=(),
        validate_default=True,
        description="Several streams for one worker: names or ARNs, or {stream: name, start: position} for a separate start.",
    )
    start: StartPosition = Field(
        default=Start(StartKind.TRIM_HORIZON),
        description="Where reading of a new shard begins: trim_horizon, latest, or {at_timestamp: 2026-01-01T00:00:00Z}.",
    )
    retrieval: Retrieval = Field(
        default=Retrieval.POLLING,
        description="polling (shares a shard's 2 MB/s with all other readers) or fan_out (has its own 2 MB/s, costs extra).",
    )
    consumer: ConsumerName | None = Field(
        default=None, description="With `retrieval: fan_out`: name of the registered consumer; by default, the application's name."
    )
    region: Region | None = Field(default=None, description="AWS region; by default, that of the stream's ARN, or the environment's.")
    endpoint: Endpoint | None = Field(default=None, description="URL of the service, for an emulator or a VPC endpoint.")
    kpl_out_of_range: KplOutOfRange = Field(
        default=KplOutOfRange.DROP,
        description="KPL user records outside the shard's hash range: drop (another shard has them after a reshard) or keep.",
    )
    on_expired: OnExpired = Field(
        default=OnExpired.GAP,
        description="Records that expired unread: gap (record it in the commit log, raise an alarm, continue) or halt the shard.",
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
                fail_at((index,), "duplicate_stream", f"the stream `{as_written(name)}` is listed twice", "remove one of the two")
        return entries

    @model_validator(mode="after")
    def _each_with_its_start(self) -> Self:
        if all(entry.start is not None for entry in self.streams):
            return self
        resolved = [entry.model_copy(update={"start": entry.start or self.start}) for entry in self.streams]
        return self.model_copy(update={"streams": tuple(resolved)})

    @model_validator(mode="after")
    def _in_one_region(self) -> Self:
        found = {name: shared for name in self.names if (shared := parse(name)) is not None}
        if not found:
            return self
        first = next(iter(found.values()))
        region = self.region or first.region
        for index, name in enumerate(self.names):
            shared, path = found.get(name), ("streams", index) if self.streams else ("stream",)
            if shared is not None and shared.region != region:
                whose = "`region`" if self.region else f"that of {first.arn}"
                remedy = "remove `region`, or correct the ARN" if self.region else "streams of several regions need a pipeline each"
                fail_at(path, "bad_value", f"{shared.arn} is in {shared.region}, and {whose} is {region}", remedy)
            if shared is None and self.region is None:
                message = f"`{name}` is a stream in the environment's region, and {first.arn} is in {region}"
                fail_at(path, "bad_value", message, f"write `region: {region}` if both are there; otherwise they need a pipeline each")
        return self if self.region else self.model_copy(update={"region": region})

    @model_serializer(mode="wrap")
    def _without_the_other(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write only the one of ``stream`` and ``streams`` that is used, so that the form of a definition with one stream never changes."""
        data: dict[str, Any] = handler(self)
        return {key: value for key, value in data.items() if value or key not in {"stream", "streams"}}

    @property
    def names(self) -> tuple[str, ...]:
        """Every stream, in the order of the file."""
        return tuple(entry.stream for entry in self.streams) if self.streams else (self.stream,)

    def called(self, text: str) -> str:
        """The stream, as in ``names``, that a person calls ``text``: by name, ARN or id, or an id by its bare name if that says enough."""
        named = stream_id(text)
        alike = [name for name in self.names if name_of(name) == text]
        return alike[0] if named not in self.names and len(alike) == 1 else named

    def each(self) -> tuple[KinesisSource, ...]:
        """The same source narrowed to each stream: ``stream`` is that stream's name and ``start`` its start."""
        if not self.streams:
            return (self,)
        return tuple(self.model_copy(update={"stream": entry.stream, "start": entry.start}) for entry in self.streams)


class Source(Part):
    """Where records come from and how their bytes become columns.

    If ``s3`` is given, ``kinesis`` only carries the name under which the commit log keeps what was read.
    """

    kinesis: KinesisSource = Field(description="The stream or streams to read; this or `s3` is required.")
    s3: ObjectsSource | None = Field(default=None, description="Objects to read instead of a stream, each once: see docs/objects.md.")
    decode: Decoder = Field(default="json", validate_default=True, description="Decoder: a name, or {name: options}.")
    fields: Annotated[dict[str, Any] | None, WithJsonSchema({"x-is": "columns"})] = Field(
        default=None,
        alias="schema",
        description="Columns of a record, `name: type`; `?` after a type means that the value may be null.",
    )
    unknown: Unknown | None = Field(
        default=None, description="Fields that the schema does not name: ignore, reject or capture. Same as the decoder's option."
    )
    widen: bool = Field(
        default=False,
        description="Read each column in the widest type of its family (int64, float64, decimal(38,s)), so that values that outgrow "
        "the schema do not become dead letters.",
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
        """Make ``unknown`` and the decoder's own option agree, so that definitions with equal meanings are equal models."""
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
        """The columns of a record, or None if the file names none."""
        if self.fields is None:
            return None
        schema = parse_schema(self.fields)
        return widened(schema) if self.widen else schema


class Flush(Part):
    """When a unit ends: at the first limit reached. Larger units mean fewer files; smaller ones, less delay."""

    age: Duration = Field(default=parse_duration("60s"), description="Greatest age of a unit, from the receipt of its first record.")
    bytes: Size = Field(default=parse_size("64MiB"), description="Largest size of a unit, in record bytes as received.")
    rows: Count = Field(default=500_000, description="Most records in a unit, such as 100000.")


class Memory(Part):
    """How much data one worker process may hold in memory."""

    budget: Size = Field(default=parse_size("256MiB"), description="Limit on record bytes that are fetched but not yet committed.")


class Encryption(Part):
    """The KMS key with which S3 encrypts everything that this pipeline writes, whatever the bucket's own setting is."""

    kms_key: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$")] = Field(
        description="ARN of the key, such as arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab."
    )
    bucket_key: bool = Field(
        default=True, description="Let S3 call KMS once for many objects (an S3 Bucket Key), at a fraction of the cost."
    )


class Metrics(Part):
    """Where /metrics, /healthz and /readyz are served."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 in a pod.")
    port: Port = Field(default=9464, description="TCP port; 0 picks a free one.")


class Rejects(Part):
    """When dead letters halt a shard: a large share of them suggests that the pipeline is wrong, not the data."""

    max_ratio: Ratio = Field(default=0.5, description="Share of a unit's or the window's records above which the shard halts.")
    min_records: Count = Field(default=1000, description="Fewer records than this, in a unit or in the window, never halt a shard.")
    window: Duration = Field(
        default=parse_duration("5m"), description="Units cut within this time are judged together, so that small units count too."
    )
    redrive: RedriveBudget = Field(default=RedriveBudget(), description="How often, and for how long, dead letters may be redriven.")


def _some(sinks: tuple[SinkConfig, ...]) -> tuple[SinkConfig, ...]:
    if not sinks:
        fail_at((), "bad_value", "a pipeline needs at least one sink", "add `- s3: {url: s3://bucket/prefix/}`")
    return sinks


class Pipeline(Part):
    """One pipeline: a source, a chain of stages, sinks, and the place where its state is kept.

    Two pipelines are equal if they do the same; the order of keys, shorthand forms and explicit defaults do not matter.
    """

    application: ApplicationName = Field(description="Names the state, so that several pipelines can keep theirs in one place.")
    source: Source = Field(description="Where records come from.")
    stages: tuple[Stage, ...] = Field(default=(), description="Stages, run in this order over every batch.")
    sinks: Annotated[tuple[Sink, ...], AfterValidator(_some)] = Field(
        description="Where rows go: each sink gets all of them, or those that its `where` takes."
    )
    state: Location = Field(description="Commit log and recorded definitions: s3://bucket/prefix/ or file:./directory.")
    sensitive: Sensitive | None = Field(
        default=None, description="Columns that few may see: a list, or {columns, allowed_in, safe}. None by default."
    )
    encryption: Encryption | None = Field(
        default=None, description="How S3 encrypts what is written, state and sinks alike; by default, as the bucket says."
    )
    coordination: Coordination = Field(
        default=Coordination(local=LocalCoordination()),
        description="Who decides which worker reads which shard: local, native, or {native: options}.",
    )
    flush: Flush = Field(default=Flush(), description="When a unit ends.")
    rejects: Rejects = Field(default=Rejects(), description="When dead letters halt a shard.")
    memory: Memory = Field(default=Memory(), description="How much a worker may hold in memory.")
    metrics: Metrics = Field(default=Metrics(), description="Where metrics are served.")
    audit: Audit = Field(default=Audit(), description="Where spans of every record are sent.")
    telemetry: Telemetry | None = Field(
        default=None, description="Where to send spans of the worker's own operations; by default, nowhere."
    )
    notify: Notify = Field(default=Notify(), description="Whom to notify when a shard halts.")
    requires: tuple[Location, ...] = Field(
        default=(), description="Objects that must exist before anything is read, such as s3://bucket/2026-01-01/_SUCCESS."
    )

    def compiled(self, resources: Resources, timer: Callable[[], float]) -> CompiledChain:
        """The decoder, the stages and the choice of rows by the sinks, ready to run; ``timer`` as for ``compile_chain``.

        Raises:
            SchemaMismatch: a stage, or the condition of a sink, cannot work on the columns before it.
        """
        conditions = [(sink.name, sink.where) for sink in self.sinks]
        return compile_chain(self.source.decode, self.source.record_schema(), self.stages, resources, timer, conditions)

    def each(self) -> tuple[Pipeline, ...]:
        """This pipeline narrowed to each of its streams: ``source.kinesis.stream`` and ``.start`` are that stream's."""
        narrowed = [self.source.model_copy(update={"kinesis": kinesis}) for kinesis in self.source.kinesis.each()]
        return tuple(self.model_copy(update={"source": source}) for source in narrowed)

    @property
    def leases(self) -> NativeCoordination | None:
        """The options of the leases by which workers share the shards; None if they share none.

        Objects are shared only as they arrive: those that a run chose by itself are read by that run.
        """
        objects = self.source.s3
        return self.coordination.native if objects is None or objects.watch is not None else None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.flush.bytes > self.memory.budget:
            message = f"a unit of {self.flush.bytes} bytes does not fit into the memory budget of {self.memory.budget}"
            place = ("flush", "bytes") if "bytes" in self.flush.model_fields_set else ("memory", "budget")
            fail_at(place, "flush_over_budget", message, "lower flush.bytes or raise memory.budget")
        if problem_ := self.source.s3 and self.source.s3.misfit(canonical_name(self.source.decode)):
            fail_at(("source", "s3", "format"), "bad_value", *problem_)
        if self.coordination.kcl is not None and (shared := next(filter(parse, self.source.kinesis.names), None)):
            message = f"the MultiLangDaemon finds streams by name in its own account, and {as_written(shared)} is given by its ARN"
            fail_at(("source", "kinesis"), "bad_value", message, "write the name if the stream is there, or choose another coordination")
        own = {ledger.NAME, rejects.NAME}
        names: set[str] = set()
        conditioned = any(sink.where not in {None, ELSE} for sink in self.sinks)
        for index, sink in enumerate(self.sinks):
            if sink.where == ELSE and not conditioned:
                message = "`else` stands for the rows that no other sink's condition is true for, and no other sink has a condition"
                fail_at(("sinks", index, sink.kind, "where"), "bad_value", message, "give another sink a `where`, or remove this one")
            if sink.name in names | own:
                whose = "is reserved for the service's own files" if sink.name in own else "is used by two sinks"
                fail_at(("sinks", index), "duplicate_sink", f"the name `{sink.name}` {whose}", "give this one another `name`")
            names.add(sink.name)
            if sink.url == CONSOLE and self.coordination.kcl is not None:
                message = "a worker of the MultiLangDaemon talks to it over standard output, so nothing else can be printed there"
                fail_at(("sinks", index, sink.kind), "bad_value", message, "write files, or choose another coordination")
        return self
