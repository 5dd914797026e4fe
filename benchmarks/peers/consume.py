"""A consumer as people write it: ``consume.py CLIENT JOB SHAPE ENDPOINT STREAM FOLDER``. No checkpoint, no audit, no retry.

Reads every shard from its beginning until nothing is behind, does the work of the shape and writes Parquet (zstd, level 1) of about 50,000
rows a file. Credentials come from the environment. Prints nothing.
"""

from __future__ import annotations

import asyncio
import sys
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


async def drain(pages: AsyncIterator[list[bytes]], writer: Any) -> None:
    async for datas in pages:
        writer.page(datas)


def main(client: str, job: str, shape: str, *where: str) -> None:
    endpoint, stream, folder = where
    writer = WRITERS[job](shape, folder)
    if client == "aiobotocore":
        asyncio.run(drain(aiobotocore_pages(endpoint, stream), writer))
    else:
        for datas in {"boto3": boto3_pages, "capo": capo_pages}[client](endpoint, stream):
            writer.page(datas)
    writer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
