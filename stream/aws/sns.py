"""Messages to SNS topics."""

from __future__ import annotations

from stream.aws.errors import Call, translate
from stream.aws.session import AwsSession

MAX_SUBJECT = 100
"""https://docs.aws.amazon.com/sns/latest/api/API_Publish.html: printable ASCII, no line breaks, up to 100 characters."""


async def publish(session: AwsSession, topic: str, subject: str, message: str) -> None:
    """Publish ``message`` to the topic with the ARN ``topic``; ``subject`` is shortened and cleaned to what SNS takes.

    Raises:
        AwsRetryable: it may work later.
        AwsFatal: it will not.
    """
    plain = "".join(character if " " <= character <= "~" else "?" for character in subject)[:MAX_SUBJECT]
    try:
        async with session.client("sns") as client:
            await client.publish(TopicArn=topic, Subject=plain, Message=message)
    except Exception as error:
        place = f"{session.region}, {session.endpoint_override('sns') or 'AWS'}"
        raise translate(Call("sns:Publish", topic, place), error) from error


async def look_at(session: AwsSession, topic: str) -> None:
    """Return if there is such a topic; nobody is told. Needs ``sns:GetTopicAttributes``, which publishing does not.

    Raises:
        AwsRetryable: it did not answer.
        AwsFatal: there is none, or it may not be looked at.
    """
    try:
        async with session.client("sns") as client:
            await client.get_topic_attributes(TopicArn=topic)
    except Exception as error:
        place = f"{session.region}, {session.endpoint_override('sns') or 'AWS'}"
        raise translate(Call("sns:GetTopicAttributes", topic, place), error) from error
