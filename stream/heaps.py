"""How the C library keeps memory that was freed: for the next use, and in one heap for all threads."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_ARENA_MAX: Final = -8
_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
"""Numbers of glibc's malloc.h."""

_ARENAS: Final = 1
"""Heaps. What one thread frees another one needs: pages are read here, cooked there; each heap would keep its own peak."""
_MAPPED: Final = 32 * 2**20
"""Bytes above which an allocation is mapped singly and unmapped when freed; the most that glibc takes. Pages, windows and files stay below
it: mapping each anew costs page faults, and with 256 KiB here the kernel took about a quarter of the CPU time of cooking."""
_KEPT: Final = 128 * 2**20
"""Free bytes at the top of the heap that are kept for the next unit."""


def share_one_heap() -> None:
    """Make glibc reuse what was freed, in one heap; call it before threads are started, since those keep the heaps that they have.

    Does nothing where the C library is another one.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, _ARENAS)
        mallopt(_MMAP_THRESHOLD, _MAPPED)
        mallopt(_TRIM_THRESHOLD, _KEPT)
