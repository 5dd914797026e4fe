"""The schema language: parses ``name: type`` as users write it, and maps each type to Polars and to Arrow's JSON reader.

    string  bool  int8..int64  uint8..uint64  float32  float64  date  binary  json
    timestamp               ISO-8601 text; without a zone it is UTC
    timestamp(s|ms|us)      a whole number since 1970-01-01T00:00:00Z
    decimal(p,s)            p digits in all, s of them after the point
    list<T>   object{name: T, ...}

A trailing ``?`` means that the value may be null or absent. Timestamps are in UTC, in microseconds. In JSON, ``binary`` is base64 text.
``json`` keeps any JSON value as its text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, NoReturn

import polars as pl
import pyarrow as pa

from stream.batch import ARRIVAL, DATA, LINEAGE, OUTCOME, PARTITION_KEY, ROW
from stream.recorded import is_recorded
from stream.transform.stage import SchemaMismatch

SYSTEM: Final = (*LINEAGE, ROW)
"""Columns that every frame inside the engine carries in front of the user's; stages read them and never write them."""

RESERVED: Final = frozenset({*SYSTEM, PARTITION_KEY, DATA, OUTCOME})
"""Names that no user column may have."""

SYSTEM_SCHEMA: Final = pl.Schema(
    {
        LINEAGE[0]: pl.String(),
        LINEAGE[1]: pl.String(),
        LINEAGE[2]: pl.UInt32(),
        ARRIVAL: pl.Datetime("ms", "UTC"),
        ROW: pl.UInt32(),
    }
)
"""Types of ``SYSTEM``, in that order."""

TIMESTAMP: Final = pl.Datetime("us", "UTC")


class Kind(StrEnum):
    """How a value is read; several types may share one."""

    PLAIN = "plain"
    FLOAT32 = "float32"
    TIMESTAMP = "timestamp"
    EPOCH = "epoch"
    DATE = "date"
    BINARY = "binary"
    DECIMAL = "decimal"
    JSON = "json"
    LIST = "list"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class Type:
    """One parsed type.

    ``polars``: the type that stages see. ``wire``: the type that Arrow's JSON reader is asked for, which is text where the value needs a
    second step. ``unit``: microseconds per tick of an epoch. ``item``: of lists; ``fields``: of objects.
    """

    text: str
    kind: Kind
    polars: pl.DataType
    wire: pa.DataType
    nullable: bool = False
    unit: int = 1
    item: Type | None = None
    fields: tuple[tuple[str, Type], ...] = ()

    @property
    def converts(self) -> bool:
        """Whether ``wire``, or a type nested in it, needs a second step to become ``polars``."""
        if self.kind is Kind.LIST and self.item is not None:
            return self.item.converts
        if self.kind is Kind.OBJECT:
            return any(inner.converts for _, inner in self.fields)
        return self.kind is not Kind.PLAIN


@dataclass(frozen=True, slots=True)
class RecordSchema:
    """The columns of one record, in the order written."""

    fields: tuple[tuple[str, Type], ...]

    def polars(self) -> pl.Schema:
        """Column names and Polars types."""
        return pl.Schema({name: kind.polars for name, kind in self.fields})

    def __iter__(self) -> Iterator[tuple[str, Type]]:
        return iter(self.fields)


_PLAIN: Final[dict[str, tuple[pl.DataType, pa.DataType]]] = {
    "string": (pl.String(), pa.string()),
    "bool": (pl.Boolean(), pa.bool_()),
    "int8": (pl.Int8(), pa.int8()),
    "int16": (pl.Int16(), pa.int16()),
    "int32": (pl.Int32(), pa.int32()),
    "int64": (pl.Int64(), pa.int64()),
    "uint8": (pl.UInt8(), pa.uint8()),
    "uint16": (pl.UInt16(), pa.uint16()),
    "uint32": (pl.UInt32(), pa.uint32()),
    "uint64": (pl.UInt64(), pa.uint64()),
    "float64": (pl.Float64(), pa.float64()),
}
_SECOND_STEP: Final[dict[str, tuple[Kind, pl.DataType, pa.DataType]]] = {
    "float32": (Kind.FLOAT32, pl.Float32(), pa.float64()),
    "date": (Kind.DATE, pl.Date(), pa.string()),
    "binary": (Kind.BINARY, pl.Binary(), pa.string()),
    "json": (Kind.JSON, pl.String(), pa.string()),
}
NAMES: Final = (*_PLAIN, *_SECOND_STEP, "timestamp", "decimal", "list", "object")
"""Every word that can begin a type."""

ALIASES: Final = {
    "str": "string", "text": "string", "varchar": "string", "int": "int64", "integer": "int64", "bigint": "int64", "long":
    "int64", "float": "float64", "double": "float64", "real": "float32", "number": "float64", "boolean": "bool", "datetime":
    "timestamp", "bytes": "binary", "array": "list", "struct": "object", "map": "object", "numeric": "decimal",
    "timestamptz": "timestamp", "timestamp_s": "timestamp(s)", "timestamp_ms": "timestamp(ms)", "timestamp_us": "timestamp(us)",
    "epoch": "timestamp(s)", "epoch_ms": "timestamp(ms)", "epoch_millis": "timestamp(ms)", "unixtime": "timestamp(s)",
}  # fmt: skip
"""Names of types in other systems, and their names here. They are used in hints only, so that each type has one name."""

