import asyncio

import pytest

from stream.budget import ByteBudget
from stream.errors import Fatal, Halted, LeaseLost, Superseded
from stream.worker.parts import Held, weightiest

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
