"""A Kinesis stream as a source: GetRecords polling, one reader for each shard."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta

from stream.aws.errors import AwsRetryable
from stream.aws.kinesis import KinesisClient, stream_name
from stream.aws.retry import A_FEW_TIMES, GiveUp, decide
from stream.budget import ByteBudget
from stream.contracts import Clock, Emit, Page, Shard, Start
from stream.events import PollRepeated
from stream.source.pace import ReadSettings
from stream.source.shard import ShardReader

_dice = secrets.SystemRandom().random


class KinesisSource:
    """``contracts.Source`` over one stream, given by name or ARN.

    All readers take their bytes from ``budget``, from before a page is fetched until whoever got the page gives them back.
    ``dice`` gives numbers in [0, 1) that spread out repeated calls.
    """

    def __init__(
        self,
        client: KinesisClient,
        stream: str,
        *,
        budget: ByteBudget,
        clock: Clock,
        emit: Emit,
        settings: ReadSettings | None = None,
        dice: Callable[[], float] = _dice,
    ) -> None:
        self.client = client
        self.stream = stream
        self.budget = budget
        self.clock = clock
        self.emit = emit
        self.settings = settings or ReadSettings()
        self.dice = dice
        self.readers = 0
        """Shards being read now: they share the budget."""
        self._retention: timedelta | None = None

    async def shards(self) -> list[Shard]:
        """All shards the service still knows, open or closed, ordered by id; asks up to eight times.

        Raises:
            Fatal: stream missing, access denied.
            Retryable: the service went on failing.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self.client.list_shards(self.stream)
            except AwsRetryable as error:
                step = decide(error, attempt, self.dice(), A_FEW_TIMES)
                if isinstance(step, GiveUp):
                    raise
                self.emit(PollRepeated(stream_name(self.stream), "", "error", str(error), step.seconds))
                await self.clock.sleep(step.seconds)

    async def retention(self) -> timedelta:
        """How long the stream keeps records; asked for once."""
        if self._retention is None:
            self._retention = (await self.client.describe_stream_summary(self.stream)).retention
        return self._retention

    def read(
        self, shard: Shard, after: int, start: Start, until: int | None = None, complete_until: datetime | None = None
    ) -> AsyncIterator[Page]:
        """Pages of ``shard``, as ``contracts.Source.read`` promises."""
        return ShardReader(self, shard, after, start, until, complete_until).pages()
