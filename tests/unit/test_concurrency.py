import asyncio

import pytest

from stream.clock import SystemClock
from stream.concurrency import run_concurrently


class Calls:
    """Calls that note when they begin and end, and how many run at a time."""

    def __init__(self, fails=None):
        self.begun, self.running, self.most, self.tasks, self.fails = [], 0, 0, 0, fails

    async def one(self, number):
        self.begun.append(number)
        self.running += 1
        self.most, self.tasks = max(self.most, self.running), max(self.tasks, len(asyncio.all_tasks()))
        for _ in range(number % 3):
            await SystemClock().sleep(0)
        self.running -= 1
        if number == self.fails:
            raise ValueError(number)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(("count", "at_once"), [(0, 3), (1, 3), (2, 3), (1000, 3), (5, 1)])
def test_calls_begin_in_order_with_a_limited_number_at_a_time(count, at_once, lazy):
    calls = Calls()
    asyncio.run(run_concurrently((calls.one(n) for n in range(count)) if lazy else [calls.one(n) for n in range(count)], at_once))
    assert calls.begun == list(range(count))
    assert calls.most <= at_once
    assert calls.tasks <= at_once + 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("lazy", [True, False])
def test_an_error_is_raised_unchanged_and_few_further_calls_begin(lazy):
    calls = Calls(fails=7)
    with pytest.raises(ValueError, match="7"):
        asyncio.run(run_concurrently((calls.one(n) for n in range(100)) if lazy else [calls.one(n) for n in range(100)], 3))
    assert len(calls.begun) <= 20


def test_a_cancelled_caller_begins_no_further_calls():
    calls, never = Calls(), []

    async def hang():
        never.append(1)
        await asyncio.Event().wait()

    async def run():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await run_concurrently([hang(), hang(), *(calls.one(n) for n in range(5))], 2)

    asyncio.run(run())
    assert calls.begun == []
    assert len(never) in {0, 2}
