"""``python -m stream.local.kinesis``: the emulator as a process of its own.

Writes one line ``{"url": ...}`` to standard output when it listens. Ends on SIGTERM or SIGINT, and, with ``--tied``,
when standard input closes, so that it cannot outlive the process that started it, however that ended.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

import orjson

from stream.local.kinesis.model import Settings
from stream.local.kinesis.server import serve
from stream.watchdog import WATCHDOG, run


async def listen(port: int, settings: Settings, *, tied: bool) -> None:
    """Serve until told to stop."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    if tied:
        await loop.connect_read_pipe(lambda: _EndOfInput(done), sys.stdin.buffer)
    async with serve(port=port, settings=settings) as emulator:
        sys.stdout.buffer.write(orjson.dumps({"url": emulator.url}) + b"\n")
        sys.stdout.buffer.flush()
        await done.wait()


class _EndOfInput(asyncio.Protocol):
    def __init__(self, done: asyncio.Event) -> None:
        self._done = done

    def eof_received(self) -> None:
        self._done.set()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m stream.local.kinesis", description="Kinesis on this machine")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--region", default=Settings().region)
    parser.add_argument("--throttle", choices=["off", "real"], default="off", help="enforce the service's rates per shard")
    parser.add_argument("--transition-ms", type=int, default=0, help="how long streams stay CREATING or UPDATING")
    parser.add_argument("--tied", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args()
    settings = Settings(region=arguments.region, throttle=arguments.throttle == "real", transition_ms=arguments.transition_ms)
    try:
        WATCHDOG.start()
        run(listen(arguments.port, settings, tied=arguments.tied))
    except OSError as error:
        sys.exit(
            f"port {arguments.port} cannot be listened on: {os.strerror(error.errno or 0).lower()}; choose another, or 0 for a free one"
        )


if __name__ == "__main__":
    main()
