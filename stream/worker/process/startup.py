"""Rids a process of what its start-up leaves behind: code that is never run again, and garbage collections of what lives until the end."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SMAPS: Final = Path("/proc/self/smaps")
_MAPPING: Final = re.compile(r"(?P<begin>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<access>\S+) \S+ \S+ \S+ +(?P<name>\S.*)?")
_CHANGED: Final = re.compile(r"(?:Anonymous|Swap): +[1-9]")


def leave_startup_behind() -> None:
    """Call it once everything is imported and assembled.

    Exempts all objects from garbage collection: those of libraries and definitions live until the end, and every full collection would
    walk through all of them again. Takes code that only start-up ran out of memory.
    """
    gc.collect()
    gc.freeze()
    release_code()


def unchanged_code(smaps: str) -> Iterator[tuple[int, int]]:
    """Addresses ``[begin, end)`` of executable mappings of files of which the process has changed no page.

    ``smaps``: as proc(5) describes ``/proc/PID/smaps``.
    """
    found: re.Match[str] | None = None
    for line in smaps.splitlines():
        mapping = _MAPPING.fullmatch(line)
        if mapping is not None or _CHANGED.match(line):
            if found is not None and mapping is not None:
                yield int(found["begin"], 16), int(found["end"], 16)
            is_code = mapping is not None and mapping["access"] == "r-xp" and (mapping["name"] or "").startswith("/")
            found = mapping if is_code else None
    if found is not None:
        yield int(found["begin"], 16), int(found["end"], 16)


def release_code() -> None:
    """Unmap all pages of code; those that are still needed are mapped again, from the page cache, when they are run.

    A changed page, as a debugger's breakpoint leaves it, could not be read again from its file, so mappings with one stay as they are.
    Does nothing where there is no ``/proc``.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        madvise = ctypes.CDLL(None).madvise
        for begin, end in unchanged_code(_SMAPS.read_text()):
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
