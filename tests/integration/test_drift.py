"""Records whose producer has changed: each policy for new fields, and for values that no longer fit their type."""

import json

import pytest

from stream.pipeline.model import Pipeline
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from tests.frames import batch, ticks, user

SCHEMA = {
    "id": "int8",
    "price": "decimal(4,2)?",
    "share": "float32?",
    "seats": "list<uint8>?",
    "plane": "object{year: int16?}?",
    "s": "string?",
}
BEFORE = {"id": 1, "price": 1.25, "share": 0.5, "seats": [1], "plane": {"year": 1999}, "s": "x"}
GREW = {"id": 300, "price": 12345.25, "share": 1e39, "seats": [-1, 4000], "plane": {"year": 70000}, "s": "y"}
MORE = {"id": 2, "gate": "A7", "crew": {"n": 3}}


def run(*records, decode="json", **source):
    pipeline = Pipeline.model_validate(
        {
            "application": "a",
            "source": {"kinesis": {"stream": "s"}, "schema": SCHEMA, "decode": decode, **source},
            "sinks": [{"s3": {"url": "file:x"}}],
            "state": "file:s",
        }
    )
    chain = compile_chain(pipeline.source.decode, pipeline.source.record_schema(), [], Resources(), ticks())
    got = chain.run(batch([each if isinstance(each, bytes) else json.dumps(each).encode() for each in records]), "s")
    return user(got.frame), {row["_row"]: row["reason"] for row in got.settled.to_dicts()}


def test_ignored_fields_are_dropped():
    rows, refused = run(BEFORE, MORE)
    assert [row["id"] for row in rows] == [1, 2]
    assert set(rows[1]) == set(SCHEMA)
    assert refused == {}


def test_an_unknown_field_rejects_its_record_alone():
    rows, refused = run(BEFORE, MORE, BEFORE, unknown="reject")
    assert [row["id"] for row in rows] == [1, 1]
    assert refused == {1: "unknown_field"}


def test_captured_fields_are_kept_unchanged():
    rows, refused = run(BEFORE, MORE, unknown="capture")
    assert rows[0]["_extra"] is None
    assert json.loads(rows[1]["_extra"]) == {"gate": "A7", "crew": {"n": 3}}
    assert refused == {}


@pytest.mark.parametrize("column", ["id", "price", "share", "seats", "plane"])
def test_a_value_too_large_for_its_type_rejects_its_record(column):
    rows, refused = run(BEFORE, {**BEFORE, column: GREW[column]})
    assert len(rows) == 1
    assert refused == {1: f"wrong_type:{column}"}


def test_widened_types_accept_larger_values():
    rows, refused = run(BEFORE, GREW, widen=True)
    assert refused == {}
    assert [float(row["price"]) for row in rows] == [1.25, 12345.25]
    assert rows[1] == {**GREW, "price": rows[1]["price"]}


def test_widening_does_not_accept_values_of_another_kind():
    rows, refused = run({**BEFORE, "id": "1"}, {**BEFORE, "id": 1.5}, {**BEFORE, "id": 2**63}, {**BEFORE, "id": None}, widen=True)
    assert rows == []
    assert refused == {0: "wrong_type:id", 1: "wrong_type:id", 2: "wrong_type:id", 3: "missing_field:id"}


def test_text_formats_are_widened_too():
    flat = {"id": "int8", "share": "float32?"}
    rows, refused = run(b"300,1e39\n", decode="csv", schema=flat, widen=True)
    assert (rows, refused) == ([{"id": 300, "share": 1e39}], {})
    assert run(b"300,1\n", decode="csv", schema=flat) == ([], {0: "wrong_type:id"})


def test_widening_needs_a_schema():
    with pytest.raises(ValueError, match="no schema whose types could be widened"):
        run(b"x", decode="raw", schema=None, widen=True)
