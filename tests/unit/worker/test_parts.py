import asyncio

import pytest

from stream.budget import ByteBudget
from stream.errors import Fatal, Halted, LeaseLost, Superseded
from stream.worker.parts import Bell, Held, unless, weightiest

FATAL, HALTED, LOST, BEATEN, UNFORESEEN = Fatal("f"), Halted("h"), LeaseLost("l"), Superseded("s", position=1), KeyError("k")


@pytest.mark.parametrize(
    ("errors", "heaviest"),
    [
        ([BEATEN], BEATEN),
        ([BEATEN, LOST], LOST),
        ([BEATEN, HALTED, LOST], HALTED),
        ([HALTED, FATAL], FATAL),
        ([FATAL, UNFORESEEN], UNFORESEEN),
        ([LOST, ExceptionGroup("inner", [BEATEN, FATAL])], FATAL),
        ([ExceptionGroup("inner", [ExceptionGroup("in it", [UNFORESEEN])]), FATAL], UNFORESEEN),
    ],
)
def test_the_error_that_decides(errors, heaviest):
    assert weightiest(ExceptionGroup("together", errors)) is heaviest


def test_a_shard_gives_back_what_it_still_holds_and_no_more():
    async def run():
        budget = ByteBudget(100)
        await budget.acquire(70)
        held = Held(budget)
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


def test_work_is_over_when_the_bell_rings():
    async def run():
        bell, begun, ended = Bell(), asyncio.Event(), []
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(unless(bell, never(begun, ended)))
            await begun.wait()
            bell.set()
            bell.set()
        assert waiting.result() is None
        assert ended == ["tidied"]
        assert bell.listeners == []
        assert await unless(bell, never(begun, ended)) is None, "it has rung before"

    asyncio.run(run())


def test_work_that_the_bell_leaves_alone_ends_as_it_ends():
    async def fails(error):
        raise error

    async def gives(value):
        return value

    async def run():
        bell = Bell()
        assert await unless(bell, gives("done")) == "done"
        for error in (TimeoutError(), FATAL):
            with pytest.raises(type(error)):
                await unless(bell, fails(error))
        assert bell.listeners == []

    asyncio.run(run())
