from __future__ import annotations

from stream.pipeline.model import Pipeline
from stream.pipeline.plan import Change
from stream.pipeline.preview import Ended, Passed, preview
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
