"""Notifies people of halted shards and lost records through an SNS topic, a webhook, or both. Never holds up a shard."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import aiohttp
import msgspec

from stream import events
from stream.aws.secrets import read_secret
from stream.aws.session import AwsSession
from stream.aws.sns import publish
from stream.contracts import Clock, Emit
from stream.errors import Fatal, Retryable, StreamError
from stream.pipeline.replay import Notify
from stream.pipeline.resources.secrets import find_headers
from stream.worker.receivers.http_errors import describe_failure

ATTEMPTS: Final = 8
FIRST_WAIT: Final = 1.0
"""Seconds before the second attempt, doubled each time: eight attempts take about two minutes."""

FINISH_SECONDS: Final = 15.0
"""Seconds that a process spends at its end on unsent notifications."""

LOSS_SECONDS: Final = 3600.0
"""Seconds between two notifications of lost records of a stream: reading that is too slow loses some every few seconds."""

MAX_QUEUED: Final = 1000
"""Notifications that may be queued; further ones are only in the log."""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)


class Notification(msgspec.Struct, frozen=True):
    """The content of a message, as JSON."""

    event: str
    application: str
    stream: str
    shard: str
    reason: str
    time: str


Send: TypeAlias = Callable[[Notification], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to notify; ``send`` raises ``Retryable`` or ``Fatal``."""

    name: str
    send: Send


class Notifier:
    """An ``Emit`` that collects news; ``run`` sends them to each channel. Callable from any thread of the loop's process.

    Of a shard that is tried again and again and halts each time, people are notified once until something of it is sealed.
    """

    def __init__(self, application: str, channels: tuple[Channel, ...], clock: Clock, emit: Emit) -> None:
        self._application = application
        self._channels = channels
        self._clock = clock
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Notification] = asyncio.Queue(MAX_QUEUED)
        self._halted: set[tuple[str, str]] = set()
        self._lost: dict[str, float] = {}
        """When people were last notified that records of a stream are lost."""

    def __call__(self, event: events.Event) -> None:
        """Queue a notification if ``event`` is worth one."""
        where, now = (event.stream, event.shard), self._clock.monotonic()
        match event:
            case events.ShardHalted(reason=reason) if where not in self._halted:
                self._halted.add(where)
                self._tell("shard_halted", where, reason)
            case events.UnitSealed() | events.StreamResumed():
                self._halted.discard(where)
            case events.RecordsExpired(after=after, last=last, reason=reason):
                if now - self._lost.get(event.stream, float("-inf")) >= LOSS_SECONDS:
                    self._lost[event.stream] = now
                    self._tell(
                        "records_expired", where, f"the records after {after} up to {last} were lost before they were read: {reason}"
                    )
            case _:
                pass

    def _tell(self, what: str, where: tuple[str, str], reason: str) -> None:
        notification = Notification(what, self._application, *where, reason, self._clock.now().isoformat())
        self._loop.call_soon_threadsafe(self._put, notification)

    async def run(self) -> None:
        """Send notifications as they are queued, until cancelled."""
        while True:
            notification = await self._queue.get()
            try:
                await asyncio.gather(*(self._send(channel, notification) for channel in self._channels))
            finally:
                self._queue.task_done()

    async def finish(self) -> None:
        """Return once everything is sent, or after ``FINISH_SECONDS``; ``run`` must still be running."""
        handed_over = asyncio.Event()
        self._loop.call_soon_threadsafe(handed_over.set)  # runs after everything that was handed over before
        await handed_over.wait()
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await self._queue.join()
        except TimeoutError:
            return

    def _put(self, notification: Notification) -> None:
        if not self._queue.full():
            self._queue.put_nowait(notification)

    async def _send(self, channel: Channel, notification: Notification) -> None:
        wait = FIRST_WAIT
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await channel.send(notification)
            except Retryable as error:
                if attempt == ATTEMPTS:
                    self._emit(events.NotificationFailed(notification.stream, notification.shard, channel.name, str(error)))
                    return
                self._emit(events.CallRepeated(notification.stream, notification.shard, f"notify {channel.name}", str(error), wait))
                await self._clock.sleep(wait)
                wait *= 2
            except StreamError as error:
                self._emit(events.NotificationFailed(notification.stream, notification.shard, channel.name, str(error)))
                return
            else:
                return


async def open_notifier(
    config: Notify, application: str, env: Mapping[str, str], base: Path, clock: Clock, emit: Emit, stack: AsyncExitStack
) -> Notifier | None:
    """The notifier that ``config`` asks for, None if it asks for none; connections live as long as ``stack``.

    Raises:
        DefinitionError: a secret for a header is missing.
    """
    channels = []
    if config.sns is not None:
        session = AwsSession(region=config.region or config.sns.split(":")[3])
        channels.append(Channel("sns", _topic(session, config.sns)))
    if config.webhook is not None:
        managed = functools.partial(read_secret, AwsSession(region=config.region))
        headers = await find_headers(config.headers, env, base, managed)
        client = await stack.enter_async_context(aiohttp.ClientSession(timeout=_TIMEOUT))
        channels.append(Channel("webhook", _webhook(client, config.webhook, headers)))
    return Notifier(application, tuple(channels), clock, emit) if channels else None


def _topic(session: AwsSession, topic: str) -> Send:
    async def send(notification: Notification) -> None:
        done = "has lost records" if notification.event == "records_expired" else "has halted"
        subject = f"{notification.application}: shard {notification.shard or 'all'} of {notification.stream} {done}"
        await publish(session, topic, subject, msgspec.json.encode(notification).decode())

    return send


def _webhook(client: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> Send:
    async def send(notification: Notification) -> None:
        sent = {"content-type": "application/json", **headers}
        try:
            async with client.post(url, data=msgspec.json.encode(notification), headers=sent, allow_redirects=False) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            msg = f"the webhook of `notify` did not answer: {describe_failure(error)}"
            raise Retryable(msg) from error
        if status == 429 or status >= 500:
            msg = f"the webhook of `notify` answered {status}"
            raise Retryable(msg)
        if status >= 300:
            msg = f"the webhook of `notify` refused the message with {status}; correct notify.webhook or its headers"
            raise Fatal(msg)

    return send
