"""Sends spans to the pipeline's collector, over OTLP/HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp

from stream.audit.export import Mode, Sender
from stream.audit.export_options import Shape
from stream.audit.otlp_responses import Answer
from stream.contracts import Clock, Emit
from stream.pipeline.audit import Otlp
from stream.pipeline.secrets import SecretReader, find_headers
from stream.worker.receivers.http_errors import describe_failure

TIMEOUT: Final = 30.0
"""Seconds that a collector may take for one request."""

ANSWER_BYTES: Final = 65_536
"""The most of an answer that is read."""

_jitter = secrets.SystemRandom().random


class HttpCollector:
    """``audit.export.Collector`` over OTLP/HTTP with protobuf bodies."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: str, headers: Mapping[str, str]) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._headers = {"content-type": "application/x-protobuf", **headers}

    async def send(self, path: str, body: bytes | memoryview, encoding: str) -> Answer:
        """See ``audit.export.Collector``."""
        headers = self._headers | ({"content-encoding": encoding} if encoding else {})
        try:
            async with self._session.post(f"{self._endpoint}{path}", data=body, headers=headers, allow_redirects=False) as answer:
                content = b""
                # A read returns what has arrived so far, which may be only a part.
                while len(content) < ANSWER_BYTES and (part := await answer.content.read(ANSWER_BYTES - len(content))):
                    content += part
                return Answer(answer.status, content, answer.headers.get("retry-after", ""), answer.reason or "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Answer(0, detail=f"{describe_failure(error)} at {self._endpoint}")


async def open_sender(
    otlp: Otlp, env: Mapping[str, str], base: Path, clock: Clock, emit: Emit, stack: AsyncExitStack, managed: SecretReader | None = None
) -> Sender:
    """A sender to the pipeline's collector; its connections live as long as ``stack``. ``managed`` reads secrets of Secrets Manager.

    Raises:
        DefinitionError: a header's secret is missing.
    """
    headers = await find_headers(otlp.headers, env, base, managed)
    session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)))
    collector = HttpCollector(session, otlp.endpoint, headers)
    # One thread makes more spans than any collector accepts, and several would only compete for the interpreter lock.
    threads = stack.enter_context(ThreadPoolExecutor(1, "spans"))
    return Sender(collector, clock, emit, _jitter, otlp.compression, once=otlp.mode is Mode.BEST_EFFORT, threads=threads)


def shape_of(otlp: Otlp) -> Shape:
    """The shape of the pipeline's spans."""
    return Shape(otlp.signal, otlp.tier, otlp.trust_producer_context, otlp.sample, otlp.request_bytes)
