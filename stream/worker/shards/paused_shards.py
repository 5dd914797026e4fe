"""The shards of one stream that a worker holds and does not read, because operators have paused them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from stream import events
from stream.concurrency import run_concurrently
from stream.contracts import Shard
from stream.errors import Halted, LeaseLost, Retryable
from stream.lease.paused import Pause
from stream.worker.parts import Parts

ANNOUNCED_AT_ONCE: Final = 16
"""Shards whose checkpoints are read at a time."""


class PausedShards:
    """The shards of one stream that its supervisor could work on, and does not because they are paused. ``shown``: by id, and why."""

    def __init__(self, stream: str, parts: Parts) -> None:
        self.shown: dict[str, Pause] = {}
        self._stream = stream
        self._parts = parts

    async def hold_back(self, shard_ids: Collection[str]) -> set[str]:
        """Those of ``shard_ids`` that are paused now; none of them is being worked on. Announces what is paused or resumed since."""
        found = {each: pause for each in shard_ids if (pause := self._parts.pause_of(Shard(self._stream, each))) is not None}
        await run_concurrently(
            [self._announce(each, found[each]) for each in sorted(found) if self.shown.get(each) != found[each]], ANNOUNCED_AT_ONCE
        )
        for each in sorted(self.shown.keys() - found.keys()):
            self._parts.emit(events.ShardResumed(self._stream, each))
        self.shown = found
        return set(found)

    def drop_lost(self, held: Collection[str]) -> None:
        """Forget shards whose lease another worker has now, which keeps them from being read in the same way."""
        for each in sorted(self.shown.keys() - held):
            del self.shown[each]
            self._parts.emit(events.ShardReleased(self._stream, each, "lease_lost"))

    async def _announce(self, shard_id: str, pause: Pause) -> None:
        now = self._parts.clock.now()
        committed = await committed_until(Shard(self._stream, shard_id), self._parts)
        behind = max(timedelta(), now - (committed or pause.since)).total_seconds()
        until = pause.until.isoformat() if pause.until is not None else ""
        self._parts.emit(events.ShardPaused(self._stream, shard_id, pause.by, pause.note, until, behind))


async def committed_until(shard: Shard, parts: Parts) -> datetime | None:
    """The time up to which everything that arrived in the shard is committed, as far as its checkpoint tells; None if it does not.

    Two reads. Records that are not committed arrived later, so none of them expires before a whole retention has passed since then.
    """
    try:
        hint = await parts.checkpoints.read(shard)
        if hint is None:
            return None
        entry = await parts.log.read(replace(shard, generation=hint.generation), hint.unit_after)
    except (Halted, LeaseLost, Retryable):
        # Only a metric is less exact for it.
        return None
    arrived = datetime.fromisoformat(entry.manifest.last_arrival) if entry is not None and entry.manifest.last_arrival else None
    return max((each for each in (hint.tip, arrived) if each is not None), default=None)
