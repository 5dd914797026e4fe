import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from http.client import HTTPConnection, IncompleteRead
from typing import Any

import aiohttp
import pytest
from aiobotocore.session import get_session
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from stream.local.kinesis.faults import Action, Fault
from stream.local.kinesis.server import Running, running, serve
from tests.contract.peers import Peer, client
from tests.unit.local.kinesis.calls import FIRST, HALF, HandClock

CREDENTIALS = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}


@pytest.fixture
def emulator() -> Iterator[Running]:
    with running() as server:
        yield server


@pytest.fixture
def peer(emulator: Running) -> Iterator[Peer]:
    with client(emulator.url) as made:
        yield Peer("emulator", emulator.url, made)


def test_an_error_fault_reaches_the_client_and_nothing_is_applied(emulator: Running, peer: Peer) -> None:
    name = peer.stream()
    emulator.faults.add(Fault(Action.ERROR500, operation="PutRecord"))
    with pytest.raises(ClientError) as caught:
        peer.put(name, b"x")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert peer.read(name, FIRST) == []


@pytest.mark.parametrize(("action", "stored"), [(Action.CLOSE_BEFORE_REPLY, []), (Action.CLOSE_AFTER_APPLY, [b"x"])])
def test_a_closed_connection_does_not_tell_whether_the_call_was_applied(
    emulator: Running, peer: Peer, action: Action, stored: list[bytes]
) -> None:
    name = peer.stream()
    emulator.faults.add(Fault(action, operation="PutRecord", stream=name))
    with pytest.raises(ConnectionClosedError):
        peer.put(name, b"x")
    assert peer.read(name, FIRST) == stored


def test_a_truncated_reply_ends_early(emulator: Running, peer: Peer) -> None:
    name = peer.stream()
    peer.put(name, b"x" * 1000)
    token = peer.iterator(name, FIRST)
    emulator.faults.add(Fault(Action.TRUNCATE, operation="GetRecords", shard=FIRST, times=2))
    headers = {"X-Amz-Target": "Kinesis_20131202.GetRecords", "Content-Type": "application/x-amz-json-1.1"}
    with closing(HTTPConnection(emulator.url.removeprefix("http://"))) as connection:
        connection.request("POST", "/", json.dumps({"ShardIterator": token}), headers)
        with connection.getresponse() as reply, pytest.raises(IncompleteRead):
            reply.read()
    # botocore takes the broken body for a reply without members: a consumer must not take that for an empty page.
    assert "Records" not in peer.client.get_records(ShardIterator=token)
    assert len(peer.client.get_records(ShardIterator=token)["Records"]) == 1


def test_a_fault_of_an_iterator_applies_to_its_shard(emulator: Running, peer: Peer) -> None:
    name = peer.stream(2)
    emulator.faults.add(Fault(Action.EXPIRE_ITERATOR, shard="shardId-000000000001"))
    assert peer.read(name, FIRST) == []
    token = peer.iterator(name, "shardId-000000000000")
    emulator.faults.clear()
    emulator.faults.add(Fault(Action.EXPIRE_ITERATOR, operation="GetRecords", shard=FIRST))
    with pytest.raises(ClientError, match="ExpiredIterator"):
        peer.client.get_records(ShardIterator=token)


def test_an_unknown_operation_is_named(peer: Peer) -> None:
    with pytest.raises(ClientError, match="unknown or unsupported operation 'DescribeAccountSettings'"):
        peer.client.describe_account_settings()


def test_a_subscription_cut_inside_an_event_raises(emulator: Running, peer: Peer) -> None:
    name = peer.stream()
    peer.put(name, b"x")
    arn = peer.client.register_stream_consumer(StreamARN=peer.arn(name), ConsumerName="app")["Consumer"]["ConsumerARN"]
    emulator.faults.add(Fault(Action.TRUNCATE, operation="SubscribeToShard"))
    reply = peer.client.subscribe_to_shard(ConsumerARN=arn, ShardId=FIRST, StartingPosition={"Type": "TRIM_HORIZON"})
    with pytest.raises(Exception, match=r"IncompleteRead|Connection broken|ended prematurely|Response"):
        list(reply["EventStream"])


# --- in one event loop, with a clock that we turn ---------------------------------------------------------------------


@asynccontextmanager
async def _kinesis(clock: HandClock) -> AsyncIterator[tuple[Running, Any]]:
    config = Config(retries={"total_max_attempts": 1})
    async with (
        serve(clock=clock) as server,
        get_session().create_client("kinesis", endpoint_url=server.url, config=config, **CREDENTIALS) as made,
    ):
        yield server, made


