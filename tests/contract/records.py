"""What every Kinesis must do with records; each behaviour makes its own streams and fails by raising."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from botocore.exceptions import ClientError

from tests.contract.peers import Peer
from tests.contract.registry import FIRST, HALF, SECOND, THIRD, behaviour, refused

# --- putting ------------------------------------------------------------------------------------------------------------


@behaviour
def sequence_numbers_have_56_digits_and_increase(peer: Peer) -> None:
    name = peer.stream()
    numbers = [peer.put(name, b"x")["SequenceNumber"] for _ in range(5)]
    assert all(len(number) == 56 for number in numbers)
    assert [int(number) for number in numbers] == sorted({int(number) for number in numbers})
    assert 4.9e55 < int(numbers[0]) < 5.1e55


@behaviour
def a_new_stream_is_tiled_by_its_shards(peer: Peer) -> None:
    shards = peer.shards(peer.stream(3))
    bounds = [(int(s["HashKeyRange"]["StartingHashKey"]), int(s["HashKeyRange"]["EndingHashKey"])) for s in shards]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 2**128 - 1
    assert all(left[1] + 1 == right[0] for left, right in pairwise(bounds))
    assert [shard["ShardId"] for shard in shards] == [FIRST, SECOND, THIRD]


@behaviour
def the_md5_of_the_partition_key_chooses_the_shard(peer: Peer) -> None:
    name = peer.stream(2)
    for key in ("a", "b", "grün", "flight-7"):
        upper = int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest()) >= HALF
        assert peer.put(name, b"x", key)["ShardId"] == (SECOND if upper else FIRST)


@behaviour
def an_explicit_hash_key_overrides_the_partition_key(peer: Peer) -> None:
    name = peer.stream(2)
    assert peer.put(name, b"x", "a", ExplicitHashKey="0")["ShardId"] == FIRST
    assert peer.put(name, b"x", "a", ExplicitHashKey=str(HALF - 1))["ShardId"] == FIRST
    assert peer.put(name, b"x", "a", ExplicitHashKey=str(HALF))["ShardId"] == SECOND
    assert peer.put(name, b"x", "a", ExplicitHashKey=str(2**128 - 1))["ShardId"] == SECOND


@behaviour
def records_that_the_service_distributes_need_no_partition_key(peer: Peer) -> None:
    name = "distributed"
    peer.client.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"}, RecordDistributionStrategy="AUTO")
    peer.settle(name)
    summary = peer.client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary.get("RecordDistributionStrategy") == "AUTO"
    placed = [peer.client.put_record(StreamName=name, Data=b"x")["ShardId"] for _ in range(8)]
    assert len(set(placed)) > 1
    assert len({peer.put(name, b"y")["ShardId"] for _ in range(8)}) > 1
    records = peer.client.get_records(ShardIterator=peer.iterator(name, placed[0]))["Records"]
    assert [record.get("PartitionKey") for record in records if record["Data"] == b"x"] == [None] * placed.count(placed[0])
    assert {record["PartitionKey"] for record in records if record["Data"] == b"y"} == {"k"}
    refused("InvalidArgumentException", peer.put, name=name, data=b"x", SequenceNumberForOrdering=records[0]["SequenceNumber"])
    peer.client.update_stream_record_distribution_strategy(StreamARN=summary["StreamARN"], RecordDistributionStrategy="USER_PARTITION_KEY")
    peer.settle(name)
    assert len({peer.put(name, b"z")["ShardId"] for _ in range(8)}) == 1


@behaviour
def only_streams_on_demand_have_a_record_distribution_strategy(peer: Peer) -> None:
    name = peer.stream()
    update = peer.client.update_stream_record_distribution_strategy
    refused("InvalidArgumentException", update, StreamARN=peer.arn(name), RecordDistributionStrategy="AUTO")
    assert "RecordDistributionStrategy" not in peer.client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]


@behaviour
def an_explicit_hash_key_beyond_the_hash_space_is_refused(peer: Peer) -> None:
    name = peer.stream()
    refused("InvalidArgumentException", peer.put, name=name, data=b"x", ExplicitHashKey=str(2**128))


@behaviour
def put_records_answers_in_the_order_of_the_request(peer: Peer) -> None:
    name = peer.stream(2)
    records = [{"Data": b"%d" % i, "PartitionKey": f"k{i}", "ExplicitHashKey": str(HALF * (i % 2))} for i in range(50)]
    reply = peer.client.put_records(StreamName=name, Records=records)
    assert reply["FailedRecordCount"] == 0
    assert [record["ShardId"] for record in reply["Records"]] == [FIRST, SECOND] * 25
    assert peer.read(name, FIRST) == [b"%d" % i for i in range(0, 50, 2)]
    assert peer.read(name, SECOND) == [b"%d" % i for i in range(1, 50, 2)]


@behaviour
def more_than_500_records_are_refused(peer: Peer) -> None:
    name = peer.stream()
    records = [{"Data": b"x", "PartitionKey": "k"}] * 501
    with pytest.raises(ClientError):
        peer.client.put_records(StreamName=name, Records=records)
    assert peer.read(name, FIRST) == []


@behaviour
def any_bytes_and_any_key_come_back_as_they_were(peer: Peer) -> None:
    name = peer.stream()
    data = [b"", bytes(range(256)), b'"quoted" \\ ', "grün €".encode()]
    keys = ["k", '"\\', "grün €", "x" * 256]
    for datum, key in zip(data, keys, strict=True):
        peer.put(name, datum, key)
    page = peer.client.get_records(ShardIterator=peer.iterator(name, FIRST))
    assert [record["Data"] for record in page["Records"]] == data
    assert [record["PartitionKey"] for record in page["Records"]] == keys


@behaviour
def a_record_of_one_mebibyte_passes_and_one_byte_more_does_not(peer: Peer) -> None:
    name = peer.stream()
    peer.put(name, bytes(1024 * 1024 - 1))
    with pytest.raises(ClientError):
        peer.put(name, bytes(1024 * 1024 + 1))
    assert [len(data) for data in peer.read(name, FIRST)] == [1024 * 1024 - 1]


@behaviour
def the_record_limit_can_be_raised(peer: Peer) -> None:
    name = peer.stream()
    peer.client.update_max_record_size(StreamARN=peer.arn(name), MaxRecordSizeInKiB=10240)
    peer.settle(name)
    peer.put(name, bytes(1280 * 1024))
    assert [len(data) for data in peer.read(name, FIRST)] == [1280 * 1024]


# --- reading ------------------------------------------------------------------------------------------------------------


@behaviour
def pages_follow_each_other_without_gap_or_overlap(peer: Peer) -> None:
    name = peer.stream()
    peer.client.put_records(StreamName=name, Records=[{"Data": b"%d" % i, "PartitionKey": "k"} for i in range(25)])
    token, seen = peer.iterator(name, FIRST), []
    for expected in (10, 10, 5, 0):
        page = peer.client.get_records(ShardIterator=token, Limit=10)
        assert len(page["Records"]) == expected
        seen += [record["Data"] for record in page["Records"]]
        token = page["NextShardIterator"]
    assert seen == [b"%d" % i for i in range(25)]


@behaviour
def an_iterator_can_be_used_again(peer: Peer) -> None:
    name = peer.stream()
    peer.put(name, b"x")
    token = peer.iterator(name, FIRST)
    pages = [peer.client.get_records(ShardIterator=token)["Records"] for _ in range(2)]
    assert pages[0] == pages[1]
    assert len(pages[0]) == 1


@behaviour
def an_open_shard_always_has_a_next_iterator(peer: Peer) -> None:
    name = peer.stream()
    page = peer.client.get_records(ShardIterator=peer.iterator(name, FIRST))
    assert page["Records"] == []
    assert page["MillisBehindLatest"] == 0
    assert not page.get("ChildShards")
    peer.put(name, b"later")
    assert [r["Data"] for r in peer.client.get_records(ShardIterator=page["NextShardIterator"])["Records"]] == [b"later"]


@behaviour
def at_and_after_a_sequence_number(peer: Peer) -> None:
    name = peer.stream()
    numbers = [peer.put(name, b"%d" % i)["SequenceNumber"] for i in range(4)]
    assert peer.read(name, FIRST, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1]) == [b"1", b"2", b"3"]
    assert peer.read(name, FIRST, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1]) == [b"2", b"3"]
    assert peer.read(name, FIRST, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[3]) == []


@behaviour
def the_start_of_the_shards_range_is_a_valid_position(peer: Peer) -> None:
    name = peer.stream()
    peer.put(name, b"x")
    start = peer.shards(name)[0]["SequenceNumberRange"]["StartingSequenceNumber"]
    assert peer.read(name, FIRST, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=start) == [b"x"]
    assert peer.read(name, FIRST, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=start) == [b"x"]


@behaviour
def a_sequence_number_that_was_never_given_is_refused(peer: Peer) -> None:
    name = peer.stream()
    last = int(peer.put(name, b"x")["SequenceNumber"])
    for number in (last + 2**80, 7):
        refused(
            "InvalidArgumentException",
            peer.iterator,
            name=name,
            shard=FIRST,
            kind="AFTER_SEQUENCE_NUMBER",
            StartingSequenceNumber=str(number),
        )


@behaviour
def latest_delivers_only_what_comes_afterwards(peer: Peer) -> None:
    name = peer.stream()
    peer.put(name, b"before")
    token = peer.iterator(name, FIRST, "LATEST")
    peer.put(name, b"after")
    assert [record["Data"] for record in peer.client.get_records(ShardIterator=token)["Records"]] == [b"after"]


@behaviour
def at_timestamp_begins_with_the_first_arrival_from_then_on(peer: Peer) -> None:
    name = peer.stream()
    for i in range(3):
        peer.put(name, b"%d" % i)
    records = peer.client.get_records(ShardIterator=peer.iterator(name, FIRST))["Records"]
    middle = records[1]["ApproximateArrivalTimestamp"]
    expected = [record["Data"] for record in records if record["ApproximateArrivalTimestamp"] >= middle]
    assert peer.read(name, FIRST, "AT_TIMESTAMP", Timestamp=middle) == expected
    long_ago = datetime.now(UTC) - timedelta(hours=1)  # noqa: TID251 - the peer has its own clock
    assert peer.read(name, FIRST, "AT_TIMESTAMP", Timestamp=long_ago) == [b"0", b"1", b"2"]


@behaviour
def arrival_times_are_now(peer: Peer) -> None:
    name = peer.stream()
    peer.put(name, b"x")
    record = peer.client.get_records(ShardIterator=peer.iterator(name, FIRST))["Records"][0]
    now = datetime.now(UTC)  # noqa: TID251 - the peer has its own clock
    assert abs(now - record["ApproximateArrivalTimestamp"]) < timedelta(seconds=30)


@behaviour
def a_forged_iterator_is_the_callers_fault(peer: Peer) -> None:
    peer.stream()
    refused("InvalidArgumentException", peer.client.get_records, ShardIterator="bm90IGFuIGl0ZXJhdG9y")
