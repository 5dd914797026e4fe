"""AWS calls and dollars for one unit, counted: ``python benchmarks/cost.py [--records 100000] [--shards 2] [--rows 10000]``.

A worker with state, sink and leases on AWS (moto behind a counting proxy; Kinesis is the replay server) reads a stream to its end. The
calls for starting and stopping are subtracted by a second run over the small stream. Prices are those of ``stream explain``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import boto3
from aiohttp import web
from common import keep, parser, replay
from contestants import environment
from replay import BENCH, SMALL, SMALL_RECORDS
from shapes import SHAPES

from stream.local.moto import moto
from stream.pipeline.cost import Prices

PIPELINE = """
application: {application}
source:
  kinesis: {{stream: {stream}}}
  schema: {schema}
stages: {stages}
sinks: [s3: {{url: "s3://cost/{application}/lake/"}}]
state: s3://cost/{application}/state/
coordination: native
flush: {{age: 2s, rows: {rows}}}
metrics: {{port: 0}}
"""
GET_PER_1000 = 0.0004
"""US dollars for S3 GET in us-east-1; LIST costs as much as PUT, DELETE nothing."""
HOP_BY_HOP = {"transfer-encoding", "connection", "content-length", "content-encoding", "host"}


@contextmanager
def counting(target: str, counted: Counter[str]) -> Iterator[str]:
    """Run a proxy in a thread; its address. It counts requests by service, and by operation or method."""
    loop, ready, place = asyncio.new_event_loop(), threading.Event(), [""]

    async def forward(request: web.Request) -> web.Response:
        counted[name_of(request)] += 1
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP - {"host"}}
        async with session[0].request(
            request.method, target + request.raw_path, data=await request.read(), headers=headers, allow_redirects=False
        ) as reply:
            kept = {name: value for name, value in reply.headers.items() if name.lower() not in HOP_BY_HOP}
            if request.method == "HEAD" and "Content-Length" in reply.headers:
                kept["Content-Length"] = reply.headers["Content-Length"]
            return web.Response(status=reply.status, body=await reply.read(), headers=kept)

    session: list[Any] = []

    async def serve() -> None:
        session.append(aiohttp.ClientSession(auto_decompress=False))
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        place[0] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()
        await session[0].close()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield place[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def name_of(request: web.Request) -> str:
    """``dynamodb UpdateItem`` or ``s3 PUT commits``: for S3, with the part of the state or the sink that it touches."""
    target = request.headers.get("x-amz-target", "")
    if target:
        return f"dynamodb {target.rpartition('.')[2]}"
    parts = request.path.split("/")
    if "list-type" in request.query:
        return "s3 LIST"
    return f"s3 {request.method} {parts[5] if 'state' in parts and len(parts) > 5 else 'data'}"


def run(url: str, aws: str, stream: str, shape: str, records: int, rows: int) -> tuple[Counter[str], int]:
    """The calls of one worker, and how many units it sealed."""
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, counting(aws, counted) as proxy:
        job = SHAPES[shape]
        path = Path(folder, "pipeline.yaml")
        path.write_text(PIPELINE.format(application=f"cost-{stream}", stream=stream, schema=job.schema, stages=job.stages, rows=rows))
        variables = {**environment(url), "AWS_ENDPOINT_URL_S3": proxy, "AWS_ENDPOINT_URL_DYNAMODB": proxy}
        units = asyncio.run(until_sealed(path, variables, records))
    return counted, units


async def until_sealed(path: Path, variables: dict[str, str], records: int) -> int:
    """Units, once ``records`` are sealed and the worker has gone."""
    command = [sys.executable, "-m", "stream", "run", str(path)]
    worker = await asyncio.create_subprocess_exec(*command, env=variables, stderr=asyncio.subprocess.PIPE, limit=2**20)
    assert worker.stderr is not None
    units = done = 0
    async for line in worker.stderr:
        event = json.loads(line)
        if event["event"] == "unit_sealed":
            units += 1
            done += sum(event["outcomes"].values())
            if done == records:
                worker.send_signal(signal.SIGTERM)
    if await worker.wait() or done < records:
        sys.exit(f"the worker ended with {worker.returncode} after {done} of {records} records")
    return units


def dollars(calls: dict[str, float]) -> float:
    price = Prices()
    puts = sum(number for name, number in calls.items() if name.startswith(("s3 PUT", "s3 LIST")))
    gets = sum(number for name, number in calls.items() if name.startswith(("s3 GET", "s3 HEAD")))
    writes = calls.get("dynamodb UpdateItem", 0.0)
    return puts / 1000 * price.s3_put_per_1000 + gets / 1000 * GET_PER_1000 + writes / 1e6 * price.dynamodb_write_per_million


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--shape", choices=sorted(SHAPES), default="click")
    options.add_argument("--records", type=int, default=100_000, help="on each shard")
    options.add_argument("--shards", type=int, default=2)
    options.add_argument("--rows", type=int, default=10_000, help="of a unit")
    given = options.parse_args()
    shape = SHAPES[given.shape]
    with replay(shape, given.records, given.shards) as server, moto() as aws:
        keys = {"region_name": "us-east-1", "aws_access_key_id": "t", "aws_secret_access_key": "t"}
        boto3.client("s3", endpoint_url=aws.url, **keys).create_bucket(Bucket="cost")
        whole, units = run(server["url"], aws.url, BENCH, given.shape, given.records * given.shards, given.rows)
        small, few = run(server["url"], aws.url, SMALL, given.shape, SMALL_RECORDS * given.shards, given.rows)
    each = {name: (whole[name] - small[name]) / (units - few) for name in sorted(whole)}
    print(f"{units} units against {few}; calls for one unit:")
    for name, number in each.items():
        if abs(number) >= 0.005:
            print(f"  {name:28}{number:6.2f}")
    print(f"US dollars for a million units: {dollars(each) * 1e6:.2f}, without renewals of leases and storage")
    keep(given.json, units=units, calls_of_one_unit=each, dollars_of_a_million_units=dollars(each) * 1e6)


if __name__ == "__main__":
    main()
