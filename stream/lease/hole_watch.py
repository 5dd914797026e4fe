"""Reports hash ranges that no lease covers, once several scans in a row have found them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stream import events
from stream.contracts import Emit
from stream.lease.rows import Lease
from stream.lease.shards import holes

HOLE_LOOKS: Final = 3
"""Scans in a row that must find the same hole before it is reported: rows are created one by one, and a scan may see only some (KCL: 3)."""


class HoleWatch:
    """Remembers, for each stream, which holes were found last and how often in a row."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._found: dict[str, tuple[tuple[tuple[int, int], ...], int]] = {}

    def check(self, stream: str, leases: Iterable[Lease]) -> None:
        """Report holes between ``leases``, all leases of ``stream``, that have lasted for some scans, or have been closed."""
        found = tuple(holes(every)) if (every := list(leases)) else ()
        before, before_times = self._found.get(stream, ((), 0))
        times = before_times + 1 if found == before else 1
        self._found[stream] = (found, times)
        if (found and times == HOLE_LOOKS) or (not found and before and before_times >= HOLE_LOOKS):
            self._emit(events.LeaseHoles(stream, "", len(found), str(found[0][0]) if found else ""))
