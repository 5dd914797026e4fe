"""The process of the ``stream`` command, from its arguments to its exit code."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def command() -> NoReturn:
    """Run the command in the arguments, and end the process with its exit code."""
    code = 1
    signal.signal(signal.SIGUSR1, _show_stacks)  # until the watchdog starts: the signal must not end the process, nor be lost on PID 1
    try:
        from stream.cli import loading  # here, so that Ctrl-C meanwhile is caught below
        from stream.cli.limits import require_room
        from stream.cli.main import app

        loading.BEFORE_LIBRARIES.extend((_start_watchdog, require_room))  # in this order: all later threads leave SIGUSR1 to the watchdog
        app()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = 130
    except BaseException:  # noqa: BLE001 - a panic of a library in Rust is no Exception; it is shown as the interpreter would show it
        sys.excepthook(*sys.exc_info())
    leave(code)


def _show_stacks(_number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(ValueError, OSError, AttributeError):  # standard error is closed
        faulthandler.dump_traceback(2)


def _start_watchdog() -> None:
    from stream.watchdog import WATCHDOG  # here, because asyncio is not needed for help and completion

    with contextlib.suppress(RuntimeError):  # no thread can be started, as ``require_room`` will say
        WATCHDOG.start()


def leave(code: int) -> NoReturn:
    """End the process now, after its exit handlers; the interpreter is not finalized.

    Threads of the object store's client may be about to return a result that is no longer awaited. During finalization the interpreter ends
    a thread that returns to it, which that client does not survive: the process would die of SIGABRT or SIGSEGV, with an exit code that
    contradicts the work that was done.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter does, too; there is no other name for it
    for out in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            out.flush()
    os._exit(code)
