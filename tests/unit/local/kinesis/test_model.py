from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.model import Account, Settings, Stream
from stream.local.kinesis.shards import HASH_KEYS
from tests.unit.local.kinesis.calls import FIRST, HALF, START_MS, Kinesis

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("split"), st.integers(0, 99), st.integers(1, 999)),
        st.tuples(st.just("merge"), st.integers(0, 99), st.just(0)),
        st.tuples(st.just("scale"), st.integers(1, 9), st.just(0)),
        st.tuples(st.just("put"), st.integers(0, HASH_KEYS - 1), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 5000), st.just(0)),
    ),
    max_size=30,
)


def _stream(shards: int = 1) -> Stream:
    return Account(Settings()).create("s", shards, "PROVISIONED", 1024, START_MS)


def _apply(stream: Stream, steps: list[tuple[str, int, int]]) -> list[tuple[int, str, int, bytes]]:
    """Run the steps; the records put: hash key, shard, sequence number, text."""
    now, put = START_MS, []
    for kind, first, second in steps:
        opened = stream.open_shards
        shard = opened[first % len(opened)]
        if kind == "wait":
            now += first
        elif kind == "scale":
            stream.scale(first, now)
        elif kind == "split" and shard.last_hash - shard.first_hash > 1000:
            stream.split(shard.shard_id, shard.first_hash + 1 + second * (shard.last_hash - shard.first_hash) // 1001, now)
        elif kind == "merge" and len(opened) > 1:
            left = first % (len(opened) - 1)
            stream.merge(opened[left].shard_id, opened[left + 1].shard_id, now)
        elif kind == "put":
            text = b"%d" % len(put)
            target = stream.route(first)
            put.append((first, target.shard_id, target.put(b'"k"', text, len(text), now), text))
    return put


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_open_shards_tile_the_hash_space_after_any_splits_and_merges(steps: list[tuple[str, int, int]]) -> None:
    stream = _stream(2)
    _apply(stream, steps)
    bounds = [(shard.first_hash, shard.last_hash) for shard in stream.open_shards]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == HASH_KEYS - 1
    assert all(left[1] + 1 == right[0] and left[0] <= left[1] for left, right in pairwise(bounds))


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_children_cover_their_parents_and_have_greater_numbers(steps: list[tuple[str, int, int]]) -> None:
    stream = _stream(2)
    _apply(stream, steps)
    for shard in stream.shards.values():
        assert shard.is_open == (not shard.children)
        for child in shard.children:
            assert shard.shard_id in child.parents
            assert child.starting_sequence > (shard.ending_sequence or 0) > shard.tip
            assert max(child.first_hash, shard.first_hash) <= min(child.last_hash, shard.last_hash)
            assert shard.closed_ms is not None
            assert child.opened_ms >= shard.closed_ms > shard.opened_ms


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 4))
def test_every_record_is_read_once_in_order_from_the_shard_that_took_it(steps: list[tuple[str, int, int]], limit: int) -> None:
    stream = _stream(2)
    put = _apply(stream, steps)
    for shard in stream.shards.values():
        expected = [(sequence, text) for _, shard_id, sequence, text in put if shard_id == shard.shard_id]
        assert [sequence for sequence, _ in expected] == sorted({sequence for sequence, _ in expected})
        assert all(shard.first_hash <= key <= shard.last_hash for key, shard_id, _, _ in put if shard_id == shard.shard_id)
        position, seen = shard.starting_sequence, []
        while records := (page := shard.read(position, limit, START_MS)).records:
            assert len(records) <= limit
            seen += records
            position = page.last
        assert [(b'"%d"' % sequence in record, b'"Data":"%b"' % text in record) for record, (sequence, text) in zip(
            seen, expected, strict=True
        )] == [(True, True)] * len(expected)  # fmt: skip


def test_records_beyond_retention_are_gone_and_positions_before_them_still_work() -> None:
    kinesis = Kinesis()
    kinesis.stream()
    old = kinesis.put(b"old")["SequenceNumber"]
    kinesis.now_ms += 24 * 3_600_000 - 1
    kinesis.put(b"young")
    token = kinesis.iterator()
    kinesis.now_ms += 2
    for iterator in (
        token,
        kinesis.iterator("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=old),
        kinesis.iterator("AT_SEQUENCE_NUMBER", StartingSequenceNumber=old),
    ):
        records = kinesis("GetRecords", ShardIterator=iterator)["Records"]
        assert len(records) == 1
        assert b'"Data":"eW91bmc="' in records[0]


def test_a_closed_shard_disappears_when_its_last_record_has_expired() -> None:
    kinesis = Kinesis()
    kinesis.stream()
    kinesis("SplitShard", StreamName="s", ShardToSplit=FIRST, NewStartingHashKey=str(HALF))
    kinesis.now_ms += 24 * 3_600_000
    assert len(kinesis("ListShards", StreamName="s")["Shards"]) == 3
    kinesis.now_ms += 2
    assert [shard["ShardId"] for shard in kinesis("ListShards", StreamName="s")["Shards"]] == [
        "shardId-000000000001",
        "shardId-000000000002",
    ]
    with pytest.raises(ApiError, match="does not exist"):
        kinesis.iterator()


def test_a_stream_is_busy_during_a_transition() -> None:
    kinesis = Kinesis(Settings(transition_ms=500))
    kinesis.stream()
    assert kinesis("DescribeStreamSummary", StreamName="s")["StreamDescriptionSummary"]["StreamStatus"] == "CREATING"
    with pytest.raises(ApiError, match="CREATING"):
        kinesis.put()
    kinesis.now_ms += 500
    kinesis("SplitShard", StreamName="s", ShardToSplit=FIRST, NewStartingHashKey=str(HALF))
    with pytest.raises(ApiError, match="UPDATING") as caught:
        kinesis("UpdateShardCount", StreamName="s", TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    assert caught.value.code == "ResourceInUseException"
    kinesis.put()
    kinesis.now_ms += 500
    kinesis("DeleteStream", StreamName="s")
    assert kinesis("DescribeStreamSummary", StreamName="s")["StreamDescriptionSummary"]["StreamStatus"] == "DELETING"
    kinesis.now_ms += 500
    assert kinesis("ListStreams")["StreamNames"] == []


def test_scaling_to_a_multiple_keeps_every_boundary() -> None:
    stream = _stream(3)
    before = {shard.first_hash for shard in stream.open_shards}
    stream.scale(6, START_MS)
    assert len(stream.shards) == 3 + 6
    assert before < {shard.first_hash for shard in stream.open_shards}


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "é"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ApiError, match="1 to 128"):
        Account(Settings()).create(name, 1, "PROVISIONED", 1024, START_MS)


def test_the_shard_limit_counts_all_streams() -> None:
    kinesis = Kinesis(Settings(shard_limit=3))
    kinesis.stream(2, "a")
    with pytest.raises(ApiError, match="limit of 3") as caught:
        kinesis.stream(2, "b")
    assert caught.value.code == "LimitExceededException"
