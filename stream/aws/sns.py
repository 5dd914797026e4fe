"""Messages to SNS topics."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from stream.aws.errors import Call
from stream.aws.session import AwsSession

MAX_SUBJECT: Final = 100
"""https://docs.aws.amazon.com/sns/latest/api/API_Publish.html: printable ASCII, no line breaks, up to 100 characters."""


_GROUP: Final = "stream"
"""The message group in topics that keep an order."""


async def publish(session: AwsSession, topic: str, subject: str, message: str) -> None:
    """Publish ``message`` to the topic with the ARN ``topic``; ``subject`` is reduced to what SNS accepts.

    A topic that keeps an order (FIFO) gets all messages in one group, and equal ones within five minutes once.

    Raises:
        AwsRetryable: it may work later.
        AwsFatal: it will not.
    """
    plain = "".join(character if " " <= character <= "~" else "?" for character in subject)[:MAX_SUBJECT]
    given: dict[str, Any] = {"TopicArn": topic, "Subject": plain, "Message": message}
    if topic.endswith(".fifo"):
        given |= {"MessageGroupId": _GROUP, "MessageDeduplicationId": hashlib.sha256(message.encode()).hexdigest()}
    await session.ask("sns", "publish", _call(session, "sns:Publish", topic), **given)


async def look_at(session: AwsSession, topic: str) -> None:
    """Return if the topic exists, without publishing. Needs ``sns:GetTopicAttributes``, which publishing does not.

    Raises:
        AwsRetryable: it did not answer.
        AwsFatal: it does not exist, or may not be read.
    """
    await session.ask("sns", "get_topic_attributes", _call(session, "sns:GetTopicAttributes", topic), TopicArn=topic)


def _call(session: AwsSession, action: str, topic: str) -> Call:
    return Call(action, topic, f"{session.region}, {session.endpoint_override('sns') or 'AWS'}")
