"""Which pipelines a host refuses, and where in the file `stream check` says so."""

import pytest

from stream.errors import DefinitionError
from stream.pipeline.checks.host_names import Host
from stream.pipeline.checks.hosts import misfits, refuse
from stream.pipeline.checks.lint import check_content
from stream.pipeline.findings import Severity
from stream.pipeline.model import Pipeline
from tests.unit.pipeline.definitions import least

OBJECTS = {"s3": {"url": "s3://archive/in/"}, "schema": {"carrier": "string"}}
REDSHIFT = {"redshift": {"staging": "s3://lake/staging/", "table": "t", "database": "d", "workgroup": "analytics", "iam_role": "default"}}


def pipeline(**changes):
    return Pipeline.model_validate(least() | changes)


def errors(host, **changes):
    return [each.message for each in misfits(pipeline(**changes), host) if each.severity is Severity.ERROR]


def notes(host, **changes):
    return [each.message for each in misfits(pipeline(**changes), host) if each.severity is Severity.NOTE]


@pytest.mark.parametrize("host", Host)
def test_a_pipeline_from_a_stream_to_files_on_s3_fits_every_host(host):
    assert list(misfits(pipeline(), host)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": "file:./state"}, r"state is at file:\./state"),
        ({"state": "file:/tmp/state"}, "state is at file:/tmp/state"),
        ({"sinks": [{"s3": {"url": "file:lake", "name": "rows"}}]}, "the sink rows is at file:lake"),
    ],
)
def test_a_disk_that_goes_with_the_function_is_refused_there_and_only_there(changes, says):
    refuse(misfits(pipeline(**changes), Host.SERVICE))
    refuse(misfits(pipeline(**changes), Host.FIREHOSE))
    with pytest.raises(DefinitionError, match=says):
        refuse(misfits(pipeline(**changes), Host.FUNCTION))


def test_a_file_system_that_outlives_the_function_is_a_place():
    assert errors(Host.FUNCTION, state="file:/mnt/state") == []


@pytest.mark.parametrize("host", [Host.FUNCTION, Host.FIREHOSE])
def test_objects_are_no_stream(host):
    with pytest.raises(DefinitionError, match="use `stream run`"):
        refuse(misfits(pipeline(source=OBJECTS, stages=[]), host))


def test_firehose_has_one_destination_and_writes_it_itself():
    files = least()["sinks"][0]
    (said,) = errors(Host.FIREHOSE, sinks=[files, REDSHIFT])
    assert said.startswith("the sink redshift would get nothing")
    (said,) = errors(Host.FIREHOSE, sinks=[REDSHIFT])
    assert said.startswith("the sink redshift is a `redshift`, and under Firehose it is Firehose that writes")
    assert len(errors(Host.FIREHOSE, sinks=[REDSHIFT, files])) == 2


@pytest.mark.parametrize(("format_", "count"), [("parquet", 0), ("ndjson", 0), ("csv", 1), ("avro", 1), ("arrow", 1)])
def test_rows_for_firehose_are_json_lines(format_, count):
    assert len(errors(Host.FIREHOSE, sinks=[{"s3": {"url": "s3://lake/a/", "format": format_}}])) == count


def test_a_table_needs_a_schedule_in_a_function():
    (said,) = notes(Host.FUNCTION, sinks=[least()["sinks"][0], REDSHIFT])
    assert said == "invocations for records seal rows of the table t, and only scheduled ones load them"
    assert errors(Host.FUNCTION, sinks=[REDSHIFT]) == []
    assert notes(Host.SERVICE, sinks=[REDSHIFT]) == []


def test_duplicates_cannot_be_found_under_firehose():
    (said,) = errors(Host.FIREHOSE, stages=[{"dedupe": "carrier"}])
    assert said.startswith("stage 1 (`dedupe`) finds duplicates among the records that commit together, and under Firehose nothing commits")
    assert errors(Host.FUNCTION, stages=[{"dedupe": "carrier"}]) == []


def test_a_stage_over_several_rows_is_noted_and_one_over_each_row_is_not():
    (said,) = notes(Host.FIREHOSE, stages=[{"sql": {"query": "SELECT *, SUM(dep_delay) OVER () AS total FROM batch"}}])
    assert said.startswith("stage 1 (`sql`) looks at several rows")
    assert notes(Host.FIREHOSE, stages=[{"filter": "dep_delay > 0"}]) == []


def test_records_of_several_rows_are_noted_where_there_are_partitions():
    source = {**least()["source"], "decode": "json_lines"}
    with_partitions = [{"s3": {"url": "s3://lake/a/", "partition_by": "carrier"}}]
    (said,) = notes(Host.FIREHOSE, source=source, sinks=with_partitions)
    assert said.startswith("a record may become several rows")
    assert notes(Host.FIREHOSE, sinks=with_partitions) == notes(Host.FIREHOSE, source=source) == []
    moved = {**source, "decode": {"dms": {"before_image": "before-image", "keys": "carrier"}}}
    assert notes(Host.FIREHOSE, source=moved, sinks=with_partitions) == [said]
    assert notes(Host.FIREHOSE, source={**source, "decode": "dms"}, sinks=with_partitions) == []


def test_what_must_exist_before_is_not_looked_for():
    (said,) = notes(Host.FIREHOSE, requires=["s3://lake/done"])
    assert said.startswith("the objects of `requires` are not looked for")


TEXT = b"""\
application: orders
source:
  kinesis: {stream: orders}
  schema: {id: int64, day: string}
stages:
  - filter: id > 0
  - dedupe: id
sinks:
  - files:
      url: s3://lake/orders/
      format: avro
state: s3://state/
"""


def test_check_says_where_in_the_file_and_for_which_host(tmp_path):
    found = {host: check_content(TEXT, "p.yaml", tmp_path, {}, host) for host in Host}
    assert found[Host.SERVICE].ok
    assert found[Host.FUNCTION].ok
    assert [(each.line, each.column, each.code) for each in found[Host.FIREHOSE].findings] == [
        (7, 5, "not_in_firehose"),
        (9, 5, "not_in_firehose"),
    ]
    assert not found[Host.FIREHOSE].ok


NESTED = b"""\
application: orders
source:
  kinesis: {stream: orders}
  schema: {id: int64, parts: list<binary>}
sinks:
  - s3: {url: "s3://lake/orders/"}
state: s3://state/
"""


def test_under_firehose_columns_must_fit_json_even_if_firehose_makes_parquet_of_it(tmp_path):
    assert check_content(NESTED, "p.yaml", tmp_path, {}, Host.FUNCTION).findings == ()
    (said,) = check_content(NESTED, "p.yaml", tmp_path, {}, Host.FIREHOSE).findings
    assert (said.line, said.code) == (6, "schema_mismatch")
    assert said.message.endswith("has no representation in ndjson")
