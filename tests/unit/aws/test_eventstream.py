"""Messages as the emulator frames them, and as damage leaves them."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from stream.aws.eventstream import PRELUDE_BYTES, BrokenMessage, Message, message_bytes, parse_message
from stream.local.kinesis.eventstream import frame

texts = st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=40), max_size=5)


def parse(raw: bytes) -> Message:
    prelude = raw[:PRELUDE_BYTES]
    size = message_bytes(prelude)
    assert size == len(raw) - PRELUDE_BYTES
    return parse_message(prelude, raw[PRELUDE_BYTES:])


@given(texts, st.binary(max_size=300))
def test_a_message_is_read_as_botocore_reads_it(headers, payload):
    raw = frame(headers, payload)
    message = parse(raw)
    assert (message.headers, message.payload) == (headers, payload)
    buffer = EventStreamBuffer()
    buffer.add_data(raw)
    theirs = next(iter(buffer))
    assert (theirs.headers, theirs.payload) == (headers, payload)


@given(texts, st.binary(max_size=100), st.data())
def test_a_flipped_bit_is_detected(headers, payload, data):
    raw = bytearray(frame(headers, payload))
    at = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[at // 8] ^= 1 << at % 8
    with pytest.raises(BrokenMessage):
        parse(bytes(raw))


def framed(headers: bytes, payload: bytes = b"") -> bytes:
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack(">I", crc32(prelude))
    body = prelude + headers + payload
    return body + struct.pack(">I", crc32(body))


def test_headers_of_every_type_are_skipped():
    fixed = [(0, b""), (1, b""), (2, b"x"), (3, b"xx"), (4, b"x" * 4), (5, b"x" * 8), (8, b"x" * 8), (9, b"x" * 16), (6, b"\0\2xx")]
    packed = b"".join(bytes([1]) + b"h" + bytes([kind]) + value for kind, value in fixed)
    message = parse(framed(packed + b"\x01t\x07\0\x02ok", b"payload"))
    assert message == Message({"t": "ok"}, b"payload")


@pytest.mark.parametrize(
    "headers", [b"\x01h\x0a", b"\x01h\x07\0\x09short", b"\x01h\x07\0", b"\x09h", b"\x01\xff\x00", b"\x01h\x07\0\x01\xff", b"\x01h\x04xx"]
)
def test_impossible_headers_are_refused(headers):
    with pytest.raises(BrokenMessage):
        parse(framed(headers))


@pytest.mark.parametrize(("total", "headers"), [(15, 0), (2**31, 0), (20, 10), (0, 0)])
def test_impossible_lengths_are_refused(total, headers):
    prelude = struct.pack(">II", total, headers)
    with pytest.raises(BrokenMessage, match="cannot have"):
        message_bytes(prelude + struct.pack(">I", crc32(prelude)))
