"""Parquet's delta encodings; the compiled kernel produces the same bytes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl

from stream.audit.ids import characters
from stream.audit.thrift import zigzag
from stream.audit.wire import varint

BLOCK: Final = 128
MINIBLOCK: Final = 32


def texts(column: pl.Series) -> tuple[bytes, bytes]:
    """DELTA_BYTE_ARRAY in two parts: the lengths of prefixes that texts share with their predecessors and of suffixes; the suffixes."""
    lengths = column.str.len_bytes().to_numpy().astype(np.int32)
    width = -(-int(lengths.max(initial=1)) // 8) * 8
    table = characters(column, width)
    prefixes = np.zeros(len(lengths), np.int32)
    prefixes[1:] = np.minimum(_shared_prefix_lengths(table), np.minimum(lengths[1:], lengths[:-1]))
    index_type: Any = np.uint8 if width <= 255 else np.int32
    column_index: Any = np.arange(width, dtype=index_type)
    suffixes = table[(column_index >= prefixes.astype(index_type)[:, None]) & (column_index < lengths.astype(index_type)[:, None])]
    return integers(prefixes) + integers(lengths - prefixes), suffixes.tobytes()


def _shared_prefix_lengths(table: Any) -> Any:
    """The length of the prefix that each row but the first shares with the row before it."""
    words = table.view("<u8")
    changed = words[1:] ^ words[:-1]
    first = (changed != 0).argmax(axis=1)
    word = changed[np.arange(len(changed)), first]
    lowest = (word & (~word + np.uint64(1))).astype(np.float64)
    inside = np.log2(lowest, where=word != 0, out=np.zeros(len(word))).astype(np.int64) // 8
    return np.where(word == 0, table.shape[1], first * 8 + inside)


def integers(values: Any) -> bytes:
    """DELTA_BINARY_PACKED of int32 or int64 values; deltas wrap around in that type."""
    first = int(values[0]) if len(values) else 0
    head = varint(BLOCK) + varint(BLOCK // MINIBLOCK) + varint(len(values)) + varint(zigzag(first))
    if len(values) < 2:
        return head
    unsigned = np.dtype(f"u{values.itemsize}")
    deltas = (values.view(unsigned)[1:] - values.view(unsigned)[:-1]).view(values.dtype)
    full = np.full(-(-len(deltas) // BLOCK) * BLOCK, deltas[-1])
    full[: len(deltas)] = deltas
    blocks = full.reshape(-1, BLOCK)
    minimums = blocks.min(axis=1)
    offsets = blocks.view(unsigned) - minimums.view(unsigned)[:, None]
    offsets.reshape(-1)[len(deltas) :] = 0
    miniblocks = offsets.reshape(-1, MINIBLOCK)
    widths = [int(most).bit_length() for most in miniblocks.max(axis=1)]
    packed = _bit_packed(miniblocks, np.array(widths))
    parts, per = [head], BLOCK // MINIBLOCK
    for block, lowest in enumerate(minimums.tolist()):
        at = block * per
        parts += [varint(zigzag(lowest)), bytes(widths[at : at + per]), *packed[at : at + per]]
    return b"".join(parts)


def _bit_packed(miniblocks: Any, widths: Any) -> list[bytes]:
    """Each miniblock bit-packed with its own width."""
    found = [b""] * len(miniblocks)
    for width in np.unique(widths).tolist():
        if width:
            places = np.flatnonzero(widths == width)
            bits = miniblocks[places][:, :, None] >> np.arange(width, dtype=miniblocks.dtype) & miniblocks.dtype.type(1)
            rows = np.packbits(bits.astype(np.uint8).reshape(len(places), -1), axis=1, bitorder="little")
            for index, row in zip(places.tolist(), rows, strict=True):
                found[index] = row.tobytes()
    return found
