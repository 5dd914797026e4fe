import base64
from datetime import UTC, datetime

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Fd
from pydantic import ValidationError

from stream.transform.decoders.protobuf import Protobuf
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.types import parse_schema
from tests.frames import batch, ticks


def described():
    """flights.proto and what it imports, as protoc would describe them."""
    stamp = descriptor_pb2.FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(stamp)
    file = descriptor_pb2.FileDescriptorProto(name="flights.proto", package="f", syntax="proto3", dependency=[stamp.name])
    kind = file.enum_type.add(name="Kind")
    kind.value.add(name="UNKNOWN", number=0)
    kind.value.add(name="JET", number=1)
    plane = file.message_type.add(name="Plane")
    plane.field.add(name="tail", number=1, type=Fd.TYPE_STRING, label=Fd.LABEL_OPTIONAL)
    plane.field.add(name="seats", number=2, type=Fd.TYPE_UINT32, label=Fd.LABEL_REPEATED)
    flight = file.message_type.add(name="Flight")
    entry = flight.nested_type.add(name="TagsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=Fd.TYPE_STRING, label=Fd.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=Fd.TYPE_INT32, label=Fd.LABEL_OPTIONAL)
    flight.oneof_decl.add(name="_gate")
    flight.field.add(name="number", number=1, type=Fd.TYPE_INT64, label=Fd.LABEL_OPTIONAL)
    flight.field.add(name="gate", number=2, type=Fd.TYPE_STRING, label=Fd.LABEL_OPTIONAL, proto3_optional=True, oneof_index=0)
    flight.field.add(name="kind", number=3, type=Fd.TYPE_ENUM, type_name=".f.Kind", label=Fd.LABEL_OPTIONAL)
    flight.field.add(name="plane", number=4, type=Fd.TYPE_MESSAGE, type_name=".f.Plane", label=Fd.LABEL_OPTIONAL)
    flight.field.add(name="at", number=5, type=Fd.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=Fd.LABEL_OPTIONAL)
    flight.field.add(name="tags", number=6, type=Fd.TYPE_MESSAGE, type_name=".f.Flight.TagsEntry", label=Fd.LABEL_REPEATED)
    flight.field.add(name="raw", number=7, type=Fd.TYPE_BYTES, label=Fd.LABEL_OPTIONAL)
    flight.field.add(name="share", number=8, type=Fd.TYPE_DOUBLE, label=Fd.LABEL_OPTIONAL)
    node = file.message_type.add(name="Node")
    node.field.add(name="next", number=1, type=Fd.TYPE_MESSAGE, type_name=".f.Node", label=Fd.LABEL_OPTIONAL)
    file.message_type.add(name="Nothing")
    return descriptor_pb2.FileDescriptorSet(file=[stamp, file])


SET = described()
TEXT = base64.b64encode(SET.SerializeToString()).decode()


def flight(**fields):
    pool = descriptor_pool.DescriptorPool()
    for file in SET.file:
        pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("f.Flight"))
    return message(**fields)


def run(*records, resources=None, **options):
    decoder = Protobuf.model_validate({"message": "f.Flight", **(options or {"descriptors": TEXT})})
    return compile_chain(decoder, None, [], resources or Resources(), ticks()).run(batch(records), "s")


def test_every_kind_of_field_becomes_a_column():
    message = flight(
        number=7,
        gate="",
        kind=1,
        plane={"tail": "N1", "seats": [1, 2]},
        at={"seconds": 1357020000, "nanos": 5000},
        tags={"z": 1, "a": -2},
        raw=b"\xff",
        share=0.5,
    )
    (row,) = run(message.SerializeToString()).frame.drop("_shard", "_sequence", "_subsequence", "_arrival", "_row").to_dicts()
    assert row == {
        "number": 7,
        "gate": "",
        "kind": "JET",
        "plane": {"tail": "N1", "seats": [1, 2]},
        "at": datetime(2013, 1, 1, 6, 0, 0, 5, tzinfo=UTC),
        "tags": [{"key": "a", "value": -2}, {"key": "z", "value": 1}],
        "raw": b"\xff",
        "share": 0.5,
    }


def test_an_unset_field_is_null_or_its_default():
    (row,) = run(flight(kind=99).SerializeToString()).frame.select("number", "gate", "kind", "plane", "at", "tags").to_dicts()
    assert row == {"number": 0, "gate": None, "kind": "99", "plane": None, "at": None, "tags": []}


def test_invalid_messages_are_rejected_one_by_one():
    good = flight(number=7, plane={"tail": "N1"}).SerializeToString()
    late = flight(at={"seconds": 10**12}).SerializeToString()
    got = run(good, good[:-1], b"\xff\xff", b"\x12\x01\xff", late, good)
    assert got.frame["_row"].to_list() == [0, 5]
    assert set(got.settled["reason"]) == {"protobuf_message"}


def test_the_descriptor_set_can_be_a_file():
    got = run(flight(number=3).SerializeToString(), resources=Resources(files={"f.desc": SET.SerializeToString()}), descriptor_set="f.desc")
    assert got.frame["number"].to_list() == [3]
    with pytest.raises(SchemaMismatch, match="is not loaded"):
        run(descriptor_set="other.desc")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"message": "f.Fligt", "descriptors": TEXT}, "no message 'f.Fligt'"),
        ({"message": "f.Node", "descriptors": TEXT}, "contains itself"),
        ({"message": "f.Nothing", "descriptors": TEXT}, "has no fields"),
        ({"message": "f.Flight", "descriptors": "flights.desc"}, "this is not base64"),
        ({"message": "f.Flight", "descriptors": base64.b64encode(b"\xff\xff").decode()}, "cannot be read"),
    ],
)
def test_messages_without_a_column_form_are_refused(options, says):
    with pytest.raises(SchemaMismatch, match=says):
        Protobuf.model_validate(options).output(None)


def test_contradictory_options_are_refused():
    for options in ({"message": "m"}, {"message": "m", "descriptors": "x", "descriptor_set": "y"}, {"descriptors": "x"}):
        with pytest.raises(ValidationError):
            Protobuf.model_validate(options)
    with pytest.raises(SchemaMismatch, match="takes its columns"):
        Protobuf.model_validate({"message": "f.Flight", "descriptors": TEXT}).output(parse_schema({"a": "int64"}))
