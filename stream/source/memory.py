"""What readers of shards take of the byte budget: bytes that are reserved before they are fetched, and turns while they are behind."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from stream.budget import TURN_BYTES, ByteBudget
from stream.contracts import Clock, Emit, Page, Shard
from stream.events import BudgetWaited

_SMALL_PAGE_BYTES: Final = TURN_BYTES // 8
"""A smaller page ends its reader's turn, so that a reader that walks through hours without records does not make others wait."""

_SHORTEST_REPORTED: Final = 0.001
"""Seconds. A shorter wait is the time that the calls themselves take."""


class Reservation:
    """Reserved bytes of the budget, which are released at the end of the ``with`` block unless they were handed on."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget = budget
        self._size = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._size:
            self._budget.release(self._size)

    def settle(self, actual: int) -> None:
        """Change the number of reserved bytes to ``actual``."""
        self._budget.adjust(self._size, actual)
        self._size = actual

    def hand_on(self) -> int:
        """Leave the release of the bytes to the caller; returns how many there are."""
        size, self._size = self._size, 0
        return size


class BudgetShare:
    """What one reader of ``shard`` takes of ``budget``; its waits are reported. Within a ``with`` block, it counts among the readers."""

    def __init__(self, budget: ByteBudget, shard: Shard, clock: Clock, emit: Emit) -> None:
        self._budget = budget
        self._shard = shard
        self._clock = clock
        self._emit = emit
        self._behind = True
        self._fetched = 0
        """Bytes fetched in this turn."""

    def __enter__(self) -> Self:
        self._budget.readers += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._budget.readers -= 1
        self.end_turn()

    @property
    def limit(self) -> int:
        """Bytes that the reader may take, if all that have a turn take as many."""
        return self._budget.limit // max(1, min(self._budget.readers, self._budget.turns.count))

    async def reserve(self, size: int) -> Reservation:
        """Reserve ``size`` bytes, waiting for room. Cancelling the wait leaves the budget as it was."""
        begin = self._clock.monotonic()
        await self._budget.acquire(size)
        self._report_wait(begin)
        return Reservation(self._budget, size)

    async def wait_for_turn(self) -> None:
        """Wait until it is this reader's turn, if it is behind the tip."""
        if self._behind:
            begin = self._clock.monotonic()
            await self._budget.turns.begin(self)
            self._report_wait(begin)

    def end_turn(self) -> None:
        """Give up the turn, if the reader has one."""
        self._budget.turns.end(self)

    def end_turn_if_due(self, page: Page) -> None:
        """Note ``page``; end the turn if the reader has had its share, is at the tip of its shard, or gets little at a time."""
        self._behind = page.behind_ms > 0
        self._fetched += page.held
        if not self._behind or page.held < _SMALL_PAGE_BYTES or self._fetched >= TURN_BYTES:
            self._fetched = 0
            self.end_turn()

    def _report_wait(self, begin: float) -> None:
        seconds = self._clock.monotonic() - begin
        if seconds > _SHORTEST_REPORTED:
            self._emit(BudgetWaited(self._shard.stream, self._shard.shard_id, seconds))
