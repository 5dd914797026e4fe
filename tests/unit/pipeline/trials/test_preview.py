from __future__ import annotations

import json

from stream.pipeline.model import Pipeline
from stream.pipeline.plan import Change
from stream.pipeline.trials.preview import Ended, Passed, Rejected, preview
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from tests.frames import batch
from tests.unit.pipeline.definitions import least

RECORDS = [b'{"carrier": "UA", "delay": 20}', b"{", b'{"carrier": "AA", "delay": 1}', b'{"carrier": "DL", "delay": 30}']


def seen(records=RECORDS, show=3, **changes):
    stages = [{"filter": "delay > 10"}, {"derive": {"late": "delay > 25"}}, {"select": {"drop": ["delay"]}}]
    sinks = [{"s3": {"url": "s3://lake/flights/", "partition_by": ["carrier"]}}]
    pipeline = Pipeline.model_validate(least(**{"stages": stages, "sinks": sinks, **changes}))
    chain = compile_chain(pipeline.source.decode, pipeline.source.record_schema(), pipeline.stages, Resources(), lambda: 0.0)
    return preview(chain, pipeline, batch(records), show)


def test_each_step_shows_what_became_of_each_record():
    decode, where, derive, select = seen().stages
    assert decode.passed[0] == Passed(1, {"_data": RECORDS[0].decode()}, {"carrier": "UA", "delay": 20})
    assert decode.ended == (Ended(2, "dead_lettered", "json_syntax"),)
    assert decode.reasons == {"json_syntax": 1}
    assert (where.rows_in, where.rows_out, where.outcomes) == (3, 2, {"filtered": 1})
    assert where.ended == (Ended(3, "filtered", "filtered"),)
    assert where.passed == (Passed(1, {"carrier": "UA", "delay": 20}, {"carrier": "UA", "delay": 20}),)
    assert derive.changes == (Change("added", "late", after="bool"),)
    assert derive.passed[0].after == {"carrier": "UA", "delay": 20, "late": False}
    assert select.passed[0].after == {"carrier": "UA", "late": False}


def test_counts_cover_all_records_and_examples_the_first_ones():
    found = seen(show=0)
    assert [stage.passed for stage in found.stages] == [()] * 4
    assert [stage.rows_out for stage in found.stages] == [3, 2, 2, 2]
    assert (found.records, found.payload_bytes) == (4, sum(map(len, RECORDS)))


def test_partitions_and_bytes_are_those_of_the_files():
    found = seen()
    assert found.partitions == {"s3": {"carrier=DL": 1, "carrier=UA": 1}}
    assert found.file_bytes > 0


def test_a_record_may_become_several_rows():
    source = {**least()["source"], "decode": "json_lines"}
    found = seen(
        [b'{"carrier": "UA", "delay": 20}\n{"carrier": "AA", "delay": 40}'], source=source, stages=[{"derive": {"x": "delay + 1"}}]
    )
    assert [(each.record, each.before.get("_data") is None, each.after["carrier"]) for each in found.stages[0].passed] == [
        (1, False, "UA"),
        (1, True, "AA"),
    ]
    assert [(each.before["delay"], each.after["x"]) for each in found.stages[1].passed] == [(20, 21), (40, 41)]


def test_a_payload_that_is_not_text_is_shown_too():
    assert seen([b"\xff\x00{"]).stages[0].ended == (Ended(1, "dead_lettered", "invalid_utf8"),)


def test_a_wrong_value_is_found_inside_of_an_envelope_and_before_a_change():
    metadata = {"record-type": "data", "operation": "update"}

    def change(delay, before):
        return json.dumps({"data": {"carrier": "UA", "delay": delay}, "before-image": before, "metadata": metadata}).encode()

    decode = {"dms": {"before_image": "before-image", "keys": "carrier"}}
    records = [change("late", {}), change(1, {"delay": "never"}), change("late", {"carrier": "AA"})]
    source = {**least()["source"], "decode": decode}
    found = seen(records, show=1, source=source).stages[0].rejected
    assert found == (
        Rejected("wrong_type:delay", 1, "delay", "late", declared="int64"),
        Rejected("wrong_type:before.delay", 2, "before.delay", "never", declared="int64"),
    )
    [moved] = seen(records[2:], show=1, source=source).stages[0].rejected
    assert (moved.reason, moved.column) == ("wrong_type:delay", "_data")


def test_the_first_record_rejected_for_each_reason_is_shown_with_the_value_that_is_wrong():
    records = [*RECORDS, b'{"carrier": "UA", "delay": "late"}', b'{"carrier": "UA", "delay": "never"}']
    found = seen(records, show=1, stages=[{"validate": {"columns": {"carrier": {"one_of": ["UA", "DL"]}}}}])
    decode, validate = found.stages
    assert decode.rejected == (
        Rejected("wrong_type:delay", 5, "delay", "late", declared="int64"),
        Rejected("json_syntax", 2, "_data", "{"),
    )
    assert validate.rejected == (Rejected("invalid:carrier:one_of", 3, "carrier", "AA"),)
    assert found.dead_letters == 4


def test_what_a_stage_raises_is_shown_with_the_row():
    schema = {"carrier": "string", "at": "string"}
    source = {**least()["source"], "schema": schema}
    found = seen([b'{"carrier": "UA", "at": "soon"}'], source=source, stages=[{"derive": {"time": "STRPTIME(at, '%Y-%m-%d')"}}])
    (only,) = found.stages[1].rejected
    assert (only.reason, only.record, only.value) == ("stage_error:InvalidOperationError", 1, {"carrier": "UA", "at": "soon"})
    assert "'at'" in only.error
    assert "soon" in only.error


def test_values_of_sensitive_columns_are_hidden_in_what_was_rejected_too():
    schema = {"carrier": "string", "at": "string"}
    records = [b'{"carrier": "UA", "at": "soon"}', b'{"carrier": 7, "at": "later"}']
    stages = [{"derive": {"time": "STRPTIME(at, '%Y-%m-%d')"}}, {"select": ["carrier"]}]
    sinks = [{"s3": {"url": "s3://lake/flights/"}}]
    source = {**least()["source"], "schema": schema}
    found = seen(records, source=source, stages=stages, sinks=sinks, sensitive=["at"])
    shown = [each for stage in found.stages for each in stage.rejected]
    assert [each.record for each in shown] == [2, 1]
    assert not any(word in str(shown) for word in ("soon", "later"))
    assert "carrier': 'UA'" in str(shown)
