"""Ledger segments that this worker has just made, kept in memory so that their spans can be exported without reading a file."""

from __future__ import annotations

from typing import Final

from stream.audit.ledger import Segment

RECENT_SHARE: Final = 1 / 8
"""Share of the memory budget, in addition to it, for two to four units on their way into the log and out to the collector."""


class RecentSegments:
    """At most ``limit`` bytes of segments, by the SHA-256 of their files; a segment that is not here is read from the ledger.

    Segments are looked up by the digest in a sealed manifest, so one of a unit that another worker sealed differently is never used.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._segments: dict[str, tuple[Segment, int]] = {}

    def put(self, sha256: str, segment: Segment) -> None:
        """Keep ``segment``, dropping the oldest ones if needed; one that is too large is not kept."""
        size = segment.size
        self.take(sha256)
        if size > self._limit:
            return
        while self._held + size > self._limit:
            self.take(next(iter(self._segments)))
        self._segments[sha256] = (segment, size)
        self._held += size

    def take(self, sha256: str) -> Segment | None:
        """Remove and return the segment, or None."""
        segment, size = self._segments.pop(sha256, (None, 0))
        self._held -= size
        return segment
