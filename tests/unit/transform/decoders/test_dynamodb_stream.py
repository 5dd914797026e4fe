import json
from decimal import Decimal

import polars as pl
import pytest

from stream.transform.decoders.dynamodb_stream import DynamodbStream
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from stream.transform.types import parse_schema
from tests.frames import batch, ticks

SCHEMA = parse_schema({"id": "string", "n": "decimal(38,2)?", "m": "object{a: bool?}?", "l": "list<int64>?", "b": "binary?", "x": "json?"})
ITEM = {
    "id": {"S": "i1"},
    "n": {"N": "12345678901234567890.25"},
    "m": {"M": {"a": {"BOOL": True}}},
    "l": {"NS": ["1", "2"]},
    "b": {"B": "eA=="},
    "x": {"L": [{"NULL": True}, {"SS": ["q"]}]},
}


def change(name="INSERT", new=ITEM, old=None, **more):
    images = {key: image for key, image in {"NewImage": new, "OldImage": old}.items() if image is not None}
    body = {"ApproximateCreationDateTime": 1357020000000, "Keys": {"id": {"S": "i1"}}, **images, **more}
    return {
        "awsRegion": "us-east-1",
        "eventID": "e",
        "eventName": name,
        "tableName": "t",
        "dynamodb": body,
        "recordFormat": "application/json",
    }


def run(*records, schema=SCHEMA, **options):
    raw = [json.dumps(record).encode() for record in records]
    return compile_chain(DynamodbStream(**options), schema, [], Resources(), ticks()).run(batch(raw), "s")


def test_attributes_become_typed_columns():
    (row,) = run(change()).frame.to_dicts()
    assert (str(row["n"]), row["m"], row["l"], row["b"], row["x"]) == ("12345678901234567890.25", {"a": True}, [1, 2], b"x", '[null,["q"]]')
    assert (row["event_id"], row["event_name"], row["table_name"]) == ("e", "INSERT", "t")


def test_a_removed_item_has_its_keys_or_its_old_image():
    gone = change("REMOVE", new=None, old={"id": {"S": "i1"}, "n": {"N": "7"}})
    assert run(gone).frame.select("id", "n").rows() == [("i1", None)]
    assert [int(n) for n in run(gone, image="old").frame["n"]] == [7]


def test_the_precision_of_the_time_is_respected():
    micros = change(ApproximateCreationDateTime=1357020000000001, ApproximateCreationDateTimePrecision="MICROSECOND")
    assert run(micros, change()).frame["changed_at"].dt.epoch("us").to_list() == [1357020000000001, 1357020000000000]


def test_without_a_schema_the_item_is_text():
    assert run(change(new={"id": {"S": "é"}}), schema=None).frame["item"].to_list() == ['{"id":"é"}']


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (change("OTHER"), "bad_envelope"),
        (change(new={"id": {"S": 5}}), "bad_envelope"),
        (change(new={"id": {"N": "1e"}}), "bad_envelope"),
        (change(new={"id": {"N": "1", "S": "x"}}), "bad_envelope"),
        (change(new={"id": {"L": [5]}}), "bad_envelope"),
        (change(ApproximateCreationDateTimePrecision="HOUR"), "bad_envelope"),
        (change(ApproximateCreationDateTime=10**18), "bad_envelope"),
        ({"dynamodb": {}}, "bad_envelope"),
        (change(new={"id": {"N": "5"}}), "wrong_type:id"),
        (change(new={"n": {"N": "5"}}), "missing_field:id"),
    ],
)
def test_a_record_that_is_not_a_change_is_rejected(record, reason):
    got = run(change(), record)
    assert got.frame.height == 1
    assert got.settled["reason"].to_list() == [reason]


def test_both_images_are_the_columns_and_the_item_before():
    old = {"id": {"S": "i1"}, "n": {"N": "7"}, "x": {"BOOL": True}}
    got = run(change("MODIFY", old=old), change(), change("REMOVE", new=None, old=old), image="both")
    assert got.frame.schema["before"] == pl.Struct(SCHEMA.polars())
    first, second, third = got.frame["before"].to_list()
    assert first == third == {"id": "i1", "n": Decimal(7), "m": None, "l": None, "b": None, "x": "true"}
    assert second is None
    assert [str(n) for n in got.frame["n"]] == ["12345678901234567890.25"] * 2 + ["None"]


def test_an_old_image_that_does_not_fit_the_schema_is_a_dead_letter_if_it_is_read():
    record = change("MODIFY", old={"id": {"S": "i1"}, "n": {"S": "x"}})
    assert run(record).frame.height == 1
    assert run(record, image="both").settled["reason"].to_list() == ["wrong_type:before.n"]


def test_without_a_schema_the_item_before_is_text():
    record = change("MODIFY", old={"n": {"N": "7"}})
    assert run(record, schema=None, image="both").frame["before"].to_list() == ['{"n":7}']
