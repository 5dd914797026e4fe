"""How many threads of the process do what the event loop must not wait for."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

LEAST: Final = 2
"""One call that waits, for a disk say, must not hold up all others."""


def limit_default_threads(transforming: int) -> None:
    """Let ``asyncio.to_thread`` of the running loop use at most ``transforming`` threads, but no fewer than ``LEAST``.

    These calls parse pages and write local files, and so take the interpreter's lock many times for moments. asyncio would use four threads
    more than there are processors: they pass the lock to each other while those that transform wait for it (docs/performance.md).
    A call that may wait for somebody outside, such as the reader of standard output, needs a thread of its own.
    """
    pool = ThreadPoolExecutor(max(LEAST, transforming), "aside")
    asyncio.get_running_loop().set_default_executor(pool)
