"""What a pipeline will do, without running it: the columns after each step, and the names of the objects it will write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from stream.batch import Outcome, type_name
from stream.commit.naming import SEQUENCE_DIGITS, pipeline_key, reference_key
from stream.contracts import CONSOLE
from stream.errors import DefinitionError
from stream.pipeline.components import canonical_name
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import is_remote, load_function, parse_table, read_local
from stream.sink import rejects
from stream.transform.decode import DecoderConfig
from stream.transform.engine import DECODE
from stream.transform.routing import ELSE, SINKS
from stream.transform.stage import Resources, StageConfig
from stream.transform.types import SYSTEM, SYSTEM_SCHEMA

_PLACEHOLDER_SECRET: Final = b"a secret that is not needed here"
_SHARD: Final = "shardId-000000000000"
_UNIT: Final = f"{_SHARD}-<after>-<last>"


@dataclass(frozen=True, slots=True)
class Change:
    """One column that a step changes. ``kind``: added, removed or retyped. Types are named as in the schema language."""

    kind: str
    column: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``columns``: names and types after it, without lineage columns; None if unknown, and then ``unknown`` says why."""

    name: str
    options: str
    columns: tuple[tuple[str, str], ...] | None
    changes: tuple[Change, ...] = ()
    drops: str = ""
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where one kind of object will be stored."""

    what: str
    url: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pipeline will do. ``stops``: its steps, the decoder first; named as ``stream explain --json`` has always printed them."""

    stops: tuple[Step, ...]
    keys: tuple[Keys, ...]


def local_resources(pipeline: Pipeline, base: Path) -> Resources:
    """The pipeline's resources that are on this machine. Secrets are placeholders, which nothing may be computed with.

    Raises:
        DefinitionError: a local table, file or function cannot be read; ``stream check`` finds that, too.
    """
    urls = [url for stage in pipeline.stages for url in stage.table_urls() if not is_remote(url)]
    return Resources(
        tables={url: parse_table(url, read_local(url, base)) for url in urls},
        secrets={name: _PLACEHOLDER_SECRET for stage in pipeline.stages for name in stage.secret_names()},
        functions={name: load_function(name) for stage in pipeline.stages for name in stage.function_paths()},
        files={url: read_local(url, base, "file") for url in pipeline.source.decode.file_urls() if not is_remote(url)},
    )


def plan(pipeline: Pipeline, resources: Resources) -> Plan:
    """The plan of a pipeline that has no findings. If ``resources`` lack a table, the columns from there on are unknown.

    Raises:
        SchemaMismatch: the pipeline does have findings.
    """
    return Plan(tuple(_steps(pipeline, resources)), tuple(_keys(pipeline)))


def _steps(pipeline: Pipeline, resources: Resources) -> Iterator[Step]:
    decoder = pipeline.source.decode
    missing = [url for url in decoder.file_urls() if url not in resources.files]
    options = _options(decoder)
    if missing:
        schema, unknown = None, f"{missing[0]} was not read"
        yield Step(DECODE, options, None, unknown=unknown)
    else:
        columns = decoder.resolved(resources).output(pipeline.source.record_schema())
        schema, unknown = pl.Schema({**SYSTEM_SCHEMA, **columns}), ""
        yield Step(DECODE, options, _columns(schema))
    for index, stage in enumerate(pipeline.stages):
        name, options = f"{index + 1}:{canonical_name(stage)}", _options(stage)
        missing = [url for url in stage.table_urls() if url not in resources.tables]
        if schema is None or missing:
            unknown = unknown or f"{missing[0]} was not read"
            schema = None
            yield Step(name, options, None, drops=_drops(stage), unknown=unknown)
            continue
        after = stage.output(schema, resources)
        yield Step(name, options, _columns(after), tuple(changes(schema, after)), _drops(stage))
        schema = after
    conditions = [f"{sink.name}: {sink.where}" for sink in pipeline.sinks if sink.where is not None]
    if conditions:
        drops = "" if any(sink.where in {None, ELSE} for sink in pipeline.sinks) else Outcome.FILTERED.label
        yield Step(SINKS, ", ".join(conditions), None if schema is None else _columns(schema), drops=drops, unknown=unknown)


