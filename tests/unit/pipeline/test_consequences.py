"""What a rollout of a changed file does to what is there already."""

import pytest

from stream.pipeline.consequences import consequences
from stream.pipeline.model import Pipeline

S3 = {"s3": {"url": "s3://lake/flights/"}}
TABLE = {
    "redshift": {
        "staging": "s3://lake/staged/",
        "table": "events",
        "workgroup": "analytics",
        "database": "dev",
        "iam_role": "default",
        "name": "rs",
    }
}


def pipeline(sinks=(S3,), **changes):
    given = {
        "application": "flights",
        "source": {"kinesis": {"stream": "flights"}, "schema": {"carrier": "string", "n": "int64"}},
        "sinks": list(sinks),
        "state": "s3://lake/_stream/",
        "coordination": "native",
    }
    return Pipeline.model_validate(given | changes)


def reported(new, old=None):
    return {each.what: each for each in consequences(old or pipeline(), new)}


def test_a_change_of_stages_or_flush_alone_has_none():
    assert reported(pipeline(stages=[{"filter": "n > 1"}], flush={"age": "5s"})) == {}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"application": "trips"}, "application: flights -> trips"),
        ({"state": "s3://lake/other/"}, "state: s3://lake/_stream/ -> s3://lake/other/"),
    ],
)
def test_a_log_of_its_own_would_write_everything_again(changes, what):
    found = reported(pipeline(**changes))
    assert list(found) == [what]
    assert found[what].doubles
    assert "everything from `start: trim_horizon` on is processed again" in found[what].follows
    assert "s3://lake/flights/), where records would be twice" in found[what].follows
    elsewhere = reported(pipeline(sinks=({"s3": {"url": "s3://sea/"}},), **changes))
    assert not elsewhere[what].doubles
    assert "sink s3: s3://lake/flights/ -> s3://sea/" in elsewhere


def test_a_sink_that_is_renamed_stays_and_others_count_as_removed_and_added():
    assert reported(pipeline(sinks=({"s3": {"url": "s3://lake/flights/", "name": "clean"}},)))["sink s3 -> clean"].follows.startswith(
        "nothing"
    )
    found = reported(pipeline(sinks=({"s3": {"url": "s3://sea/", "name": "sea"}},)), pipeline(sinks=(S3, TABLE)))
    assert set(found) == {"sink s3 is removed", "sink rs is removed", "sink sea is added"}
    assert found["sink rs is removed"].follows.endswith("rows that wait for its table are not loaded any more")


def test_another_table_and_another_mode_hold_for_what_comes():
    found = reported(pipeline(sinks=({"redshift": TABLE["redshift"] | {"table": "trips"}},)), pipeline(sinks=(TABLE,)))
    assert list(found) == ["sink rs: events -> trips"]
    upsert = {"redshift": TABLE["redshift"] | {"mode": "upsert", "keys": ["carrier"]}}
    assert set(reported(pipeline(sinks=(upsert,)), pipeline(sinks=(TABLE,)))) == {
        "sink rs.mode: append -> upsert",
        "sink rs.keys:  -> carrier",
    }


LAKE = {"iceberg": {"location": "s3://lake/table/", "table": "lake.events", "name": "rs"}}


def test_another_kind_of_table_gets_later_rows_only_and_those_that_wait_are_lost_to_the_old_one():
    found = reported(pipeline(sinks=(LAKE,)), pipeline(sinks=(TABLE,)))
    assert list(found) == ["sink rs: redshift -> iceberg"]
    follows = found["sink rs: redshift -> iceberg"].follows
    assert "lake.events gets later records only" in follows
    assert "Rows that wait for events are not loaded any more" in follows
    # Tables of two kinds may have one name, and so may a file sink.
    same = {"iceberg": LAKE["iceberg"] | {"table": "lake.same"}}
    assert list(reported(pipeline(sinks=(same,)), pipeline(sinks=({"redshift": TABLE["redshift"] | {"table": "lake.same"}},)))) == [
        "sink rs: redshift -> iceberg"
    ]
    files = reported(pipeline(sinks=(LAKE,)), pipeline(sinks=({"s3": {**S3["s3"], "name": "rs"}},)))
    assert "wait" not in files["sink rs: s3 -> iceberg"].follows


def test_two_iceberg_tables_share_the_files_of_the_first():
    other = {"iceberg": LAKE["iceberg"] | {"table": "lake.others"}}
    assert (
        "which are files of lake.events, too"
        in reported(pipeline(sinks=(other,)), pipeline(sinks=(LAKE,)))["sink rs: lake.events -> lake.others"].follows
    )


def test_streams_that_come_and_go_and_a_start_that_changes_nothing():
    other = {"kinesis": {"streams": ["flights", "trains"]}, "schema": {"carrier": "string", "n": "int64"}}
    assert list(reported(pipeline(source=other))) == ["stream trains is added"]
    assert list(reported(pipeline(), pipeline(source=other))) == ["stream trains is removed"]
    start = {"kinesis": {"stream": "flights", "start": "latest"}, "schema": {"carrier": "string", "n": "int64"}}
    assert reported(pipeline(source=start))["start: trim_horizon -> latest"].follows.startswith("nothing for streams that were read before")


def test_another_condition_holds_for_what_comes():
    conditioned = {"s3": {**S3["s3"], "where": "n > 1"}}
    told = reported(pipeline([conditioned]))
    assert list(told) == ["sink s3.where: all rows -> n > 1"]
    assert not told["sink s3.where: all rows -> n > 1"].doubles
    assert reported(pipeline([conditioned]), pipeline([conditioned])) == {}


@pytest.mark.parametrize("back", [False, True], ids=["to the ARN", "to the name"])
def test_a_stream_that_is_called_otherwise_may_be_read_again(back):
    arn = "arn:aws:kinesis:eu-west-1:444455556666:stream/flights"
    shared = pipeline(source={"kinesis": {"stream": arn}, "schema": {"carrier": "string", "n": "int64"}})
    named, given = "flights", "flights@444455556666.eu-west-1"
    before, after = (shared, pipeline()) if back else (pipeline(), shared)
    added, removed = (named, given) if back else (given, named)
    found = reported(after, before)
    assert set(found) == {f"stream {removed} is removed", f"stream {added} is added"}
    assert found[f"stream {added} is added"].doubles
    assert f"the same stream as {removed}" in found[f"stream {added} is added"].follows
