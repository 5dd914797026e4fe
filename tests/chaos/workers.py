"""Worker processes, forked from one that has already imported everything: real processes, real signals, quick to start."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from time import monotonic
from typing import Any

from stream.cli.loading import settings_of_libraries
from tests.forked import CONTEXT, PATIENCE


def _enter(arguments: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    from stream.testing.crash import main

    _begin(environment, log)
    main(arguments)


def _begin(environment: Mapping[str, str], log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(environment)
    os.environ.update(settings_of_libraries(os.environ, len(os.sched_getaffinity(0))))  # as ``stream run`` has them; Polars reads them late


def _operate(arguments: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    from stream.cli.main import app

    _begin(environment, log)
    app(list(arguments))


class Worker:
    """One process; ``log`` is what it wrote. With ``operator``, it is not a worker but the command ``stream`` with ``arguments``."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, *, operator: bool = False) -> None:
        self.log = log
        target = _operate if operator else _enter
        self._process: Any = CONTEXT.Process(target=target, args=(list(arguments), dict(environment), str(log)))
        self._process.start()

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def sentinel(self) -> int:
        """To wait for its end with ``multiprocessing.connection.wait``."""
        return int(self._process.sentinel)

    def ended(self) -> int | None:
        """The exit code, minus the signal's number if one killed it; None while it lives."""
        code: int | None = self._process.exitcode
        return code

    def until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition`` holds, which is checked every 30 ms and when the process has ended; less often if that takes long.

        What asks a server would otherwise keep it and this process busier than the worker.
        """
        waited = 0.0
        while waited < PATIENCE:
            begun = monotonic()
            if condition():
                return
            pause = min(max(0.03, 5 * (monotonic() - begun)), 1.0)
            waited += pause
            if connection.wait([self._process.sentinel], timeout=pause):
                assert condition(), f"the worker ended with {self.exit()}:\n{self.said()}"
                return
        self.signal(signal.SIGUSR1)  # It tells what it is waiting for, or ends if it has not yet come to that.
        connection.wait([self._process.sentinel], timeout=3.0)
        raise AssertionError(f"the worker is stuck:\n{self.said()}")

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def exit(self) -> int:
        """The exit code, minus the signal's number if one killed it."""
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None, f"the worker does not end:\n{self.said()}"
        return int(self._process.exitcode)

    def drain(self) -> int:
        """Send SIGTERM and wait; the exit code."""
        self.signal(signal.SIGTERM)
        return self.exit()

    def until_frozen(self) -> None:
        """Return once the process is stopped."""
        self.until(lambda: (Path("/proc") / str(self.pid) / "stat").read_text().rpartition(")")[2].split()[0] == "T")

    def end(self) -> None:
        """Kill the process if it still runs, and free what it holds."""
        self._process.kill()
        self._process.join()
        self._process.close()

    def said(self) -> str:
        """The lines that it has written. A line of which only the beginning is there yet is left out."""
        written = self.log.read_bytes() if self.log.exists() else b""
        return written[: written.rfind(b"\n") + 1].decode()


def clean(text: str) -> bool:
    """Whether standard error shows no traceback."""
    return "Traceback (most recent call last)" not in text
