"""Time that passes only when everybody waits, and then at once. Nothing waits for the machine, so equal runs are equal."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

T = TypeVar("T")

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The moment at which every loop begins."""


TICK: Final = 1e-6
"""Seconds that a turn of the loop takes at least. Otherwise time might never reach a moment that rounding has put slightly later."""

MOST_TURNS: Final = 100_000
"""Turns of the loop without a wait after which it is taken for endless. Code that waits takes a few hundred."""


class Deadlock(Exception):
    """Every task waits, and nothing is due that could end the wait; or a task goes round and round without waiting."""


class _Leap(selectors.SelectSelector):
    """Does not wait: once everybody waits, the next moment for which somebody waits has come."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            msg = "every task waits forever"
            raise Deadlock(msg)
        self._turns = 0 if timeout > TICK else self._turns + 1
        if self._turns > MOST_TURNS:
            msg = f"a task goes round and round at {self.time:.3f} s without waiting for anything"
            raise Deadlock(msg)
        self.time += max(TICK, timeout)
        return []


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop with virtual time and without threads and network. Work for another thread is done at once, in this one."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._leap.time

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # noqa: ARG002
        """The result of ``func``, which has been called when this returns."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the one who awaits it
            future.set_exception(error)
        return future


class LoopClock:
    """``contracts.Clock`` of the running loop. Its wall clock is ahead by ``skew`` seconds, its monotonic clock by ``booted``."""

    def __init__(self, skew: float = 0.0, booted: float = 0.0) -> None:
        self._skew = timedelta(seconds=skew)
        self._booted = booted

    def now(self) -> datetime:
        """Virtual wall-clock time, UTC."""
        return EPOCH + timedelta(seconds=loop_seconds()) + self._skew

    def monotonic(self) -> float:
        """Virtual seconds since the machine of this clock was booted."""
        return loop_seconds() + self._booted

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` of virtual time."""
        loop = asyncio.get_running_loop()
        moment = loop.create_future()
        timer = loop.call_later(max(0.0, seconds), _arrived, moment)
        try:
            await moment
        finally:
            timer.cancel()


def loop_seconds() -> float:
    """Virtual seconds since the running loop was made."""
    return asyncio.get_running_loop().time()


def _arrived(moment: asyncio.Future[None]) -> None:
    if not moment.done():
        moment.set_result(None)


def leaping(body: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of ``body``, run in virtual time.

    The watchdog does not watch this loop: asking it to answer would take a turn, and a turn takes time, so no two runs would be equal.

    Raises:
        Deadlock: all tasks wait for each other.
    """
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        return runner.run(body())