def output_schema(pipeline: Pipeline, resources: Resources) -> pl.Schema:
    """The columns and types that reach the sinks, lineage columns included, of a pipeline that has no findings.

    Raises:
        DefinitionError: ``resources`` lack a table or a file that the columns depend on.
        SchemaMismatch: the pipeline does have findings.
    """
    urls = [*pipeline.source.decode.file_urls(), *(url for stage in pipeline.stages for url in stage.table_urls())]
    missing = [url for url in urls if url not in resources.tables and url not in resources.files]
    if missing:
        msg = f"the columns of the sinks are not known: {', '.join(missing)} was not read"
        raise DefinitionError(msg)
    schema = pl.Schema({**SYSTEM_SCHEMA, **pipeline.source.decode.resolved(resources).output(pipeline.source.record_schema())})
    for stage in pipeline.stages:
        schema = stage.output(schema, resources)
    return schema


def changes(before: pl.Schema, after: pl.Schema) -> Iterator[Change]:
    """Columns that differ, in the order of ``after``, then the removed ones."""
    for name, kind in after.items():
        if name not in before:
            yield Change("added", name, after=type_name(kind))
        elif before[name] != kind:
            yield Change("retyped", name, type_name(before[name]), type_name(kind))
    for name, kind in before.items():
        if name not in after:
            yield Change("removed", name, before=type_name(kind))


def _columns(schema: pl.Schema) -> tuple[tuple[str, str], ...]:
    return tuple((name, type_name(kind)) for name, kind in schema.items() if name not in SYSTEM)


def _options(part: StageConfig | DecoderConfig) -> str:
    """The options of a step that differ from the defaults, on one line."""
    options = part.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = ", ".join(f"{name}: {_value(value)}" for name, value in options.items())
    return f"{part.name} {text}".strip() if isinstance(part, DecoderConfig) else text


def _value(value: object) -> str:
    if isinstance(value, dict):
        same = all(key == inner for key, inner in value.items())
        return ", ".join(value) if same else "{" + ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) + "}"
    return ", ".join(map(_value, value)) if isinstance(value, list) else str(value)


def _drops(stage: StageConfig) -> str:
    return stage.drops.label if stage.name in {"filter", "dedupe", "sql", "explode"} else ""


def _keys(pipeline: Pipeline) -> Iterator[Keys]:
    names = pipeline.source.kinesis.names
    stream, before = (names[0], "") if len(names) == 1 else ("<stream>", "<stream>.")
    for config in pipeline.sinks:
        if config.url == CONSOLE:
            yield Keys(f"data of {config.name}", "standard output, and kept nowhere")
            continue
        yield Keys(f"data of {config.name}", _joined(config.url, config.key_pattern(f"{before}{_UNIT}")))
    state = _joined(pipeline.state, pipeline.application)
    yield Keys("manifest", f"{state}/commits/{stream}/{_SHARD}/<after, {SEQUENCE_DIGITS} digits>.json")
    yield Keys("checkpoint", f"{state}/checkpoints/{stream}/{_SHARD}.json")
    yield Keys("ledger", f"{state}/ledger/v1/{stream}/{_SHARD}/{_UNIT}.<digest>.parquet")
    yield Keys("dead letters", f"{state}/{rejects.NAME}/{stream}/{_SHARD}/{_UNIT}.<digest>.parquet")
    yield Keys("definition", f"{state}/{pipeline_key('<digest>')}")
    if any(stage.table_urls() for stage in pipeline.stages):
        yield Keys("reference table", f"{state}/{reference_key('<sha256>')}")


def _joined(url: str, rest: str) -> str:
    return f"{url.removesuffix('/')}/{rest}"
