"""Returns freed memory to the system at intervals, so that the size of the process follows the byte budget."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from typing import Final

import pyarrow as pa

from stream.contracts import Clock
from stream.malloc import share_one_heap

TRIM_SECONDS: Final = 10.0
"""Seconds between two returns of free heap memory; rare enough that zeroing those pages again costs next to nothing."""


def prepare_allocators() -> None:
    """Make glibc and Arrow reuse freed memory. docs/performance.md has the gains and the costs."""
    share_one_heap()
    pa.set_memory_pool(pa.system_memory_pool())


def give_memory_back() -> None:
    """Return all whole free pages in the heap, including holes, to the system; takes milliseconds."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


async def trim_periodically(clock: Clock) -> None:
    """Return memory to the system every ``TRIM_SECONDS``, off the event loop, until cancelled."""
    while True:
        await clock.sleep(TRIM_SECONDS)
        await asyncio.to_thread(give_memory_back)
