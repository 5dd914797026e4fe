"""Runs calls concurrently, with a limit on how many run at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sized
from typing import Any


async def run_concurrently(calls: Iterable[Coroutine[Any, Any, None]], at_once: int) -> None:
    """Start ``calls`` in order, up to ``at_once`` at a time. The first error cancels the others and is raised as it is.

    Calls that a generator makes exist only once it is their turn, so there may be millions of them.
    """
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(calls)) if isinstance(calls, Sized) else at_once):
                group.create_task(work())
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
    finally:
        for call in waiting:
            call.close()
