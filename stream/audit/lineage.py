"""OpenLineage run events: which job read which stream, what it wrote where, and where the record-level proof is.

A worker process is a run of the job: START, RUNNING at intervals, then COMPLETE or FAIL. All counts start at 0 with the run.
https://openlineage.io/spec/2-0-2/OpenLineage.json and the facets named in ``_FACETS``.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from stream import events as ev
from stream.contracts import Clock

PRODUCER: Final = "urn:kinesis-stream"
_SPEC: Final = "https://openlineage.io/spec"
_EVENT: Final = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
_LEDGER: Final = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunFacet"
_FACETS: Final = {
    "columnLineage": f"{_SPEC}/facets/1-2-0/ColumnLineageDatasetFacet.json#/$defs/ColumnLineageDatasetFacet",
    "schema": f"{_SPEC}/facets/1-2-0/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet",
    "inputStatistics": f"{_SPEC}/facets/1-0-0/InputStatisticsInputDatasetFacet.json#/$defs/InputStatisticsInputDatasetFacet",
    "outputStatistics": f"{_SPEC}/facets/1-0-2/OutputStatisticsOutputDatasetFacet.json#/$defs/OutputStatisticsOutputDatasetFacet",
    "errorMessage": f"{_SPEC}/facets/1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet",
    "processing_engine": f"{_SPEC}/facets/1-1-1/ProcessingEngineRunFacet.json#/$defs/ProcessingEngineRunFacet",
    "jobType": f"{_SPEC}/facets/2-0-4/JobTypeJobFacet.json#/$defs/JobTypeJobFacet",
}
_MAX_MESSAGE: Final = 1000


class RunState(StrEnum):
    """The state of a run."""

    START = "START"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A stream or a sink's files. ``fields``: column names and types; ``sink``: the sink's name in manifests, "" for a stream.

    ``origins``: for a sink's column, the fields of the sources that its values may come from, each with whether it is masked.
    """

    namespace: str
    name: str
    fields: tuple[tuple[str, str], ...] = ()
    sink: str = ""
    origins: Mapping[str, tuple[tuple[str, bool], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LineageJob:
    """The pipeline as an OpenLineage job. ``ledger`` and ``log``: URLs of ledger segments and manifests; ``build``: our version."""

    namespace: str
    name: str
    sources: tuple[Dataset, ...]
    targets: tuple[Dataset, ...]
    ledger: str
    log: str
    pipeline: str
    build: str


@dataclass(frozen=True, slots=True)
class Written:
    """What was written to one sink; ``size`` in bytes."""

    rows: int = 0
    size: int = 0
    files: int = 0

    def __add__(self, other: Written) -> Written:
        """The sums of both."""
        return Written(self.rows + other.rows, self.size + other.size, self.files + other.files)


@dataclass(frozen=True, slots=True)
class Read:
    """What was read from one stream."""

    records: int = 0
    payload_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of the units sealed since the start of the run: ``read`` by stream, ``written`` by sink."""

    read: Mapping[str, Read] = field(default_factory=dict)
    units: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    written: Mapping[str, Written] = field(default_factory=dict)


@dataclass(slots=True)
class _Pending:
    payload_bytes: dict[int, int] = field(default_factory=dict)
    written: dict[str, Written] = field(default_factory=dict)


class RunTotals:
    """An ``Emit`` that adds up what one worker commits. Callable from any thread.

    Files count once their unit is sealed. If another worker rewrote a unit, each write counts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, str], _Pending] = {}
        self._read: dict[str, Read] = {}
        self._units = 0
        self._outcomes: Counter[str] = Counter()
        self._written: dict[str, Written] = {}
        self._halted: dict[str, str] = {}

    def __call__(self, event: ev.Event) -> None:
        """Count ``event``."""
        with self._lock:
            shard = event.stream, event.shard
            pending = self._pending.get(shard) or _Pending()
            match event:
                case ev.UnitCut():
                    self._pending[shard] = pending
                    pending.payload_bytes[event.after] = event.payload_bytes
                case ev.FileWritten():
                    self._pending[shard] = pending
                    pending.written[event.sink] = pending.written.get(event.sink, Written()) + Written(event.rows, event.size, 1)
                case ev.UnitSealed():
                    self._units += 1
                    so_far, records = self._read.get(event.stream, Read()), sum(count for _, count in event.outcomes)
                    size = pending.payload_bytes.pop(event.after, 0)
                    self._read[event.stream] = Read(so_far.records + records, so_far.payload_bytes + size)
                    self._outcomes.update(dict(event.outcomes))
                    self._count_written(pending)
                case ev.RecoveryFinished():
                    pending.payload_bytes.clear()
                    self._count_written(pending)
                case ev.ShardStarted():
                    self._halted.pop(f"{event.stream}/{event.shard}", None)
                case ev.ShardEnded() | ev.ShardReleased():
                    self._pending.pop(shard, None)
                case ev.ShardHalted():
                    self._halted[f"{event.stream}/{event.shard}"] = event.reason
                case _:
                    pass

    def _count_written(self, pending: _Pending) -> None:
        for sink, written in pending.written.items():
            self._written[sink] = self._written.get(sink, Written()) + written
        pending.written.clear()

    @property
    def totals(self) -> Totals:
        """The current totals."""
        with self._lock:
            return Totals(dict(self._read), self._units, dict(sorted(self._outcomes.items())), dict(self._written))

    @property
    def trouble(self) -> str:
        """Why shards are halted; "" if none is."""
        with self._lock:
            return "; ".join(f"{shard}: {reason}" for shard, reason in sorted(self._halted.items()))


