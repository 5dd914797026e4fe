"""Memory that is freed goes back to the system, so that what a process occupies follows the byte budget."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

import pyarrow as pa

_ARENA_MAX: Final = -8
_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
"""Numbers of glibc's malloc.h."""

_ARENAS: Final = 2
_MAPPED: Final = 32 * 2**20
"""Bytes above which an allocation is mapped singly and unmapped when freed; the most that glibc takes. Pages, windows and files stay below
it: mapping each anew makes the kernel clear every page of them again, which was a quarter of all CPU time with 256 KiB here."""
_KEPT: Final = 128 * 2**20
"""Free bytes at the top of the heap that are kept for the next unit."""


def give_memory_back() -> None:
    """Make glibc and Arrow keep little of what was freed; call it before threads are started.

    Two arenas instead of eight per core keep the holes few; what is measured with it is in docs/performance.md. Does nothing where the C
    library is another one.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, _ARENAS)
        mallopt(_MMAP_THRESHOLD, _MAPPED)
        mallopt(_TRIM_THRESHOLD, _KEPT)
