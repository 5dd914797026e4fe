"""Sends spans to the pipeline's collector, over OTLP/HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from http.client import responses
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from stream import __version__
from stream.audit.export import Mode, Sender
from stream.audit.export_options import Shape
from stream.audit.otlp_responses import Answer
from stream.aws.wire import Timeouts, Wire, open_wire
from stream.contracts import Clock, Emit
from stream.pipeline.audit import Otlp
from stream.pipeline.resources.secrets import SecretReader, find_headers
from stream.worker.receivers.http_errors import describe_failure

TIMEOUTS: Final = Timeouts(connect=10.0, total=30.0, keep_alive=15.0)
"""A collector may take 30 seconds for one request."""

ANSWER_BYTES: Final = 65_536
"""The most of an answer that is read."""

_jitter = secrets.SystemRandom().random


class HttpCollector:
    """``audit.export.Collector`` over OTLP/HTTP with protobuf bodies. ``wire`` leads to ``endpoint``."""

    def __init__(self, wire: Wire, endpoint: str, headers: Mapping[str, str]) -> None:
        self._wire = wire
        self._endpoint = endpoint
        about = {"host": urlsplit(endpoint).netloc, "user-agent": f"stream/{__version__}", "content-type": "application/x-protobuf"}
        self._headers = about | {name.lower(): value for name, value in headers.items()}

    async def send(self, path: str, body: bytes | memoryview, encoding: str) -> Answer:
        """See ``audit.export.Collector``."""
        headers = self._headers | ({"content-encoding": encoding} if encoding else {})
        try:
            status, content, found = await self._wire.post(headers, body, path)
        except OSError as error:
            return Answer(0, detail=f"{describe_failure(error)} at {self._endpoint}")
        retry_after = found.get(b"retry-after", b"").decode("latin-1")
        return Answer(status, bytes(content[:ANSWER_BYTES]), retry_after, responses.get(status, ""))


async def open_sender(
    otlp: Otlp, env: Mapping[str, str], base: Path, clock: Clock, emit: Emit, stack: AsyncExitStack, managed: SecretReader | None = None
) -> Sender:
    """A sender to the pipeline's collector; its connections live as long as ``stack``. ``managed`` reads secrets of Secrets Manager.

    Raises:
        DefinitionError: a header's secret is missing.
    """
    headers = await find_headers(otlp.headers, env, base, managed)
    endpoint = otlp.endpoint.rstrip("/")
    wire = await stack.enter_async_context(open_wire(endpoint, TIMEOUTS))
    collector = HttpCollector(wire, endpoint, headers)
    # One thread makes more spans than any collector accepts, and several would only compete for the interpreter lock.
    threads = stack.enter_context(ThreadPoolExecutor(1, "spans"))
    return Sender(collector, clock, emit, _jitter, otlp.compression, once=otlp.mode is Mode.BEST_EFFORT, threads=threads)


def shape_of(otlp: Otlp) -> Shape:
    """The shape of the pipeline's spans."""
    return Shape(otlp.signal, otlp.tier, otlp.trust_producer_context, otlp.sample, otlp.request_bytes)
