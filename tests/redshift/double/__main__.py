"""The double in the foreground: ``python -m tests.redshift.double --host 127.0.0.1 --port 4567``.

S3 is where the AWS variables of the environment say. Prints its address once it answers, and ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from typing import Any

import boto3

from tests.redshift.double.postgres import postgres
from tests.redshift.double.server import Double


async def serve(socket: str, s3: Any, host: str, port: int) -> None:
    """Answer until a signal comes."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    double = Double(socket, s3)
    runner = await double.serve(host, port)
    print(double.url, flush=True)  # noqa: T201 - that is its answer
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    s3 = boto3.client("s3")
    try:
        with postgres() as socket:
            asyncio.run(serve(socket, s3, given.host, given.port))
    finally:
        s3.close()


if __name__ == "__main__":
    main()
