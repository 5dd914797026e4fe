"""Reads a sample of a shard at points spread over a time window: enough to see its partition keys, at little cost to other readers."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from stream.aws.errors import AwsRetryable
from stream.aws.kinesis import MAX_RECORDS, IteratorAt, IteratorKind, KinesisClient
from stream.aws.pages import RawPage
from stream.aws.retry import GiveUp, Policy, decide
from stream.batch import ARRIVAL, DATA
from stream.contracts import Clock

CALL_SECONDS: Final = 1.0
"""Seconds between two GetRecords calls for a shard, which uses a fifth of the five calls per second that all its readers share."""

PAGE_BYTES: Final = 256 * 2**10
"""Bytes that one call should return: an eighth of the 2 MiB per second that all readers of a shard share."""

FIRST_LIMIT: Final = 25
"""Records requested by the first call, when their size is unknown: at 100 KB each, as much as a shard delivers in a second."""

RETRIES: Final = Policy(base=1.0, cap=5.0, attempts=4)
"""A failed call is retried three times; after that, the sample ends, because other readers need the shard more."""

_random = secrets.SystemRandom().random


@dataclass(slots=True)
class Excerpt:
    """A sample of a shard: ``pages`` of records that arrived within a window of ``seconds``.

    ``covered``: number of seconds of which every record was read. ``why``: why reading ended early, or empty.
    """

    seconds: float
    pages: list[pl.DataFrame] = field(default_factory=list)
    covered: float = 0.0
    calls: int = 0
    why: str = ""


@dataclass(slots=True)
class Excerpts:
    """Reads samples of one stream's shards. ``pages``: GetRecords calls per shard that may return records; as many more may return none."""

    client: KinesisClient
    stream: str
    pages: int
    clock: Clock
    random: Callable[[], float] = _random

    async def read(self, shard_id: str, begin: datetime, end: datetime) -> Excerpt:
        """Records that arrived at ``begin`` or later, and before ``end``: the first ones of each of ``pages`` equal parts of that time.

        Raises:
            Fatal: stream or shard missing, access denied.
        """
        found = Excerpt((end - begin).total_seconds())
        part = (end - begin) / self.pages
        reading = _Reading(self, shard_id, found)
        try:
            for number in range(self.pages):
                await reading.part(begin + number * part, begin + (number + 1) * part)
        except AwsRetryable as error:
            found.why = str(error)
        return found


@dataclass(slots=True)
class _Reading:
    """One sample while it is read. ``limit`` adapts to the size of records; ``due``: when the next call may be made."""

    by: Excerpts
    shard_id: str
    found: Excerpt
    limit: int = FIRST_LIMIT
    due: float | None = None

    async def part(self, begin: datetime, end: datetime) -> None:
        iterator: str | None = None
        while self.found.calls < 2 * self.by.pages:
            page, iterator = await self._page(iterator, begin)
            last = page.frame[ARRIVAL].max() if page.frame.height else None
            inside = page.frame.filter(pl.col(ARRIVAL).is_between(begin, end, closed="left"))
            if inside.height:
                self.found.pages.append(inside)
            if page.next_iterator is None or page.behind_ms == 0 or (isinstance(last, datetime) and last >= end):
                self.found.covered += (end - begin).total_seconds()
                return
            if isinstance(last, datetime):
                self.found.covered += max(timedelta(), last - begin).total_seconds()
                return

    async def _page(self, iterator: str | None, begin: datetime) -> tuple[RawPage, str | None]:
        attempt = 0
        while True:
            attempt += 1
            now = self.by.clock.monotonic()
            if self.due is not None and self.due > now:
                await self.by.clock.sleep(self.due - now)
            self.due = self.by.clock.monotonic() + CALL_SECONDS
            try:
                if iterator is None:
                    at = IteratorAt(IteratorKind.AT_TIMESTAMP, timestamp=begin)
                    iterator = await self.by.client.get_shard_iterator(self.by.stream, self.shard_id, at)
                page = await self.by.client.get_records(self.by.stream, iterator, self.limit)
            except AwsRetryable as error:
                step = decide(error, attempt, self.by.random(), RETRIES)
                if isinstance(step, GiveUp):
                    raise
                await self.by.clock.sleep(step.seconds)
                continue
            self.found.calls += 1
            self._learn(page.frame)
            return page, page.next_iterator

    def _learn(self, frame: pl.DataFrame) -> None:
        if frame.height:
            mean = max(1.0, float(frame[DATA].bin.size().sum()) / frame.height)
            self.limit = max(1, min(MAX_RECORDS, int(PAGE_BYTES / mean)))
