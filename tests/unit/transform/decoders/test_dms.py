import json

import pytest
from pydantic import ValidationError

from stream.batch import Outcome
from stream.transform.decoders.dms import Dms
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
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
