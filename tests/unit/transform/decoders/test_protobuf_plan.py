"""The compiled kernel reads messages as Google's library does: rows, order, reasons."""

import base64
import random

import polars as pl
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Fd
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream import native
from stream.transform.decoders.protobuf import Protobuf
from stream.transform.decoders.protobuf_plan import protobuf_reader
from tests.fuzz.decoders import mutated
from tests.kernel import compared, settled_alike
from tests.unit.transform.decoders.test_protobuf import TEXT, flight

INT32 = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-130, 130))
INT64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-130, 130))
UINT32 = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 130))
UINT64 = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 130))
WORDS = st.one_of(st.text(max_size=5), st.sampled_from(["x" * 12, "x" * 13, "ä" * 7, "😀" * 4, "\x00" * 14]))
KINDS = {
    Fd.TYPE_BOOL: st.booleans(), Fd.TYPE_INT32: INT32, Fd.TYPE_INT64: INT64, Fd.TYPE_UINT32: UINT32, Fd.TYPE_UINT64: UINT64,
    Fd.TYPE_SINT32: INT32, Fd.TYPE_SINT64: INT64, Fd.TYPE_FIXED32: UINT32, Fd.TYPE_FIXED64: UINT64, Fd.TYPE_SFIXED32: INT32,
    Fd.TYPE_SFIXED64: INT64, Fd.TYPE_FLOAT: st.floats(width=32), Fd.TYPE_DOUBLE: st.floats(), Fd.TYPE_STRING: WORDS,
    Fd.TYPE_BYTES: st.binary(max_size=20),
}  # fmt: skip
KEYS = [kind for kind in KINDS if kind not in {Fd.TYPE_FLOAT, Fd.TYPE_DOUBLE, Fd.TYPE_BYTES}]
STAMP = descriptor_pb2.FileDescriptorProto()
timestamp_pb2.DESCRIPTOR.CopyToProto(STAMP)
SECONDS = st.one_of(st.integers(0, 2**33), INT64, st.sampled_from([-62_135_596_800, -62_135_596_801, 253_402_300_799, 253_402_300_800]))
STAMPS = st.fixed_dictionaries({}, optional={"seconds": SECONDS, "nanos": st.one_of(st.integers(0, 999_999_999), INT32)})
NUMBERS = st.one_of(st.integers(1, 20), st.integers(1, 2**29 - 1).filter(lambda number: not 19_000 <= number < 20_000))


@st.composite
def messages(draw, file, depth=0):
    """The name of a message that is added to ``file``, and a strategy of what it may hold, as its constructor takes it."""
    name = f"M{len(file.message_type)}"
    message = file.message_type.add(name=name)
    data = {}
    numbers = draw(st.lists(NUMBERS, min_size=1, max_size=6, unique=True))
    for at, number in enumerate(numbers):
        made = message.field.add(name=f"f{at}", number=number, label=Fd.LABEL_OPTIONAL)
        values = draw(typed(file, made, depth))
        how = draw(st.integers(0, 9))
        if how <= 2:
            made.label = Fd.LABEL_REPEATED
            if made.type not in {Fd.TYPE_STRING, Fd.TYPE_BYTES, Fd.TYPE_MESSAGE}:
                made.options.packed = draw(st.booleans())
            values = st.lists(values, max_size=3)
        elif how == 3 and not (file.syntax == "proto2" and made.type_name == ".t.E2"):
            values = mapped(draw, message, made, values)
        elif how == 4:
            if not message.oneof_decl:
                message.oneof_decl.add(name="one")
            made.oneof_index = 0
        elif how == 5 and file.syntax == "proto2":
            made.label = Fd.LABEL_REQUIRED
        data[made.name] = values
    optional = [
        each for each in message.field if file.syntax == "proto3" and each.label == Fd.LABEL_OPTIONAL and not each.HasField("oneof_index")
    ]
    for made in draw(st.lists(st.sampled_from(optional), unique_by=id)) if optional else []:
        made.proto3_optional, made.oneof_index = True, len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{made.name}")
    return name, st.fixed_dictionaries({}, optional=data)


