"""Reads typed objects (Parquet, Arrow, Avro) in a process of its own.

Libraries that read these formats in compiled code trust what a file says more than is good: damage can end a process, and a few bytes can
ask for all memory. Whatever becomes of such a process, the worker goes on, and knows that the content of the object is to blame.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final, cast

import msgspec

from stream.cgroup import memory_kills, memory_limit
from stream.errors import Retryable
from stream.source.frames import receive, send

_KEPT: Final = 2
"""Idle processes that are kept for the next object; starting one takes half a second."""

_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TZDIR")
"""What the process gets of the worker's environment: no secret."""


_ENDED: Final = "it ends the process that reads it ({}): it is damaged, or a part of it takes too much memory"

_NO_MEMORY: Final = ("memory allocation of", "bad_alloc", "out of memory")
"""What compiled code says before it ends the process because it gets no memory."""

_SAID_BYTES: Final = 300
"""Bytes of what a process wrote last that are repeated in an error."""


class BadContent(Exception):
    """The content of an object cannot be read; the argument says why."""


def typed_records(kind: str, column: str | None, file: BinaryIO, after: int, most: int) -> Iterator[tuple[int, list[bytes]]]:
    """The records of ``file`` after number ``after``, at most about ``most`` bytes at a time, with the number of the first of them.

    ``kind``: parquet, arrow or avro. ``column``: the one that holds whole records; None: each row becomes a JSON object.

    Raises:
        BadContent: the file is damaged or no such file, or a part of it is too large to be read; what is before it has been given.
        Retryable: the process cannot be started, somebody has killed it, or the container is too small for what it has to read; the
            object is not to blame.
        StreamError, OSError: what reading ``file`` raises.
    """
    while True:
        child, fresh = _borrowed()
        try:
            for first, bodies in _served(child, ("open", kind, column, file.seek(0, os.SEEK_END), after, most), file):
                after = first + len(bodies) - 1
                yield first, bodies
        except BadContent:
            # Damage that another object did to the process must not be held against this one.
            if fresh:
                raise
        else:
            return


def _served(child: _Child, request: object, file: BinaryIO) -> Iterator[tuple[int, list[bytes]]]:
    """What ``child`` answers to ``request``. It is used again unless something went wrong."""
    idle = False
    try:
        child.send(request)
        while True:
            match child.receive():
                case ["read", int(at), int(size)]:
                    file.seek(at)
                    child.send(file.read(size))
                case ["rows", int(first), list(bodies)]:
                    idle = True
                    yield first, bodies
                    idle = False
                    child.send(("next",))
                case ["end"]:
                    idle = True
                    return
                case ["bad", str(why)]:
                    raise BadContent(why)
                case ["short", str(why)]:
                    raise _short(why)
                case _:
                    raise BadContent(_ENDED.format("nonsense"))
    finally:
        if idle:
            _give_back(child)
        else:
            child.end()


def _short(why: str) -> Retryable:
    return Retryable(f"the process that reads Parquet, Arrow and Avro objects lacks memory: {why}")


class _Words:
    """What a process writes to its standard error."""

    def __init__(self) -> None:
        """Raises ``Retryable`` if there can be none."""
        try:
            self.file: Final = os.fdopen(os.memfd_create("reader"), "rb", buffering=0)  # there may be no folder that can be written
        except OSError as error:
            msg = f"the process that reads Parquet, Arrow and Avro objects cannot be started: {error}"
            raise Retryable(msg) from error

    def last(self) -> str:
        """The end of it, in one line."""
        size = os.fstat(self.file.fileno()).st_size
        text = os.pread(self.file.fileno(), _SAID_BYTES, max(0, size - _SAID_BYTES))
        return " ".join(text.decode("utf-8", "replace").split())


class _Child:
    """One process. ``program``: arguments for Python."""

    def __init__(self, program: Sequence[str] = ("-m", "stream.source.reader_child")) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            # The allocator that gives back what it cannot get, as a refusal; and no threads that would compete with the worker's.
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "POLARS_MAX_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._kills = memory_kills()
        self._said = _Words()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - it is our own module
                [sys.executable, "-P", *program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said.file,
                env=environment,
                process_group=0,  # a terminal's Ctrl-C is for the worker, which ends this process itself
            )
        except OSError as error:
            self._said.file.close()
            msg = f"the process that reads Parquet, Arrow and Avro objects cannot be started: {error}"
            raise Retryable(msg) from error
        self._too_large: list[str] = []
        """What is told of an object of which a part takes too much memory."""
        match receive(cast("BinaryIO", self._process.stdout)):
            case ["ready", [str(kind), str(why)]]:
                self._too_large = [kind, why]
            case _:
                code, said = self._process.wait(), self._said.last()
                self.end()
                msg = (
                    f"the process that reads Parquet, Arrow and Avro objects ended at once, with code {code}: look if this machine lacks "
                    f"memory, and what `{sys.executable} -m stream.source.reader_child` says; it said: {said or 'nothing'}"
                )
                raise Retryable(msg)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def send(self, message: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # ``receive`` says why it has ended
            send(cast("BinaryIO", self._process.stdin), message)

    def receive(self) -> Any:
        """The next message.

        Raises:
            BadContent: the process has ended of what it read.
            Retryable: somebody has killed it.
        """
        try:
            message = receive(cast("BinaryIO", self._process.stdout))
        except msgspec.MsgspecError as error:
            raise BadContent(_ENDED.format("nonsense")) from error
        if message is not None:
            return message
        code = self._process.wait()
        name = signal.Signals(-code).name if code < 0 else f"code {code}"
        if -code == signal.SIGKILL:
            limit = memory_limit()
            if memory_kills() > self._kills and limit is not None:
                why = f"the kernel killed it, because the container reached its memory limit of {limit // 2**20:,} MiB; raise the limit"
                raise _short(why)
            msg = "the process that reads Parquet, Arrow and Avro objects was killed: look whether this machine lacks memory"
            raise Retryable(msg)
        if -code == signal.SIGABRT and self._too_large[0] == "short" and any(each in self._said.last() for each in _NO_MEMORY):
            raise _short(self._too_large[1])
        if -code == signal.SIGPROF:
            msg = "a part of it keeps the reader busy for minutes, as no sound file does"
            raise BadContent(msg)
        raise BadContent(_ENDED.format(name))

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                cast("BinaryIO", pipe).close()
        self._said.file.close()


_idle: Final[list[_Child]] = []
_lock: Final = threading.Lock()


def _borrowed() -> tuple[_Child, bool]:
    """A process that nobody else uses, and whether it has read nothing yet."""
    while True:
        with _lock:
            child = _idle.pop() if _idle else None
        if child is None:
            return _Child(), True
        if not child.ended:
            return child, False
        child.end()


def _give_back(child: _Child) -> None:
    with _lock:
        if len(_idle) < _KEPT:
            _idle.append(child)
            return
    child.end()


@atexit.register
def _end_all() -> None:
    with _lock:
        ended, _idle[:] = list(_idle), []
    for child in ended:
        child.end()
