"""The calls of the service to AWS, also when something fails, are those that `stream iam` allows: none is missing, none is superfluous.

Loading into Redshift is judged likewise in tests/redshift/campaign_permissions.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.clock import SystemClock
from stream.pipeline.access.actions import Account
from stream.pipeline.access.grants import allows
from stream.pipeline.access.roles import Document, Role, accesses, policy
from stream.pipeline.checks.lint import check
from tests.chaos.conftest import client
from tests.chaos.world import LARGE, World
from tests.invocations import event_of, held
from tests.recording import ACCOUNT, REGION, Asked, Naming, Recorder, judge, recording
from tests.runtime_api import RuntimeApi, Sandbox
from tests.transformations import asked, delivered

LOOKUP = '  - lookup: {{table: "s3://{bucket}/reference/kinds.parquet", on: kind, take: {{named: name}}, missing: "null"}}'
MASK = "  - mask: {columns: [note], method: keyed_hash, key: {env: MASK_KEY}}"
BY_MOTO = ("S3", "DYNAMODB", "SNS", "SECRETS_MANAGER", "STS")
LEASE_KEY = {
    "AttributeDefinitions": [{"AttributeName": "leaseKey", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}

MakeWorld = Callable[..., World]


class Recorders:
    """Recorders in front of every service that a world's workers call."""

    def __init__(self, *recorders: Recorder) -> None:
        self._recorders = recorders

    @property
    def seen(self) -> set[Asked]:
        return {each for recorder in self._recorders for each in recorder.seen}

    def forget(self) -> None:
        """Forget the requests so far."""
        for recorder in self._recorders:
            recorder.seen.clear()


@contextmanager
def recorded(world: World, naming: Naming | None = None) -> Iterator[Recorders]:
    naming = naming or Naming(stream=world.stream)
    with recording(world.environment["AWS_ENDPOINT_URL_S3"], naming) as (others, moto), recording(world.url, naming) as (url, kinesis):
        world.environment = {
            **world.environment,
            "AWS_ENDPOINT_URL_KINESIS": url,
            **{f"AWS_ENDPOINT_URL_{service}": others for service in BY_MOTO},
        }
        yield Recorders(moto, kinesis)


def granted(path: Path, role: Role = Role.WORKER) -> Document:
    made = check(path, {"MASK_KEY": "any"})
    assert made.pipeline is not None, [finding.render() for finding in made.findings]
    return policy(accesses(made.pipeline, role, Account(ACCOUNT, REGION)))


def put_kinds(world: World) -> None:
    table = io.BytesIO()
    pl.DataFrame({"kind": ["a", "b", "c"], "name": ["A", "B", "C"]}).write_parquet(table)
    world.s3.put_object(Bucket=world.bucket, Key="reference/kinds.parquet", Body=table.getvalue())


def test_a_polling_worker_needs_exactly_its_policy_through_a_crash_and_a_new_definition(make_world: MakeWorld) -> None:
    world = make_world(2, s3=True)
    put_kinds(world)
    path = world.pipeline(stages=f"{LOOKUP.format(bucket=world.bucket)}\n{MASK}")
    with recorded(world) as recorders:
        world.produce(300)
        # Dies with an intent; the next one cannot make the same bytes, replaces the files and takes back the ones that were announced.
        world.crash(path, "IntentCreated", MASK_KEY="before")
        world.split()
        world.produce(100)
        world.finish(path, MASK_KEY="after")
    judge(granted(path), recorders.seen)


FULL = """
coordination: {{native: {{failover: 3s, look: 300ms}}}}
notify: {{sns: "{topic}"}}
requires: ["s3://{bucket}/reference/kinds.parquet"]
"""
MANAGED = "  - mask: {columns: [note], method: keyed_hash, key: {secrets_manager: chaos/mask}}"


