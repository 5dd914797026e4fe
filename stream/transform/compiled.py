"""Operations on text columns that the compiled kernel does for stages.

Each function has a slower counterpart in Python with the same results. A function returns None, or names some rows, if the caller has to
use that counterpart. Columns may contain nulls, have any number of chunks, and be slices of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl

from stream import native
from stream.transform.bytewise import Array

Kernel: TypeAlias = Any
"""The module of compiled functions, ``stream.native.KERNEL`` unless that is None."""

PARTS: Final = ("scheme", "user", "host", "port", "path", "query", "fragment")
"""Parts of a URL, in the kernel's order."""


def _given(column: pl.Series) -> tuple[Any, tuple[Any, ...]]:
    """Views of ``column``, empty where it is null."""
    return native.views(column.fill_null("") if column.null_count() else column)


def _texts(like: pl.Series, views: Any, *buffers: Any) -> pl.Series:
    """A column of views that the kernel made, with the name of ``like``, and null where that is null."""
    done = native.series(like.name, native.Memory(native.Kind.TEXT, len(like), None, (views, *buffers)))
    return done if not like.null_count() else pl.select(pl.when(like.is_not_null()).then(done).alias(like.name)).to_series()


def keyed_hash(kernel: Kernel, column: pl.Series, block: bytes, length: int, *, quick: bool = True) -> pl.Series | None:
    """The first ``length`` hex digits of HMAC-SHA256 of each text; ``block`` is the key padded to 64 bytes.

    ``quick``: use the processor's SHA instructions, if it has them.
    """
    made = kernel.keyed_hash(*_given(column), block, length, quick)
    return None if made is None else _texts(column, *made)


def keep_last(kernel: Kernel, column: pl.Series, keep: int, hidden: Array) -> pl.Series | None:
    """Replace ``hidden`` characters (a mask by code point) with stars, except the last ``keep`` of each text."""
    made = kernel.keep_last(*_given(column), keep, hidden)
    return None if made is None else _texts(column, *made)


def cut(
    kernel: Kernel, column: pl.Series, chosen: pl.Series | None, skip: int, fields: Sequence[tuple[int, int, bool]]
) -> list[pl.Series] | None:
    """The kept ``fields`` of each text, without a copy, null where ``chosen`` is not true (None: all texts are chosen).

    A field is described by the first character of the separator that follows it (ASCII, or -1 for the end of the text), the length of that
    separator, and whether the field is kept. ``skip`` bytes come before the first field. None if a chosen text lacks a separator.
    """
    views, buffers = _given(column)
    mask = None if chosen is None else chosen.to_numpy()
    made = kernel.cut(views, buffers, mask, skip, tuple(fields))
    if made is None:
        return None
    texts = [native.series("", native.Memory(native.Kind.TEXT, len(column), None, (each, *buffers))) for each in made]
    return texts if chosen is None else [pl.select(pl.when(chosen).then(each)).to_series() for each in texts]


def urls(kernel: Kernel, column: pl.Series, parts: Sequence[str]) -> tuple[pl.DataFrame, pl.Series | None]:
    """``parts`` of each URL, and the indexes of the rows that Python has to parse, which are null here; None if there are none."""
    views, buffers = _given(column)
    bad, side, wrong, columns = kernel.urls(views, buffers, bytes(part in parts for part in PARTS))
    made = {}
    for part, (nulls, column_made) in zip(PARTS, columns, strict=True):
        if column_made is not None:
            validity, values = column_made
            kind, more = (native.Kind.UINT16, ()) if part == "port" else (native.Kind.TEXT, (*buffers, side))
            made[part] = native.series(part, native.Memory(kind, len(column), validity, (values, *more), nulls))
    left = (pl.Series(np.frombuffer(bad, np.bool_)) & column.is_not_null()).arg_true() if wrong else None
    return pl.DataFrame([made[part] for part in parts]), left if left is not None and len(left) else None


def addresses(kernel: Kernel, column: pl.Series, ranges: Array) -> tuple[Array, Array, pl.Series] | None:
    """Version, number of the kind, and network of each address; version 0 if Python has to parse it.

    ``ranges`` has six numbers for each range: first and last address, each in two halves, version and kind. The first range that contains
    an address counts.
    """
    made = kernel.addresses(*_given(column), ranges)
    if made is None:
        return None
    (versions, kinds), (views, data) = made
    networks = native.series("", native.Memory(native.Kind.TEXT, len(column), None, (views, data)))
    return np.frombuffer(versions, np.int8), np.frombuffer(kinds, np.uint8), networks
