"""KPL aggregates: one Kinesis record that holds many user records.

The format is the Kinesis Producer Library's (aggregation-format.md of awslabs/amazon-kinesis-producer): four magic bytes, a
protobuf ``AggregatedRecord``, and the MD5 of that protobuf. Anything that does not match this exactly is an ordinary record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import polars as pl

from stream import native
from stream.batch import ARRIVAL, DATA, OUTCOME, PARTITION_KEY, RAW_SCHEMA, SEQUENCE, SUBSEQUENCE, Outcome

MAGIC: Final = b"\xf3\x89\x9a\xc2"
_MAGIC_WORD: Final = int.from_bytes(MAGIC, "little")
MAX_USER_RECORDS: Final = 500_000
MAX_USER_BYTES: Final = 64 * 2**20
"""An aggregate that would expand to more bytes is left as it is: a small one may refer to one long partition key many times."""
_DIGEST: Final = 16
_HASHES: Final = 2**128
_INDEX: Final = "_index"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXPANDED: Final = pl.Schema(
    {
        _INDEX: pl.UInt32(),
        SUBSEQUENCE: pl.UInt32(),
        PARTITION_KEY: pl.String(),
        DATA: pl.Binary(),
        OUTCOME: pl.UInt8(),
    }
)


class OutOfRange(StrEnum):
    """What to do with a user record whose hash key is outside the shard that delivered it.

    ``DROP``: after a reshard the KPL sends such records again, to the right shard, so keeping them would duplicate them. ``KEEP``: for
    producers that aggregate in another way and may not send them again.
    """

    DROP = "drop"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class HashRange:
    """A shard's hash keys, inclusive on both ends, and what to do with others."""

    first: int = 0
    last: int = _HASHES - 1
    policy: OutOfRange = OutOfRange.DROP

    def outcome(self, partition_key: str, explicit_hash: int | None) -> Outcome:
        """``PENDING`` for a user record to process, ``OUT_OF_RANGE`` for one to leave out."""
        if self.policy is OutOfRange.KEEP or (explicit_hash is None and self.first == 0 and self.last == _HASHES - 1):
            return Outcome.PENDING
        digest = hashlib.md5(partition_key.encode(), usedforsecurity=False).digest()
        position = int.from_bytes(digest) if explicit_hash is None else explicit_hash
        return Outcome.PENDING if self.first <= position <= self.last else Outcome.OUT_OF_RANGE


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One record inside an aggregate; if ``explicit_hash`` is None, the MD5 of the partition key decides."""

    partition_key: str
    explicit_hash: int | None
    data: bytes


def expand(frame: pl.DataFrame, hashes: HashRange) -> pl.DataFrame:
    """User records of a page, in order, with ``RAW_SCHEMA``.

    ``frame`` has ``_sequence``, ``_arrival``, ``_partition_key``, ``_data``, one row per Kinesis record. Each user record of an
    aggregate gets the aggregate's sequence number and arrival, and its own index in the aggregate as ``_subsequence``.
    """
    found = {index: records for index in marked(frame) if (records := user_records(frame.item(index, DATA))) is not None}
    return _interleave(frame, _columns(found, hashes)) if found else without_expanding(frame)


def marked(frame: pl.DataFrame) -> list[int]:
    """Indices of the rows whose ``_data`` begins with the magic bytes of an aggregate."""
    views, _ = native.views(frame.get_column(DATA))
    # The second 32-bit word of each view is the beginning of the payload, wherever the rest is; a short payload is padded with zeros.
    return np.flatnonzero(np.frombuffer(views, np.uint32)[1::4] == _MAGIC_WORD).tolist()


def without_expanding(frame: pl.DataFrame) -> pl.DataFrame:
    """Each row as one user record, with ``RAW_SCHEMA``."""
    rows = frame.height
    added = _ADDED if rows <= _ADDED_ROWS else _added(rows)
    # Built from series: a Polars query would cost more than the work itself.
    return pl.DataFrame([added[name].slice(0, rows) if name in added else frame.get_column(name) for name in RAW_SCHEMA])


def _added(rows: int) -> dict[str, pl.Series]:
    """The added columns of records that are not aggregates."""
    return {
        SUBSEQUENCE: pl.Series(SUBSEQUENCE, np.zeros(rows, np.uint32)),
        OUTCOME: pl.Series(OUTCOME, np.full(rows, int(Outcome.PENDING), np.uint8)),
    }


_ADDED_ROWS: Final = 10_000
"""The most records in one response."""
_ADDED: Final = _added(_ADDED_ROWS)
"""Every page uses slices of these: the values are the same for all records, and columns are immutable."""


def user_records(data: bytes) -> list[UserRecord] | None:
    """The user records of an aggregate; None if ``data`` is not a KPL aggregate, is damaged, is empty or exceeds the limits."""
    if len(data) <= len(MAGIC) + _DIGEST or not data.startswith(MAGIC):
        return None
    message = data[len(MAGIC) : -_DIGEST]
    if hashlib.md5(message, usedforsecurity=False).digest() != data[-_DIGEST:]:
        return None
    try:
        return _parse(message)
    except _Malformed:
        return None


def _columns(found: dict[int, list[UserRecord]], hashes: HashRange) -> pl.DataFrame:
    pairs = list(found.items())
    flat = [record for _, records in pairs for record in records]
    return pl.DataFrame(
        {
            _INDEX: [index for index, records in pairs for _ in records],
            SUBSEQUENCE: [number for _, records in pairs for number in range(len(records))],
            PARTITION_KEY: [record.partition_key for record in flat],
            DATA: [record.data for record in flat],
            OUTCOME: [int(hashes.outcome(record.partition_key, record.explicit_hash)) for record in flat],
        },
        schema=_EXPANDED,
    )


def _interleave(frame: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
    indexed = frame.with_row_index(_INDEX)
    ordinary = indexed.filter(~pl.col(_INDEX).is_in(users.get_column(_INDEX).unique().implode())).select(
        _INDEX,
        pl.lit(0, pl.UInt32).alias(SUBSEQUENCE),
        PARTITION_KEY,
        DATA,
        pl.lit(int(Outcome.PENDING), pl.UInt8).alias(OUTCOME),
    )
    merged = pl.concat([ordinary, users]).sort(_INDEX, SUBSEQUENCE)
    origin = frame.select(SEQUENCE, ARRIVAL)[merged.get_column(_INDEX)]
    return merged.with_columns(origin.get_columns()).select(RAW_SCHEMA.names())


class _Malformed(Exception):
    """The bytes are not the message they should be."""


def _parse(message: bytes) -> list[UserRecord] | None:
    keys: list[bytes] = []
    hashes: list[bytes] = []
    records: list[bytes] = []
    tables = {1: keys, 2: hashes, 3: records}
    for field, value in _fields(message):
        if field in tables:
            if isinstance(value, int):
                raise _Malformed
            tables[field].append(value)
            if len(records) > MAX_USER_RECORDS:
                return None
    names = [_text(key) for key in keys]
    numbers = [_number(key) for key in hashes]
    made = []
    size = 0
    for record in records:
        user = _record(record, names, numbers)
        size += len(user.data) + len(user.partition_key)
        if size > MAX_USER_BYTES:
            return None
        made.append(user)
    return made or None


def _record(message: bytes, names: list[str], numbers: list[int]) -> UserRecord:
    indexes: dict[int, int] = {}
    data: bytes | None = None
    for field, value in _fields(message):
        if field == 3 and not isinstance(value, int):
            data = value
        elif field in {1, 2} and isinstance(value, int):
            indexes[field] = value
        elif field in {1, 2, 3}:
            raise _Malformed
    if data is None or 1 not in indexes:
        raise _Malformed
    if indexes[1] >= len(names) or (2 in indexes and indexes[2] >= len(numbers)):
        raise _Malformed
    return UserRecord(names[indexes[1]], numbers[indexes[2]] if 2 in indexes else None, data)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message; fixed-width fields come as their bytes."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        field, wire = tag >> 3, tag & 7
        if field == 0:
            raise _Malformed
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield field, value
            continue
        if wire == _BYTES:
            size, position = _varint(message, position)
        elif wire in {_FIXED64, _FIXED32}:
            size = 8 if wire == _FIXED64 else 4
        else:
            raise _Malformed
        if size > end - position:
            raise _Malformed
        yield field, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise _Malformed
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Malformed


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise _Malformed from error


def _number(value: bytes) -> int:
    if not (value.isdigit() and len(value) <= 39):
        raise _Malformed
    return int(value)
