from __future__ import annotations

import pytest

from stream.pipeline.access.actions import Access, Account, needed
from stream.pipeline.model import Pipeline
from tests.unit.pipeline.definitions import least

HERE = Account("111122223333", "eu-west-1")


def access(**changes):
    return needed(Pipeline.model_validate(least(**changes)), HERE)


def test_a_minimal_pipeline_needs_its_stream_and_two_prefixes():
    found = access()
    assert found == (
        Access(
            "kinesis",
            ("kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards"),
            ("arn:aws:kinesis:eu-west-1:111122223333:stream/flights",),
            "read the stream",
        ),
        Access(
            "s3",
            ("s3:DeleteObject", "s3:GetObject", "s3:PutObject"),
            ("arn:aws:s3:::lake/_stream/flights/*",),
            "keep the commit log",
        ),
        Access("s3", ("s3:ListBucket",), ("arn:aws:s3:::lake",), "keep the commit log", ("_stream/flights/*",)),
        Access("s3", ("s3:DeleteObject", "s3:GetObject", "s3:PutObject"), ("arn:aws:s3:::lake/flights/*",), "write the files of sink s3"),
        Access("s3", ("s3:ListBucket",), ("arn:aws:s3:::lake",), "write the files of sink s3", ("flights/*",)),
    )


def test_local_stores_need_no_permission():
    found = access(state="file:state", sinks=[{"files": {"url": "file:lake"}}])
    assert [each.service for each in found] == ["kinesis"]


@pytest.mark.parametrize(
    ("url", "resource", "prefix"),
    [("s3://lake", "arn:aws:s3:::lake/*", "*"), ("s3://lake/a/b", "arn:aws:s3:::lake/a/b/*", "a/b/*")],
)
def test_the_prefix_of_a_sink_is_exact(url, resource, prefix):
    *_, objects, listing = access(state="file:state", sinks=[{"s3": {"url": url}}])
    assert objects.resources == (resource,)
    assert listing.prefixes == (prefix,)


def test_reference_tables_need_only_reading():
    lookup = {"lookup": {"table": "s3://ref/a/t.parquet", "on": "carrier", "take": ["name"]}}
    local = {"lookup": {"table": "t.parquet", "on": "carrier", "take": ["other"]}}
    found = [each for each in access(stages=[lookup, lookup, local]) if each.why == "read a reference table"]
    assert [(each.actions, each.resources) for each in found] == [
        (("s3:GetObject",), ("arn:aws:s3:::ref/a/t.parquet",)),
        (("s3:ListBucket",), ("arn:aws:s3:::ref",)),
    ]


@pytest.mark.parametrize(
    ("table", "actions"),
    [
        ("postgresql://h/db", {}),
        (
            "redshift:workgroup/main/dev",
            {
                ("redshift-data:ExecuteStatement",): "redshift-serverless:eu-west-1:111122223333:workgroup/*",
                ("redshift-serverless:GetCredentials",): "redshift-serverless:eu-west-1:111122223333:workgroup/*",
            },
        ),
        (
            "redshift:cluster/main/dev?db_user=reader",
            {
                ("redshift-data:ExecuteStatement",): "redshift:eu-west-1:111122223333:cluster:main",
                ("redshift:GetClusterCredentials",): "redshift:eu-west-1:111122223333:dbname:main/dev",
            },
        ),
    ],
)
def test_a_database_needs_only_its_query_actions(table, actions):
    stage = {"enrich": {"table": table, "query": "SELECT 1 AS n", "on": "carrier", "take": ["name"]}}
    found = [each for each in access(stages=[stage]) if each.why == "read a reference table"]
    follow = {("redshift-data:DescribeStatement", "redshift-data:GetStatementResult"): "*"} if actions else {}
    assert {each.actions: each.resources[0].removeprefix("arn:aws:") for each in found} == {**actions, **follow}


def test_secrets_are_named_by_name_or_arn():
    arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/other-AbCdEf"
    masks = [
        {"mask": {"columns": ["carrier"], "method": "keyed_hash", "key": {"secrets_manager": name}}}
        for name in ("prod/mask#key", "prod/mask#older", arn)
    ]
    found = [each.resources for each in access(stages=masks) if each.service == "secretsmanager"]
    assert found == [("arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/mask-??????",), (arn,)]


def test_the_region_of_the_stream_is_used():
    source = {**least()["source"], "kinesis": {"stream": "flights", "region": "us-west-2"}}
    assert access(source=source)[0].resources == ("arn:aws:kinesis:us-west-2:111122223333:stream/flights",)


def test_each_of_several_streams_is_listed():
    source = {**least()["source"], "kinesis": {"streams": ["a", "b"]}}
    assert access(source=source)[0].resources == (
        "arn:aws:kinesis:eu-west-1:111122223333:stream/a",
        "arn:aws:kinesis:eu-west-1:111122223333:stream/b",
    )