@pytest.fixture
def with_every_feature(make_world: MakeWorld) -> Iterator[tuple[World, Path, Naming]]:
    """A pipeline with every feature that needs permissions: fan-out, leases, a table, a managed secret, a topic, a required object."""
    world = make_world(2, s3=True)
    put_kinds(world)
    url = world.environment["AWS_ENDPOINT_URL_S3"]
    secrets, topics, tables = (client(service, url) for service in ("secretsmanager", "sns", "dynamodb"))
    secret = secrets.create_secret(Name="chaos/mask", SecretString="key")["ARN"]
    topic = topics.create_topic(Name="halted")["TopicArn"]
    tables.create_table(TableName="chaos", **LEASE_KEY)
    path = world.pipeline(start="trim_horizon, retrieval: fan_out", stages=f"{LOOKUP.format(bucket=world.bucket)}\n{MANAGED}")
    path.write_text(path.read_text() + FULL.format(topic=topic, bucket=world.bucket))
    yield world, path, Naming(stream=world.stream, secrets={"chaos/mask": secret})
    tables.delete_table(TableName="chaos")
    secrets.delete_secret(SecretId="chaos/mask", ForceDeleteWithoutRecovery=True)
    for each in (secrets, topics, tables):
        each.close()


def stopped_by_dead_letters(world: World, path: Path) -> None:
    """A worker of the same pipeline whose records are all bad: its shards halt, and it sends notifications."""
    strict = path.with_name("strict.yaml")
    strict.write_text(path.read_text().replace("min_records: 100000", "min_records: 10"))
    world.put_all([b'{"other": 1}'] * 60)
    worker = world.start(strict)
    worker.until(lambda: worker.said().count('"event":"shard_halted"') == len(world.open_shards()))
    assert worker.drain() == 1
    assert "notification_failed" not in worker.said()


COMMANDS = (
    ("doctor", "FILE"),
    ("audit", "verify", "FILE"),
    ("audit", "ls", "FILE"),
    ("leases", "ls", "FILE"),
    ("dlq", "top", "FILE"),
    ("dlq", "ls", "FILE"),
)


