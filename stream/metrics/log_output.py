"""Where log lines go: standard error, whose reader may have stopped reading. That must hold up neither leases nor probes."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections import deque
from typing import Final, Self

_CHUNK: Final = 4096
"""Bytes that a pipe accepts at once if it accepts any (POSIX's PIPE_BUF is at least 512, and 4,096 on Linux)."""
MAX_WAITING: Final = 2 * 2**20
"""Bytes of lines that wait for a reader: some ten thousand lines, hours of a worker's log."""
FINISH_SECONDS: Final = 2.0
"""Seconds that a process spends at its end on lines that nobody has read yet."""


class LogOutput:
    """Writes lines to ``descriptor``, in order. A call never waits for the reader, and may come from any thread.

    As long as the reader keeps up, a line is written when the call returns. Otherwise lines wait in memory, up to ``limit`` bytes, and a
    thread writes them once somebody reads again; further ones are dropped.
    """

    def __init__(self, descriptor: int, limit: int = MAX_WAITING) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._inside = False
        """Whether a line has begun and not ended."""
        self._torn = False
        """Whether the last line is there in part only, since no more of it could be written."""
        self._changed = threading.Condition()

    def __call__(self, line: bytes) -> bool:
        """Whether ``line`` is written or waits; if not, it is dropped.

        Raises:
            OSError: nothing can be written, for instance because the reader has gone.
        """
        with self._changed:
            rest = line if self._waiting else self._written_now(line)
            # The rest of a line that has begun is kept in any case: half a line would spoil the next one.
            if rest == line and self._size + len(line) > self._limit:
                return False
            if rest:
                self._waiting.append(rest)
                self._size += len(rest)
                if len(self._waiting) == 1:
                    threading.Thread(target=self._write_waiting, name="write log", daemon=True).start()
        return True

    def __enter__(self) -> Self:
        """At the end of the context every line is written, or ``FINISH_SECONDS`` have passed."""
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, FINISH_SECONDS)

    def _written_now(self, line: bytes) -> bytes:
        """What is left of ``line`` once as much of it is written as is accepted without waiting."""
        accepting = select.poll()
        accepting.register(self._descriptor, select.POLLOUT)
        while line and accepting.poll(0):
            line = line[self._write(line[:_CHUNK]) :]
        return line

    def _write(self, part: bytes) -> int:
        """Write ``part`` or the beginning of it, of which the number of bytes is returned. What follows half a line begins a new one."""
        try:
            if self._torn:
                os.write(self._descriptor, b"\n")
                self._torn = self._inside = False
            done = os.write(self._descriptor, part)
        except OSError:
            self._torn = self._torn or self._inside
            raise
        self._inside = not part[:done].endswith(b"\n")
        return done

    def _write_waiting(self) -> None:
        """Write what waits, however long its reader takes."""
        while True:
            line = self._waiting[0]
            # If the reader has gone, whoever writes the next line is told.
            with contextlib.suppress(OSError):
                while line:
                    line = line[self._write(line) :]
            with self._changed:
                self._size -= len(self._waiting.popleft())
                if not self._waiting:
                    self._changed.notify_all()
                    return


class _Replaced(LogOutput):
    """Standard error that a program has replaced by an object without a descriptor, which does not keep anybody waiting."""

    def _written_now(self, line: bytes) -> bytes:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        return b""


def standard_error() -> LogOutput:
    """The output to standard error, as it is now."""
    try:
        return LogOutput(sys.stderr.fileno())
    except (OSError, ValueError):
        return _Replaced(-1)
