"""A typical consumer: ``consume.py CLIENT JOB SHAPE ENDPOINT STREAM FOLDER RECORDS``. No checkpoint, no audit, no retry.

Reads every shard from its beginning to its tip, does the work of the shape and writes Parquet (zstd, level 1) with about 50,000
rows per file. Credentials come from the environment. Prints nothing. The two clients that are whole consumers keep their own state: kcl-rs
leases and checkpoints in DynamoDB, async-kinesis a checkpoint in memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from jobs import WRITERS

REGION = "us-east-1"


def boto3_pages(endpoint: str, stream: str) -> Iterator[list[bytes]]:
    import boto3

    client = boto3.client("kinesis", endpoint_url=endpoint, region_name=REGION)
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        where = {"StreamName": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator, behind = client.get_shard_iterator(**where)["ShardIterator"], 1
        while behind:
            page = client.get_records(ShardIterator=iterator, Limit=10_000)
            iterator, behind = page["NextShardIterator"], page["MillisBehindLatest"]
            yield [record["Data"] for record in page["Records"]]


def capo_pages(endpoint: str, stream: str) -> Iterator[list[bytes]]:
    from capo_kinesis import KinesisClient

    with KinesisClient(endpoint=endpoint, region=REGION) as client:
        for shard in client.list_shards(stream_name=stream)["shards"]:
            found = client.get_shard_iterator(shard_id=shard["shard_id"], shard_iterator_type="TRIM_HORIZON", stream_name=stream)
            iterator, behind = found["shard_iterator"], 1
            while behind:
                page = client.get_records(shard_iterator=iterator, limit=10_000)
                iterator, behind = page["next_shard_iterator"], page["millis_behind_latest"]
                yield [_bytes(record["data"]) for record in page["records"]]


def _bytes(data: Any) -> bytes:
    return data if isinstance(data, bytes) else bytes(data)


async def aiobotocore_pages(endpoint: str, stream: str) -> AsyncIterator[list[bytes]]:
    import aiobotocore.session

    session = aiobotocore.session.get_session()
    async with session.create_client("kinesis", endpoint_url=endpoint, region_name=REGION) as client:
        for shard in (await client.list_shards(StreamName=stream))["Shards"]:
            where = {"StreamName": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator, behind = (await client.get_shard_iterator(**where))["ShardIterator"], 1
            while behind:
                page = await client.get_records(ShardIterator=iterator, Limit=10_000)
                iterator, behind = page["NextShardIterator"], page["MillisBehindLatest"]
                yield [record["Data"] for record in page["Records"]]


async def async_kinesis_pages(endpoint: str, stream: str) -> AsyncIterator[list[bytes]]:
    """Its queue returns records one by one; it stops after two seconds without any. Its limit of calls is lifted."""
    from kinesis import Consumer
    from kinesis.processors import Processor, SimpleAggregator

    class Untouched(Processor, SimpleAggregator):
        def deserialize(self, data: bytes) -> bytes:
            return data

    options = {"region_name": REGION, "shard_fetch_rate": 1000, "idle_timeout": 2.0, "sleep_time_no_records": 0.2}
    async with Consumer(stream, endpoint_url=endpoint, processor=Untouched(), **options) as consumer:
        page: list[bytes] = []
        async for data in consumer:
            page.append(data)
            if len(page) == 10_000:
                yield page
                page = []
        yield page


def kcl_rs(stream: str, writer: Any, records: int) -> None:
    """Reads until it has ``records`` records, since its shards never end. All endpoints come from the environment."""
    from kcl_rs import RecordProcessorBase, Scheduler

    alone, enough, counted = threading.Lock(), threading.Event(), [0]

    class Processor(RecordProcessorBase):
        def initialize(self, given: Any) -> None:
            pass

        def process_records(self, given: Any) -> None:
            with alone:
                datas = [record.data for record in given.records]
                writer.page(datas)
                counted[0] += len(datas)
            if datas:
                given.checkpointer.checkpoint()
            if counted[0] >= records:
                enough.set()

        def lease_lost(self, given: Any) -> None:
            pass

        def shard_ended(self, given: Any) -> None:
            given.checkpointer.checkpoint()

        def shutdown_requested(self, given: Any) -> None:
            pass

    polling = {"retrieval_mode": "POLLING", "max_records": 10_000, "idle_time_between_reads_millis": 200}
    name = f"bench-{stream}-{os.getpid()}"
    scheduler = Scheduler(stream, name, Processor, region=REGION, initial_position="TRIM_HORIZON", **polling)
    scheduler.start()
    enough.wait()
    scheduler.shutdown()


async def drain(pages: AsyncIterator[list[bytes]], writer: Any) -> None:
    async for datas in pages:
        writer.page(datas)


def main(client: str, job: str, shape: str, *where: str) -> None:
    endpoint, stream, folder, records = where
    writer = WRITERS[job](shape, folder)
    if client == "kcl-rs":
        kcl_rs(stream, writer, int(records))
    elif client in {"aiobotocore", "async-kinesis"}:
        pages = {"aiobotocore": aiobotocore_pages, "async-kinesis": async_kinesis_pages}[client]
        asyncio.run(drain(pages(endpoint, stream), writer))
    else:
        for datas in {"boto3": boto3_pages, "capo": capo_pages}[client](endpoint, stream):
            writer.page(datas)
    writer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
