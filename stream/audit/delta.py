"""Parquet's delta encodings, as the compiled kernel also makes them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl

from stream.audit.ids import characters
from stream.audit.thrift import zigzag
from stream.audit.wire import varint

BLOCK: Final = 128
MINIBLOCK: Final = 32


def texts(column: pl.Series) -> bytes:
    """DELTA_BYTE_ARRAY: for each text, the length of the prefix it shares with the one before, the length of its rest, and the rest."""
    lengths = column.str.len_bytes().to_numpy().astype(np.int32)
    width = -(-int(lengths.max(initial=1)) // 8) * 8
    table = characters(column, width)
    prefixes = np.zeros(len(lengths), np.int32)
    prefixes[1:] = np.minimum(_agreeing(table), np.minimum(lengths[1:], lengths[:-1]))
    small: Any = np.uint8 if width <= 255 else np.int32
    place: Any = np.arange(width, dtype=small)
    rests = table[(place >= prefixes.astype(small)[:, None]) & (place < lengths.astype(small)[:, None])]
    return b"".join((integers(prefixes), integers(lengths - prefixes), rests.tobytes()))


def _agreeing(table: Any) -> Any:
    """How many bytes at their beginning each row but the first has in common with the row before."""
    words = table.view("<u8")
    changed = words[1:] ^ words[:-1]
    first = (changed != 0).argmax(axis=1)
    word = changed[np.arange(len(changed)), first]
    lowest = (word & (~word + np.uint64(1))).astype(np.float64)
    inside = np.log2(lowest, where=word != 0, out=np.zeros(len(word))).astype(np.int64) // 8
    return np.where(word == 0, table.shape[1], first * 8 + inside)


def integers(values: Any) -> bytes:
    """DELTA_BINARY_PACKED of int32 or int64; differences wrap around within them."""
    first = int(values[0]) if len(values) else 0
    head = varint(BLOCK) + varint(BLOCK // MINIBLOCK) + varint(len(values)) + varint(zigzag(first))
    if len(values) < 2:
        return head
    unsigned = np.dtype(f"u{values.itemsize}")
    deltas = (values.view(unsigned)[1:] - values.view(unsigned)[:-1]).view(values.dtype)
    full = np.full(-(-len(deltas) // BLOCK) * BLOCK, deltas[-1])
    full[: len(deltas)] = deltas
    blocks = full.reshape(-1, BLOCK)
    least = blocks.min(axis=1)
    above = blocks.view(unsigned) - least.view(unsigned)[:, None]
    above.reshape(-1)[len(deltas) :] = 0
    minis = above.reshape(-1, MINIBLOCK)
    widths = [int(most).bit_length() for most in minis.max(axis=1)]
    packed = _bits(minis, np.array(widths))
    parts, per = [head], BLOCK // MINIBLOCK
    for block, lowest in enumerate(least.tolist()):
        at = block * per
        parts += [varint(zigzag(lowest)), bytes(widths[at : at + per]), *packed[at : at + per]]
    return b"".join(parts)


def _bits(minis: Any, widths: Any) -> list[bytes]:
    """Each row of ``minis`` in as many bits a value as ``widths`` says."""
    found = [b""] * len(minis)
    for width in np.unique(widths).tolist():
        if width:
            places = np.flatnonzero(widths == width)
            bits = minis[places][:, :, None] >> np.arange(width, dtype=minis.dtype) & minis.dtype.type(1)
            rows = np.packbits(bits.astype(np.uint8).reshape(len(places), -1), axis=1, bitorder="little")
            for place, row in zip(places.tolist(), rows, strict=True):
                found[place] = row.tobytes()
    return found
