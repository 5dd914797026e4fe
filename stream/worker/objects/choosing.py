"""Which objects of a watched source are claimed, when, and for which shard. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stream.contracts import ObjectInfo
from stream.source.objects import PinnedObject, split
from stream.worker.objects.claimed import Claimed, version_digest
from stream.worker.objects.slice import Slice

CLAIM_OBJECTS: Final = 1000
"""The most objects in a claim: about 150 kB of JSON, and one page of a listing."""

WAITING_MESSAGES: Final = 2000
"""Messages that may wait for a claim; several can name the same object."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """Objects by what has to be done about them; ``claimed`` counts those with nothing to do."""

    fresh: tuple[ObjectInfo, ...]
    changed: tuple[ObjectInfo, ...]
    claimed: int


def sort_out(infos: Sequence[ObjectInfo], claimed: Claimed) -> Sorted:
    """Sort ``infos``, in their order, by whether this version, another one, or none of each is in ``claimed``."""
    fresh, changed, known = [], [], 0
    for info, version in zip(infos, claimed.versions(infos), strict=True):
        if version is None:
            fresh.append(info)
        elif version == version_digest(info.size, info.version):
            known += 1
        else:
            changed.append(info)
    return Sorted(tuple(fresh), tuple(changed), known)


def claim_of(infos: Sequence[ObjectInfo], ends: Sequence[int], shards: int, turn: int) -> Slice:
    """A claim that appends ``infos``, at least one, to ``shards`` shards, about as many bytes to each; the caller adds who, when and where.

    ``ends``: how many objects each shard has. ``turn`` decides which shard gets the first part, so that claims of one object reach them all
    in turn. Shards beyond ``shards``, of an earlier definition, keep what they have.
    """
    before = [*ends, *([0] * (shards - len(ends)))]
    parts: list[list[PinnedObject]] = [[] for _ in before]
    items = [PinnedObject(info.key, info.size, info.version, info.modified.isoformat()) for info in infos]
    for number, (begin, end) in enumerate(split(items, shards)):
        parts[(number + turn) % shards] += items[begin:end]
    appended = tuple((end, end + len(part)) for end, part in zip(before, parts, strict=True))
    return Slice(tuple(item for part in parts for item in part), "", "", appended=appended)


@dataclass(frozen=True, slots=True)
class Held:
    """What waits for a claim: how many ``objects`` and ``messages``, and when the last claim was made, on a monotonic clock."""

    objects: int
    messages: int
    claimed_at: float


def is_due(held: Held, now: float, age: float) -> bool:
    """Whether to claim now: there is enough for a claim, or the last one is ``age`` seconds ago.

    So the first objects after a quiet time are claimed at once, and there are no more claims than one every ``age`` seconds unless they are
    full. Nothing waits for longer than ``age``.
    """
    if held.objects >= CLAIM_OBJECTS or held.messages >= WAITING_MESSAGES:
        return True
    return held.messages > 0 and now - held.claimed_at >= age


def seconds_to_wait(held: Held, now: float, age: float, longest: int) -> int:
    """Whole seconds for which to wait for further messages."""
    if not held.messages:
        return longest
    return max(1, min(longest, math.ceil(held.claimed_at + age - now)))
