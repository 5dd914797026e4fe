"""Plans by which the kernel reads Avro and Protocol Buffers: inconsistent ones are refused, others write within their columns only.

``make native-check`` tries the changed plans with a kernel that watches its memory.
"""

import copy
import functools
import json
import random
from types import SimpleNamespace

import fastavro
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import native
from stream.transform.decoders.avro import Avro
from stream.transform.decoders.avro_plan import avro_reader
from stream.transform.decoders.protobuf import Protobuf
from stream.transform.decoders.protobuf_plan import protobuf_reader
from tests.fuzz.decoders import mutated
from tests.kernel import compared
from tests.unit.transform.decoders.test_avro_plan import written
from tests.unit.transform.decoders.test_protobuf import TEXT, flight

pytestmark = pytest.mark.compares_kernel

RECORD = {
    "type": "record", "name": "r", "fields": [
        {"name": "a", "type": "int"},
        {"name": "b", "type": "int"},
        {"name": "blocks", "type": {"type": "array", "items": {"type": "fixed", "name": "block", "size": 4}}},
        {"name": "names", "type": {"type": "map", "values": "string"}},
        {"name": "kind", "type": {"type": "enum", "name": "kinds", "symbols": ["JET", "PROP"]}},
        {"name": "inner", "type": {"type": "record", "name": "i", "fields": [{"name": "on", "type": "boolean"}]}},
    ],
}  # fmt: skip
A, B, BLOCKS, NAMES, KIND, INNER, BLOCK, NAME, ON = range(1, 10)
"""Numbers of the nodes of the plan for it; 0 is the root."""
CODE, COLUMN, FIRST, COUNT, UNIT = 0, 4, 5, 6, 9
"""Places in a node of an Avro plan."""
DOUBLE, UUID, FIXED = 4, 7, 8


@functools.cache
def avro_plan():
    """The plan for ``RECORD``, and records."""
    plans = []
    schema, parsed = Avro.model_validate({"schema": json.dumps(RECORD)}).output(None), fastavro.parse_schema(copy.deepcopy(RECORD))
    kernel = SimpleNamespace(avro=native.KERNEL.avro, avro_plan=plans.append)
    avro_reader(schema, parsed, {b"": parsed}, kernel)
    rows = [
        {"a": at, "b": -at, "blocks": [b"abcd"] * at, "names": {"n" * 13: "x" * at}, "kind": "JET", "inner": {"on": True}}
        for at in range(5)
    ]
    return plans[0], written(RECORD, rows)


@functools.cache
def protobuf_plan():
    """The plan for ``Flight``, and messages."""
    plans = []
    schema = Protobuf.model_validate({"message": "f.Flight", "descriptors": TEXT}).output(None)
    protobuf_reader(schema, flight().DESCRIPTOR, SimpleNamespace(protobuf=native.KERNEL.protobuf, protobuf_plan=plans.append))
    rows = [
        {"number": at, "gate": "x" * at * 5, "kind": at % 3, "at": {"seconds": at}, "raw": b"\xff" * at, "tags": {"b": at}}
        | {"plane": {"tail": "N1", "seats": [1, 2, at]}}
        for at in range(5)
    ]
    return plans[0], [flight(**row).SerializeToString() for row in rows]


def changed(plan, path, value):
    """``plan`` with ``value`` at ``path``."""
    if not path:
        return value
    return (*plan[: path[0]], changed(plan[path[0]], path[1:], value), *plan[path[0] + 1 :])


def numbers(plan, path=()):
    """The paths of all numbers of ``plan``."""
    if isinstance(plan, int):
        return [path]
    return [found for at, each in enumerate(plan) for found in numbers(each, (*path, at))] if isinstance(plan, tuple) else []


def at_node(node, place):
    return (1, node, place)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (at_node(0, COLUMN), 1, "a root"),
        (at_node(0, FIRST), 0, "children"),
        (at_node(0, COUNT), -1, "children"),
        (at_node(0, COUNT), 10, "children"),
        (at_node(0, COUNT), 7, "a column"),
        (at_node(INNER, FIRST), 10, "children"),
        (at_node(INNER, FIRST), INNER, "children"),
        (at_node(BLOCKS, COUNT), 2, "children"),
        (at_node(BLOCKS, COUNT), 0, "children"),
        (at_node(BLOCKS, FIRST), NAME, "a column"),
        (at_node(A, COLUMN), -2, "a column"),
        (at_node(A, COLUMN), 13, "a column"),
        (at_node(KIND, COLUMN), 10, "a column"),
        (at_node(B, COLUMN), 1, "a column"),
        (at_node(B, CODE), DOUBLE, "a column"),
        (at_node(ON, CODE), FIXED, "a column"),
        (at_node(KIND, COLUMN), 2, "a column"),
        ((1, BLOCK), (13, 0, -1, False, 7, BLOCK, 1, 0, 0, 0, None), "a column"),
        ((1, BLOCK), (13, 0, -1, False, 7, 10**6, 5, 0, 0, 0, None), "a column"),
        (at_node(BLOCK, UNIT), 0, "items of no bytes"),
        (at_node(BLOCK, UNIT), -1, "a number"),
        (at_node(A, UNIT), 0, "a number"),
        (at_node(A, UNIT), 2**33, "a number"),
        ((1, A), (1, 0, -1, False, 1, 0, 0, 0, 2**62, 2, None), "a number"),
        (at_node(A, CODE), 15, "a number"),
        (at_node(A, CODE), -1, "a number"),
        ((2, 0, 1), 10, "a writer"),
        ((2, 0, 1), -1, "a writer"),
        ((2, 0, 1), INNER, "a root"),
        ((2, 0, 0), b"x" * 19, "a writer"),
        ((2,), ((b"", 0), (b"x", 0)), "a writer"),
        ((2,), (), "a size"),
        ((0, 0, 2), 13, "a form"),
        ((0, 0, 3), 0, "a form"),
        ((0, 3, 2), 2, "a form"),
        ((0, 1, 1), 5, "a form"),
    ],
)
def test_an_avro_plan_that_is_not_consistent_is_refused(path, value, why):
    if native.KERNEL is not None:
        plan, _ = avro_plan()
        native.KERNEL.avro_plan(plan)
        with pytest.raises(ValueError, match=why):
            native.KERNEL.avro_plan(changed(plan, path, value))


