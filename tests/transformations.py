"""Events of a Firehose stream with a data transformation, as documented, and a judge of what is answered.

https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-status-model.html
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.chaos.truth import ShardTruth, raw_records

ACCOUNT = "123456789012"
DELIVERY_STREAM = "orders-out"
FIRST_SEQUENCE = 49_546_986_683_135_544_286_507_457_936_321_625_675_700_192_471_156_785_154
ARRIVED = 1_510_254_469_499
LIMIT = 6_291_556
"""Bytes that Lambda accepts as an answer; more is the error `Function.ResponseSizeTooLarge`."""


def asked(contents: Iterable[bytes], stream: str = "s", **more: Any) -> dict[str, Any]:
    """The event for records of a Kinesis stream; without ``stream``, for records that were put into Firehose."""
    records = [_record(at, content, stream) for at, content in enumerate(contents)]
    event = {
        "invocationId": "2b4d1ad9-2f48-94bd-a088-767c317e994a",
        "deliveryStreamArn": f"arn:aws:firehose:us-east-1:{ACCOUNT}:deliverystream/{DELIVERY_STREAM}",
        "region": "us-east-1",
        "records": records,
    }
    source = {"sourceKinesisStreamArn": f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{stream}"} if stream else {}
    return event | source | more


def _record(at: int, content: bytes, stream: str) -> dict[str, Any]:
    number = f"{FIRST_SEQUENCE + at}"
    record = {
        "recordId": f"{number}000000",
        "approximateArrivalTimestamp": ARRIVED + at,
        "data": base64.b64encode(content).decode(),
    }
    metadata = {
        "shardId": f"shardId-{at % 2:012}",
        "partitionKey": f"key-{at}",
        "approximateArrivalTimestamp": ARRIVED + at,
        "sequenceNumber": number,
        "subsequenceNumber": "",
    }
    return record | ({"kinesisRecordMetadata": metadata} if stream else {})


def asked_about(stream: str, shards: Mapping[str, ShardTruth], client: Any) -> dict[str, Any]:
    """The event for every record of a stream, taken out of its KPL aggregates as Firehose does."""
    event, arrived = asked([], stream), {}
    for shard_id in shards:
        for raw in raw_records(client, stream, shard_id):
            arrived[int(raw["SequenceNumber"])] = round(raw["ApproximateArrivalTimestamp"].timestamp() * 1000)
    for shard_id, shard in shards.items():
        for each in shard.records:
            place = {"shardId": shard_id, "partitionKey": each.key, "approximateArrivalTimestamp": arrived[each.sequence]}
            place |= {"sequenceNumber": str(each.sequence), "subsequenceNumber": each.subsequence}
            event["records"].append(
                {
                    "recordId": f"{each.sequence}{each.subsequence:06}",
                    "approximateArrivalTimestamp": arrived[each.sequence],
                    "data": base64.b64encode(each.data).decode(),
                    "kinesisRecordMetadata": place,
                }
            )
    return event


def delivered(event: Mapping[str, Any], answer: Mapping[str, Any]) -> list[tuple[str, bytes, Mapping[str, str]]]:
    """What Firehose makes of an answer: for each record of the event, in its order, the result, the data, and the partition keys.

    Fails where Firehose would refuse the answer: a record that is missing, repeated or unknown, a result that it does not know, an `Ok`
    without data, and partition keys that are no texts.
    """
    assert set(answer) == {"records"}
    assert [each["recordId"] for each in answer["records"]] == [each["recordId"] for each in event["records"]]
    found = []
    for each in answer["records"]:
        assert each["result"] in {"Ok", "Dropped", "ProcessingFailed"}
        assert set(each) <= {"recordId", "result", "data", "metadata"}
        keys = each.get("metadata", {"partitionKeys": {}})["partitionKeys"]
        assert all(isinstance(value, str) and value for value in keys.values())
        assert (each["result"] == "Ok") == ("data" in each)
        found.append((each["result"], base64.b64decode(each.get("data", ""), validate=True), keys))
    return found


def rows_of(found: Sequence[tuple[str, bytes, Mapping[str, str]]]) -> bytes:
    """What Firehose writes of them: one after the other, without anything between."""
    return b"".join(data for result, data, _ in found if result == "Ok")
