"""One byte budget for the whole process: readers wait for room, and while one waits, buffers know that they should empty."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

TURN_BYTES: Final = 2 * 2**20
"""What a reader that is behind may fetch before it is another's turn. A unit of that size is worth a file, and with each shard giving
two megabytes a second, the readers whose turn it is deliver more than a processor can keep up with."""

FEWEST_TURNS: Final = 4


class ByteBudget:
    """Bytes that may be held in memory at once, handed out first come, first served.

    A request larger than the whole budget is granted when nothing else is held, so that a single huge record can always pass.
    Not thread-safe: use it from one event loop.
    """

    def __init__(self, limit: int, threads: int = 1) -> None:
        """``threads``: how many units can be transformed at once."""
        self.limit = limit
        self.held = 0
        self.readers = 0
        """Shards being read now, of any stream: they share the budget."""
        self.turns = Turns(max(FEWEST_TURNS, limit // TURN_BYTES))
        """Turns of readers that are behind: as many as can each fetch ``TURN_BYTES``."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.pressure = asyncio.Event()
        """Set while a reader waits: holders of buffered bytes should commit them now."""
        self.relief = Relief(threads, self.pressure)

    async def acquire(self, size: int) -> None:
        """Hold ``size`` bytes, waiting for room. Cancelling the wait leaves the budget as it was."""
        if not self._waiting and self._fits(size):
            self.held += size
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, granted)
        self._waiting.append(entry)
        self.pressure.set()
        self.relief.seek()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.release(size)
            else:
                # A release since the cancellation may already have dropped the entry.
                if entry in self._waiting:
                    self._waiting.remove(entry)
                self._grant()
            raise

    def adjust(self, held: int, actual: int) -> None:
        """Replace an estimate of ``held`` bytes by the ``actual`` number; this may exceed the limit for a moment."""
        self.held += actual - held
        self._grant()

    def release(self, size: int) -> None:
        """Give ``size`` bytes back."""
        self.held -= size
        self._grant()

    def _fits(self, size: int) -> bool:
        return self.held == 0 or self.held + size <= self.limit

    def _grant(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, granted = self._waiting.popleft()
            if not granted.done():
                self.held += size
                granted.set_result(None)
        if not self._waiting:
            self.pressure.clear()


class Relief:
    """While readers wait for room, the largest unit that is being filled is committed whenever a thread has nothing to transform.

    Not thread-safe: use it from one event loop.
    """

    def __init__(self, threads: int, pressure: asyncio.Event) -> None:
        self._idle = threads
        self._pressure = pressure
        self._filling: dict[object, tuple[int, Callable[[], None]]] = {}

    def filling(self, who: object, size: int, commit: Callable[[], None]) -> None:
        """Note that ``who`` fills a unit of ``size`` bytes so far; ``commit`` is called, once, when it should commit them."""
        self._filling[who] = size, commit
        self.seek()

    def stopped(self, who: object) -> None:
        """Note that ``who`` fills no unit."""
        self._filling.pop(who, None)

    @contextmanager
    def transforming(self, who: object) -> Iterator[None]:
        """The context in which the unit that ``who`` filled is transformed."""
        self.stopped(who)
        self._idle -= 1
        try:
            yield
        finally:
            self._idle += 1
            self.seek()

    def seek(self) -> None:
        """Let a unit be committed if readers wait and a thread is idle."""
        if self._pressure.is_set() and self._idle > 0 and self._filling:
            largest = max(self._filling, key=lambda who: self._filling[who][0])
            _, commit = self._filling.pop(largest)
            commit()


class Turns:
    """Gives turns to at most ``count`` readers at a time, first come, first served.

    If all readers that are behind shared the memory at once, each would hold next to nothing and write it in tiny files to make room.
    Not thread-safe: use it from one event loop.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._taken: set[object] = set()
        self._waiting: deque[tuple[object, asyncio.Future[None]]] = deque()

    async def begin(self, who: object) -> None:
        """Wait for a turn; a holder of one keeps it. Cancelling the wait leaves everything as it was."""
        if who in self._taken:
            return
        if not self._waiting and len(self._taken) < self.count:
            self._taken.add(who)
            return
        entry = (who, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            self.end(who)
            raise

    def end(self, who: object) -> None:
        """Give up the turn, if ``who`` has one."""
        self._taken.discard(who)
        while self._waiting and len(self._taken) < self.count:
            following, granted = self._waiting.popleft()
            if not granted.done():
                self._taken.add(following)
                granted.set_result(None)
