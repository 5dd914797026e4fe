"""Reads shards up to records that were announced, for a caller that wants no more than these."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Final

from stream.batch import SEQUENCE, Batch
from stream.contracts import Emit, LendingSource, Page, Shard, Start
from stream.events import EventIncomplete

UNKNOWN_MS: Final = 1
"""How far behind the tip a page is that was not read: it is not known to be at the tip."""


class ReadAnnounced:
    """``contracts.Source`` over another one. ``announced``: by shard, the sequence numbers of the records, ascending.

    Such a shard pauses at the end of the first page that reaches the last of its records; other shards go on. A record that does not come
    is waited for: a reply without it says nothing, because another copy of the shard may have answered. If the stream holds records
    between announced ones, ``EventIncomplete`` is emitted.
    """

    def __init__(self, inner: LendingSource, announced: Mapping[str, Sequence[int]], emit: Emit) -> None:
        self.budget = inner.budget
        self._inner = inner
        self._announced = announced
        self._emit = emit

    async def shards(self) -> list[Shard]:
        """See ``contracts.Source``."""
        return await self._inner.shards()

    async def read(
        self, shard: Shard, after: int, start: Start, until: int | None = None, complete_until: datetime | None = None
    ) -> AsyncIterator[Page]:
        """See ``contracts.Source``; the page that reaches the last record is ``paused``, unless ``until`` is given."""
        announced = self._announced.get(shard.shard_id) if until is None else None
        if announced is not None and after >= announced[-1]:
            yield Page(Batch.empty(), after, UNKNOWN_MS, 0, paused=True)
            return
        omitted = 0
        async with aclosing(self._inner.read(shard, after, start, until, complete_until)) as pages:  # type: ignore[type-var]
            async for page in pages:
                omitted += 0 if announced is None else _omitted(page, announced)
                if announced is None or page.position < announced[-1]:
                    yield page
                    continue
                if omitted:
                    self._emit(EventIncomplete(shard.stream, shard.shard_id, len(announced), omitted))
                yield replace(page, paused=True)
                return


def _omitted(page: Page, announced: Sequence[int]) -> int:
    """How many Kinesis records of ``page`` lie between the first and the last of ``announced`` and are not among them."""
    read = {int(text) for text in page.batch.frame[SEQUENCE].unique()} if page.batch.rows else set()
    return sum(announced[0] < number < announced[-1] for number in read.difference(announced))
