"""Removes staged files that are no longer needed, or notes that the table's maintenance may replace them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from stream.sink.redshift import COPY_MANIFESTS
from stream.worker.tables.parts import LoaderParts

CLEAN_UP_SECONDS: Final = 3600.0
"""Seconds between searches for staged files that are old enough to be removed."""

KEEP_ACCOUNTS: Final = timedelta(days=7)
"""How long a record of what is loaded is kept after the next one is written, since somebody may restore older table metadata."""


class CleanUp:
    """Cleans up after one loader, once an hour at most. ``needed``: whether something was loaded since the last time, at ``done_at``."""

    def __init__(self, parts: LoaderParts) -> None:
        self.needed = True
        self.done_at: float | None = None
        self._parts = parts

    async def run(self) -> None:
        """Remove staged files that were loaded long enough ago, and leftover COPY manifests.

        If the files belong to the table, only note that table maintenance may replace them from now on.
        """
        parts = self._parts
        now = parts.clock.monotonic()
        # Without a load in the meantime, do not query: that would wake a paused serverless workgroup.
        if not self.needed or (self.done_at is not None and now - self.done_at < CLEAN_UP_SECONDS):
            return
        removed = await parts.state.removed()
        if parts.config.keeps_files:
            for shard, last in sorted((await parts.warehouse.positions()).items()):
                if removed.get(shard, 0) < last:
                    await parts.state.note_removed(shard, last)
            await parts.warehouse.forget(parts.clock.now() - KEEP_ACCOUNTS)
            self.done_at, self.needed = now, False
            return
        self.done_at, self.needed = now, False
        cutoff = parts.clock.now() - parts.config.staged_for
        for shard, last in sorted((await parts.warehouse.positions_before(cutoff)).items()):
            await self._remove(shard, removed.get(shard, 0), last)
        async for info in parts.staging.list(COPY_MANIFESTS):
            if parts.clock.now() - info.modified > timedelta(days=1):
                await parts.staging.delete(info.key)

    async def _remove(self, shard: str, position: int, last: int) -> None:
        parts = self._parts
        while position < last:
            keys, end = await parts.log.keys_between(shard, position, last, parts.staging.url)
            if end == position:
                return
            await parts.state.note_removed(shard, end)
            for key in keys:
                await parts.staging.delete(key)
            position = end
