from __future__ import annotations

import botocore.session
import pytest

from stream.errors import DefinitionError
from stream.pipeline.access.actions import Access, Account, needed
from stream.pipeline.access.grants import allows
from stream.pipeline.access.roles import Role, ServiceAccount, accesses, partition_of, policy, trust
from stream.pipeline.model import Pipeline
from tests.unit.pipeline.definitions import least

HERE = Account("111122223333", "eu-west-1")
POD = ServiceAccount("data", "flights-stream", "prod")
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1"


def document(role=Role.WORKER, keys=(), **changes):
    return policy(accesses(Pipeline.model_validate(least(**changes)), role, HERE), keys, HERE.region)


def test_the_worker_is_allowed_what_it_needs_and_nothing_else():
    made = document()
    for each in needed(Pipeline.model_validate(least()), HERE):
        for action in each.actions:
            for resource in each.resources:
                assert allows(made, action, resource.replace("*", "x"), each.prefixes[0].replace("*", "x") if each.prefixes else None)
    assert not allows(made, "kinesis:PutRecord", "arn:aws:kinesis:eu-west-1:111122223333:stream/flights")
    assert not allows(made, "kinesis:GetRecords", "arn:aws:kinesis:eu-west-1:111122223333:stream/other")
    assert not allows(made, "s3:GetObject", "arn:aws:s3:::lake/private/a")
    assert not allows(made, "s3:ListBucket", "arn:aws:s3:::lake", "private/")
    assert not allows(made, "s3:ListBucket", "arn:aws:s3:::lake")


def test_there_is_one_statement_per_set_of_actions():
    statements = document()["Statement"]
    assert [each["Action"][0] for each in statements] == ["kinesis:DescribeStreamSummary", "s3:DeleteObject", "s3:ListBucket"]
    assert statements[2]["Condition"] == {"StringLike": {"s3:prefix": ["_stream/flights/*", "flights/*"]}}
    assert len({each["Sid"] for each in statements}) == 3
    assert all(each["Sid"].isalnum() for each in statements)


def test_prefixes_of_one_bucket_do_not_apply_to_another():
    made = document(state="s3://state/a/")
    assert allows(made, "s3:ListBucket", "arn:aws:s3:::state", "a/flights/x")
    assert not allows(made, "s3:ListBucket", "arn:aws:s3:::state", "flights/x")


def test_keys_may_be_used_through_the_services_only():
    (statement,) = [each for each in document(keys=[KEY])["Statement"] if each["Sid"] == "Keys"]
    assert statement["Resource"] == [KEY]
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert statement["Condition"] == {"StringEquals": {"kms:ViaService": ["kinesis.eu-west-1.amazonaws.com", "s3.eu-west-1.amazonaws.com"]}}


def test_a_key_may_be_used_through_every_service_that_uses_it_for_its_caller():
    source = {
        "s3": {"url": "s3://incoming/", "watch": {"queue": "arn:aws:sqs:eu-west-1:111122223333:news"}},
        "schema": {"carrier": "string"},
    }
    table = {"location": "s3://lake/flights/", "table": "db.flights"}
    made = document(keys=[KEY], source=source, stages=[], sinks=[{"iceberg": table}])
    [condition] = made["Statement"][-1]["Condition"].values()
    assert [name.partition(".")[0] for name in condition["kms:ViaService"]] == ["glue", "s3", "sqs"]


def test_a_role_that_only_reads_cannot_encrypt():
    reading = policy([Access("s3", ("s3:GetObject",), ("arn:aws:s3:::lake/*",), "read")], [KEY], "cn-north-1", "aws-cn")
    assert reading["Statement"][-1]["Action"] == ["kms:Decrypt"]
    assert reading["Statement"][-1]["Condition"] == {"StringEquals": {"kms:ViaService": ["s3.cn-north-1.amazonaws.com.cn"]}}


