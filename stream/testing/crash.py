"""``python -m stream.testing.crash --at IntentCreated:2 pipeline.yaml``: a worker that dies at a named point.

The points are the classes of ``stream.events``, counted over the whole process: the worker gets SIGKILL from inside the call that
would have emitted the second ``IntentCreated``, so nothing runs after it. With ``--signal STOP`` it freezes there instead, as a paused
virtual machine does, and continues on SIGCONT. Without ``--at`` it is an ordinary worker.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import typer

from stream import events
from stream.cli.run import run_pipeline
from stream.contracts import Emit
from stream.watchdog import WATCHDOG
from stream.worker.sources.reading import Reading

POINTS: Final = {
    name: kind
    for name, kind in vars(events).items()
    if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event
}
"""Every crash point by name."""

_SIGNALS: Final = {"KILL": signal.SIGKILL, "STOP": signal.SIGSTOP}


@dataclass(frozen=True, slots=True)
class Point:
    """The ``occurrence``-th event (counted from 1) of one class, over all shards."""

    kind: type[events.Event]
    occurrence: int

    @staticmethod
    def parse(text: str) -> Point:
        """Parse ``Name`` or ``Name:n``.

        Raises:
            ValueError: no such event, or n is not a positive number.
        """
        name, _, number = text.partition(":")
        if name not in POINTS:
            msg = f"there is no crash point {name!r}; there are: {', '.join(sorted(POINTS))}"
            raise ValueError(msg)
        if not (number or "1").isdecimal() or int(number or "1") < 1:
            msg = f"{text!r} asks for occurrence {number!r}; count from 1, as in {name}:1"
            raise ValueError(msg)
        return Point(POINTS[name], int(number or "1"))


@dataclass(slots=True)
class CrashAt:
    """An ``Emit`` that calls ``act`` inside the event that ``point`` names, once."""

    point: Point
    act: Callable[[], None]
    seen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: events.Event) -> None:
        """Count ``event`` if it is of the point's class, and call ``act`` if it is the one."""
        if not isinstance(event, self.point.kind):
            return
        with self.lock:
            self.seen += 1
            due = self.seen == self.point.occurrence
        if due:
            self.act()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the pipeline; exits as ``stream run`` does, unless the point is reached.

    Raises:
        SystemExit: with the exit code of ``stream run``.
    """
    parser = argparse.ArgumentParser(prog="python -m stream.testing.crash", description="A worker that dies at a named point")
    parser.add_argument("--at", type=_point, metavar="EVENT[:N]", help="where; without it the worker runs as usual")
    parser.add_argument("--signal", choices=sorted(_SIGNALS), default="KILL", help="what happens there")
    parser.add_argument("--drain", type=float, default=25.0, help="as of `stream run`")
    parser.add_argument("--threads", type=int, default=None, help="as of `stream run`")
    parser.add_argument("--once", action="store_true", help="as of `stream run`")
    parser.add_argument("--letters", action="store_true", help="read what `stream dlq redrive` has claimed")
    parser.add_argument("file", type=Path)
    given = parser.parse_args(arguments)
    WATCHDOG.start()
    number = _SIGNALS[given.signal]
    listeners: tuple[Emit, ...] = (CrashAt(given.at, lambda: os.kill(os.getpid(), number)),) if given.at else ()
    try:
        reading = Reading(once=given.once, letters=given.letters)
        run_pipeline(given.file, drain=given.drain, threads=given.threads, listeners=listeners, reading=reading)
    except typer.Exit as end:
        raise SystemExit(end.exit_code) from end


def _point(text: str) -> Point:
    try:
        return Point.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    main()
