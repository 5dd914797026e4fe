"""The doctor against everything that a pipeline can use, and against an IAM that denies one action after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import Result
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.aws import LocalClients
from stream.local.start import LocalAws
from stream.operations.doctor.daemon_probes import MADE_BY_DAEMON
from stream.operations.doctor.probes import NOT_TRIED
from stream.pipeline.access.actions import Account, needed
from stream.pipeline.checks.lint import check
from tests.recording import ACCOUNT, REGION, Naming, Recorder, recording
from tests.serving import serving

PIPELINE = """
application: flights
source:
  kinesis: {{stream: flights, retrieval: fan_out}}
  schema: {{carrier: string}}
stages:
  - mask: {{columns: carrier, method: keyed_hash, key: {{secrets_manager: flights/mask}}}}
sinks:
  - s3: {{url: "s3://lake/flights/"}}
  - iceberg: {{location: "s3://lake/table/", table: lake.flights}}
state: "s3://lake/_stream/"
memory: {{budget: 64MiB}}
notify: {{sns: "{topic}"}}
coordination: {{native: {{table: {table}, create_table: {create}}}}}
"""
LEASE_KEY = {"leaseKey": ("HASH", "S")}

Aws = tuple[Mapping[str, str], Recorder, Recorder, Callable[[str], Any], str]


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    """Environment, the recorders in front of Kinesis and of the other services, clients, and a topic."""
    with LocalAws() as local, LocalClients(local.environment()) as clients, ExitStack() as stack:
        clients.create_bucket("lake")
        clients.create_stream("flights", 2)

        def make(service: str) -> Any:
            url = local.kinesis.url if service == "kinesis" else local.moto.url
            keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
            client = boto3.client(service, endpoint_url=url, **keys)
            stack.callback(client.close)
            return client

        topic = make("sns").create_topic(Name="halted")["TopicArn"]
        make("glue").create_database(DatabaseInput={"Name": "lake"})
        make("secretsmanager").create_secret(Name="flights/mask", SecretString="hidden-value")
        kinesis, kinesis_recorder = stack.enter_context(recording(local.kinesis.url, Naming(stream="flights")))
        others, moto_recorder = stack.enter_context(recording(local.moto.url))
        services = ("S3", "DYNAMODB", "SNS", "STS", "SECRETS_MANAGER", "GLUE")
        environment = local.environment() | {"AWS_ENDPOINT_URL_KINESIS": kinesis}
        environment |= {f"AWS_ENDPOINT_URL_{service}": others for service in services}
        table_of(make("dynamodb"), "leases", LEASE_KEY)
        yield environment, kinesis_recorder, moto_recorder, make, topic


def table_of(client: Any, name: str, keys: Mapping[str, tuple[str, str]]) -> None:
    client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, (_, kind) in keys.items()],
        KeySchema=[{"AttributeName": key, "KeyType": role} for key, (role, _) in keys.items()],
        BillingMode="PAY_PER_REQUEST",
    )


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "STREAM_SERVICE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def pipeline(folder: Path, topic: str, table: str = "leases", *, create: bool = True) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(PIPELINE.format(topic=topic, table=table, create=str(create).lower()))
    return path


def run(path: Path, env: Mapping[str, str]) -> tuple[Result, list[dict[str, str]]]:
    result = CliRunner().invoke(app, ["doctor", str(path), "--json"], env=dict(env))
    return result, json.loads(result.stdout)["findings"]


def found(findings: list[dict[str, str]], check_name: str, says: str) -> dict[str, str]:
    (one,) = [each for each in findings if each["check"] == check_name and says in each["what"]]
    return one


@pytest.mark.usefixtures("clean")
def test_every_needed_action_is_tried_or_listed_and_nothing_is_left_behind(aws: Aws, tmp_path: Path) -> None:
    env, kinesis, moto, make, topic = aws
    path = pipeline(tmp_path, topic, create=False)
    kinesis.seen, moto.seen = set(), set()
    result, findings = run(path, env)
    assert result.exit_code == 0, result.output
    listed = {each["what"].partition(" ")[0] for each in findings if each["check"] == "permission"}
    tried = {each.action for each in kinesis.seen | moto.seen}
    made = check(path, {}).pipeline
    assert made is not None
    wanted = {action for each in needed(made) for action in each.actions}
    assert tried - {"sns:GetTopicAttributes"} | listed == wanted
    assert tried & listed == set()
    assert listed == set(NOT_TRIED)
    assert make("dynamodb").scan(TableName="leases")["Items"] == []
    arn = make("kinesis").describe_stream_summary(StreamName="flights")["StreamDescriptionSummary"]["StreamARN"]
    assert make("kinesis").list_stream_consumers(StreamARN=arn)["Consumers"] == []
    assert make("s3").list_objects_v2(Bucket="lake")["KeyCount"] == 0
    assert "hidden-value" not in result.output


FATAL = [
    *(f"kinesis:{name}" for name in ("DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords")),
    *(f"s3:{name}" for name in ("ListBucket", "GetObject", "PutObject")),
    *(f"dynamodb:{name}" for name in ("DescribeTable", "Scan", "GetItem", "PutItem", "UpdateItem", "DeleteItem")),
    "secretsmanager:GetSecretValue",
]
HARMLESS = ["kinesis:DescribeStreamConsumer", "sns:GetTopicAttributes"]


@pytest.mark.parametrize("action", [*FATAL, *HARMLESS])
@pytest.mark.usefixtures("clean")
def test_a_denied_action_is_named_with_a_remedy(aws: Aws, tmp_path: Path, action: str) -> None:
    env, kinesis, moto, _, topic = aws
    kinesis.denied = moto.denied = frozenset({action})
    try:
        result, findings = run(pipeline(tmp_path, topic), env)
    finally:
        kinesis.denied = moto.denied = frozenset()
    reported = [each for each in findings if action in each["what"] and each["verdict"] != "ok" and each["check"] != "permission"]
    assert reported, findings
    assert all(each["remedy"] for each in reported)
    assert result.exit_code == (1 if action in FATAL else 0), result.output
    assert ("failed" in {each["verdict"] for each in reported}) == (action in FATAL)


@pytest.mark.usefixtures("clean")
def test_a_missing_lease_table_is_a_note_if_workers_may_create_it_and_else_a_failure(aws: Aws, tmp_path: Path) -> None:
    env, *_, topic = aws
    result, findings = run(pipeline(tmp_path, topic, "missing"), env)
    assert result.exit_code == 0, result.output
    reported = found(findings, "leases", "DescribeTable")
    assert (reported["verdict"], "dynamodb:CreateTable" in reported["what"]) == ("note", True)
    assert {each["verdict"] for each in findings if each["check"] == "leases" and "on table" in each["what"]} == {"note"}
    result, findings = run(pipeline(tmp_path, topic, "missing", create=False), env)
    assert result.exit_code == 1
    assert found(findings, "leases", "DescribeTable")["verdict"] == "failed"


@pytest.mark.parametrize("keys", [{"id": ("HASH", "S")}, {"leaseKey": ("HASH", "S"), "at": ("RANGE", "N")}, {"leaseKey": ("HASH", "N")}])
@pytest.mark.usefixtures("clean")
def test_a_table_with_another_key_is_not_a_lease_table(aws: Aws, tmp_path: Path, keys: Mapping[str, tuple[str, str]]) -> None:
    env, _, _, make, topic = aws
    name = f"other-{'-'.join(keys)}-{keys.get('leaseKey', ('', ''))[1]}"
    table_of(make("dynamodb"), name, keys)
    result, findings = run(pipeline(tmp_path, topic, name), env)
    assert result.exit_code == 1
    assert "leaseKey" in found(findings, "leases", "DescribeTable")["what"]


@pytest.mark.usefixtures("clean")
def test_a_fleet_that_a_worker_must_not_join_is_reported(aws: Aws, tmp_path: Path) -> None:
    env, _, _, make, topic = aws
    dynamo = make("dynamodb")
    for name in ("java", "java-CoordinatorState"):
        table_of(dynamo, name, {"leaseKey" if name == "java" else "key": ("HASH", "S")})
    dynamo.put_item(TableName="java-CoordinatorState", Item={"key": {"S": "Migration3.0"}, "cv": {"S": "CLIENT_VERSION_9X"}})
    result, findings = run(pipeline(tmp_path, topic, "java"), env)
    assert result.exit_code == 1
    assert "CLIENT_VERSION_9X" in found(findings, "leases", "who else")["what"]


@pytest.mark.usefixtures("clean")
def test_a_fleet_is_found_under_other_table_names(aws: Aws, tmp_path: Path) -> None:
    env, _, _, make, topic = aws
    dynamo = make("dynamodb")
    for name, key in (("lent", "leaseKey"), ("rules", "key")):
        table_of(dynamo, name, {key: ("HASH", "S")})
    dynamo.put_item(TableName="rules", Item={"key": {"S": "Migration3.0"}, "cv": {"S": "CLIENT_VERSION_3X"}})
    file = pipeline(tmp_path, topic, "lent")
    file.write_text(file.read_text().replace("table: lent", "table: lent, coordinator_state_table: rules"))
    _, findings = run(file, env)
    assert "CLIENT_VERSION_3X" in found(findings, "leases", "who else")["what"]


@pytest.mark.usefixtures("clean")
def test_workers_of_a_kcl_2_x_that_have_leases_are_named(aws: Aws, tmp_path: Path) -> None:
    env, _, _, make, topic = aws
    dynamo = make("dynamodb")
    table_of(dynamo, "shared", {"leaseKey": ("HASH", "S")})
    row = {"checkpoint": {"S": "TRIM_HORIZON"}, "leaseCounter": {"N": "7"}}
    dynamo.put_item(TableName="shared", Item=row | {"leaseKey": {"S": "shardId-000000000000"}, "leaseOwner": {"S": "java-1"}})
    ours = {"leaseKey": {"S": "shardId-000000000001"}, "leaseOwner": {"S": "pod-2"}, "sxOwner": {"S": "pod-2"}}
    dynamo.put_item(TableName="shared", Item=row | ours)
    _, findings = run(pipeline(tmp_path, topic, "shared"), env)
    said = found(findings, "leases", "who else")["what"]
    assert said.endswith("no fleet of KCL 3.x; other workers, such as those of KCL 2.x, have leases: java-1")


KCL_TABLES = {"": "leaseKey", "-CoordinatorState": "key", "-WorkerMetricStats": "wid"}
INDEX = {
    "IndexName": "LeaseOwnerToLeaseKeyIndex",
    "KeySchema": [{"AttributeName": "leaseOwner", "KeyType": "HASH"}, {"AttributeName": "leaseKey", "KeyType": "RANGE"}],
    "Projection": {"ProjectionType": "KEYS_ONLY"},
}


@pytest.fixture(scope="module")
def kcl_tables(aws: Aws) -> str:
    """The application whose tables are as KCL 3.x makes them."""
    dynamo = aws[3]("dynamodb")
    for ending, key in KCL_TABLES.items():
        table_of(dynamo, f"java3{ending}", {key: ("HASH", "S")})
    dynamo.update_table(
        TableName="java3",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("leaseKey", "leaseOwner")],
        GlobalSecondaryIndexUpdates=[{"Create": INDEX}],
    )
    return "java3"


def under_kcl(folder: Path, topic: str, application: str) -> Path:
    path = pipeline(folder, topic)
    kept = [line for line in path.read_text().splitlines() if not line.startswith(("coordination:", "application:"))]
    path.write_text("\n".join([f"application: {application}", *kept, "coordination: kcl", ""]))
    return path


@pytest.mark.usefixtures("clean")
def test_every_action_of_the_kcl_daemon_on_its_tables_is_tried_or_listed(aws: Aws, tmp_path: Path, kcl_tables: str) -> None:
    env, _, moto, make, topic = aws
    path = under_kcl(tmp_path, topic, kcl_tables)
    moto.seen = set()
    result, findings = run(path, env)
    assert result.exit_code == 0, result.output
    listed = {each["what"].partition(" ")[0] for each in findings if each["check"] == "permission"}
    assert {action for action in listed if action.startswith("dynamodb:")} == set(MADE_BY_DAEMON)
    made = check(path, {}).pipeline
    assert made is not None
    account = Account(ACCOUNT, REGION)
    wanted = {
        (action, name) for each in needed(made, account) for action in each.actions for name in each.resources if "dynamodb" in action
    }
    tried = {(each.action, each.resource) for each in moto.seen if "dynamodb" in each.action}
    assert tried == {(action, name) for action, name in wanted if action not in listed}
    dynamo = make("dynamodb")
    assert [dynamo.scan(TableName=f"{kcl_tables}{ending}")["Items"] for ending in KCL_TABLES] == [[], [], []]


@pytest.mark.parametrize("action", [*(name for name in FATAL if name.startswith("dynamodb:")), "dynamodb:Query"])
@pytest.mark.usefixtures("clean")
def test_an_action_denied_to_the_kcl_daemon_is_named_for_each_table(aws: Aws, tmp_path: Path, kcl_tables: str, action: str) -> None:
    env, _, moto, _, topic = aws
    moto.denied = frozenset({action})
    try:
        result, findings = run(under_kcl(tmp_path, topic, kcl_tables), env)
    finally:
        moto.denied = frozenset()
    assert result.exit_code == 1
    reported = [each for each in findings if each["check"] == "leases" and f"{action} on" in each["what"]]
    assert reported
    assert all((each["verdict"], "stream iam" in each["remedy"]) == ("failed", True) for each in reported)


@pytest.mark.usefixtures("clean")
def test_tables_that_the_kcl_daemon_has_not_created_yet_are_noted(aws: Aws, tmp_path: Path) -> None:
    env, *_, topic = aws
    result, findings = run(under_kcl(tmp_path, topic, "unborn"), env)
    assert result.exit_code == 0, result.output
    assert {each["verdict"] for each in findings if each["check"] == "leases"} == {"note"}
    assert "dynamodb:CreateTable" in found(findings, "leases", "DescribeTable on table unborn:")["what"]


@pytest.mark.usefixtures("clean")
def test_a_table_of_the_kcl_with_another_key_is_reported(aws: Aws, tmp_path: Path) -> None:
    env, _, _, make, topic = aws
    table_of(make("dynamodb"), "foreign-WorkerMetricStats", {"id": ("HASH", "S")})
    result, findings = run(under_kcl(tmp_path, topic, "foreign"), env)
    assert result.exit_code == 1
    assert "`wid`" in found(findings, "leases", "DescribeTable on table foreign-WorkerMetricStats:")["what"]


@pytest.mark.usefixtures("clean")
def test_unreachable_notification_channels_are_noted(aws: Aws, tmp_path: Path) -> None:
    env, *_, topic = aws
    path = pipeline(tmp_path, f"{topic}-gone")
    path.write_text(path.read_text().replace("notify: {", 'notify: {webhook: "http://127.0.0.1:9/hook", '))
    result, findings = run(path, env)
    assert result.exit_code == 0, result.output
    assert found(findings, "notify", f"{topic}-gone")["verdict"] == "note"
    assert found(findings, "notify", "127.0.0.1:9")["verdict"] == "note"


@contextmanager
def encrypted(records: list[dict[str, Any]]) -> Iterator[str]:
    """Kinesis with one encrypted stream of one shard that holds ``records``."""
    summary = {"StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/flights", "StreamStatus": "ACTIVE", "EncryptionType": "KMS"}
    shard = {"ShardId": "shardId-000000000000", "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}}
    answers = {
        "DescribeStreamSummary": {"StreamDescriptionSummary": summary | {"RetentionPeriodHours": 24, "OpenShardCount": 1}},
        "ListShards": {"Shards": [shard]},
        "GetShardIterator": {"ShardIterator": "i"},
        "GetRecords": {"Records": records, "MillisBehindLatest": 0, "NextShardIterator": "j"},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(answers[self.headers["X-Amz-Target"].partition(".")[2]]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with serving(Handler) as url:
        yield url


RECORD = {"SequenceNumber": "1", "Data": "", "PartitionKey": "k", "ApproximateArrivalTimestamp": 1.0}


@pytest.mark.parametrize(("records", "untried"), [([], True), ([RECORD], False)])
@pytest.mark.usefixtures("clean")
def test_the_key_of_an_encrypted_stream_is_tried_only_if_there_is_a_record(
    aws: Aws, tmp_path: Path, records: list[dict[str, Any]], untried: bool
) -> None:
    env, *_, topic = aws
    path = pipeline(tmp_path, topic)
    path.write_text(path.read_text().replace(", retrieval: fan_out", ""))
    with encrypted(records) as url:
        result, findings = run(path, {**env, "AWS_ENDPOINT_URL_KINESIS": url})
    assert result.exit_code == 0, result.output
    assert ("kms:Decrypt" in found(findings, "stream", "flights")["what"]) is untried
