"""The example of a Firehose stream: settings, roles, image and pipeline file fit. What CloudFormation thinks of it: `make chart-check`."""

import re

import pytest

from stream.pipeline.access.grants import compare
from stream.pipeline.access.roles import Role, ServiceAccount, accesses, policy, trust
from stream.pipeline.checks.host_names import Host
from stream.pipeline.checks.lint import check
from tests.docs.generate import ROOT
from tests.unit.deploy.templates import GIVEN, HERE, KEY, read_template, without_conditions

EXAMPLE = ROOT / "examples" / "firehose"
ROLES = {Role.TRANSFORM: "FunctionRole", Role.FIREHOSE: "DeliveryRole"}


@pytest.fixture
def made():
    return {name: each["Properties"] for name, each in read_template(EXAMPLE / "template.yaml")["Resources"].items()}


@pytest.fixture
def variables(made):
    return made["Function"]["Environment"]["Variables"]


@pytest.fixture
def pipeline(variables):
    found = check(EXAMPLE / "pipeline.yaml", variables, Host.FIREHOSE)
    assert found.findings == ()
    return found.pipeline


@pytest.fixture
def destination(made):
    return made["Delivery"]["ExtendedS3DestinationConfiguration"]


def test_the_variables_are_those_that_the_pipeline_file_reads_without_the_state(variables):
    read = set(re.findall(r"\$\{(\w+)", (EXAMPLE / "pipeline.yaml").read_text()))
    assert set(variables) == read - {"STATE"}


@pytest.mark.parametrize("role", ROLES)
def test_the_roles_allow_exactly_what_stream_iam_prints(made, pipeline, role):
    (given,) = made[ROLES[role]]["Policies"]
    keys = [KEY] if role is Role.FIREHOSE else []
    found = compare(
        without_conditions(policy(accesses(pipeline, role, HERE), keys, HERE.region)), without_conditions(given["PolicyDocument"])
    )
    assert not found, found


@pytest.mark.parametrize("role", ROLES)
def test_the_trust_is_what_stream_iam_prints(made, role):
    (given,) = made[ROLES[role]]["AssumeRolePolicyDocument"]["Statement"]
    (wanted,) = trust(role, HERE, ServiceAccount("default", "stream"))["Statement"]
    assert {**given, "Action": [given["Action"]]} == wanted


def test_files_go_where_the_sink_would_put_them(destination, pipeline):
    (sink,) = pipeline.sinks
    folders = "".join(f"{name}=!{{partitionKeyFromLambda:{name}}}/" for name in sink.partition_by)
    assert f"{destination['BucketARN']}/{destination['Prefix']}" == f"arn:aws:s3:::{sink.url.removeprefix('s3://')}{folders}"
    assert destination["DynamicPartitioningConfiguration"] == {"Enabled": True}


def test_what_failed_is_kept_outside_of_the_rows_and_where_the_role_may_write(made, destination):
    assert destination["ErrorOutputPrefix"].startswith("failed/orders/!{firehose:error-output-type}/")
    assert not destination["ErrorOutputPrefix"].startswith(destination["Prefix"].partition("/")[0])


def test_firehose_calls_the_function_by_its_name_with_little_enough_to_answer(made, destination):
    (processor,) = destination["ProcessingConfiguration"]["Processors"]
    parameters = {each["ParameterName"]: each["ParameterValue"] for each in processor["Parameters"]}
    assert parameters["LambdaArn"] == "${Function.Arn}:$LATEST"
    assert parameters["BufferSizeInMBs"] == "1"
    assert made["Function"]["FunctionName"] == "orders-transform"
    assert made["Delivery"]["DeliveryStreamName"] == "orders"
    assert made["Function"]["Timeout"] <= 300


def test_the_logs_are_those_that_the_roles_name(made):
    assert made["FunctionLog"]["LogGroupName"] == "/aws/lambda/orders-transform"
    assert made["DeliveryLog"]["LogGroupName"] == "/aws/kinesisfirehose/orders"


def test_the_stream_is_the_one_that_the_pipeline_reads(made, pipeline):
    arn = made["Delivery"]["KinesisStreamSourceConfiguration"]["KinesisStreamARN"]
    assert arn.endswith(f":stream/{GIVEN['Stream']}")
    assert pipeline.source.kinesis.names == (GIVEN["Stream"],)


def test_the_image_runs_the_handler_for_firehose():
    text = (EXAMPLE / "Dockerfile").read_text()
    (handler,) = re.findall(r'^CMD \["([\w.]+)"\]$', text, re.MULTILINE)
    module, _, name = handler.rpartition(".")
    assert hasattr(__import__(module, fromlist=[name]), name)
    assert "FROM ${STREAM_IMAGE}\nCOPY pipeline.yaml /var/task/\n" in text
