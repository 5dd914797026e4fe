"""Text columns as the bytes they are, for work that NumPy does on all values at once.

Everything here goes by bytes, so it is right for ASCII alone; ``odd`` says which values have anything else, and those are for
another way that knows characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

PIECE_ROWS: Final = 16_384
"""Values that are looked at in one go: their bytes and the marks on them stay in the processor's cache. With all at once the same
work takes two to three times as long."""

_PIECE_BYTES: Final = 64 * 1024
NOT_ASCII: Final = 0x80
"""Where the bytes begin that are not ASCII; with the next bit off, one that goes on with a character."""


def flat(text: pl.Series) -> tuple[Array, Array]:
    """Where each value begins among the bytes (and the last ends), and the bytes of all. A null has none."""
    array = text.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    if not len(array) or data is None:
        return np.zeros(len(array) + 1, np.int64), np.empty(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    first, last = int(bounds[0]), int(bounds[-1])
    return bounds - first, np.frombuffer(data, np.uint8)[first:last]


def pieces(text: pl.Series) -> Iterator[tuple[slice, Array, Array]]:
    """``flat`` in parts: which values these are, and bounds and bytes of them alone."""
    bounds, codes = flat(text)
    for low in range(0, len(text), PIECE_ROWS):
        part = bounds[low : low + PIECE_ROWS + 1]
        yield slice(low, low + len(part) - 1), part - part[0], codes[part[0] : part[-1]]


def any_of(codes: Array, *tests: Callable[[Array], Array]) -> list[bool]:
    """For each of ``tests``, whether any byte passes; looked at in small parts, since arrays as large as ``codes`` cost more than that."""
    found = [False] * len(tests)
    for at in range(0, len(codes), _PIECE_BYTES):
        part = codes[at : at + _PIECE_BYTES]
        for number, test in enumerate(tests):
            found[number] = found[number] or bool(test(part).any())
    return found


def rows_of(places: Array, bounds: Array) -> Array:
    """Which value each of ``places`` among the bytes belongs to."""
    return np.searchsorted(bounds, places, side="right") - 1


def not_ascii(codes: Array, bounds: Array) -> Array:
    """The values, by their numbers, that have a byte which is not ASCII; ascending, and none named twice."""
    found = np.flatnonzero(codes >= NOT_ASCII)
    return np.unique(rows_of(found, bounds)) if len(found) else found


def text_of(codes: Array, bounds: Array) -> pl.Series:
    """Texts out of their bytes, which must be UTF-8, each from its bound to the next."""
    made = pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds.astype(np.int64, copy=False)), pa.py_buffer(codes))
    return pl.Series(made)


def texts(like: pl.Series, codes: list[Array]) -> pl.Series:
    """``codes``, as many bytes as ``like`` has, as texts of the same lengths, null where ``like`` is."""
    done = text_of(np.concatenate(codes) if codes else np.empty(0, np.uint8), flat(like)[0]).alias(like.name)
    if not like.null_count():
        return done
    return pl.select(pl.when(like.is_not_null()).then(done).alias(like.name)).to_series()
