"""Decompresses records, with a limit on the output: a few bytes can stand for gigabytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Final

import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from stream.batch import DATA, ROW
from stream.transform.shorthands import text_for
from stream.transform.stage import Applied, BoundStage
from stream.transform.windows import joined

BAD_COMPRESSION: Final = "bad_compression"
TOO_LARGE: Final = "decompressed_too_large"

_GZIP: Final = zlib.MAX_WBITS | 16
_ZSTD: Final = pa.Codec("zstd")
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_HEADER: Final = 18
"""Bytes of the longest header; for a shorter frame the fast path is not worth it."""
_FED: Final = 16 * 1024
"""Bytes given to zlib at a time. zlib copies everything after the end of a member, so giving it all at once would take quadratic time for
many small members."""
_MOST: Final = 2**62
"""An upper bound for any limit: no output can be larger."""
_FIRST_ASKED: Final = 256 * 1024
"""Output bytes requested at first, doubled each time: each request allocates its full size, however little comes."""
_HELD: Final = 32 * 1024 * 1024
"""Decompressed bytes that are decoded at a time; a unit may have many times as many, and is never held decompressed as a whole."""


class Codec(StrEnum):
    """How records are compressed."""

    GZIP = "gzip"
    ZSTD = "zstd"
    SNAPPY = "snappy"
    NONE = "none"


class Compression(BaseModel):
    """How each record is compressed, and how much may come out of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: Codec = Field(description="`gzip`, `zstd`, `snappy` (the raw block format, not the framed one) or `none`.")
    max_bytes: int = Field(default=64 * 1024 * 1024, ge=1, description="Bytes that one record may become; more is a dead letter.")
    max_ratio: int = Field(default=1000, ge=1, description="How many times its own size one record may become; more is a dead letter.")

    _short_form = text_for("codec")


class _TooLargeError(Exception):
    """More would come out than is allowed."""


def _gunzip(data: bytes, limit: int) -> bytes:
    """The content of all members; RFC 1952 allows several."""
    parts: list[bytes] = []
    left, at, rest = limit, 0, b""
    member = None
    while rest or at < len(data) or member is None:
        if member is None or member.eof:
            member = zlib.decompressobj(_GZIP)
        if not rest:
            rest, at = data[at : at + _FED], at + _FED
        part = member.decompress(rest, left + 1)
        left -= len(part)
        if left < 0:
            raise _TooLargeError
        parts.append(part)
        rest = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        msg = "the stream ends before its end mark"
        raise zlib.error(msg)
    return b"".join(parts)


def _unzstd(data: bytes, limit: int) -> bytes:
    size = _zstd_size(data)
    if size and size <= limit:
        try:
            whole: bytes = _ZSTD.decompress(data, decompressed_size=size, asbytes=True)
        except OSError:
            pass  # several frames, or a damaged one; reading it as a stream will tell
        else:
            return whole
    parts: list[bytes] = []
    left, asked = limit, _FIRST_ASKED
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        if not data:
            msg = "an empty record is no zstd frame"
            raise OSError(msg)
        while part := stream.read(min(left + 1, asked)):
            left -= len(part)
            if left < 0:
                raise _TooLargeError
            parts.append(part)
            asked *= 2
    return b"".join(parts)


def _zstd_size(data: bytes) -> int:
    """The content size in the header of the first frame (RFC 8878, section 3.1.1); 0 if the header has none."""
    if data[:4] != _ZSTD_MAGIC or len(data) < _ZSTD_HEADER:
        return 0
    flags = data[4]
    width = (flags >> 5 & 1, 2, 4, 8)[flags >> 6]
    begin = 5 + (not flags >> 5 & 1) + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(data[begin : begin + width], "little") + (256 if width == 2 else 0)


def _unsnap(data: bytes, limit: int) -> bytes:
    """One raw block: the size as a varint of at most 5 bytes, then the elements."""
    size = 0
    for at, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:
            break
    else:
        msg = "the size in front cannot be read"
        raise OSError(msg)
    if size > limit:
        raise _TooLargeError
    plain: bytes = pa.decompress(data, decompressed_size=size, codec="snappy", asbytes=True)
    return plain


_READERS: Final[Mapping[Codec, Callable[[bytes, int], bytes]]] = {Codec.GZIP: _gunzip, Codec.ZSTD: _unzstd, Codec.SNAPPY: _unsnap}


def decompress(data: bytes, compression: Compression) -> bytes | str:
    """The decompressed bytes as bytes, or as a text the reason why there are none: ``bad_compression`` or ``decompressed_too_large``."""
    if compression.codec is Codec.NONE:
        return data
    limit = min(compression.max_bytes, compression.max_ratio * len(data), _MOST)
    try:
        return _READERS[compression.codec](data, limit)
    except _TooLargeError:
        return TOO_LARGE
    except (zlib.error, OSError, pa.ArrowInvalid, EOFError):
        return BAD_COMPRESSION


def decompressing(compression: Compression, inner: BoundStage) -> BoundStage:
    """``inner`` over decompressed records; those that cannot be decompressed are rejected."""

    def apply(frame: pl.DataFrame) -> Applied:
        bad: dict[int, str] = {}
        applied = joined(inner(part) for part in _readable(frame, compression, bad))
        if not bad:
            return applied
        refused = pl.DataFrame({ROW: frame[ROW][list(bad)], "reason": list(bad.values())}, schema={ROW: pl.UInt32(), "reason": pl.String()})
        rejects = refused if applied.rejects is None else pl.concat([refused, applied.rejects]).sort(ROW, maintain_order=True)
        return Applied(applied.frame, rejects)

    return apply


def _readable(frame: pl.DataFrame, compression: Compression, bad: dict[int, str]) -> Iterator[pl.DataFrame]:
    """The decompressed records, in parts of bounded size; adds the reasons of those that fail to ``bad``, by index."""
    good: list[int] = []
    plain: list[bytes] = []
    held = 0
    for at, record in enumerate(frame[DATA].to_list()):
        data = decompress(record, compression)
        if isinstance(data, str):
            bad[at] = data
            continue
        if good and held + len(data) > _HELD:
            yield frame[good].with_columns(pl.Series(DATA, plain, pl.Binary()))
            good, plain, held = [], [], 0
        good.append(at)
        plain.append(data)
        held += len(data)
    yield frame[good].with_columns(pl.Series(DATA, plain, pl.Binary()))
