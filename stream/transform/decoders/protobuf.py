"""One Protocol Buffers message per record, described by a descriptor set."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Self

import polars as pl
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from pydantic import Field, model_validator

from stream.batch import DATA
from stream.transform.decode import DecoderConfig
from stream.transform.decoders.kernel_columns import by_kernel
from stream.transform.decoders.nested import rejected
from stream.transform.decoders.protobuf_plan import TIMESTAMP_NAME, is_map, protobuf_reader
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch
from stream.transform.types import RESERVED, SYSTEM, TIMESTAMP, RecordSchema, near
from stream.transform.values import FIRST_US, LAST_US

MESSAGE: Final = "protobuf_message"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_DEPTH: Final = 32

_KINDS: Final[Mapping[int, pl.DataType]] = {
    FieldDescriptor.CPPTYPE_INT32: pl.Int32(),
    FieldDescriptor.CPPTYPE_INT64: pl.Int64(),
    FieldDescriptor.CPPTYPE_UINT32: pl.UInt32(),
    FieldDescriptor.CPPTYPE_UINT64: pl.UInt64(),
    FieldDescriptor.CPPTYPE_DOUBLE: pl.Float64(),
    FieldDescriptor.CPPTYPE_FLOAT: pl.Float32(),
    FieldDescriptor.CPPTYPE_BOOL: pl.Boolean(),
    FieldDescriptor.CPPTYPE_ENUM: pl.String(),
}

Taker = Callable[[Any], Any]


class _OutOfRangeError(ValueError):
    """A time before the year 1 or after the year 9999."""


class Protobuf(DecoderConfig):
    """Read each record as one message; its fields are the columns, in the order of their declaration.

    `protoc --include_imports --descriptor_set_out=flights.desc flights.proto` writes the descriptor set. If a field is not set, it has its
    default, or null if it tracks presence. An enum value is its name, or its number as text if it has none; a map is a list of key and
    value, sorted by key; `google.protobuf.Timestamp` is a timestamp. Unknown fields are ignored. The reason is ``protobuf_message``.
    """

    name: ClassVar[str] = "protobuf"
    window_bytes: ClassVar[int | None] = 1024 * 1024
    example: ClassVar[Example] = Example(
        config={
            "message": "ex.R",
            "descriptors": "CjAKB3IucHJvdG8SAmV4IhkKAVISCQoBYRgBIAEoAxIJCgFiGAIgASgJYgZwcm90bzM=",
        },
        given=[{"_data": b"\x08\x01\x12\x01x"}],
        expect=[{"a": 1, "b": "x"}],
    )

    message: str = Field(min_length=1, description="Full name of the message, such as `flights.v1.Flight`.")
    descriptor_set: str | None = Field(default=None, min_length=1, description="File with the descriptor set.")
    descriptors: str | None = Field(default=None, min_length=1, description="The descriptor set itself in base64, instead of a file.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.descriptor_set is None) == (self.descriptors is None):
            msg = "protobuf needs exactly one of `descriptor_set` and `descriptors`"
            raise ValueError(msg)
        return self

    def file_urls(self) -> tuple[str, ...]:
        """The descriptor set."""
        return () if self.descriptor_set is None else (self.descriptor_set,)

    def resolved(self, resources: Resources) -> Self:
        """The decoder with the descriptor set inside."""
        if self.descriptor_set is None:
            return self
        if self.descriptor_set not in resources.files:
            raise SchemaMismatch(("descriptor_set",), f"file {self.descriptor_set!r} is not loaded", "check that it exists")
        content = base64.b64encode(resources.files[self.descriptor_set]).decode()
        return self.model_copy(update={"descriptor_set": None, "descriptors": content})

    def output(self, schema: RecordSchema | None) -> pl.Schema:
        """The message's fields."""
        if schema is not None:
            raise SchemaMismatch((), "decoder protobuf takes its columns from the message", "remove `schema` of the source")
        columns = {field.name: _type(field, ()) for field in self._descriptor().fields}
        for name in columns:
            if name in RESERVED:
                raise SchemaMismatch(("message",), f"field {name!r} is reserved for the service", "rename the field")
        if not columns:
            raise SchemaMismatch(("message",), f"message {self.message!r} has no fields", "choose another message")
        return pl.Schema(columns)

    def _descriptor(self) -> Descriptor:
        option = "descriptors"
        pool, names = descriptor_pool.DescriptorPool(), []
        try:
            files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(self.descriptors or "", validate=True))
            for file in files.file:
                pool.Add(file)
                names += [f"{file.package}.{each.name}" if file.package else each.name for each in file.message_type]
        except binascii.Error as error:
            hint = "`descriptors` is the descriptor set itself, in base64; its file is named by `descriptor_set`"
            raise SchemaMismatch((option,), f"this is not base64: {error}", hint) from error
        except (DecodeError, TypeError, ValueError) as error:
            message = f"the descriptor set cannot be read: {error}"
            raise SchemaMismatch((option,), message, "write it with protoc --include_imports --descriptor_set_out") from error
        try:
            return pool.FindMessageTypeByName(self.message)
        except (KeyError, TypeError) as error:
            message = f"the descriptor set has no message {self.message!r}, or not all that it imports; it has: {', '.join(names)}"
            raise SchemaMismatch(("message",), message, near(self.message, names)) from error

    def bind(self, schema: RecordSchema | None) -> BoundStage:
        """A function that reads one message after the other and builds all columns at once."""
        declared = self.output(schema)
        descriptor = self._descriptor()
        parse: Callable[[bytes], Any] = message_factory.GetMessageClass(descriptor).FromString
        takers = [(field.name, _taker(field)) for field in descriptor.fields]

        def decode(frame: pl.DataFrame) -> Applied:
            reasons: dict[int, str] = {}
            good: list[int] = []
            rows: list[dict[str, Any]] = []
            for at, record in enumerate(frame[DATA].to_list()):
                try:
                    message = parse(record)
                    rows.append({name: take(message) for name, take in takers})
                except (DecodeError, _OutOfRangeError):
                    reasons[at] = MESSAGE
                    continue
                good.append(at)
            columns = pl.DataFrame(rows, schema=declared) if rows else declared.to_frame()
            return Applied(pl.concat([frame.select(SYSTEM)[good], columns], how="horizontal"), rejected(frame, reasons))

        quick = protobuf_reader(declared, descriptor)
        return decode if quick is None else by_kernel(quick, decode)


