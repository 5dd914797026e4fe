"""A year of real flights as a stream of events, with the irregularities of a real stream.

336,776 flights out of New York in 2013 as JSON, in order of time; most of them inside KPL aggregates, the others as plain records; in
addition, about one broken record per thousand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from random import Random
from typing import Any, Final

import polars as pl
from botocore.config import Config

from stream.local.kpl import UserRecord, aggregate

BUCKETS: Final = 64
"""Equal slices of the hash space. An aggregate stays within one slice, so halving a shard a few times never divides an aggregate."""

AGGREGATED_SHARE: Final = 0.7
AGGREGATE_ROWS: Final = 60
WINDOW: Final = 4000
"""Flights that are distributed to slices at a time, so that an aggregate holds flights of about one day."""

PUT_RECORDS: Final = 250
BROKEN_ONE_IN: Final = 1000

BROKEN: Final[tuple[bytes, ...]] = (
    b'{"year":2013,"month":1,"day":1,"dep_time":517,"sched_dep_time":515,"carr',
    b'{"year":2013,"month":1,"day":1,"dep_time":"early","sched_dep_time":515,"carrier":"UA"}',
    b'{"year":2013,"carrier":"\xff\xfe"}',
    b"",
    b"[1,2,3]",
    b'{"year":2013,"month":1}',
)
"""Truncated, wrong type, not UTF-8, empty, not an object, fields missing."""


@dataclass(frozen=True, slots=True)
class Produced:
    """What went into the stream, as user records."""

    flights: int
    broken: int

    @property
    def records(self) -> int:
        """All of them."""
        return self.flights + self.broken


def flights_table() -> pl.DataFrame:
    """The flights as published, in order of departure."""
    with as_file(files("stream.data") / "nycflights13" / "flights.parquet") as path:
        return pl.read_parquet(path).sort("time_hour", "origin", "carrier", "flight", maintain_order=True)


def produce(endpoint: str, region: str, stream: str, flights: pl.DataFrame, seed: int, progress: Callable[[int], None]) -> Produced:
    """Put all ``flights`` and some broken records into ``stream``; calls ``progress`` with the number of user records put so far.

    The same seed puts the same records in the same order.
    """
    import boto3

    rng = Random(seed)  # noqa: S311 - repeatable on purpose
    config = Config(retries={"mode": "standard", "max_attempts": 8})
    client = boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - the emulator looks at no key
        config=config,
    )
    done = broken = 0
    try:
        for start in range(0, flights.height, WINDOW):
            window = flights.slice(start, WINDOW)
            spoilt = [BROKEN[rng.randrange(len(BROKEN))] for _ in range(window.height // BROKEN_ONE_IN)]
            broken += len(spoilt)
            for entries, users in _requests(_mixed(window, spoilt, rng)):
                _put(client, stream, entries)
                done += users
                progress(done)
    finally:
        client.close()
    return Produced(flights.height, broken)


def slice_of(partition_key: str) -> int:
    """The index of the slice of the hash space, of ``BUCKETS``, to which Kinesis assigns the key."""
    return int(hashlib.md5(partition_key.encode(), usedforsecurity=False).hexdigest(), 16) * BUCKETS >> 128


def _mixed(window: pl.DataFrame, spoilt: list[bytes], rng: Random) -> Iterator[tuple[dict[str, Any], int]]:
    """Entries of PutRecords and the number of user records in each."""
    lines = window.write_ndjson().encode().splitlines()
    keys = [f"{carrier}-{flight}" for carrier, flight in window.select("carrier", "flight").iter_rows()]
    slices: dict[int, list[UserRecord]] = {}
    for key, line in zip([*keys, *(f"broken-{n}" for n in range(len(spoilt)))], [*lines, *spoilt], strict=True):
        if rng.random() >= AGGREGATED_SHARE:
            yield {"Data": line, "PartitionKey": key}, 1
            continue
        filling = slices.setdefault(slice_of(key), [])
        filling.append(UserRecord(key, None, line))
        if len(filling) == AGGREGATE_ROWS:
            yield _aggregated(filling), AGGREGATE_ROWS
            filling.clear()
    for filling in slices.values():
        if filling:
            yield _aggregated(filling), len(filling)


def _aggregated(users: list[UserRecord]) -> dict[str, Any]:
    return {"Data": aggregate(users), "PartitionKey": users[0].partition_key}


def _requests(entries: Iterator[tuple[dict[str, Any], int]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    batch, users = [], 0
    for entry, count in entries:
        batch.append(entry)
        users += count
        if len(batch) == PUT_RECORDS:
            yield batch, users
            batch, users = [], 0
    if batch:
        yield batch, users


def _put(client: Any, stream: str, entries: list[dict[str, Any]]) -> None:
    """Put the entries, and those that the service throttles again, in order."""
    while entries:
        answer = client.put_records(StreamName=stream, Records=entries)
        failed = [result.get("ErrorCode") is not None for result in answer["Records"]]
        entries = [entry for entry, again in zip(entries, failed, strict=True) if again]
