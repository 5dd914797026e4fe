"""One Avro datum per record, with or without the header of a schema registry."""

from __future__ import annotations

import io
import json
import struct
import uuid
import zlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

import fastavro
import polars as pl
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType
from pydantic import Field, model_validator

from stream.batch import DATA
from stream.transform.decode import DecoderConfig
from stream.transform.decoders.avro_plan import avro_reader
from stream.transform.decoders.avro_types import check_schema, columns_of, for_reading, to_polars, with_read_defaults
from stream.transform.decoders.json_rows import EMPTY
from stream.transform.decoders.kernel_columns import by_kernel
from stream.transform.decoders.nested import rejected
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch
from stream.transform.types import RESERVED, SYSTEM, RecordSchema

HEADER: Final = "avro_header"
UNKNOWN_SCHEMA: Final = "unknown_schema_version"
DATUM: Final = "avro_datum"
TRAILING: Final = "trailing_bytes"
TOO_LARGE: Final = "decompressed_too_large"

MAX_PLAIN: Final = 64 * 1024 * 1024
_GLUE: Final = struct.Struct(">BB16s")
_VERSION: Final = 3
_UNREADABLE: Final = (
    SchemaResolutionError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    StopIteration,
    ArithmeticError,
    struct.error,
)
"""What fastavro raises for bytes that are not a datum of the schema. (UnicodeDecodeError is a ValueError.)"""


class Header(StrEnum):
    """What precedes the datum."""

    NONE = "none"
    GLUE = "glue"


class _BadRecordError(Exception):
    """The record cannot be read; the argument is the reason."""