NUMBER, GATE, PLANE_KIND, PLANE, AT, TAGS, RAW, SHARE, TAIL, SEATS, KEY, VALUE = range(1, 13)
"""Numbers of the nodes of the plan for `Flight`; 0 is the root."""
P_KIND, P_NUMBER, P_REPEATED, P_PRESENCE, P_SLOT, P_COLUMN, P_FIRST, P_COUNT, P_DATA = 0, 1, 2, 3, 4, 6, 7, 8, 10
"""Places in a node of a Protocol Buffers plan."""
P_TEXT, P_BYTES = 14, 15


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (at_node(0, P_KIND), P_TEXT, "a root"),
        (at_node(0, P_REPEATED), True, "a root"),
        (at_node(0, P_COUNT), 7, "a column"),
        (at_node(0, P_FIRST), 0, "children"),
        (at_node(0, P_FIRST), 6, "children"),
        (at_node(PLANE, P_FIRST), 1, "children"),
        (at_node(NUMBER, P_COLUMN), 0, "a column"),
        (at_node(NUMBER, P_COLUMN), -1, "a column"),
        ((1, PLANE), (P_TEXT, 4, True, False, 3, False, 4, 9, 0, 0, None), "a column"),
        (at_node(NUMBER, P_KIND), P_TEXT, "a column"),
        (at_node(NUMBER, P_REPEATED), True, "a column"),
        (at_node(NUMBER, P_KIND), -1, "a kind"),
        (at_node(NUMBER, P_KIND), 19, "a kind"),
        (at_node(NUMBER, P_SLOT), 8, "a slot"),
        (at_node(NUMBER, P_SLOT), -1, "a slot"),
        (at_node(NUMBER, P_SLOT), 1, "a slot"),
        (at_node(GATE, P_SLOT), 8, "a slot"),
        (at_node(GATE, P_SLOT), -1, "a slot"),
        (at_node(GATE, P_COLUMN), 9, "a column"),
        (at_node(GATE, P_COLUMN), 3, "a column"),
        (at_node(TAIL, P_COLUMN), 2, "a column"),
        (at_node(GATE, P_NUMBER), 1, "an order"),
        (at_node(PLANE_KIND, P_DATA), None, "symbols"),
        (at_node(PLANE_KIND, P_DATA), ((1, b"JET"), (1, b"PROP")), "an order"),
        (at_node(PLANE_KIND, P_DATA), ((1, b"JET"), 1), "a symbol"),
        (at_node(SEATS, P_PRESENCE), True, "a column"),
        (at_node(TAGS, P_REPEATED), False, "a column"),
        (at_node(PLANE, P_KIND), 18, "a column"),
        (at_node(TAGS, P_COUNT), 1, "a map"),
        (at_node(KEY, P_KIND), P_BYTES, "a map"),
        (at_node(VALUE, P_NUMBER), 3, "a map"),
        ((0,), (), "a size"),
        ((1,), (), "a size"),
    ],
)
def test_a_protobuf_plan_that_is_not_consistent_is_refused(path, value, why):
    if native.KERNEL is not None:
        plan, _ = protobuf_plan()
        native.KERNEL.protobuf_plan(plan)
        with pytest.raises(ValueError, match=why):
            native.KERNEL.protobuf_plan(changed(plan, path, value))


@compared(400)
@given(st.data(), st.sampled_from(["avro", "protobuf"]), st.integers(0, 2**32))
def test_a_changed_plan_is_refused_or_gives_every_record_a_verdict(data, what, seed):
    if native.KERNEL is None:
        return
    plan, payloads = avro_plan() if what == "avro" else protobuf_plan()
    for path in data.draw(st.lists(st.sampled_from(numbers(plan)), min_size=1, max_size=3)):
        old = functools.reduce(lambda part, at: part[at], path, plan)
        plan = changed(plan, path, data.draw(st.sampled_from([old + 1, old - 1, 0, 1, -1, 2, 7, 12, 2**31 - 1, -(2**31)])))
    try:
        made = getattr(native.KERNEL, f"{what}_plan")(plan)
    except (ValueError, TypeError, OverflowError):
        return
    rng = random.Random(seed)
    records = pl.Series([*payloads, *(mutated(each, payloads, rng) for each in payloads)], dtype=pl.Binary)
    bad, wrong, _, (_, _, _, _, columns) = getattr(native.KERNEL, what)(made, *native.views(records))
    assert len(bytes(bad)) == len(records)
    assert wrong == sum(bytes(bad))
    assert {rows for rows, *_ in columns} <= {len(records)}
