"""What a host other than the service cannot do with a pipeline. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from stream.errors import DefinitionError
from stream.pipeline.checks.host_names import Host
from stream.pipeline.components import canonical_name
from stream.pipeline.findings import Path, Severity
from stream.pipeline.model import Pipeline
from stream.sink.encode import Format
from stream.sink.objects import ObjectsSinkConfig, SinkConfig
from stream.sink.tables import TableSinkConfig
from stream.transform.stages.dedupe import Dedupe

KEPT_FOLDER: Final = "file:/mnt/"
"""Where Lambda mounts file systems that outlive a function."""

_AS_LINES: Final = (Format.NDJSON, Format.PARQUET)
"""Formats whose rows Firehose can write: JSON lines as they are, and Parquet by converting them (record format conversion)."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Something that a host cannot do. ``path``: its place in the pipeline, where a sink or a stage has its canonical name."""

    path: Path
    message: str
    hint: str
    severity: Severity = Severity.ERROR


def misfits(pipeline: Pipeline, host: Host) -> Iterator[Misfit]:
    """Everything in ``pipeline`` that ``host`` cannot do as the service would, or not as well."""
    match host:
        case Host.SERVICE:
            return
        case Host.FUNCTION:
            yield from _no_stream(pipeline, "a function is invoked with records of a Kinesis stream")
            yield from _lost_places(pipeline)
            yield from _scheduled(pipeline)
        case Host.FIREHOSE:
            yield from _no_stream(pipeline, "Firehose brings the records itself")
            if pipeline.requires:
                message = "the objects of `requires` are not looked for: Firehose brings records when it likes"
                yield Misfit(("requires",), message, "create the Firehose stream once they exist", Severity.NOTE)
            yield from _stages(pipeline)
            yield from _sinks(pipeline)


def as_run_by(pipeline: Pipeline, host: Host) -> Pipeline:
    """``pipeline`` with the formats in which ``host`` writes: a function under Firehose answers with JSON lines, whatever the sink says."""
    if host is not Host.FIREHOSE:
        return pipeline
    lines = {"format": Format.NDJSON, "compression": None, "compression_level": None}
    sinks = tuple(sink.model_copy(update=lines) if _is_parquet(sink) else sink for sink in pipeline.sinks)
    return pipeline.model_copy(update={"sinks": sinks})


def _is_parquet(sink: SinkConfig) -> bool:
    return isinstance(sink, ObjectsSinkConfig) and sink.format is Format.PARQUET


def refuse(found: Iterator[Misfit]) -> None:
    """Make sure that nothing was found that is an error.

    Raises:
        DefinitionError: something was.
    """
    errors = [f"{each.message}; {each.hint}" for each in found if each.severity is Severity.ERROR]
    if errors:
        raise DefinitionError("\n".join(errors))


def _no_stream(pipeline: Pipeline, why: str) -> Iterator[Misfit]:
    if pipeline.source.s3 is not None:
        yield Misfit(("source", "s3"), f"the pipeline reads objects (source.s3), and {why}", "use `stream run` for it")


def _lost_places(pipeline: Pipeline) -> Iterator[Misfit]:
    """Places on a disk that goes with the function."""
    places: dict[Path, tuple[str, str]] = {("state",): ("state", pipeline.state)}
    for index, sink in enumerate(pipeline.sinks):
        places["sinks", index, canonical_name(sink), "url"] = (f"the sink {sink.name}", sink.url)
    for path, (what, url) in places.items():
        if url.startswith("file:") and not url.startswith(KEPT_FOLDER):
            why = "which no other environment of the function sees, and which is lost with it"
            message = f"{what} is at {url}, on the function's own disk, {why}"
            yield Misfit(path, message, f"use s3://, or a file system that is mounted below {KEPT_FOLDER.removeprefix('file:')}")


def _scheduled(pipeline: Pipeline) -> Iterator[Misfit]:
    for index, sink in enumerate(pipeline.sinks):
        if isinstance(sink, TableSinkConfig):
            message = f"invocations for records seal rows of the table {sink.table}, and only scheduled ones load them"
            hint = "let a rule of EventBridge call the function at intervals (examples/lambda/template.yaml); `every` does not matter then"
            yield Misfit(("sinks", index, canonical_name(sink)), message, hint, Severity.NOTE)


def _stages(pipeline: Pipeline) -> Iterator[Misfit]:
    """Firehose cuts the records into events as it likes, and may send some again in another event."""
    for index, stage in enumerate(pipeline.stages):
        where = f"stage {index + 1} (`{stage.name}`)"
        path: Path = ("stages", index, canonical_name(stage))
        if isinstance(stage, Dedupe):
            message = (
                f"{where} finds duplicates among the records that commit together, and under Firehose nothing commits: a function sees "
                "one event, remembers nothing from one to the next, and Firehose may send a record again in another event"
            )
            hint = (
                "remove the stage and leave out duplicates where the files are read, or run the pipeline with `stream run` or in a function"
            )
            yield Misfit(path, message, hint)
        elif not stage.divisible():
            message = f"{where} looks at several rows, and under Firehose these are the rows of one event, which Firehose cuts as it likes"
            yield Misfit(path, message, "make sure that the result does not depend on that", Severity.NOTE)


def _sinks(pipeline: Pipeline) -> Iterator[Misfit]:
    first, *others = pipeline.sinks
    path: Path = ("sinks", 0, canonical_name(first))
    if not isinstance(first, ObjectsSinkConfig):
        message = (
            f"the sink {first.name} is a `{canonical_name(first)}`, and under Firehose it is Firehose that writes: it needs one `s3` sink"
        )
        yield Misfit(path, message, "the function takes the columns and partitions from that sink, and Firehose has its own destination")
    elif first.format not in _AS_LINES:
        message = f"the sink {first.name} has the format {first.format}, and a function answers Firehose with JSON lines"
        yield Misfit((*path, "format"), message, "use ndjson, or parquet with Firehose's record format conversion")
    elif first.partition_by and _expands(pipeline):
        message = "a record may become several rows here, and Firehose puts a record into one partition"
        hint = "a record whose rows belong to several partitions is answered with ProcessingFailed"
        yield Misfit((*path, "partition_by"), message, hint, Severity.NOTE)
    for index, sink in enumerate(others, 1):
        message = f"the sink {sink.name} would get nothing: a Firehose stream has one destination"
        yield Misfit(("sinks", index, canonical_name(sink)), message, "keep one `s3` sink, and give the others a pipeline of their own")


def _expands(pipeline: Pipeline) -> bool:
    return pipeline.source.decode.expanding() or any(stage.expands for stage in pipeline.stages)
