"""Leases are kept during a short outage of Kinesis."""

from __future__ import annotations

import asyncio

from stream.aws.kinesis import open_kinesis
from stream.aws.session import AwsSession
from stream.commit.retry import Repeater
from stream.events import CallRepeated
from stream.pipeline.model import Pipeline
from stream.worker.coordination.leasing import leased_streams
from tests.contract.kinesis_fake import FakeKinesis, JumpingClock, serving

DEFINITION = {
    "application": "a",
    "source": {"kinesis": {"stream": "s"}, "decode": "raw"},
    "sinks": [{"s3": {"url": "file:lake/"}}],
    "state": "file:state/",
    "coordination": "native",
}


def test_listing_shards_is_repeated_until_it_succeeds(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    emitted = []

    async def main():
        clock = JumpingClock()
        async with serving(FakeKinesis(clock)) as fake:
            fake.put("shardId-000000000000", b"x")
            fake.faults += [("ListShards", 500, "InternalFailure"), ("ListShards", 400, "LimitExceededException"), ("ListShards", 0, "")]
            async with open_kinesis(AwsSession(region="eu-west-1", endpoints={"kinesis": fake.url})) as client:
                [leased] = await leased_streams(Pipeline.model_validate(DEFINITION), client, Repeater(clock, emitted.append))
                return await leased.list_shards()

    shards = asyncio.run(asyncio.wait_for(main(), 60))
    assert [shard.shard_id for shard in shards] == ["shardId-000000000000"]
    assert [event.call for event in emitted if isinstance(event, CallRepeated)] == ["list shards"] * 3