@st.composite
def typed(draw, file, made, depth):
    """Gives the field ``made`` a type, and a strategy of values."""
    pick = draw(st.integers(0, 9 if depth < 3 else 7))
    if pick <= 5:
        made.type = draw(st.sampled_from(list(KINDS)))
        return KINDS[made.type]
    if pick == 6:
        made.type, made.type_name = Fd.TYPE_MESSAGE, ".google.protobuf.Timestamp"
        return STAMPS
    if pick == 7:
        made.type, made.type_name = Fd.TYPE_ENUM, f".t.E{draw(st.integers(0, len(file.enum_type) - 1))}"
        numbers = [value.number for value in file.enum_type[int(made.type_name[4:])].value]
        return st.one_of(st.sampled_from(numbers), INT32 if file.syntax == "proto3" else st.nothing())
    made.type, (inner, values) = Fd.TYPE_MESSAGE, draw(messages(file, depth + 1))
    made.type_name = f".t.{inner}"
    return values


def mapped(draw, message, made, values):
    """Makes the field a map of what it was."""
    entry = message.nested_type.add(name=f"{made.name.capitalize()}Entry")
    entry.options.map_entry = True
    key = draw(st.sampled_from(KEYS))
    entry.field.add(name="key", number=1, type=key, label=Fd.LABEL_OPTIONAL)
    value = entry.field.add(name="value", number=2, type=made.type, label=Fd.LABEL_OPTIONAL)
    if made.type_name:
        value.type_name = made.type_name
    made.label, made.type, made.type_name = Fd.LABEL_REPEATED, Fd.TYPE_MESSAGE, f".t.{message.name}.{entry.name}"
    return st.dictionaries(KINDS[key], values, max_size=3)