def test_leases_need_their_table_and_its_creation_only_if_it_may_be_created():
    table = "arn:aws:dynamodb:eu-west-1:111122223333:table/flights"
    found = [each for each in access(coordination="native") if each.service == "dynamodb"]
    assert {each.resources for each in found} == {(table,), (f"{table}-CoordinatorState",), (f"{table}-WorkerMetricStats",)}
    assert any("dynamodb:CreateTable" in each.actions for each in found)
    given = [each for each in access(coordination={"native": {"table": "t-1", "create_table": False}}) if each.service == "dynamodb"]
    assert not any("dynamodb:CreateTable" in each.actions for each in given)
    assert given[0].resources == ("arn:aws:dynamodb:eu-west-1:111122223333:table/t-1",)
    beside = {"table": "t-1", "coordinator_state_table": "rules", "worker_metrics_table": "staff"}
    named = [each for each in access(coordination={"native": beside}) if each.service == "dynamodb"]
    assert {each.resources[0].rpartition("/")[2] for each in named} == {"t-1", "rules", "staff"}


def test_a_pipeline_over_objects_reads_them_and_no_stream():
    data = least(requires=["s3://bucket/in/_SUCCESS"], notify={"sns": "arn:aws:sns:eu-west-1:123456789012:alarms"})
    data["source"] = {"s3": {"url": "s3://archive/in", "manifest": "s3://lists/today"}, "schema": data["source"]["schema"]}
    found = {
        (each.service, action, resource)
        for each in needed(Pipeline.model_validate(data))
        for action in each.actions
        for resource in each.resources
    }
    assert ("s3", "s3:GetObject", "arn:aws:s3:::archive/in/*") in found
    assert ("s3", "s3:GetObject", "arn:aws:s3:::lists/today") in found
    assert ("sns", "sns:Publish", "arn:aws:sns:eu-west-1:123456789012:alarms") in found
    assert not [each for each in found if each[0] == "kinesis" or (each[1] == "s3:PutObject" and "archive" in each[2])]
    listed = [each.prefixes for each in needed(Pipeline.model_validate(data)) if each.why == "look for what is required"]
    assert listed == [("in/",)]


def test_a_fan_out_consumer_is_named_in_the_resource():
    source = {**least()["source"], "kinesis": {"stream": "flights", "retrieval": "fan_out"}}
    stream = "arn:aws:kinesis:eu-west-1:111122223333:stream/flights"
    found = {(action, resource) for each in access(source=source) for action in each.actions for resource in each.resources}
    assert ("kinesis:RegisterStreamConsumer", stream) in found
    # IAM asks about the consumer, not the stream, even where the request names it by its stream.
    for action in ("kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard"):
        assert [resource for name, resource in found if name == action] == [f"{stream}/consumer/flights:*"]
    source["kinesis"]["consumer"] = "other"
    assert any(each.resources == (f"{stream}/consumer/other:*",) for each in access(source=source))


def test_the_kcl_daemon_needs_its_tables_for_each_application():
    table = "arn:aws:dynamodb:eu-west-1:111122223333:table/flights"
    found = {resource: each.actions for each in access(coordination="kcl") if each.service == "dynamodb" for resource in each.resources}
    assert list(found) == [table, f"{table}/index/LeaseOwnerToLeaseKeyIndex", f"{table}-CoordinatorState", f"{table}-WorkerMetricStats"]
    assert all(("dynamodb:CreateTable" in actions) is ("/index/" not in resource) for resource, actions in found.items())
    source = {**least()["source"], "kinesis": {"streams": ["a", "b"], "region": "us-west-2"}}
    several = {name for each in access(coordination="kcl", source=source) for name in each.resources if each.service == "dynamodb"}
    west = table.replace("eu-west-1", "us-west-2")
    assert {f"{west}-a", f"{west}-b-CoordinatorState"} < several
    assert west not in several


@pytest.mark.parametrize(
    "queue",
    ["arn:aws:sqs:eu-west-1:111122223333:landing", "https://sqs.eu-west-1.amazonaws.com/111122223333/landing", "http://local:1/x/landing"],
)
def test_a_queue_that_is_followed_is_received_from_and_deleted_from_and_nothing_else(queue):
    data = least()
    data["source"] = {"s3": {"url": "s3://landing/x/", "watch": {"queue": queue}}, "schema": data["source"]["schema"]}
    (found,) = (each for each in needed(Pipeline.model_validate(data), HERE) if each.service == "sqs")
    assert found.actions == ("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage")
    assert found.resources == ("arn:aws:sqs:eu-west-1:111122223333:landing",)
