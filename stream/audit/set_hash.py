"""A 128-bit fingerprint of a *set* of records: independent of order, and the fingerprints of two disjoint sets add up to their union's.

Two readers that saw the same records have the same number, whatever pages and units the records came in. The definition, with all
arithmetic modulo 2**64 unless stated otherwise:

1. The decimal sequence number is split from the right into limbs of 18 digits; the most significant limb comes first.
2. Each of two lanes starts at h = 0 and folds the limbs in: ``h = M(h xor limb)``. M maps 0 to 0, so leading zeros have no effect.
3. The sub-sequence number ends the fold: ``h = M(h xor (sub + C))``.
4. The record's hash is ``lane0 * 2**64 + lane1``, a 128-bit number; the set's hash is the sum over its records modulo 2**128.

M of lane 0 is the finalizer of SplitMix64 (shifts 30, 27, 31), that of lane 1 the finalizer of MurmurHash3 (shifts 33, 33, 33);
both are bijections. The hash never changes and is cheap, but no defence against somebody who can choose sequence numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from stream.native import KERNEL, views

LIMB_DIGITS: Final = 18
_MODULUS: Final = 2**128


@dataclass(frozen=True, slots=True)
class _Lane:
    shifts: tuple[int, int, int]
    factors: tuple[int, int]
    offset: int

    def mix(self, values: Any) -> Any:
        """M over an array of uint64, which is overwritten; arithmetic on arrays wraps around."""
        shifted = np.empty_like(values)
        for shift, factor in zip(self.shifts, self.factors, strict=False):
            values ^= np.right_shift(values, np.uint64(shift), out=shifted)
            values *= np.uint64(factor)
        values ^= np.right_shift(values, np.uint64(self.shifts[2]), out=shifted)
        return values


_LANES: Final = (
    _Lane((30, 27, 31), (0xBF58476D1CE4E5B9, 0x94D049BB133111EB), 0x9E3779B97F4A7C15),
    _Lane((33, 33, 33), (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53), 0xD1B54A32D192ED03),
)


@dataclass(frozen=True, slots=True)
class SetHash:
    """The hash of a set of records; ``SetHash()`` is that of the empty set."""

    value: int = 0

    @staticmethod
    def of(sequences: pl.Series, subsequences: pl.Series) -> SetHash:
        """The hash of the records with decimal ``sequences`` (String) and ``subsequences`` (UInt32), row by row.

        Raises:
            ValueError: a sequence number is not decimal text, or a value is null.
        """
        if sequences.is_empty():
            return SetHash()
        if KERNEL is not None and not sequences.null_count():
            found = KERNEL.set_hash(*views(sequences), subsequences.to_numpy(), True)
            if found is not None:
                return SetHash(found[0] << 64 | found[1])
        limbs = _limbs(sequences)
        subs = subsequences.cast(pl.UInt64).to_numpy()
        total = 0
        for lane in _LANES:
            mixed = np.zeros(1, np.uint64)
            for limb in limbs:
                mixed = lane.mix(mixed ^ limb)
            mixed = lane.mix(mixed ^ (subs + np.uint64(lane.offset)))
            total = (total << 64) + _exact_sum(mixed)
        return SetHash(total % _MODULUS)

    @staticmethod
    def parse(text: str) -> SetHash:
        """The inverse of ``hex``.

        Raises:
            ValueError: ``text`` is not 32 hex digits.
        """
        if len(text) != 32:
            msg = f"a set hash has 32 hex digits, got {text!r}"
            raise ValueError(msg)
        return SetHash(int(text, 16))

    @property
    def hex(self) -> str:
        """32 hex digits."""
        return f"{self.value:032x}"

    def __add__(self, other: SetHash) -> SetHash:
        """The hash of the union of two disjoint sets."""
        return SetHash((self.value + other.value) % _MODULUS)

    def __sub__(self, other: SetHash) -> SetHash:
        """The hash of this set without its subset ``other``."""
        return SetHash((self.value - other.value) % _MODULUS)


def _limbs(sequences: pl.Series) -> list[Any]:
    """The limbs, most significant first. One in which all rows agree, as a unit's upper limbs do, has one value, so folding is free."""
    if sequences.null_count():
        msg = "a record without a sequence number cannot be hashed"
        raise ValueError(msg)
    lengths = sequences.str.len_bytes()
    width = _largest(lengths)
    if (lengths != width).any():
        sequences = sequences.str.pad_start(width, "0")
    least, greatest = str(sequences.min()), str(sequences.max())
    starts = [max(0, end - LIMB_DIGITS) for end in range(width, 0, -LIMB_DIGITS)][::-1]
    ends = [*starts[1:], width]
    try:
        return [
            np.array([_number(least[start:end])], np.uint64)
            if least[:end] == greatest[:end]
            else _as_numbers(sequences.str.slice(start, end - start))
            for start, end in zip(starts, ends, strict=True)
        ]
    except (pl.exceptions.PolarsError, ValueError) as error:
        msg = f"sequence numbers are decimal digits only; these lie between {least!r} and {greatest!r}"
        raise ValueError(msg) from error


def _number(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(digits)
    return int(digits)


def _largest(lengths: pl.Series) -> int:
    largest = lengths.max()
    return largest if isinstance(largest, int) else 0


def _as_numbers(digits: pl.Series) -> Any:
    return digits.cast(pl.UInt64).to_numpy()


def _exact_sum(values: Any) -> int:
    """The sum without overflow for up to 2**32 rows: the upper and lower 32 bits are summed separately."""
    return (int((values >> np.uint64(32)).sum()) << 32) + int((values & np.uint64(2**32 - 1)).sum())
