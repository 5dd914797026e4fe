"""Queues of SQS over its JSON protocol: receive by long polling, delete, look.

Each call is made once. A message that was received and not deleted comes again after its visibility timeout, so nothing is lost by a call
without a response.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from stream.aws.errors import UNKNOWN, AwsFatal, AwsRetryable, Call, explain, unreadable
from stream.aws.posting import Post, SignedPost, open_post
from stream.aws.session import AwsSession
from stream.aws.signing import Signer
from stream.aws.wire import Timeouts
from stream.contracts import Clock

MAX_MESSAGES: Final = 10
"""The most messages in one ReceiveMessage or DeleteMessageBatch."""

LONG_POLL: Final = 20
"""Seconds; the longest that SQS lets a receive wait for a message."""

_TARGET: Final = "AmazonSQS."
_TIMEOUTS: Final = Timeouts(connect=5.0, total=LONG_POLL + 15.0)

_ATTRIBUTES: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "MessageRetentionPeriod",
    "QueueArn",
    "RedrivePolicy",
    "VisibilityTimeout",
)


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """A queue; ``url`` is empty if only its parts are known, ``region`` if the session's applies."""

    name: str
    account: str
    region: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """A message; ``handle`` deletes it, as long as it has not become visible again."""

    body: str
    handle: str


class _Message(msgspec.Struct):
    Body: str
    ReceiptHandle: str


class _Messages(msgspec.Struct):
    Messages: list[_Message] = []


class _Failure(msgspec.Struct):
    Id: str
    Code: str = UNKNOWN
    Message: str = ""


class _Deleted(msgspec.Struct):
    Failed: list[_Failure] = []


class _Attributes(msgspec.Struct):
    Attributes: dict[str, str] = {}


class _Refusal(msgspec.Struct, rename={"type": "__type"}):
    type: str = ""
    message: str = ""
    Message: str = ""


class Sqs:
    """Calls about one queue."""

    def __init__(self, session: AwsSession, endpoint: str, queue: QueuePlace, post: Post, clock: Clock) -> None:
        self._queue = queue.url or f"{endpoint.rstrip('/')}/{queue.account}/{queue.name}"
        self._name = queue.name
        self._place = f"region {session.region}, endpoint {endpoint}"
        self._post = SignedPost(post, Signer("sqs", session.region, endpoint), session, clock, _TARGET)

    async def receive(self, *, wait: int, hidden: int, most: int = MAX_MESSAGES) -> list[Received]:
        """Up to ``most`` messages; if there are none, those that arrive within ``wait`` seconds. Nobody else gets them for ``hidden`` s.

        Raises:
            AwsRetryable: no answer, or throttled.
            AwsFatal: the queue is missing, or may not be received from.
        """
        request = {"MaxNumberOfMessages": most, "WaitTimeSeconds": wait, "VisibilityTimeout": hidden}
        answer = await self._call("ReceiveMessage", request, _Messages)
        return [Received(message.Body, message.ReceiptHandle) for message in answer.Messages]

    async def delete(self, handles: Sequence[str]) -> int:
        """Delete messages; returns how many could not be deleted: they come again.

        Raises:
            AwsRetryable: no answer, or throttled: some may be deleted.
            AwsFatal: they may not be deleted.
        """
        failed = 0
        for begin in range(0, len(handles), MAX_MESSAGES):
            some = handles[begin : begin + MAX_MESSAGES]
            entries = [{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(some)]
            failed += len((await self._call("DeleteMessageBatch", {"Entries": entries}, _Deleted, action="DeleteMessage")).Failed)
        return failed

    async def attributes(self) -> Mapping[str, str]:
        """What SQS says of the queue, by SQS's names.

        Raises:
            AwsRetryable: no answer, or throttled.
            AwsFatal: the queue is missing, or may not be looked at.
        """
        answer: _Attributes = await self._call("GetQueueAttributes", {"AttributeNames": list(_ATTRIBUTES)}, _Attributes)
        return answer.Attributes

    async def _call(self, operation: str, request: Mapping[str, Any], kind: Any, action: str = "") -> Any:
        # IAM has one action for a call and its batch.
        call = Call(f"sqs:{action or operation}", f"queue {self._name}", self._place)
        body = msgspec.json.encode({"QueueUrl": self._queue, **request})
        status, answer = await self._post.send(call, operation, body)
        if status != 200:
            raise _refused(call, bytes(answer), status)
        try:
            return msgspec.json.decode(answer or b"{}", type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise unreadable(call, str(error)) from error


@asynccontextmanager
async def open_sqs(session: AwsSession, queue: QueuePlace, clock: Clock) -> AsyncIterator[Sqs]:
    """Calls about ``queue``; connections live as long as the context. A configured endpoint wins over the one in the queue's URL."""
    if queue.region and queue.region != session.region:
        session = session.elsewhere(queue.region)
    parts = urlsplit(queue.url)
    own = f"{parts.scheme}://{parts.netloc}" if queue.url else session.endpoint("sqs")
    endpoint = (session.endpoint_override("sqs") or own).rstrip("/") + "/"
    async with open_post(endpoint, _TIMEOUTS, session) as post:
        yield Sqs(session, endpoint, queue, post, clock)


def _refused(call: Call, body: bytes, status: int) -> AwsRetryable | AwsFatal:
    try:
        said = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return explain(call, UNKNOWN, body[:200].decode("utf-8", "replace"), status)
    code = said.type.rpartition("#")[2].rpartition(".")[2] or UNKNOWN
    # Before SQS had this protocol, a missing queue was called so; the name is still in use.
    code = {"NonExistentQueue": "QueueDoesNotExist"}.get(code, code)
    return explain(call, code, said.message or said.Message, status)
