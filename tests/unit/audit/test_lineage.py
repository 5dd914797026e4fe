"""Events are compared with those that OpenLineage's own classes, generated from its JSON schema, write for the same content."""

import json
from dataclasses import replace

import pytest
from openlineage.client.generated import base
from openlineage.client.generated.column_lineage_dataset import ColumnLineageDatasetFacet, Fields, InputField, Transformation
from openlineage.client.generated.error_message_run import ErrorMessageRunFacet
from openlineage.client.generated.input_statistics_input_dataset import InputStatisticsInputDatasetFacet
from openlineage.client.generated.job_type_job import JobTypeJobFacet
from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet
from openlineage.client.generated.processing_engine_run import ProcessingEngineRunFacet
from openlineage.client.generated.schema_dataset import SchemaDatasetFacet, SchemaDatasetFacetFields
from openlineage.client.serde import Serde

from stream import events
from stream.audit.lineage import LineageJob, Read, RunState, RunTotals, place_dataset, run_event, run_id, stream_dataset
from tests.sealed import StillClock

CLASSES = {
    "columnLineage": ColumnLineageDatasetFacet,
    "schema": SchemaDatasetFacet,
    "inputStatistics": InputStatisticsInputDatasetFacet,
    "outputStatistics": OutputStatisticsOutputDatasetFacet,
    "errorMessage": ErrorMessageRunFacet,
    "processing_engine": ProcessingEngineRunFacet,
    "jobType": JobTypeJobFacet,
}
JOB = LineageJob(
    namespace="prod",
    name="flights",
    sources=(stream_dataset("events", "eu-west-1", None, [("n", "Int64")]), stream_dataset("more", "eu-west-1", None, [])),
    targets=(
        replace(
            place_dataset("s3://lake/flights/", "s3", [("n", "Int64"), ("kind", "String")]),
            origins={"n": (("n", False),), "kind": (("kind", True), ("n", False))},
        ),
    ),
    ledger="s3://lake/_stream/flights/ledger/v1/events/",
    log="s3://lake/_stream/flights/commits/events/",
    pipeline="5f15",
    build="0.1.0",
)


def facets(found):
    """The same facets as OpenLineage's classes; an unknown one becomes additional properties of a run facet."""
    made = {}
    for name, facet in found.items():
        content = {key: value for key, value in facet.items() if not key.startswith("_")}
        if name == "schema":
            content["fields"] = [SchemaDatasetFacetFields(**each) for each in content["fields"]]
        if name == "columnLineage":
            content["dataset"] = None
            content["fields"] = {
                column: Fields(
                    [
                        InputField(**{**each, "transformations": [Transformation(**it) for it in each["transformations"]]})
                        for each in entry["inputFields"]
                    ]
                )
                for column, entry in content["fields"].items()
            }
        producer = {"producer": facet["_producer"]}
        made[name] = (
            CLASSES[name](**content, **producer) if name in CLASSES else base.RunFacet(**producer).with_additional_properties(**content)
        )
    return made


def as_openlineage_writes(event):
    return base.RunEvent(
        eventTime=event["eventTime"],
        producer=event["producer"],
        eventType=base.EventType(event["eventType"]),
        run=base.Run(event["run"]["runId"], facets(event["run"]["facets"])),
        job=base.Job(event["job"]["namespace"], event["job"]["name"], facets(event["job"]["facets"])),
        inputs=[
            base.InputDataset(each["namespace"], each["name"], facets(each["inputFacets"]), facets=facets(each["facets"]))
            for each in event["inputs"]
        ],
        outputs=[
            base.OutputDataset(each["namespace"], each["name"], facets(each["outputFacets"]), facets=facets(each["facets"]))
            for each in event["outputs"]
        ],
    )


def assert_official(event):
    """``event`` equals the output of OpenLineage's own serializer for the same content: names, nesting, schema URLs."""
    assert json.loads(Serde.to_json(as_openlineage_writes(event))) == without_empty(event)


