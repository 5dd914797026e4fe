"""The reference: one page per stage, decoder and sink, with every option and an example that is executed while the page is made."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import yaml
from pydantic import BaseModel

from stream.batch import PARTITION_KEY, ROW, Outcome
from stream.pipeline.checks.codes import CODES
from stream.pipeline.components import DECODERS, SINKS, STAGES, make_sink
from stream.pipeline.schema import json_schema
from stream.pipeline.trials.trial import plain
from stream.sink.console import ConsoleSinkConfig
from stream.sink.csv import SeparatedValues
from stream.sink.iceberg import IcebergSink, IcebergSinkConfig
from stream.sink.objects import ObjectsSink, ObjectsSinkConfig
from stream.sink.redshift import RedshiftSinkConfig
from stream.sink.redshift_sql import create_table
from stream.transform.decode import DecoderConfig
from stream.transform.stage import StageConfig
from stream.transform.types import SYSTEM, parse_schema
from tests.docs.tables import default_text, table
from tests.frames import RESOURCES, raw_frame, rows

FOLDER = "docs/reference"
INTRODUCTION = (
    "Made from the code by `make docs`; the examples are executed while a page is made. "
    "What a whole pipeline file looks like: [the pipeline file](../pipeline.md)."
)
SCHEMA = json_schema()
EXAMPLE_SCHEMA = {"a": "int64", "b": "string?"}
SINK_ROWS = {"carrier": ["UA", "AA", None], "delay": [20, 1, 5]}


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of every page."""
    yield f"{FOLDER}/README.md", index()
    yield f"{FOLDER}/findings.md", findings()
    for kind, known in (("stages", STAGES), ("decoders", DECODERS), ("sinks", SINKS)):
        for name, model in known.items():
            yield f"{FOLDER}/{kind}/{name}.md", page(kind, name, model)


def index() -> str:
    parts = ["# Reference", INTRODUCTION]
    for kind, known in (("Stages", STAGES), ("Decoders", DECODERS), ("Sinks", SINKS)):
        parts += [f"## {kind}", overview(kind.lower(), known)]
    parts.append("## Findings\n\nWhat each code of `stream check` means: [findings](findings.md).")
    return "\n\n".join(parts) + "\n"


def overview(kind: str, known: Mapping[str, type[BaseModel]], prefix: str = "") -> str:
    lines = [(f"[{name}]({prefix}{kind}/{name}.md)", summary(model)) for name, model in known.items()]
    return table((kind[:-1], "what it does"), lines)


def findings() -> str:
    head = ("# Findings\n\nEvery code that `stream check` gives, as in `file:line:column code message - hint`. A code never changes its "
            "meaning, so scripts may rely on it. Notes do not fail a check.")  # fmt: skip
    return f"{head}\n\n" + table(("code", "what it says"), ((f"`{code}`", text) for code, text in sorted(CODES.items()))) + "\n"


def summary(model: type[BaseModel]) -> str:
    return unwrapped(model).partition("\n\n")[0]


def unwrapped(model: type[BaseModel]) -> str:
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(model.__doc__ or "").replace("``", "`").split("\n\n"))


def page(kind: str, name: str, model: type[BaseModel]) -> str:
    parts = [f"# {name}", unwrapped(model)]
    if options := list(_options(model)):
        parts += ["## Options", table(("option", "takes", "default", "meaning"), options)]
    if kind != "sinks":
        parts += ["## Example", *_example(name, model)]
    elif model is ObjectsSinkConfig:
        parts += ["## Example", *_sink(name)]
    elif model is ConsoleSinkConfig:
        parts += ["## Example", *_console_sink(name)]
    elif model is RedshiftSinkConfig:
        parts += ["## Example", *_table_sink(name)]
    elif model is IcebergSinkConfig:
        parts += ["## Example", *_iceberg_sink(name)]
    return "\n\n".join(parts) + "\n"


def _options(model: type[BaseModel], within: str = "") -> Iterator[tuple[str, str, str, str]]:
    found = next(
        body for name, body in SCHEMA["definitions"].items() if name.rpartition("__")[2] == model.__name__ and "properties" in body
    )
    for name, field in model.model_fields.items():
        option = field.alias or name
        takes = " or ".join(dict.fromkeys(_takes(found["properties"][option])))
        yield f"`{within}{option}`", takes, default_text(field), field.description or ""
        if field.annotation == SeparatedValues | None:
            yield from _options(SeparatedValues, f"{within}{option}.")


def _takes(value: Mapping[str, Any]) -> Iterator[str]:
    """What a JSON Schema allows, in words."""
    if "anyOf" in value:
        for each in value["anyOf"]:
            yield from _takes(each)
    elif "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        target = SCHEMA["definitions"][name]
        yield from ["secret"] if name == "secret" else _takes(target)
    elif "enum" in value:
        yield ", ".join(f"`{each}`" for each in value["enum"] if each is not None)
    elif value.get("pattern") == r"\$\{" or value.get("type") == "null":
        return
    elif value.get("type") == "array":
        yield f"list of {' or '.join(_takes(value.get('items', {}))) or 'values'}"
    elif value.get("type") == "object":
        inner = value.get("additionalProperties")
        yield f"mapping to {' or '.join(_takes(inner))}" if isinstance(inner, dict) else "options"
    else:
        kinds = value.get("type", "value")
        yield " or ".join(kinds) if isinstance(kinds, list) else kinds + _bounds(value)


def _bounds(value: Mapping[str, Any]) -> str:
    low, high = value.get("minimum"), value.get("maximum")
    if low is not None and high is not None:
        return f" {low:,} to {high:,}"
    return f" from {low:,}" if low is not None else ""


