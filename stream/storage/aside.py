"""Threads for calls of a file system, which may never return: one on a dead NFS mount cannot be given up, and hardly even killed.

The event loop's own threads will not do. A hung call keeps one for good, so that soon nothing is left for anything else, and the process
waits for them when it ends. These belong to one place, are few, end when they have nothing to do, and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from stream.clock import SystemClock
from stream.contracts import Clock

HUNG_SECONDS: Final = 60.0
"""Seconds after which a call counts as one that has no answer. A server of NFS that fails over, or a disk that wakes up, takes less."""

THREADS: Final = max(2, len(os.sched_getaffinity(0)))
"""Threads of one place: as many as the event loop of a worker has, which take the interpreter's lock from each other."""

_LOOK_SECONDS: Final = 10.0
"""Seconds between two looks whether a call that is waited for hangs."""

_IDLE_SECONDS: Final = 5.0
"""Seconds after which a thread without work ends."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Unanswered(Exception):
    """A call did not return in time, and may have an effect later. ``call``: the oldest that has not, ``seconds``: for how long."""

    def __init__(self, call: str, seconds: float) -> None:
        super().__init__(call)
        self.call = call
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Hung:
    """A call to the store at ``place`` that has not returned for ``seconds``."""

    place: str
    call: str
    seconds: float


@dataclass(slots=True, eq=False)
class _Job:
    call: str
    work: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)
    begun: float | None = None


class Aside:
    """Makes the calls of stores at ``place``, at most ``threads`` at a time."""

    def __init__(self, place: str, clock: Clock | None = None, threads: int = THREADS) -> None:
        self.place = place
        self._clock = clock or SystemClock()
        self._most = threads
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._threads = self._idle = 0
        _ALL.add(self)

    async def __call__(self, call: str, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The result of ``function``, which is ``call`` in words.

        Raises:
            Unanswered: it has not returned for ``HUNG_SECONDS``, or it has not begun because none of those before it has. If it has begun,
                it goes on, and may have an effect later.
        """
        job = _Job(call, partial(function, *args, **kwargs))
        waiting = asyncio.wrap_future(job.future)
        self._put(job)
        try:
            while not (await asyncio.wait((waiting,), timeout=_LOOK_SECONDS))[0]:
                self._refuse_hung(job)
            result: _T = waiting.result()
        finally:
            job.future.cancel()  # if the call has not begun, it never will
            waiting.cancel()
        return result

    def hung(self) -> Hung | None:
        """The call that has been running for longest, if that is too long."""
        now = self._clock.monotonic()
        with self._changed:
            begun = [(each.begun, each.call) for each in self._running if each.begun is not None and now - each.begun >= HUNG_SECONDS]
        return Hung(self.place, min(begun)[1], now - min(begun)[0]) if begun else None

    def _refuse_hung(self, job: _Job) -> None:
        oldest = self.hung()
        now = self._clock.monotonic()
        with self._changed:
            # A call for which a thread is free begins in a moment.
            held_up = job.begun is not None or len(self._running) >= self._most
            awaited = [job] if job.begun is not None else [*self._running]
            hung = held_up and all(each.begun is not None and now - each.begun >= HUNG_SECONDS for each in awaited)
        if hung and oldest is not None:
            raise Unanswered(oldest.call, oldest.seconds)

    def _put(self, job: _Job) -> None:
        with self._changed:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._changed.notify()
            elif self._threads < self._most:
                threading.Thread(target=self._work, name="files", daemon=True).start()
                self._threads += 1

    def _work(self) -> None:
        while (job := self._next()) is not None:
            if job.future.set_running_or_notify_cancel():
                try:
                    job.future.set_result(job.work())
                except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
                    job.future.set_exception(error)
            with self._changed:
                self._running.discard(job)
            del job  # and with it the result, which may be large

    def _next(self) -> _Job | None:
        with self._changed:
            if not self._jobs:
                self._idle += 1
                self._changed.wait_for(lambda: bool(self._jobs), _IDLE_SECONDS)
                self._idle -= 1
            if not self._jobs:
                self._threads -= 1
                return None
            job = self._jobs.popleft()
            job.begun = self._clock.monotonic()
            self._running.add(job)
            return job


_ALL: Final[weakref.WeakSet[Aside]] = weakref.WeakSet()
_SHARED: Final[weakref.WeakValueDictionary[str, Aside]] = weakref.WeakValueDictionary()


def aside_for(place: str) -> Aside:
    """What all stores of this process at ``place`` share, so that their threads are few however many stores there are."""
    return _SHARED.setdefault(place, Aside(place))


def all_hung() -> list[Hung]:
    """The longest call of each store of this process that hangs, by place; call it from the event loop."""
    found = [each for each in (aside.hung() for aside in tuple(_ALL)) if each is not None]
    longest = {each.place: each for each in sorted(found, key=lambda each: each.seconds)}
    return sorted(longest.values(), key=lambda each: each.place)
