"""An HTTP proxy between workers and AWS that delays, drops, refuses and loses requests and replies.

``python -m tests.fleet.proxy --seed 1 kinesis=URL dynamodb=URL s3=URL`` listens on one port of loopback and recognises the
service by the request. The seed, n and the fault rates of that moment determine what happens to the n-th request to a service.
``POST /_faults`` sets the rates, ``GET /_faults`` returns how many requests met which fault. ``test_proxy.py`` tests each fault.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import struct
import sys
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from stream.clock import SystemClock

FAULTS = ("delay", "late", "drop", "reset", "error", "throttle", "lost", "truncate")
"""In this order: the reply comes late; the connection breaks, and the request arrives seconds later, when nobody waits for it any more; the
request never arrives; the same with a reset; the service answers with an internal error; it throttles; it carries the request out, and the
reply is lost; half of the reply is lost."""

LATE = (0.5, 8.0)
DELAY = (0.02, 1.5)
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "date", "server"})
_THROTTLED = {
    "kinesis": (400, {"__type": "ProvisionedThroughputExceededException", "message": "Rate exceeded for shard"}),
    "dynamodb": (400, {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "Slow down"}),
}
_LIMITED = {**_THROTTLED, "dynamodb": (400, {"__type": "com.amazon.coral.availability#ThrottlingException", "message": "Rate exceeded"})}
"""What DynamoDB says for a table that is billed on demand, and for calls about tables."""

_BROKEN = {
    "kinesis": (500, {"__type": "InternalFailure", "message": "internal"}),
    "dynamodb": (500, {"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError", "message": "internal"}),
}


def service_of(target: str) -> str:
    """Which service a request is for, by its header ``X-Amz-Target``."""
    return {"Kinesis_20131202": "kinesis", "DynamoDB_20120810": "dynamodb"}.get(target.partition(".")[0], "s3")


def fate(seed: int, service: str, number: int, rates: Mapping[str, float]) -> tuple[str, float]:
    """What happens to the request, and a number in [0, 1) that says for how long or how much."""
    rng = Random(f"{seed}:{service}:{number}")
    roll, extent = rng.random(), rng.random()
    for fault in FAULTS:
        roll -= rates.get(fault, 0.0)
        if roll < 0:
            return fault, extent
    return "passed", extent


class Proxy:
    """Passes requests on to ``upstreams``, URLs by service, except those that meet a fault."""

    def __init__(self, seed: int, upstreams: Mapping[str, str], http: aiohttp.ClientSession) -> None:
        self.seed = seed
        self.upstreams = upstreams
        self.http = http
        self.rates: dict[str, dict[str, float]] = {}
        self.numbers: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self.clock = SystemClock()
        self.under_way: set[asyncio.Task[Any]] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = b"".join([chunk async for chunk in request.content.iter_any()])
        if request.path == "/_faults":
            return self._control(request.method, body)
        service = service_of(request.headers.get("X-Amz-Target", ""))
        self.numbers[service] += 1
        fault, extent = fate(self.seed, service, self.numbers[service], self.rates.get(service, {}))
        self.happened[f"{service}.{fault}"] += 1
        # A request that is under way arrives whatever becomes of its connection.
        return await asyncio.shield(self._keep(self._answer(request, service, body, fault, extent)))

    def _keep(self, answering: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(answering)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return task

    def _control(self, method: str, body: bytes) -> web.Response:
        if method == "POST":
            self.rates = orjson.loads(body)
        return web.Response(body=orjson.dumps(self.happened))

    async def _answer(self, request: web.BaseRequest, service: str, body: bytes, fault: str, extent: float) -> web.StreamResponse:
        match fault:
            case "drop" | "reset":
                return _cut(request, reset=fault == "reset")
            case "late":
                _cut(request, reset=False)
                await self.clock.sleep(_between(LATE, extent))
                await self._pass_on(request, service, body)
                return web.Response()
            case "error":
                return _refusal(_BROKEN.get(service), "InternalError", 500)
            case "throttle":
                return _refusal((_THROTTLED if extent < 0.5 else _LIMITED).get(service), "SlowDown", 503)
            case "delay":
                await self.clock.sleep(_between(DELAY, extent))
        reply = await self._pass_on(request, service, body)
        if fault == "lost":
            return _cut(request, reset=extent < 0.5)
        if fault == "truncate" and len(reply.body or b"") > 1:
            return await _half(request, reply, extent)
        return reply

    async def _pass_on(self, request: web.BaseRequest, service: str, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        url = URL(self.upstreams[service].rstrip("/") + request.raw_path, encoded=True)
        async with self.http.request(request.method, url, data=body, headers=headers, allow_redirects=False) as reply:
            found = {name: value for name, value in reply.headers.items() if name.lower() not in _HOP}
            return web.Response(status=reply.status, headers=found, body=await reply.read())


def _cut(request: web.BaseRequest, *, reset: bool) -> web.Response:
    transport = request.transport
    if transport is not None:
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _half(request: web.BaseRequest, reply: web.Response, extent: float) -> web.StreamResponse:
    body = bytes(reply.body)  # type: ignore[arg-type]
    torn = web.StreamResponse(status=reply.status, headers={**reply.headers, "Content-Length": str(len(body))})
    await torn.prepare(request)
    await torn.write(body[: int(len(body) * extent)])
    _cut(request, reset=False)
    return torn


def _refusal(answer: tuple[int, Mapping[str, str]] | None, code: str, status: int) -> web.Response:
    if answer is None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        return web.Response(status=status, text=text, content_type="application/xml")
    return web.Response(status=answer[0], body=orjson.dumps(answer[1]), content_type="application/x-amz-json-1.1")


def _between(bounds: tuple[float, float], extent: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * extent


async def serve(seed: int, upstreams: Mapping[str, str]) -> None:
    """Print the address, and serve until standard input closes."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as http:
        proxy = Proxy(seed, upstreams, http)
        runner = web.ServerRunner(web.Server(proxy.handle, access_log=None, auto_decompress=False))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        sys.stdout.buffer.write(orjson.dumps({"url": f"http://{host}:{port}"}) + b"\n")
        sys.stdout.buffer.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--tied", action="store_true", help="accepted and ignored: the proxy always ends when standard input closes")
    parser.add_argument("upstreams", nargs="+", metavar="SERVICE=URL")
    given = parser.parse_args()
    asyncio.run(serve(given.seed, dict(each.split("=", 1) for each in given.upstreams)))


if __name__ == "__main__":
    main()
