"""Compresses texts that end in many decimal digits as zstd frames (RFC 8878), the digits with one fixed Huffman code.

In sequence numbers, all digits are equally frequent and nothing repeats, so a compressor that counts them and searches for matches takes a
multiple of the time and gains nothing. The code has four bits for each of 0 to 3, and three bits for each of 4 to 9. The compiled kernel
writes the same bytes.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from stream.native import KERNEL

LEAST: Final = 256
"""Fewer digits may take a block that is larger than they are, which is not allowed in a frame without other content."""

_MAGIC: Final = 0xFD2FB528.to_bytes(4, "little")
_SIZE_BYTES: Final = (0, 2, 4, 8)
_SINGLE_SEGMENT: Final = 1 << 5
_BLOCK: Final = 1 << 17
"""The most bytes that a block may hold."""
_RAW_BLOCK, _RUN_BLOCK, _COMPRESSED_BLOCK = 0, 1, 2
_WITH_TREE, _TREELESS, _LARGE = 2, 3, 3
"""Forms of the literals of a block: with a description of the code, with the code of the block before, and both sizes in 18 bits."""
_STREAMS: Final = 4
_SHORT_FROM, _LONG = 4, 4
"""The first digit that has the shorter code, and the bits of the longer one."""


def with_digits(head: bytes, size: int, digits: bytes | memoryview) -> bytes:
    """A frame of ``size`` bytes of content: that of ``head``, which is a frame, and then that of ``digits``, from ``blocks``."""
    start = _MAGIC + bytes([_SIZE_BYTES.index(4) << 6 | _SINGLE_SEGMENT]) + size.to_bytes(4, "little")
    return b"".join((start, _continued(head), digits))


def uncompressed(content: bytes | memoryview) -> bytes:
    """A frame of ``content``, at most 255 bytes, as it is."""
    block = (len(content) << 3 | _RAW_BLOCK << 1 | 1).to_bytes(3, "little")
    return b"".join((_MAGIC, bytes([_SINGLE_SEGMENT, len(content)]), block, content))


def blocks(text: bytes | memoryview) -> bytes | memoryview | None:
    """Blocks of a frame that hold ``text``, the last one marked as such; None unless it is at least ``LEAST`` decimal digits."""
    if KERNEL is not None:
        found: memoryview | None = KERNEL.digits(text, True)
        return found
    digits = np.frombuffer(text, np.uint8) - np.uint8(ord("0"))
    if len(digits) < LEAST or int(digits.max()) > 9:
        return None
    count = -(-len(digits) // _BLOCK)
    ends = [len(digits) * index // count for index in range(count + 1)]
    return b"".join(
        _block(digits[ends[index] : ends[index + 1]], is_first=index == 0, is_last=index + 1 == count) for index in range(count)
    )


def _continued(frame: bytes) -> bytes:
    """The blocks of ``frame``, none marked as the last. The frame must have no checksum."""
    descriptor = frame[4]
    single = bool(descriptor & _SINGLE_SEGMENT)
    begin = at = 5 + (not single) + (1 if single and not descriptor >> 6 else _SIZE_BYTES[descriptor >> 6])
    found = bytearray(frame)
    while True:
        header = int.from_bytes(frame[at : at + 3], "little")
        following = at + 3 + (1 if header >> 1 & 3 == _RUN_BLOCK else header >> 3)
        if header & 1:
            found[at] &= 0xFE
            return bytes(found[begin:following])
        at = following


def _block(digits: Any, *, is_first: bool, is_last: bool) -> bytes:
    """A block of ``digits`` (uint8, 0 to 9). Only the first one describes the code."""
    each = -(-len(digits) // _STREAMS)
    streams = [_stream(digits[number * each : (number + 1) * each]) for number in range(_STREAMS)]
    jumps = b"".join(len(stream).to_bytes(2, "little") for stream in streams[:-1])
    coded = b"".join((_tree() if is_first else b"", jumps, *streams))
    literals = (_WITH_TREE if is_first else _TREELESS) | _LARGE << 2 | len(digits) << 4 | len(coded) << 22
    body = b"".join((literals.to_bytes(5, "little"), coded, b"\0"))  # no sequences
    return b"".join(((len(body) << 3 | _COMPRESSED_BLOCK << 1 | is_last).to_bytes(3, "little"), body))


def _tree() -> bytes:
    """The description of the code: four bits for each byte below that of 9, with 1 for a code of four bits and 2 for one of three."""
    weights = [0] * ord("0") + [1 if digit < _SHORT_FROM else 2 for digit in range(9)] + [0]
    pairs = zip(weights[::2], weights[1::2], strict=False)
    return bytes([127 + len(weights) - 1, *(first << 4 | second for first, second in pairs)])


def _stream(digits: Any) -> bytes:
    """The codes of ``digits``, the last one first, because readers begin at the end of a stream; then a bit that marks the end."""
    backwards = digits[::-1]
    long = backwards < _SHORT_FROM
    codes = np.where(long, backwards, backwards - np.uint8(_SHORT_FROM // 2))
    sizes = np.where(long, _LONG, _LONG - 1)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    bits = np.zeros(int(ends[-1]) + 1, np.uint8)
    bits[-1] = 1
    for place in range(_LONG):
        within = sizes > place
        bits[starts[within] + place] = codes[within] >> place & 1
    return np.packbits(bits, bitorder="little").tobytes()
