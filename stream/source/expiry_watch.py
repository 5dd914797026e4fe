"""Notices that records of a shard have expired before they were read."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import polars as pl

from stream.aws.errors import INVALID_ARGUMENT, AwsFatal
from stream.aws.kinesis import IteratorAt, IteratorKind
from stream.aws.pages import RawPage
from stream.batch import ORIGIN, SEQUENCE
from stream.contracts import Shard
from stream.errors import Expired
from stream.source.access import StreamAccess, shown
from stream.source.progress import Progress

CONFIRMATIONS: Final = 5
"""Consecutive equal responses before a suspected loss or a missing child is taken as fact."""

NEAR_HORIZON: Final = timedelta(minutes=5)
"""What is nearer to the end of the retention than this may expire before it is read."""

_SHORTEST_RETENTION: Final = timedelta(hours=24)


class ExpiryWatch:
    """Checks each response for ``shard``. ``complete_until``: everything that had arrived by then has been read; None if not known.

    Kinesis does not report an expiry: an iterator after an expired record starts at the oldest record that is left, or stays before the
    retention period and returns no records.
    """

    def __init__(self, source: StreamAccess, shard: Shard, complete_until: datetime | None) -> None:
        self.complete_until = complete_until
        self._source = source
        self._shard = shard
        self._suspicions = 0

    async def check(self, progress: Progress, raw: RawPage, new: pl.DataFrame) -> None:
        """Check ``raw``, a response that has the rows ``new`` after the position.

        Raises:
            Expired: records between the position and the response may have expired unread.
        """
        if raw.frame.height:
            self._suspicions = 0
            if progress.position != ORIGIN and new.height:
                await self._check_first(progress.position, int(new.item(0, SEQUENCE)))
            return
        if progress.until is not None and raw.behind_ms == 0 and raw.next_iterator is not None:
            finding = f"the shard no longer holds the records up to {progress.until}, which were read from it before"
        elif progress.position != ORIGIN and await self._beyond_retention(timedelta(milliseconds=raw.behind_ms)):
            finding = "reading has stopped further back than the stream's retention"
        else:
            if raw.next_iterator is not None:
                self._suspicions = 0
            return
        self._suspicions += 1
        if self._suspicions >= CONFIRMATIONS:
            raise Expired(await self.why_lost(progress.position, finding))

    async def _check_first(self, position: int, first: int) -> None:
        """Check the number of the first new record."""
        if first == position + 1:
            return
        since = self.complete_until
        if since is not None and not await self._beyond_retention(self._source.clock.now() - since + NEAR_HORIZON):
            return
        if await iterator_at(self._source, self._shard, position) is None:
            finding = "that record has expired, and others before the oldest one left may have expired too"
            raise Expired(await self.why_lost(position, finding))

    async def _beyond_retention(self, age: timedelta) -> bool:
        return age >= _SHORTEST_RETENTION and age >= await self._source.retention()

    async def why_lost(self, position: int, finding: str) -> str:
        """The message of the error that reading cannot continue after ``position``, because of ``finding``."""
        retention = await self._source.retention()
        return (
            f"{shown(self._shard)} ({self._source.client.place}): reading cannot continue after {position}: {finding}. The stream keeps "
            f"records for {retention / timedelta(hours=1):g} hours: some may have expired unread, or the stream was recreated under the "
            "same name. Raise the retention if reading fell behind. With source.kinesis.on_expired: gap, the worker records the gap and "
            "continues."
        )


async def holds_older(source: StreamAccess, shard: Shard, sequence: int) -> bool:
    """Whether the stream still holds a record of ``shard`` from before that one.

    If it does, and does not hold that one, then it never had it: the oldest records expire first.
    """
    iterator = await source.client.get_shard_iterator(source.stream, shard.shard_id, IteratorAt(IteratorKind.TRIM_HORIZON))
    for _ in range(CONFIRMATIONS):
        found = await source.client.get_records(source.stream, iterator, 1)
        if found.frame.height:
            return int(found.frame.item(0, SEQUENCE)) < sequence
        if found.next_iterator is None or found.behind_ms == 0:
            return False
        iterator = found.next_iterator
    return False


async def iterator_at(source: StreamAccess, shard: Shard, sequence: int) -> str | None:
    """An iterator at that record, or None if the stream has, or holds, no such record."""
    at = IteratorAt(IteratorKind.AT, sequence=str(sequence))
    try:
        iterator = await source.client.get_shard_iterator(source.stream, shard.shard_id, at)
        for _ in range(CONFIRMATIONS):
            found = await source.client.get_records(source.stream, iterator, 1)
            # A response without records does not mean that there are none further on.
            if found.frame.height or found.next_iterator is None or found.behind_ms == 0:
                return iterator if found.frame.height and int(found.frame.item(0, SEQUENCE)) == sequence else None
            iterator = found.next_iterator
    except AwsFatal as error:
        if error.code != INVALID_ARGUMENT:
            raise
    return None
