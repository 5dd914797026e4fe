"""The process that reads Parquet, Arrow and Avro objects for a worker: ``python -m stream.source.reader_child``, see ``reader_process``.

It gets bytes of an object by asking for them, and knows no credentials. What it may use is limited, so that an object made to exhaust a
machine exhausts this process: memory beyond its ``headroom`` is refused to it, and a step that takes ``STEP_SECONDS`` of CPU time ends it.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from stream.cgroup import memory_limit
from stream.source.frames import receive, send

HEADROOM: Final = 2**30
"""Bytes that reading an object may take beyond what the libraries take themselves."""

SHARE: Final = 8
"""Part of the container's memory that each of these processes may take for that, if that is less: with two of them, a quarter. A process
that asks for more is told so. The kernel would kill instead, on many nodes all processes of the container at once."""

LEAST: Final = 96 * 2**20
"""Bytes that it may take however small the container is; less would not even do for sound files of a usual shape."""

LOG_BYTES: Final = 64 * 1024
"""Bytes that libraries may write about what ends this process. It writes to no other file."""

STEP_SECONDS: Final = 300.0
"""Seconds of CPU time between two messages. A step converts a few megabytes."""

_worker: BinaryIO = sys.stdout.buffer
"""Where messages go; what libraries print to standard output must not get between them."""

_limit: int | None = None
"""The memory limit of the container."""

_PAGE: Final = resource.getpagesize()
_DATA: Final = 5
"""The place in ``/proc/self/statm`` of the pages that ``RLIMIT_DATA`` counts."""


class _Wanted(io.RawIOBase):
    """The object: each read asks the worker for the bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            msg = f"it names byte {at} of its {self._size}"
            raise ValueError(msg)
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        if not wanted:
            return 0
        send(_worker, ("read", self._at, wanted))
        body = _next()
        buffer[: len(body)] = body
        self._at += len(body)
        return len(body)


def _next() -> Any:
    """The worker's next message. Ends the process if the worker has ended."""
    # The clock counts CPU time of this process, so that neither waiting nor a suspended machine counts.
    signal.setitimer(signal.ITIMER_PROF, 0)
    message = receive(sys.stdin.buffer)
    if message is None:
        sys.exit(0)
    signal.setitimer(signal.ITIMER_PROF, STEP_SECONDS)
    return message


def _serve(kind: str, column: str | None, size: int, after: int, most: int) -> Any:
    """Read one object. Returns a message that asks for another one before the end of this one, if there is one."""
    from stream.source.typed_rows import typed_rows

    try:
        for first, bodies in typed_rows(kind, column, cast("BinaryIO", _Wanted(size)), after):
            number, begin, held = first, 0, 0
            for at, body in enumerate(bodies, 1):
                held += len(body)
                if held >= most or at == len(bodies):
                    send(_worker, ("rows", number, bodies[begin:at]))
                    message = _next()
                    if message[0] == "open":
                        return message
                    number, begin, held = first + at, at, 0
    except MemoryError:
        send(_worker, too_large(_limit))
        return None
    except Exception as error:  # noqa: BLE001 - whatever a library makes of damage
        send(_worker, ("bad", str(error) or type(error).__name__))
        return None
    send(_worker, ("end",))
    return None


def headroom(limit: int | None) -> int:
    """Bytes that reading an object may take in a container whose memory is limited to ``limit``."""
    return HEADROOM if limit is None else min(HEADROOM, max(LEAST, limit // SHARE))


def too_large(limit: int | None) -> tuple[str, str]:
    """What is told of an object of which a part takes more than the headroom: whether it (bad) or the container (short) is to blame."""
    room = headroom(limit)
    what = f"to read a part of it takes more than {room // 2**20:,} MiB of memory"
    if limit is None or room == HEADROOM:
        return "bad", f"{what}, which no object may take"
    why = f"an eighth of the container's limit of {limit // 2**20:,} MiB" if room > LEAST else "the least that is allowed"
    return "short", f"{what}, {why}: raise the limit of the container; with {SHARE * HEADROOM // 2**30} GiB, all sound objects can be read"


def _start_threads() -> None:
    """Read a file, so that what the libraries take for their threads and on first use is there before memory is limited."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stream.source.json_rows import rows_as_json

    file = io.BytesIO()
    pq.write_table(pa.table({"number": [1], "text": ["a"]}), file, compression="zstd")
    for batch in pq.ParquetFile(file).iter_batches():
        rows_as_json(batch)


def main() -> None:
    """Serve until the worker ends."""
    global _worker, _limit  # noqa: PLW0603 - the process has one worker
    _worker = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # they may be sent to the worker's whole group, and it may take a while to drain
    gc.disable()  # to look for garbage among what the libraries make, all of which stays, takes a quarter of the time of loading
    import fastavro  # noqa: F401 - loaded before the limit is set
    import polars  # noqa: F401, ICN001
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet

    from stream.source.typed_rows import read_logical_types_exactly

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    read_logical_types_exactly()
    _start_threads()
    gc.freeze()
    gc.enable()
    _limit = memory_limit()
    most = int(Path("/proc/self/statm").read_text().split()[_DATA]) * _PAGE + headroom(_limit)
    for what, wanted in ((resource.RLIMIT_DATA, most), (resource.RLIMIT_FSIZE, LOG_BYTES), (resource.RLIMIT_CORE, 0)):
        _, allowed = resource.getrlimit(what)
        size = wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)
        resource.setrlimit(what, (size, size))
    with contextlib.suppress(OSError):
        # If the machine runs out of memory nevertheless, this process is the one to end.
        Path("/proc/self/oom_score_adj").write_text("1000")
    send(_worker, ("ready", too_large(_limit)))
    message = _next()
    while True:
        message = _serve(*message[1:]) or _next()


if __name__ == "__main__":
    main()
