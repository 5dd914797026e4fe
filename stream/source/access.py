"""What the readers of one stream share: client, byte budget, clock, and calls about the stream as a whole."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeVar

from stream.aws.errors import AwsRetryable, StreamMissing
from stream.aws.kinesis import KinesisClient, StreamSummary
from stream.aws.retry import A_FEW_TIMES, GiveUp, decide
from stream.budget import ByteBudget
from stream.contracts import Clock, Emit, Shard
from stream.errors import OtherStream
from stream.events import PollRepeated, StreamDescribed
from stream.source.pace import ReadSettings
from stream.stream_ids import stream_id

_DESCRIBE_SECONDS: Final = 600.0
"""Seconds between checks of the retention. DescribeStreamSummary allows 20 calls per second per account."""

CLOCK_SLACK: Final = timedelta(minutes=1)
"""How much earlier than the time of Kinesis the arrival times of later records may be, since its hosts have clocks of their own."""

MOST_AHEAD: Final = timedelta(minutes=5)
"""How far our clock can be ahead of that of Kinesis, which refuses calls signed with a time further ahead."""

T = TypeVar("T")

_random = secrets.SystemRandom().random


def shown(shard: Shard) -> str:
    """``shard`` as errors name it."""
    return f"shard {shard.shard_id} of stream {shard.stream}"


class Recognition(Protocol):
    """Says whether a stream is the one that is meant."""

    @property
    def done(self) -> bool:
        """Whether the stream was recognised at least once."""
        ...

    async def __call__(self, summary: StreamSummary) -> None:
        """Return if the stream described is the one that is meant.

        Raises:
            OtherStream: it is another one.
            Fatal: it is not to be read for another reason.
        """
        ...


async def described(client: KinesisClient, stream: str, recognition: Recognition | None) -> StreamSummary:
    """What the service says of ``stream``, recognised.

    What was said before ``recognition`` was asked may be out of date: if the stream was deleted and created again meanwhile, and others
    know the new one, it is of a former one. So a stream counts as another one only if it is still that when the service is asked again.

    Raises:
        Fatal: stream missing, access denied, or another stream than the one that is meant.
        Retryable: the service or the state kept failing.
    """
    summary = await client.describe_stream_summary(stream)
    if recognition is not None:
        try:
            await recognition(summary)
        except OtherStream:
            summary = await client.describe_stream_summary(stream)
            await recognition(summary)
    return summary


class StreamAccess:
    """One stream, given by name, ARN or id, and what all readers of its shards share.

    Readers acquire bytes from ``budget`` before they fetch a page; whoever receives the page releases them. ``random`` returns numbers
    in [0, 1), for jitter between retries. ``recognition`` is asked whenever the stream is described, and before its shards are first
    listed.
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
        random: Callable[[], float] = _random,
        recognition: Recognition | None = None,
    ) -> None:
        self.client = client
        self.stream = stream
        self.budget = budget
        self.clock = clock
        self.emit = emit
        self.settings = settings or ReadSettings()
        self.random = random
        self.recognition = recognition
        self._retention: timedelta | None = None
        self._created = datetime.fromtimestamp(0, UTC)
        self._describe_at = clock.monotonic()

    async def shards(self) -> list[Shard]:
        """All shards that Kinesis lists, open or closed, ordered by id; makes up to eight attempts.

        Raises:
            Fatal: stream missing, access denied, or another stream than the one that is meant.
            Retryable: the service kept failing.
        """
        await self._describe()
        try:
            return await self._a_few_times(lambda: self.client.list_shards(self.stream))
        except StreamMissing:
            # If there is a stream again, it may be another one.
            self._describe_at = self.clock.monotonic()
            raise

    async def time(self) -> datetime:
        """The time by the clock of Kinesis, or an earlier one: all records from now on arrive then or later. Makes up to eight attempts.

        If a response has no date, this is the time of our own clock less the greatest possible difference.

        Raises:
            Fatal: stream missing, access denied.
            Retryable: the service kept failing.
        """
        before = self.clock.now()
        return await self._a_few_times(lambda: self.client.time(self.stream)) or before - MOST_AHEAD

    async def _a_few_times(self, call: Callable[[], Awaitable[T]]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await call()
            except AwsRetryable as error:
                step = decide(error, attempt, self.random(), A_FEW_TIMES)
                if isinstance(step, GiveUp):
                    raise
                self.emit(PollRepeated(stream_id(self.stream), "", "error", str(error), step.seconds))
                await self.clock.sleep(step.seconds)

    async def _describe(self) -> None:
        """Report the retention occasionally; somebody may raise it because readers are behind."""
        if self.clock.monotonic() < self._describe_at:
            return
        if self.recognition is None or self.recognition.done:
            with contextlib.suppress(AwsRetryable):
                await self._look()
        else:
            await self._a_few_times(self._look)
        self._describe_at = self.clock.monotonic() + _DESCRIBE_SECONDS

    async def _look(self) -> StreamSummary:
        summary = await described(self.client, self.stream, self.recognition)
        self._retention, self._created = summary.retention, summary.created
        self.emit(StreamDescribed(stream_id(self.stream), "", summary.retention.total_seconds(), summary.open_shards))
        return summary

    async def retention(self) -> timedelta:
        """The stream's retention; requested once."""
        return self._retention if self._retention is not None else (await self._look()).retention

    async def created(self) -> datetime:
        """When the stream was created, or long before if the service does not say; requested once. No record of it is older."""
        await self.retention()
        return self._created
