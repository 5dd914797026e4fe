"""Trace and span ids that anyone can recompute: derived from a record's identity, never from when or by whom it was exported.

    record   trace = H(stream, shard, sequence, sub)          span = H(trace, application)
    unit     trace = H(application, stream, shard, after, last)   span = H(trace, what, ordinal)

Two applications on one stream share a record's trace; each has its own span in it. For records, H is the two-lane fold of ``set_hash``,
seeded with BLAKE2b over the names; for units, it is BLAKE2b. The ids depend on no key and not on the payload.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np
import polars as pl

from stream.native import KERNEL, views

_LIMB: Final = 18
_GROUPS: Final = 4
"""Fixed, so that a record's ids do not depend on the records beside it; sequence numbers have at most 60 digits."""
_LANES: Final = (
    ((30, 27, 31), (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)),
    ((33, 33, 33), (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)),
)
_SUB: Final = 0x9E3779B97F4A7C15


def unit_trace(application: str, stream: str, shard: str, after: int, last: int | None) -> bytes:
    """The trace id of a unit: 16 bytes."""
    return _digest("unit", application, stream, shard, str(after), str(last))


def unit_span(trace: bytes, what: str, ordinal: int = 0) -> bytes:
    """The span id of an operation on a unit: 8 bytes, different for each ``what`` and ``ordinal``."""
    return _digest("span", trace.hex(), what, str(ordinal))[:8]


def operation_trace(*parts: str) -> bytes:
    """The trace id of an operation that belongs to no unit: 16 bytes."""
    return _digest("operation", *parts)


def record_ids(frame: pl.DataFrame, stream: str, shard: str, application: str) -> tuple[Any, Any]:
    """Trace ids and span ids of ledger rows (``seq``, ``sub``): arrays of uint8 with 16 and 8 columns."""
    seed = np.frombuffer(_digest("record", stream, shard), "<u8")
    application_seed = np.frombuffer(_digest("application", application), "<u8")
    if KERNEL is not None:
        found = KERNEL.record_ids(*views(frame["seq"]), frame["sub"].to_numpy(), tuple(map(int, (*seed, *application_seed))), True)
        if found is not None:
            traces, spans = (np.frombuffer(ids, np.uint8) for ids in found)
            return traces.reshape(-1, 16), spans.reshape(-1, 8)
    limbs = _limbs(frame["seq"])
    sub = frame["sub"].cast(pl.UInt64).to_numpy() + np.uint64(_SUB)
    lanes = []
    for lane, begin in zip(_LANES, seed, strict=True):
        mixed = _mixed(begin, lane)
        for limb in limbs:
            mixed = _mixed(mixed ^ limb, lane)
        lanes.append(_mixed(mixed ^ sub, lane))
    low, high = lanes
    # An id of zeros is invalid. 0 becomes 1, so one record in 2**64 may share an id with another.
    low[low == 0] = 1
    span = _mixed(low ^ _mixed(high ^ application_seed[0], _LANES[0]) ^ application_seed[1], _LANES[1])
    span[span == 0] = 1
    return np.stack((low, high), axis=1).view(np.uint8), span.view(np.uint8).reshape(-1, 8)


def hex_ids(frame: pl.DataFrame, stream: str, shard: str, application: str) -> dict[tuple[str, int], tuple[str, str]]:
    """The trace id and span id in hex, by sequence number and sub-sequence number; meant for few rows."""
    traces, spans = record_ids(frame, stream, shard, application)
    keys = frame.select("seq", "sub").iter_rows()
    return {key: (bytes(trace).hex(), bytes(span).hex()) for key, trace, span in zip(keys, traces, spans, strict=True)}


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16, person=b"kst.audit").digest()


def characters(texts: pl.Series, width: int) -> Any:
    """ASCII texts of at most ``width`` characters as a uint8 array, one row per text, padded with zeros at the end."""
    if KERNEL is not None:
        return np.frombuffer(KERNEL.characters(*views(texts), width), np.uint8).reshape(-1, width)
    lengths = texts.str.len_bytes()
    if (lengths != width).any():
        places, at = np.arange(width), lengths.to_numpy()
        out = np.zeros((texts.len(), width), np.uint8)
        out[places < at[:, None]] = np.frombuffer("".join(texts).encode(), np.uint8)
        return out
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(len(array), width)


def _limbs(sequences: pl.Series) -> list[Any]:
    """The digits in four groups of 18, least significant first. A group in which all rows agree, as upper ones do, is a single number."""
    if sequences.is_empty():
        return []
    if (sequences.str.len_bytes() != len(sequences[0])).any():
        sequences = sequences.str.pad_start(_GROUPS * _LIMB, "0")
    least, greatest = str(sequences.min()), str(sequences.max())
    limbs: list[Any] = []
    for group in range(_GROUPS):
        end = max(0, len(least) - group * _LIMB)
        start = max(0, end - _LIMB)
        if least[:end] == greatest[:end]:
            limbs.append(np.uint64(int(least[start:end] or "0")))
        else:
            limbs.append(sequences.str.slice(start, end - start).cast(pl.UInt64).to_numpy())
    return limbs


def _mixed(values: Any, lane: tuple[tuple[int, int, int], tuple[int, int]]) -> Any:
    """``set_hash``'s M of a number (``np.uint64``), or of an array, which is overwritten."""
    if isinstance(values, np.uint64):
        return _mixed(np.array([values]), lane)[0]
    shifts, factors = lane
    shifted = np.empty_like(values)
    for shift, factor in zip(shifts, factors, strict=False):
        values ^= np.right_shift(values, np.uint64(shift), out=shifted)
        values *= np.uint64(factor)
    values ^= np.right_shift(values, np.uint64(shifts[2]), out=shifted)
    return values