_UNITS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
MAX_NESTING: Final = 32
_ESCAPED: Final = re.compile(r'["\\\x00-\x1f]')


class _Parser:
    """Recursive descent over the text of one type."""

    def __init__(self, text: str, path: tuple[str | int, ...]) -> None:
        self.text = text
        self.path = path
        self.at = 0

    def whole(self) -> Type:
        parsed = self.type(0)
        if self.peek():
            self.fail(f"unexpected {self.text[self.at :]!r} after {self.text[: self.at].strip()!r}")
        return parsed

    def fail(self, problem: str, hint: str = "", at: int | None = None) -> NoReturn:
        where = self.at if at is None else at
        raise SchemaMismatch(self.path, f"type {self.text!r}, character {where + 1}: {problem}", hint)

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def expect(self, mark: str, where: str) -> None:
        found = self.peek()
        if found != mark:
            self.fail(f"expected {mark!r} {where}, found {found!r}" if found else f"expected {mark!r} {where}, found the end")
        self.at += 1

    def word(self, pattern: str, what: str) -> str:
        self.peek()
        match = re.compile(pattern).match(self.text, self.at)
        if match is None:
            self.fail(f"expected {what}, found {self.text[self.at :][:1]!r}" if self.text[self.at :] else f"expected {what}, found the end")
        self.at = match.end()
        return match.group()

    def type(self, depth: int) -> Type:
        if depth > MAX_NESTING:
            self.fail(f"more than {MAX_NESTING} types inside each other")
        self.peek()
        start = self.at
        name = self.word(r"[A-Za-z_][A-Za-z0-9_]*", "a type")
        parsed = self.named(name, start, depth)
        if self.peek() != "?":
            return parsed
        self.at += 1
        return _nullable(parsed)

    def named(self, name: str, start: int, depth: int) -> Type:
        if name in _PLAIN:
            return Type(name, Kind.PLAIN, *_PLAIN[name])
        if name in _SECOND_STEP:
            if name == "json" and depth:
                self.fail("json can only be the type of a whole column", "use string, list<...> or object{...} here", start)
            return Type(name, *_SECOND_STEP[name])
        compound = {"timestamp": self.timestamp, "decimal": self.decimal, "list": self.list, "object": self.object}
        if name not in compound:
            self.fail(f"unknown type {name!r}; known: {', '.join(NAMES)}", near(name.lower(), NAMES, ALIASES), start)
        return compound[name](depth)

    def list(self, depth: int) -> Type:
        self.expect("<", "after list")
        item = self.type(depth + 1)
        self.expect(">", "to close list")
        return _list_of(item)

    def timestamp(self, _depth: int) -> Type:
        if self.peek() != "(":
            return Type("timestamp", Kind.TIMESTAMP, TIMESTAMP, pa.string())
        self.at += 1
        start = self.at
        unit = self.word(r"[A-Za-z]+", "a unit (s, ms, us)")
        if unit not in _UNITS:
            self.fail(f"unknown unit {unit!r}; known: s, ms, us", at=start)
        self.expect(")", "after the unit")
        return Type(f"timestamp({unit})", Kind.EPOCH, TIMESTAMP, pa.int64(), unit=_UNITS[unit])

    def decimal(self, _depth: int) -> Type:
        self.expect("(", "after decimal, as in decimal(12,2)")
        start = self.at
        precision = int(self.word(r"[0-9]{1,3}", "the number of digits"))
        self.expect(",", "after the number of digits")
        scale = int(self.word(r"[0-9]{1,3}", "the number of digits after the point"))
        self.expect(")", "to close decimal")
        if not 1 <= precision <= 38 or scale > precision:
            self.fail(f"decimal({precision},{scale}) needs 1 <= digits <= 38 and digits after the point <= digits", at=start)
        return Type(f"decimal({precision},{scale})", Kind.DECIMAL, pl.Decimal(precision, scale), pa.decimal128(precision, scale))

    def object(self, depth: int) -> Type:
        self.expect("{", "after object")
        fields: dict[str, Type] = {}
        while True:
            self.peek()
            start = self.at
            name = self.word(r"[^\s:,{}<>?]+", "a field name")
            _refuse_unreadable(name, self.path)
            if name in fields:
                self.fail(f"the object has two fields {name!r}", at=start)
            self.expect(":", f"after the field name {name!r}")
            fields[name] = self.type(depth + 1)
            if self.peek() != ",":
                break
            self.at += 1
        self.expect("}", "to close object")
        return _object_of(tuple(fields.items()))


def _nullable(parsed: Type) -> Type:
    return parsed if parsed.nullable else replace(parsed, text=parsed.text + "?", nullable=True)


