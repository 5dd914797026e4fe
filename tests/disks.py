"""Disks that can be full. As far as this machine allows, a real one: a small file system of its own, which takes root to mount."""

from __future__ import annotations

import ctypes
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PAGE: Final = 4096
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_READ_ONLY, _REMOUNT, _DETACH = 1, 32, 2


def _mount(place: Path, flags: int = 0, options: str = "size=2m") -> bool:
    return _LIBC.mount(b"tmpfs", os.fsencode(place), b"tmpfs", flags, options.encode()) == 0


def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return _mount(Path(folder)) and _LIBC.umount2(os.fsencode(folder), _DETACH) == 0


class Disk:
    """A folder. Its files are as large as they like, except while it is ``full``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def full(self, pages: int = 0) -> Iterator[None]:
        """Nothing of this process can write more than so many pages to one file: it is told that the file is too large."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (pages * PAGE, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


class SmallDisk(Disk):
    """A file system of 2 MiB. When it is full, nobody can write there."""

    @contextmanager
    def full(self, pages: int = 0) -> Iterator[None]:
        """All but so many pages are taken."""
        ballast = self.folder / ".ballast"
        with ballast.open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(PAGE))
            file.truncate(file.tell() - pages * PAGE)
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nobody can write, as after an error for which the kernel has mounted it anew. No file may be open for writing."""
        assert _mount(self.folder, _REMOUNT | _READ_ONLY), os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert _mount(self.folder, _REMOUNT), os.strerror(ctypes.get_errno())


@contextmanager
def disk(kind: str, folder: Path) -> Iterator[Disk]:
    """A disk at ``folder``, which exists, of one of ``KINDS``."""
    if kind == "limit":
        yield Disk(folder)
        return
    assert _mount(folder), os.strerror(ctypes.get_errno())
    try:
        yield SmallDisk(folder)
    finally:
        _LIBC.umount2(os.fsencode(folder), _DETACH)


CAN_MOUNT: Final = _can_mount()
KINDS: Final = ["limit", "small"] if CAN_MOUNT else ["limit"]
"""``limit``: a limit on the size of files, which stops a write in the middle just as well. ``small``: a file system that is full."""
