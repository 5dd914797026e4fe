"""Responses with records, as columns: those of GetRecords, and the events of SubscribeToShard.

The compiled kernel reads responses in the form that the service writes; msgspec reads all. Both give the same columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
import polars as pl

from stream import native
from stream.batch import ARRIVAL, DATA, PARTITION_KEY, SEQUENCE

RECORD_SCHEMA: Final = pl.Schema({SEQUENCE: pl.String(), ARRIVAL: pl.Datetime("ms", "UTC"), PARTITION_KEY: pl.String(), DATA: pl.Binary()})


@dataclass(frozen=True, slots=True)
class PageFacts:
    """Facts about all records of a page, collected while it was read.

    ``rising``: sequence numbers have the same length, and each is greater than the previous one. ``aggregates``: payloads that begin like
    KPL aggregates. ``payload_bytes``: the sum of the lengths of all payloads. ``traced`` is False if no payload contains
    ``"traceparent"``.
    """

    rising: bool
    aggregates: int
    payload_bytes: int
    traced: bool


@dataclass(frozen=True, slots=True)
class RawPage:
    """One GetRecords response: ``frame`` has ``RECORD_SCHEMA``, one row per Kinesis record, in order. No partition key: an empty text.

    ``next_iterator`` is None once a closed shard is read to its end; ``children`` then names the shards that continue it. ``facts`` is None
    if it was not collected.
    """

    frame: pl.DataFrame
    next_iterator: str | None
    behind_ms: int
    children: tuple[str, ...] = ()
    facts: PageFacts | None = None


class _Record(msgspec.Struct, gc=False):
    SequenceNumber: str
    Data: bytes
    ApproximateArrivalTimestamp: float
    PartitionKey: str | None = None
    """In a stream whose records the service distributes, producers need not give one."""


class _ChildShard(msgspec.Struct, gc=False):
    ShardId: str


class _Records(msgspec.Struct):
    Records: list[_Record]
    NextShardIterator: str | None = None
    MillisBehindLatest: int | None = None
    ChildShards: list[_ChildShard] | None = None


class _Event(msgspec.Struct):
    Records: list[_Record]
    ContinuationSequenceNumber: str | None = None
    MillisBehindLatest: int | None = None
    ChildShards: list[_ChildShard] | None = None


_T = TypeVar("_T")
_RECORDS: Final = msgspec.json.Decoder(_Records)
_EVENT: Final = msgspec.json.Decoder(_Event)
_NO_RECORDS: Final = RECORD_SCHEMA.to_frame()


def parse_get_records(body: bytes | memoryview, kernel: Any = native.KERNEL) -> RawPage:
    """The columns of a GetRecords response.

    Raises:
        msgspec.DecodeError: ``body`` is not such a response.
    """
    quick = _quick(body, kernel)
    answer = _decoded(_RECORDS, quick.rest)
    return _page(quick, answer.Records, answer.NextShardIterator, answer.MillisBehindLatest, answer.ChildShards)


def parse_event(body: bytes | memoryview, kernel: Any = native.KERNEL) -> RawPage:
    """The columns of a SubscribeToShardEvent; ``next_iterator`` is the sequence number after which to continue.

    Raises:
        msgspec.DecodeError: ``body`` is not such an event.
    """
    quick = _quick(body, kernel)
    event = _decoded(_EVENT, quick.rest)
    return _page(quick, event.Records, event.ContinuationSequenceNumber, event.MillisBehindLatest, event.ChildShards)


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes | memoryview) -> _T:
    try:
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Quick:
    """The response without its records, which the kernel has read, and those; or the whole response."""

    rest: bytes | memoryview
    frame: pl.DataFrame | None = None
    facts: PageFacts | None = None


def _quick(body: bytes | memoryview, kernel: Any) -> _Quick:
    read = None if kernel is None else kernel.page(body)
    if read is None:
        return _Quick(body)
    begin, end, rows, (rising, aggregates, payload_bytes, traced), sequences, keys, texts, arrivals, payloads, pieces = read
    if rows == 0:
        # Most polls return nothing, and making empty columns would be a fifth of their cost.
        return _Quick(body)
    columns = {
        SEQUENCE: native.Memory(native.Kind.TEXT, rows, None, (sequences, texts)),
        ARRIVAL: native.Memory(native.Kind.MILLISECONDS, rows, None, (arrivals,)),
        PARTITION_KEY: native.Memory(native.Kind.TEXT, rows, None, (keys, texts)),
        DATA: native.Memory(native.Kind.BINARY, rows, None, (payloads, *pieces)),
    }
    frame = native.frame([*columns], [*columns.values()])
    return _Quick(bytes(body[:begin]) + bytes(body[end:]), frame, PageFacts(bool(rising), aggregates, payload_bytes, bool(traced)))


def _page(
    quick: _Quick, records: list[_Record], following: str | None, behind_ms: int | None, child_shards: list[_ChildShard] | None
) -> RawPage:
    children = tuple(child.ShardId for child in child_shards or ())
    frame = quick.frame
    if frame is None:
        frame = _frame(records) if records else _NO_RECORDS
    if behind_ms is None:
        # Nothing says that a page with records was the last one, and a reader that stops at the tip would stop too early.
        behind_ms = int(frame.height > 0)
    return RawPage(frame, following, behind_ms, children, quick.facts)


def _frame(records: list[_Record]) -> pl.DataFrame:
    seconds = pl.Series(ARRIVAL, [record.ApproximateArrivalTimestamp for record in records], pl.Float64)
    return pl.DataFrame(
        {
            SEQUENCE: pl.Series([record.SequenceNumber for record in records], dtype=pl.String),
            ARRIVAL: (seconds * 1000).round().cast(pl.Int64).cast(pl.Datetime("ms", "UTC")),
            PARTITION_KEY: pl.Series([record.PartitionKey or "" for record in records], dtype=pl.String),
            DATA: pl.Series([record.Data for record in records], dtype=pl.Binary),
        },
        schema=RECORD_SCHEMA,
    )
