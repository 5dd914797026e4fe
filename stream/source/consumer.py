"""The registered consumer that all subscriptions of one stream use: found or registered once, and waited for."""

from __future__ import annotations

import asyncio
from typing import Final

from stream.aws.errors import NOT_FOUND, AwsFatal, AwsRetryable
from stream.aws.fan_out import ACTIVE, Registered, describe_consumer, register_consumer
from stream.source.access import StreamAccess

_LOOK_SECONDS: Final = 1.0
"""Seconds between looks at a consumer that is being registered; DescribeStreamConsumer allows 20 calls a second per stream."""
_LOOKS: Final = 60
IN_USE: Final = "ResourceInUseException"
NOT_ACTIVE: Final = "ConsumerNotActive"
"""Our code for a consumer that was waited for in vain."""


class Consumer:
    """The consumer named ``name`` of one stream; it is never deregistered, since other workers may use it."""

    def __init__(self, source: StreamAccess, name: str) -> None:
        self._source = source
        self._name = name
        self._arn: str | None = None
        self._asking = asyncio.Lock()
        self._in_vain: tuple[int, str] = (0, "")
        """How often the consumer was waited for in vain, and what was said the last time."""

    async def arn(self) -> str:
        """The active consumer's ARN, registered now if there was none.

        Raises:
            AwsFatal: denied.
            AwsRetryable: too many consumers, or the service fails; with code ``NOT_ACTIVE``, it does not become active.
        """
        before, _ = self._in_vain
        async with self._asking:
            if self._arn is None:
                count, why = self._in_vain
                if count != before:
                    # Whoever came while another reader waited has waited, too; one after the other would take a minute for each shard.
                    raise AwsRetryable(why, code=NOT_ACTIVE)
                self._arn = await self._active()
            return self._arn

    def forget(self) -> None:
        """Look for the consumer again next time, because the service says that it does not exist."""
        self._arn = None

    async def _active(self) -> str:
        source = self._source
        stream_arn = source.stream
        if not stream_arn.startswith("arn:"):
            stream_arn = (await source.client.describe_stream_summary(stream_arn)).arn
        for _ in range(_LOOKS):
            found = await self._found(stream_arn)
            if found.status == ACTIVE:
                return found.arn
            await source.clock.sleep(_LOOK_SECONDS)
        msg = f"consumer {self._name} of {stream_arn} did not become {ACTIVE} within {_LOOKS * _LOOK_SECONDS:g} s, it is {found.status}"
        self._in_vain = (self._in_vain[0] + 1, msg)
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
