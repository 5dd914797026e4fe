"""Enhanced fan-out: a registered consumer, and subscriptions that push records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from stream.aws.errors import AwsRetryable, Call, explain, translate
from stream.aws.eventstream import PRELUDE_BYTES, BrokenMessage, Message, message_bytes, parse_message
from stream.aws.kinesis import IteratorAt, KinesisClient, refusal
from stream.aws.pages import RawPage, parse_event

ACTIVE: Final = "ACTIVE"
_OPERATION: Final = "SubscribeToShard"
_PATIENT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=None)
"""A subscription lives for five minutes and may be silent between heartbeats; its reader has a watchdog."""
_ANSWER_SECONDS: Final = 30.0
_PARSE_ASIDE: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered consumer; it can subscribe once ``status`` is ``ACTIVE``."""

    arn: str
    status: str


class _Consumer(msgspec.Struct):
    ConsumerARN: str
    ConsumerStatus: str


class _Registration(msgspec.Struct):
    Consumer: _Consumer


class _Description(msgspec.Struct):
    ConsumerDescription: _Consumer


class Subscription:
    """One response to SubscribeToShard, read message by message: first the size of the next one, then the message.

    Nothing is read in between, so that a reader without room for a message can leave it in the connection.
    """

    def __init__(self, call: Call, response: aiohttp.ClientResponse) -> None:
        self._call = call
        self._response = response
        self._prelude = b""

    async def next_size(self) -> int | None:
        """Bytes of the next message; None if the service has ended the subscription normally.

        Raises:
            AwsRetryable: the connection broke.
        """
        if not self._prelude:
            self._prelude = await self._exactly(PRELUDE_BYTES, at_end=True)
        if not self._prelude:
            return None
        try:
            return message_bytes(self._prelude)
        except BrokenMessage as error:
            raise self._broken(error) from error

    async def next_page(self, size: int) -> RawPage | None:
        """The message whose size ``next_size`` has returned; None if it is not one with records.

        ``RawPage.next_iterator`` is the sequence number after which to continue.

        Raises:
            AwsRetryable: the connection broke, or the subscription ended with an error that may pass.
            AwsFatal: it ended with an error that will not.
        """
        rest, prelude, self._prelude = await self._exactly(size), self._prelude, b""
        try:
            message = parse_message(prelude, rest)
            if message.headers.get(":message-type") != "event":
                raise self._refusal(message)
            if message.headers.get(":event-type") != "SubscribeToShardEvent":
                return None
            large = len(message.payload) > _PARSE_ASIDE
            return await asyncio.to_thread(parse_event, message.payload) if large else parse_event(message.payload)
        except (BrokenMessage, msgspec.DecodeError) as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Close the connection; messages still in it are sent again by the next subscription."""
        self._response.close()

    async def _exactly(self, size: int, *, at_end: bool = False) -> bytes:
        try:
            return await self._response.content.readexactly(size)
        except asyncio.IncompleteReadError as error:
            if at_end and not error.partial:
                return b""
            msg = f"{self._call}: the connection ended inside a message"
            raise AwsRetryable(msg, code="BrokenSubscription") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise translate(self._call, error) from error

    def _refusal(self, message: Message) -> Exception:
        code = message.headers.get(":exception-type") or message.headers.get(":error-code", "")
        named, text = refusal(message.payload, code)
        # An ``error`` is one that the API does not describe; those that it does are exceptions.
        status = 500 if message.headers.get(":message-type") == "error" else 400
        return explain(self._call, code or named, message.headers.get(":error-message", text), status)

    def _broken(self, error: Exception) -> AwsRetryable:
        return AwsRetryable(f"{self._call}: {error}", code="BrokenSubscription")


async def subscribe(client: KinesisClient, stream: str, consumer_arn: str, shard_id: str, at: IteratorAt) -> Subscription:
    """A subscription that begins at ``at``; the caller closes it. The previous one of the same consumer and shard ends.

    Raises:
        AwsRetryable: no response, throttled, or ``ResourceInUseException``: there was one within the last five seconds.
        AwsFatal: refused.
    """
    position: dict[str, Any] = {"Type": at.kind.value}
    if at.sequence is not None:
        position["SequenceNumber"] = at.sequence
    if at.timestamp is not None:
        position["Timestamp"] = at.timestamp.timestamp()
    request = {"ConsumerARN": consumer_arn, "ShardId": shard_id, "StartingPosition": position}
    call = client.describe_call(_OPERATION, stream)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return Subscription(call, await client.post(_OPERATION, stream, request, _PATIENT))
    except TimeoutError as error:
        raise translate(call, error) from error


async def describe_consumer(client: KinesisClient, stream_arn: str, name: str) -> Registered:
    """The stream's consumer called ``name``.

    Raises:
        AwsFatal: with code ``ResourceNotFoundException`` if there is none.
    """
    request = {"StreamARN": stream_arn, "ConsumerName": name}
    found = (await client.ask("DescribeStreamConsumer", stream_arn, request, _Description)).ConsumerDescription
    return Registered(found.ConsumerARN, found.ConsumerStatus)


async def register_consumer(client: KinesisClient, stream_arn: str, name: str) -> Registered:
    """Register the consumer; it is not active yet.

    Raises:
        AwsRetryable: with code ``ResourceInUseException`` if there is one of that name; ``LimitExceededException`` if there are too many.
    """
    made = (await client.ask("RegisterStreamConsumer", stream_arn, {"StreamARN": stream_arn, "ConsumerName": name}, _Registration)).Consumer
    return Registered(made.ConsumerARN, made.ConsumerStatus)
