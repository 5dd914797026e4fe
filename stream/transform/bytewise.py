"""Text columns as arrays of bytes, so that NumPy can process all values at once.

The functions count bytes, not characters, so their results are right for ASCII only. ``not_ascii`` finds the values for which callers need
another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

PIECE_ROWS: Final = 16_384
"""Values that are processed at a time, so that their bytes and masks stay in the processor's cache. All at once take two to three times
as long."""

_PIECE_BYTES: Final = 64 * 1024
NOT_ASCII: Final = 0x80
"""The lowest byte that is not ASCII; in a continuation byte of UTF-8, this bit is set and the next one is not."""


def flat(text: pl.Series) -> tuple[Array, Array]:
    """The offset at which each value begins (and the last ends), and the bytes of all values. A null has no bytes."""
    array = text.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    if not len(array) or data is None:
        return np.zeros(len(array) + 1, np.int64), np.empty(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    first, last = int(bounds[0]), int(bounds[-1])
    return bounds - first, np.frombuffer(data, np.uint8)[first:last]


def pieces(text: pl.Series) -> Iterator[tuple[slice, Array, Array]]:
    """``flat`` for some values at a time: the slice of ``text``, and the offsets and bytes of its values."""
    bounds, codes = flat(text)
    for low in range(0, len(text), PIECE_ROWS):
        part = bounds[low : low + PIECE_ROWS + 1]
        yield slice(low, low + len(part) - 1), part - part[0], codes[part[0] : part[-1]]


def any_of(codes: Array, *tests: Callable[[Array], Array]) -> list[bool]:
    """For each of ``tests``, whether any byte passes; done in small parts, since arrays as large as ``codes`` cost more than the tests."""
    found = [False] * len(tests)
    for at in range(0, len(codes), _PIECE_BYTES):
        part = codes[at : at + _PIECE_BYTES]
        for number, test in enumerate(tests):
            found[number] = found[number] or bool(test(part).any())
    return found


def rows_of(places: Array, bounds: Array) -> Array:
    """The index of the value to which each of the byte offsets ``places`` belongs."""
    return np.searchsorted(bounds, places, side="right") - 1


def not_ascii(codes: Array, bounds: Array) -> Array:
    """Indexes of the values with a byte that is not ASCII, ascending and distinct."""
    found = np.flatnonzero(codes >= NOT_ASCII)
    return np.unique(rows_of(found, bounds)) if len(found) else found


def text_of(codes: Array, bounds: Array) -> pl.Series:
    """Texts made of the bytes ``codes``, which must be UTF-8, split at ``bounds``."""
    made = pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds.astype(np.int64, copy=False)), pa.py_buffer(codes))
    return pl.Series(made)


def texts(like: pl.Series, codes: list[Array]) -> pl.Series:
    """A column made of the bytes ``codes``, whose values have the same lengths as those of ``like``, and are null where those are."""
    done = text_of(np.concatenate(codes) if codes else np.empty(0, np.uint8), flat(like)[0]).alias(like.name)
    if not like.null_count():
        return done
    return pl.select(pl.when(like.is_not_null()).then(done).alias(like.name)).to_series()
