"""What an external table in Athena says about the format of its files, and which types its columns have. Pure.

Separated values that are quoted are read by the OpenCSVSerDe, which knows only text, does not allow line breaks in values, and takes a
backslash for an escape (Athena User Guide, "Open CSV SerDe"); those that are escaped, by the LazySimpleSerDe, which has types. Both go by
the order of the columns. The AvroSerDe reads by a schema, in which Hive knows times in milliseconds only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from stream.sink.avro import schema as avro_schema
from stream.sink.csv import SeparatedValues, Times
from stream.sink.encode import Format
from stream.sink.objects import ObjectsSinkConfig
from stream.sink.partition import SinkMismatch

TEXT: Final = "string"
PLAIN: Final[Mapping[Any, str]] = {
    pl.Boolean: "boolean",
    pl.Int8: "tinyint",
    pl.Int16: "smallint",
    pl.Int32: "int",
    pl.Int64: "bigint",
    pl.UInt8: "smallint",
    pl.UInt16: "int",
    pl.UInt32: "bigint",
    pl.Float32: "float",
    pl.Float64: "double",
    pl.String: TEXT,
    pl.Categorical: TEXT,
    pl.Enum: TEXT,
}
_IN_PARQUET: Final[Mapping[Any, str]] = {
    pl.UInt64: "bigint",
    pl.Int128: TEXT,
    pl.UInt128: TEXT,
    pl.Binary: "binary",
    pl.Date: "date",
    pl.Datetime: "timestamp",
    pl.Duration: "bigint",
}
"""In the files, 128-bit integers are text, and durations are integers in their time unit."""
_IN_JSON: Final[Mapping[Any, str]] = {
    pl.UInt64: "decimal(20,0)",
    pl.Int128: "decimal(38,0)",
    **dict.fromkeys((pl.Binary, pl.Date, pl.Datetime, pl.Duration, pl.Time, pl.Decimal, pl.Null), TEXT),
}
"""JSON has no such types; the files contain text."""
_IN_LINES: Final[Mapping[Any, str]] = {
    pl.UInt64: "decimal(20,0)",
    pl.Int128: "decimal(38,0)",
    pl.Date: "date",
    **dict.fromkeys((pl.UInt128, pl.Binary, pl.Datetime, pl.Duration, pl.Time, pl.Null), TEXT),
}
_IN_AVRO: Final[Mapping[Any, str]] = {
    **dict.fromkeys((pl.Int8, pl.Int16, pl.UInt8, pl.UInt16), "int"),
    pl.UInt64: "decimal(20,0)",
    pl.Binary: "binary",
    pl.Date: "date",
    pl.Datetime: "bigint",
    pl.Duration: "bigint",
    **dict.fromkeys((pl.Int128, pl.UInt128, pl.Time, pl.Null), TEXT),
}
_FOREIGN: Final = frozenset({"timestamp-micros", "timestamp-nanos"} | {f"local-timestamp-{unit}" for unit in ("millis", "micros", "nanos")})
"""Logical types that Hive does not know; it reads the numbers."""
_IN_A_SECOND: Final = {"ms": "1e3", "us": "1e6", "ns": "1e9"}


@dataclass(frozen=True, slots=True)
class Storage:
    """The part of the statement behind the columns, properties of the table, and notes for the user.

    ``types``: the types of columns, by those of Polars, before those of ``PLAIN``; None if all are text. ``by_position``: the table's
    columns are those of the files in their order, even those that are read from folder names.
    """

    lines: tuple[str, ...]
    types: Mapping[Any, str] | None
    properties: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    by_position: bool = False


def storage(config: ObjectsSinkConfig, schema: pl.Schema, columns: list[str]) -> Storage:
    """How the files of ``config`` are declared; ``columns``: those that the table has, of ``schema``.

    Raises:
        SinkMismatch: Athena cannot read such files.
    """
    match config.format:
        case Format.PARQUET:
            return Storage(("STORED AS PARQUET",), _IN_PARQUET)
        case Format.NDJSON:
            return Storage(("ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'", "STORED AS TEXTFILE"), _IN_JSON)
        case Format.CSV:
            return _separated(config.encoder.csv, has_text=any(schema[name].base_type() == pl.String for name in columns))
        case Format.AVRO:
            return _avro(pl.Schema({name: schema[name] for name in columns}))
    message = f"the sink {config.name} writes {config.format}, which Athena does not read"
    raise SinkMismatch(("format",), message, "write parquet for Athena")


def _separated(form: SeparatedValues, *, has_text: bool) -> Storage:
    if form.bom and not form.header:
        message = "the files begin with a byte order mark, which Athena would read as a part of the first value"
        raise SinkMismatch(("csv", "bom"), message, "switch `csv.bom` off, or `csv.header` on: that line is skipped")
    properties = {"skip.header.line.count": "1"} if form.header else {}
    breaks = ("a line break inside a text ends the row for Athena: take them out in a stage, or write parquet",) if has_text else ()
    if form.quote is None:
        delimited = (
            f"ROW FORMAT DELIMITED FIELDS TERMINATED BY {character(form.delimiter)} ESCAPED BY {character(form.escape or '')}",
            f"LINES TERMINATED BY '\\n' NULL DEFINED AS {character(form.null_text)}",
            "STORED AS TEXTFILE",
        )
        types = {**_IN_LINES, pl.Datetime: "timestamp" if form.times is Times.SQL else TEXT}
        return Storage(delimited, types, properties, breaks, by_position=True)
    marks = {"separatorChar": form.delimiter, "quoteChar": form.quote, "escapeChar": form.escape or "\\"}
    stated = ", ".join(f"'{name}' = {character(mark)}" for name, mark in marks.items())
    serde = (
        "ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde'",
        f"WITH SERDEPROPERTIES ({stated})",
        "STORED AS TEXTFILE",
    )
    shown = repr(form.null_text) if form.null_text else "empty text"
    notes = (f"every column is text, and null is {shown}: convert with try_cast(... AS ...)", *breaks)
    if form.escape is None and has_text:
        notes += ("Athena takes a backslash in a text for an escape and drops it: give the sink `csv: {escape: '\\'}`",)
    return Storage(serde, None, properties, notes, by_position=True)


def _avro(schema: pl.Schema) -> Storage:
    literal = json.dumps(_as_hive_reads(avro_schema(schema)), separators=(",", ":"))
    lines = (
        "ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.avro.AvroSerDe'",
        f"WITH SERDEPROPERTIES ('avro.schema.literal' = '{literal}')",
        "STORED AS AVRO",
    )
    return Storage(lines, _IN_AVRO, notes=tuple(_numbers(schema)))


def _numbers(schema: pl.Schema) -> Iterator[str]:
    for name, kind in schema.items():
        if isinstance(kind, pl.Datetime) and avro_type(kind) == "bigint":
            unit = _IN_A_SECOND[kind.time_unit]
            remedy = f"from_unixtime({name.lower()} / {unit})"
            yield f"column `{name.lower()}` is a number, since Hive does not know this type of Avro: convert it with {remedy}"


def avro_type(kind: pl.Datetime) -> str:
    """The type of a time in an Avro file."""
    return "timestamp" if kind.time_unit == "ms" and kind.time_zone else "bigint"


def _as_hive_reads(part: Any) -> Any:
    """A schema without the logical types that Hive does not know."""
    if isinstance(part, list):
        return [_as_hive_reads(each) for each in part]
    if not isinstance(part, dict):
        return part
    if part.get("logicalType") in _FOREIGN:
        return part["type"]
    return {key: _as_hive_reads(each) for key, each in part.items()}


def character(text: str) -> str:
    """A string literal in Hive's syntax, in which a backslash escapes."""
    escaped = text.replace("\\", "\\\\").replace("\t", "\\t")
    controls = "".join(f"\\{ord(each):03o}" if ord(each) < ord(" ") else each for each in escaped)
    return f'"{controls}"' if "'" in controls else f"'{controls}'"