def run_id(application: str, worker: str) -> str:
    """The UUID of the run of one worker process on one application; the same on each call."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PRODUCER}/{application}/{worker}"))


def stream_dataset(stream: str, region: str | None, endpoint: str | None, fields: Sequence[tuple[str, str]]) -> Dataset:
    """A Kinesis stream. OpenLineage's naming rules do not cover Kinesis, so this follows Kafka topics: ``kinesis://<where>``, name."""
    where = urlsplit(endpoint).netloc if endpoint else region or "default"
    return Dataset(f"kinesis://{where}", stream, tuple(fields))


def place_dataset(url: str, sink: str, fields: Sequence[tuple[str, str]]) -> Dataset:
    """Files under ``url``, named by OpenLineage's rules: ``s3://bucket`` and the prefix, or ``file`` and the path."""
    scheme, _, rest = url.partition(":")
    if scheme == "s3":
        bucket, _, prefix = rest.removeprefix("//").partition("/")
        return Dataset(f"s3://{bucket}", prefix.rstrip("/") or "/", tuple(fields), sink)
    return Dataset(scheme, rest.removeprefix("//").rstrip("/") or "/", tuple(fields), sink)


def run_event(job: LineageJob, run: str, state: RunState, clock: Clock, totals: Totals, error: str = "") -> dict[str, Any]:
    """The event, ready for JSON; ``error`` is the reason of a FAIL."""
    run_facets = {
        "processing_engine": _facet("processing_engine", name="kinesis-stream", version=job.build),
        "stream_ledger": {
            "_producer": PRODUCER,
            "_schemaURL": _LEDGER,
            "ledger": job.ledger,
            "log": job.log,
            "pipeline": job.pipeline,
            "units": totals.units,
            "outcomes": dict(totals.outcomes),
        },
    }
    if state is RunState.FAIL:
        run_facets["errorMessage"] = _facet("errorMessage", message=error[:_MAX_MESSAGE], programmingLanguage="PYTHON")
    kind = _facet("jobType", processingType="STREAMING", integration="KINESIS_STREAM", jobType="PIPELINE")
    return {
        "eventType": state.value,
        "eventTime": clock.now().isoformat(),
        "producer": PRODUCER,
        "schemaURL": _EVENT,
        "run": {"runId": run, "facets": run_facets},
        "job": {"namespace": job.namespace, "name": job.name, "facets": {"jobType": kind}},
        "inputs": [_source(source, _read_from(source, job, totals)) for source in job.sources],
        "outputs": [_target(target, job.sources, totals.written.get(target.sink, Written())) for target in job.targets],
    }


def _read_from(source: Dataset, job: LineageJob, totals: Totals) -> Read:
    """What was read from ``source``. A single source gets all of it: its name in the log may differ from its dataset name."""
    if len(job.sources) > 1:
        return totals.read.get(source.name, Read())
    return Read(sum(read.records for read in totals.read.values()), sum(read.payload_bytes for read in totals.read.values()))


def _source(source: Dataset, read: Read) -> dict[str, Any]:
    statistics = _facet("inputStatistics", rowCount=read.records, size=read.payload_bytes)
    return {**_dataset(source), "inputFacets": {"inputStatistics": statistics}}


def _target(target: Dataset, sources: Sequence[Dataset], written: Written) -> dict[str, Any]:
    statistics = _facet("outputStatistics", rowCount=written.rows, size=written.size, fileCount=written.files)
    return {**_dataset(target, _column_lineage(target, sources)), "outputFacets": {"outputStatistics": statistics}}


def _column_lineage(target: Dataset, sources: Sequence[Dataset]) -> dict[str, Any]:
    """The facet of the columns that come from fields of ``sources``."""
    fields = {}
    for column, origins in target.origins.items():
        fields[column] = {
            "inputFields": [
                {
                    "namespace": source.namespace,
                    "name": source.name,
                    "field": name,
                    "transformations": [{"type": "DIRECT", "masking": masked}],
                }
                for source in sources
                for name, masked in origins
            ]
        }
    return {"columnLineage": _facet("columnLineage", fields=fields)} if fields else {}


def _dataset(dataset: Dataset, more: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    fields = [{"name": name, "type": kind} for name, kind in dataset.fields]
    facets = {"schema": _facet("schema", fields=fields)} if fields else {}
    return {"namespace": dataset.namespace, "name": dataset.name, "facets": {**facets, **more}}


def _facet(kind: str, /, **content: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": _FACETS[kind], **content}
