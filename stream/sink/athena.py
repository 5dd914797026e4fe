"""The statement that creates an external table in Athena over the files of an ``s3`` sink. Pure.

Partitions are projected (Athena User Guide, "Partition projection"): Athena computes their folders from the query, so no partition has to
be registered, and files can be queried as soon as they are sealed. Folders outside the projection are not read; the notes say which these
may be. Athena matches the columns of Parquet files by name, ignoring case, and those of separated values by their position.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import polars as pl

from stream.batch import ARRIVAL, SUBSEQUENCE, type_name
from stream.sink.athena_formats import PLAIN, TEXT, Storage, avro_type, storage
from stream.sink.encode import Format
from stream.sink.objects import ObjectsSinkConfig
from stream.sink.partition import Entry, Folders, SinkMismatch, encode_value

_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,255}")
_TABLE: Final = re.compile(r"([a-z0-9_]{1,255})\.([a-z0-9_]{1,255})")
_PROPERTY: Final = re.compile(r"[^'\\;\n]+")
_STRFTIME: Final = re.compile(r"""\s*strftime\(\s*("?)([A-Za-z_][A-Za-z0-9_]*)\1\s*,\s*'((?:[^'])*)'\s*\)\s*""", re.IGNORECASE)
_PART: Final = re.compile(r"""\s*(year|month|day|hour|minute)\(\s*("?)([A-Za-z_][A-Za-z0-9_]*)\2\s*\)\s*""", re.IGNORECASE)

_TOKENS: Final = {"Y": "yyyy", "m": "MM", "d": "dd", "H": "HH", "M": "mm", "S": "ss"}
_UNITS: Final = {"Y": "YEARS", "Ym": "MONTHS", "Ymd": "DAYS", "YmdH": "HOURS", "YmdHM": "MINUTES", "YmdHMS": "SECONDS"}
_RANGES: Final = {"m": (1, 12), "d": (1, 31), "H": (0, 23), "M": (0, 59), "S": (0, 59)}
_PARTS: Final = {"month": "m", "day": "d", "hour": "H", "minute": "M"}
LAST_YEAR: Final = 2100


@dataclass(frozen=True, slots=True)
class Statement:
    """DDL, without a semicolon, and notes for the user."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Projection:
    """How Athena computes the folders of one partition column.

    ``properties``: by their names after ``projection.<column>.``; ``note``: which rows the projection misses.
    """

    type: str
    properties: Mapping[str, str]
    note: str = ""


def external_table(config: ObjectsSinkConfig, schema: pl.Schema, table: str, since: date) -> Statement:
    """``CREATE EXTERNAL TABLE`` for ``table`` (``database.table``) over the files that ``config`` writes for rows of ``schema``.

    ``since``: the first day of projected times.

    Raises:
        SinkMismatch: Athena does not allow a name or a type, or the files are not in S3.
    """
    named = _TABLE.fullmatch(table)
    if named is None:
        message = f"{table!r} is not an Athena table; write database.table with a-z, 0-9 and _"
        raise SinkMismatch((), message)
    if not config.url.startswith("s3://") or not _PROPERTY.fullmatch(config.url):
        message = (
            f"the sink {config.name} writes to {config.url}; Athena reads only s3:// locations, without quotes, semicolons and backslashes"
        )
        raise SinkMismatch(("url",), message)
    partitions = [_partition(entry) for entry in config.partition_by]
    folders = [name for name, _ in partitions]
    stored = storage(config, schema, [name for name in config.columns(schema) if name.lower() not in {each.lower() for each in folders}])
    columns, notes = _columns(config, schema, folders, stored)
    notes += stored.notes
    projected = [(name.lower(), _projection(expression, schema, since)) for name, expression in partitions]
    lines = [f"CREATE EXTERNAL TABLE IF NOT EXISTS `{named[1]}`.`{named[2]}` (", ",\n".join(f"  {each}" for each in columns), ")"]
    if projected:
        lines += ["PARTITIONED BY (", ",\n".join(f"  `{name}` {each.type}" for name, each in projected), ")"]
    root = config.url.removesuffix("/") + "/"
    lines += [*stored.lines, f"LOCATION '{root}'"]
    properties = dict(stored.properties)
    if projected:
        prefixes = {name: "" if config.folders is Folders.PLAIN else f"{encode_value(name)}=" for name, _ in partitions}
        template = "".join(f"{prefix}${{{name.lower()}}}/" for name, prefix in prefixes.items())
        properties |= {"projection.enabled": "true"}
        for name, each in projected:
            properties |= {f"projection.{name}.{key}": value for key, value in each.properties.items()}
        properties["storage.location.template"] = f"{root}{template}"
        notes += [f"partition `{name}`: {each.note}" for name, each in projected if each.note]
        notes.append("rows of a unit beyond `max_partitions`, or with too long paths, are under __overflow__, which is not projected")
    if properties:
        lines += ["TBLPROPERTIES (", ",\n".join(f"  '{key}' = {_text(value)}" for key, value in properties.items()), ")"]
    return Statement("\n".join(lines), tuple(notes))


def _columns(config: ObjectsSinkConfig, schema: pl.Schema, partitions: list[str], stored: Storage) -> tuple[list[str], list[str]]:
    """Definitions of the columns that are read from the files, not from folder names, and notes about them.

    Where columns go by their position, one that is read from a folder's name stands in the files under another name.
    """
    names_seen: dict[str, str] = {}
    for name in partitions:
        _check_name(name, names_seen)
    partition_names = set(names_seen)
    columns, notes = [], []
    for name in config.columns(schema):
        lower = name.lower()
        if lower in partition_names:
            if name not in partitions:
                message = f"the column '{name}' and the partition '{names_seen[lower]}' are one column to Athena, which ignores case"
                raise SinkMismatch((), message, "rename one of them")
            notes.append(f"column `{lower}` is read from the folder's name, as text, and not from the files")
            if stored.by_position:
                _check_name(f"{lower}_in_file", names_seen)
                columns.append(f"`{lower}_in_file` {_type(name, schema[name], stored)}")
            continue
        _check_name(name, names_seen)
        if name != lower:
            notes.append(f"column '{name}' is called `{lower}`: Athena ignores case")
        kind = _type(name, schema[name], stored)
        if schema[name].base_type() == pl.UInt64 and kind == "bigint":
            notes.append(f"column `{lower}` has unsigned integers: those from 2**63 on are read as negative numbers")
        if kind == TEXT and schema[name].is_temporal() and config.format is Format.NDJSON:
            notes.append(f"column `{lower}` is text, since JSON has no times: convert it with from_iso8601_timestamp({lower}), or a cast")
        comment = " COMMENT 'place inside of a KPL aggregate'" if name == SUBSEQUENCE else ""
        columns.append(f"`{lower}` {kind}{comment}")
    if not columns:
        raise SinkMismatch((), "no column is left in the files beside those of the folders", "let a column through, or switch lineage on")
    return columns, notes


def _text(value: str) -> str:
    """A string literal in Hive's syntax, which has no doubled quotes: they would end one literal and begin another."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def _check_name(name: str, names_seen: dict[str, str]) -> None:
    if not _NAME.fullmatch(name):
        message = f"the column name {name!r} is not allowed in Athena, where names have letters, digits and _"
        raise SinkMismatch((), message, "rename it in a stage, or in partition_by")
    other = names_seen.setdefault(name.lower(), name)
    if other != name:
        message = f"the columns '{other}' and '{name}' are one column to Athena, which ignores case"
        raise SinkMismatch((), message, "rename one of them in a stage")


def _type(name: str, dtype: pl.DataType, stored: Storage) -> str:
    if stored.types is None:
        return TEXT
    if isinstance(dtype, pl.Struct):
        fields: dict[str, str] = {}
        for field in dtype.fields:
            _check_name(field.name, fields)
        inside = ",".join(f"{field.name.lower()}:{_type(name, _instance(field.dtype), stored)}" for field in dtype.fields)
        if not inside:
            raise SinkMismatch((), f"column '{name}' holds an object without fields", "leave it out with `select`")
        return f"struct<{inside}>"
    if isinstance(dtype, pl.List | pl.Array):
        return f"array<{_type(name, _instance(dtype.inner), stored)}>"
    if isinstance(dtype, pl.Decimal) and pl.Decimal not in stored.types:
        return f"decimal({dtype.precision},{dtype.scale})"
    if isinstance(dtype, pl.Datetime) and stored.types[pl.Datetime] == "bigint":
        return avro_type(dtype)
    found = stored.types.get(dtype.base_type()) or PLAIN.get(dtype.base_type())
    if found is None:
        message = f"column '{name}' has or holds the type {type_name(dtype)}, which external tables of Athena do not have"
        raise SinkMismatch((), message, "cast it to text in a stage, or leave it out with `select`")
    return found


def _partition(entry: Entry) -> tuple[str, str]:
    """Name and expression of a partition column."""
    return (entry, entry) if isinstance(entry, str) else next(iter(entry.items()))


def _projection(expression: str, schema: pl.Schema, since: date) -> Projection:
    text = _STRFTIME.fullmatch(expression)
    if text is not None:
        return _time_projection(text[3], _not_read(text[2]), since)
    part = _PART.fullmatch(expression)
    if part is not None:
        what = part[1].lower()
        if what == "year":
            return _number_projection(since.year, LAST_YEAR, 0, _not_read(part[3]))
        return _number_projection(*_RANGES[_PARTS[what]], 0, _not_read(part[3]))
    dtype = schema.get(expression)
    if dtype == pl.Date:
        return _time_projection("%Y-%m-%d", _not_read(expression), since)
    if dtype == pl.Boolean:
        return Projection("string", {"type": "enum", "values": "true,false"}, _not_read(expression))
    note = "a query must say which values it wants (`=` or IN), as the folder's name has them: what is no letter, digit, ., _ or - as %XX"
    return Projection("string", {"type": "injected"}, note)


def _time_projection(time_format: str, note: str, since: date) -> Projection:
    """The projection of times formatted by ``strftime``. If text order is not time order, queries have to name the values."""
    pieces = re.split(r"%(.)", time_format.replace("%F", "%Y-%m-%d"))
    tokens = "".join(pieces[1::2])
    literals = [encode_value(each) if each and each not in {".", ".."} and not each.startswith("__") else each for each in pieces[::2]]
    if tokens in _RANGES and not any(literals):
        return _number_projection(*_RANGES[tokens], 2, note)
    unit = _UNITS.get(tokens)
    if unit is None or any("__" in each for each in literals) or time_format.startswith("."):
        return _projection("", pl.Schema(), since)
    pattern = literals[0] and _quoted(literals[0])
    for token, literal in zip(tokens, literals[1:], strict=True):
        pattern += _TOKENS[token] + _quoted(literal)
    begin = "".join(_begin(token, since) + literal for token, literal in zip(tokens, literals[1:], strict=True))
    properties = {
        "type": "date",
        "format": pattern,
        "range": f"{literals[0]}{begin},NOW",
        "interval": "1",
        "interval.unit": unit,
    }
    return Projection("string", properties, note)


def _begin(part: str, since: date) -> str:
    return since.strftime(f"%{part}") if part in "Ymd" else "00"


def _quoted(literal: str) -> str:
    """Literal text in a pattern of Java's DateTimeFormatter: letters and % are quoted."""
    return re.sub(r"[A-Za-z%][A-Za-z0-9%]*", lambda found: f"'{found[0]}'", literal)


def _number_projection(first: int, last: int, digits: int, note: str) -> Projection:
    properties = {"type": "integer", "range": f"{first},{last}"} | ({"digits": str(digits)} if digits else {})
    return Projection("string" if digits else "int", properties, note)


def _not_read(column: str) -> str:
    """The note on rows outside the projected folders; "" if every record has a value."""
    if column == ARRIVAL:
        return ""
    return f"rows without `{column}`, or with a time before the first one or after now, are in no projected folder and are not read"


def _instance(dtype: Any) -> pl.DataType:
    found: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return found
