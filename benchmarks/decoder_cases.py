"""Records with which each decoder is measured, and the loop that a program without this service would have."""

from __future__ import annotations

import base64
import io
import json
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fastavro
import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Fd

from stream.transform.types import RecordSchema, parse_schema


@dataclass(frozen=True, slots=True)
class Case:
    """A decoder with options and records; ``alone`` reads the same records into Python objects, with the library ``by``."""

    name: str
    decoder: str
    options: dict[str, Any]
    schema: RecordSchema | None
    made: Callable[[int], bytes]
    by: str = ""
    alone: Callable[[Sequence[bytes]], Any] | None = None
    rows: int = 1
    """Of each record."""


SCHEMA: Final = parse_schema(
    {"flight": "int64", "carrier": "string", "tailnum": "string?", "origin": "string", "dest": "string", "dep_delay": "float64?"}
    | {"distance": "int64", "time_hour": "timestamp(ms)", "cancelled": "bool", "note": "string"}
)


def flight(at: int) -> dict[str, Any]:
    """Ten fields, one of them null in every seventh record."""
    return {
        "flight": at,
        "carrier": ("UA", "AA", "B6", "DL")[at % 4],
        "tailnum": f"N{at % 5000:05d}" if at % 7 else None,
        "origin": ("EWR", "JFK", "LGA")[at % 3],
        "dest": "IAH",
        "dep_delay": at % 1000 / 7 - 20,
        "distance": at % 2586,
        "time_hour": 1_357_020_000_000 + at * 1000,
        "cancelled": at % 50 == 0,
        "note": f"gate B{at % 60}, boarding completed 12 minutes before departure",
    }


def nested(at: int) -> dict[str, Any]:
    """A value with a record, a list of records, a map, an enum and bytes."""
    legs = [{"dest": dest, "minutes": at % 90 + 60} for dest in ("IAH", "DEN", "SFO")[: at % 3 + 1]]
    return {
        "flight": at,
        "plane": {"tail": f"N{at % 5000:05d}", "seats": at % 300},
        "legs": legs,
        "tags": {"weather": "clear", "gate": f"B{at % 60}"},
        "kind": ("JET", "PROP")[at % 2],
        "raw": b"\x00\xff" * (at % 16),
    }