def without_empty(value):
    """OpenLineage's serializer omits empty lists and mappings; a missing ``fields`` means an empty one."""
    if isinstance(value, dict):
        return {key: without_empty(each) for key, each in value.items()}
    if isinstance(value, list):
        return [{"fields": [], **without_empty(each)} if set(each) == {"name", "type"} else without_empty(each) for each in value]
    return value


def totals():
    heard = RunTotals()
    where = ("events", "s-1")
    heard(events.UnitCut(*where, 0, 9, "rows", 5, 500))
    heard(events.FileWritten(*where, "s3", 4, 321, 0.1))
    heard(events.FileWritten(*where, "ledger", 5, 99, 0.1))
    heard(events.UnitCut(*where, 9, 20, "rows", 7, 700))
    heard(events.UnitSealed(*where, 0, 9, (("filtered", 1), ("written", 4)), 0.0, 0.0, 0.0))
    heard(events.FileWritten(*where, "s3", 7, 111, 0.1))
    return heard


def test_the_totals_count_what_a_run_committed():
    found = totals().totals
    assert (found.read, found.units, found.outcomes) == ({"events": Read(5, 500)}, 1, {"filtered": 1, "written": 4})
    assert (found.written["s3"].rows, found.written["s3"].size, found.written["s3"].files) == (4, 321, 1)


@pytest.mark.parametrize("state", list(RunState))
def test_events_equal_those_of_openlineages_own_classes(state):
    event = run_event(JOB, run_id("flights", "host/1-2"), state, StillClock(), totals().totals, "out of luck")
    assert_official(event)
    assert event["inputs"][0]["namespace"] == "kinesis://eu-west-1"
    assert event["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 5
    assert (event["outputs"][0]["namespace"], event["outputs"][0]["name"]) == ("s3://lake", "flights")
    assert event["outputs"][0]["outputFacets"]["outputStatistics"]["fileCount"] == 1
    assert event["run"]["facets"]["stream_ledger"]["ledger"] == JOB.ledger
    assert ("errorMessage" in event["run"]["facets"]) == (state is RunState.FAIL)
    columns = event["outputs"][0]["facets"]["columnLineage"]["fields"]
    assert [(each["name"], each["field"], each["transformations"][0]["masking"]) for each in columns["kind"]["inputFields"]] == [
        ("events", "kind", True), ("events", "n", False), ("more", "kind", True), ("more", "n", False),
    ]  # fmt: skip


def test_the_comparison_with_openlineage_detects_deviations():
    event = run_event(JOB, run_id("flights", "w"), RunState.START, StillClock(), totals().totals)
    event["run"]["facets"]["processing_engine"]["_schemaURL"] = "https://openlineage.io/other"
    with pytest.raises(AssertionError):
        assert_official(event)
    del event["run"]["facets"]["processing_engine"]["version"]
    with pytest.raises(TypeError):
        assert_official(event)


def test_the_run_id_depends_on_application_and_worker_only():
    assert run_id("a", "w") == run_id("a", "w") != run_id("a", "x")


@pytest.mark.parametrize(
    ("url", "namespace", "name"),
    [
        ("s3://lake/a/b/", "s3://lake", "a/b"),
        ("s3://lake", "s3://lake", "/"),
        ("file:/data/lake/", "file", "/data/lake"),
        ("memory:x", "memory", "x"),
    ],
)
def test_urls_become_dataset_names(url, namespace, name):
    found = place_dataset(url, "s3", [])
    assert (found.namespace, found.name) == (namespace, name)


def test_a_halted_shard_is_reported_until_it_starts_again():
    heard = RunTotals()
    heard(events.ShardHalted("events", "s-1", "broken"))
    assert heard.trouble == "events/s-1: broken"
    heard(events.ShardStarted("events", "s-1", 0))
    assert heard.trouble == ""