class Avro(DecoderConfig):
    """Read each record as one Avro datum of a record schema; its fields are the columns.

    With `header: glue` each record begins as the Glue Schema Registry writes it: version 3, compression (0 none, 5 zlib) and the UUID of
    the writer's schema version, whose schema is found under `versions`; fields are then resolved to those of `schema`. Logical types
    other than date, decimal, uuid (of a string), timestamp-millis and timestamp-micros are read as their underlying numbers or bytes.
    Reasons: ``empty_record``, ``avro_header``, ``unknown_schema_version``, ``bad_compression``, ``decompressed_too_large``,
    ``avro_datum``, ``trailing_bytes``.
    """

    name: ClassVar[str] = "avro"
    window_bytes: ClassVar[int | None] = 1024 * 1024
    example: ClassVar[Example] = Example(
        config={
            "schema": '{"type": "record", "name": "r", "fields": ['
            '{"name": "a", "type": "long"}, {"name": "b", "type": ["null", "string"]}]}'
        },
        given=[{"_data": b"\x02\x02\x02x"}, {"_data": b"\x04\x00"}],
        expect=[{"a": 1, "b": "x"}, {"a": 2, "b": None}],
    )

    reader: str | None = Field(default=None, alias="schema", description="Schema of the columns, as JSON text.")
    schema_file: str | None = Field(default=None, min_length=1, description="File with that schema (.avsc), instead of `schema`.")
    header: Header = Field(default=Header.NONE, description="What precedes the datum: `none`, or `glue` (Glue Schema Registry).")
    versions: Mapping[str, str] = Field(default={}, description="Files with writers' schemas by the UUID of their schema version.")
    writers: Mapping[str, str] = Field(default={}, description="The same with schemas as JSON text instead of files.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.reader is None) == (self.schema_file is None):
            msg = "avro needs exactly one of `schema` and `schema_file`"
            raise ValueError(msg)
        if (self.header is Header.GLUE) != bool(self.versions or self.writers):
            msg = "`header: glue` needs schema versions under `versions` or `writers`, which no other header accepts"
            raise ValueError(msg)
        for name in (*self.versions, *self.writers):
            try:
                uuid.UUID(name)
            except ValueError as error:
                msg = f"{name!r} is not the UUID of a schema version"
                raise ValueError(msg) from error
        return self

    def file_urls(self) -> tuple[str, ...]:
        """Files with schemas."""
        named = (self.schema_file,) if self.schema_file is not None else ()
        return tuple(dict.fromkeys((*named, *self.versions.values())))

    def resolved(self, resources: Resources) -> Self:
        """The decoder with all schemas as text."""
        reader = self.reader if self.schema_file is None else _file(self.schema_file, resources, "schema_file")
        versions = {name: _file(url, resources, "versions") for name, url in self.versions.items()}
        changed = {"reader": reader, "schema_file": None, "writers": {**self.writers, **versions}, "versions": {}}
        return self.model_copy(update=changed)

    def output(self, schema: RecordSchema | None) -> pl.Schema:
        """The fields of the Avro schema in its order."""
        if schema is not None:
            raise SchemaMismatch((), "decoder avro takes its columns from the Avro schema", "remove `schema` of the source")
        columns = columns_of(self._parsed(self.reader or "null", "schema"))
        for name in columns:
            if name in RESERVED:
                raise SchemaMismatch(("schema",), f"field {name!r} is reserved for the service", "rename it by an alias in the schema")
        return pl.Schema(columns)

    def _parsed(self, text: str, option: str, reader: Any = None) -> Any:
        try:
            plain = json.loads(text)
            parsed = fastavro.parse_schema(plain)
        except json.JSONDecodeError as error:
            hint = "`schema` is the schema itself, as JSON text; `schema_file` names a file that has it"
            raise SchemaMismatch((option,), f"the Avro schema is not JSON: {error}", hint) from error
        except (ValueError, SchemaParseException, UnknownType, KeyError, TypeError, RecursionError) as error:
            raise SchemaMismatch(
                (option,), f"the Avro schema cannot be read: {type(error).__name__}: {error}", "see avro.apache.org"
            ) from error
        check_schema(parsed, (option,))
        try:
            return with_read_defaults(fastavro.parse_schema(for_reading(plain, reader)))
        except (ValueError, OverflowError, TypeError, AttributeError) as error:
            raise SchemaMismatch(
                (option,), f"a default of the Avro schema does not fit its type: {error}", "see avro.apache.org"
            ) from error

    def bind(self, schema: RecordSchema | None) -> BoundStage:
        """A function that reads one datum after the other and builds all columns at once."""
        declared = self.output(schema)
        reader = self._parsed(self.reader or "null", "schema")
        writers = {uuid.UUID(name).bytes: self._parsed(text, "writers", reader) for name, text in self.writers.items()}

        def decode(frame: pl.DataFrame) -> Applied:
            reasons: dict[int, str] = {}
            good: list[int] = []
            rows: list[dict[str, Any]] = []
            for at, record in enumerate(frame[DATA].to_list()):
                try:
                    row = self._datum(record, reader, writers)
                    rows.append({name: to_polars(row.get(name), kind) for name, kind in declared.items()})
                except _BadRecordError as error:
                    reasons[at] = str(error)
                    continue
                except _UNREADABLE:
                    reasons[at] = DATUM
                    continue
                good.append(at)
            columns = pl.DataFrame(rows, schema=declared) if rows else declared.to_frame()
            return Applied(pl.concat([frame.select(SYSTEM)[good], columns], how="horizontal"), rejected(frame, reasons))

        heads = {_GLUE.pack(_VERSION, 0, name): writer for name, writer in writers.items()}
        quick = avro_reader(declared, reader, {b"": reader} if self.header is Header.NONE else heads)
        return decode if quick is None else by_kernel(quick, decode, None if self.header is Header.NONE else _opened)

    def _datum(self, record: bytes, reader: Any, writers: Mapping[bytes, Any]) -> dict[str, Any]:
        if not record:
            raise _BadRecordError(EMPTY)
        writer, body = (reader, record) if self.header is Header.NONE else _unwrap(record, writers)
        source = io.BytesIO(body)
        datum = fastavro.schemaless_reader(source, writer, None if writer is reader else reader)
        if source.tell() != len(body):
            raise _BadRecordError(TRAILING)
        if not isinstance(datum, dict):
            raise _BadRecordError(DATUM)
        return datum


def _unwrap(record: bytes, writers: Mapping[bytes, Any]) -> tuple[Any, bytes]:
    """Header of the Glue Schema Registry: https://github.com/awslabs/aws-glue-schema-registry."""
    if len(record) < _GLUE.size:
        raise _BadRecordError(HEADER)
    version, compression, name = _GLUE.unpack_from(record)
    if version != _VERSION or compression not in {0, 5}:
        raise _BadRecordError(HEADER)
    if name not in writers:
        raise _BadRecordError(UNKNOWN_SCHEMA)
    body = record[_GLUE.size :]
    if compression == 5:
        body = _inflate(body)
    return writers[name], body


def _opened(records: pl.Series) -> pl.Series:
    """The records with decompressed bodies, up to ``MAX_PLAIN`` bytes in total. Further records, and bad ones, stay as they are."""
    squeezed = records.bin.starts_with(bytes([_VERSION, 5])).arg_true()
    if squeezed.is_empty():
        return records
    made, size = records.to_list(), 0
    for at in squeezed.to_list():
        try:
            body = _inflate(made[at][_GLUE.size :])
        except _BadRecordError:
            continue
        size += len(body)
        if size > MAX_PLAIN:
            break
        made[at] = b"%c\x00%b%b" % (_VERSION, made[at][2 : _GLUE.size], body)
    return pl.Series(records.name, made, pl.Binary())


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(body, MAX_PLAIN)
    except zlib.error as error:
        reason = "bad_compression"
        raise _BadRecordError(reason) from error
    if inflater.unconsumed_tail:
        raise _BadRecordError(TOO_LARGE)
    if not inflater.eof or inflater.unused_data:
        reason = "bad_compression"
        raise _BadRecordError(reason)
    return plain


def _file(url: str, resources: Resources, option: str) -> str:
    if url not in resources.files:
        raise SchemaMismatch((option,), f"file {url!r} is not loaded", "check that it exists")
    try:
        return resources.files[url].decode("utf-8")
    except UnicodeDecodeError as error:
        raise SchemaMismatch((option,), f"file {url!r} is not UTF-8 text", "a schema file contains JSON") from error
