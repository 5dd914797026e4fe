"""DynamoDB over its JSON protocol: botocore finds endpoint and credentials, msgspec parses.

Each call is made only once. A hidden repeat of a conditional write would conflict with its own first attempt and take it for another's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from stream.aws.errors import UNKNOWN, AwsFatal, AwsRetryable, Call, explain, is_throttle, unreadable
from stream.aws.posting import Post, SignedPost, open_post
from stream.aws.session import AwsSession
from stream.aws.signing import Signer
from stream.aws.wire import Timeouts
from stream.contracts import Clock
from stream.errors import StreamError

CONDITION_FAILED: Final = "ConditionalCheckFailedException"
TABLE_MISSING: Final = "ResourceNotFoundException"

_TARGET: Final = "DynamoDB_20120810."
_TIMEOUTS: Final = Timeouts(connect=2.0, total=5.0)
"""Seconds; DynamoDB answers in milliseconds, and a response that takes longer must not outlive the lease that it is about."""

_NEEDED: Final[Mapping[str, str]] = {"Scan": "Items", "DescribeTable": "Table"}
"""Members that a response must have; without them it is not DynamoDB's, and would be taken for an empty table."""

Item = dict[str, dict[str, Any]]


class ConditionFailed(StreamError):
    """A conditional write did nothing; ``item`` is the row that prevented it, or None if there is none or the service did not say."""

    def __init__(self, message: str, item: Item | None) -> None:
        super().__init__(message)
        self.item = item


class _Refusal(msgspec.Struct, rename={"type": "__type"}):
    type: str = ""
    message: str = ""
    Message: str = ""
    Item: dict[str, dict[str, Any]] | None = None


class DynamoDb:
    """DynamoDB calls; rows as the wire has them, ``{name: {type: value}}``."""

    def __init__(self, session: AwsSession, url: str, post: Post, clock: Clock) -> None:
        self._region = session.region
        self._url = url
        self._post = SignedPost(post, Signer("dynamodb", self._region, url), session, clock, _TARGET)

    @property
    def place(self) -> str:
        """Region and endpoint, for messages."""
        return f"region {self._region}, endpoint {self._url}"

    async def call(self, operation: str, table: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to ``operation`` on ``table``.

        Raises:
            ConditionFailed: the request's condition does not hold; nothing was written.
            AwsRetryable: throttled, or no response: a write may have happened.
            AwsFatal: refused for good.
        """
        call = Call(f"dynamodb:{operation}", f"table {table}", self.place)
        body = msgspec.json.encode({"TableName": table, **request})
        status, answer = await self._post.send(call, operation, body)
        if status != 200:
            raise _refused(call, bytes(answer), status)
        try:
            decoded = msgspec.json.decode(answer, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise unreadable(call, str(error)) from error
        if (needed := _NEEDED.get(operation)) is not None and not isinstance(decoded.get(needed), (list, dict)):
            raise unreadable(call, f"it has no {needed}")
        return decoded


@asynccontextmanager
async def open_dynamodb(session: AwsSession, clock: Clock) -> AsyncIterator[DynamoDb]:
    """A client whose connections are kept for reuse until the context ends."""
    url = session.endpoint("dynamodb").rstrip("/") + "/"
    async with open_post(url, _TIMEOUTS, session) as post:
        yield DynamoDb(session, url, post, clock)


def _refused(call: Call, body: bytes, status: int) -> ConditionFailed | AwsRetryable | AwsFatal:
    try:
        said = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return explain(call, UNKNOWN, body[:200].decode("utf-8", "replace"), status)
    code = said.type.rpartition("#")[2] or UNKNOWN
    message = said.message or said.Message
    if code == CONDITION_FAILED:
        return ConditionFailed(f"{call}: {message}", said.Item)
    found = explain(call, code, message, status)
    if isinstance(found, AwsRetryable) and is_throttle(found):
        return AwsRetryable(
            f"{found}. Remedy: bill the table on demand, or give it more capacity; until then the call is repeated.", code=code
        )
    return found
