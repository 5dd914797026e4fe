"""A child process that cannot outlive its parent: it reports where it listens, and ends when its standard input is closed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Final

import orjson

import stream
from stream.errors import Fatal

READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Helper:
    """A running child process: where it listens, its process id, and the file that receives its standard error."""

    url: str
    pid: int
    log: Path


@contextmanager
def helper(module: str, arguments: Sequence[str] = (), *, log: Path | None = None) -> Iterator[Helper]:
    """Run ``python -m module arguments --tied`` until the context ends.

    The module writes one line ``{"url": ...}`` to standard output once it listens. Its standard error is appended to ``log``, or
    to a temporary file that is removed with the context. A terminal's Ctrl-C does not reach the process, so it runs until the context ends.

    Raises:
        Fatal: it ended, or wrote nothing for 60 seconds; the message contains the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="stream-local-") as scratch:
        path = log or Path(scratch, "log")
        # The package may be imported from a source tree that the helper's working directory does not show.
        paths = [str(Path(stream.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-m", module, *arguments, "--tied"]
        with (
            path.open("ab") as errors,
            subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, process_group=0
            ) as process,
        ):
            try:
                yield Helper(_first_line(process, module, path), process.pid, path)
            finally:
                _stop(process)


def _first_line(process: subprocess.Popen[bytes], module: str, log: Path) -> str:
    output = process.stdout
    line, silent = b"", True
    if output is not None:
        with DefaultSelector() as selector:
            selector.register(output, EVENT_READ)
            silent = not selector.select(READY_SECONDS)
            line = b"" if silent else output.readline()
    if not line:
        fate = "has not said where it listens" if silent else f"ended with status {process.wait(_STOP_SECONDS)}"
        end = log.read_text(errors="replace")[-2000:]
        message = f"helper process {module} {fate} after at most {READY_SECONDS:.0f} s; the end of its log:\n{end}"
        raise Fatal(message)
    url: str = orjson.loads(line)["url"]
    return url


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
