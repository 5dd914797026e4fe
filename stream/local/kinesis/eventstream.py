"""Framing of ``application/vnd.amazon.eventstream``: what SubscribeToShard answers with.

A message is: total length, length of the headers, CRC-32 of those eight bytes, headers, payload, CRC-32 of everything before it;
all numbers are unsigned 32-bit big-endian. A header is: length of its name (1 byte), name, type 7 (string), length of its value
(2 bytes), value.
botocore insists that the first message is an ``initial-response``.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.protocol import Reply, Wire, encode, encode_error

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_STRING: Final = 7


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message."""
    packed = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    prelude += struct.pack(">I", crc32(prelude))
    message = prelude + packed + payload
    return message + struct.pack(">I", crc32(message))


def initial_response(wire: Wire) -> bytes:
    """The first message of every stream; it carries the reply's ordinary members, of which SubscribeToShard has none."""
    return _event("initial-response", {}, wire)


def event(reply: Reply, wire: Wire) -> bytes:
    """One ``SubscribeToShardEvent``."""
    return _event("SubscribeToShardEvent", reply, wire)


def exception(error: ApiError, wire: Wire) -> bytes:
    """The message that ends a stream with an error."""
    headers = {":message-type": "exception", ":exception-type": error.code, ":content-type": wire.value}
    return frame(headers, encode_error(error, wire))


def _event(name: str, reply: Reply, wire: Wire) -> bytes:
    return frame({":message-type": "event", ":event-type": name, ":content-type": wire.value}, encode(reply, wire))


def _header(name: str, value: str) -> bytes:
    raw_name, raw_value = name.encode(), value.encode()
    return struct.pack(">B", len(raw_name)) + raw_name + struct.pack(">BH", _STRING, len(raw_value)) + raw_value
