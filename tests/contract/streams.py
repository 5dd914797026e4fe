"""What every Kinesis must do with shards, streams, subscribers and encodings."""

from __future__ import annotations

import time
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
import pytest
from botocore.exceptions import ClientError

from tests.contract.peers import Peer
from tests.contract.registry import FIRST, HALF, SECOND, THIRD, behaviour, refused

# --- resharding ---------------------------------------------------------------------------------------------------------


@behaviour
def a_split_shard_stays_readable_and_ends_with_its_children(peer: Peer) -> None:
    name = peer.stream()
    peer.put(name, b"in parent")
    peer.split(name, FIRST, HALF)
    page = peer.client.get_records(ShardIterator=peer.iterator(name, FIRST))
    records = list(page["Records"])
    while page.get("NextShardIterator"):
        page = peer.client.get_records(ShardIterator=page["NextShardIterator"])
        records += page["Records"]
    assert [record["Data"] for record in records] == [b"in parent"]
    children = {child["ShardId"]: child for child in page["ChildShards"]}
    assert children.keys() == {SECOND, THIRD}
    assert all(child["ParentShards"] == [FIRST] for child in children.values())
    assert children[SECOND]["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str(HALF - 1)}
    assert children[THIRD]["HashKeyRange"] == {"StartingHashKey": str(HALF), "EndingHashKey": str(2**128 - 1)}


@behaviour
def only_closed_shards_have_an_ending_sequence_number(peer: Peer) -> None:
    name = peer.stream()
    last = int(peer.put(name, b"x")["SequenceNumber"])
    peer.split(name, FIRST, HALF)
    parent, *children = peer.shards(name)
    assert int(parent["SequenceNumberRange"]["EndingSequenceNumber"]) >= last
    assert all("EndingSequenceNumber" not in child["SequenceNumberRange"] for child in children)
    assert all(child["ParentShardId"] == FIRST for child in children)


@behaviour
def numbers_of_a_child_are_greater_than_all_of_its_parent(peer: Peer) -> None:
    name = peer.stream()
    peer.put(name, b"x")
    peer.split(name, FIRST, HALF)
    parent, *children = peer.shards(name)
    ending = int(parent["SequenceNumberRange"]["EndingSequenceNumber"])
    assert all(int(child["SequenceNumberRange"]["StartingSequenceNumber"]) > ending for child in children)
    assert int(peer.put(name, b"y")["SequenceNumber"]) > ending


@behaviour
def records_go_to_the_children_after_a_split(peer: Peer) -> None:
    name = peer.stream()
    peer.split(name, FIRST, HALF)
    assert peer.put(name, b"low", ExplicitHashKey="0")["ShardId"] == SECOND
    assert peer.put(name, b"high", ExplicitHashKey=str(HALF))["ShardId"] == THIRD
    assert peer.read(name, FIRST) == []
    assert peer.read(name, SECOND) == [b"low"]


@behaviour
def a_merged_shard_names_both_parents(peer: Peer) -> None:
    name = peer.stream(2)
    peer.merge(name, FIRST, SECOND)
    child = peer.shards(name)[-1]
    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == (FIRST, SECOND)
    assert child["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
    for parent in (FIRST, SECOND):
        page = peer.client.get_records(ShardIterator=peer.iterator(name, parent))
        while page.get("NextShardIterator"):
            page = peer.client.get_records(ShardIterator=page["NextShardIterator"])
        assert [shard["ShardId"] for shard in page["ChildShards"]] == [THIRD]
        assert sorted(page["ChildShards"][0]["ParentShards"]) == [FIRST, SECOND]


@behaviour
def shards_that_are_no_neighbours_cannot_be_merged(peer: Peer) -> None:
    name = peer.stream(3)
    refused("InvalidArgumentException", peer.client.merge_shards, StreamName=name, ShardToMerge=FIRST, AdjacentShardToMerge=THIRD)
    assert len(peer.shards(name)) == 3


@behaviour
def a_split_point_outside_the_shard_is_refused(peer: Peer) -> None:
    name = peer.stream(2)
    for at in (0, HALF, 2**128 - 1):
        refused(
            "InvalidArgumentException",
            peer.client.split_shard,
            StreamName=name,
            ShardToSplit=FIRST,
            NewStartingHashKey=str(at),
        )


@behaviour
def a_closed_shard_cannot_be_split_again(peer: Peer) -> None:
    name = peer.stream()
    peer.split(name, FIRST, HALF)
    with pytest.raises(ClientError):
        peer.client.split_shard(StreamName=name, ShardToSplit=FIRST, NewStartingHashKey=str(HALF))


@behaviour
def the_shard_count_doubles_and_halves(peer: Peer) -> None:
    name = peer.stream(2)
    for target in (4, 2):
        peer.client.update_shard_count(StreamName=name, TargetShardCount=target, ScalingType="UNIFORM_SCALING")
        peer.settle(name)
        opened = peer.shards(name, ShardFilter={"Type": "AT_LATEST"})
        bounds = sorted(int(shard["HashKeyRange"]["StartingHashKey"]) for shard in opened)
        assert bounds == [index * 2**128 // target for index in range(target)]


@behaviour
def the_shard_count_cannot_more_than_double(peer: Peer) -> None:
    name = peer.stream(2)
    with pytest.raises(ClientError):
        peer.client.update_shard_count(StreamName=name, TargetShardCount=5, ScalingType="UNIFORM_SCALING")


# --- listing ------------------------------------------------------------------------------------------------------------


def _ids(shards: list[dict[str, Any]]) -> list[str]:
    return [shard["ShardId"] for shard in shards]


@behaviour
def at_latest_lists_open_shards(peer: Peer) -> None:
    name = peer.stream()
    peer.split(name, FIRST, HALF)
    assert _ids(peer.shards(name, ShardFilter={"Type": "AT_LATEST"})) == [SECOND, THIRD]


@behaviour
def at_trim_horizon_lists_the_shards_that_were_open_first(peer: Peer) -> None:
    name = peer.stream()
    peer.split(name, FIRST, HALF)
    assert _ids(peer.shards(name, ShardFilter={"Type": "AT_TRIM_HORIZON"})) == [FIRST]


@behaviour
def from_trim_horizon_lists_all_shards(peer: Peer) -> None:
    name = peer.stream()
    peer.split(name, FIRST, HALF)
    assert _ids(peer.shards(name, ShardFilter={"Type": "FROM_TRIM_HORIZON"})) == [FIRST, SECOND, THIRD]
    assert _ids(peer.shards(name)) == [FIRST, SECOND, THIRD]


@behaviour
def after_shard_id_lists_later_shards(peer: Peer) -> None:
    name = peer.stream(3)
    assert _ids(peer.shards(name, ShardFilter={"Type": "AFTER_SHARD_ID", "ShardId": FIRST})) == [SECOND, THIRD]
    assert _ids(peer.shards(name, ExclusiveStartShardId=SECOND)) == [THIRD]


@behaviour
def at_timestamp_lists_the_shards_open_then(peer: Peer) -> None:
    name = peer.stream()
    peer.split(name, FIRST, HALF)
    now = datetime.now(UTC) + timedelta(seconds=2)  # noqa: TID251 - the peer has its own clock
    assert _ids(peer.shards(name, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": now})) == [SECOND, THIRD]


@behaviour
def shard_listings_are_paged(peer: Peer) -> None:
    name = peer.stream(5)
    page = peer.client.list_shards(StreamName=name, MaxResults=2)
    ids = _ids(page["Shards"])
    while page.get("NextToken"):
        page = peer.client.list_shards(NextToken=page["NextToken"], MaxResults=2)
        assert len(page["Shards"]) <= 2
        ids += _ids(page["Shards"])
    assert ids == [f"shardId-{index:012d}" for index in range(5)]


@behaviour
def a_next_token_excludes_a_stream_name(peer: Peer) -> None:
    name = peer.stream(3)
    token = peer.client.list_shards(StreamName=name, MaxResults=1)["NextToken"]
    refused("InvalidArgumentException", peer.client.list_shards, StreamName=name, NextToken=token)


@behaviour
def describe_stream_pages_its_shards(peer: Peer) -> None:
    name = peer.stream(3)
    page = peer.client.describe_stream(StreamName=name, Limit=2)["StreamDescription"]
    assert (_ids(page["Shards"]), page["HasMoreShards"]) == ([FIRST, SECOND], True)
    page = peer.client.describe_stream(StreamName=name, ExclusiveStartShardId=SECOND)["StreamDescription"]
    assert (_ids(page["Shards"]), page["HasMoreShards"]) == ([THIRD], False)


@behaviour
def streams_are_listed_by_name(peer: Peer) -> None:
    names = sorted(peer.stream() for _ in range(2))
    listed = peer.client.list_streams(Limit=100)["StreamNames"]
    assert listed == sorted(listed)
    assert set(names) <= set(listed)


# --- streams ------------------------------------------------------------------------------------------------------------


@behaviour
def a_summary_says_what_the_stream_is(peer: Peer) -> None:
    name = peer.stream(2)
    summary = peer.client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert (summary["OpenShardCount"], summary["RetentionPeriodHours"], summary["EncryptionType"]) == (2, 24, "NONE")
    assert summary["StreamARN"].endswith(f":stream/{name}")


@behaviour
def an_arn_names_the_stream_as_well(peer: Peer) -> None:
    name = peer.stream()
    arn = peer.arn(name)
    peer.client.put_record(StreamARN=arn, Data=b"x", PartitionKey="k")
    token = peer.client.get_shard_iterator(StreamARN=arn, ShardId=FIRST, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    assert len(peer.client.get_records(ShardIterator=token, StreamARN=arn)["Records"]) == 1
    assert len(peer.client.list_shards(StreamARN=arn)["Shards"]) == 1


@behaviour
def a_name_can_be_taken_once(peer: Peer) -> None:
    name = peer.stream()
    refused("ResourceInUseException", peer.client.create_stream, StreamName=name, ShardCount=1)


@behaviour
def an_unknown_stream_is_not_found(peer: Peer) -> None:
    refused("ResourceNotFoundException", peer.client.describe_stream_summary, StreamName="nowhere")
    refused("ResourceNotFoundException", peer.client.put_record, StreamName="nowhere", Data=b"x", PartitionKey="k")
    refused("ResourceNotFoundException", peer.client.list_shards, StreamName="nowhere")


@behaviour
def an_unknown_shard_is_not_found(peer: Peer) -> None:
    name = peer.stream()
    refused("ResourceNotFoundException", peer.iterator, name=name, shard="shardId-000000000099")


@behaviour
def a_deleted_stream_is_gone(peer: Peer) -> None:
    name = peer.stream()
    token = peer.iterator(name, FIRST)
    peer.client.delete_stream(StreamName=name)
    for _ in range(200):
        if name not in peer.client.list_streams(Limit=1000)["StreamNames"]:
            break
    refused("ResourceNotFoundException", peer.client.describe_stream_summary, StreamName=name)
    refused("ResourceNotFoundException", peer.client.get_records, ShardIterator=token)


@behaviour
def retention_goes_up_and_down(peer: Peer) -> None:
    name = peer.stream()
    peer.client.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=48)
    peer.settle(name)
    assert peer.client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["RetentionPeriodHours"] == 48
    refused("InvalidArgumentException", peer.client.increase_stream_retention_period, StreamName=name, RetentionPeriodHours=47)
    peer.client.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=24)
    peer.settle(name)
    assert peer.client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["RetentionPeriodHours"] == 24


@behaviour
def tags_are_kept(peer: Peer) -> None:
    name = peer.stream()
    peer.client.add_tags_to_stream(StreamName=name, Tags={"team": "flights", "env": "test"})
    peer.client.remove_tags_from_stream(StreamName=name, TagKeys=["env"])
    assert peer.client.list_tags_for_stream(StreamName=name)["Tags"] == [{"Key": "team", "Value": "flights"}]


# --- enhanced fan-out ---------------------------------------------------------------------------------------------------


def _consumer(peer: Peer, name: str, consumer: str = "app") -> str:
    arn = peer.client.register_stream_consumer(StreamARN=peer.arn(name), ConsumerName=consumer)["Consumer"]["ConsumerARN"]
    for _ in range(200):
        if peer.client.describe_stream_consumer(ConsumerARN=arn)["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE":
            return arn
    raise AssertionError("the consumer never became active")


@behaviour
def consumers_come_and_go(peer: Peer) -> None:
    name = peer.stream()
    arn = _consumer(peer, name)
    stream = peer.arn(name)
    refused("ResourceInUseException", peer.client.register_stream_consumer, StreamARN=stream, ConsumerName="app")
    assert [consumer["ConsumerARN"] for consumer in peer.client.list_stream_consumers(StreamARN=stream)["Consumers"]] == [arn]
    described = peer.client.describe_stream_consumer(StreamARN=stream, ConsumerName="app")["ConsumerDescription"]
    assert (described["ConsumerARN"], described["StreamARN"]) == (arn, stream)
    peer.client.deregister_stream_consumer(ConsumerARN=arn)
    deadline = time.monotonic() + 60
    while peer.client.list_stream_consumers(StreamARN=stream)["Consumers"] and time.monotonic() < deadline:
        pass
    refused("ResourceNotFoundException", peer.client.describe_stream_consumer, ConsumerARN=arn)


@behaviour
def a_subscription_pushes_records_and_ends_with_the_children(peer: Peer) -> None:
    name = peer.stream()
    numbers = [peer.put(name, b"%d" % i)["SequenceNumber"] for i in range(3)]
    peer.split(name, FIRST, HALF)
    where = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": numbers[0]}
    reply = peer.client.subscribe_to_shard(ConsumerARN=_consumer(peer, name), ShardId=FIRST, StartingPosition=where)
    events = [event["SubscribeToShardEvent"] for event in reply["EventStream"]]
    assert [record["Data"] for event in events for record in event["Records"]] == [b"1", b"2"]
    assert [child["ShardId"] for child in events[-1]["ChildShards"]] == [SECOND, THIRD]
    assert all("ContinuationSequenceNumber" in event for event in events[:-1])


# --- the wire -----------------------------------------------------------------------------------------------------------


def _cbor(peer: Peer, operation: str, members: dict[str, Any]) -> tuple[int, str, Any]:
    headers = {"Content-Type": "application/x-amz-cbor-1.1", "X-Amz-Target": f"Kinesis_20131202.{operation}"}
    # kinesis-local looks for the shape of a signature, though not for a true one.
    headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=t/20200101/us-east-1/kinesis/aws4_request, SignedHeaders=h, Signature=s"
    headers["X-Amz-Date"] = "20200101T000000Z"
    request = urllib.request.Request(peer.url, cbor2.dumps(members), headers)  # noqa: S310 - loopback
    opener = urllib.request.build_opener(_KeepErrors)
    with opener.open(request) as reply:
        body = reply.read()
        tags = {1: lambda value, _immutable: ("ms", value)}
        return reply.status, reply.headers["Content-Type"], cbor2.loads(body, semantic_decoders=tags) if body else None


class _KeepErrors(urllib.request.HTTPErrorProcessor):
    def http_response(self, request: Any, response: Any) -> Any:
        return response


@behaviour
def cbor_carries_blobs_as_bytes_and_moments_as_milliseconds(peer: Peer) -> None:
    name = peer.stream()
    record = {"Data": b"\x00\xff", "PartitionKey": "k"}
    status, kind, reply = _cbor(peer, "PutRecords", {"StreamName": name, "Records": [record]})
    assert (status, kind, reply["FailedRecordCount"]) == (200, "application/x-amz-cbor-1.1", 0)
    now = datetime.now(UTC)  # noqa: TID251 - the peer has its own clock
    an_hour_ago = cbor2.CBORTag(1, round((now.timestamp() - 3600) * 1000))
    position = {"StreamName": name, "ShardId": FIRST, "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": an_hour_ago}
    token = _cbor(peer, "GetShardIterator", position)[2]["ShardIterator"]
    page = _cbor(peer, "GetRecords", {"ShardIterator": token})[2]
    assert page["Records"][0]["Data"] == b"\x00\xff"
    unit, moment = page["Records"][0]["ApproximateArrivalTimestamp"]
    assert unit == "ms"
    assert isinstance(moment, int)
    assert abs(moment / 1000 - now.timestamp()) < 30


@behaviour
def cbor_errors_are_cbor(peer: Peer) -> None:
    status, kind, reply = _cbor(peer, "DescribeStreamSummary", {"StreamName": "nowhere"})
    assert (status, kind) == (400, "application/x-amz-cbor-1.1")
    assert reply["__type"].endswith("ResourceNotFoundException")