def test_a_pipeline_that_uses_every_feature_needs_exactly_its_policy(
    with_every_feature: tuple[World, Path, Naming], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, path, naming = with_every_feature
    document = granted(path)
    with recorded(world, naming) as recorders:
        first = world.start(path)
        world.produce(200)
        first.until(world.committed)
        assert "retrieval_changed" not in first.said(), first.said()
        world.split()
        world.produce(200)
        first.until(world.committed)
        assert first.drain() == 0
        # Whoever comes next removes the row of the shard that has ended, since its children have begun.
        world.produce(100)
        # What a worker leaves half-done is read again by polling.
        world.crash(path, "IntentCreated")
        world.finish(path)
        stopped_by_dead_letters(world, path)
        # Files are taken back by whoever finds an intent that it cannot complete as it stands: the test above.
        judge(document, recorders.seen, in_vain=["s3:DeleteObject"])
        by_workers = recorders.seen
        for name, value in world.environment.items():
            monkeypatch.setenv(name, value)
        for command in COMMANDS:
            ran = CliRunner().invoke(app, [str(path) if word == "FILE" else word for word in command])
            assert ran.exit_code == 0, ran.output
        by_people = recorders.seen - by_workers
    # The one thing that is looked at and not needed: the doctor makes do without.
    assert {each.action for each in by_people if not allows(document, each.action, each.resource, each.prefix)} <= {
        "sns:GetTopicAttributes"
    }


def test_complete_and_shards_need_exactly_the_policy_of_the_reader_role(
    with_every_feature: tuple[World, Path, Naming], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, path, naming = with_every_feature
    with recorded(world, naming) as recorders:
        world.produce(60)
        world.finish(path)
        tables = client("dynamodb", world.environment["AWS_ENDPOINT_URL_DYNAMODB"])
        row = {"leaseKey": {"S": "shardId-000000000000"}}
        tables.update_item(
            TableName="chaos", Key=row, UpdateExpression="SET leaseOwner = :me", ExpressionAttributeValues={":me": {"S": "somebody"}}
        )
        tables.close()
        recorders.forget()
        for name, value in world.environment.items():
            monkeypatch.setenv(name, value)
        ran = CliRunner().invoke(app, ["complete", str(path), "--until", SystemClock().now().isoformat(), "--wait", "20", "--margin", "0"])
        assert ran.exit_code == 0, ran.output
        ran = CliRunner().invoke(app, ["shards", str(path), "--keys", "--pages", "1", "--json"])
        assert ran.exit_code == 0, ran.output
        reported = CliRunner().invoke(app, ["status", str(path), "--json"])
        assert reported.exit_code == 1, reported.output
    assert [shard["owner"] for shard in json.loads(ran.stdout)["streams"][0]["shards"]] == ["somebody", None]
    assert json.loads(reported.stdout)["streams"][0]["unread"] == []
    judge(granted(path, Role.READER), recorders.seen)


def test_a_query_needs_exactly_the_policy_of_the_analyst_role(
    with_every_feature: tuple[World, Path, Naming], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, path, naming = with_every_feature
    with recorded(world, naming) as recorders:
        world.produce(60)
        world.finish(path)
        for name, value in world.environment.items():
            monkeypatch.setenv(name, value)
        ran = CliRunner().invoke(app, ["compact", str(path), "--before", "2100-01-01"])
        assert ran.exit_code == 0, ran.output
        compacted = [key for key in world.objects("lake/") if not key.startswith("lake-compacted/")]
        world.s3.delete_object(Bucket=world.bucket, Key=sorted(compacted)[0])
        world.produce(40)
        recorders.forget()
        ran = CliRunner().invoke(app, ["query", str(path), "SELECT _sealed, count(*) FROM rows GROUP BY _sealed", "--json"])
        assert ran.exit_code == 0, ran.output
    assert {row["_sealed"] for row in json.loads(ran.stdout)["rows"]} == {True, False}
    judge(granted(path, Role.ANALYST), recorders.seen)


def test_a_function_with_a_killed_one_before_it_needs_what_the_role_function_may(make_world: MakeWorld) -> None:
    world = make_world(1, s3=True)
    shard = "shardId-000000000000"
    path = world.pipeline()
    path.write_text(path.read_text() + "coordination: native\n")
    with recorded(world) as recorders, RuntimeApi() as api:
        world.produce(40)
        event = event_of(world.stream, shard, held(world.client, world.stream, shard))
        debug = {**world.environment, "STREAM_LOG_LEVEL": "debug"}
        with Sandbox(api, world.folder, debug, world.folder / "killed.log") as sandbox:
            sandbox.begin(event)
            sandbox.until(lambda said: '"event":"intent_created"' in said)
        while not api.answers.empty():
            api.answers.get()
        changed = world.pipeline(keep=LARGE.mark)
        changed.write_text(changed.read_text() + "coordination: native\n")
        with Sandbox(api, world.folder, world.environment, world.folder / "next.log") as sandbox:
            assert sandbox.invoke(event).ok
            assert sandbox.invoke({"detail-type": "Scheduled Event", "source": "aws.events"}).body == {"left": []}
    # Lambda itself reads the stream and writes the log; files are taken back by whoever cannot make those of an intent again.
    by_lambda = ["kinesis:DescribeStream", "logs:CreateLogStream", "logs:PutLogEvents", "s3:DeleteObject"]
    judge(granted(path, Role.FUNCTION), recorders.seen, in_vain=by_lambda)


def test_a_function_under_firehose_needs_what_the_role_transform_may(with_every_feature: tuple[World, Path, Naming]) -> None:
    world, path, naming = with_every_feature
    event = asked([b'{"id": 1, "kind": "a", "value": 1, "note": "n"}', b"{"], world.stream)
    with (
        recorded(world, naming) as recorders,
        RuntimeApi() as api,
        Sandbox(api, world.folder, world.environment, world.folder / "f.log", "stream.firehose.handler") as sandbox,
    ):
        assert [result for result, _, _ in delivered(event, sandbox.invoke(event).body)] == ["Ok", "ProcessingFailed"]
    # Lambda itself writes the log; listing makes a missing table a 404 instead of a 403.
    judge(granted(path, Role.TRANSFORM), recorders.seen, in_vain=["logs:CreateLogStream", "logs:PutLogEvents", "s3:ListBucket"])


def test_who_pauses_and_resumes_needs_what_the_role_operator_may(
    with_every_feature: tuple[World, Path, Naming], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, path, naming = with_every_feature
    with recorded(world, naming) as recorders:
        world.produce(60)
        world.finish(path)
        recorders.forget()
        for name, value in world.environment.items():
            monkeypatch.setenv(name, value)
        shard = world.shards()[0]["ShardId"]
        for command in (["pause", "FILE", "--note", "new disks"], ["pause", "FILE", shard, "--note", "hot", "--until", "1h"]):
            ran = CliRunner().invoke(app, [str(path) if word == "FILE" else word for word in command])
            assert ran.exit_code == 0, ran.output
            assert "is not known" not in ran.output
        for command in (["resume", "FILE"], ["pause", "FILE", "--list"], ["resume", "FILE", "--all"]):
            ran = CliRunner().invoke(app, [str(path) if word == "FILE" else word for word in command])
            assert ran.exit_code == 0, ran.output
    judge(granted(path, Role.OPERATOR), recorders.seen)


def test_creating_a_missing_lease_table_needs_the_bootstrap_role(make_world: MakeWorld) -> None:
    world = make_world(1, s3=True)
    path = world.pipeline()
    path.write_text(path.read_text() + f"coordination: {{native: {{table: made-{world.stream}, failover: 3s, look: 300ms}}}}\n")
    with recorded(world) as recorders:
        world.produce(20)
        world.finish(path)
    document = granted(path)
    beyond = {each for each in recorders.seen if not allows(document, each.action, each.resource, each.prefix)}
    table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/made-{world.stream}"
    assert beyond == {Asked("dynamodb:CreateTable", table)}
    assert allows(granted(path, Role.BOOTSTRAP), "dynamodb:CreateTable", table)


ARCHIVE = """
application: archive
source:
  s3: {{url: "s3://{bucket}/in/", manifest: "s3://{bucket}/lists/today", shards: 2}}
  schema: {{id: int64, kind: string}}
sinks:
  - s3: {{url: "s3://{bucket}/lake/"}}
requires: ["s3://{bucket}/in/_SUCCESS"]
metrics: {{port: 0}}
state: "s3://{bucket}/state/"
"""


def test_a_run_over_objects_needs_exactly_the_policy_of_the_backfill_role(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(1, s3=True)
    for number in range(4):
        lines = "\n".join(json.dumps({"id": number * 10 + at, "kind": "a"}) for at in range(10))
        world.s3.put_object(Bucket=world.bucket, Key=f"in/{number}.ndjson", Body=f"{lines}\n{{broken\n".encode())
    world.s3.put_object(Bucket=world.bucket, Key="in/_SUCCESS", Body=b"")
    listed = "\n".join(f"{number}.ndjson" for number in range(4))
    world.s3.put_object(Bucket=world.bucket, Key="lists/today", Body=listed.encode())
    path = world.folder / "archive.yaml"
    path.write_text(ARCHIVE.format(bucket=world.bucket))
    with recorded(world) as recorders:
        for name, value in world.environment.items():
            monkeypatch.setenv(name, value)
        for command in (["run", str(path), "--once"], ["dlq", "redrive", str(path)]):
            ran = CliRunner().invoke(app, command)
            assert ran.exit_code == 0, ran.output
    assert len(world.objects("lake/")) >= 2
    # Files are taken back by whoever finds an intent that it cannot complete as it stands.
    judge(granted(path, Role.BACKFILL), recorders.seen, in_vain=["s3:DeleteObject"])
