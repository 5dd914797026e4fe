"""Records in the form of GetRecords responses, for the replay server and for timing single steps."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from stream.local.kinesis.sequence import base, number

ARRIVED: Final = 1_795_000_000
"""Unix second in which the first record of every shard arrived."""
PAGE_RECORDS: Final = 10_000
"""The most records in one response (Kinesis API reference)."""


def record_json(line: bytes, shard: int, at: int) -> bytes:
    """The ``at``-th record of a shard, as an element of ``Records``."""
    second = ARRIVED + at // 1000
    sequence = number(base(ARRIVED - 3600, shard), at + 1, second)
    return (
        f'{{"SequenceNumber":"{sequence}","ApproximateArrivalTimestamp":{second}.{at % 1000:03},'
        f'"Data":"{base64.b64encode(line).decode()}","PartitionKey":"user-{at * 7919 % 100_000}"}}'
    ).encode()


def answers(lines: Iterable[bytes], shard: int = 0, records: int = PAGE_RECORDS) -> Iterator[bytes]:
    """``lines`` as whole responses of ``records`` records each."""
    source, first = iter(lines), 0
    while chunk := list(islice(source, records)):
        text = b",".join(record_json(line, shard, at) for at, line in enumerate(chunk, first))
        first += len(chunk)
        yield b'{"Records":[%b],"NextShardIterator":"next","MillisBehindLatest":60000}' % text
