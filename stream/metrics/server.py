"""``/metrics``, ``/healthz``, ``/readyz``, ``/status`` and a page for people over HTTP; read-only, and on loopback by default."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from stream.errors import Fatal
from stream.metrics.board import Board, page

STARTING: Final = "starting"

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""The page loads nothing and runs nothing, even if something in it were not escaped."""


class Health:
    """What the worker knows about its own health. Not alive means: restart me. Not ready means: wait, or look at ``obstacles``.

    Not thread-safe: use it from one event loop.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        """Why the process should be restarted; None while it is alive."""
        self._obstacles: dict[str, str] = {"worker": STARTING}

    @property
    def alive(self) -> bool:
        """Whether the process can still do its work."""
        return self.fault is None

    @property
    def ready(self) -> bool:
        """Whether the process is alive and nothing is in the way."""
        return self.alive and not self._obstacles

    @property
    def obstacles(self) -> Mapping[str, str]:
        """What prevents readiness, by part. At first the worker itself does, until it reports that it is up."""
        return self._obstacles

    def block(self, part: str, why: str) -> None:
        """Note that ``part`` is not ready because of ``why``."""
        self._obstacles[part] = why

    def clear(self, part: str) -> None:
        """``part`` is ready."""
        self._obstacles.pop(part, None)


class MetricsServer:
    """An async context manager that serves while it is open; ``port`` 0 picks a free port, see ``address``."""

    def __init__(self, registry: CollectorRegistry, health: Health, board: Board, host: str = "127.0.0.1", port: int = 9400) -> None:
        self._registry = registry
        self._board = board
        self._health = health
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._thread = ThreadPoolExecutor(1, "metrics")
        """Of its own: scrapes are answered while a file system hangs."""

    @property
    def address(self) -> tuple[str, int]:
        """The host and port being served; only while open."""
        if self._runner is None:
            msg = "the metrics server is not open"
            raise RuntimeError(msg)
        host, port, *_ = self._runner.addresses[0]
        return host, port

    async def __aenter__(self) -> Self:
        """Start listening.

        Raises:
            Fatal: the address is in use, or is not one of this machine.
        """
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._alive),
                web.get("/readyz", self._ready),
                web.get("/status", self._status),
                web.get("/", self._page),
            ],
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            msg = f"metrics cannot be served on {self._host}:{self._port}: {error.strerror or error}; choose another metrics.port"
            raise Fatal(msg) from error
        self._runner = runner
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Stop listening; responses under way get one second."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._thread.shutdown(wait=False)

    async def _metrics(self, request: web.Request) -> web.Response:
        # The library's own negotiation raises on odd Accept headers; scrapers only ask for these two formats.
        if "application/openmetrics-text" in request.headers.get("Accept", ""):
            body = await self._rendered(openmetrics.generate_latest)
            return web.Response(body=body, headers={"Content-Type": openmetrics.CONTENT_TYPE_LATEST})
        body = await self._rendered(generate_latest)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _rendered(self, render: Callable[[CollectorRegistry], bytes]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._thread, render, self._registry)

    async def _alive(self, _: web.Request) -> web.Response:
        return _answer(ok=self._health.alive, body={"fault": self._health.fault})

    async def _ready(self, _: web.Request) -> web.Response:
        return _answer(ok=self._health.ready, body={"fault": self._health.fault, "obstacles": dict(self._health.obstacles)})

    async def _status(self, _: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self._document()), content_type="application/json")

    async def _page(self, _: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return web.Response(text=page(self._document()), content_type="text/html", headers=headers)

    def _document(self) -> dict[str, object]:
        return self._board.document(self._health.obstacles, self._health.fault)


def _answer(*, ok: bool, body: dict[str, object]) -> web.Response:
    shown = {"ok": ok} | {key: value for key, value in body.items() if value}
    return web.Response(status=200 if ok else 503, body=orjson.dumps(shown), content_type="application/json")
