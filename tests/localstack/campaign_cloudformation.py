"""The CloudFormation template in LocalStack, and the pipeline of the demo on what it makes: two workers, one of them killed.

LocalStack grants everything to everybody; what the role of the template allows is judged here by the requests that workers make.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from stream.local.aws import LocalClients
from stream.local.comparison import judge
from stream.local.flights import flights_table, produce
from stream.local.progress import LogReader
from stream.local.start import environment
from stream.pipeline.access.grants import allows
from tests.chaos.workers import Worker
from tests.forked import ROOT
from tests.localstack.running import aws_command
from tests.recording import Naming, recording
from tests.serving import serving

ACCOUNT = "000000000000"
ROWS = 4000
MASK_KEY = "any"
PATIENCE = 60
"""Seconds for the topic to post."""
UNKNOWN = {"Association"}
"""What LocalStack has no notion of (EKS) and passes over; it says so in the reason of the resource's status."""

MakeClient = Callable[[str], Any]


@dataclass
class Stack:
    """What was deployed, and where."""

    url: str
    outputs: Mapping[str, str]
    resources: Mapping[str, Mapping[str, Any]]

    def bucket(self, name: str) -> str:
        return str(self.resources[name]["PhysicalResourceId"])

    def environment(self) -> dict[str, str]:
        """The environment of a worker whose pipeline file names no URLs."""
        names = {"STREAM": "Stream", "LAKE": "LakeUrl", "STATE": "StateUrl", "TOPIC": "TopicArn"}
        given = {variable: self.outputs[output] for variable, output in names.items()}
        # The commits of a small table are to be many, and files small.
        return given | {"MASK_KEY": MASK_KEY, "FLUSH_AGE": "1s", "FLUSH_BYTES": "64KiB", "METRICS_PORT": "0"}


def aws(url: str, *words: str) -> Any:
    """The output of the command `aws`."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    here = {**keys, "AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*aws_command(), *words], cwd=ROOT, env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout


@pytest.fixture(scope="module")
def stack(url: str) -> Stack:
    """Deployed by the command that docs/eks.md shows, with two shards and a consumer."""
    (shown,) = re.findall(r"^aws (cloudformation deploy .*?(?<!\\))$", (ROOT / "docs" / "eks.md").read_text(), re.DOTALL | re.MULTILINE)
    aws(url, *shlex.split(shown), "Shards=2", "EnhancedFanOut=true")
    (made,) = aws(url, "cloudformation", "describe-stacks", "--stack-name", "flights")["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    resources = aws(url, "cloudformation", "describe-stack-resources", "--stack-name", "flights")["StackResources"]
    outputs = {each["OutputKey"]: each["OutputValue"] for each in made["Outputs"]}
    return Stack(url, outputs, {each["LogicalResourceId"]: each for each in resources})


def test_every_resource_of_the_template_except_the_association_is_created(stack: Stack) -> None:
    named = re.findall(r"^  (\w+):\n    Type: AWS::", (ROOT / "deploy/eks/cloudformation/stream.yaml").read_text(), re.MULTILINE)
    assert len(named) == 13
    assert stack.resources.keys() == set(named)
    passed_over = {name for name, each in stack.resources.items() if "not supported" in each.get("ResourceStatusReason", "")}
    assert passed_over == UNKNOWN


def test_created_resources_match_the_template(stack: Stack, make_client: MakeClient) -> None:
    kinesis, s3, dynamodb, sns = (make_client(service) for service in ("kinesis", "s3", "dynamodb", "sns"))
    key = make_client("kms").describe_key(KeyId="alias/flights")["KeyMetadata"]["Arn"]
    summary = kinesis.describe_stream_summary(StreamName=stack.outputs["Stream"])["StreamDescriptionSummary"]
    assert (summary["OpenShardCount"], summary["StreamModeDetails"]["StreamMode"]) == (2, "PROVISIONED")
    (consumer,) = kinesis.list_stream_consumers(StreamARN=summary["StreamARN"])["Consumers"]
    assert (consumer["ConsumerName"], consumer["ConsumerStatus"]) == ("flights", "ACTIVE")
    table = dynamodb.describe_table(TableName=stack.outputs["LeaseTable"])["Table"]
    assert table["KeySchema"] == [{"AttributeName": "leaseKey", "KeyType": "HASH"}]
    assert (table["BillingModeSummary"]["BillingMode"], table["SSEDescription"]["KMSMasterKeyArn"]) == ("PAY_PER_REQUEST", key)
    for name in ("Lake", "State"):
        bucket = stack.bucket(name)
        (statement,) = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
        assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    topic = sns.get_topic_attributes(TopicArn=stack.outputs["TopicArn"])["Attributes"]
    assert topic["KmsMasterKeyId"] == key
    assert {each["Sid"] for each in json.loads(topic["Policy"])["Statement"]} == {"AlarmsOfThisAccount", "TlsOnly"}
    role = make_client("iam").get_role(RoleName=stack.bucket("WorkerRole"))["Role"]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    tags = {name.rpartition("/")[2]: value for name, value in trust["Condition"]["StringEquals"].items()}
    assert tags == {
        "aws:SourceAccount": ACCOUNT,
        "kubernetes-namespace": "data",
        "kubernetes-service-account": "flights-stream",
        "eks-cluster-name": "CLUSTER",
    }


def test_what_localstack_lacks_is_documented(stack: Stack, make_client: MakeClient) -> None:
    kinesis, s3, dynamodb = (make_client(service) for service in ("kinesis", "s3", "dynamodb"))
    summary = kinesis.describe_stream_summary(StreamName=stack.outputs["Stream"])["StreamDescriptionSummary"]
    backups = dynamodb.describe_continuous_backups(TableName=stack.outputs["LeaseTable"])["ContinuousBackupsDescription"]
    encryption = s3.get_bucket_encryption(Bucket=stack.bucket("State"))["ServerSideEncryptionConfiguration"]["Rules"][0]
    rules = s3.exceptions.ClientError
    with pytest.raises(rules, match="NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=stack.bucket("State"))
    found = {
        "retention": summary["RetentionPeriodHours"] == 168,
        "stream encryption": summary["EncryptionType"] == "KMS",
        "point-in-time recovery": backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED",
        "bucket encryption": encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms",
        "lifecycle": False,
    }
    assert not any(found.values())
    page = (ROOT / "docs" / "eks.md").read_text()
    (sentence,) = re.findall(r"LocalStack leaves out ([^;.]*)[;.]", page)
    assert set(re.split(r", | and ", " ".join(sentence.split()))) == {*found, "the association"}


def pipeline(folder: Path, name: str = "pipeline", more: str = "") -> Path:
    """The pipeline of the demo, with every resource of the stack."""
    text = (ROOT / "examples/flights/pipeline.yaml").read_text()
    assert "start: trim_horizon\n" in text
    text = text.replace("start: trim_horizon\n", "start: trim_horizon\n    retrieval: fan_out\n")
    path = folder / f"{name}.yaml"
    path.write_text(f'{text}coordination: {{native: {{failover: 3s, look: 300ms}}}}\nnotify: {{sns: "${{TOPIC}}"}}\n{more}')
    return path


def live(stack: Stack, make_client: MakeClient) -> Any:
    return make_client("iam").get_role_policy(RoleName=stack.bucket("WorkerRole"), PolicyName="worker")["PolicyDocument"]


def test_the_role_allows_everything_the_pipeline_needs(stack: Stack, make_client: MakeClient, tmp_path: Path) -> None:
    """Except the registration of a consumer, which the template does itself."""
    (tmp_path / "live.json").write_text(json.dumps(live(stack, make_client)))
    where = ["--account", ACCOUNT, "--region", "us-east-1", "--role", "worker", "--diff", str(tmp_path / "live.json")]
    command = [sys.executable, "-m", "stream", "iam", str(pipeline(tmp_path)), *where]
    here = {**environment(stack.url, stack.url), **stack.environment(), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, check=False)
    missing = [line for line in done.stdout.splitlines() if line.startswith("-")]
    assert [line.split()[1] for line in missing] == ["kinesis:RegisterStreamConsumer"], done.stdout + done.stderr


@contextmanager
def listening(posted: SimpleQueue[Any]) -> Iterator[str]:
    """An address to which a topic can post; the posts are appended to ``posted``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with serving(Handler) as url:
        yield url


