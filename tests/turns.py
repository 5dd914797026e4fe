"""A store whose calls take turns with other tasks. A seed decides in which order if ``virtual_time.leaping`` runs them, without threads."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any


class Turns:
    """The store ``inner``. Each call happens some turns of the loop after it was made, as ``dice`` decides; no time passes."""

    def __init__(self, inner: Any, dice: Random) -> None:
        self._inner = inner
        self._dice = dice

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def later(*arguments: Any) -> Any:
            await turns(self._dice)
            return await method(*arguments)

        return later

    async def list(self, *arguments: Any) -> Any:
        """See ``contracts.ObjectStore``."""
        await turns(self._dice)
        async for each in self._inner.list(*arguments):
            yield each


async def turns(dice: Random, most: int = 40) -> None:
    """Let other tasks have up to ``most`` turns, which are few more often than many."""
    for _ in range(int(most * dice.random() ** 3)):
        await asyncio.sleep(0)  # noqa: TID251 - lets another task have its turn, and takes no time
