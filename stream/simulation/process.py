"""One simulated worker process: what becomes of each of its calls, and what it leaves undone when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from stream.events import Event
from stream.simulation.schedule import Disturbance, Struck, Trouble
from stream.simulation.virtual_time import LoopClock

T = TypeVar("T")

FASTEST: Final = 0.002
SLOWEST: Final = 0.08
"""Seconds that a call takes in one direction: the usual latencies of S3 and Kinesis, so that calls of several workers overlap."""

SLIGHTLY: Final = 1e-6
"""Seconds by which a timer may be early, because sums of floats are rounded."""


class Killed(BaseException):
    """The process is no more: whatever of it still runs in this interpreter must have no effect."""


class Refused(Exception):
    """The call was refused; ``expired``: for an expired iterator, if it has one."""

    def __init__(self, *, expired: bool) -> None:
        super().__init__("refused")
        self.expired = expired


class NoReply(Exception):
    """No reply came, whatever happened to the call."""


Note = Callable[[float, str, "Event | Struck | str"], None]
"""Records what happened: the virtual time, who did it, and what it was."""


class Process:
    """A worker process. ``calm``: from now on nothing goes wrong any more; what stands still goes on when its time is over."""

    def __init__(self, name: str, number: int, seed: int, skew: float, disturbances: Iterable[Disturbance], note: Note) -> None:
        self.name = name
        self.clock = LoopClock(skew)
        self.calls = 0
        self.checkpoints = 0
        self.dead = False
        self.calm = False
        self.task: asyncio.Task[None] | None = None
        self._identity = (seed << 20) ^ (number + 1) << 12
        self._awake_at = 0.0
        mine = [each for each in disturbances if each.worker == number]
        self._calls = {each.call: each for each in mine if each.trouble is not Trouble.LEASE_LOST}
        self._checkpoints = {each.call: each for each in mine if each.trouble is Trouble.LEASE_LOST}
        self._note = note

    def emit(self, event: Event) -> None:
        """``contracts.Emit``: keep what the worker says of itself."""
        if not self.dead:
            self._note(self.clock.monotonic(), self.name, event)

    def loses_lease(self) -> bool:
        """Whether the checkpoint that is about to be written is refused because another worker has the lease."""
        found = self._checkpoints.get(self.checkpoints)
        self.checkpoints += 1
        if found is None or self.calm or self.dead:
            return False
        self._note(self.clock.monotonic(), self.name, Struck(found, ""))
        return True

    async def call(self, what: str, apply: Callable[[], T]) -> T:
        """Make a call whose effect is ``apply``, which happens at one moment or never.

        Raises:
            NoReply: it is not known what happened.
            Refused: nothing happened.
            Killed: the process has died. Only what still runs of it sees this.
        """
        number = self.calls
        self.calls += 1
        await self._pass(mixed(self._identity, 2 * number))
        found = None if self.calm else self._calls.get(number)
        if found is not None:
            await self._disturb(found, what)
        result = None if found is not None and found.trouble is Trouble.LATE else apply()
        if found is not None and found.trouble is Trouble.KILLED_AFTER:
            await self._die()
        if found is not None and found.trouble is Trouble.LATE:
            asyncio.get_running_loop().call_later(found.seconds, apply)
        if found is not None and found.trouble in {Trouble.LATE, Trouble.UNANSWERED}:
            await self._pass(1.0)
            raise NoReply
        await self._pass(mixed(self._identity, 2 * number + 1))
        return result  # type: ignore[return-value]

    async def _disturb(self, found: Disturbance, what: str) -> None:
        now = self.clock.monotonic()
        self._note(now, self.name, Struck(found, what))
        match found.trouble:
            case Trouble.KILLED_BEFORE:
                await self._die()
            case Trouble.FROZEN:
                self._awake_at = now + found.seconds
                await self._pass(0.0)
            case Trouble.UNDONE:
                await self._pass(1.0)
                raise NoReply
            case Trouble.THROTTLED | Trouble.EXPIRED:
                raise Refused(expired=found.trouble is Trouble.EXPIRED)
            case _:
                pass

    async def _pass(self, share: float) -> None:
        """Let a way of the call take its time, and wait for as long as the process stands still."""
        if self.dead:
            raise Killed
        await self.clock.sleep(FASTEST + share * share * (SLOWEST - FASTEST))
        while (left := self._awake_at - self.clock.monotonic()) > SLIGHTLY:
            await self.clock.sleep(left)
        if self.dead:
            raise Killed

    async def _die(self) -> None:
        self.dead = True
        if self.task is not None:
            self.task.cancel()
        raise Killed


def mixed(*numbers: int) -> float:
    """A number in [0, 1) that depends on ``numbers`` and looks random."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state / 2**64