def _type(field: FieldDescriptor, above: tuple[str, ...]) -> pl.DataType:
    single = _single_type(field, above)
    return pl.List(single) if field.is_repeated else single


def _single_type(field: FieldDescriptor, above: tuple[str, ...]) -> pl.DataType:
    kind = field.message_type
    if kind is None:
        text = field.type == FieldDescriptor.TYPE_BYTES
        return _KINDS.get(field.cpp_type, pl.Binary() if text else pl.String())
    if kind.full_name == TIMESTAMP_NAME:
        return TIMESTAMP
    if kind.full_name in above or len(above) == MAX_DEPTH or not kind.fields:
        why = "has no fields" if not kind.fields else "contains itself"
        raise SchemaMismatch(
            ("message",), f"message {kind.full_name!r} {why}, so field {field.name!r} cannot be a column", "use another message"
        )
    return pl.Struct([pl.Field(inner.name, _type(inner, (*above, kind.full_name))) for inner in kind.fields])


def _taker(field: FieldDescriptor) -> Taker:
    """A function from a message to the field's value in the form that Polars takes."""
    name = field.name
    if is_map(field):
        value = _converter(field.message_type.fields_by_name["value"])
        return lambda message: [{"key": key, "value": value(each)} for key, each in sorted(getattr(message, name).items())]
    single = _converter(field)
    if field.is_repeated:
        return lambda message: [single(each) for each in getattr(message, name)]
    if field.has_presence:
        return lambda message: single(getattr(message, name)) if message.HasField(name) else None
    return lambda message: single(getattr(message, name))


def _converter(field: FieldDescriptor) -> Taker:
    kind = field.message_type
    if kind is not None and kind.full_name == TIMESTAMP_NAME:
        return _moment
    if kind is not None:
        takers = [(inner.name, _taker(inner)) for inner in kind.fields]
        return lambda message: {name: take(message) for name, take in takers}
    if field.enum_type is not None:
        names = {value.number: value.name for value in reversed(field.enum_type.values)}
        return lambda number: names.get(number, str(number))
    return lambda value: value


def _moment(message: Any) -> datetime:
    micros = message.seconds * 1_000_000 + message.nanos // 1000
    if not FIRST_US <= micros <= LAST_US:
        raise _OutOfRangeError
    return _EPOCH + timedelta(microseconds=micros)
