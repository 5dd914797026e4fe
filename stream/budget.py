"""One byte budget for a whole process: readers wait for room, and their waiting tells the buffers to empty."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol, runtime_checkable


@runtime_checkable
class Lending(Protocol):
    """A source whose pages hold bytes of a budget, to be given back by whoever drops a page."""

    budget: ByteBudget


class ByteBudget:
    """Bytes that may be held in memory at once, handed out first come, first served.

    A request larger than the whole budget is granted when nothing else is held, so a single huge record can always pass.
    Not thread-safe: use it from one event loop.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.readers = 0
        """Shards being read now, of whatever stream: they share the budget."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.pressure = asyncio.Event()
        """Set while somebody waits: whoever holds buffered bytes should commit them now."""

    async def acquire(self, size: int) -> None:
        """Hold ``size`` bytes, waiting for room. Cancelling the wait leaves the budget as it was."""
        if not self._waiting and self._fits(size):
            self.held += size
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, granted)
        self._waiting.append(entry)
        self.pressure.set()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.release(size)
            else:
                # A release between the cancellation and this moment has passed the entry over already.
                if entry in self._waiting:
                    self._waiting.remove(entry)
                self._grant()
            raise

    def adjust(self, held: int, actual: int) -> None:
        """Replace an estimate of ``held`` bytes by what it turned out to be; may exceed the limit for a moment."""
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
