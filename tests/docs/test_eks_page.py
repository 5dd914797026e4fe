"""The endpoints of docs/eks.md are those of the services that workers call."""

import re

from tests.docs.generate import ROOT

ACTION = re.compile(r'"([a-z][a-z0-9-]+):[A-Z][a-z]+[A-Za-z]*"')
NOT_CALLED = {"aws", "kms", "redshift", "redshift-serverless", "lambda", "logs"}
"""Keys of conditions; services that others call for the pipeline; and what is no part of a worker in a pod."""


def test_a_vpc_without_internet_has_an_endpoint_for_each_service_that_is_called():
    called = {name for path in (ROOT / "stream").rglob("*.py") for name in ACTION.findall(path.read_text())} - NOT_CALLED
    table = (ROOT / "docs" / "eks.md").read_text().partition("| endpoint `com.amazonaws.REGION.` |")[2].partition("\n\n")[0]
    named = {name for line in table.splitlines() for name in re.findall(r"`([a-z0-9.-]+)`", line.split("|")[1] if "|" in line else "")}
    assert {"kinesis", "s3", "dynamodb"} <= called
    assert {name.replace("kinesis", "kinesis-streams") for name in called} == named - {"eks-auth", "ecr.api", "ecr.dkr"}