@asynccontextmanager
async def _subscribed(kinesis: Any, position: dict[str, Any]) -> AsyncIterator[Any]:
    arn = (await kinesis.describe_stream_summary(StreamName="s"))["StreamDescriptionSummary"]["StreamARN"]
    consumers = (await kinesis.list_stream_consumers(StreamARN=arn))["Consumers"]
    if not consumers:
        consumers = [(await kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="app"))["Consumer"]]
    reply = await kinesis.subscribe_to_shard(ConsumerARN=consumers[0]["ConsumerARN"], ShardId=FIRST, StartingPosition=position)
    try:
        yield aiter(reply["EventStream"])
    finally:
        reply["EventStream"].close()


async def _next(events: Any) -> dict[str, Any]:
    return (await anext(events))["SubscribeToShardEvent"]


def test_an_iterator_expires_after_five_minutes() -> None:
    async def scenario() -> None:
        clock = HandClock()
        async with _kinesis(clock) as (_, kinesis):
            await kinesis.create_stream(StreamName="s", ShardCount=1)
            reply = await kinesis.get_shard_iterator(StreamName="s", ShardId=FIRST, ShardIteratorType="LATEST")
            clock.turn(300)
            page = await kinesis.get_records(ShardIterator=reply["ShardIterator"])
            clock.turn(300.001)
            with pytest.raises(ClientError, match="ExpiredIteratorException"):
                await kinesis.get_records(ShardIterator=page["NextShardIterator"])

    asyncio.run(scenario())


def test_a_delayed_reply_waits_for_the_clock() -> None:
    async def scenario() -> None:
        clock = HandClock()
        async with _kinesis(clock) as (server, kinesis), asyncio.TaskGroup() as group:
            server.faults.add(Fault(Action.DELAY, operation="DescribeLimits", seconds=30))
            waiting = group.create_task(kinesis.describe_limits())
            while server.faults.remaining():
                await kinesis.list_streams()
            assert not waiting.done()
            clock.turn(30)
            assert (await waiting)["OpenShardCount"] == 0

    asyncio.run(scenario())


def test_a_subscription_pushes_records_and_ends_after_five_minutes() -> None:
    async def scenario() -> None:
        clock = HandClock()
        async with _kinesis(clock) as (_, kinesis):
            await kinesis.create_stream(StreamName="s", ShardCount=1)
            async with _subscribed(kinesis, {"Type": "LATEST"}) as events:
                quiet = await _next(events)
                assert quiet["Records"] == []
                await kinesis.put_record(StreamName="s", Data=b"pushed", PartitionKey="k")
                assert [record["Data"] for record in (await _next(events))["Records"]] == [b"pushed"]
                clock.turn(300)
                last = await _next(events)
                assert (last["Records"], "ChildShards" in last) == ([], False)
                with pytest.raises(StopAsyncIteration):
                    await anext(events)

            resumed = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": quiet["ContinuationSequenceNumber"]}
            async with _subscribed(kinesis, resumed) as events:
                assert len((await _next(events))["Records"]) == 1
                await kinesis.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey=str(HALF))
                assert len((await _next(events))["ChildShards"]) == 2

    asyncio.run(scenario())


def test_a_second_subscription_is_refused_for_five_seconds_and_then_takes_over() -> None:
    async def scenario() -> None:
        clock = HandClock()
        async with _kinesis(clock) as (_, kinesis):
            await kinesis.create_stream(StreamName="s", ShardCount=1)
            async with _subscribed(kinesis, {"Type": "LATEST"}) as first:
                await _next(first)
                with pytest.raises(ClientError, match="ResourceInUseException"):
                    async with _subscribed(kinesis, {"Type": "LATEST"}):
                        pass
                clock.turn(5)
                await _next(first)
                async with _subscribed(kinesis, {"Type": "LATEST"}) as second:
                    with pytest.raises(ClientError, match="took over"):
                        await anext(first)
                    assert (await _next(second))["Records"] == []

    asyncio.run(scenario())


def test_the_script_can_be_written_read_and_cleared_over_http() -> None:
    async def scenario() -> None:
        async with serve() as server, aiohttp.ClientSession(server.url) as http:
            script = [{"operation": "GetRecords", "action": "throttle", "times": 3}]
            async with http.post("/_faults", json=script) as reply:
                assert (reply.status, await reply.json()) == (200, {"added": 1})
            async with http.get("/_faults") as reply:
                (remaining,) = await reply.json()
                assert (remaining["action"], remaining["times"]) == ("throttle", 3)
            async with http.delete("/_faults") as reply:
                assert reply.status == 200
            assert server.faults.remaining() == []
            for wrong in ("{", json.dumps([{"action": "explode"}])):
                async with http.post("/_faults", data=wrong) as reply:
                    assert reply.status == 400
                    assert (await reply.json())["error"]
            async with http.get("/_health") as reply:
                assert await reply.json() == {"status": "ready", "streams": []}

    asyncio.run(scenario())


def test_a_port_in_use_is_an_error_and_not_a_hang() -> None:
    with running() as server, pytest.raises(OSError, match="address already in use"), running(
        int(server.url.rsplit(":", 1)[1])
    ):  # fmt: skip
        pass
