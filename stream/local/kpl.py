"""What the Kinesis Producer Library puts on the wire: many user records in one Kinesis record.

``F3 89 9A C2``, then a protobuf message, then the MD5 digest of that message:

    AggregatedRecord { repeated string partition_key_table = 1; repeated string explicit_hash_key_table = 2;
                       repeated Record records = 3; }
    Record { uint64 partition_key_index = 1; optional uint64 explicit_hash_key_index = 2; bytes data = 3; }
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

MAGIC: Final = b"\xf3\x89\x9a\xc2"

_KEY_TABLE: Final = b"\x0a"
_HASH_KEY_TABLE: Final = b"\x12"
_RECORD: Final = b"\x1a"
_KEY_INDEX: Final = b"\x08"
_HASH_KEY_INDEX: Final = b"\x10"
_DATA: Final = b"\x1a"


class UserRecord(NamedTuple):
    """One record as the application puts it; ``explicit_hash_key`` is a decimal number in 0..2^128-1 or None."""

    partition_key: str
    explicit_hash_key: str | None
    data: bytes


def aggregate(records: Sequence[UserRecord]) -> bytes:
    """The data of one Kinesis record that holds ``records`` in their order; equal keys are written once.

    Raises:
        ValueError: no records.
    """
    if not records:
        message = "an aggregate holds at least one user record, got none"
        raise ValueError(message)
    keys: dict[str, int] = {}
    hash_keys: dict[str, int] = {}
    body: list[bytes] = []
    for key, hash_key, data in records:
        head = _KEY_INDEX + varint(keys.setdefault(key, len(keys)))
        if hash_key is not None:
            head += _HASH_KEY_INDEX + varint(hash_keys.setdefault(hash_key, len(hash_keys)))
        head += _DATA + varint(len(data))
        body += (_RECORD, varint(len(head) + len(data)), head, data)
    tables = [_string(_KEY_TABLE, key) for key in keys] + [_string(_HASH_KEY_TABLE, key) for key in hash_keys]
    payload = b"".join([*tables, *body])
    return MAGIC + payload + hashlib.md5(payload, usedforsecurity=False).digest()


def varint(value: int) -> bytes:
    """``value`` (not negative) in protobuf's base 128, low digits first."""
    if value < 0x80:
        return value.to_bytes(1)
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _string(tag: bytes, text: str) -> bytes:
    raw = text.encode()
    return tag + varint(len(raw)) + raw
