"""Concurrent calls, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any


async def a_few_at_once(calls: Sequence[Coroutine[Any, Any, None]], at_once: int) -> None:
    """Start ``calls`` in order, up to ``at_once`` at a time. The first error cancels the others and is raised as it is."""
    slots = asyncio.Semaphore(at_once)

    async def one(call: Coroutine[Any, Any, None]) -> None:
        async with slots:
            await call

    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(one(call))
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
