from typing import Any

import orjson
import pytest

from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.faults import Action, Fault, Script, parse
from tests.unit.local.kinesis.calls import FIRST, Kinesis


def test_a_fault_applies_to_matching_calls_only_and_as_often_as_scripted() -> None:
    fault = Fault(Action.THROTTLE, operation="GetRecords", shard=FIRST, times=2, skip=1)
    script = Script([fault])
    assert script.take("PutRecord", "s", FIRST) is None
    assert script.take("GetRecords", "s", "other") is None
    assert [script.take("GetRecords", "s", FIRST) for _ in range(4)] == [None, fault, fault, None]
    assert script.remaining() == []


def test_faults_come_in_the_order_of_the_script() -> None:
    first, always = Fault(Action.DELAY), Fault(Action.ERROR500, times=None)
    script = Script([first, always])
    assert [script.take("GetRecords", None, None) for _ in range(3)] == [first, always, always]
    script.clear()
    assert script.take("GetRecords", None, None) is None


def test_the_remaining_script_can_be_parsed_again() -> None:
    script = Script([Fault(Action.DELAY, times=3, seconds=1.5), Fault(Action.THROTTLE, times=None)])
    script.take("GetRecords", None, None)
    again = parse(orjson.loads(orjson.dumps(script.remaining())))
    assert again == [Fault(Action.DELAY, times=2, seconds=1.5), Fault(Action.THROTTLE, times=None)]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ({}, "list of objects"),
        (["throttle"], "fault 0"),
        ([{}], "'action'"),
        ([{"action": "throttle"}, {"action": "explode"}], "fault 1: unknown action 'explode'.*throttle"),
        ([{"action": "throttle", "time": 1}], "no members but"),
        ([{"action": "throttle", "times": "3"}], "times is '3'"),
        ([{"action": "throttle", "times": True}], "times is True"),
        ([{"action": "throttle", "times": 0}], "at least 1"),
        ([{"action": "delay", "seconds": -1}], "at least 0"),
    ],
)
def test_an_invalid_script_is_explained(script: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(script)


def _kinesis() -> tuple[Kinesis, str]:
    kinesis = Kinesis()
    kinesis.stream()
    kinesis.put(b"1")
    kinesis.put(b"2")
    return kinesis, kinesis.iterator()


def test_a_duplicate_page_is_delivered_twice() -> None:
    kinesis, token = _kinesis()
    page = kinesis("GetRecords", Fault(Action.DUPLICATE_PAGE), ShardIterator=token)
    again = kinesis("GetRecords", ShardIterator=page["NextShardIterator"])
    assert len(page["Records"]) == 2
    assert again["Records"] == page["Records"]
    assert kinesis("GetRecords", ShardIterator=again["NextShardIterator"])["Records"] == []


def test_an_empty_page_loses_nothing_and_reports_the_lag() -> None:
    kinesis, token = _kinesis()
    page = kinesis("GetRecords", Fault(Action.EMPTY_PAGE), ShardIterator=token)
    assert page["Records"] == ()
    assert page["MillisBehindLatest"] > 0
    assert len(kinesis("GetRecords", ShardIterator=page["NextShardIterator"])["Records"]) == 2


def test_an_empty_page_does_not_end_a_closed_shard() -> None:
    kinesis, token = _kinesis()
    kinesis("SplitShard", StreamName="s", ShardToSplit=FIRST, NewStartingHashKey="99")
    page = kinesis("GetRecords", Fault(Action.EMPTY_PAGE), ShardIterator=token)
    assert page["NextShardIterator"]
    assert "ChildShards" not in page


def test_failed_records_are_not_stored() -> None:
    kinesis, token = _kinesis()
    records = [{"Data": b"%d" % i, "PartitionKey": "k"} for i in range(5)]
    reply = kinesis("PutRecords", Fault(Action.FAIL_RECORDS, every=2), StreamName="s", Records=records)
    assert ["ErrorCode" in record for record in reply["Records"]] == [True, False, True, False, True]
    assert len(kinesis("GetRecords", ShardIterator=token)["Records"]) == 2 + 2


@pytest.mark.parametrize(
    ("fault", "operation", "code", "status"),
    [
        (Fault(Action.THROTTLE), "GetRecords", "ProvisionedThroughputExceededException", 400),
        (Fault(Action.THROTTLE), "ListShards", "LimitExceededException", 400),
        (Fault(Action.ERROR500), "GetRecords", "InternalFailureException", 500),
        (Fault(Action.EXPIRE_ITERATOR), "GetRecords", "ExpiredIteratorException", 400),
        (Fault(Action.ERROR, code="KMSThrottlingException", status=400), "GetRecords", "KMSThrottlingException", 400),
    ],
)
def test_an_error_fault_answers_as_the_service_would(fault: Fault, operation: str, code: str, status: int) -> None:
    error = fault.error(operation)
    assert isinstance(error, ApiError)
    assert (error.code, error.status) == (code, status)
