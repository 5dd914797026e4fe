"""The daemon's properties, read as Java reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.errors import DefinitionError
from stream.hosts.multilang import one_stream, polled
from stream.hosts.properties import properties
from stream.pipeline.model import Pipeline
from tests.unit.pipeline.definitions import least


def pipeline(**kinesis):
    source = least()["source"] | {"kinesis": {"stream": "s"} | kinesis if "streams" not in kinesis else kinesis}
    return Pipeline.model_validate(least(source=source, coordination="kcl"))


def read(made, env=None, changes=None, file=Path("/srv/pipeline.yaml"), stream=None):
    text = properties(one_stream(made, stream), file, env or {}, changes or {})
    return dict(line.split(" = ", 1) for line in text.splitlines())


def test_the_properties_that_a_drain_needs_are_set():
    found = read(pipeline())
    assert int(found["shutdownGraceMillis"]) > 0
    assert found["callProcessRecordsEvenForEmptyRecordList"] == "true"
    assert found["executableName"].endswith("-m stream kcl run /srv/pipeline.yaml")
    assert (found["applicationName"], found["streamName"]) == ("flights", "s")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("trim_horizon", {"initialPositionInStream": "TRIM_HORIZON"}),
        ("latest", {"initialPositionInStream": "LATEST"}),
        ({"at_timestamp": "2026-01-01T00:00:00Z"}, {"initialPositionInStreamExtended": "1767225600"}),
    ],
)
def test_the_initial_position_is_that_of_the_pipeline(start, expected):
    found = read(pipeline(start=start))
    assert {key: value for key, value in found.items() if key.startswith("initialPosition")} == expected


@pytest.mark.parametrize(("kcl", "key"), [(2, "AWSCredentialsProvider"), (3, "AwsCredentialsProvider")])
def test_each_version_of_the_kcl_gets_its_own_credentials_property(kcl, key):
    lines = properties(pipeline(), Path("/p.yaml"), {}, {}, kcl).splitlines()
    assert [line.partition(" = ")[0] for line in lines if "redentialsProvider" in line.partition(" = ")[0]] == [key]


def test_records_are_polled_unless_fan_out_is_configured():
    assert read(pipeline())["retrievalMode"] == "POLLING"
    pushed = read(pipeline(retrieval="fan_out", consumer="mine"))
    assert (pushed["retrievalMode"], pushed["fanoutConfig.consumerName"]) == ("FANOUT", "mine")


def test_endpoints_and_region_come_from_the_environment_and_explicit_changes_win():
    env = {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:1", "AWS_REGION": "eu-west-1"}
    found = read(pipeline(endpoint="http://127.0.0.1:2"), env, {"regionName": "us-east-1", "maxRecords": "10"})
    assert (found["dynamoDBEndpoint"], found["kinesisEndpoint"]) == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert (found["regionName"], found["maxRecords"]) == ("us-east-1", "10")


def test_a_path_with_spaces_is_refused():
    with pytest.raises(DefinitionError, match="splits its command at spaces"):
        read(pipeline(), file=Path("/srv/my pipeline.yaml"))


def test_each_of_several_streams_has_its_own_daemon_and_lease_table():
    made = pipeline(streams=["a", "b"])
    with pytest.raises(DefinitionError, match="a, b"):
        read(made)
    found = read(made, stream="b")
    assert found["executableName"].endswith("--stream b")
    assert (found["applicationName"], found["streamName"]) == ("flights-b", "b")
    assert [each.stream for each in polled(one_stream(made, "b")).source.kinesis.each()] == ["b"]
