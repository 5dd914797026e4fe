"""CPU time of a GetRecords call that returns nothing: ``python benchmarks/calls.py [--calls 3000] [--runs 5]``.

In one process, against an empty page of the replay server, without pacing: a shard's whole reading path (budget, call, page, event),
our bare call, and the same call of aiobotocore and boto3. Runs alternate, on the event loop of the service (uvloop), without TLS.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiobotocore.session
import boto3
import uvloop
from common import keep, parser, replay, spread
from contestants import environment
from replay import SMALL, SMALL_RECORDS
from shapes import SHAPES

from stream.aws.kinesis import open_kinesis
from stream.aws.session import AwsSession
from stream.batch import ORIGIN
from stream.budget import ByteBudget
from stream.clock import SystemClock
from stream.contracts import Start, StartKind
from stream.source.kinesis import KinesisSource
from stream.source.pace import ReadSettings

UNHURRIED = ReadSettings(calls_per_second=1e9, idle_first=0.0, idle_last=0.0, idle_polls=1e9)


async def microseconds(call: Callable[[], Awaitable[Any]], calls: int) -> float:
    """CPU time of one call, user and system, after a few calls to warm up."""
    for _ in range(20):
        await call()
    begun = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - begun) / calls * 1e6


async def measure(url: str, calls: int, runs: int) -> dict[str, list[float]]:
    """Microseconds per call in each run, by what was called."""
    session = AwsSession(region="us-east-1", endpoints={"kinesis": url})
    took: dict[str, list[float]] = {}
    blocking = boto3.client("kinesis", endpoint_url=url, region_name="us-east-1")
    peer = aiobotocore.session.get_session().create_client("kinesis", endpoint_url=url, region_name="us-east-1")
    async with open_kinesis(session) as client, peer as theirs:
        budget = ByteBudget(2**26)
        source = KinesisSource(client, SMALL, budget=budget, clock=SystemClock(), emit=lambda _: None, settings=UNHURRIED)
        (shard,) = await source.shards()
        pages = source.read(shard, ORIGIN, Start(StartKind.TRIM_HORIZON))
        budget.release((await anext(pages)).held)
        nothing = f"{SMALL}/{shard.shard_id}/{SMALL_RECORDS}"

        async def path() -> None:
            page = await anext(pages)
            assert page.batch.rows == 0
            budget.release(page.held)

        async def of_boto3() -> None:
            blocking.get_records(ShardIterator=nothing, Limit=10_000)

        cases: dict[str, Callable[[], Awaitable[Any]]] = {
            "a shard's reading path": path,
            "the bare call": lambda: client.get_records(SMALL, nothing),
            "aiobotocore": lambda: theirs.get_records(ShardIterator=nothing, Limit=10_000),
            "boto3": of_boto3,
        }
        for _ in range(runs):
            for name, call in cases.items():
                took.setdefault(name, []).append(await microseconds(call, calls))
        await pages.aclose()  # type: ignore[attr-defined]
    blocking.close()
    return took


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--calls", type=int, default=3000)
    given = options.parse_args()
    os.environ.update(environment(""))
    with replay(SHAPES["click"], SMALL_RECORDS, 1) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        took = runner.run(measure(server["url"], given.calls, given.runs))
    for name, values in took.items():
        print(f"{name:24}{spread(values, 0)} microseconds of CPU time a call")
    keep(given.json, calls=given.calls, microseconds=took)


if __name__ == "__main__":
    main()