def test_bootstrap_creates_resources_and_reads_no_record():
    made = document(Role.BOOTSTRAP)
    assert allows(made, "kinesis:CreateStream", "arn:aws:kinesis:eu-west-1:111122223333:stream/flights")
    assert allows(made, "s3:CreateBucket", "arn:aws:s3:::lake")
    assert not any(allows(made, action, "arn:aws:s3:::lake/a") for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"))
    assert not allows(made, "kinesis:GetRecords", "arn:aws:kinesis:eu-west-1:111122223333:stream/flights")
    worker = document()
    assert not allows(worker, "kinesis:CreateStream", "arn:aws:kinesis:eu-west-1:111122223333:stream/flights")


def test_the_lease_table_is_created_by_bootstrap_and_used_by_the_worker():
    worker, bootstrap = (document(role, coordination="native") for role in (Role.WORKER, Role.BOOTSTRAP))
    table = "arn:aws:dynamodb:eu-west-1:111122223333:table/flights"
    assert [allows(each, "dynamodb:CreateTable", table) for each in (worker, bootstrap)] == [False, True]
    assert [allows(each, "dynamodb:UpdateItem", table) for each in (worker, bootstrap)] == [True, False]
    assert [allows(each, "dynamodb:GetItem", f"{table}-CoordinatorState") for each in (worker, bootstrap)] == [True, False]
    assert not allows(bootstrap, "dynamodb:CreateTable", f"{table}-CoordinatorState")
    others = document(Role.BOOTSTRAP, coordination={"native": {"coordinator_state_table": "rules", "worker_metrics_table": "staff"}})
    assert "rules" not in str(others)
    assert "staff" not in str(others)


def test_the_tables_of_the_kcl_are_created_by_its_workers_or_by_bootstrap():
    worker, bootstrap, backfill = (document(role, coordination="kcl") for role in (Role.WORKER, Role.BOOTSTRAP, Role.BACKFILL))
    table = "arn:aws:dynamodb:eu-west-1:111122223333:table/flights"
    for each in (table, f"{table}-CoordinatorState", f"{table}-WorkerMetricStats"):
        assert [allows(made, "dynamodb:CreateTable", each) for made in (worker, bootstrap, backfill)] == [True, True, False]
        assert [allows(made, "dynamodb:UpdateItem", each) for made in (worker, bootstrap, backfill)] == [True, False, False]
    index = f"{table}/index/LeaseOwnerToLeaseKeyIndex"
    assert [allows(made, "dynamodb:Query", index) for made in (worker, bootstrap, backfill)] == [True, False, False]
    assert not allows(bootstrap, "dynamodb:CreateTable", index)
    assert not allows(worker, "dynamodb:UpdateTable", f"{table}-CoordinatorState")


def test_backfill_reads_no_stream():
    actions = {action for each in document(Role.BACKFILL)["Statement"] for action in each["Action"]}
    assert actions == {"s3:DeleteObject", "s3:GetObject", "s3:PutObject", "s3:ListBucket"}


def test_the_reader_reads_and_changes_nothing():
    made = document(Role.READER, coordination="native")
    actions = {action for each in made["Statement"] for action in each["Action"]}
    assert actions == {
        "kinesis:DescribeStreamSummary",
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:ListShards",
        "s3:GetObject",
        "s3:ListBucket",
        "dynamodb:GetItem",
        "dynamodb:Scan",
    }
    assert not allows(made, "s3:GetObject", "arn:aws:s3:::lake/flights/a")
    assert not allows(made, "dynamodb:GetItem", "arn:aws:dynamodb:eu-west-1:111122223333:table/flights-WorkerMetricStats")


def test_an_analyst_reads_what_was_produced_and_changes_nothing():
    masked = {"mask": {"columns": ["carrier"], "method": "keyed_hash", "key": {"secrets_manager": "prod/mask"}}}
    source = {**least()["source"], "schema": {"carrier": "string"}}
    made = document(Role.ANALYST, coordination="native", source=source, stages=[masked])
    assert {action for each in made["Statement"] for action in each["Action"]} == {
        "kinesis:DescribeStreamSummary",
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:ListShards",
        "s3:GetObject",
        "s3:ListBucket",
        "dynamodb:GetItem",
        "secretsmanager:GetSecretValue",
    }
    for key in ("flights/a", "flights-compacted/a", "_stream/flights/commits/a", "_stream/flights/rejects/a"):
        assert allows(made, "s3:GetObject", f"arn:aws:s3:::lake/{key}"), key
    assert not allows(made, "s3:GetObject", "arn:aws:s3:::lake/other/a")
    assert allows(made, "secretsmanager:GetSecretValue", "arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/mask-AbCdEf")


def test_an_operator_pauses_and_resumes_and_changes_nothing_else():
    made = document(Role.OPERATOR, coordination="native")
    actions = {action for each in made["Statement"] for action in each["Action"]}
    assert {action for action in actions if not allows(document(Role.READER, coordination="native"), action, "*")} >= {"s3:PutObject"}
    state = "arn:aws:s3:::lake/_stream/flights/{}"
    assert allows(made, "s3:PutObject", state.format("pauses/newest.json"))
    assert not allows(made, "s3:PutObject", state.format("commits/flights/shardId-000000000000/genesis.json"))
    assert not actions & {"s3:DeleteObject", "dynamodb:Scan", "dynamodb:UpdateItem", "dynamodb:PutItem"}


def test_a_compactor_writes_beside_the_sink_and_deletes_in_it():
    made = document(Role.COMPACTOR, coordination="native")
    lake = "arn:aws:s3:::lake/{}"
    for action, key in [
        ("s3:GetObject", "flights/a"),
        ("s3:DeleteObject", "flights/a"),
        ("s3:PutObject", "flights-compacted/a"),
        ("s3:DeleteObject", "flights-compacted/a"),
        ("s3:GetObject", "_stream/flights/commits/a"),
        ("s3:PutObject", "_stream/flights/compactions/a"),
        ("s3:PutObject", "_stream/flights/compacting/a"),
    ]:
        assert allows(made, action, lake.format(key)), (action, key)
    for action, key in [
        ("s3:PutObject", "flights/a"),
        ("s3:PutObject", "_stream/flights/commits/a"),
        ("s3:DeleteObject", "_stream/flights/compactions/a"),
    ]:
        assert not allows(made, action, lake.format(key)), (action, key)
    assert allows(made, "kinesis:GetRecords", "arn:aws:kinesis:eu-west-1:111122223333:stream/flights")
    assert allows(made, "s3:ListBucket", "arn:aws:s3:::lake", "flights-compacted/month=2013-01/")


@pytest.mark.parametrize(
    "sinks",
    [
        [{"s3": {"url": "s3://lake/flights/", "format": "ndjson"}}],
        [{"s3": {"url": "file:lake"}}],
    ],
)
def test_without_parquet_in_s3_there_is_no_compactor(sinks):
    assert document(Role.COMPACTOR, sinks=sinks)["Statement"] == []


def test_an_operator_of_a_pipeline_that_reads_objects_needs_its_state_alone():
    source = {"s3": {"url": "s3://lake/in/"}, "schema": {"carrier": "string"}}
    made = document(Role.OPERATOR, source=source, stages=[])
    assert {action for each in made["Statement"] for action in each["Action"]} == {"s3:GetObject", "s3:ListBucket", "s3:PutObject"}
    assert not allows(made, "s3:GetObject", "arn:aws:s3:::lake/in/a")


def test_the_reader_reads_tables_and_only_the_secrets_of_their_catalogs():
    catalog = {"type": "rest", "uri": "https://catalog"}
    token = {"token": {"secrets_manager": "prod/catalog#token"}}
    sinks = [{"iceberg": {"location": "s3://lake/t/", "table": "lake.t", "catalog": catalog, "secrets": token}}]
    masked = {"mask": {"columns": ["carrier"], "method": "keyed_hash", "key": {"secrets_manager": "prod/mask"}}}
    source = {**least()["source"], "schema": {"carrier": "string"}}
    made = document(Role.READER, source=source, stages=[masked], sinks=sinks)
    assert allows(made, "s3:GetObject", "arn:aws:s3:::lake/t/metadata/1.json")
    assert not allows(made, "s3:PutObject", "arn:aws:s3:::lake/t/metadata/1.json")
    named = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/{}-AbCdEf"
    assert [allows(made, "secretsmanager:GetSecretValue", named.format(name)) for name in ("catalog", "mask")] == [True, False]
    glue = document(Role.READER, source=source, stages=[], sinks=[{"iceberg": {"location": "s3://lake/t/", "table": "lake.t"}}])
    assert {action for each in glue["Statement"] for action in each["Action"] if action.startswith("glue:")} == {"glue:GetTable"}


def test_the_reader_of_a_pipeline_over_objects_lists_them_and_reads_none():
    queue = "arn:aws:sqs:eu-central-1:123456789012:landing"
    source = {"s3": {"url": "s3://archive/in/", "watch": {"queue": queue}}, "schema": {"carrier": "string"}}
    pipeline = Pipeline.model_validate(least() | {"source": source, "stages": []})
    assert accesses(pipeline, Role.FUNCTION, HERE) == ()
    found = [each for each in accesses(pipeline, Role.READER, HERE) if each.service == "sqs" or "archive" in str(each.resources)]
    assert sorted((each.actions, each.prefixes) for each in found) == [(("s3:ListBucket",), ("in/*",)), (("sqs:GetQueueAttributes",), ())]


def test_a_function_does_what_a_worker_does_without_leases_and_lets_lambda_read_for_it():
    source = {**least()["source"], "kinesis": {**least()["source"]["kinesis"], "retrieval": "fan_out", "consumer": "mine"}}
    made = document(Role.FUNCTION, coordination="native", source=source)
    actions = {action for each in made["Statement"] for action in each["Action"]}
    assert actions == {
        "kinesis:DescribeStream",
        "kinesis:DescribeStreamSummary",
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:ListShards",
        "kinesis:SubscribeToShard",
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:PutObject",
        "s3:ListBucket",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }
    group = "arn:aws:logs:eu-west-1:111122223333:log-group:/aws/lambda/"
    assert allows(made, "logs:PutLogEvents", f"{group}flights:log-stream:x")
    assert not allows(made, "logs:PutLogEvents", f"{group}other:log-stream:x")
    stream = "arn:aws:kinesis:eu-west-1:111122223333:stream/flights"
    assert allows(made, "kinesis:SubscribeToShard", f"{stream}/consumer/mine:1")
    assert not allows(made, "kinesis:SubscribeToShard", f"{stream}/consumer/other:1")


def test_a_function_is_assumed_by_lambda_for_this_account_alone():
    (statement,) = trust(Role.FUNCTION, HERE, POD)["Statement"]
    assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert statement["Action"] == ["sts:AssumeRole"]
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "111122223333"}}