@st.composite
def files(draw):
    """A file of descriptors, the name of a message in it, and a strategy of what that may hold."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax=draw(st.sampled_from(["proto2", "proto3"])))
    file.dependency.append(STAMP.name)
    for at, numbers in enumerate([[0, 1, 2], [0, -1, 70_000, 5], [0, 1, 1] if file.syntax == "proto3" else [3, 1]]):
        kind = file.enum_type.add(name=f"E{at}")
        kind.options.allow_alias = len(set(numbers)) < len(numbers)
        for place, number in enumerate(numbers):
            kind.value.add(name=f"E{at}_{'A_LONGER_NAME' if place == 1 else place}", number=number)
    name, values = draw(messages(file))
    return file, name, values


def filled(message, values):
    """Set the fields of ``message`` to ``values``; of a oneof the last stays."""
    for name, value in values.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if isinstance(value, dict) and field.is_repeated:
            inner = field.message_type.fields_by_name["value"].message_type
            for key, each in value.items():
                if inner is None:
                    getattr(message, name)[key] = each
                else:
                    filled(getattr(message, name)[key], each)
        elif field.is_repeated and field.message_type is not None:
            for each in value:
                filled(getattr(message, name).add(), each)
        elif field.is_repeated:
            getattr(message, name).extend(value)
        elif field.message_type is not None:
            getattr(message, name).SetInParent()
            filled(getattr(message, name), value)
        else:
            setattr(message, name, value)
    return message


def options_of(file, name):
    files = descriptor_pb2.FileDescriptorSet(file=[STAMP, file])
    return {"message": f"{file.package}.{name}", "descriptors": base64.b64encode(files.SerializeToString()).decode()}


def class_of(file, name):
    pool = descriptor_pool.DescriptorPool()
    for each in (STAMP, file):
        pool.Add(each)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))


def assert_same(options, payloads):
    return settled_alike(Protobuf.model_validate(options), payloads)


def varint(value):
    made = []
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def pieces(payload):
    """The fields of an encoded message, each with its tag."""
    made, at = [], 0

    def number():
        nonlocal at
        value = shift = 0
        while payload[at] & 0x80:
            value, shift, at = value | (payload[at] & 0x7F) << shift, shift + 7, at + 1
        value, at = value | payload[at] << shift, at + 1
        return value

    while at < len(payload):
        start, wire = at, number() & 7
        if wire == 2:
            size = number()
            at += size
        elif wire == 0:
            number()
        else:
            at += 8 if wire == 1 else 4
        made.append(payload[start:at])
    return made


UNKNOWN = [
    varint(30_000 << 3) + b"\x05",
    varint(30_000 << 3 | 2) + b"\x03abc",
    varint(30_000 << 3 | 1) + bytes(8),
    varint(30_000 << 3 | 5) + bytes(4),
    varint(30_000 << 3 | 3) + varint(30_000 << 3 | 4),
    varint(30_000 << 3 | 6),
    varint(30_000 << 3 | 4),
    b"\x00\x00",
    b"\x07",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x80\x01",
    b"\x88\x80\x00\x01",
    b"\x08" + b"\xff" * 9 + b"\x01",
    b"\x08" + b"\xff" * 9 + b"\x02",
]


def rearranged(payload, others, rng):
    """The fields in another order, repeated, mixed with unknown ones, or with changed bytes."""
    parts = pieces(payload)
    for _ in range(rng.randint(0, 2)):
        kind = rng.randrange(5)
        if kind == 0:
            rng.shuffle(parts)
        elif kind == 1:
            parts += pieces(rng.choice(others))
        elif kind == 2:
            parts.insert(rng.randint(0, len(parts)), rng.choice(UNKNOWN))
        elif kind == 3 and parts:
            del parts[rng.randrange(len(parts))]
        elif parts:
            parts.append(rng.choice(parts))
    made = b"".join(parts)
    return mutated(made, others, rng) if rng.random() < 0.4 else made


@pytest.mark.compares_kernel
@compared(300)
@given(st.data(), st.integers(0, 2**32))
def test_rows_and_reasons_are_the_same_as_with_the_library(data, seed):
    file, name, values = data.draw(files())
    made, rng = class_of(file, name), random.Random(seed)
    payloads = [
        filled(made(), each).SerializePartialToString(deterministic=rng.random() < 0.5) for each in data.draw(st.lists(values, max_size=6))
    ]

    assert_same(options_of(file, name), payloads)
    assert_same(options_of(file, name), [rearranged(each, payloads, rng) for each in payloads])


def of(*fields, **more):
    """A file with one message of these types, or of (label, type)."""
    file = descriptor_pb2.FileDescriptorProto(name="o.proto", package="o", syntax="proto3", dependency=[STAMP.name])
    kind = file.enum_type.add(name="E")
    kind.value.add(name="ZERO", number=0)
    kind.value.add(name="ONE_OF_MORE_THAN_TWELVE", number=1)
    message = file.message_type.add(name="M")
    for at, (label, type_) in enumerate(each if isinstance(each, tuple) else (Fd.LABEL_OPTIONAL, each) for each in fields):
        made = message.field.add(name=f"f{at}", number=at + 1, type=type_, label=label, **more)
        if type_ == Fd.TYPE_ENUM:
            made.type_name = ".o.E"
        if type_ == Fd.TYPE_MESSAGE:
            made.type_name = ".google.protobuf.Timestamp"
    return options_of(file, "M")


MANY = Fd.LABEL_REPEATED
ALL_ONES = b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize(
    ("fields", "payloads"),
    [
        (
            [Fd.TYPE_INT32],
            [b"\x08" + ALL_ONES, b"\x08\xff\xff\xff\xff\x0f", b"\x08\x80\x80\x80\x80\x10", b"\x08\x80\x00", b"\x08\x01\x08\x02"],
        ),
        ([Fd.TYPE_UINT32], [b"\x08" + ALL_ONES, b"\x08\xff\xff\xff\xff\x0f", b"\x08\xff\xff\xff\xff\x1f", b"\x0d\x01\x00\x00\x00"]),
        ([Fd.TYPE_SINT32], [b"\x08" + ALL_ONES, b"\x08\xff\xff\xff\xff\x0f", b"\x08\xff\xff\xff\xff\x1f", b"\x0a\x01\x00"]),
        ([Fd.TYPE_BOOL], [b"\x08\x00", b"\x08\x01", b"\x08\x02", b"\x08" + ALL_ONES, b"\x08\x80\x80\x00", b"\x08\x81\x00"]),
        (
            [Fd.TYPE_UINT64],
            [b"\x08" + ALL_ONES, b"\x08" + b"\xff" * 9 + b"\x03", b"\x08" + b"\x80" * 10 + b"\x01", b"\x88\x80\x80\x80\x00\x01"],
        ),
        (
            [Fd.TYPE_ENUM],
            [b"\x08\x00", b"\x08\x01", b"\x08\x07", b"\x08" + ALL_ONES, b"\x08\xff\xff\xff\xff\x07", b"\x08\x80\x80\x80\x80\x10"],
        ),
        ([Fd.TYPE_STRING], [b"\x0a\x01\x80", b"\x0a\x03\xed\xa0\x80", b"\x0a\x05abc", b"\x0a\x80\x00", b"\x0a\x83\x80\x80\x80\x00abc"]),
        ([Fd.TYPE_BYTES], [b"\x0a\x83\x80\x80\x80\x80\x00abc", b"\x0a\xff\xff\xff\xff\x0fabc", b"\x0a\x01a\x0a\x01b", b"\x0a" + ALL_ONES]),
        ([(MANY, Fd.TYPE_INT32)], [b"\x0a\x02\x01\x02\x08\x03\x0a\x01\x04", b"\x0a\x01\x80", b"\x0a\x00", b"\x08\x01\x10\x05\x08\x02"]),
        ([(MANY, Fd.TYPE_FIXED32)], [b"\x0a\x04\x01\x00\x00\x00\x0d\x02\x00\x00\x00", b"\x0a\x05\x01\x00\x00\x00\x00", b"\x0d\x01\x00"]),
        (
            [(MANY, Fd.TYPE_STRING), Fd.TYPE_INT64],
            [b"\x0a\x01a\x10\x01\x0a\x01b", b"\x0a\x01a\x10\x01\x10\x02", b"\x08\x01", b"\x12\x01\x01"],
        ),
        ([(MANY, Fd.TYPE_ENUM)], [b"\x0a\x03\x00\x01\x09", b"\x08\x01\x08\x01", b"\x0a\x0a" + ALL_ONES, b"\x0a\x02\x80\x80"]),
        (
            [Fd.TYPE_MESSAGE],
            [b"\x0a\x00", b"\x0a\x02\x08\x01\x0a\x02\x10\x01", b"\x0a\x04\x08\x01\x08\x02", b"\x0a\x02\x18\x01", b"\x0a\x02\x10\x7f"],
        ),
        (
            [Fd.TYPE_MESSAGE],
            [b"\x0a\x0b\x10" + ALL_ONES, b"\x0a\x0b\x08" + ALL_ONES, b"\x0a\x06\x10\x80\x94\xeb\xdc\x03", b"\x0a\x03\x08\x01"],
        ),
        (
            [Fd.TYPE_MESSAGE],
            [b"\x0a\x07\x08" + varint(253_402_300_799), b"\x0a\x07\x08" + varint(253_402_300_800)],
        ),
        (
            [Fd.TYPE_FLOAT, Fd.TYPE_DOUBLE],
            [b"\x0d\x01\x00\xa0\x7f\x11\x01\x00\x00\x00\x00\x00\xf4\x7f", b"\x0d\x00\x00\x00\x80", b"\x09" + bytes(8)],
        ),
        (
            [Fd.TYPE_INT64],
            [b"\x0b\x0c", b"\x1b\x1c", b"\x1b\x0c", b"\x1c", b"\x1e", b"\x1f", b"\x1a\x01\x00", b"\x1d\x00", b"\x00", b"\x18\x01"],
        ),
    ],
)
def test_unusual_bytes_are_judged_as_by_the_library(fields, payloads):
    assert_same(of(*fields), [b"", *payloads, *(each[:-1] for each in payloads), *(each + each for each in payloads)])


@pytest.mark.parametrize("count", [64, 65, 1024, 1025])
def test_messages_of_many_fields_are_read_as_by_the_library(count):
    last = varint(count << 3) + b"\x01"
    every = b"".join(varint(number << 3) + varint(number) for number in range(1, count + 1))
    assert_same(of(*[Fd.TYPE_INT32] * count), [b"", last, last + last, every, every + last])


def test_required_and_unknown_proto2_fields_are_handled_as_by_the_library():
    file = descriptor_pb2.FileDescriptorProto(name="p.proto", package="p", syntax="proto2")
    kind = file.enum_type.add(name="E")
    kind.value.add(name="ONE", number=1)
    kind.value.add(name="ZERO", number=0)
    inner = file.message_type.add(name="I")
    inner.field.add(name="x", number=1, type=Fd.TYPE_INT32, label=Fd.LABEL_REQUIRED)
    message = file.message_type.add(name="M")
    message.field.add(name="kind", number=1, type=Fd.TYPE_ENUM, type_name=".p.E", label=Fd.LABEL_OPTIONAL, default_value="ONE")
    message.field.add(name="kinds", number=2, type=Fd.TYPE_ENUM, type_name=".p.E", label=MANY)
    message.field.add(name="must", number=3, type=Fd.TYPE_INT32, label=Fd.LABEL_REQUIRED)
    message.field.add(name="inner", number=4, type=Fd.TYPE_MESSAGE, type_name=".p.I", label=Fd.LABEL_OPTIONAL)
    message.field.add(name="size", number=5, type=Fd.TYPE_INT32, label=Fd.LABEL_OPTIONAL, default_value="7")
    message.extension_range.add(start=100, end=200)
    file.extension.add(name="more", number=100, type=Fd.TYPE_MESSAGE, type_name=".p.I", label=Fd.LABEL_OPTIONAL, extendee=".p.M")
    must = b"\x18\x07"
    others = [
        b"\x08\x00",
        b"\x08\x02",
        b"\x10\x00\x10\x01",
        b"\x10\x00\x10\x02",
        b"\x12\x02\x00\x02",
        b"\x22\x00",
        b"\x22\x02\x08\x01",
        b"",
    ]
    extensions = [b"\xa2\x06\x02\x08\x01", b"\xa2\x06\x02\x08\x80", b"\xa2\x06\x00", b"\xa0\x06\x01", b"\xaa\x06\x01x"]

    sure = assert_same(options_of(file, "M"), [must, b"", *(must + each for each in [*others, *extensions]), *others])

    assert sure.settled.height


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["b", "a", "", "é", "x" * 20]), INT32), max_size=5), st.booleans(), st.integers(0, 2**32))
def test_map_entries_are_read_in_any_order(entries, twice, seed):
    parts = pieces(flight(tags=dict(entries), number=7, plane={"tail": "N1", "seats": [1, 300]}).SerializeToString())
    parts += [b"\x32\x00", b"\x32\x02\x10\x05"] if twice else []
    random.Random(seed).shuffle(parts)
    odd = [
        b"\x32\x06\x10\x01\x0a\x02xy",
        b"\x32\x04\x10\x01\x10\x02",
        b"\x32\x04\x0a\x00\x0a\x00",
        b"\x32\x02\x18\x01",
        b"\x32\x02\x0a\x01",
    ]

    assert_same({"message": "f.Flight", "descriptors": TEXT}, [b"".join(parts), *odd, b"".join([*parts, odd[0]])])


def test_plain_messages_are_read_by_the_kernel_alone():
    rows = [
        {"number": at, "gate": "" if at % 3 else "x" * (at % 40), "kind": at % 3, "at": {"seconds": at}, "raw": b"\xff" * (at % 20)}
        | {"share": at / 7, "tags": {"b": at, "a": -at}, "plane": {"tail": "N1", "seats": [1, 2, at]}}
        for at in range(3000)
    ]
    payloads = [flight(**row).SerializeToString() for row in rows]
    decoder = Protobuf.model_validate({"message": "f.Flight", "descriptors": TEXT})
    if native.KERNEL is None:
        return
    reader = protobuf_reader(decoder.output(None), flight().DESCRIPTOR)

    columns, marked = reader.read(pl.Series(payloads, dtype=pl.Binary))

    assert marked is None
    assert columns["number"].to_list() == [row["number"] for row in rows]
    assert columns["gate"].to_list() == [row["gate"] for row in rows]
    assert columns["plane"].to_list() == [row["plane"] for row in rows]


@example([0, 1, 2, 1500, 2999], 0)
@settings(max_examples=10)
@given(st.lists(st.integers(0, 2999), max_size=70, unique=True), st.integers(0, 9))
def test_invalid_messages_among_many_valid_ones_are_found(places, cut):
    good = flight(number=7, gate="a text of more than twelve bytes").SerializeToString()
    assert_same({"message": "f.Flight", "descriptors": TEXT}, [good[: -1 - cut] if at in places else good for at in range(3000)])
