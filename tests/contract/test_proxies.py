"""What is made of answers that come from somebody on the way to AWS."""

import asyncio

import pytest
from aiohttp import web

from stream.aws.errors import AwsFatal, AwsRetryable
from stream.aws.identity import ask_caller
from stream.aws.secrets import read_secret
from stream.aws.session import AwsSession
from stream.clock import SystemClock

PAGE = "<html><head><meta charset=utf-8><title>Sign in</title></head><body><p>Guests, please sign in.</body></html>"


@pytest.mark.parametrize(
    ("service", "status", "kind", "says"),
    [
        ("sts", 200, AwsRetryable, "had no answer: Unable to parse response"),
        ("sts", 403, AwsRetryable, "had no answer: Unable to parse response"),
        ("secretsmanager", 200, AwsFatal, "HTTP status 200. Remedy: this is no answer of AWS: check the endpoint, and proxies"),
    ],
)
def test_a_page_in_place_of_an_answer_is_told_as_one(service, status, kind, says, monkeypatch):
    """botocore has an error of its own for what it cannot read, which is none of its errors."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")

    async def page(_request):
        return web.Response(status=status, text=PAGE, content_type="text/html")

    async def ask():
        runner = web.ServerRunner(web.Server(page))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        session = AwsSession(region="us-east-1", endpoints={service: f"http://{host}:{port}"})
        try:
            await (ask_caller(session, SystemClock()) if service == "sts" else read_secret(session, "key"))
        finally:
            await runner.cleanup()

    with pytest.raises(kind, match=says):
        asyncio.run(ask())
