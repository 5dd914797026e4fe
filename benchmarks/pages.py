"""GetRecords answers as bytes, the way the service writes them, for a replay server and for timing steps."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from stream.local.kinesis.sequence import base, number

ARRIVED: Final = 1_795_000_000
"""Unix second in which the first record of every shard arrived."""
PAGE_RECORDS: Final = 10_000
"""Most that one answer holds (Kinesis API reference)."""


def records_json(lines: Iterable[bytes], shard: int, first: int) -> bytes:
    """The text between the brackets of ``Records``; ``first`` counts records of the shard."""
    shard_base = base(ARRIVED - 3600, shard)
    members = []
    for at, line in enumerate(lines, first):
        second = ARRIVED + at // 1000
        sequence = number(shard_base, at + 1, second)
        data = base64.b64encode(line).decode()
        members.append(
            f'{{"SequenceNumber":"{sequence}","ApproximateArrivalTimestamp":{second}.{at % 1000:03},'
            f'"Data":"{data}","PartitionKey":"user-{at * 7919 % 100_000}","EncryptionType":"NONE"}}'
        )
    return ",".join(members).encode()


def pages(lines: Iterable[bytes], shard: int, records: int = PAGE_RECORDS) -> Iterator[bytes]:
    """``lines`` in answers of ``records`` each, without the members around ``Records``."""
    source, first = iter(lines), 0
    while chunk := list(islice(source, records)):
        yield records_json(chunk, shard, first)
        first += len(chunk)


def body(records: bytes, next_iterator: str, behind_ms: int) -> bytes:
    """One whole answer."""
    return b'{"Records":[%b],"NextShardIterator":"%b","MillisBehindLatest":%d}' % (records, next_iterator.encode(), behind_ms)