def test_the_demo_pipeline_runs_on_the_created_resources(stack: Stack, make_client: MakeClient, tmp_path: Path) -> None:
    posted: SimpleQueue[Any] = SimpleQueue()
    topic = stack.outputs["TopicArn"]
    naming = Naming(account=ACCOUNT, stream=stack.outputs["Stream"])
    workers: list[Worker] = []
    with (
        recording(stack.url, naming) as (front, recorder),
        LocalClients(environment(stack.url, stack.url)) as clients,
        listening(posted) as there,
    ):
        make_client("sns").subscribe(TopicArn=topic, Protocol="http", Endpoint=there)
        make_client("sns").confirm_subscription(TopicArn=topic, Token=posted.get(timeout=PATIENCE)["Token"])

        def start(path: Path) -> Worker:
            workers.append(Worker([str(path)], environment(front, front) | stack.environment(), tmp_path / f"{len(workers)}.log"))
            return workers[-1]

        try:
            path = pipeline(tmp_path)
            first, second = start(path), start(path)
            put = produce(stack.url, "us-east-1", stack.outputs["Stream"], flights_table().head(ROWS), 1, lambda _: None)
            reader = LogReader(clients, stack.bucket("State"), "flights/commits/")
            first.until(lambda: reader.sealed_records() > ROWS // 4)
            first.signal(signal.SIGKILL)
            second.until(lambda: reader.sealed_records() >= put.records)
            assert second.drain() == 0, second.said()
            assert reader.sealed_records() == put.records
            assert "retrieval_changed" not in first.said() + second.said()
            clients.copy_bucket(stack.bucket("Lake"), tmp_path / "lake")
            clients.copy_bucket(stack.bucket("State"), tmp_path / "state")
            ledger = tmp_path / "state" / "flights" / "ledger"
            found = judge(tmp_path / "lake", ledger, rows=put.flights, broken=put.broken, mask_key=MASK_KEY.encode())
            assert [each for each in found if not each.good] == []
            _halted(start(pipeline(tmp_path, "strict", "rejects: {min_records: 10}\n")), make_client, stack)
            news = posted.get(timeout=PATIENCE)
            assert (news["Type"], json.loads(news["Message"])["event"]) == ("Notification", "shard_halted")
        finally:
            for worker in workers:
                worker.end()
    document = live(stack, make_client)
    refused = sorted(each for each in recorder.seen if not allows(document, each.action, each.resource, each.prefix))
    assert refused == []
    for action in ("kinesis:SubscribeToShard", "dynamodb:UpdateItem", "s3:PutObject", "sns:Publish"):
        assert action in {each.action for each in recorder.seen}


def _halted(worker: Worker, make_client: MakeClient, stack: Stack) -> None:
    """Records that cannot be decoded halt a shard."""
    records = [{"Data": b"none", "PartitionKey": "one"}] * 50
    assert make_client("kinesis").put_records(StreamName=stack.outputs["Stream"], Records=records)["FailedRecordCount"] == 0
    worker.until(lambda: "shard_halted" in worker.said())
    assert worker.drain() == 1
