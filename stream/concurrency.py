"""Runs calls concurrently, with a limit on how many run at a time, or until an event is set."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sized
from typing import Any, TypeVar

T = TypeVar("T")


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


class ObservableEvent(asyncio.Event):
    """An event that also calls ``listeners`` when it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set the event and call all listeners."""
        super().set()
        for listener in tuple(self.listeners):
            listener()


async def unless_set(event: ObservableEvent, work: Awaitable[T]) -> T | None:
    """The result of ``work``; None if ``event`` is or becomes set first: then ``work`` is cancelled, and has ended when this returns."""
    limit = asyncio.timeout(None)

    def cancel_work() -> None:
        if limit.when() is None:
            limit.reschedule(0.0)

    event.listeners.append(cancel_work)
    try:
        async with limit:
            if event.is_set():
                cancel_work()
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        return None
    finally:
        event.listeners.remove(cancel_work)
