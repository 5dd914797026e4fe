"""Masks the values of text columns: the implementation of the stage ``mask``."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from stream.native import KERNEL
from stream.transform import bytewise, compiled
from stream.transform.values import repeats

MaskColumn = Callable[[pl.Series], pl.Series]

_HIDDEN: Final = r"[^\s\p{P}]"
"""The characters that ``keep_last`` replaces. Blanks and punctuation stay, because they show the format."""

_SURROGATES: Final = range(0xD800, 0xE000)
"""Code points that are not characters."""
_WIDE: Final = "utf-32-le"
_STAR: Final = np.uint8(ord("*"))

_BLOCK: Final = 64
"""Bytes in a block of SHA-256."""
_INNER: Final = bytes(code ^ 0x36 for code in range(256))
_OUTER: Final = bytes(code ^ 0x5C for code in range(256))
_DIGEST: Final = 32


def keyed_hash(secret: bytes, length: int, kernel: Any = KERNEL) -> MaskColumn:
    """The first ``length`` hex digits of HMAC-SHA256 under ``secret``; null stays null."""
    # As in RFC 2104.
    block = (hashlib.sha256(secret).digest() if len(secret) > _BLOCK else secret).ljust(_BLOCK, b"\0")

    def mask(column: pl.Series) -> pl.Series:
        quick = compiled.keyed_hash(kernel, column, block, length) if kernel is not None else None
        return _hashed(column, block, length) if quick is None else quick

    return mask


def _hashed(column: pl.Series, block: bytes, length: int) -> pl.Series:
    """The hash of each value. If many values repeat, each distinct value is hashed once."""
    values = column.cast(pl.Binary)
    if not repeats(values):
        return _digests(values.drop_nulls(), block, length, values.is_not_null()).alias(column.name)
    encoded = values.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    distinct = pl.Series(encoded.dictionary)
    return _digests(distinct, block, length, None).gather(pl.Series(encoded.indices)).alias(column.name)


def _digests(values: pl.Series, block: bytes, length: int, present: pl.Series | None) -> pl.Series:
    """The HMAC of each value.

    The key is hashed only once, and its two states are copied for each value: a third of the time of ``hmac``.
    """
    inner, outer = hashlib.sha256(block.translate(_INNER)).copy, hashlib.sha256(block.translate(_OUTER)).copy
    done = []
    for value in values.to_list():
        within = inner()
        within.update(value)
        around = outer()
        around.update(within.digest())
        done.append(around.digest())
    found = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_DIGEST), len(done), [None, pa.py_buffer(b"".join(done))])
    digests = pl.Series(found).cast(pl.Binary).bin.encode("hex").str.head(length)
    if present is None or present.all():
        return digests
    return pl.repeat(None, len(present), dtype=pl.String, eager=True).scatter(present.arg_true(), digests)


def keep_last(keep: int, kernel: Any = KERNEL) -> MaskColumn:
    """Replace all but the last ``keep`` characters with stars, or all if there are no more than ``keep``; blanks and punctuation stay."""

    def mask(column: pl.Series) -> pl.Series:
        quick = compiled.keep_last(kernel, column, keep, _hidden()) if kernel is not None else None
        return _starred(column, keep) if quick is None else quick

    return mask


def _starred(column: pl.Series, keep: int) -> pl.Series:
    codes, odd = [], []
    for rows, bounds, piece in bytewise.pieces(column):
        stars = _stars(_hidden_ascii().take(piece, mode="clip"), bounds, keep)
        odd.append(bytewise.not_ascii(piece, bounds) + rows.start)
        # Values that are not ASCII are replaced below, but must be valid text here too.
        codes.append(np.where(stars | (piece >= bytewise.NOT_ASCII), _STAR, piece))
    done = bytewise.texts(column, codes)
    left = pl.Series(np.concatenate(odd)) if odd else pl.Series([], dtype=pl.Int64)
    return done.scatter(left, _by_characters(column.gather(left), keep)) if len(left) else done


def _stars(hidden: bytewise.Array, bounds: bytewise.Array, keep: int) -> bytewise.Array:
    """Which of the ``hidden`` characters become stars; ``bounds`` are the offsets of the values."""
    so_far = np.cumsum(hidden, dtype=np.int32)
    at_end = np.concatenate((np.zeros(1, np.int32), so_far))[bounds]
    # A character becomes a star if at least `keep` hidden ones of its value follow it, or if the value has no more than `keep` of them.
    last = np.where(np.diff(at_end) > keep, at_end[1:] - keep, at_end[1:])
    return hidden & (so_far <= np.repeat(last, np.diff(bounds)))


def _by_characters(column: pl.Series, keep: int) -> pl.Series:
    parts = []
    for _, bounds, piece in bytewise.pieces(column):
        characters = np.frombuffer(piece.tobytes().decode().encode(_WIDE), np.uint32)
        begins = np.concatenate((np.zeros(1, np.int64), np.cumsum((piece & 0xC0) != bytewise.NOT_ASCII)))[bounds]
        starred = np.where(_stars(_hidden().take(characters), begins, keep), np.uint32(_STAR), characters)
        widths = 1 + (starred >= 0x80) + (starred >= 0x800) + (starred >= 0x10000)
        ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(widths)))[begins]
        parts.append(bytewise.text_of(np.frombuffer(starred.tobytes().decode(_WIDE).encode(), np.uint8), ends))
    return pl.concat(parts)


@cache
def _hidden() -> bytewise.Array:
    """A mask by code point of the characters that ``keep_last`` hides."""
    every = [chr(code) if code not in _SURROGATES else " " for code in range(sys.maxunicode + 1)]
    return pl.Series(every).str.contains(_HIDDEN).to_numpy().copy()


@cache
def _hidden_ascii() -> bytewise.Array:
    return _hidden()[: bytewise.NOT_ASCII].copy()
