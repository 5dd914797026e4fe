"""Standard output in place of a store: what is put is printed, and nothing is kept."""

from __future__ import annotations

import asyncio
import builtins
import errno
import os
import select
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from stream.contracts import CONSOLE, ObjectInfo, Stored
from stream.errors import Fatal, Retryable

STDOUT: Final = 1
_CHUNK: Final = 4096
"""Bytes that a pipe accepts at once if it accepts any (POSIX's PIPE_BUF is at least 512, and 4,096 on Linux)."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LOOK: Final = 0.2
"""Seconds between checks whether anybody still waits for the printing."""


class ConsoleStore:
    """An ``ObjectStore`` that is always empty. What is put into it goes to ``out`` as a whole, one body after the other.

    It waits as long as nobody reads. What was printed cannot be taken back: a body that is put again is printed again, or the rest of it,
    if the disk was full in the middle of it.
    """

    def __init__(self, out: int = STDOUT) -> None:
        self._out = out
        self._begun: tuple[str, memoryview] | None = None
        """The key of a body of which only a part was printed, and the rest of it, which has to come before anything else."""
        self._completed: set[str] = set()
        """Keys of those of which the rest was printed by a call for another one."""
        self._thread = ThreadPoolExecutor(1, "console")
        """Of its own: it may wait for the reader of standard output for as long as that takes."""

    @property
    def url(self) -> str:
        """The root, as a person would write it."""
        return CONSOLE

    async def put(self, key: str, body: bytes) -> None:
        """Print ``body``.

        Raises:
            Fatal: standard output is closed, or its reader has gone.
            Retryable: it is a file, on a disk that is full.
        """
        given_up = threading.Event()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._print, key, body, given_up)
        except asyncio.CancelledError:
            given_up.set()
            raise
        except OSError as error:
            if error.errno in _FULL:
                msg = (
                    f"standard output takes no more rows: {error.strerror}. Remedy: make room where it goes; it is continued by itself then"
                )
                raise Retryable(msg) from error
            msg = f"standard output accepts no more rows ({error.strerror}): its reader has to stay until the end"
            raise Fatal(msg) from error

    def _print(self, key: str, body: bytes, given_up: threading.Event) -> None:
        if self._begun is not None:
            begun, rest = self._begun
            self._write(begun, rest, given_up)
            if self._begun is not None:
                return
            self._completed.add(begun)
        if key in self._completed:
            self._completed.remove(key)
            return
        self._write(key, memoryview(body), given_up)

    def _write(self, key: str, left: memoryview, given_up: threading.Event) -> None:
        """Write ``left``, unless nobody waits for it any more."""
        try:
            while left and not given_up.is_set():
                _, ready, _ = select.select([], [self._out], [], _LOOK)
                if ready and not given_up.is_set():
                    left = left[os.write(self._out, left[:_CHUNK]) :]
                    self._begun = key, left
        finally:
            if not left:
                self._begun = None

    async def create(self, key: str, body: bytes) -> str | None:
        """Print ``body``, since no object ever exists; the tag means nothing."""
        await self.put(key, body)
        return ""

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:  # noqa: ARG002
        """None: there is nothing to replace."""
        return None

    async def get(self, key: str) -> Stored | None:  # noqa: ARG002
        """None: what was printed is gone."""
        return None

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:  # noqa: ARG002
        """Nothing."""
        nothing: tuple[ObjectInfo, ...] = ()
        for info in nothing:
            yield info

    async def folders(self, prefix: str) -> builtins.list[str]:  # noqa: ARG002
        """None."""
        return []

    async def read_range(self, key: str, start: int, end: int, version: str) -> bytes | None:  # noqa: ARG002
        """None: what was printed is gone."""
        return None

    async def stat(self, key: str) -> ObjectInfo | None:  # noqa: ARG002 - the signature is the protocol's
        """Nothing that was printed is kept."""
        return None

    async def delete(self, key: str) -> None:  # noqa: ARG002
        """Nothing can be taken back."""
        return
