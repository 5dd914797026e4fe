"""One shard by enhanced fan-out: records are pushed over a subscription, and polled while there cannot be one.

How pages are made, where a shard ends, and how expired records are noticed is the same as in polling (``shard.py``). A subscription
lives for five minutes; the next one begins after the last event's continuation. Refusals that are not understood here are left to
polling, which knows what it means for the shard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Final

from stream.aws.errors import NOT_FOUND, AwsFatal, AwsRetryable
from stream.aws.fan_out import Subscription, subscribe
from stream.aws.kinesis import IteratorAt, IteratorKind
from stream.aws.pages import RawPage
from stream.aws.retry import FOR_EVER, THROTTLED, Wait, decide
from stream.contracts import Page, Shard, Start
from stream.events import RetrievalChanged, SubscriptionEnded
from stream.source.access import StreamAccess, shown
from stream.source.consumer import IN_USE, NOT_ACTIVE, Consumer
from stream.source.memory import Reservation
from stream.source.pace import FanOut
from stream.source.shard import ShardReader

POLLING: Final = "polling"
FAN_OUT: Final = "fan_out"
_GOOD_SECONDS: Final = 60.0
"""A subscription that breaks sooner and delivers only empty events counts as fruitless."""

_MAX_FRUITLESS: Final = 5
"""Consecutive fruitless subscriptions after which the shard is polled for a while."""


class FanOutReader(ShardReader):
    """Reads one shard once; see ``contracts.Source.read`` for what ``pages`` delivers."""

    def __init__(
        self,
        source: StreamAccess,
        consumer: Consumer,
        settings: FanOut,
        shard: Shard,
        after: int,
        start: Start,
        complete_until: datetime | None,
    ) -> None:
        super().__init__(source, shard, after, start, None, complete_until)
        self._consumer = consumer
        self._fan_out = settings
        self._subscription: Subscription | None = None
        self._continuation: str | None = None
        self._subscribed_at: float | None = None
        self._polling_until: float | None = None
        self._fruitless = 0

    async def pages(self) -> AsyncIterator[Page]:
        """See ``ShardReader.pages``; also ends the subscription."""
        try:
            async with aclosing(super().pages()) as pages:  # type: ignore[type-var]
                async for page in pages:
                    yield page
        finally:
            self._close()

    async def _attempt(self) -> Page | None:
        if self._polling_until is not None:
            if self._source.clock.monotonic() < self._polling_until:
                return await super()._attempt()
            self._share.end_turn()
            self._change(FAN_OUT, "")
        try:
            page = await self._next_pushed_page()
        except AwsRetryable as error:
            await self._handle_broken(error)
            return None
        except AwsFatal as error:
            if error.code == NOT_FOUND:
                self._consumer.forget()
            self._change(POLLING, str(error))
            return None
        if page is not None and (page.batch.rows or page.ended or self._has_lasted()):
            self._fruitless = self._failures = 0
        return page

    def _has_lasted(self) -> bool:
        """Whether the subscription has lasted long enough to count as good even if nothing arrived."""
        since = self._subscribed_at
        return since is not None and self._source.clock.monotonic() - since > _GOOD_SECONDS

    async def _next_pushed_page(self) -> Page | None:
        """The page of the next event; None if the subscription ended normally or the message contained no records."""
        subscription = self._subscription or await self._subscribe()
        try:
            async with asyncio.timeout(self._fan_out.silence_seconds):
                size = await subscription.next_size()
        except TimeoutError:
            msg = f"{shown(self._shard)}: the subscription was silent for {self._fan_out.silence_seconds:g} s"
            raise AwsRetryable(msg, code="Silence") from None
        if size is None:
            self._close()
            self._source.emit(SubscriptionEnded(self._shard.stream, self._shard.shard_id, "renewed", "", 0.0))
            return None
        reserved = await self._reserve_in_time(size)
        if reserved is None:
            return None
        with reserved as reservation:
            begin = self._source.clock.monotonic()
            raw = await self._received(subscription, size)
            if raw is None:
                return None
            page = await self._page(raw, self._source.clock.monotonic() - begin, reservation)
            self._continuation = raw.next_iterator
            return page

    async def _received(self, subscription: Subscription, size: int) -> RawPage | None:
        try:
            async with asyncio.timeout(self._fan_out.silence_seconds):
                return await subscription.next_page(size)
        except TimeoutError:
            msg = f"{shown(self._shard)}: the subscription stalled inside a message for {self._fan_out.silence_seconds:g} s"
            raise AwsRetryable(msg, code="Silence") from None

    async def _reserve_in_time(self, size: int) -> Reservation | None:
        """Reserve memory for the next message. None if memory stayed short: the subscription is then ended."""
        try:
            async with asyncio.timeout(self._fan_out.hold_seconds):
                return await self._share.reserve(size)
        except TimeoutError:
            self._close()
        self._source.emit(SubscriptionEnded(self._shard.stream, self._shard.shard_id, "budget", "", 0.0))
        with await self._share.reserve(size):
            return None

    async def _subscribe(self) -> Subscription:
        source, last = self._source, self._subscribed_at
        arn = await self._consumer.arn()
        if last is not None:
            await source.clock.sleep(max(0.0, last + self._fan_out.resubscribe_seconds - source.clock.monotonic()))
        # What is pushed may wait for this process, which may be busy or frozen; nothing is older than the subscription.
        self._asked = source.clock.now()
        self._subscription = await subscribe(source.client, source.stream, arn, self._shard.shard_id, self._place())
        self._subscribed_at = source.clock.monotonic()
        return self._subscription

    def _place(self) -> IteratorAt:
        """The position after the last event, which on a quiet shard is much later than the last record."""
        if self._continuation is not None:
            return IteratorAt(IteratorKind.AFTER, sequence=self._continuation)
        return self._progress.beginning(self._source.clock.now())

    async def _handle_broken(self, error: AwsRetryable) -> None:
        """Handle a subscription that broke or could not be started yet."""
        was_subscribed = self._subscription is not None
        self._close()
        self._fruitless += 1
        if (was_subscribed and error.code == IN_USE) or error.code == NOT_ACTIVE or self._fruitless >= _MAX_FRUITLESS:
            self._change(POLLING, str(error))
            return
        if error.code == IN_USE:
            wait = self._fan_out.resubscribe_seconds * (1 + self._source.random())
        else:
            step = decide(error, self._fruitless, self._source.random(), FOR_EVER if was_subscribed else THROTTLED)
            wait = step.seconds if isinstance(step, Wait) else 0.0
        why = "in_use" if error.code == IN_USE else "silence" if error.code == "Silence" else "broken"
        self._source.emit(SubscriptionEnded(self._shard.stream, self._shard.shard_id, why, str(error), wait))
        await self._source.clock.sleep(wait)

    def _change(self, to: str, why: str) -> None:
        """Switch to the other way of reading, at the same position."""
        self._close()
        self._fruitless = 0
        self._iterator = self._continuation = None
        now = self._source.clock.monotonic()
        self._polling_until = now + self._fan_out.retry_seconds if to == POLLING else None
        self._source.emit(RetrievalChanged(self._shard.stream, self._shard.shard_id, to, why))

    def _close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
