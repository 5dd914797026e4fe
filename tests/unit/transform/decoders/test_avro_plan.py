"""The compiled kernel reads Avro as fastavro does: rows, order, reasons."""

import copy
import io
import json
import random
import uuid
import zlib

import fastavro
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream import native
from stream.transform.decoders.avro import Avro
from stream.transform.decoders.avro_plan import avro_reader
from stream.transform.values import FIRST_US, LAST_US
from tests.fuzz.decoders import mutated
from tests.kernel import compared, settled_alike

VERSIONS = [uuid.UUID(int=number) for number in range(1, 4)]
LONGS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-130, 130))
INTS = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-130, 130))
TEXTS = st.one_of(st.text(max_size=5), st.sampled_from(["x" * 12, "x" * 13, "ä" * 7, "😀" * 4, "\x00" * 14]))
SINGLES = ["f", 1.5, 0.1, -0.0, 3.4e38, float("inf"), float("nan")]
PRIMITIVES = {
    "boolean": st.booleans(), "int": INTS, "long": LONGS, "string": TEXTS, "bytes": st.binary(max_size=20),
    "float": st.one_of(st.floats(width=32), st.just(float("nan"))), "double": st.floats(),
}  # fmt: skip
SYMBOLS = ["JET", "PROP", "A_SYMBOL_THAT_NO_VIEW_HOLDS", "a"]


def logical(kind, name, /, **more):
    return {"type": kind, "logicalType": name, **more}