def record(name: str, *fields: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": field, "type": kind} for field, kind in fields]}


FLAT_AVRO: Final = record(
    "Flight",
    *(("flight", "long"), ("carrier", "string"), ("tailnum", ["null", "string"]), ("origin", "string"), ("dest", "string")),
    *(("dep_delay", ["null", "double"]), ("distance", "long"), ("time_hour", {"type": "long", "logicalType": "timestamp-millis"})),
    *(("cancelled", "boolean"), ("note", "string")),
)
NESTED_AVRO: Final = record(
    "Trip",
    ("flight", "long"),
    ("plane", record("Plane", ("tail", "string"), ("seats", "int"))),
    ("legs", {"type": "array", "items": record("Leg", ("dest", "string"), ("minutes", "int"))}),
    ("tags", {"type": "map", "values": "string"}),
    ("kind", {"type": "enum", "name": "Kind", "symbols": ["JET", "PROP"]}),
    ("raw", "bytes"),
)
VERSION: Final = uuid.UUID(int=1)


def written(schema: dict[str, Any], head: bytes = b"", packed: Callable[[bytes], bytes] = bytes) -> Callable[[dict[str, Any]], bytes]:
    parsed = fastavro.parse_schema(schema)

    def one(datum: dict[str, Any]) -> bytes:
        target = io.BytesIO()
        fastavro.schemaless_writer(target, parsed, datum)
        return head + packed(target.getvalue())

    return one


def avro_cases() -> list[Case]:
    def loop(schema: dict[str, Any]) -> Callable[[Sequence[bytes]], Any]:
        parsed = fastavro.parse_schema(schema)
        return lambda records: [fastavro.schemaless_reader(io.BytesIO(each), parsed, None) for each in records]

    fewer = {**FLAT_AVRO, "fields": [each for each in FLAT_AVRO["fields"] if each["name"] != "tailnum"]}
    newer = {**FLAT_AVRO, "fields": [{**each, **({"default": None} if each["name"] == "tailnum" else {})} for each in FLAT_AVRO["fields"]]}
    glue = {"schema": json.dumps(newer), "header": "glue", "writers": {str(VERSION): json.dumps(fewer)}}
    made = {"flat": written(FLAT_AVRO), "nested": written(NESTED_AVRO), "older": written(fewer, b"\x03\x00" + VERSION.bytes)}
    squeezed = written(fewer, b"\x03\x05" + VERSION.bytes, zlib.compress)
    flat = ("`avro`, flat", "avro", {"schema": json.dumps(FLAT_AVRO)}, None, lambda at: made["flat"](flight(at)))
    deep = ("`avro`, nested", "avro", {"schema": json.dumps(NESTED_AVRO)}, None, lambda at: made["nested"](nested(at)))
    return [
        Case(*flat, "fastavro", loop(FLAT_AVRO)),
        Case(*deep, "fastavro", loop(NESTED_AVRO)),
        Case("`avro`, flat, an older version in a Glue header", "avro", glue, None, lambda at: made["older"](flight(at))),
        Case("`avro`, the same with zlib", "avro", glue, None, lambda at: squeezed(flight(at))),
    ]


def described() -> descriptor_pb2.FileDescriptorSet:
    """The two records as messages."""
    stamp = descriptor_pb2.FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(stamp)
    file = descriptor_pb2.FileDescriptorProto(name="b.proto", package="b", syntax="proto3", dependency=[stamp.name])
    kind = file.enum_type.add(name="Kind")
    for number, name in enumerate(("JET", "PROP")):
        kind.value.add(name=name, number=number)
    flat = {"flight": Fd.TYPE_INT64, "carrier": Fd.TYPE_STRING, "tailnum": Fd.TYPE_STRING, "origin": Fd.TYPE_STRING, "dest": Fd.TYPE_STRING}
    flat |= {"dep_delay": Fd.TYPE_DOUBLE, "distance": Fd.TYPE_INT64, "time_hour": ".google.protobuf.Timestamp", "cancelled": Fd.TYPE_BOOL}
    add_message(file, "Flight", flat | {"note": Fd.TYPE_STRING})
    add_message(file, "Plane", {"tail": Fd.TYPE_STRING, "seats": Fd.TYPE_INT32})
    add_message(file, "Leg", {"dest": Fd.TYPE_STRING, "minutes": Fd.TYPE_INT32})
    trip = add_message(file, "Trip", {"flight": Fd.TYPE_INT64, "plane": ".b.Plane", "legs": ".b.Leg", "tags": ".b.Trip.TagsEntry"})
    trip.field.add(name="kind", number=5, type=Fd.TYPE_ENUM, type_name=".b.Kind", label=Fd.LABEL_OPTIONAL)
    trip.field.add(name="raw", number=6, type=Fd.TYPE_BYTES, label=Fd.LABEL_OPTIONAL)
    trip.field[2].label = trip.field[3].label = Fd.LABEL_REPEATED
    entry = trip.nested_type.add(name="TagsEntry")
    entry.options.map_entry = True
    for number, name in enumerate(("key", "value"), 1):
        entry.field.add(name=name, number=number, type=Fd.TYPE_STRING, label=Fd.LABEL_OPTIONAL)
    return descriptor_pb2.FileDescriptorSet(file=[stamp, file])


def add_message(file: descriptor_pb2.FileDescriptorProto, name: str, fields: dict[str, Any]) -> descriptor_pb2.DescriptorProto:
    message = file.message_type.add(name=name)
    for number, (field, kind) in enumerate(fields.items(), 1):
        named = {"type": Fd.TYPE_MESSAGE, "type_name": kind} if isinstance(kind, str) else {"type": kind}
        message.field.add(name=field, number=number, label=Fd.LABEL_OPTIONAL, **named)
    return message


def protobuf_cases() -> list[Case]:
    files, pool = described(), descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    text = base64.b64encode(files.SerializeToString()).decode()
    kinds = {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"b.{name}")) for name in ("Flight", "Trip")}

    def flat(at: int) -> bytes:
        given = flight(at)
        given["time_hour"] = {"seconds": given["time_hour"] // 1000}
        data: bytes = kinds["Flight"](**given).SerializeToString()
        return data

    def deep(at: int) -> bytes:
        data: bytes = kinds["Trip"](**nested(at)).SerializeToString()
        return data

    def loop(name: str) -> Callable[[Sequence[bytes]], Any]:
        parse, names = kinds[name].FromString, [field.name for field in kinds[name].DESCRIPTOR.fields]

        def read(data: bytes) -> dict[str, Any]:
            message = parse(data)
            return {field: getattr(message, field) for field in names}

        return lambda records: [read(each) for each in records]

    options = [{"message": f"b.{name}", "descriptors": text} for name in kinds]
    return [
        Case("`protobuf`, flat", "protobuf", options[0], None, flat, "google.protobuf", loop("Flight")),
        Case("`protobuf`, nested", "protobuf", options[1], None, deep, "google.protobuf", loop("Trip")),
    ]


def cases() -> list[Case]:
    """Every case, in the order of the table."""
    decode = msgspec.json.Decoder(type=dict[str, Any]).decode
    flat = Case(
        "`json`, flat", "json", {}, SCHEMA, lambda at: json.dumps(flight(at)).encode(), "msgspec", lambda all_: [*map(decode, all_)]
    )
    return [flat, *avro_cases(), *protobuf_cases(), Case("`raw`", "raw", {}, None, lambda at: json.dumps(flight(at)).encode())]
