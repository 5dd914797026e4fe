"""The command ``stream`` in processes that are forked from one which has imported its libraries: real processes, quick to start.

Such a process differs from ``python -m stream`` only in what was imported before. Where the import itself matters, as for what is loaded
when, or for a signal that arrives meanwhile, tests start Python.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context, reduction
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
CONTEXT: Final = get_context("forkserver")
PATIENCE: Final = 120.0
"""Seconds after which a process that has not done what a test waits for counts as stuck."""

# The modules of verbs are left out: each process imports them as ``stream`` does, with the settings that come before libraries.
_PRELOADED: Final = (
    "stream.testing.crash",
    "tests.chaos.workers",
    *(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ("hosts", "operations", "worker")
        for path in sorted((ROOT / "stream" / room).rglob("[a-z]*.py"))
    ),
    "tests.collected",
)


def prepare() -> None:
    """Have the libraries imported once for all processes to come."""
    places = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, places)))
    CONTEXT.set_forkserver_preload(list(_PRELOADED))


def command(arguments: Sequence[str]) -> None:
    """What ``stream`` does with ``arguments``; does not return."""
    sys.argv = ["stream", *arguments]
    from stream.cli.process import command as of_stream

    of_stream()


class Forked:
    """A process that calls ``target`` with ``arguments``; ``streams`` are the descriptors of its standard input, output and error.

    ``env`` is its whole environment, or all of this process's; the descriptors may be closed at once.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        streams: tuple[int, int, int],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        target: Callable[[Sequence[str]], None] = command,
    ) -> None:
        prepare()
        place, environment = str(cwd or Path.cwd()), dict(os.environ if env is None else env)
        self._process: Any = CONTEXT.Process(target=_enter, args=(target, list(arguments), _Streams(streams), place, environment))
        self._process.start()

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the signal's number if one killed it; None while it lives."""
        code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        """``returncode``, as ``subprocess.Popen`` has it."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code once it has ended."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "the process does not end"
        return int(self._process.exitcode)

    def kill(self) -> None:
        """Kill it if it still runs."""
        self.send_signal(signal.SIGKILL)
        self.wait()


def run(*arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """``stream`` with ``arguments``, no standard input, and its output captured."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as nothing:
        process = Forked(arguments, (nothing.fileno(), out.fileno(), err.fileno()), cwd=cwd, env=env)
        try:
            code = process.wait()
        finally:
            process.kill()
        written = [io.TextIOWrapper(file, "utf-8") for file in (out, err)]
        for each in written:
            each.seek(0)
        return subprocess.CompletedProcess(["stream", *arguments], code, *(each.read() for each in written))


class _Streams:
    """Descriptors on their way to a new process."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers

    def __getstate__(self) -> list[Any]:
        return [reduction.DupFd(number) for number in self._numbers]

    def __setstate__(self, sent: list[Any]) -> None:
        self._numbers = [each.detach() for each in sent]

    def become_standard(self) -> None:
        for standard, number in enumerate(self._numbers):
            os.dup2(number, standard)
            os.close(number)
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _enter(target: Callable[[Sequence[str]], None], arguments: Sequence[str], streams: _Streams, cwd: str, env: Mapping[str, str]) -> None:
    streams.become_standard()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place and place not in sys.path]
    target(arguments)
