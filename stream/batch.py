"""Records in memory, and the vocabulary for their place in a shard.

A *batch* is rows in memory. A *range* is a contiguous stretch ``(after, last]`` of one shard's sequence numbers. A *unit* is what
commits together: the records of one range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final

import numpy as np
import polars as pl

from stream.rows import contiguous

SHARD: Final = "_shard"
SEQUENCE: Final = "_sequence"
SUBSEQUENCE: Final = "_subsequence"
ARRIVAL: Final = "_arrival"
PARTITION_KEY: Final = "_partition_key"
DATA: Final = "_data"
ROW: Final = "_row"
OUTCOME: Final = "_outcome"

LINEAGE: Final = (SHARD, SEQUENCE, SUBSEQUENCE, ARRIVAL)
"""Columns that say where a row came from. Every stage carries them along; no stage may write them."""

ATTEMPT: Final = "_attempt"

RAW_SCHEMA: Final = pl.Schema(
    {
        SEQUENCE: pl.String(),
        SUBSEQUENCE: pl.UInt32(),
        ARRIVAL: pl.Datetime("ms", "UTC"),
        PARTITION_KEY: pl.String(),
        DATA: pl.Binary(),
        OUTCOME: pl.UInt8(),
    }
)
"""What a source delivers, one row per user record. ``_sequence`` is the decimal text the service sent. ``_outcome`` is
``Outcome.PENDING`` except where the source itself settled the record (a KPL user record outside the shard's hash range)."""


FIRST_READ: Final = pl.Schema({SHARD: pl.String(), SEQUENCE: pl.String(), SUBSEQUENCE: pl.UInt32(), ATTEMPT: pl.UInt16()})
"""For a record that is read again: where it was first read, and how often it has been tried."""


class Outcome(IntEnum):
    """What became of one record. Every record read ends with exactly one of these, never with ``PENDING``."""

    PENDING = 0
    WRITTEN = 1
    FILTERED = 2
    DEDUPLICATED = 3
    DEAD_LETTERED = 4
    OUT_OF_RANGE = 5
    EXPIRED_GAP = 6
    FOREIGN = 7

    @property
    def label(self) -> str:
        """Lower-case name, as written in ledgers, manifests and metric labels."""
        return self.name.lower()


ORIGIN: Final = 0
"""The position before a shard's first record. Kinesis sequence numbers are positive."""


@dataclass(frozen=True, slots=True, order=True)
class SeqRange:
    """The records of one shard with ``after < sequence number <= last``; never empty, so ``after < last`` always holds."""

    after: int
    last: int

    def __post_init__(self) -> None:
        if not ORIGIN <= self.after < self.last:
            msg = f"a range needs 0 <= after < last, got after={self.after}, last={self.last}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Batch:
    """Raw records of one shard in stream order.

    ``frame`` has exactly ``RAW_SCHEMA``; ``payload_bytes`` is the sum of the lengths of ``_data``. ``first_read`` is set for records that
    are read again from elsewhere (dead letters). It has the schema ``FIRST_READ`` and the same rows as ``frame``. ``frame`` then holds the
    records' positions in what is read now, by which the commit log counts; ``first_read`` holds the lineage that their rows keep.
    ``traced`` is False if no payload contains ``"traceparent"``, the name of a field with the producer's trace context.
    """

    frame: pl.DataFrame
    payload_bytes: int
    first_read: pl.DataFrame | None = None
    traced: bool = True

    @property
    def oldest(self) -> float | None:
        """When the first record arrived, in seconds since 1970; None without one."""
        arrived = self.frame[ARRIVAL].first()
        return arrived.timestamp() if isinstance(arrived, datetime) else None

    @property
    def rows(self) -> int:
        """Number of user records."""
        return self.frame.height

    @staticmethod
    def empty() -> Batch:
        """A batch without rows."""
        return _EMPTY

    @staticmethod
    def of(frame: pl.DataFrame, first_read: pl.DataFrame | None = None) -> Batch:
        """The batch with these rows."""
        payloads = frame.get_column(DATA).to_arrow(compat_level=pl.CompatLevel.newest())
        # The first word of a view is the length of its value. Reading it here costs less than a Polars query for the lengths.
        lengths = np.frombuffer(payloads.buffers()[1], np.uint32)[4 * payloads.offset :: 4][: len(payloads)]
        return Batch(frame, int(lengths.sum(dtype=np.int64)), first_read)

    @staticmethod
    def concat(batches: Sequence[Batch]) -> Batch:
        """The rows of ``batches``, in that order, in one contiguous frame."""
        if not batches:
            return Batch.empty()
        frame = contiguous([batch.frame for batch in batches])
        origins = [batch.first_read for batch in batches if batch.first_read is not None]
        first_read = contiguous(origins) if origins else None
        return Batch(frame, sum(batch.payload_bytes for batch in batches), first_read, any(batch.traced for batch in batches))


_EMPTY: Final = Batch(RAW_SCHEMA.to_frame(), 0)


_TYPE_NAMES: Final = {pl.String: "string", pl.Boolean: "bool", pl.Binary: "binary", pl.Date: "date"}


def type_name(kind: pl.DataType) -> str:
    """The type as the schema language names it, or as Polars does if the language has no name for it."""
    if isinstance(kind, pl.List):
        return f"list<{type_name(_instance(kind.inner))}>"
    if isinstance(kind, pl.Struct):
        return "object{" + ", ".join(f"{field.name}: {type_name(_instance(field.dtype))}" for field in kind.fields) + "}"
    if isinstance(kind, pl.Decimal):
        return f"decimal({kind.precision},{kind.scale})"
    if isinstance(kind, pl.Datetime) and kind.time_zone == "UTC":
        return "timestamp" if kind.time_unit == "us" else f"timestamp({kind.time_unit})"
    if kind.is_numeric():
        return str(kind).lower()
    return _TYPE_NAMES.get(kind.base_type(), str(kind))


def _instance(kind: object) -> pl.DataType:
    return kind if isinstance(kind, pl.DataType) else kind()  # type: ignore[operator]
