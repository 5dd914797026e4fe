import pytest

from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.model import Settings
from tests.unit.local.kinesis.calls import HALF, Kinesis

MIB = 1024 * 1024


def _throttled(shards: int = 1) -> Kinesis:
    kinesis = Kinesis(Settings(throttle=True))
    kinesis.stream(shards)
    return kinesis


def _read(kinesis: Kinesis) -> None:
    kinesis("GetRecords", ShardIterator=kinesis.iterator())


def test_a_shard_allows_five_reads_a_second() -> None:
    kinesis = _throttled()
    for _ in range(5):
        _read(kinesis)
    with pytest.raises(ApiError) as caught:
        _read(kinesis)
    assert caught.value.code == "ProvisionedThroughputExceededException"
    kinesis.now_ms += 200
    _read(kinesis)


def test_a_large_page_uses_up_the_read_rate_of_the_following_seconds() -> None:
    kinesis = _throttled()
    for _ in range(10):
        kinesis.put(bytes(MIB - 1))
        kinesis.now_ms += 1000
    _read(kinesis)
    kinesis.now_ms += 4000
    with pytest.raises(ApiError, match="Rate exceeded"):
        _read(kinesis)
    kinesis.now_ms += 1
    _read(kinesis)


def test_a_shard_over_its_write_rate_fails_its_own_records_only() -> None:
    kinesis = _throttled(2)
    records = [{"Data": bytes(MIB // 4), "PartitionKey": "k", "ExplicitHashKey": "0"} for _ in range(6)]
    records.append({"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": str(HALF)})
    reply = kinesis("PutRecords", StreamName="s", Records=records)
    assert [record.get("ErrorCode") for record in reply["Records"]] == [None] * 4 + ["ProvisionedThroughputExceededException"] * 2 + [None]
    assert reply["FailedRecordCount"] == 2


def test_a_shard_accepts_a_thousand_records_a_second() -> None:
    kinesis = _throttled()
    batch = [{"Data": b"x", "PartitionKey": "k"}] * 500
    assert [kinesis("PutRecords", StreamName="s", Records=batch)["FailedRecordCount"] for _ in range(3)] == [0, 0, 500]
    with pytest.raises(ApiError, match="Rate exceeded"):
        kinesis.put()


def test_nothing_is_throttled_unless_asked() -> None:
    kinesis = Kinesis()
    kinesis.stream()
    for _ in range(50):
        kinesis.put()
        _read(kinesis)
