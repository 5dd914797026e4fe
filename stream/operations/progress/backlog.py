"""What waits of the objects of ``source.s3``, and the newest claim of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Backlog:
    """Claimed objects of a shard that are not known to be sealed to their ends, their bytes, and when the oldest was last modified."""

    objects: int = 0
    size: int = 0
    oldest: datetime | None = None

    def __add__(self, other: Backlog) -> Backlog:
        """Both together."""
        oldest = min((each for each in (self.oldest, other.oldest) if each is not None), default=None)
        return Backlog(self.objects + other.objects, self.size + other.size, oldest)


@dataclass(frozen=True, slots=True)
class LastClaim:
    """The newest claim of objects: its number, who made it, when, and of how many objects."""

    number: int
    worker: str
    at: datetime
    objects: int