def _example(name: str, model: type[StageConfig | DecoderConfig]) -> Iterator[str]:
    written = {name: model.example.config} if model.example.config else name
    if issubclass(model, StageConfig):
        fence, given, made = "yaml stage", [_json(row) for row in model.example.given], _stage(model)
        written = [written]
    else:
        fence, given, made = "yaml decoder", [_json(row) for row in model.example.given], _decoder(model)
        written = {"decode": written}
    yield f"```{fence}\n{yaml.safe_dump(written, sort_keys=False, width=120, allow_unicode=True)}```".replace("'on':", "on:")
    yield "```text\n" + "\n".join([*(f"in  {line}" for line in given), *made]) + "\n```"


def _stage(model: type[StageConfig]) -> list[str]:
    stage = model.model_validate(model.example.config)
    names = dict.fromkeys(name for row in model.example.given for name in row)
    frame = rows({name: [row.get(name) for row in model.example.given] for name in names})
    applied = stage.bind(frame.schema, RESOURCES)(frame)
    return _outcome(applied.frame, applied.rejects, frame, stage.drops)


def _decoder(model: type[DecoderConfig]) -> list[str]:
    decoder = model.model_validate(model.example.config or {})
    records = [each.encode() if isinstance(each, str) else each for each in (row["_data"] for row in model.example.given)]
    keys = [row.get("_partition_key", "k") for row in model.example.given]
    frame = raw_frame(records).with_columns(pl.Series(PARTITION_KEY, keys))
    schema = None if model.name in {"avro", "protobuf", "raw"} else parse_schema(EXAMPLE_SCHEMA)
    applied = decoder.bound(schema)(frame)
    return _outcome(applied.frame, applied.rejects, frame, Outcome.FILTERED)


def _outcome(after: pl.DataFrame, rejects: pl.DataFrame | None, before: pl.DataFrame, drops: Outcome) -> list[str]:
    lines = [f"out {_json(row)}" for row in after.drop(SYSTEM).to_dicts()]
    reported = dict(rejects.iter_rows()) if rejects is not None else {}
    kept = set(after[ROW])
    fates = {row: f"{Outcome.DEAD_LETTERED.label} {reason}" for row, reason in reported.items()}
    lines += [f"row {row + 1} {fates.get(row, drops.label)}" for row in before[ROW] if row not in kept]
    return lines


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(
        {name: value.decode() if isinstance(value, bytes) else plain(value) for name, value in row.items()}, ensure_ascii=False
    )


def _table_sink(name: str) -> Iterator[str]:
    options = {
        "staging": "s3://lake/_staging/flights/",
        "table": "analytics.flights",
        "database": "dev",
        "workgroup": "analytics",
        "iam_role": "arn:aws:iam::123456789012:role/redshift-copy",
        "mode": "upsert",
        "keys": ["carrier"],
        "types": {"carrier": "varchar(3)"},
    }
    yield f"```yaml sink\n{yaml.safe_dump([{name: options}], sort_keys=False)}```"
    config = RedshiftSinkConfig.model_validate(options)
    yield "The table that is made for the columns `carrier` and `delay`:"
    yield f"```text\n{create_table(config.target, config.layout(rows(SINK_ROWS).schema))}\n```"


def _iceberg_sink(name: str) -> Iterator[str]:
    options = {"location": "s3://lake/flights/", "table": "lake.flights", "partition_by": ["day(_arrival)", "carrier"]}
    yield f"```yaml sink\n{yaml.safe_dump([{name: options}], sort_keys=False)}```"
    config, frame = IcebergSinkConfig.model_validate(options), rows(SINK_ROWS)
    columns = config.layout(frame.schema).columns
    encoded = IcebergSink(config, frame.schema).encode(frame, "shardId-000000000000-0-42")
    yield "The table's columns, and the files of the unit `shardId-000000000000-0-42`:"
    lines = [f"{column.name} {column.type}" for column in columns] + [file.key for file in encoded.files]
    yield "```text\n" + "\n".join(lines) + "\n```"


def _console_sink(name: str) -> Iterator[str]:
    yield f"```yaml sink\n{yaml.safe_dump([{name: {}}], sort_keys=False)}```"
    frame = rows(SINK_ROWS)
    (file,) = make_sink(ConsoleSinkConfig(), frame.schema).encode(frame, "shardId-000000000000-0-42").files
    lines = [f"in  {_json(row)}" for row in frame.drop(SYSTEM).to_dicts()]
    yield "```text\n" + "\n".join([*lines, *(f"out {line}" for line in file.body.decode().splitlines())]) + "\n```"


def _sink(name: str) -> Iterator[str]:
    options = {
        "url": "s3://lake/flights/" if name == "s3" else "file:lake",
        "format": "ndjson",
        "compression": "none",
        "partition_by": ["carrier"],
    }
    written = yaml.safe_dump([{name: options}], sort_keys=False)
    yield f"```yaml sink\n{written}```"
    frame = rows(SINK_ROWS)
    encoded = ObjectsSink(ObjectsSinkConfig.model_validate(options | {"lineage": False})).encode(frame, "shardId-000000000000-0-42")
    lines = [f"in  {_json(row)}" for row in frame.drop(SYSTEM).to_dicts()]
    lines += [f"file {file.key}: {file.body.decode().strip()}" for file in encoded.files]
    yield "Without its lineage columns, for the unit `shardId-000000000000-0-42`:"
    yield "```text\n" + "\n".join(lines) + "\n```"
