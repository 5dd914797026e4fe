"""Reads and checks messages of ``application/vnd.amazon.eventstream``, with which SubscribeToShard responds.

A message is its total length, the length of its headers, the CRC-32 of those eight bytes, headers, payload, and the CRC-32 of
everything before; numbers are big-endian. (https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html#streaming-event-stream)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final
from zlib import crc32

PRELUDE_BYTES: Final = 12
_TRAILER_BYTES: Final = 4
MAX_MESSAGE_BYTES: Final = 32 * 2**20
"""More than a record of 10 MiB, or a batch of them, takes in base64; a greater length is damage."""
_FIXED: Final = {2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of header values by type; 0 and 1 are true and false without a value, 6 and 7 carry a length."""
_TEXT: Final = 7


class BrokenMessage(ValueError):
    """The bytes are not a message: damaged in transit, or something else."""


@dataclass(frozen=True, slots=True)
class Message:
    """``headers`` has those with text values; the others are not needed."""

    headers: dict[str, str]
    payload: bytes


def message_bytes(prelude: bytes) -> int:
    """The number of bytes that follow the ``PRELUDE_BYTES`` bytes of ``prelude``.

    Raises:
        BrokenMessage: the prelude's checksum is wrong or its lengths are impossible.
    """
    total, headers, checksum = struct.unpack(">III", prelude)
    if crc32(prelude[:8]) != checksum:
        msg = f"the lengths {total} and {headers} of a message do not fit their checksum"
        raise BrokenMessage(msg)
    if not PRELUDE_BYTES + _TRAILER_BYTES + headers <= total <= MAX_MESSAGE_BYTES:
        msg = f"a message of {total} bytes cannot have headers of {headers} bytes, or is larger than {MAX_MESSAGE_BYTES}"
        raise BrokenMessage(msg)
    return int(total) - PRELUDE_BYTES


def parse_message(prelude: bytes, rest: bytes) -> Message:
    """The message that begins with ``prelude``, whose ``message_bytes`` are ``rest``.

    Raises:
        BrokenMessage: a checksum is wrong, or headers are not as they should be.
    """
    body, (checksum,) = rest[:-_TRAILER_BYTES], struct.unpack(">I", rest[-_TRAILER_BYTES:])
    if crc32(body, crc32(prelude)) != checksum:
        msg = f"a message of {len(prelude) + len(rest)} bytes does not fit its checksum"
        raise BrokenMessage(msg)
    size = struct.unpack(">I", prelude[4:8])[0]
    try:
        return Message(_headers(body[:size]), body[size:])
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        msg = f"the headers of a message are not as they should be: {error}"
        raise BrokenMessage(msg) from error


def _headers(packed: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(packed):
        size = packed[at]
        name = packed[at + 1 : at + 1 + size].decode()
        kind = packed[at + 1 + size]
        at += size + 2
        length = _FIXED.get(kind, 0)
        if kind in {6, _TEXT}:
            length = struct.unpack(">H", packed[at : at + 2])[0]
            at += 2
        elif kind > 9:
            msg = f"header {name!r} has the unknown type {kind}"
            raise BrokenMessage(msg)
        if at + length > len(packed):
            msg = f"header {name!r} ends beyond the headers"
            raise BrokenMessage(msg)
        if kind == _TEXT:
            found[name] = packed[at : at + length].decode()
        at += length
    return found
