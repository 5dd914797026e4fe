"""Calls go where botocore, which AWS maintains with the service, would send them."""

from __future__ import annotations

from functools import cache
from typing import Any

import botocore.session
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from stream.aws.kinesis_routes import Routes, account_url
from stream.aws.session import AwsSession
from stream.aws.wire import Timeouts
from stream.stream_ids import parse
from tests.models import service

ACCOUNT = "111122223333"
CONTROL = ("ListShards", "DescribeStreamSummary", "RegisterStreamConsumer", "DescribeStreamConsumer")
OTHERS: dict[str, dict[str, Any]] = {
    "GetRecords": {"ShardIterator": "i"},
    "GetShardIterator": {"ShardId": "s", "ShardIteratorType": "LATEST"},
    "RegisterStreamConsumer": {"ConsumerName": "c"},
    "DescribeStreamConsumer": {"ConsumerName": "c"},
    "SubscribeToShard": {"ShardId": "s", "StartingPosition": {"Type": "LATEST"}},
}
PARTITIONS = [
    ("aws", "eu-west-1"),
    ("aws", "us-east-1"),
    ("aws-cn", "cn-north-1"),
    ("aws-us-gov", "us-gov-west-1"),
    ("aws-iso", "us-iso-east-1"),
    ("aws-iso-b", "us-isob-east-1"),
    ("aws-eusc", "eusc-de-east-1"),
]


@cache
def theirs(region: str, *, fips: bool, dual: bool) -> Any:
    config = Config(signature_version=UNSIGNED, use_fips_endpoint=fips, use_dualstack_endpoint=dual)
    return botocore.session.Session().create_client("kinesis", region_name=region, config=config)


WAYS = [(False, False), (True, False), (False, True), (True, True)]
PLACES = [(*place, *way) for place in PARTITIONS for way in WAYS if not place[0].startswith("aws-iso") or not any(way)]
"""Without those that botocore does not know."""


@pytest.mark.parametrize(("partition", "region", "fips", "dual"), PLACES)
def test_a_call_that_names_an_arn_goes_to_the_endpoint_of_its_account(partition: str, region: str, fips: bool, dual: bool) -> None:
    client = theirs(region, fips=fips, dual=dual)
    arn = f"arn:{partition}:kinesis:{region}:{ACCOUNT}:stream/flights"
    shared = parse(arn)
    assert shared is not None
    for operation in {*CONTROL, *OTHERS}:
        named = {"ConsumerARN": f"{arn}/consumer/c:1"} if operation == "SubscribeToShard" else {"StreamARN": arn}
        model = service("kinesis").operation_model(operation)
        expected = client._ruleset_resolver.construct_endpoint(model, {**named, **OTHERS.get(operation, {})}, {}).url
        assert account_url(client.meta.endpoint_url, operation, shared, fips=fips) == expected, operation


@pytest.fixture
def _no_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KINESIS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_endpoints")
def test_a_name_and_a_configured_endpoint_lead_where_they_always_did() -> None:
    shared = parse(f"flights@{ACCOUNT}.eu-west-1")
    ours = Routes(AwsSession(region="eu-west-1"), Timeouts(1, 1), None)
    assert ours.to("GetRecords", None).url == "https://kinesis.eu-west-1.amazonaws.com/"
    assert ours.to("GetRecords", shared).url == f"https://{ACCOUNT}.data-kinesis.eu-west-1.amazonaws.com/"
    assert ours.to("GetShardIterator", shared) is ours.to("GetRecords", shared)
    assert ours.to("ListShards", shared).url == f"https://{ACCOUNT}.control-kinesis.eu-west-1.amazonaws.com/"
    private = "https://vpce-1-kinesis.eu-west-1.vpce.amazonaws.com"
    configured = Routes(AwsSession(region="eu-west-1", endpoints={"kinesis": private}), Timeouts(1, 1), None)
    assert configured.to("GetRecords", shared).url == f"{private}/"
