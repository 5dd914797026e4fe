"""Tells what a process is waiting for: on SIGUSR1, and by itself once the event loop has not run for some seconds.

A handler written in Python runs only in the main thread, and only once that returns from the C code that it is in, which is just what a
stuck process does not do. So the signal is blocked in all threads but one, which does nothing but sleep in ``ppoll``: the signal interrupts
the sleep, and so the thread learns of it. No other thread is disturbed, and no signal is missed: one that comes while that thread is awake
stays pending until it sleeps again. A second thread looks at the event loop and makes the reports: it asks the loop where its tasks stand,
and finds that out by itself if the loop does not answer.

Both need the interpreter's lock. ``faulthandler`` can write the stacks of threads without it, but while these run that may crash the
process, which was seen to happen within some twenty signals. So it only does so after a thread has kept the lock for so long that no Python
code can be running. That time is measured in processor time of the process, because on any other clock time also passes for a process that
is frozen (SIGSTOP, a container's freezer, a machine that is paused): when it wakes up, its threads run, and the time seems to be up. A
thread that keeps the lock and only waits uses no processor time; to find it, SIGABRT writes the stacks, and ends the process unless it is
process 1 of a container, which no signal of its own ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, TypeAlias, TypeVar

from stream.clock import SystemClock
from stream.stacks import Stack, TaskWatch, threads

SIGNAL: Final = signal.SIGUSR1

BLOCKED_SECONDS: Final = 5.0
"""Seconds without a turn of the event loop after which the watchdog tells; the alert StreamLoopBlocked has the same limit."""
QUIET_SECONDS: Final = 300.0
"""Seconds between two reports that nobody asked for: on a machine that is too small, one would follow another."""
HOGGED_SECONDS: Final = 30.0
"""Seconds of computing for which a thread may keep the interpreter's lock from the watchdog, until ``faulthandler`` writes all stacks."""

_TICK: Final = 1.0
"""Seconds between two looks at the event loop."""
_LATE: Final = 2 * _TICK
"""Seconds by which the watchdog may wake up late; if it is later, the whole process was not running, and the loop is not to blame."""
_SIGSET_BYTES: Final = 128
"""Size of the C library's sets of signals."""
_HOGGED_SIGNAL: Final = signal.SIGPROF
"""The signal of the only timer of processor time that a process has."""
_ANSWER_SECONDS: Final = 1.0
"""Seconds for which the event loop may take to say where its tasks stand."""

Stacks: TypeAlias = Sequence[Stack]
_T = TypeVar("_T")
_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Report:
    """What the process was doing. ``blocked``: seconds since the event loop last ran, 0 if it runs, None if there is none.

    ``why`` it was made; empty if the watchdog itself has noticed that the loop is blocked.
    """

    why: str
    blocked: float | None
    stacks: Stacks

    def text(self) -> str:
        """For people; ends in a newline."""
        if self.blocked is None:
            loop = "no event loop runs"
        elif self.blocked:
            loop = f"the event loop has not run for {self.blocked:.1f} s"
        else:
            loop = "the event loop runs"
        lines = [line for stack in self.stacks for line in stack.lines()]
        return "\n".join((f"What process {os.getpid()} is doing ({self.why or 'watchdog'}; {loop})", *lines, "")) + "\n"


Listener: TypeAlias = Callable[[Report], bool]
"""Takes a report, and says whether it has written it; it is called from the watchdog's thread."""


@dataclass(slots=True)
class _Loop:
    """The event loop that is watched, and since when it has owed an answer (monotonic); None if it owes none."""

    loop: asyncio.AbstractEventLoop
    tasks: TaskWatch
    owed_since: float | None = None

    def answered(self) -> None:
        self.owed_since = None


