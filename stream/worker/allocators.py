"""Memory that is freed goes back to the system now and then, so that what a process occupies follows the byte budget."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from typing import Final

import pyarrow as pa

from stream.contracts import Clock

_ARENA_MAX: Final = -8
_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
"""Numbers of glibc's malloc.h."""

_ARENAS: Final = 2
_MAPPED: Final = 32 * 2**20
"""Bytes above which an allocation is mapped singly and unmapped when freed; the most that glibc takes. Pages, windows and files stay below
it: mapping each anew costs page faults, and with 256 KiB here the kernel took about a quarter of the CPU time of cooking."""
_KEPT: Final = 128 * 2**20
"""Free bytes at the top of the heap that are kept for the next unit."""


TRIM_SECONDS: Final = 10.0
"""Between two times of giving back what is free inside the heap: rare enough that clearing those pages again costs nothing to speak of."""


def prepare_allocators() -> None:
    """Make glibc and Arrow reuse what was freed, on few heaps; call it before threads are started.

    What it brings and takes is in docs/performance.md. Does nothing where the C library is another one.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, _ARENAS)
        mallopt(_MMAP_THRESHOLD, _MAPPED)
        mallopt(_TRIM_THRESHOLD, _KEPT)


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
