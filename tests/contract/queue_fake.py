"""A queue as SQS is one, in memory: at least once, in no order, hidden while somebody works on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from stream.aws.sqs import MAX_MESSAGES, Received


@dataclass
class _Message:
    body: str
    visible: float
    handle: str = ""
    received: int = 0


class FakeQueue:
    """``receiving.Queue``; ``rng`` chooses which visible messages come, and in which order."""

    def __init__(self, rng: Random | None = None) -> None:
        self._rng = rng or Random(0)
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
        chosen = self._rng.sample(visible, min(most, len(visible)))
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
