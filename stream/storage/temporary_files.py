"""Files that processes left beside a directory's objects when they were killed in the middle of a write."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

OLD_SECONDS: Final = 3600.0
"""Younger files are kept, because their writers may not have called ``hold`` yet."""

_NAME: Final = re.compile(r"\d+-[0-9a-f]{16}")


def hold(descriptor: int) -> None:
    """Mark the open file as in use until it is closed: by its writer, or by the kernel after the writer has died."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def remove_leftovers(folder: Path, claims: Path) -> None:
    """Remove files in ``folder`` that no living process holds and none of ``claims`` names. Never raises for what it cannot remove.

    A frozen process still holds its file, and a claimed one may become the next version of an object.
    """
    with suppress(OSError):
        old = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and _is_old(path)]
        for path in old:
            with suppress(OSError), _abandoned(path):
                if path.name not in set(_claimed(claims)):
                    path.unlink()


def _is_old(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime < time.time() - OLD_SECONDS
    return False


@contextmanager
def _abandoned(path: Path) -> Iterator[None]:
    """Make sure that nobody uses ``path`` inside the context; raises ``OSError`` if somebody does. Only its writer ever claims a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _claimed(claims: Path) -> Iterator[str]:
    with suppress(FileNotFoundError):
        for claim in claims.iterdir():
            with suppress(OSError):
                yield str(claim.readlink())