def test_redshift_reads_only_the_staged_files():
    sink = {
        "staging": "s3://lake/_staging/",
        "table": "t",
        "database": "dev",
        "workgroup": "analytics",
        "iam_role": "arn:aws:iam::111122223333:role/copy",
    }
    source = {**least()["source"], "schema": {"carrier": "string"}}
    made = document(Role.REDSHIFT_COPY, source=source, stages=[], sinks=[{"redshift": sink}])
    assert allows(made, "s3:GetObject", "arn:aws:s3:::lake/_staging/a")
    assert allows(made, "s3:ListBucket", "arn:aws:s3:::lake", "_staging/a")
    assert not allows(made, "s3:PutObject", "arn:aws:s3:::lake/_staging/a")
    assert not allows(made, "s3:GetObject", "arn:aws:s3:::lake/_stream/a")


def test_a_pipeline_without_redshift_has_no_role_for_it():
    assert accesses(Pipeline.model_validate(least()), Role.REDSHIFT_COPY, HERE) == ()


def test_a_pod_identity_role_is_bound_to_one_service_account_of_one_cluster():
    (statement,) = trust(Role.WORKER, HERE, POD)["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert statement["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    assert statement["Condition"] == {
        "StringEquals": {
            "aws:SourceAccount": "111122223333",
            "aws:RequestTag/kubernetes-namespace": "data",
            "aws:RequestTag/kubernetes-service-account": "flights-stream",
            "aws:RequestTag/eks-cluster-name": "prod",
        }
    }


def admitted(document, claims):
    """Whether STS would accept a token with ``claims``: every StringEquals must name a claim of exactly that value."""
    (statement,) = document["Statement"]
    assert statement["Condition"].keys() == {"StringEquals"}
    issuer = statement["Principal"]["Federated"].partition("oidc-provider/")[2]
    return all(claims.get(key.removeprefix(f"{issuer}:")) == value for key, value in statement["Condition"]["StringEquals"].items())


@pytest.mark.parametrize(
    ("changes", "let_in"),
    [
        ({}, True),
        ({"aud": "vault"}, False),
        ({"sub": "system:serviceaccount:data:other"}, False),
        ({"sub": "system:serviceaccount:default:flights-stream"}, False),
        ({"sub": "system:serviceaccount:data:flights-stream2"}, False),
        ({"aud": None}, False),
    ],
)
def test_an_irsa_role_accepts_one_audience_and_one_subject(changes, let_in):
    made = trust(Role.WORKER, HERE, ServiceAccount("data", "flights-stream", issuer="https://oidc.eks.eu-west-1.amazonaws.com/id/ABC/"))
    assert made["Statement"][0]["Principal"]["Federated"].endswith("oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/ABC")
    claims = {"aud": "sts.amazonaws.com", "sub": "system:serviceaccount:data:flights-stream"} | changes
    assert admitted(made, claims) is let_in


def test_an_issuer_without_https_is_refused():
    with pytest.raises(DefinitionError, match="not an https URL"):
        trust(Role.WORKER, HERE, ServiceAccount("data", "s", issuer="http://x"))


def test_redshift_assumes_its_own_role_and_only_from_this_account():
    (statement,) = trust(Role.REDSHIFT_COPY, HERE, POD)["Statement"]
    # What Redshift says when it assumes a role: the database user, of a cluster or of a workgroup.
    assert statement["Condition"] == {"StringLike": {"sts:ExternalId": "arn:aws:redshift:*:111122223333:dbuser:*"}}
    assert "pods.eks.amazonaws.com" not in statement["Principal"]["Service"]


def test_each_region_belongs_to_its_partition():
    known = botocore.session.get_session()
    regions = {region: name for name in known.get_available_partitions() for region in known.get_available_regions("kinesis", name)}
    assert {"eu-west-1", "cn-north-1", "us-gov-west-1", "us-isob-east-1"} <= regions.keys()
    assert {region: partition_of(region) for region in regions} == regions


def test_a_function_under_firehose_reads_tables_and_secrets_and_writes_its_log():
    masked = {"mask": {"columns": ["carrier"], "method": "keyed_hash", "key": {"secrets_manager": "prod/mask"}}}
    looked_up = {"lookup": {"table": "s3://reference/airlines.parquet", "on": "carrier", "take": ["name"]}}
    notify = {"webhook": "https://hooks/x", "headers": {"token": {"secrets_manager": "prod/hook"}}}
    made = document(Role.TRANSFORM, stages=[looked_up, masked], notify=notify)
    assert {action for each in made["Statement"] for action in each["Action"]} == {
        "s3:GetObject",
        "s3:ListBucket",
        "secretsmanager:GetSecretValue",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }
    assert allows(made, "s3:GetObject", "arn:aws:s3:::reference/airlines.parquet")
    assert not allows(made, "s3:GetObject", "arn:aws:s3:::lake/flights/a")
    named = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/{}-AbCdEf"
    assert [allows(made, "secretsmanager:GetSecretValue", named.format(name)) for name in ("mask", "hook")] == [True, False]


def test_firehose_reads_the_stream_invokes_one_function_and_writes_below_two_prefixes():
    made = document(Role.FIREHOSE)
    assert allows(made, "kinesis:GetRecords", "arn:aws:kinesis:eu-west-1:111122223333:stream/flights")
    name = "arn:aws:lambda:eu-west-1:111122223333:function:flights-transform"
    assert [allows(made, "lambda:InvokeFunction", each) for each in (name, f"{name}:$LATEST", f"{name}2")] == [True, True, False]
    places = ("lake/flights/a", "lake/failed/flights/a", "lake/_stream/flights/a", "lake/failed/other/a")
    assert [allows(made, "s3:PutObject", f"arn:aws:s3:::{place}") for place in places] == [True, True, False, False]
    assert not allows(made, "s3:DeleteObject", "arn:aws:s3:::lake/flights/a")


@pytest.mark.parametrize("role", [Role.TRANSFORM, Role.FIREHOSE])
def test_a_pipeline_that_firehose_cannot_run_needs_no_role_for_it(role):
    assert accesses(Pipeline.model_validate(least()), role, HERE)
    several = [*least()["sinks"], {"s3": {"url": "s3://lake/again/", "name": "again"}}]
    assert accesses(Pipeline.model_validate(least(sinks=several)), role, HERE) == ()


@pytest.mark.parametrize(
    ("role", "service", "said"),
    [(Role.TRANSFORM, "lambda.amazonaws.com", "aws:SourceAccount"), (Role.FIREHOSE, "firehose.amazonaws.com", "sts:ExternalId")],
)
def test_the_services_assume_the_roles_of_firehose_for_this_account_only(role, service, said):
    (statement,) = trust(role, HERE, POD)["Statement"]
    assert statement["Principal"] == {"Service": service}
    assert statement["Condition"] == {"StringEquals": {said: "111122223333"}}
