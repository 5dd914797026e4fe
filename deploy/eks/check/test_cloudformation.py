"""The template is well-formed, strict and least; and a pipeline runs against what it creates, as far as local AWS creates it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from time import monotonic

import boto3
import pytest
import yaml

from stream.local.aws import LocalClients
from stream.local.flights import flights_table, produce
from stream.local.progress import LogReader
from stream.local.start import LocalAws

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "deploy" / "eks" / "cloudformation" / "stream.yaml"
BIN = Path(sys.executable).parent
ROWS = 2000
PATIENCE = 120


class Loader(yaml.SafeLoader):
    """Reads `!Ref x` as `{"Ref": "x"}`, likewise the other functions."""


def function(loader, tag, node):
    kinds = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: lambda each: loader.construct_sequence(each, deep=True)}
    return {tag: kinds.get(type(node), lambda each: loader.construct_mapping(each, deep=True))(node)}


Loader.add_multi_constructor("!", function)
MADE = yaml.load(TEMPLATE.read_text(), Loader)["Resources"]  # noqa: S506 - the loader is safe, and the file is ours


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def of(kind):
    return {name: each for name, each in MADE.items() if each["Type"] == kind}


def test_cfn_lint_finds_nothing():
    functions = [ROOT / "examples" / name / "template.yaml" for name in ("lambda", "firehose")]
    assert run(BIN / "cfn-lint", "--include-checks", "I", "--", TEMPLATE, *functions) == (0, "")


def test_trivy_finds_nothing_but_what_is_accepted():
    trivy = [BIN / "trivy", "config", "--skip-check-update", "--skip-version-check", "--quiet", "--exit-code", "1"]
    code, told = run(*trivy, "--ignorefile", Path(__file__).with_name("trivyignore"), TEMPLATE)
    assert code == 0, told


def test_nothing_that_holds_records_goes_with_the_stack():
    holding = {"AWS::KMS::Key", "AWS::Kinesis::Stream", "AWS::DynamoDB::Table", "AWS::S3::Bucket"}
    kept = {name for name, each in MADE.items() if each.get("DeletionPolicy") == each.get("UpdateReplacePolicy") == "Retain"}
    assert kept == {name for name, each in MADE.items() if each["Type"] in holding}


def test_every_bucket_and_topic_refuses_what_is_not_tls():
    for kind, policy, target in (
        ("AWS::S3::Bucket", "AWS::S3::BucketPolicy", "Bucket"),
        ("AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "Topics"),
    ):
        strict = [
            json.dumps(each["Properties"][target])
            for each in of(policy).values()
            for statement in each["Properties"]["PolicyDocument"]["Statement"]
            if (statement["Effect"], statement["Principal"]) == ("Deny", "*")
            and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        ]
        assert len(strict) == len(of(kind))
        assert [name for name in of(kind) if f'"{name}"' not in "".join(strict)] == []


def test_only_ledger_and_dead_letters_expire():
    rules = MADE["State"]["Properties"]["LifecycleConfiguration"]["Rules"]
    expiring = [each["Prefix"]["Sub"] for each in rules if "ExpirationInDays" in each]
    assert expiring == ["${Application}/ledger/", "${Application}/rejects/"]
    assert [each for each in MADE["Lake"]["Properties"]["LifecycleConfiguration"]["Rules"] if "ExpirationInDays" in each] == []


def statements():
    (policy,) = MADE["WorkerRole"]["Properties"]["Policies"]
    return [each["Fn::If"][1] if "Fn::If" in each else each for each in policy["PolicyDocument"]["Statement"]]


def test_the_role_names_every_resource():
    assert [each["Sid"] for each in statements() if each["Effect"] != "Allow" or "*" in (each["Resource"], each["Action"])] == []


def test_the_role_allows_every_action_that_is_documented():
    section = (ROOT / "docs" / "permissions.md").read_text().partition("## Permissions")[2].partition("\n## ")[0]
    wanted = set(re.findall(r"`((?:kinesis|s3|dynamodb):\w+)`", section))
    allowed = {action for each in statements() for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])}
    assert len(wanted) >= 8
    assert wanted <= allowed


def test_the_trust_is_for_one_service_account():
    (statement,) = MADE["WorkerRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert {"aws:RequestTag/kubernetes-namespace", "aws:RequestTag/kubernetes-service-account"} <= set(
        statement["Condition"]["StringEquals"]
    )


def test_the_command_that_is_shown_gives_parameters_that_exist():
    page = (ROOT / "docs" / "eks.md").read_text()
    (command,) = re.findall(r"^aws cloudformation deploy .*?(?<!\\)$", page, re.DOTALL | re.MULTILINE)
    words = shlex.split(command)
    assert ROOT / words[words.index("--template-file") + 1] == TEMPLATE
    given = {word.partition("=")[0] for word in words[words.index("--parameter-overrides") + 1 :]}
    assert "Application" in given
    assert given <= set(yaml.load(TEMPLATE.read_text(), Loader)["Parameters"])  # noqa: S506 - as above


@pytest.fixture(scope="module")
def deployed():
    """Local AWS with the stack in it, and the stack's outputs. The stream is made again in the emulator, by the same properties."""
    with LocalAws() as aws:
        environment = aws.environment()
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": environment["AWS_REGION"]}
        client = boto3.client("cloudformation", endpoint_url=aws.moto.url, **keys)
        given = {"Application": "flights", "Shards": "2", "Namespace": "data", "ServiceAccount": "flights-stream"}
        client.create_stack(
            StackName="flights",
            TemplateBody=TEMPLATE.read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        (stack,) = client.describe_stacks(StackName="flights")["Stacks"]
        client.close()
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
        with LocalClients(environment) as clients:
            clients.create_stream(outputs["Stream"], int(given["Shards"]))
            yield environment, outputs, clients


def test_the_lease_table_is_one_that_the_kinesis_client_library_understands(deployed):
    environment, outputs, _ = deployed
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": environment["AWS_REGION"]}
    client = boto3.client("dynamodb", endpoint_url=environment["AWS_ENDPOINT_URL_DYNAMODB"], **keys)
    table = client.describe_table(TableName=outputs["LeaseTable"])["Table"]
    client.close()
    assert (table["TableName"], table["KeySchema"]) == ("flights", [{"AttributeName": "leaseKey", "KeyType": "HASH"}])


def test_the_pipeline_of_the_demo_runs_against_what_was_created(deployed, tmp_path):
    environment, outputs, clients = deployed
    where = environment["AWS_ENDPOINT_URL_KINESIS"], environment["AWS_REGION"]
    put = produce(*where, outputs["Stream"], flights_table().head(ROWS), 1, lambda _: None)
    mine = {"STREAM": outputs["Stream"], "STATE": outputs["StateUrl"], "LAKE": outputs["LakeUrl"], "MASK_KEY": "any", "FLUSH_AGE": "1s"}
    command = [sys.executable, "-m", "stream", "run", str(ROOT / "examples/flights/pipeline.yaml"), "--metrics-port=0"]
    lake, state = (outputs[name].removeprefix("s3://").rstrip("/") for name in ("LakeUrl", "StateUrl"))
    reader = LogReader(clients, state, "flights/commits/")
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stderr=log, env={**os.environ, **environment, **mine}) as worker:
        try:
            end = monotonic() + PATIENCE
            while reader.sealed_records() < put.records and monotonic() < end and worker.poll() is None:
                Event().wait(0.1)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
        finally:
            worker.kill()
    assert reader.sealed_records() == put.records
    assert len(clients.keys(lake)) >= 1