class Watchdog:
    """The threads that watch this process. ``write`` gets text for standard error."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self._loop: _Loop | None = None
        self._listeners: list[Listener] = []
        self._reported_at: float = float("-inf")
        self._started = False
        self._wanted = ""
        self._asked = threading.Event()
        self._timed = False
        self._timer = threading.Lock()

    def start(self) -> None:
        """Start the threads, which end with the process. From now on, the signal is blocked in all threads that the caller starts.

        Does nothing if they are started already. Call it from the main thread.
        """
        if self._started:
            return
        self._started = True
        self._timed = _write_stacks_at_signals()
        signal.signal(SIGNAL, _ignore)
        signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
        for work, name in ((self._listen, "signals"), (self._run, "watchdog")):
            threading.Thread(target=work, name=name, daemon=True).start()

    @contextlib.contextmanager
    def watching(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Watch ``loop``, which must not have run yet, until the context ends."""
        before, self._loop = self._loop, _Loop(loop, TaskWatch())
        loop.set_task_factory(self._loop.tasks.make)
        try:
            yield
        finally:
            self._loop = before

    @contextlib.contextmanager
    def telling(self, listener: Listener) -> Iterator[None]:
        """Give reports to ``listener`` until the context ends. One that it does not write goes to standard error."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def tell(self, why: str) -> None:
        """Report soon, because of ``why``."""
        self._wanted = why
        self._asked.set()

    def stop_timer(self) -> None:
        """Call it before ``exec``, which does not stop the timer of processor time: its signal would end the program that comes next."""
        with self._timer:
            self._timed = False
            signal.setitimer(signal.ITIMER_PROF, 0)

    # --- the threads --------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        others = ctypes.create_string_buffer(_SIGSET_BYTES)
        libc.sigfillset(others)
        libc.sigdelset(others, SIGNAL.value)
        while libc.ppoll(None, 0, None, others) < 0 and ctypes.get_errno() == errno.EINTR:
            self.tell(SIGNAL.name)

    def _run(self) -> None:
        woken = _CLOCK.monotonic()
        while True:
            self._set_timer(HOGGED_SECONDS + (os.cpu_count() or 1) * (_TICK + _LATE))
            asked = self._asked.wait(_TICK)
            self._set_timer(0)  # what follows may take long without holding the lock: a report waits for its reader
            if asked:  # one that comes after the wait was over must not be cleared
                self._asked.clear()
            woken, before = _CLOCK.monotonic(), woken
            watched = self._loop
            if watched is not None and woken - before > _TICK + _LATE:
                watched.answered()
            try:
                if asked:
                    self._report(self._wanted)
                elif watched is not None:
                    self._check(watched, woken)
            except Exception as error:  # noqa: BLE001 - nothing that goes wrong here may end the watch
                self.write(f"the watchdog failed: {type(error).__name__}\n")

    def _set_timer(self, seconds: float) -> None:
        """All stacks are written unless this is called again while the process computes for ``seconds``; 0: they are not written.

        While the watchdog sleeps, or is late, all cores may compute without anybody keeping the lock; ``seconds`` must be more than that.
        """
        with self._timer:
            if self._timed:
                signal.setitimer(signal.ITIMER_PROF, seconds)

    def _check(self, watched: _Loop, now: float) -> None:
        """Ask the loop to answer, unless it already has been asked; report if it has not answered for too long."""
        if not watched.loop.is_running():
            watched.answered()
        elif watched.owed_since is None:
            watched.owed_since = now
            with contextlib.suppress(RuntimeError):  # the loop is closed
                watched.loop.call_soon_threadsafe(watched.answered)
        elif now - watched.owed_since >= BLOCKED_SECONDS and now - self._reported_at >= QUIET_SECONDS:
            self._reported_at = now
            self._report("", now - watched.owed_since)

    def _report(self, why: str, blocked_for: float = 0.0) -> None:
        watched = self._loop
        blocked, tasks = (None, []) if watched is None or not watched.loop.is_running() else self._tasks(watched)
        report = Report(why, blocked_for or blocked, (*threads(), *tasks))
        written = [listener(report) for listener in tuple(self._listeners)]
        if not any(written):
            self.write(report.text())

    def _tasks(self, watched: _Loop) -> tuple[float, list[Stack]]:
        """For how long the loop has not run, and where its tasks stand: as the loop says, or as this thread sees if it does not answer."""
        found: list[list[Stack]] = []
        done = threading.Event()

        def answer() -> None:
            found.append(_stacks(watched))
            done.set()

        begun = _CLOCK.monotonic()
        with contextlib.suppress(RuntimeError):
            watched.loop.call_soon_threadsafe(answer)
            if done.wait(_ANSWER_SECONDS):
                return 0.0, found[0]
        return _CLOCK.monotonic() - min(begun, watched.owed_since or begun), _stacks(watched)


def _stacks(watched: _Loop) -> list[Stack]:
    return watched.tasks.stacks(asyncio.all_tasks(watched.loop), watched.loop.time())


def _write_stacks_at_signals() -> bool:
    """Whether SIGPROF now writes the stacks of all threads, and so do SIGSEGV, SIGABRT and the like before they end the process."""
    try:
        faulthandler.enable(sys.__stderr__ or sys.stderr)
        faulthandler.register(_HOGGED_SIGNAL, sys.__stderr__ or sys.stderr)
    except (ValueError, OSError, RuntimeError):  # there is no standard error
        return False
    return True


def run(work: Coroutine[Any, Any, _T], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> _T:
    """The result of ``work``, for which an event loop runs that the watchdog watches, as ``asyncio.run`` does otherwise."""
    runner = asyncio.Runner(loop_factory=loop_factory)
    with WATCHDOG.watching(runner.get_loop()), runner:
        return runner.run(work)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """The handler of the signal: without one, it would end the process, or never arrive at PID 1. The thread that sleeps does the rest."""


def _to_stderr(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode("utf-8", "backslashreplace"))


WATCHDOG: Final = Watchdog(_to_stderr)
"""The watchdog of this process. It does nothing until it is started; signals belong to the whole process, so there can only be one."""
