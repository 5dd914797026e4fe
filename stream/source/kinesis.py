"""A Kinesis stream as a source of pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from functools import cached_property

from stream.batch import ORIGIN
from stream.budget import ByteBudget
from stream.contracts import Page, Shard, Start
from stream.source.access import StreamAccess
from stream.source.consumer import Consumer
from stream.source.expiry_watch import NEAR_HORIZON, iterator_at
from stream.source.fan_out import FanOutReader
from stream.source.shard import ShardReader


class KinesisSource(StreamAccess):
    """``contracts.Source`` over one stream."""

    def read(
        self, shard: Shard, after: int, start: Start, until: int | None = None, complete_until: datetime | None = None
    ) -> AsyncIterator[Page]:
        """Pages of ``shard``, as ``contracts.Source.read`` promises.

        Ranges with an end are always polled: they are short, and a second subscription would end the one that follows the shard.
        """
        settings = self.settings.fan_out
        if settings is not None and until is None:
            return FanOutReader(self, self._consumer, settings, shard, after, start, complete_until).pages()
        return ShardReader(self, shard, after, start, until, complete_until).pages()

    def with_budget(self, budget: ByteBudget) -> KinesisSource:
        """The same stream with another budget, for readers that must not wait for the readers of this one."""
        return KinesisSource(
            self.client,
            self.stream,
            budget=budget,
            clock=self.clock,
            emit=self.emit,
            settings=self.settings,
            random=self.random,
            recognition=self.recognition,
        )

    async def lost_after(self, shard: Shard, position: int, complete_until: datetime | None) -> str | None:
        """Why records right after ``position`` (of a record, or ``ORIGIN``) may have expired unread; None if none have.

        The oldest records expire first. So as long as the stream still holds the record itself, or its retention reaches back to
        ``complete_until``, no record after it has expired. For a shard that was never read, this is unknown.
        """
        if position == ORIGIN:
            return None
        retention = await self.retention()
        if complete_until is not None and self.clock.now() - complete_until + NEAR_HORIZON < retention:
            return None
        if await iterator_at(self, shard, position) is not None:
            return None
        return (
            f"the stream keeps records for {retention} and no longer holds {position}, the last one sealed: others may have expired unread"
        )

    @cached_property
    def _consumer(self) -> Consumer:
        if self.settings.fan_out is None:
            msg = "only a source with fan_out has a consumer"
            raise ValueError(msg)
        return Consumer(self, self.settings.fan_out.consumer)
