"""SubscribeToShard: pushes pages for five minutes, each as soon as there is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from stream.contracts import Clock
from stream.local.kinesis import eventstream
from stream.local.kinesis.errors import ApiError, in_use, invalid
from stream.local.kinesis.protocol import Members, Params, Records, Wire
from stream.local.kinesis.records import position
from stream.local.kinesis.shards import Page, Shard
from stream.local.kinesis.state import Call, State, child_shards
from stream.local.kinesis.streams import find_consumer

_EVENT_RECORDS: Final = 1000


class Pulse:
    """Wakes all who wait for a change. Get ``next`` before looking, so that a change between looking and waiting is not missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """Set at the next change."""
        return self._event

    def beat(self) -> None:
        """Something changed."""
        self._event.set()
        self._event = asyncio.Event()


@dataclass(slots=True, eq=False)
class Subscription:
    """One open push channel. ``over`` says why it must end."""

    consumer_arn: str
    stream: str
    shard_id: str
    after: int
    since_ms: int
    over: ApiError | None = None


class Subscriptions:
    """Who is subscribed to what; one holder per consumer and shard."""

    def __init__(self, state: State, clock: Clock) -> None:
        self.state = state
        self.clock = clock
        self.pulse = Pulse()
        self.closing = False
        self._held: dict[tuple[str, str], Subscription] = {}

    def open(self, call: Call) -> Subscription:
        """Take the channel; an older holder's ends with ResourceInUseException.

        Raises:
            ApiError: unknown consumer, shard or position; or the holder took it less than ``resubscribe_ms`` ago.
        """
        stream, consumer = find_consumer(self.state, call)
        if consumer.status(call.now_ms) != "ACTIVE":
            message = f"Consumer {consumer.arn} is {consumer.status(call.now_ms)}; it can subscribe when it is ACTIVE."
            raise in_use(message)
        shard = stream.shard(call.params.text("ShardId"))
        where = call.params.structure("StartingPosition")
        if where is None:
            message = "StartingPosition is required, with a Type and, for some types, a SequenceNumber or Timestamp."
            raise invalid(message)
        after = position(shard, where, "Type", "SequenceNumber", call.now_ms)
        key = (consumer.arn, shard.shard_id)
        holder = self._held.get(key)
        if holder is not None and call.now_ms - holder.since_ms < self.state.settings.resubscribe_ms:
            message = f"Another active subscription exists for consumer {consumer.arn} on {shard.shard_id}; try again later."
            raise in_use(message)
        if holder is not None:
            holder.over = in_use(f"Another subscription of consumer {consumer.arn} took over {shard.shard_id}.")
        self._held[key] = Subscription(consumer.arn, stream.key, shard.shard_id, after, call.now_ms)
        self.pulse.beat()
        return self._held[key]

    def close(self) -> None:
        """End all channels."""
        self.closing = True
        self.pulse.beat()

    async def events(self, subscription: Subscription, wire: Wire) -> AsyncIterator[bytes]:
        """The messages of the channel, from the initial response to the end of the shard or of the five minutes."""
        settings = self.state.settings
        end = self.clock.monotonic() + settings.subscription_ms / 1000
        quiet_since = float("-inf")
        yield eventstream.initial_response(wire)
        while not self.closing:
            changed = self.pulse.next
            now = self.clock.monotonic()
            try:
                shard, page = self._next_page(subscription)
            except ApiError as error:
                yield eventstream.exception(error, wire)
                return
            if page.records or page.ended or now - quiet_since >= settings.heartbeat_ms / 1000:
                subscription.after, quiet_since = page.last, now
                yield eventstream.event(_event(shard, page), wire)
            if page.ended or now >= end:
                return
            if not page.behind_ms:
                await self._wait(changed, min(settings.heartbeat_ms / 1000, end - now))

    async def silence(self, subscription: Subscription) -> None:
        """Say nothing until another subscriber takes the channel, its five minutes are over, or the server ends."""
        end = self.clock.monotonic() + self.state.settings.subscription_ms / 1000
        while not self.closing and subscription.over is None and (left := end - self.clock.monotonic()) > 0:
            await self._wait(self.pulse.next, left)

    def _next_page(self, subscription: Subscription) -> tuple[Shard, Page]:
        if subscription.over is not None:
            raise subscription.over
        now_ms = round(self.clock.now().timestamp() * 1000)
        call = Call(Params({"ConsumerARN": subscription.consumer_arn}), now_ms)
        stream, _ = find_consumer(self.state, call)
        shard = stream.shard(subscription.shard_id)
        return shard, shard.read(subscription.after, _EVENT_RECORDS, now_ms)

    async def _wait(self, changed: asyncio.Event, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(changed.wait()), group.create_task(self.clock.sleep(seconds))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()


def _event(shard: Shard, page: Page) -> Records:
    rest: Members = {
        # The position before the first record may be one that clients cannot ask for; the tip always can be.
        "ContinuationSequenceNumber": str(page.last if page.records else shard.tip),
        "MillisBehindLatest": page.behind_ms,
    }
    if page.ended:
        rest |= {"ContinuationSequenceNumber": None, "ChildShards": child_shards(shard)}
    return Records(page.records, rest)
