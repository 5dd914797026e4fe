"""Helpers for local AWS: create a bucket or a stream, split a shard, copy a bucket to a directory. Blocking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from stream.errors import Fatal


class LocalClients:
    """Clients for the services that ``environment`` (of ``LocalAws``) points to; a context manager that closes them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        import boto3

        self._session = boto3.Session(
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_REGION"],
        )
        self._kinesis: Any = self._session.client("kinesis", endpoint_url=environment["AWS_ENDPOINT_URL_KINESIS"])
        self._s3: Any = self._session.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL_S3"])

    def __enter__(self) -> Self:
        """Send no request yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._kinesis.close()
        self._s3.close()

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket if it does not exist."""
        self._s3.create_bucket(Bucket=bucket)

    def create_stream(self, stream: str, shards: int) -> None:
        """Create a stream; it is ``ACTIVE`` when this returns."""
        self._kinesis.create_stream(StreamName=stream, ShardCount=shards)
        self._kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 30})

    def split_widest_shard(self, stream: str) -> tuple[str, tuple[str, ...]]:
        """Split the open shard with the widest hash range in the middle. Returns its id and those of its children."""
        shard = max(self._open_shards(stream), key=_width)
        low, high = (int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey"))
        self._kinesis.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high + 1) // 2))
        self._kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        children = [each["ShardId"] for each in self._shards(stream) if each.get("ParentShardId") == shard["ShardId"]]
        if len(children) != 2:
            msg = f"{shard['ShardId']} was split and has the children {children}; expected two"
            raise Fatal(msg)
        return shard["ShardId"], tuple(children)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Keys of all objects under ``prefix``, ascending."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def body(self, bucket: str, key: str) -> bytes:
        """The content of an object."""
        content: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def copy_bucket(self, bucket: str, folder: Path) -> int:
        """Copy every object to ``folder``, with keys as relative paths. Returns the number of objects."""
        keys = self.keys(bucket)
        for key in keys:
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.body(bucket, key))
        return len(keys)

    def _shards(self, stream: str) -> list[dict[str, Any]]:
        pages = self._kinesis.get_paginator("list_shards").paginate(StreamName=stream)
        return [shard for page in pages for shard in page["Shards"]]

    def _open_shards(self, stream: str) -> list[dict[str, Any]]:
        return [shard for shard in self._shards(stream) if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]


def _width(shard: Mapping[str, Any]) -> int:
    return int(shard["HashKeyRange"]["EndingHashKey"]) - int(shard["HashKeyRange"]["StartingHashKey"])
