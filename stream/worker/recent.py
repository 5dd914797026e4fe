"""Ledger segments that this worker made a moment ago, so that their spans need not wait for a file to come back."""

from __future__ import annotations

from typing import Final

from stream.audit.ledger import Segment

RECENT_SHARE: Final = 1 / 8
"""Of the memory budget, beside it: two to four units on their way into the log and out to the collector."""


class RecentSegments:
    """At most ``limit`` bytes of segments by the SHA-256 of their files; whatever is not here is read from the ledger.

    The digest in a sealed manifest decides whether a segment is the unit's: one of a unit that another worker sealed is never asked for.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._segments: dict[str, tuple[Segment, int]] = {}

    def put(self, sha256: str, segment: Segment) -> None:
        """Keep ``segment``; the oldest ones give way, and one that is too large is not kept."""
        size = segment.size
        self.take(sha256)
        if size > self._limit:
            return
        while self._held + size > self._limit:
            self.take(next(iter(self._segments)))
        self._segments[sha256] = (segment, size)
        self._held += size

    def take(self, sha256: str) -> Segment | None:
        """The segment, which is given away, or None."""
        segment, size = self._segments.pop(sha256, (None, 0))
        self._held -= size
        return segment
