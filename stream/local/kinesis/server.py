"""The emulator's server: HTTP/1.1 on loopback; signatures are not checked.

Credentials whose access key is an account's number of twelve digits are those of that account, as with moto; all others are of the
emulator's own. Another account's streams are reached by their ARN, as if their policies allowed everything.

``POST /`` is the service. ``GET /_health`` answers when it is ready. ``/_faults`` is the script of faults: ``POST`` a JSON list to
append, ``GET`` the faults that are not used up, ``DELETE`` to clear.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.utils import format_datetime
from itertools import count
from typing import Final

import orjson
from aiohttp import web

from stream.clock import SystemClock
from stream.contracts import Clock
from stream.local.kinesis import eventstream
from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.faults import Action, Fault, Script, parse
from stream.local.kinesis.model import Settings
from stream.local.kinesis.operations import OPERATIONS, target
from stream.local.kinesis.protocol import TARGET_PREFIX, Params, Wire, decode, encode, encode_error
from stream.local.kinesis.state import Call, State
from stream.local.kinesis.subscribe import Subscriptions

MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
_ACCOUNT: Final = re.compile(r"Credential=([0-9]{12})/")
_CLOSING: Final = frozenset({Action.CLOSE_BEFORE_REPLY, Action.CLOSE_AFTER_APPLY})


class Server:
    """Answers requests, with scripted faults. Only ``script`` may be used outside of the event loop."""

    def __init__(self, settings: Settings, clock: Clock, seed: int) -> None:
        self.state = State(settings, seed)
        self.script = Script()
        self.clock = clock
        self.subscriptions = Subscriptions(self.state, clock)
        self._request_ids = count(1)

    def application(self) -> web.Application:
        """The HTTP routes."""
        application = web.Application(client_max_size=MAX_REQUEST_BYTES)
        application.router.add_post("/", self._serve)
        application.router.add_get("/_health", self._health)
        application.router.add_get("/_faults", self._faults)
        application.router.add_post("/_faults", self._add_faults)
        application.router.add_delete("/_faults", self._clear_faults)
        return application

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        wire = Wire.of(request.content_type)
        operation = request.headers.get("X-Amz-Target", "").removeprefix(TARGET_PREFIX)
        try:
            params = decode(await request.read(), wire)
            fault = self.script.take(operation, *target(self.state, params))
            if fault is not None:
                await self._before(operation, fault)
                if fault.action is Action.CLOSE_BEFORE_REPLY:
                    return _hang_up(request)
            if operation == "SubscribeToShard":
                return await self._subscribe(request, params, wire, fault)
            body = self._apply(operation, params, wire, fault, _account(request))
        except ApiError as error:
            return self._reply(encode_error(error, wire), wire, error.status)
        if fault is not None and fault.action in _CLOSING:
            return _hang_up(request)
        if fault is not None and fault.action is Action.TRUNCATE:
            return await _broken_off(request, body, wire)
        return self._reply(body, wire, 200)

    async def _before(self, operation: str, fault: Fault) -> None:
        error = fault.error(operation)
        if error is not None:
            raise error
        if fault.action is Action.DELAY:
            await self.clock.sleep(fault.seconds)

    def _apply(self, operation: str, params: Params, wire: Wire, fault: Fault | None, account: str) -> bytes:
        apply = OPERATIONS.get(operation)
        if apply is None:
            code = "UnknownOperationException"
            message = f"unknown or unsupported operation '{operation}'; supported: {', '.join(OPERATIONS)}, SubscribeToShard"
            if operation.startswith("RedshiftData."):
                message = (
                    "local AWS has no Redshift. What is to be loaded is staged and sealed: see it with `stream query`. To load it into the "
                    "double of docs/redshift.md or a real warehouse, set AWS_ENDPOINT_URL_REDSHIFT_DATA"
                )
            raise ApiError(code, message)
        reply = apply(self.state, Call(params, self._now_ms(), fault, account))
        self.subscriptions.pulse.beat()
        return encode(reply, wire)

    async def _subscribe(self, request: web.Request, params: Params, wire: Wire, fault: Fault | None) -> web.StreamResponse:
        subscription = self.subscriptions.open(Call(params, self._now_ms(), fault, _account(request)))
        response = web.StreamResponse(headers={"Content-Type": eventstream.CONTENT_TYPE, **self._headers()})
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            async for message in self.subscriptions.events(subscription, wire):
                if fault is not None and fault.action is Action.TRUNCATE and b"SubscribeToShardEvent" in message:
                    await response.write(message[: len(message) // 2])
                    return _hang_up(request, response)
                await response.write(message)
                if fault is not None and fault.action is Action.STALL and b"SubscribeToShardEvent" in message:
                    await self.subscriptions.silence(subscription)
                    break
                if fault is not None and fault.action is Action.CLOSE_AFTER_APPLY:
                    return _hang_up(request, response)
            await response.write_eof()
        except ConnectionResetError:
            # The subscriber disconnected; its channel stays reserved for ``resubscribe_ms``, as in the service.
            subscription.over = subscription.over or ApiError("InternalFailureException", "The subscriber went away.", 500)
        return response

    def _reply(self, body: bytes, wire: Wire, status: int) -> web.Response:
        return web.Response(body=body, status=status, headers={"Content-Type": wire.value, **self._headers()})

    def _headers(self) -> dict[str, str]:
        """Headers of every response: its request id, and the date by the clock that also stamps arrivals."""
        date = format_datetime(self.clock.now(), usegmt=True)
        return {"x-amzn-RequestId": f"00000000-0000-4000-8000-{next(self._request_ids):012d}", "Date": date}

    def _now_ms(self) -> int:
        return round(self.clock.now().timestamp() * 1000)

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ready", "streams": sorted(self.state.account.streams)})

    async def _faults(self, _request: web.Request) -> web.Response:
        return web.json_response(self.script.remaining())

    async def _add_faults(self, request: web.Request) -> web.Response:
        try:
            faults = parse(orjson.loads(await request.read()))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        self.script.add(*faults)
        return web.json_response({"added": len(faults)})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self.script.clear()
        return web.json_response({"cleared": True})


def _account(request: web.Request) -> str:
    """The account whose number the access key is; empty if it is none."""
    found = _ACCOUNT.search(request.headers.get("Authorization", ""))
    return found[1] if found else ""


def _hang_up(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    return response or web.Response()


async def _broken_off(request: web.Request, body: bytes, wire: Wire) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": wire.value, "Content-Length": str(max(1, len(body)))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return _hang_up(request, response)


@dataclass(frozen=True, slots=True)
class Running:
    """A listening emulator."""

    url: str
    server: Server

    @property
    def faults(self) -> Script:
        """The script of faults."""
        return self.server.script


@asynccontextmanager
async def serve(
    host: str = "127.0.0.1", port: int = 0, *, settings: Settings | None = None, clock: Clock | None = None, seed: int = 0
) -> AsyncIterator[Running]:
    """Listen in this event loop until the context ends; port 0 picks a free one."""
    server = Server(settings or Settings(), clock or SystemClock(), seed)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound_host, bound_port = runner.addresses[0][:2]
        yield Running(f"http://{bound_host}:{bound_port}", server)
    finally:
        server.subscriptions.close()
        await runner.cleanup()


@contextmanager
def running(port: int = 0, *, settings: Settings | None = None, clock: Clock | None = None, seed: int = 0) -> Iterator[Running]:
    """Listen in a thread of this process until the context ends, for callers that are not asynchronous."""
    started: Future[tuple[Running, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def listen() -> None:
        async with serve(port=port, settings=settings, clock=clock, seed=seed) as emulator:
            done = asyncio.Event()
            started.set_result((emulator, asyncio.get_running_loop(), done))
            await done.wait()

    def run() -> None:
        try:
            asyncio.run(listen())
        except OSError as error:
            started.set_exception(error)

    thread = threading.Thread(target=run, name="kinesis-emulator")
    thread.start()
    try:
        emulator, loop, done = started.result()
        try:
            yield emulator
        finally:
            loop.call_soon_threadsafe(done.set)
    finally:
        thread.join()
