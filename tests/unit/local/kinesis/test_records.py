import pytest

from stream.local.kinesis.errors import ApiError
from tests.unit.local.kinesis.calls import FIRST, Kinesis


@pytest.fixture
def kinesis() -> Kinesis:
    made = Kinesis()
    made.stream()
    return made


def test_a_request_with_an_invalid_record_stores_nothing(kinesis: Kinesis) -> None:
    records = [{"Data": b"x", "PartitionKey": "k"}, {"Data": b"x", "PartitionKey": ""}]
    with pytest.raises(ApiError, match="partitionKey"):
        kinesis("PutRecords", StreamName="s", Records=records)
    assert kinesis("GetRecords", ShardIterator=kinesis.iterator())["Records"] == []


def test_a_request_holds_at_most_ten_mebibytes(kinesis: Kinesis) -> None:
    records = [{"Data": bytes(1024 * 1024), "PartitionKey": "k"}] * 10
    with pytest.raises(ApiError, match="10 MB limit"):
        kinesis("PutRecords", StreamName="s", Records=records)
    assert kinesis("PutRecords", StreamName="s", Records=records[:9])["FailedRecordCount"] == 0


def test_a_record_of_ten_mebibytes_is_accepted_if_the_stream_allows_it(kinesis: Kinesis) -> None:
    with pytest.raises(ApiError, match="UpdateMaxRecordSize"):
        kinesis.put(bytes(1024 * 1024 + 1))
    kinesis("UpdateMaxRecordSize", StreamARN="arn:aws:kinesis:us-east-1:123456789012:stream/s", MaxRecordSizeInKiB=10240)
    kinesis.put(bytes(10 * 1024 * 1024))
    assert len(kinesis("GetRecords", ShardIterator=kinesis.iterator())["Records"]) == 1
    with pytest.raises(ApiError, match="allows 10485760"):
        kinesis.put(bytes(10 * 1024 * 1024 + 1))


def test_a_timestamp_in_the_future_is_refused(kinesis: Kinesis) -> None:
    with pytest.raises(ApiError, match=r"in the future|greater than"):
        kinesis.iterator("AT_TIMESTAMP", Timestamp=kinesis.now_ms / 1000 + 1)


def test_a_sequence_number_of_another_shard_is_refused() -> None:
    kinesis = Kinesis()
    kinesis.stream(2)
    elsewhere = kinesis.put(b"x", ExplicitHashKey=str(2**128 - 1))["SequenceNumber"]
    with pytest.raises(ApiError, match="did not come from this shard"):
        kinesis.iterator("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=elsewhere)


@pytest.mark.parametrize("number", ["", "x", "-1", "0", "9" * 130, "٣"])
def test_text_that_is_not_a_sequence_number_is_refused(kinesis: Kinesis, number: str) -> None:
    with pytest.raises(ApiError) as caught:
        kinesis.iterator("AT_SEQUENCE_NUMBER", StartingSequenceNumber=number)
    assert caught.value.code == "InvalidArgumentException"


def test_an_unknown_position_type_is_refused_with_the_known_ones(kinesis: Kinesis) -> None:
    with pytest.raises(ApiError, match="TRIM_HORIZON, LATEST"):
        kinesis.iterator("EARLIEST")


def test_an_iterator_of_a_recreated_stream_is_refused(kinesis: Kinesis) -> None:
    token = kinesis.iterator()
    kinesis("DeleteStream", StreamName="s")
    kinesis.now_ms += 1
    kinesis.stream()
    with pytest.raises(ApiError, match="deleted") as caught:
        kinesis("GetRecords", ShardIterator=token)
    assert caught.value.code == "ResourceNotFoundException"


def test_reading_a_closed_shard_at_its_end_gives_the_children_at_once(kinesis: Kinesis) -> None:
    kinesis("SplitShard", StreamName="s", ShardToSplit=FIRST, NewStartingHashKey="99")
    page = kinesis("GetRecords", ShardIterator=kinesis.iterator("LATEST"))
    assert page["NextShardIterator"] is None
    assert len(page["ChildShards"]) == 2


def test_equal_seeds_times_and_calls_give_equal_replies() -> None:
    def play() -> list[object]:
        kinesis = Kinesis(seed=7)
        kinesis.stream(2)
        replies: list[object] = [kinesis.put(b"%d" % i, f"k{i}") for i in range(5)]
        return [*replies, kinesis("GetRecords", ShardIterator=kinesis.iterator())]

    assert play() == play()
