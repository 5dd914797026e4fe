"""Sequence numbers with the layout of the service's own: 186 bits, 56 decimal digits, about 4.9e55.

As 47 hexadecimal digits, most significant first (kinesalite's reading, which also fits the number in AWS
Lambda's documentation):

    ======  ==========================================================
    digits  meaning
    ======  ==========================================================
    1       always 2, which makes every number 56 digits long
    9       second in which the shard was created
    1       last digit of the shard's index
    16      counter of the shard, 0 for its start, 2^63-1 for its end
    2       always 0
    9       second in which the record was put
    8       the shard's index
    1       version, always 2
    ======  ==========================================================

The shard's second comes first, and a child's is later than its parents' (``shards.py`` ensures that), so every number of a child
is greater than every number of its parents; within a shard the counter alone decides. The numbers do not say how many records lie
between two of them, and adjacent ones differ by about 2^80: only their order has a meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

END_COUNTER: Final = 2**63 - 1
"""Counter of ``EndingSequenceNumber``: no record has it."""

_HEAD: Final = 2 << 184
_TAIL: Final = 2
_SHARD_SECOND_BIT: Final = 148
_NIBBLE_BIT: Final = 144
_COUNTER_BIT: Final = 80
_SECOND_BIT: Final = 36
_INDEX_BIT: Final = 4


@dataclass(frozen=True, slots=True)
class Parts:
    """The content of one number; seconds are Unix time."""

    shard_second: int
    shard_index: int
    counter: int
    second: int


def base(shard_second: int, shard_index: int) -> int:
    """The digits that every number of one shard shares; add counter and second with ``number``."""
    return _HEAD | shard_second << _SHARD_SECOND_BIT | (shard_index & 15) << _NIBBLE_BIT | (shard_index & 0xFFFFFFFF) << _INDEX_BIT | _TAIL


def number(shard_base: int, counter: int, second: int) -> int:
    """The number of the shard with ``base`` ``shard_base``; strictly increasing in ``counter``, whatever ``second`` does."""
    return shard_base | counter << _COUNTER_BIT | second << _SECOND_BIT


def parts(value: int) -> Parts | None:
    """Split a number into its parts; None if it does not have this layout."""
    index = value >> _INDEX_BIT & 0xFFFFFFFF
    if value >> 184 != 2 or value & 15 != _TAIL or value >> 72 & 0xFF or value >> _NIBBLE_BIT & 15 != index & 15:
        return None
    return Parts(
        shard_second=value >> _SHARD_SECOND_BIT & 0xFFFFFFFFF,
        shard_index=index,
        counter=value >> _COUNTER_BIT & 0xFFFFFFFFFFFFFFFF,
        second=value >> _SECOND_BIT & 0xFFFFFFFFF,
    )
