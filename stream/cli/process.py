"""The process of the ``stream`` command, from its arguments to its exit code."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn

from stream.cli.main import app


def command() -> NoReturn:
    """Do what the arguments say, and end the process with the exit code of that."""
    code = 1
    try:
        app()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except Exception:  # noqa: BLE001 - it is shown as the interpreter would show it
        sys.excepthook(*sys.exc_info())
    leave(code)


def leave(code: int) -> NoReturn:
    """End the process now, behind what asked to be called at its end; the interpreter is not taken down.

    Threads of the object store's client may be about to hand in a result that nobody waits for any more. The interpreter ends a thread
    that comes back to it while it is taken down, which that client does not survive: the process would die of SIGABRT or SIGSEGV, with
    everything done and a code that says the opposite.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter does, too; there is no other name for it
    for out in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            out.flush()
    os._exit(code)
