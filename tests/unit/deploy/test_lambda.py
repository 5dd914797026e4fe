"""The example of a Lambda function: mapping, role and image fit the pipeline file. What CloudFormation thinks of it: `make chart-check`."""

import re

import pytest

from stream.pipeline.access.grants import compare
from stream.pipeline.access.roles import Role, ServiceAccount, accesses, policy, trust
from stream.pipeline.checks.lint import check
from tests.docs.generate import ROOT
from tests.unit.deploy.templates import GIVEN, HERE, KEY, prefixes, read_template, without_conditions

EXAMPLE = ROOT / "examples" / "lambda"


@pytest.fixture
def template():
    return read_template(EXAMPLE / "template.yaml")


@pytest.fixture
def made(template):
    return {name: each["Properties"] for name, each in template["Resources"].items()}


@pytest.fixture
def variables(made):
    return made["Function"]["Environment"]["Variables"]


@pytest.fixture
def pipeline(variables):
    found = check(EXAMPLE / "pipeline.yaml", variables).pipeline
    assert found is not None
    return found


def test_the_mapping_never_drops_or_splits_a_batch_and_takes_partial_answers(made):
    mapping = made["Mapping"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert (mapping["BisectBatchOnFunctionError"], mapping["ParallelizationFactor"]) == (False, 1)
    assert (mapping["MaximumRetryAttempts"], mapping["MaximumRecordAgeInSeconds"]) == (-1, -1)
    assert mapping["StartingPosition"] == "TRIM_HORIZON"
    assert not {"FilterCriteria", "TumblingWindowInSeconds"} & set(mapping)
    assert mapping["EventSourceArn"].endswith(f":stream/{GIVEN['Stream']}")


def test_the_variables_are_those_that_the_pipeline_file_reads(variables):
    read = set(re.findall(r"\$\{(\w+)", (EXAMPLE / "pipeline.yaml").read_text()))
    assert set(variables) == read


def test_the_role_allows_exactly_what_stream_iam_prints(made, pipeline):
    (given,) = made["Role"]["Policies"]
    wanted = policy(accesses(pipeline, Role.FUNCTION, HERE), [KEY], HERE.region)
    # One statement may list several buckets under one condition; what it grants is the same, condition by condition.
    found = compare(without_conditions(wanted), without_conditions(given["PolicyDocument"]))
    assert not found, found
    assert prefixes(given["PolicyDocument"]) == prefixes(wanted)


def test_the_trust_is_what_stream_iam_prints(made):
    (given,) = made["Role"]["AssumeRolePolicyDocument"]["Statement"]
    (wanted,) = trust(Role.FUNCTION, HERE, ServiceAccount("default", "stream"))["Statement"]
    assert {**given, "Action": [given["Action"]]} == wanted


def test_the_function_writes_to_the_log_group_that_its_role_names(made):
    assert made["Log"]["LogGroupName"] == "/aws/lambda/orders"
    assert made["Function"]["LoggingConfig"] == {"LogGroup": "!Log"}


def test_every_resource_is_named(made):
    (given,) = made["Role"]["Policies"]
    assert [each["Sid"] for each in given["PolicyDocument"]["Statement"] if "*" in (each["Resource"], each["Action"])] == []


def test_the_image_has_a_target_for_functions_whose_command_is_the_handler():
    stage = (ROOT / "Dockerfile").read_text().partition(" AS lambda\n")[2].partition("\nFROM ")[0]
    assert 'ENTRYPOINT ["/opt/stream/bin/python", "-m", "awslambdaric"]' in stage
    (handler,) = re.findall(r'^CMD \["([\w.]+)"\]$', stage, re.MULTILINE)
    module, _, name = handler.rpartition(".")
    assert hasattr(__import__(module, fromlist=[name]), name)
    assert "FROM ${STREAM_IMAGE}\nCOPY pipeline.yaml /var/task/\n" in (EXAMPLE / "Dockerfile").read_text()
