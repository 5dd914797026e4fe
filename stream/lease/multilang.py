"""Messages between the KCL's MultiLangDaemon and the process that it starts for each shard: one JSON object per line.

The daemon sends a message and waits for a status message in reply; only while it waits does it accept requests for checkpoints.
(KCL 2.x and 3.x, ``software.amazon.kinesis.multilang.messages``.)
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
import polars as pl

from stream.batch import ARRIVAL, DATA, OUTCOME, PARTITION_KEY, RAW_SCHEMA, SEQUENCE, SUBSEQUENCE, Batch, Outcome
from stream.errors import Fatal


class Record(msgspec.Struct, gc=False):
    """A user record; the KCL has already opened KPL aggregates. Arrival in milliseconds since 1970."""

    sequenceNumber: str  # noqa: N815 - the protocol's names
    data: bytes
    partitionKey: str | None = None  # noqa: N815
    subSequenceNumber: int | None = None  # noqa: N815
    approximateArrivalTimestamp: int | None = None  # noqa: N815


class Initialize(msgspec.Struct, tag_field="action", tag="initialize"):
    """The first message: which shard, and the lease's checkpoint (a number or a word like TRIM_HORIZON)."""

    shardId: str  # noqa: N815
    sequenceNumber: str | None = None  # noqa: N815
    subSequenceNumber: int | None = None  # noqa: N815


class ProcessRecords(msgspec.Struct, tag_field="action", tag="processRecords"):
    """The next records, possibly none."""

    records: list[Record]
    millisBehindLatest: int | None = None  # noqa: N815


class LeaseLost(msgspec.Struct, tag_field="action", tag="leaseLost"):
    """Another worker has the shard; checkpoints are no longer accepted."""


class ShardEnded(msgspec.Struct, tag_field="action", tag="shardEnded"):
    """All records have been delivered; the daemon requires a checkpoint before the reply."""


class ShutdownRequested(msgspec.Struct, tag_field="action", tag="shutdownRequested"):
    """The daemon ends soon: the last chance for a checkpoint."""


class Shutdown(msgspec.Struct, tag_field="action", tag="shutdown"):
    """KCL 1.x's form of ``leaseLost`` (ZOMBIE) and ``shardEnded`` (TERMINATE)."""

    reason: str = "ZOMBIE"


class CheckpointDone(msgspec.Struct, tag_field="action", tag="checkpoint"):
    """The answer to a request for a checkpoint; ``error`` is the simple name of a Java exception, or None."""

    error: str | None = None


Message: TypeAlias = Initialize | ProcessRecords | LeaseLost | ShardEnded | ShutdownRequested | Shutdown | CheckpointDone

_DECODER: Final = msgspec.json.Decoder(Message)
_NAMES: Final = {
    Initialize: "initialize",
    ProcessRecords: "processRecords",
    LeaseLost: "leaseLost",
    ShardEnded: "shardEnded",
    ShutdownRequested: "shutdownRequested",
    Shutdown: "shutdown",
}


def parse(line: bytes) -> Message:
    """The message of one line.

    Raises:
        Fatal: it is not a known message, and continuing would lose it.
    """
    try:
        message: Message = _DECODER.decode(line)
    except msgspec.DecodeError as error:
        msg = f"the MultiLangDaemon sent a line of {len(line)} bytes that is not a known message: {error}; KCL 2.x and 3.x are supported"
        raise Fatal(msg) from error
    return message


def done(message: Message) -> bytes:
    """The status line that acknowledges ``message``."""
    return _line({"action": "status", "responseFor": _NAMES[type(message)]})


def checkpoint(sequence: str | None, subsequence: int | None) -> bytes:
    """The line that asks for a checkpoint; None and None mean everything delivered or, after ``shardEnded``, the end of the shard."""
    return _line({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": subsequence})


def _line(content: dict[str, object]) -> bytes:
    return b"\n" + msgspec.json.encode(content) + b"\n"


def batch_of(records: list[Record]) -> Batch:
    """``records`` as a source would deliver them."""
    frame = pl.DataFrame(
        {
            SEQUENCE: [record.sequenceNumber for record in records],
            SUBSEQUENCE: [record.subSequenceNumber or 0 for record in records],
            ARRIVAL: pl.Series([record.approximateArrivalTimestamp or 0 for record in records], dtype=pl.Int64),
            PARTITION_KEY: [record.partitionKey or "" for record in records],
            DATA: [record.data for record in records],
            OUTCOME: [int(Outcome.PENDING)] * len(records),
        },
        schema_overrides={key: kind for key, kind in RAW_SCHEMA.items() if key != ARRIVAL},
    )
    return Batch(frame.cast({ARRIVAL: RAW_SCHEMA[ARRIVAL]}), sum(len(record.data) for record in records))
