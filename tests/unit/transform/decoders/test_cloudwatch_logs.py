import gzip
import json

import pytest

from stream.batch import Outcome
from stream.transform.decoders.cloudwatch_logs import CloudwatchLogs
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.types import parse_schema
from tests.frames import batch, ticks


def document(*messages, kind="DATA_MESSAGE", **more):
    events = [{"id": str(at), "timestamp": 1357020000000 + at, "message": message} for at, message in enumerate(messages)]
    return {"messageType": kind, "owner": "1", "logGroup": "g", "logStream": "s", "subscriptionFilters": ["f"], "logEvents": events, **more}


def run(*documents, schema=None, **options):
    records = [each if isinstance(each, bytes) else gzip.compress(json.dumps(each).encode()) for each in documents]
    return compile_chain(CloudwatchLogs(**options), schema, [], Resources(), ticks()).run(batch(records), "s")


def test_without_a_schema_messages_stay_text():
    got = run(document("one", "two"), document("three"))
    assert got.frame.select("_row", "event_id", "message").rows() == [(0, "0", "one"), (0, "1", "two"), (1, "0", "three")]
    assert got.frame["event_time"].dt.epoch("ms").to_list() == [1357020000000, 1357020000001, 1357020000000]
    assert got.frame["log_group"].unique().to_list() == ["g"]


def test_with_a_schema_messages_are_json_and_a_record_is_rejected_as_a_whole():
    got = run(document('{"n":1}', '{"n":2}'), document('{"n":3}', "oops"), schema=parse_schema({"n": "int64"}))
    assert got.frame.select("_row", "n", "owner").rows() == [(0, 1, "1"), (0, 2, "1")]
    assert got.settled.rows() == [(1, Outcome.DEAD_LETTERED, "decode", "json_syntax")]


def test_control_messages_are_filtered():
    got = run(document("CWL CONTROL MESSAGE: Checking health", kind="CONTROL_MESSAGE"), document())
    assert got.settled["outcome"].to_list() == [Outcome.FILTERED] * 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"plain", "bad_compression"),
        (gzip.compress(b"", mtime=0), "empty_record"),
        (gzip.compress(b"{", mtime=0), "bad_envelope"),
        (gzip.compress(b"[]", mtime=0), "bad_envelope"),
        (gzip.compress(b'{"a":' * 200, mtime=0), "json_too_deep"),
        (document("x", kind="OTHER"), "bad_envelope"),
        (document("x", logEvents=[{"id": "1", "timestamp": 10**17, "message": "x"}]), "bad_envelope"),
        (document("x", logEvents=[{"id": 1}]), "bad_envelope"),
        (gzip.compress(json.dumps(document("x")).encode().replace(b'"x"', b'"\xff"'), mtime=0), "bad_envelope"),
    ],
)
def test_a_record_that_is_not_an_envelope_is_rejected(record, reason):
    got = run(document("a"), record)
    assert got.frame["_row"].to_list() == [0]
    assert got.settled["reason"].to_list() == [reason]


def test_the_size_of_a_record_is_limited():
    got = run(document("x" * 5000), compression={"codec": "gzip", "max_bytes": 4000})
    assert got.settled["reason"].to_list() == ["decompressed_too_large"]


def test_a_schema_must_not_name_columns_of_the_envelope():
    with pytest.raises(SchemaMismatch, match="is one of those that the decoder"):
        CloudwatchLogs().output(parse_schema({"owner": "string"}))
