"""Streams of several accounts: credentials say who asks, and ARNs lead to the streams of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from stream.local.kinesis.server import running

OTHER = "444455556666"
ARN = f"arn:aws:kinesis:us-east-1:{OTHER}:stream/s"


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[Any, Any]]:
    """Clients of the emulator's own account and of another; each account has a stream ``s`` with three shards and a record."""
    with running() as emulator:
        keys = {"endpoint_url": emulator.url, "region_name": "us-east-1", "aws_secret_access_key": "secret"}
        own, other = (boto3.client("kinesis", aws_access_key_id=key, **keys) for key in ("AKIDEXAMPLE", OTHER))
        for name, client in (("own", own), ("other", other)):
            client.create_stream(StreamName="s", ShardCount=3)
            client.put_record(StreamName="s", Data=name.encode(), PartitionKey="k", ExplicitHashKey="0")
        other.create_stream(StreamName="theirs", ShardCount=1)
        yield own, other
        own.close()
        other.close()


def refused(code: str, call: Any, **given: Any) -> None:
    with pytest.raises(ClientError) as caught:
        call(**given)
    assert caught.value.response["Error"]["Code"] == code


def data(client: Any, named: dict[str, str], more: dict[str, str]) -> list[bytes]:
    at = client.get_shard_iterator(**named, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    return [record["Data"] for record in client.get_records(ShardIterator=at, **more)["Records"]]


def test_a_name_is_that_of_a_stream_of_the_callers_account(clients: tuple[Any, Any]) -> None:
    own, other = clients
    assert own.list_streams()["StreamNames"] == ["s"]
    assert other.list_streams()["StreamNames"] == ["s", "theirs"]
    assert data(own, {"StreamName": "s"}, {}) == [b"own"]
    assert data(other, {"StreamName": "s"}, {}) == [b"other"]
    refused("ResourceNotFoundException", own.describe_stream_summary, StreamName="theirs")
    summary = other.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
    assert (summary["StreamARN"], summary["StreamName"]) == (ARN, "s")
    refused("ResourceInUseException", other.create_stream, StreamName="s", ShardCount=1)


def test_another_accounts_stream_is_reached_by_its_arn_in_every_call(clients: tuple[Any, Any]) -> None:
    own, _ = clients
    named = {"StreamARN": ARN}
    assert data(own, named, named) == [b"other"]
    with pytest.raises(ClientError, match="under account 123456789012 not found"):
        data(own, named, {})
    assert own.describe_stream_summary(**named)["StreamDescriptionSummary"]["StreamARN"] == ARN


def test_pages_of_shards_follow_by_their_token_alone(clients: tuple[Any, Any]) -> None:
    own, _ = clients
    page = own.list_shards(StreamARN=ARN, MaxResults=2)
    refused("InvalidArgumentException", own.list_shards, StreamARN=ARN, NextToken=page["NextToken"])
    rest = own.list_shards(NextToken=page["NextToken"])["Shards"]
    assert [shard["ShardId"] for shard in page["Shards"] + rest] == [f"shardId-{number:012d}" for number in range(3)]


def test_a_consumer_is_that_of_the_stream_of_its_arn(clients: tuple[Any, Any]) -> None:
    own, other = clients
    arn = own.register_stream_consumer(StreamARN=ARN, ConsumerName="c")["Consumer"]["ConsumerARN"]
    assert arn.startswith(f"{ARN}/consumer/c:")
    assert own.describe_stream_consumer(ConsumerARN=arn)["ConsumerDescription"]["StreamARN"] == ARN
    mine = own.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamARN"]
    assert own.list_stream_consumers(StreamARN=mine)["Consumers"] == []
    assert len(other.list_stream_consumers(StreamARN=ARN)["Consumers"]) == 1
