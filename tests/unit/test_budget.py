import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.budget import FEWEST_TURNS, TURN_BYTES, ByteBudget, Turns


async def settle():
    """Let every task run that can."""
    for _ in range(5):
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)


def test_a_request_beyond_the_whole_budget_passes_when_nothing_else_is_held():
    async def run():
        budget = ByteBudget(10)
        await budget.acquire(100)
        assert budget.held == 100

    asyncio.run(run())


def test_waiters_are_served_in_order_and_waiting_is_pressure():
    async def run():
        budget, served = ByteBudget(10), []

        async def take(size):
            await budget.acquire(size)
            served.append(size)

        await budget.acquire(8)
        assert not budget.pressure.is_set()
        async with asyncio.TaskGroup() as group:
            group.create_task(take(5))
            group.create_task(take(1))
            await settle()
            assert served == []
            assert budget.pressure.is_set()
            budget.release(8)
        assert served == [5, 1]
        assert not budget.pressure.is_set()

    asyncio.run(run())


def test_waits_cancelled_together_leave_the_budget_unchanged():
    async def run():
        budget = ByteBudget(10)
        await budget.acquire(10)
        tasks = [asyncio.ensure_future(budget.acquire(5)) for _ in range(3)]
        await settle()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 3
        assert budget.held == 10
        assert not budget.pressure.is_set()

    asyncio.run(run())


def test_lowering_a_reservation_admits_the_next_waiter():
    async def run():
        budget = ByteBudget(10)
        await budget.acquire(10)
        async with asyncio.TaskGroup() as group:
            group.create_task(budget.acquire(4))
            await settle()
            budget.adjust(10, 3)
        assert budget.held == 7

    asyncio.run(run())


@pytest.mark.parametrize("granted", [False, True])
def test_a_cancelled_wait_leaves_the_budget_unchanged(granted):
    async def run():
        budget = ByteBudget(10)
        await budget.acquire(10)
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(budget.acquire(6)), group.create_task(budget.acquire(2))
            await settle()
            if granted:
                budget.release(10)
            first.cancel()
            await settle()
            if not granted:
                budget.release(10)
            await second
        assert budget.held == 2
        assert not budget.pressure.is_set()

    asyncio.run(run())


def test_a_release_right_after_a_cancellation_serves_the_next_waiter():
    async def run():
        budget = ByteBudget(10)
        await budget.acquire(10)
        first, second = asyncio.ensure_future(budget.acquire(6)), asyncio.ensure_future(budget.acquire(2))
        await settle()
        first.cancel()
        budget.release(10)
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
        assert budget.held == 2
        assert not budget.pressure.is_set()

    asyncio.run(run())


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=20))
def test_whatever_is_requested_and_cancelled_everything_is_returned(requests):
    async def run():
        budget = ByteBudget(10)

        async def use(size):
            await budget.acquire(size)
            assert budget.held <= 10 or budget.held == size
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            budget.release(size)

        async with asyncio.TaskGroup() as group:
            for size, cancelled in requests:
                task = group.create_task(use(size))
                if cancelled:
                    asyncio.get_running_loop().call_soon(_cancel_waiting, task, budget)
        assert budget.held == 0
        assert not budget.pressure.is_set()

    asyncio.run(run())


def _cancel_waiting(task, budget):
    if budget.pressure.is_set() and not task.done() and task.get_coro().cr_frame.f_locals.get("size", 0) > 10 - budget.held:
        task.cancel()


def test_turns_are_given_in_the_order_of_requests():
    async def run():
        turns, had = Turns(2), []

        async def take(who):
            await turns.begin(who)
            had.append(who)

        async with asyncio.TaskGroup() as group:
            for who in "abcd":
                group.create_task(take(who))
            await settle()
            assert had == ["a", "b"]
            await turns.begin("a")  # whoever has one is not kept waiting
            turns.end("nobody")
            await settle()
            assert had == ["a", "b"]
            turns.end("b")
            await settle()
            assert had == ["a", "b", "c"]
            turns.end("a")
        assert had == ["a", "b", "c", "d"]

    asyncio.run(run())


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["begin", "end", "cancel"])), max_size=40))
def test_no_turn_is_lost_or_given_twice(steps):
    async def run():
        turns, asking, having = Turns(2), {}, set()

        async def take(who):
            await turns.begin(who)
            having.add(who)

        for who, step in steps:
            if step == "begin" and who not in asking and who not in having:
                asking[who] = asyncio.ensure_future(take(who))
            elif step == "end" and who in having:
                having.discard(who)
                turns.end(who)
            elif step == "cancel" and who in asking:
                asking.pop(who).cancel()
            await settle()
            asking = {who: task for who, task in asking.items() if not task.done()}
            assert len(having) <= 2
            assert len(having) == 2 or not asking
        for task in asking.values():
            task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize(("limit", "count"), [(1, FEWEST_TURNS), (128 * 2**20, 64), (TURN_BYTES * 1000, 1000)])
def test_the_number_of_turns_follows_from_the_memory(limit, count):
    assert ByteBudget(limit).turns.count == count


def test_the_largest_unit_is_committed_when_a_reader_begins_to_wait_and_a_thread_is_idle():
    async def run():
        budget, committed = ByteBudget(10, threads=2), []
        for who, size in (("a", 3), ("b", 5), ("c", 2)):
            await budget.acquire(size)
            budget.relief.filling(who, size, lambda who=who: committed.append(who))
        assert committed == []
        waiting = asyncio.ensure_future(budget.acquire(1))
        await settle()
        assert committed == ["b"]
        with budget.relief.transforming("b"):
            budget.relief.seek()
            assert committed == ["b", "a"]
            with budget.relief.transforming("a"):
                budget.relief.seek()
                assert committed == ["b", "a"], "both threads have something to transform"
            assert committed == ["b", "a", "c"]
        budget.release(5)
        await waiting

    asyncio.run(run())


def test_nothing_is_committed_early_while_no_reader_waits_or_twice():
    async def run():
        budget, committed = ByteBudget(10, threads=2), []
        await budget.acquire(10)
        budget.relief.filling("a", 10, lambda: committed.append("a"))
        with budget.relief.transforming("b"):
            pass
        assert committed == []
        with budget.relief.transforming("a"):
            waiting = asyncio.ensure_future(budget.acquire(1))
            await settle()
            assert committed == [], "its unit is being transformed already"
            budget.release(10)
            await waiting

    asyncio.run(run())


def test_what_grows_while_readers_wait_is_committed_unless_its_shard_has_stopped():
    async def run():
        budget, committed = ByteBudget(10), []
        await budget.acquire(10)
        waiting = [asyncio.ensure_future(budget.acquire(1)) for _ in range(2)]
        await settle()
        budget.relief.filling("a", 4, lambda: committed.append("a"))
        assert committed == ["a"]
        with budget.relief.transforming("a"):
            budget.relief.filling("b", 6, lambda: committed.append("b"))
            budget.relief.stopped("b")
        assert committed == ["a"]
        budget.release(10)
        await asyncio.gather(*waiting)

    asyncio.run(run())


def test_a_thread_is_idle_again_after_a_failure():
    async def run():
        budget, committed = ByteBudget(1), []
        await budget.acquire(1)
        waiting = asyncio.ensure_future(budget.acquire(1))
        await settle()
        with pytest.raises(ValueError, match="a stage failed"), budget.relief.transforming("a"):
            raise ValueError("a stage failed")
        budget.relief.filling("b", 1, lambda: committed.append("b"))
        assert committed == ["b"]
        budget.release(1)
        await waiting

    asyncio.run(run())