def _list_of(item: Type) -> Type:
    return Type(f"list<{item.text}>", Kind.LIST, pl.List(item.polars), pa.list_(item.wire), item=item)


def _object_of(fields: tuple[tuple[str, Type], ...]) -> Type:
    text = ", ".join(f"{name}: {inner.text}" for name, inner in fields)
    polars = pl.Struct([pl.Field(name, inner.polars) for name, inner in fields])
    wire = pa.struct([pa.field(name, inner.wire) for name, inner in fields])
    return Type(f"object{{{text}}}", Kind.OBJECT, polars, wire, fields=fields)


def refuse_pattern(name: str, path: tuple[str | int, ...]) -> None:
    """Refuse a name that does not select a single column.

    Raises:
        SchemaMismatch: Polars takes ``name`` for a pattern of several columns.
    """
    if not is_recorded() and (name == "*" or (name.startswith("^") and name.endswith("$"))):
        raise SchemaMismatch(
            path, f"Polars takes the name {name!r} for a pattern that matches several columns", "give the column another name"
        )


def _refuse_unreadable(name: str, path: tuple[str | int, ...]) -> None:
    """As ``refuse_pattern``; also refuses names that the JSON readers cannot find."""
    refuse_pattern(name, path)
    if not is_recorded() and _ESCAPED.search(name):
        raise SchemaMismatch(
            path, f"the name {name!r} contains a quote, a backslash or a control character", "give the column another name"
        )


def near(name: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """``did you mean ...?`` for a misspelt ``name``, or an empty text."""
    if aliases and name in aliases:
        return f"did you mean {aliases[name]!r}?"
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def parse_type(text: str, path: tuple[str | int, ...] = ()) -> Type:
    """Parse one type.

    Raises:
        SchemaMismatch: with ``path``; the message names the position inside the text, counted from 1.
    """
    return _Parser(text, path).whole()


def parse_schema(mapping: Mapping[str, Any], path: tuple[str | int, ...] = ()) -> RecordSchema:
    """Parse ``{column: type}``; a nested mapping is an object that must be present.

    Raises:
        SchemaMismatch: ``path`` plus the column; an unknown or malformed type, a reserved name, or no column at all.
    """
    if not mapping:
        raise SchemaMismatch(path, "a schema needs at least one column", "write one line per column, such as `carrier: string`")
    for name in mapping:
        if name in RESERVED:
            raise SchemaMismatch((*path, name), f"column {name!r} is reserved for the service", "give the column another name")
    return RecordSchema(tuple(_parse_fields(mapping, path, 0)))


def _parse_fields(mapping: Mapping[str, Any], path: tuple[str | int, ...], depth: int) -> Iterator[tuple[str, Type]]:
    for name, value in mapping.items():
        here = (*path, name)
        if not isinstance(name, str) or not name:
            raise SchemaMismatch(here, f"a column name must be text, got {name!r}", "put quotes around it")
        _refuse_unreadable(name, here)
        if isinstance(value, Mapping):
            if depth >= MAX_NESTING or not value:
                raise SchemaMismatch(here, f"an object needs 1 or more fields and at most {MAX_NESTING} levels", "")
            yield name, _object_of(tuple(_parse_fields(value, here, depth + 1)))
        elif isinstance(value, str):
            parser = _Parser(value, here)
            parsed = parser.whole()
            if depth and parsed.kind is Kind.JSON:
                raise SchemaMismatch(here, "json can only be the type of a whole column", "use string, list<...> or object{...} here")
            yield name, parsed
        else:
            one = value[0] if isinstance(value, list) and len(value) == 1 else None
            hint = f"write a list as `list<{one}>`" if isinstance(one, str) else f"known types: {', '.join(NAMES)}"
            raise SchemaMismatch(here, f"expected a type such as `int64?`, got {value!r}", hint)


def optional(schema: RecordSchema) -> RecordSchema:
    """``schema`` with every column nullable, for records that hold only some of the columns."""
    return RecordSchema(tuple((name, _nullable(kind)) for name, kind in schema))


def widened(schema: RecordSchema) -> RecordSchema:
    """``schema`` with every number type, also inside lists and objects, replaced by the widest one of its family.

    Integers become int64, except uint64, whose values int64 cannot hold; float32 becomes float64, and decimal(p,s) becomes decimal(38,s).
    """
    return RecordSchema(tuple((name, _widened(kind)) for name, kind in schema))


def _widened(kind: Type) -> Type:
    match kind.kind:
        case Kind.PLAIN if kind.polars.is_integer() and kind.polars != pl.UInt64():
            wide = parse_type("int64")
        case Kind.FLOAT32:
            wide = parse_type("float64")
        case Kind.DECIMAL:
            wide = parse_type(f"decimal(38,{kind.wire.scale})")
        case Kind.LIST if kind.item is not None:
            wide = _list_of(_widened(kind.item))
        case Kind.OBJECT:
            wide = _object_of(tuple((name, _widened(inner)) for name, inner in kind.fields))
        case _:
            return kind
    return _nullable(wide) if kind.nullable else wide
