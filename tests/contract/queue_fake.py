"""A queue as SQS is one, in memory: at least once, in no order, hidden while somebody works on it. And a loop whose time is not real."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from stream.aws.sqs import MAX_MESSAGES, Received

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class _Leap(selectors.SelectSelector):
    """Does not wait: time passes at once when everybody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("everybody waits for ever")
        self.time += timeout
        return super().select(0)


class LeapingLoop(asyncio.SelectorEventLoop):
    """Jumps to the next moment for which somebody waits."""

    def __init__(self) -> None:
        self.leap = _Leap()
        super().__init__(self.leap)

    def time(self) -> float:
        return self.leap.time


class LoopClock:
    """``contracts.Clock`` of the running loop."""

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        moment = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(seconds, lambda: moment.done() or moment.set_result(None))
        await moment


def leaping(body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The result of ``body``, run in no time."""
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        return runner.run(body())


@dataclass
class _Message:
    body: str
    visible: float
    handle: str = ""
    received: int = 0


class FakeQueue:
    """``watching.Queue``; ``dice`` chooses which visible messages come, and in which order."""

    def __init__(self, dice: Random | None = None) -> None:
        self._dice = dice or Random(0)
        self._messages: dict[int, _Message] = {}
        self._sent = 0
        self._arrived = asyncio.Event()
        self.on_delete: Callable[[str], None] = lambda _: None

    @property
    def bodies(self) -> list[str]:
        """What is in the queue, hidden or not."""
        return [message.body for message in self._messages.values()]

    async def send(self, body: str, *, after: float = 0.0) -> None:
        """Put a message in, to be seen ``after`` seconds from now."""
        self._sent += 1
        self._messages[self._sent] = _Message(body, asyncio.get_running_loop().time() + after)
        self._arrived.set()

    async def receive(self, *, wait: int, hidden: int, most: int = MAX_MESSAGES) -> list[Received]:
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        while True:
            now = loop.time()
            visible = [number for number, message in self._messages.items() if message.visible <= now]
            if visible or now >= end:
                break
            self._arrived.clear()
            following = min((message.visible for message in self._messages.values()), default=end)
            try:
                # Not down to nothing: sums of seconds are not exact, and a wait that adds nothing to the time would never end.
                async with asyncio.timeout(max(min(following, end) - now, 0.001)):
                    await self._arrived.wait()
            except TimeoutError:
                pass
        chosen = self._dice.sample(visible, min(most, len(visible)))
        for number in chosen:
            message = self._messages[number]
            message.received += 1
            message.visible, message.handle = now + hidden, f"{number}-{message.received}"
        return [Received(self._messages[number].body, self._messages[number].handle) for number in chosen]

    async def delete(self, handles: Sequence[str]) -> int:
        failed = 0
        for handle in handles:
            number, _, which = handle.partition("-")
            if not (number.isdecimal() and which.isdecimal()):
                failed += 1
            elif int(number) in self._messages:
                self.on_delete(self._messages.pop(int(number)).body)
        return failed