@st.composite
def kinds(draw, names, depth=0):
    """A type and a strategy of its data, as fastavro writes them; logical types are written as what they stand on."""
    pick = draw(st.integers(0, 13 if depth < 3 else 9))
    if pick <= 4:
        name = draw(st.sampled_from(list(PRIMITIVES)))
        return (draw(st.sampled_from([name, {"type": name, "logicalType": "nobody's"}])), PRIMITIVES[name])
    if pick == 5:
        unit = draw(st.sampled_from([("timestamp-millis", 1000), ("timestamp-micros", 1)]))
        edges = st.sampled_from([(FIRST_US - 1) // unit[1], FIRST_US // unit[1], LAST_US // unit[1], LAST_US // unit[1] + 1])
        return logical("long", unit[0]), st.one_of(LONGS, edges, st.integers(FIRST_US // unit[1], LAST_US // unit[1]))
    if pick == 6:
        return logical("int", "date"), st.one_of(INTS, st.sampled_from([-719_163, -719_162, 2_932_896, 2_932_897]))
    if pick == 7:
        spelt = st.builds(
            lambda each, how: how(str(each)), st.uuids(), st.sampled_from([str, str.upper, lambda text: text.replace("-", "")])
        )
        return logical("string", "uuid"), st.one_of(spelt, TEXTS)
    if pick == 8:
        return draw(named_kinds(names))
    if pick == 9:
        precision = draw(st.integers(1, 38))
        whole = st.one_of(st.integers(-(10**precision), 10**precision), st.integers(-999, 999))
        packed = whole.map(lambda each: each.to_bytes(each.bit_length() // 8 + 1, "big", signed=True))
        return logical("bytes", "decimal", precision=precision, scale=draw(st.integers(0, precision))), st.one_of(packed, st.just(b""))
    inner, data = draw(kinds(names, depth + 1))
    if pick == 10:
        return {"type": "array", "items": inner}, st.lists(data, max_size=3)
    if pick == 11:
        return {"type": "map", "values": inner}, st.dictionaries(TEXTS, data, max_size=4)
    if pick == 12 and not isinstance(inner, list):
        union = draw(st.sampled_from([["null", inner], [inner, "null"], [inner]]))
        return union, st.one_of(st.none(), data) if "null" in union else data
    return draw(records(names, depth + 1))


@st.composite
def named_kinds(draw, names):
    names.append(f"n{len(names)}")
    kind = draw(st.sampled_from(["enum", "fixed", "decimal"]))
    if kind == "enum":
        symbols = draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, unique=True))
        return {"type": "enum", "name": names[-1], "symbols": symbols}, st.sampled_from(symbols)
    if kind == "fixed":
        size = draw(st.integers(1, 20))
        return {"type": "fixed", "name": names[-1], "size": size}, st.binary(min_size=size, max_size=size)
    size = draw(st.integers(1, 18))
    bounds = {"precision": draw(st.integers(1, min(38, (8 * size - 1) * 3 // 10))), "scale": 1}
    return logical("fixed", "decimal", name=names[-1], size=size, **bounds), st.binary(min_size=size, max_size=size)


@st.composite
def records(draw, names, depth=0):
    names.append(f"n{len(names)}")
    name = names[-1]
    fields, data = [], {}
    for at in range(draw(st.integers(1, 5))):
        kind, values = draw(kinds(names, depth))
        fields.append({"name": f"f{at}", "type": kind})
        data[f"f{at}"] = values
    return {"type": "record", "name": name, "fields": fields}, st.fixed_dictionaries(data)


def plain(schema):
    """``schema`` without logical types, so that anything that fits their bytes can be written."""
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: plain(value) if key in {"type", "items", "values"} else value for key, value in schema.items()}
    made.pop("logicalType", None)
    if "fields" in made:
        made["fields"] = [{**each, "type": plain(each["type"])} for each in made["fields"]]
    return made


def written(schema, data):
    parsed, made = fastavro.parse_schema(plain(schema)), []
    for datum in data:
        target = io.BytesIO()
        fastavro.schemaless_writer(target, parsed, datum)
        made.append(target.getvalue())
    return made


def assert_same(options, payloads):
    return settled_alike(Avro.model_validate(options), payloads)


def damaged(payloads, seed):
    rng = random.Random(seed)
    return [mutated(each, payloads, rng) if rng.random() < 0.7 else each for each in payloads] if payloads else payloads


@pytest.mark.compares_kernel
@compared(250)
@given(st.data(), st.integers(0, 2**32))
def test_rows_and_reasons_are_the_same_as_with_fastavro(data, seed):
    schema, values = data.draw(records([]))
    payloads = written(schema, data.draw(st.lists(values, max_size=6)))

    assert_same({"schema": json.dumps(schema)}, payloads)
    assert_same({"schema": json.dumps(schema)}, damaged(payloads, seed))


WIDER = {"int": ["long", "float", "double"], "long": ["float", "double"], "float": ["double"], "string": ["bytes"], "bytes": ["string"]}
DEFAULTS = st.sampled_from([
    ("long", 7), ("int", -3), ("double", 0.5), ("float", 0.1), ("float", 0.5), ("string", "x" * 14), ("string", ""), ("boolean", True),
    (["null", "string"], None), (["null", "long"], None), ({"type": "array", "items": "long"}, []), ({"type": "map", "values": "int"}, {}),
    ({"type": "array", "items": "long"}, [1]), ({"type": "enum", "name": "late", "symbols": ["A", "B"]}, "B"), ("bytes", "x"),
    (["string", "null"], "y"), ("double", 1), ({"type": "long", "logicalType": "timestamp-micros"}, 5),
])  # fmt: skip


@st.composite
def evolved(draw, schema):
    """A later version of ``schema``; not all of its changes are allowed."""
    made = copy.deepcopy(schema)
    for field in made["fields"]:
        kind, change = field["type"], draw(st.integers(0, 9))
        if change == 0 and isinstance(kind, str):
            field["type"] = draw(st.sampled_from([*WIDER.get(kind, []), "long"]))
        elif change == 1 and not isinstance(kind, list):
            field["type"] = ["null", kind]
        elif change == 2:
            field["aliases"] = [field["name"]]
            field["name"] += "_new"
        elif change == 3 and isinstance(kind, dict) and kind["type"] == "record":
            field["type"] = draw(evolved(kind))
        elif change == 4 and isinstance(kind, dict) and kind["type"] == "enum":
            kind["symbols"] = [*kind["symbols"][1:], "NEW"]
            kind |= draw(st.sampled_from([{}, {"default": "NEW"}]))
        elif change == 5 and isinstance(kind, dict) and kind.get("logicalType", "").startswith("timestamp"):
            kind["logicalType"] = draw(st.sampled_from(["timestamp-millis", "timestamp-micros", "nobody's"]))
    if draw(st.booleans()):
        kind, default = draw(DEFAULTS)
        made["fields"].append({"name": "added", "type": kind, "default": default})
    elif draw(st.integers(0, 9)) == 0:
        made["fields"].append({"name": "added", "type": "long"})
    made["fields"] = draw(st.permutations(made["fields"]))
    del made["fields"][draw(st.integers(1, len(made["fields"]))) :]
    return made


@pytest.mark.compares_kernel
@compared(250)
@given(st.data(), st.integers(0, 2**32))
def test_records_of_other_schema_versions_are_resolved_as_by_fastavro(data, seed):
    writer, values = data.draw(records([]))
    reader = data.draw(evolved(writer))
    options = {"schema": json.dumps(reader), "header": "glue", "writers": {str(VERSIONS[0]): json.dumps(writer)}}
    options["writers"][str(VERSIONS[1])] = json.dumps(reader)
    bodies = written(writer, data.draw(st.lists(values, max_size=5)))
    heads = [bytes([3, 0]) + version.bytes for version in VERSIONS]
    payloads = [heads[data.draw(st.sampled_from([0, 0, 0, 1, 2]))] + body for body in bodies]
    payloads += [bytes([3, 5]) + VERSIONS[0].bytes + zlib.compress(body) for body in bodies[:1]]

    assert_same(options, payloads)
    assert_same(options, damaged(payloads, seed))


def of(*fields):
    return {"type": "record", "name": "r", "fields": [{"name": f"f{at}", "type": kind} for at, kind in enumerate(fields)]}


MAP = {"type": "map", "values": {"type": "map", "values": "int"}}


@pytest.mark.parametrize(
    ("fields", "payloads"),
    [
        (["long"], [b"\x80\x00", b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x02", b"\x80" * 9 + b"\x7f", b"\xff" * 10 + b"\x01", b"\x80"]),
        (["int"], [b"\xfe\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x10", b"\x81\x80\x80\x80\x10"]),
        (["boolean"], [b"\x00", b"\x01", b"\x02", b"\xff", b"\x00\x00", b""]),
        (["float", "double"], [b"\x01\x00\xa0\x7f" + b"\x01\x00\x00\x00\x00\x00\xf4\x7f", b"\x00" * 11]),
        (["string"], [b"\x02\x80", b"\x06\xed\xa0\x80", b"\x01", b"\xff\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\x0f"]),
        (["string"], [b"\x1a" + b"x" * 12 + b"\xc3", b"\x1a" + b"x" * 11 + b"\xc3\xa4"]),
        (["bytes"], [b"\x01ab", b"\x03abc", b"\xff" * 9 + b"\x01", b"\x04ab"]),
        ([["null", "long"]], [b"\x00", b"\x02\x02", b"\x04", b"\x01", b"\x03\x02", b"\x00\x00"]),
        ([{"type": "enum", "name": "e", "symbols": ["A", "B"]}], [b"\x00", b"\x02", b"\x04", b"\x01", b"\x03"]),
        ([{"type": "array", "items": "int"}], [b"\x00", b"\x04\x02\x04\x00", b"\x03\x04\x02\x04\x00", b"\x02\x02\x02\x04\x00"]),
        ([{"type": "array", "items": "int"}], [b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\x00" * 20, b"\x02\x00\x00", b"\x04\x02"]),
        ([{"type": "map", "values": "int"}], [b"\x04\x02b\x02\x02a\x04\x00", b"\x04\x02a\x02\x02a\x04\x00"]),
        ([{"type": "map", "values": "int"}], [b"\x02\x02b\x02\x02\x02a\x04\x00", b"\x03\x08\x02b\x02\x00"]),
        ([{"type": "map", "values": "int"}], [b"\x04\x02\xff\x02\x02a\x04\x00", b"\x06\x04ab\x02\x02a\x04\x00\x06\x00"]),
        ([MAP], [b"\x04\x02b\x04\x02d\x02\x02c\x04\x00\x02a\x00\x00", b"\x04\x02b\x04\x02d\x02\x02d\x04\x00\x02a\x00\x00"]),
        ([logical("bytes", "decimal", precision=3)], [b"\x00", b"\x02\x7f", b"\x04\x03\xe7", b"\x04\x03\xe8", b"\x22" + b"\xff" * 17]),
    ],
)  # fmt: skip
def test_unusual_bytes_are_judged_as_by_fastavro(fields, payloads):
    sure = assert_same({"schema": json.dumps(of(*fields))}, [*payloads, *(each + b"\x00" for each in payloads)])
    assert sure.settled.height > 1


BLOCKS = [
    b"\x03\x04\x02\x04\x00", b"\x03\x06\x02\x04\x00", b"\x03\x02\x02\x04\x00", b"\x03\x03\x02\x04\x00", b"\x01\x02\x02\x01\x02\x04\x00",
    b"\x01\x02\x02\x02\x04\x00", b"\x01\x02\x02\x00", b"\x01\x02\x02", b"\x01\x04\x02\x00", b"\x00", b"\x01\x02\x02\x01\x04\x02\x04\x00",
    b"\xff" * 9 + b"\x01\x02\x02\x00", b"\x01" + b"\xfe" * 9 + b"\x01\x02\x00", b"\x03\xfe\x01\x02\x04\x00",
]  # fmt: skip
"""Lists of int whose blocks say how long they are, rightly or not."""


def test_blocks_that_state_their_size_are_read_and_skipped():
    kind = {"type": "array", "items": "int"}
    entries = {"type": "map", "values": "int"}
    whole = [each + bytes(tail) for each in BLOCKS for tail in range(3)]
    mapped = [b"\x03\x0c\x02b\x02\x02a\x04\x00", b"\x03\x0a\x02b\x02\x02a\x04\x00", b"\x01\x06\x02b\x02\x02\x02a\x04\x00"]
    past = {"schema": json.dumps(of("int")), "header": "glue", "writers": {str(VERSIONS[0]): json.dumps(of("int", kind))}}

    assert assert_same({"schema": json.dumps(of(kind))}, whole).frame.height > 4
    assert assert_same({"schema": json.dumps(of(entries))}, mapped).frame.height > 1
    assert assert_same(past, [b"\x03\x00" + VERSIONS[0].bytes + b"\x0e" + each for each in whole]).frame.height > 4
    if native.KERNEL is None:
        return
    sized = pl.Series([BLOCKS[0], BLOCKS[4], BLOCKS[5], BLOCKS[6]], dtype=pl.Binary)
    parsed = fastavro.parse_schema(of(kind))
    columns, marked = avro_reader(Avro.model_validate({"schema": json.dumps(of(kind))}).output(None), parsed, {b"": parsed}).read(sized)
    assert marked is None
    assert columns["f0"].to_list() == [[1, 2], [1, 2], [1, 2], [1]]


def test_uuids_are_read_in_every_spelling():
    spelt = ["{id}", "{ID}", "{id}0", "{{{id}}}", "urn:uuid:{id}", "{id} ", "g{id}", "", "{plain}", "-{plain}", "{cut}"]
    texts = [
        each.format(id=name, ID=name.upper(), plain=name.replace("-", ""), cut=name[:-1]) for each in spelt for name in map(str, VERSIONS)
    ]
    moved = [f"{text[:7]}-{text[7]}{text[9:]}" for text in map(str, VERSIONS)]
    strange = ["1234567g-0000-0000-0000-000000000001", "1234567_-0000-0000-0000-000000000001", "\uff112345678-0000-0000-0000-000000000001"]
    schema = of(logical("string", "uuid"), "string")

    sure = assert_same({"schema": json.dumps(schema)}, written(schema, [{"f0": text, "f1": text} for text in [*texts, *moved, *strange]]))

    assert sure.settled.height > 1


NULLS = [["null", "long"], ["long", "null"], ["long"], "long"]


@pytest.mark.parametrize("writer", NULLS, ids=str)
@pytest.mark.parametrize("reader", NULLS, ids=str)
def test_null_is_accepted_if_the_reader_allows_it(writer, reader):
    data = [{"f0": value} for value in (7, None, -1) if value is not None or "null" in writer]
    options = {"header": "glue", "writers": {str(VERSIONS[0]): json.dumps(of(writer))}}
    payloads = [b"\x03\x00" + VERSIONS[0].bytes + body for body in written(of(writer), data)]

    sure = assert_same({"schema": json.dumps(of(reader)), **options}, payloads)

    assert sure.frame.height == (3 if "null" in writer and "null" in reader else 2)


@pytest.mark.parametrize("depth", [1, 5, 20, 31])
def test_deep_types_and_long_lists_are_read(depth):
    kind = "int"
    for level in range(depth):
        kind = {"type": "array", "items": kind} if level % 2 else {"type": "map", "values": kind}
    parsed = fastavro.parse_schema(of(kind))
    payloads = []
    for wide in (1, 2):
        value = 7
        for level in range(depth):
            value = [value] * (wide if depth < 9 else 1) if level % 2 else {"x": value, **({"a": value} if wide == 2 and depth < 9 else {})}
        target = io.BytesIO()
        fastavro.schemaless_writer(target, parsed, {"f0": value})
        payloads.append(target.getvalue())

    assert_same({"schema": json.dumps(of(kind))}, [*payloads, *(each[:-1] for each in payloads)])


FLIGHT = of(
    "long",
    "string",
    ["null", "string"],
    ["null", "double"],
    logical("long", "timestamp-millis"),
    "boolean",
    {"type": "map", "values": "int"},
)


def test_plain_data_are_read_by_the_kernel_alone():
    rows = [
        {"f0": at, "f1": f"N{at}", "f2": "x" * (at % 40) if at % 3 else None, "f3": at / 7, "f4": at, "f5": True, "f6": {"b": 1, "a": at}}
        for at in range(3000)
    ]  # fmt: skip
    payloads = written(FLIGHT, rows)
    older = {**FLIGHT, "fields": [{**each, "type": "int"} if each["name"] == "f0" else each for each in FLIGHT["fields"][:4]]}
    newer = copy.deepcopy(FLIGHT)
    for field, default in zip(newer["fields"][4:], [None, True, {}], strict=True):
        field["default"] = default
    newer["fields"][4]["type"] = ["null", newer["fields"][4]["type"]]
    decoder = Avro.model_validate({"schema": json.dumps(FLIGHT)})
    writers = {b"\x03\x00" + VERSIONS[0].bytes: fastavro.parse_schema(older)}
    if native.KERNEL is None:
        return
    declared, parsed = decoder.output(None), fastavro.parse_schema(FLIGHT)

    columns, marked = avro_reader(declared, parsed, {b"": parsed}).read(pl.Series(payloads, dtype=pl.Binary))

    assert marked is None
    assert columns["f0"].to_list() == [row["f0"] for row in rows]
    assert columns["f2"].to_list() == [row["f2"] for row in rows]
    old = pl.Series([next(iter(writers)) + each for each in written(older, rows)], dtype=pl.Binary)
    resolved, marked = avro_reader(declared, fastavro.parse_schema(newer), writers).read(old)
    assert marked is None
    assert resolved.select("f0", "f3").equals(columns.select("f0", "f3"))
    assert resolved.select("f4", "f5", "f6").unique().rows() == [(None, True, [])]


@example([0, 1, 2, 1500, 2999], 0)
@settings(max_examples=10)
@given(st.lists(st.integers(0, 2999), max_size=70, unique=True), st.integers(0, 9))
def test_invalid_data_among_many_valid_ones_are_found(places, cut):
    (good,) = written(of("long", "string"), [{"f0": 5, "f1": "a text of more than twelve bytes"}])
    assert_same({"schema": json.dumps(of("long", "string"))}, [good[: -1 - cut] if at in places else good for at in range(3000)])
