"""Memory that is freed goes back to the system now and then, so that what a process occupies follows the byte budget."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from typing import Final

import pyarrow as pa

from stream.contracts import Clock
from stream.heaps import share_one_heap

TRIM_SECONDS: Final = 10.0
"""Between two times of giving back what is free inside the heap: rare enough that clearing those pages again costs nothing to speak of."""


def prepare_allocators() -> None:
    """Make glibc and Arrow reuse what was freed. What it brings and takes is in docs/performance.md."""
    share_one_heap()
    pa.set_memory_pool(pa.system_memory_pool())


def forget_what_stays() -> None:
    """Have the garbage collector pass over everything that is there now; call it when the worker is put together.

    What libraries and definitions made stays until the end, and each full collection would walk through all of it again.
    """
    gc.collect()
    gc.freeze()


def give_memory_back() -> None:
    """Return to the system whatever whole pages are free inside the heap, holes included; takes milliseconds."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


async def keep_giving_back(clock: Clock) -> None:
    """Give memory back every ``TRIM_SECONDS``, off the event loop, until cancelled."""
    while True:
        await clock.sleep(TRIM_SECONDS)
        await asyncio.to_thread(give_memory_back)
