"""What follows a position in a stream, without reading further: for commands that only ask whether something is missing."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from stream.audit.completeness import Found, Lookahead
from stream.aws.kinesis import KinesisClient
from stream.batch import ARRIVAL, ORIGIN, SEQUENCE, SUBSEQUENCE
from stream.budget import ByteBudget
from stream.contracts import Clock, Shard, Start
from stream.errors import Expired, Halted, Retryable
from stream.events import Event, PageReceived, PollRepeated
from stream.source.access import Recognition
from stream.source.expiry_watch import holds_older, iterator_at
from stream.source.kinesis import KinesisSource
from stream.source.pace import ReadSettings

BUDGET: Final = 64 * 2**20
"""Byte budget for these requests, each of which asks for one record."""

CALLS_PER_SECOND: Final = 2.0
"""Out of the five calls per second that all readers of a shard share; the shard's worker needs the others."""

FAILURES: Final = 5
"""Consecutive failed polls after which a shard counts as silent."""


class _ServiceClock:
    """The time by the clock of Kinesis, which decides what has expired."""

    def __init__(self, inner: Clock) -> None:
        self._inner = inner
        self.ahead = timedelta()

    def now(self) -> datetime:
        return self._inner.now() + self.ahead

    def monotonic(self) -> float:
        return self._inner.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class StreamLookahead:
    """Finds out what follows positions in one stream, with time-outs suited to a command. Emits no events, since it is not a reader.

    With ``recognition``, the shards are listed only if the stream is the one that is meant.
    """

    def __init__(self, client: KinesisClient, stream: str, clock: Clock, recognition: Recognition | None = None) -> None:
        settings = ReadSettings(limit=1, calls_per_second=CALLS_PER_SECOND)
        self._clock = _ServiceClock(clock)
        self._source = KinesisSource(
            client,
            stream,
            budget=ByteBudget(BUDGET),
            clock=self._clock,
            emit=self._count_failures,
            settings=settings,
            recognition=recognition,
        )
        self._failures: Counter[str] = Counter()
        self._silent: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._last_error: dict[str, str] = {}

    async def time(self) -> datetime:
        """As ``StreamAccess.time``."""
        self._clock.ahead = timedelta()
        moment = await self._source.time()
        self._clock.ahead = moment - self._clock.now()
        return moment

    async def unclaimed(self) -> None:
        """As ``completeness.SourceLookahead.unclaimed``."""
        return

    async def shards(self) -> list[Shard]:
        """As ``contracts.Source.shards``."""
        return await self._source.shards()

    async def after(
        self, shard: Shard, position: int, start: Start, complete_until: datetime | None, asked_at: datetime, done: int = -1
    ) -> Lookahead:
        """What follows ``position``; ``start`` and ``complete_until`` as for ``contracts.Source.read``.

        ``asked_at``: the service's time before this call. ``done``: in the Kinesis record after ``position``, the user records up to this
        index do not count.

        Raises:
            Fatal: stream missing, access denied.
        """
        if position == ORIGIN and start.timestamp is not None and start.timestamp > asked_at:
            return Lookahead(Found.TIP)  # Kinesis accepts no position in its own future
        self._failures[shard.shard_id] = 0
        silent = self._silent[shard.shard_id]
        silent.clear()
        looking = asyncio.ensure_future(self._after(shard, position, start, complete_until, done))
        waiting = asyncio.ensure_future(silent.wait())
        try:
            await asyncio.wait((looking, waiting), return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                return looking.result()
            return Lookahead(Found.SILENT, why=f"the stream does not answer: {self._last_error[shard.shard_id]}")
        finally:
            for task in (looking, waiting):
                task.cancel()
            await asyncio.gather(looking, waiting, return_exceptions=True)

    async def never_had(self, shard: Shard, position: int) -> bool:
        """Whether the shard never had a record with the number ``position``, although it holds older ones; False if that is not known.

        Raises:
            Fatal: stream missing, access denied.
            Retryable: the service does not answer.
        """
        held = await iterator_at(self._source, shard, position)
        return held is None and await holds_older(self._source, shard, position)

    async def _after(self, shard: Shard, position: int, start: Start, complete_until: datetime | None, done: int) -> Lookahead:
        source = self._source
        try:
            async with aclosing(source.read(shard, position, start, complete_until=complete_until)) as pages:  # type: ignore[type-var]
                async for page in pages:
                    source.budget.release(page.held)
                    rows = page.batch.frame.filter((pl.col(SEQUENCE) != str(position + 1)) | (pl.col(SUBSEQUENCE) > done))
                    if rows.height:
                        return Lookahead(Found.RECORD, rows[ARRIVAL].min())  # type: ignore[arg-type]
                    if page.ended or page.behind_ms == 0:
                        # With ``done``, the record after ``position`` is what was last processed, and no record has the number before it.
                        lost = await source.lost_after(shard, position + (done >= 0), complete_until)
                        if lost is not None:
                            return Lookahead(Found.EXPIRED, why=lost)
                        return Lookahead(Found.END, children=page.children) if page.ended else Lookahead(Found.TIP)
        except Expired as error:
            return Lookahead(Found.EXPIRED, why=str(error))
        except (Halted, Retryable) as error:
            return Lookahead(Found.SILENT, why=str(error))
        return Lookahead(Found.SILENT, why="reading came to no end")

    def _count_failures(self, event: Event) -> None:
        match event:
            case PageReceived(_, shard):
                self._failures[shard] = 0
            case PollRepeated(_, shard, _, detail):
                self._failures[shard] += 1
                self._last_error[shard] = detail
                if self._failures[shard] >= FAILURES:
                    self._silent[shard].set()
            case _:
                return
