"""One simulated worker process: what becomes of each of its calls, and what it leaves undone when it dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from stream.events import Event
from stream.simulation.schedule import Among, Disturbance, Struck, Trouble
from stream.simulation.virtual_time import LoopClock, loop_seconds

T = TypeVar("T")

FASTEST: Final = 0.002
SLOWEST: Final = 0.08
"""Seconds that a call takes in one direction: the usual latencies of S3 and Kinesis, so that calls of several workers overlap."""

LONGEST_UPTIME: Final = 1e6
"""Seconds for which a machine was up before the schedule began: monotonic clocks of two processes say nothing about each other."""

THROTTLED: Final = "ProvisionedThroughputExceededException"
"""How Kinesis and DynamoDB refuse a call of which there are too many."""

SLIGHTLY: Final = 1e-6
"""Seconds by which a timer may be early, because sums of floats are rounded."""


class Killed(BaseException):
    """The process is no more: whatever of it still runs in this interpreter must have no effect."""


class Refused(Exception):
    """The call was refused; ``expired``: for an expired iterator, if it has one."""

    def __init__(self, *, expired: bool) -> None:
        super().__init__("refused")
        self.expired = expired


class Denied(Exception):
    """Access was refused: nothing happened, nor will it while that lasts."""


class NoReply(Exception):
    """No reply came, whatever happened to the call."""


class Caller(Protocol):
    """What makes calls that may fail: a process in virtual time, or one that is controlled step by step."""

    async def call(self, what: str, apply: Callable[[], T], *, writes: bool = False) -> T:
        """See ``Process.call``."""
        ...


class ProcessClock(LoopClock):
    """The clock of a process: a sleep that ends while the process is frozen ends when it is no longer frozen."""

    def __init__(self, process: Process, skew: float, booted: float) -> None:
        super().__init__(skew, booted)
        self._process = process

    async def sleep(self, seconds: float) -> None:
        """See ``contracts.Clock``."""
        await super().sleep(seconds)
        await self._process.awake()


Note = Callable[[float, str, "Event | Struck | str"], None]
"""Records what happened: the virtual time, who did it, and what it was."""


class Process:
    """A worker process. ``calm``: from now on nothing goes wrong any more; a frozen process continues when its time is over."""

    def __init__(self, name: str, number: int, seed: int, skew: float, disturbances: Iterable[Disturbance], note: Note) -> None:
        self.identity = (seed << 20) ^ (number + 1) << 12
        self.name = name
        self.clock = ProcessClock(self, skew, round(mixed(self.identity) * LONGEST_UPTIME, 3))
        self.calls = 0
        self._counts = Counter[Among]()
        self.dead = False
        self.calm = False
        self.task: asyncio.Task[None] | None = None
        self._awake_at = 0.0
        self._denied_until = 0.0
        self._sleepers = 0
        self._marks = 0
        self._due = {(each.among, each.call): each for each in disturbances if each.worker == number}
        self._note = note

    def emit(self, event: Event) -> None:
        """``contracts.Emit``: keep what the worker says of itself."""
        if not self.dead:
            self._note(loop_seconds(), self.name, event)

    def mark(self) -> str:
        """A text that is unique among all processes."""
        self._marks += 1
        return f"{self.name}-{self._marks}"

    def loses_lease(self) -> bool:
        """Whether the checkpoint that is about to be written is refused because another worker has the lease."""
        found = self._next(Among.CHECKPOINTS)
        if found is None or self.dead:
            return False
        self._struck(found, "")
        return True

    def _next(self, *among: Among) -> Disturbance | None:
        """What happens to a call that counts among these; None if nothing does."""
        found = [self._due.get((each, self._counts[each])) for each in among]
        self._counts.update(among)
        return None if self.calm else next((each for each in found if each is not None), None)

    async def call(self, what: str, apply: Callable[[], T], *, writes: bool = False, open_to_all: bool = False) -> T:
        """Make a call whose effect is ``apply``, which happens at one moment or never. ``writes``: it changes an object.

        ``open_to_all``: access to it is never refused.

        Raises:
            NoReply: it is not known what happened.
            Refused, Denied: nothing happened.
            Killed: the process has died. Only what still runs of it sees this.
        """
        number = self.calls
        self.calls += 1
        await self._pass(mixed(self.identity, 2 * number))
        found = self._next(Among.CALLS, Among.WRITES) if writes else self._next(Among.CALLS)
        if found is not None:
            await self._disturb(found, what)
        if not (open_to_all or self.calm) and loop_seconds() < self._denied_until:
            await self._pass(mixed(self.identity, 2 * number + 1))
            raise Denied
        result = None if found is not None and found.trouble is Trouble.LATE else apply()
        if found is not None and found.trouble is Trouble.KILLED_AFTER:
            await self._die()
        if found is not None and found.trouble is Trouble.LATE:
            asyncio.get_running_loop().call_later(found.seconds, apply)
        if found is not None and found.trouble in {Trouble.LATE, Trouble.UNANSWERED}:
            await self._pass(1.0)
            raise NoReply
        await self._pass(mixed(self.identity, 2 * number + 1))
        return result  # type: ignore[return-value]

    async def awake(self) -> None:
        """Wait for as long as the process is frozen. Then its tasks continue in any order."""
        while (left := self._awake_at - loop_seconds()) > SLIGHTLY:
            self._sleepers += 1
            await LoopClock().sleep(left + SLOWEST * mixed(self.identity, self._sleepers, 1))

    def _struck(self, found: Disturbance, what: str) -> None:
        self._note(loop_seconds(), self.name, Struck(found, what))

    async def _disturb(self, found: Disturbance, what: str) -> None:
        now = loop_seconds()
        self._struck(found, what)
        match found.trouble:
            case Trouble.KILLED_BEFORE:
                await self._die()
            case Trouble.FROZEN:
                self._awake_at = now + found.seconds
                await self._pass(0.0)
            case Trouble.DENIED:
                self._denied_until = now + found.seconds
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
