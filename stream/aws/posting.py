"""POST requests to one endpoint, directly or through the proxy of the environment, over connections that are kept; signed ones, too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import aiohttp

from stream.aws.errors import Call, translate
from stream.aws.kinesis_routes import proxy_for
from stream.aws.session import AwsSession
from stream.aws.signing import Signer
from stream.aws.wire import Answer, Timeouts, open_wire
from stream.contracts import Clock

Post: TypeAlias = Callable[[Mapping[str, str], bytes], Awaitable[Answer]]
"""Sends headers and body; raises ``OSError``, ``TimeoutError`` or ``aiohttp.ClientError`` if there was no response."""


@asynccontextmanager
async def open_post(url: str, timeouts: Timeouts, session: AwsSession) -> AsyncIterator[Post]:
    """Requests to ``url``; connections live as long as the context."""
    if (proxy := proxy_for(url)) is None:
        async with open_wire(url, timeouts, session.trust()) as wire:
            yield wire.post
        return
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=20, ttl_dns_cache=60, ssl=session.trust() or True)
    timeout, jar = aiohttp.ClientTimeout(total=timeouts.total, sock_connect=timeouts.connect), aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=jar) as http:

        async def post(headers: Mapping[str, str], body: bytes) -> Answer:
            async with http.post(url, data=body, headers=headers, allow_redirects=False, proxy=proxy) as response:
                return Answer(response.status, await response.read(), {})

        yield post


@dataclass(frozen=True, slots=True)
class SignedPost:
    """Signed calls of a service with a JSON protocol. ``target``: what stands before the operation in ``x-amz-target``."""

    post: Post
    signer: Signer
    session: AwsSession
    clock: Clock
    target: str

    async def send(self, call: Call, operation: str, body: bytes) -> tuple[int, bytes | memoryview]:
        """Status and body of the answer to ``operation``.

        Raises:
            AwsRetryable: there was no answer; the call may have had its effect. Or there are no credentials at present.
            AwsFatal: there are no credentials, or no such endpoint.
        """
        try:
            headers = self.signer.headers(await self.session.credentials(), self.target + operation, body, self.clock.now())
            headers["accept-encoding"] = "identity"
            status, answer, _ = await self.post(headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise translate(call, error) from error
        return status, answer
