"""Requests, responses and errors of our own clients, held to the models of the services."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from aiohttp import web
from botocore.retries.standard import ThrottledRetryableChecker

from stream.aws import fan_out, kinesis, pages, redshift_data, sqs
from stream.aws.dynamodb import CONDITION_FAILED, open_dynamodb
from stream.aws.errors import Kind, classify
from stream.aws.fan_out import describe_consumer, register_consumer, subscribe
from stream.aws.kinesis import IteratorAt, IteratorKind, open_kinesis
from stream.aws.redshift_data import Database, open_redshift_data
from stream.aws.session import AwsSession
from stream.aws.sqs import QueuePlace, open_sqs
from stream.clock import SystemClock
from stream.lease.rows import ExtendedSequenceNumber, Progress
from stream.lease.table import LeaseTable
from tests.models import always, errors, problems
from tests.unit.lease.tables import lease

STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/flights"
SHARED = "orders@444455556666.eu-west-1"
SHARED_ARN = "arn:aws:kinesis:eu-west-1:444455556666:stream/orders"
CONSUMER = f"{STREAM}/consumer/reader:1795000000"
WORKER = "pod/1"
SHARD = "shardId-000000000000"
NUMBER = "49590338271490256608559692538361571095921575989136588898"
ROLE = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:login-AbCdEf"
ITERATOR = "AAAAAAAAAAGA"
TABLE = {"TableStatus": "ACTIVE", "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}]}
SUMMARY = {"StreamARN": STREAM, "StreamStatus": "ACTIVE", "RetentionPeriodHours": 24, "OpenShardCount": 1}
REGISTERED = {"ConsumerARN": CONSUMER, "ConsumerStatus": "ACTIVE"}
ANSWERS = {
    "Kinesis_20131202.ListShards": {"Shards": []},
    "Kinesis_20131202.DescribeStreamSummary": {"StreamDescriptionSummary": SUMMARY},
    "Kinesis_20131202.GetShardIterator": {"ShardIterator": ITERATOR},
    "Kinesis_20131202.GetRecords": {"Records": []},
    "Kinesis_20131202.SubscribeToShard": {},
    "Kinesis_20131202.DescribeStreamConsumer": {"ConsumerDescription": REGISTERED},
    "Kinesis_20131202.RegisterStreamConsumer": {"Consumer": REGISTERED},
    "DynamoDB_20120810.DescribeTable": {"Table": TABLE},
    "DynamoDB_20120810.CreateTable": {},
    "DynamoDB_20120810.Scan": {"Items": []},
    "DynamoDB_20120810.GetItem": {},
    "DynamoDB_20120810.PutItem": {},
    "DynamoDB_20120810.UpdateItem": {},
    "DynamoDB_20120810.DeleteItem": {},
    "AmazonSQS.ReceiveMessage": {},
    "AmazonSQS.DeleteMessageBatch": {},
    "AmazonSQS.GetQueueAttributes": {},
    "RedshiftData.ExecuteStatement": {"Id": "d9b6c0c9-0747-4bf4-b142-e8883122f766"},
    "RedshiftData.BatchExecuteStatement": {"Id": "d9b6c0c9-0747-4bf4-b142-e8883122f766"},
    "RedshiftData.DescribeStatement": {"Id": "d9b6c0c9-0747-4bf4-b142-e8883122f766", "Status": "FINISHED"},
    "RedshiftData.GetStatementResult": {"Records": [], "ColumnMetadata": []},
}
"""Every operation that our own clients call, with a response."""


class Service:
    """Answers every operation. ``asked``: what it was asked; ``first``: responses that come before the usual ones."""

    def __init__(self) -> None:
        self.asked: dict[str, list[dict[str, Any]]] = {}
        self.first: dict[str, list[tuple[int, dict[str, Any]]]] = {
            "Kinesis_20131202.ListShards": [(200, {"Shards": [], "NextToken": "more"}), (200, {"Shards": []})] * 3,
            "DynamoDB_20120810.DescribeTable": [(400, {"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"})],
            "DynamoDB_20120810.Scan": [(200, {"Items": [], "LastEvaluatedKey": {"leaseKey": {"S": "a"}}})],
            "RedshiftData.GetStatementResult": [(200, {"Records": [], "NextToken": "more"})],
        }

    async def answer(self, request: web.Request) -> web.Response:
        target = request.headers["x-amz-target"]
        self.asked.setdefault(target, []).append(json.loads(await request.read()))
        status, body = self.first[target].pop(0) if self.first.get(target) else (200, ANSWERS[target])
        return web.json_response(body, status=status)


async def use_kinesis(session: AwsSession) -> None:
    async with open_kinesis(session) as client:
        for stream in ("flights", STREAM, SHARED):
            await client.list_shards(stream)
            await client.describe_stream_summary(stream)
            await client.time(stream)
            await client.get_records(stream, ITERATOR)
            for kind in IteratorKind:
                moment = datetime(2026, 11, 27, 1, 2, 3, 456789, UTC) if kind is IteratorKind.AT_TIMESTAMP else None
                at = IteratorAt(kind, NUMBER if kind in {IteratorKind.AFTER, IteratorKind.AT} else None, moment)
                await client.get_shard_iterator(stream, SHARD, at)
                (await subscribe(client, stream, CONSUMER, SHARD, at)).close()
        await describe_consumer(client, STREAM, "reader")
        await register_consumer(client, STREAM, "reader")


async def use_dynamodb(session: AwsSession) -> None:
    clock = SystemClock()
    async with open_dynamodb(session, clock) as client:
        table = LeaseTable(client, "flights", clock, lambda _: None, lambda: "mark")
        assert await table.open(create=True)
        await table.scan()
        await table.scan(consistent=True)
        await table.get(SHARD)
        held, checkpoint = lease(SHARD, owner="me"), ExtendedSequenceNumber(NUMBER)
        foreign = replace(held, pending=None, checkpoint_owner="other", refused="me", unlisted="me")
        for row in (held, replace(held, owner=None), foreign):
            await table.create(row)
            await table.take(row, WORKER)
            await table.renew(row, 12.5)
            if row.owner is not None:
                await table.adopt(row)
            await table.checkpoint(row, checkpoint, Progress(int(NUMBER), 0, 0, checkpoint, tip=clock.now()), throughput=1.0)
            await table.release(row)
            await table.assign(row, "you")
            await table.note_children(SHARD, frozenset({"shardId-000000000001"}))
            await table.delete(row)


async def use_sqs(session: AwsSession) -> None:
    async with open_sqs(session, QueuePlace("news", "123456789012", "eu-west-1"), SystemClock()) as queue:
        await queue.receive(wait=20, hidden=120)
        await queue.delete([f"handle {number}" for number in range(11)])
        await queue.attributes()


async def use_redshift(session: AwsSession) -> None:
    for database in (
        Database("dev", cluster="main", db_user="loader"),
        Database("dev", cluster="main"),
        Database("dev", cluster="main", secret_arn=ROLE),
        Database("dev", workgroup="analytics"),
    ):
        async with open_redshift_data(session, database) as client:
            await client.execute("SELECT 1 WHERE 'x' = :k0_0", "t" * 64, {"k0_0": "x"})
            started = await client.batch_execute(["SELECT 1"] * 40, "t" * 64)
            await client.describe(started)
            await client.result(started)


@pytest.fixture(scope="module")
def asked() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What every operation was asked, by ``x-amz-target``."""

    async def run() -> dict[str, list[dict[str, Any]]]:
        service = Service()
        async with AsyncExitStack() as stack:
            runner = web.ServerRunner(web.Server(service.answer))
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            names = ("kinesis", "dynamodb", "sqs", "redshift-data")
            session = AwsSession(region="eu-west-1", endpoints=dict.fromkeys(names, url))
            users: tuple[Callable[[AwsSession], Awaitable[None]], ...] = (use_kinesis, use_dynamodb, use_sqs, use_redshift)
            for use in users:
                await use(session)
        return service.asked

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield asyncio.run(run())


