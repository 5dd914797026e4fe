"""The records of a stream in order, read with boto3 and without any code of the service; aggregates are parsed here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAGIC = b"\xf3\x89\x9a\xc2"


@dataclass(frozen=True)
class Record:
    """One user record; ``here`` is False where its hash key belongs to another shard."""

    sequence: int
    subsequence: int
    data: bytes
    key: str
    here: bool = True


@dataclass
class ShardTruth:
    """One shard as the service knows it, with every record that it holds."""

    shard_id: str
    parents: tuple[str, ...]
    closed: bool
    children: tuple[str, ...] = ()
    records: list[Record] = field(default_factory=list)


def read_stream(client: Any, stream: str) -> dict[str, ShardTruth]:
    """Every shard by id, read from its trim horizon to its end."""
    listed = client.list_shards(StreamName=stream)["Shards"]
    found = {}
    for shard in listed:
        parents = tuple(shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if shard.get(name))
        truth = ShardTruth(shard["ShardId"], parents, "EndingSequenceNumber" in shard["SequenceNumberRange"])
        first, last = (int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey"))
        for raw in raw_records(client, stream, truth.shard_id):
            truth.records += _user_records(raw, first, last)
        found[truth.shard_id] = truth
    for truth in found.values():
        truth.children = tuple(sorted(other.shard_id for other in found.values() if truth.shard_id in other.parents))
    return found


def raw_records(client: Any, stream: str, shard_id: str) -> Iterator[dict[str, Any]]:
    """Every Kinesis record of a shard, as GetRecords returns it."""
    token = client.get_shard_iterator(StreamName=stream, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    while token:
        page = client.get_records(ShardIterator=token)
        yield from page["Records"]
        token = page.get("NextShardIterator") if page["Records"] or page["MillisBehindLatest"] else None


def _user_records(raw: dict[str, Any], first: int, last: int) -> list[Record]:
    sequence, data = int(raw["SequenceNumber"]), raw["Data"]
    users = taken_apart(data)
    if users is None:
        return [Record(sequence, 0, data, raw["PartitionKey"])]
    return [
        Record(sequence, sub, body, key, here=first <= (_hash(key) if explicit is None else explicit) <= last)
        for sub, (key, explicit, body) in enumerate(users)
    ]


def _hash(key: str) -> int:
    return int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16)


def taken_apart(data: bytes) -> list[tuple[str, int | None, bytes]] | None:
    """Key, explicit hash key and data of each user record of a KPL aggregate; None for anything else."""
    body = data[4:-16]
    if data[:4] != MAGIC or len(data) <= 20 or hashlib.md5(body, usedforsecurity=False).digest() != data[-16:]:
        return None
    keys: list[str] = []
    hashes: list[int] = []
    users = []
    try:
        for number, value in _fields(body):
            if number == 1:
                keys.append(value.decode())
            elif number == 2:
                hashes.append(int(value))
            elif number == 3:
                users.append(dict(_fields(value)))
        return [(keys[user[1]], hashes[user[2]] if 2 in user else None, user[3]) for user in users] or None
    except (IndexError, KeyError, ValueError):
        return None


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        yield tag >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
