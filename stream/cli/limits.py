"""Whether the limits on this process leave room for its libraries, which end in many odd ways if they do not."""

from __future__ import annotations

import os
import resource
import threading
from typing import Final

from stream.errors import Fatal

ADDRESS_SPACE: Final = 768 * 2**20
"""Bytes of address space, little of which is ever memory: with its libraries loaded, a verb was seen to use up to 540 MiB on two cores."""
THREADS: Final = 20
"""Threads besides two for each core: of the libraries, the event loop and the watchdog. A worker was seen to end without them."""
OPEN_FILES: Final = 64
"""Open files, sockets among them, that are allowed at least: a worker of two shards was seen to end with 20, and to do its work with 32."""
OPEN_FILES_WANTED: Final = 4096
"""Open files that are allowed if the hard limit permits it: a worker of many shards has several connections for each."""
CORES: Final = 16
"""Cores beyond which no more threads are asked for: with so many, a limit that is too low is far too low."""


def require_room() -> None:
    """Make sure that the libraries of a verb can be loaded, and can start their threads.

    Raises:
        Fatal: a limit is too low; the message names it.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < ADDRESS_SPACE:
        least = f"at least {ADDRESS_SPACE // 1024} kB are needed to load libraries"
        msg = f"the address space of this process is limited to {limit // 1024} kB (ulimit -v), and {least}; raise the limit"
        raise Fatal(msg)
    require_open_files()
    wanted = THREADS + 2 * min(CORES, len(os.sched_getaffinity(0)))
    if (started := _threads_that_start(wanted)) < wanted:
        what = f"this process can start {started} threads, and its libraries need {wanted}"
        msg = f"{what}: raise the limit on processes (ulimit -u, or the pids limit of the container)"
        raise Fatal(msg)


def require_open_files() -> None:
    """Allow this process as many open files as it may need, within its hard limit.

    Raises:
        Fatal: that is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(OPEN_FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < OPEN_FILES:
        msg = (
            f"this process may have {wanted} files and connections open (ulimit -Hn), and at least {OPEN_FILES} are needed; raise the limit"
        )
        raise Fatal(msg)


def _threads_that_start(wanted: int) -> int:
    """How many of so many threads can exist at once; they have ended when this returns."""
    done = threading.Event()
    threads = []
    try:
        for _ in range(wanted):
            thread = threading.Thread(target=done.wait, daemon=True)
            thread.start()
            threads.append(thread)
    except RuntimeError:  # can't start new thread
        pass
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return len(threads)