@pytest.mark.parametrize("name", ["ListShards", "DescribeStreamSummary", "GetShardIterator", "GetRecords"])
def test_every_call_about_a_shared_stream_names_its_arn(asked: dict[str, list[dict[str, Any]]], name: str) -> None:
    made = asked[f"Kinesis_20131202.{name}"]
    by_arn, by_id = ([each for each in made if each.get("StreamARN") == arn] for arn in (STREAM, SHARED_ARN))
    assert by_id
    assert [{**each, "StreamARN": STREAM} for each in by_id] == by_arn
    assert not [each for each in made if "StreamName" in each and each["StreamName"] != "flights"]


def test_a_token_of_a_list_names_the_stream_alone(asked: dict[str, list[dict[str, Any]]]) -> None:
    """The service refuses a name or an ARN beside it: `NextToken and StreamARN cannot be provided together.`"""
    further = [each for each in asked["Kinesis_20131202.ListShards"] if "NextToken" in each]
    assert further == [{"NextToken": "more", "MaxResults": 1000}] * 3


@pytest.mark.parametrize("target", ANSWERS)
def test_every_request_is_one_that_the_service_accepts(asked: dict[str, list[dict[str, Any]]], target: str) -> None:
    assert asked[target]
    assert [problems(target, given) for given in asked[target] if problems(target, given)] == []


def test_patterns_that_are_written_for_java_are_applied() -> None:
    assert problems("AWSGlue.GetDatabase", {"Name": "lake \N{GRINNING FACE}"}) == []
    [wrong] = problems("AWSGlue.GetDatabase", {"Name": "two\nlines"})
    assert wrong.startswith("AWSGlue.GetDatabase.Name: 'two\\nlines' is not ")


def test_a_request_that_the_service_does_not_accept_is_noticed() -> None:
    wrong: dict[str, Any] = {"StreamName": "a b", "ShardId": SHARD, "ShardIteratorType": "NEWEST", "Bogus": 1}
    assert len(problems("Kinesis_20131202.GetShardIterator", wrong)) == 3
    assert problems("Kinesis_20131202.GetRecords", {"ShardIterator": ITERATOR, "Limit": 10_001}) != []
    assert problems("RedshiftData.DescribeStatement", {"Id": "d9b6c0c9-0747-4bf4-b142-e8883122f766", "WaitTimeSeconds": 31}) != []
    assert problems("AmazonSQS.ReceiveMessage", {}) != []


