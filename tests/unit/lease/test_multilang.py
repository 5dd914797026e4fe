"""The daemon's lines, as KCL 2.5 and 3.1 write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from stream.batch import ARRIVAL, DATA, RAW_SCHEMA, SEQUENCE, SUBSEQUENCE
from stream.errors import Fatal
from stream.lease import multilang as ml

RECORDS = (
    b'{"action":"processRecords","records":[{"action":"record","data":"b25l","partitionKey":"k","sequenceNumber":"49590338271490256608559692",'
    b'"subSequenceNumber":3,"approximateArrivalTimestamp":1767225600123,"unheardOf":1}],"millisBehindLatest":7,"later":true}'
)


def test_records_become_the_same_batch_as_from_our_own_source():
    message = ml.parse(RECORDS)
    assert isinstance(message, ml.ProcessRecords)
    batch = ml.batch_of(message.records)
    assert batch.frame.schema == RAW_SCHEMA
    assert batch.payload_bytes == 3
    row = batch.frame.row(0, named=True)
    assert (row[SEQUENCE], row[SUBSEQUENCE], row[DATA]) == ("49590338271490256608559692", 3, b"one")
    assert row[ARRIVAL] == datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)
    assert ml.batch_of([]).frame.schema == RAW_SCHEMA


@pytest.mark.parametrize("action", ["initialize", "processRecords", "leaseLost", "shardEnded", "shutdownRequested", "shutdown"])
def test_every_request_is_confirmed_by_its_name(action):
    message = ml.parse(json.dumps({"action": action, "shardId": "s", "records": [], "reason": "ZOMBIE"}).encode())
    assert json.loads(ml.done(message)) == {"action": "status", "responseFor": action}


def test_a_checkpoint_names_its_record_or_the_end_of_the_shard():
    assert json.loads(ml.checkpoint("12", 3)) == {"action": "checkpoint", "sequenceNumber": "12", "subSequenceNumber": 3}
    assert json.loads(ml.checkpoint(None, None)) == {"action": "checkpoint", "sequenceNumber": None, "subSequenceNumber": None}
    assert ml.parse(b'{"action":"checkpoint","error":"ThrottlingException"}') == ml.CheckpointDone("ThrottlingException")


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"action":"unheardOf"}', b'{"action":"processRecords","records":[{"data":"!"}]}', b"\xff"])
def test_a_line_that_is_not_a_message_is_refused(line):
    with pytest.raises(Fatal, match="not a known message"):
        ml.parse(line)
