"""How a subscription ends with an error."""

import asyncio
from typing import Any, cast

import pytest

from stream.aws.errors import AwsFatal, AwsRetryable, Call
from stream.aws.fan_out import Subscription
from stream.local.kinesis.eventstream import frame


class Response:
    """What a subscription reads, all of it at once."""

    def __init__(self, data):
        self.content = asyncio.StreamReader()
        self.content.feed_data(data)
        self.content.feed_eof()


@pytest.mark.parametrize(
    ("headers", "payload", "kind"),
    [
        ({":message-type": "exception", ":exception-type": "KMSThrottlingException"}, b'{"message": "what happened"}', AwsRetryable),
        ({":message-type": "exception", ":exception-type": "KMSDisabledException"}, b'{"message": "what happened"}', AwsFatal),
        ({":message-type": "error", ":error-code": "InternalError", ":error-message": "what happened"}, b"", AwsRetryable),
    ],
)
def test_an_error_inside_a_subscription_is_reported(headers, payload, kind):
    async def body():
        call = Call("kinesis:SubscribeToShard", "stream s", "here")
        subscription = Subscription(call, cast("Any", Response(frame(headers, payload))))
        size = await subscription.next_size()
        with pytest.raises(kind, match="what happened"):
            await subscription.next_page(size)

    asyncio.run(body())