RESPONSES: list[tuple[str, str, type[msgspec.Struct], set[str]]] = [
    ("kinesis", "ListShardsOutput", kinesis._Shards, {"Shards"}),
    ("kinesis", "Shard", kinesis._Shard, set()),
    ("kinesis", "HashKeyRange", kinesis._HashRange, set()),
    ("kinesis", "SequenceNumberRange", kinesis._SequenceRange, set()),
    ("kinesis", "GetShardIteratorOutput", kinesis._Iterator, {"ShardIterator"}),
    ("kinesis", "StreamDescriptionSummary", kinesis._Summary, set()),
    ("kinesis", "StreamModeDetails", kinesis._Mode, set()),
    ("kinesis", "GetRecordsOutput", pages._Records, set()),
    ("kinesis", "SubscribeToShardEvent", pages._Event, set()),
    ("kinesis", "Record", pages._Record, {"ApproximateArrivalTimestamp"}),
    ("kinesis", "ChildShard", pages._ChildShard, set()),
    ("kinesis", "ConsumerDescription", fan_out._Consumer, set()),
    ("kinesis", "Consumer", fan_out._Consumer, set()),
    ("sqs", "ReceiveMessageResult", sqs._Messages, set()),
    ("sqs", "Message", sqs._Message, {"Body", "ReceiptHandle"}),
    ("sqs", "DeleteMessageBatchResult", sqs._Deleted, set()),
    ("sqs", "BatchResultErrorEntry", sqs._Failure, set()),
    ("redshift-data", "ExecuteStatementOutput", redshift_data._Started, {"Id"}),
    ("redshift-data", "BatchExecuteStatementOutput", redshift_data._Started, {"Id"}),
    ("redshift-data", "DescribeStatementResponse", redshift_data._Described, {"Status"}),
    ("redshift-data", "SubStatementData", redshift_data._Sub, set()),
    ("redshift-data", "GetStatementResultResponse", redshift_data._Page, set()),
]
"""Service, shape, what reads it, and the members without which a response would say nothing, although the model does not demand them."""


@pytest.mark.parametrize(("model", "shape", "reader", "sent"), RESPONSES, ids=[f"{each[0]}-{each[1]}" for each in RESPONSES])
def test_no_member_is_needed_that_the_service_may_leave_out(model: str, shape: str, reader: type[msgspec.Struct], sent: set[str]) -> None:
    needed = {each.encode_name for each in msgspec.structs.fields(reader) if each.required}
    assert needed - always(model, shape) == sent


CALLS = {
    "kinesis": [name.partition(".")[2] for name in ANSWERS if name.startswith("Kinesis")],
    "dynamodb": [name.partition(".")[2] for name in ANSWERS if name.startswith("Dynamo")],
    "sqs": [name.partition(".")[2] for name in ANSWERS if name.startswith("AmazonSQS")],
    "sns": ["Publish", "GetTopicAttributes"],
    "secretsmanager": ["GetSecretValue"],
    "sts": ["GetCallerIdentity", "AssumeRoleWithWebIdentity"],
}
OF_THE_REQUEST = {
    *("InvalidArgumentException", "DryRunOperationException", "ItemCollectionSizeLimitExceededException", CONDITION_FAILED),
    *("UnsupportedOperation", "InvalidAddress", "TooManyEntriesInBatchRequest", "EmptyBatchRequest", "BatchEntryIdsNotDistinct"),
    *("InvalidBatchEntryId", "InvalidAttributeName", "InvalidParameter", "ParameterValueInvalid", "EndpointDisabled"),
    *("PlatformApplicationDisabled", "ValidationException", "InvalidParameterException", "InvalidRequestException", "InvalidSecurity"),
    *("MalformedPolicyDocument", "PackedPolicyTooLarge", "IDPRejectedClaim", "InvalidIdentityToken", "RegionDisabledException"),
}
"""Errors that say that the request itself, or the configuration that it was made from, is wrong."""


@pytest.mark.parametrize("name", CALLS)
def test_every_error_of_the_services_is_known(name: str) -> None:
    refused = {code for _, code, status in errors(name, CALLS[name]) if classify(code, status) is Kind.REFUSED}
    assert refused <= OF_THE_REQUEST


def test_whatever_botocore_takes_for_throttling_is_throttling() -> None:
    # Some codes are of services that are never called: those of transactions, of EC2, and of S3, whose client has its own errors.
    elsewhere = {"TransactionInProgressException", "BandwidthLimitExceeded", "PriorRequestNotComplete", "EC2ThrottledException"}
    codes = set(ThrottledRetryableChecker._THROTTLED_ERROR_CODES) - elsewhere
    assert {code for code in codes if classify(code, 400) is not Kind.THROTTLED} == set()
