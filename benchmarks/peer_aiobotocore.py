"""The usual Python consumer: aiobotocore pages, a dict per record, a list per column, Parquet at the end. No checkpoint, no audit."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import aiobotocore.session
import pyarrow as pa
import pyarrow.parquet as pq

ROWS_A_FILE = 50_000


async def consume(endpoint: str, stream: str, folder: Path) -> None:
    session = aiobotocore.session.get_session()
    async with session.create_client("kinesis", endpoint_url=endpoint, region_name="us-east-1") as client:
        shards = (await client.list_shards(StreamName=stream))["Shards"]
        for shard in shards:
            found = await client.get_shard_iterator(StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
            iterator, rows, files = found["ShardIterator"], [], 0
            while True:
                page = await client.get_records(ShardIterator=iterator, Limit=10_000)
                rows += [row for row in map(transform, page["Records"]) if row is not None]
                iterator = page["NextShardIterator"]
                if len(rows) >= ROWS_A_FILE or not page["MillisBehindLatest"]:
                    write(rows, folder / f"{shard['ShardId']}-{files}.parquet")
                    files, rows = files + 1, []
                if not page["MillisBehindLatest"]:
                    break


def transform(record: dict[str, Any]) -> dict[str, Any] | None:
    event = json.loads(record["Data"])
    if event["dep_time"] is None:
        return None
    event["time_hour"] = datetime.fromisoformat(event["time_hour"])
    event["departure_month"] = event["time_hour"].strftime("%Y-%m")
    late = event["arr_delay"]
    event["made_up"] = None if late is None else event["dep_delay"] - late
    return event


def write(rows: list[dict[str, Any]], path: Path) -> None:
    if rows:
        pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd", compression_level=1)


if __name__ == "__main__":
    asyncio.run(consume(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
