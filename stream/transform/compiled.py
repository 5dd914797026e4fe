"""Text columns by the compiled kernel: what stages do to each value, where the kernel is there and vouches for it.

Each function takes the kernel, and gives None, or says of which rows, where the ordinary way has to be asked; that way gives the same
values, only more slowly. All of them take columns with nulls, in any number of chunks, or cut out of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

from stream import native
from stream.transform.bytewise import Array

Kernel: TypeAlias = Any
"""The module of compiled functions; ``stream.native.KERNEL`` where it is not None."""

PARTS: Final = ("scheme", "user", "host", "port", "path", "query", "fragment")
"""Parts of a URL, in the kernel's order."""


def _given(column: pl.Series) -> tuple[pa.Buffer, tuple[pa.Buffer, ...]]:
    """Views of ``column``, which are of nothing where it is null."""
    return native.views(column.fill_null("") if column.null_count() else column)


def _texts(like: pl.Series, views: Any, *buffers: Any) -> pl.Series:
    """Views that the kernel made, with the name of ``like`` and null where that is."""
    done = native.series(like.name, native.array(pa.string_view(), len(like), None, views, *buffers))
    return done if not like.null_count() else pl.select(pl.when(like.is_not_null()).then(done).alias(like.name)).to_series()


def keyed_hash(kernel: Kernel, column: pl.Series, block: bytes, length: int, *, quick: bool = True) -> pl.Series | None:
    """The first ``length`` hex digits of HMAC-SHA256 of each text, under the key that is ``block`` when filled up to 64 bytes.

    ``quick``: with the processor's own instructions, if it has them.
    """
    made = kernel.keyed_hash(*_given(column), block, length, quick)
    return None if made is None else _texts(column, *made)


def keep_last(kernel: Kernel, column: pl.Series, keep: int, hidden: Array) -> pl.Series | None:
    """Stars in place of characters that are ``hidden``, by code point, but for the last ``keep`` of each text."""
    made = kernel.keep_last(*_given(column), keep, hidden)
    return None if made is None else _texts(column, *made)


def cut(
    kernel: Kernel, column: pl.Series, chosen: pl.Series | None, skip: int, fields: Sequence[tuple[int, int, bool]]
) -> list[pl.Series] | None:
    """The kept ones of ``fields`` of each text, without a copy, null where ``chosen`` is not true; ``chosen`` is None where all are.

    A field is what separates it from the next, an ASCII character or -1 for the end of the text, how many bytes lie between the two, and
    whether it is kept. ``skip`` bytes come before the first. None where a chosen text does not have all separators.
    """
    views, buffers = _given(column)
    mask = None if chosen is None else chosen.to_numpy()
    made = kernel.cut(views, buffers, mask, skip, tuple(fields))
    if made is None:
        return None
    texts = [native.series("", native.array(pa.string_view(), len(column), None, each, *buffers)) for each in made]
    return texts if chosen is None else [pl.select(pl.when(chosen).then(each)).to_series() for each in texts]


def urls(kernel: Kernel, column: pl.Series, parts: Sequence[str]) -> tuple[pl.DataFrame, pl.Series | None]:
    """``parts`` of each URL, and the rows that have to go the ordinary way, all of them null; None where there are none."""
    views, buffers = _given(column)
    bad, side, wrong, columns = kernel.urls(views, buffers, bytes(part in parts for part in PARTS))
    made = {}
    for part, (nulls, column_made) in zip(PARTS, columns, strict=True):
        if column_made is not None:
            validity, values = column_made
            kind, more = (pa.uint16(), ()) if part == "port" else (pa.string_view(), (*buffers, side))
            made[part] = native.series(part, native.array(kind, len(column), validity, values, *more, nulls=nulls))
    left = (pl.Series(np.frombuffer(bad, np.bool_)) & column.is_not_null()).arg_true() if wrong else None
    return pl.DataFrame([made[part] for part in parts]), left if left is not None and len(left) else None


def addresses(kernel: Kernel, column: pl.Series, ranges: Array) -> tuple[Array, Array, pl.Series] | None:
    """Version, 0 where an address has to go the ordinary way, number of its kind, and network, of each text.

    ``ranges`` has six numbers for each: first and last address, in halves, version and kind; of two that hold an address the first counts.
    """
    made = kernel.addresses(*_given(column), ranges)
    if made is None:
        return None
    (versions, kinds), (views, data) = made
    networks = native.series("", native.array(pa.string_view(), len(column), None, views, data))
    return np.frombuffer(versions, np.int8), np.frombuffer(kinds, np.uint8), networks
