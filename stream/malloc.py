"""Makes the C library keep freed memory for reuse, in one heap for all threads."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_ARENA_MAX: Final = -8
_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
"""Parameter numbers from glibc's malloc.h."""

_ARENAS: Final = 1
"""Number of heaps. One thread reads pages and another transforms them, so memory that one frees the other needs; with a heap per thread,
each heap would keep its own peak."""
_MAPPED: Final = 32 * 2**20
"""Bytes above which an allocation gets its own mapping and is unmapped when freed; the maximum that glibc accepts. Pages, windows and
files stay below it, because each new mapping costs page faults: with 256 KiB here, the kernel took about a quarter of the CPU time of
transforming and encoding."""
_KEPT: Final = 128 * 2**20
"""Free bytes at the top of the heap that are kept for the next unit."""


def share_one_heap() -> None:
    """Make glibc reuse freed memory in one heap. Call it before any thread is started, since a thread keeps the heap that it has.

    Does nothing with another C library.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, _ARENAS)
        mallopt(_MMAP_THRESHOLD, _MAPPED)
        mallopt(_TRIM_THRESHOLD, _KEPT)
