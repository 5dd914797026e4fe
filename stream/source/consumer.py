"""The registered consumer that all subscriptions of one stream use: looked up or registered once, and awaited until it is active."""

from __future__ import annotations

import asyncio
from typing import Final

from stream.aws.errors import NOT_FOUND, AwsFatal, AwsRetryable
from stream.aws.fan_out import ACTIVE, Registered, describe_consumer, register_consumer
from stream.source.access import StreamAccess
from stream.stream_ids import as_written

_LOOK_SECONDS: Final = 1.0
"""Seconds between looks at a consumer that is being registered; DescribeStreamConsumer allows 20 calls a second per stream."""
_LOOKS: Final = 60
IN_USE: Final = "ResourceInUseException"
NOT_ACTIVE: Final = "ConsumerNotActive"
"""Error code, of this service, for a consumer that did not become active in time."""


class Consumer:
    """The consumer named ``name`` of one stream; it is never deregistered, since other workers may use it."""

    def __init__(self, source: StreamAccess, name: str) -> None:
        self._source = source
        self._name = name
        self._arn: str | None = None
        self._asking = asyncio.Lock()
        self._timeouts: tuple[int, str] = (0, "")
        """How often waiting for the consumer timed out, and the last error message."""

    async def arn(self) -> str:
        """The active consumer's ARN, registered now if there was none.

        Raises:
            AwsFatal: denied.
            AwsRetryable: too many consumers, or the service fails; with code ``NOT_ACTIVE``, it does not become active.
        """
        timeouts_before, _ = self._timeouts
        async with self._asking:
            if self._arn is None:
                timeouts, why = self._timeouts
                if timeouts != timeouts_before:
                    # This reader has already waited, along with another one. If all waited in turn, each shard would take a minute.
                    raise AwsRetryable(why, code=NOT_ACTIVE)
                self._arn = await self._active()
            return self._arn

    def forget(self) -> None:
        """Look for the consumer again next time, because the service says that it does not exist."""
        self._arn = None

    async def _active(self) -> str:
        source = self._source
        stream_arn = as_written(source.stream)
        if not stream_arn.startswith("arn:"):
            stream_arn = (await source.client.describe_stream_summary(stream_arn)).arn
        # A shard is not read while its reader waits here, so only the first wait is a long one.
        looks = 1 if self._timeouts[0] else _LOOKS
        for _ in range(looks):
            found = await self._found(stream_arn)
            if found.status == ACTIVE:
                return found.arn
            await source.clock.sleep(_LOOK_SECONDS)
        msg = f"consumer {self._name} of {stream_arn} did not become {ACTIVE} within {looks * _LOOK_SECONDS:g} s, it is {found.status}"
        self._timeouts = (self._timeouts[0] + 1, msg)
        raise AwsRetryable(msg, code=NOT_ACTIVE)

    async def _found(self, stream_arn: str) -> Registered:
        client = self._source.client
        try:
            return await describe_consumer(client, stream_arn, self._name)
        except AwsFatal as error:
            if error.code != NOT_FOUND:
                raise
        try:
            return await register_consumer(client, stream_arn, self._name)
        except AwsRetryable as error:
            if error.code != IN_USE:
                raise
        return await describe_consumer(client, stream_arn, self._name)
