import json
from decimal import Decimal

import polars as pl
import pytest
from pydantic import ValidationError

from stream.batch import Outcome
from stream.transform.decoders.dms import Dms
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.types import parse_schema
from tests.frames import batch, ticks

SCHEMA = parse_schema({"a": "int64"})


def change(data=None, **meta):
    metadata = {"record-type": "data", "operation": "insert", "schema-name": "s", "table-name": "t", "timestamp": "2013-01-01T06:00:00Z"}
    return {
        "data": {"a": 1} if data is None else data,
        "metadata": {**metadata, **{key.replace("_", "-"): each for key, each in meta.items()}},
    }


def run(*records, schema=SCHEMA, **options):
    raw = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    return compile_chain(Dms(**options), schema, [], Resources(), ticks()).run(batch(raw), "s")


def test_rows_have_their_operation_and_metadata():
    got = run(change(transaction_id=9, commit_timestamp="2013-01-01T05:00:00.5Z"), change({"a": 2}, operation="delete", timestamp=None))
    assert got.frame.select("operation", "transaction_id", "a").rows() == [("insert", 9, 1), ("delete", None, 2)]
    assert got.frame["changed_at"].dt.epoch("ms").to_list() == [1357016400500, None]


def test_control_records_and_other_tables_are_filtered():
    got = run({"metadata": {"record-type": "control", "operation": "drop-table"}}, change(table_name="u"), change(), table="s.t")
    assert got.frame["_row"].to_list() == [2]
    assert got.settled["outcome"].to_list() == [Outcome.FILTERED] * 2


def test_without_a_schema_the_row_is_text():
    assert (
        run(b'{"data": {"a" : 1}, "metadata": {"record-type": "data", "operation": "load"}}', schema=None).frame["data"][0] == '{"a" : 1}'
    )


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (change([1]), "bad_envelope"),
        (change(record_type="other"), "bad_envelope"),
        (change(timestamp="noon"), "bad_envelope"),
        (change(transaction_id=2**63), "bad_envelope"),
        ({"data": {"a": 1}}, "bad_envelope"),
        (b'{"metadata": {"record-type": "data", "operation": "load"}}', "bad_envelope"),
        (b'{"data": {"a": 1, "b": "\xff"}, "metadata": {"record-type": "data", "operation": "load"}}', "bad_envelope"),
        (change({"a": "x"}), "wrong_type:a"),
    ],
)
def test_a_record_that_is_not_a_row_is_rejected(record, reason):
    got = run(change(), record)
    assert got.frame["_row"].to_list() == [0]
    assert got.settled["reason"].to_list() == [reason]


def test_a_table_must_be_named_with_its_schema():
    with pytest.raises(ValidationError):
        Dms(table="flights")


def updated(before, data, **meta):
    return {**change(data, operation="update", **meta), "before-image": before}


WIDE = parse_schema({"a": "int64", "b": "string?", "d": "decimal(6,2)?", "o": "object{x: int64}?", "j": "json?"})
IMAGES = {"before_image": "before-image"}


def test_a_row_before_an_update_is_an_object_of_the_same_columns():
    whole = {"a": 1, "b": "x", "d": "1.50", "o": {"x": 3}, "j": [1]}
    got = run(updated(whole, {"a": 1, "b": "y"}), updated({}, {"a": 2}), change({"a": 3}), schema=WIDE, **IMAGES)
    assert got.frame.schema["before"] == pl.Struct(WIDE.polars())
    first, second, third = got.frame["before"].to_list()
    assert first == {"a": 1, "b": "x", "d": Decimal("1.50"), "o": {"x": 3}, "j": "[1]"}
    assert second == dict.fromkeys(("a", "b", "d", "o", "j"))
    assert third is None
    assert got.frame["b"].to_list() == ["y", None, None]


def test_the_field_of_before_images_has_the_name_that_the_task_gives_it():
    record = {**change({"a": 1}, operation="update"), "old values": {"a": 9}, "before-image": {"a": 8}}
    assert run(record, before_image="old values").frame["before"].to_list() == [{"a": 9}]
    assert "before" not in run(record).frame.columns


def test_without_a_schema_the_row_before_is_text():
    got = run(updated({"a": 1}, {"a": 2}), change({"a": 3}), schema=None, **IMAGES)
    assert got.frame["before"].to_list() == ['{"a": 1}', None]


def test_an_update_of_a_key_is_a_deletion_of_the_old_one_and_a_row():
    got = run(updated({"a": 1, "b": "x"}, {"a": 2, "b": "y"}), change({"a": 3}), schema=WIDE, keys="a", **IMAGES)
    rows = got.frame.select("_row", "operation", "a", "b").rows()
    assert rows == [(0, "delete", 1, "x"), (0, "update", 2, "y"), (1, "insert", 3, None)]
    assert [each and each["a"] for each in got.frame["before"]] == [1, 1, None]


def test_the_rest_of_a_key_is_that_of_the_new_row():
    schema = parse_schema({"a": "int64", "b": "string"})
    got = run(updated({"a": 1}, {"a": 2, "b": "x"}), schema=schema, keys=["a", "b"], **IMAGES)
    assert got.frame.select("operation", "a", "b").rows() == [("delete", 1, "x"), ("update", 2, "x")]


@pytest.mark.parametrize(
    ("before", "operation"),
    [
        ({}, "update"),
        ({"a": 2}, "update"),
        ({"a": 2.0}, "update"),
        ({"a": None}, "update"),
        ({"b": "x"}, "update"),
        (None, "update"),
        ({"a": 1}, "delete"),
    ],
)
def test_a_key_that_is_not_known_to_have_changed_is_one_row(before, operation):
    schema = parse_schema({"a": "float64", "b": "string?"})
    got = run({**updated(before, {"a": 2}), "metadata": change(operation=operation)["metadata"]}, schema=schema, keys="a", **IMAGES)
    assert got.frame.select("operation", "a").rows() == [(operation, 2)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (updated([1], {"a": 1}), "bad_envelope"),
        (updated("x", {"a": 1}), "bad_envelope"),
        (updated({"a": 1, "d": "x"}, {"a": 1}), "wrong_type:before.d"),
        (updated({"d": "x"}, {"a": "y"}), "wrong_type:a"),
        (b'{"before-image": {"b": "\xff"}, "data": {"a": 1}, "metadata": {"record-type": "data", "operation": "update"}}', "bad_envelope"),
    ],
)
@pytest.mark.parametrize("keys", [(), ("a",)])
def test_a_row_before_that_cannot_be_read_is_a_dead_letter(record, reason, keys):
    got = run(change(), record, change({"a": 2}), schema=WIDE, keys=keys, **IMAGES)
    assert got.frame["_row"].to_list() == [0, 2]
    assert got.settled["reason"].to_list() == [reason]


def test_before_images_of_other_tables_are_not_read():
    got = run(updated({"a": "not a number"}, {"a": 1}, table_name="u"), change(), table="s.t", **IMAGES)
    assert got.settled["outcome"].to_list() == [Outcome.FILTERED]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"keys": "a"}, "`keys` needs `before_image`"), ({"before_image": "data"}, "'data' is one that each has anyway")],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Dms(**options)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"a": "int64"}, "has 'k' among its `keys`, and the schema has no such column"),
        ({"k": "int64", "before": "string?"}, "column 'before' is one of those that the decoder dms adds"),
    ],
)
def test_a_schema_without_the_key_or_with_a_column_of_the_same_name_is_refused(schema, message):
    with pytest.raises(SchemaMismatch, match=message):
        Dms(keys="k", **IMAGES).output(parse_schema(schema))
