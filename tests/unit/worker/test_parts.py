import asyncio

import pytest

from stream.budget import ByteBudget
from stream.concurrency import ObservableEvent, unless_set
from stream.errors import Fatal
from stream.worker.parts import HeldBytes


def test_a_shard_returns_exactly_the_bytes_it_still_holds():
    async def run():
        budget = ByteBudget(100)
        await budget.acquire(70)
        held = HeldBytes(budget)
        held.add(40)
        held.add(20)
        held.release(40)
        held.release_all()
        held.release_all()
        assert budget.held == 10

    asyncio.run(run())


async def never(begun, ended):
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("tidied")


def test_setting_the_event_cancels_the_work():
    async def run():
        event, begun, ended = ObservableEvent(), asyncio.Event(), []
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(unless_set(event, never(begun, ended)))
            await begun.wait()
            event.set()
            event.set()
        assert waiting.result() is None
        assert ended == ["tidied"]
        assert event.listeners == []
        assert await unless_set(event, never(begun, ended)) is None, "the event was set before"

    asyncio.run(run())


def test_the_result_or_error_of_uninterrupted_work_is_passed_on():
    async def fails(error):
        raise error

    async def gives(value):
        return value

    async def run():
        event = ObservableEvent()
        assert await unless_set(event, gives("done")) == "done"
        for error in (TimeoutError(), Fatal("f")):
            with pytest.raises(type(error)):
                await unless_set(event, fails(error))
        assert event.listeners == []

    asyncio.run(run())
