"""Where tasks and threads stand, without anything that their frames hold."""

import asyncio
import threading

import pytest

from stream.stacks import FRAMES, NAMES, Stack, TaskWatch, threads

HELD = "the-password-of-the-warehouse"


async def generator(event):
    held = HELD
    await event.wait()
    yield held


async def by_loop(event):
    async for _ in generator(event):
        pass


async def by_anext(event):
    await anext(generator(event))


async def deep(event, depth):
    if depth:
        await deep(event, depth - 1)
    await event.wait()


async def turns(number):
    """Let the other tasks run until they wait, or ``number`` times."""
    for _ in range(number):
        await asyncio.sleep(0)  # noqa: TID251 - takes no time


def stacks_of(*works, rounds=3, watch=None, looks=1):
    """What ``looks`` looks at tasks for ``works``, each made with an event that is never set, find one second after another."""
    watch = watch or TaskWatch()

    async def main():
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        loop.set_task_factory(watch.make)
        tasks = [loop.create_task(work(event), name=name) for name, work in works]
        await turns(rounds)
        begun = loop.time()
        found = [watch.stacks(tasks, begun + look) for look in range(looks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    return asyncio.run(main())


@pytest.mark.parametrize("work", [by_loop, by_anext])
def test_a_task_is_followed_through_coroutines_and_asynchronous_generators_to_what_it_awaits(work):
    ((found,),) = stacks_of(("read", work))
    assert [frame.rpartition(" in ")[2] for frame in found.frames] == [work.__name__, "generator", "Event.wait", "waits for a future"]
    assert found.frames[0].startswith("tests/unit/test_stacks.py:")
    assert found.frames[2].startswith("asyncio/locks.py:")


def test_no_value_of_a_variable_is_shown():
    ((found,),) = stacks_of(("read", by_loop))
    assert HELD not in str(found)
    assert HELD not in "\n".join(found.lines())


def test_tasks_at_the_same_place_are_shown_together_with_some_of_their_names():
    ((many, one),) = stacks_of(*((f"shard-{number:02}", by_loop) for number in range(NAMES + 3)), ("other", by_anext))
    assert (many.count, many.names) == (NAMES + 3, tuple(f"shard-{number:02}" for number in range(NAMES)))
    assert many.lines()[0].startswith(
        f"task shard-00, shard-01, shard-02, shard-03, shard-04, shard-05, shard-06, shard-{NAMES - 1:02} and 3 more"
    )
    assert one.names == ("other",)


def test_the_tasks_for_which_a_task_waits_are_named():
    async def gathers(event):
        await asyncio.gather(*(asyncio.get_running_loop().create_task(event.wait(), name=f"part-{number}") for number in range(2)))

    async def waits(event):
        await asyncio.get_running_loop().create_task(event.wait(), name="part-2")

    (found,) = stacks_of(("gathers", gathers), ("waits", waits))
    last = {each.names[0]: each.frames[-1] for each in found}
    assert last == {"gathers": "waits for the tasks part-0, part-1", "waits": "waits for the task part-2"}


def test_a_task_that_waits_for_the_same_as_before_has_not_moved():
    (first, second, third) = stacks_of(("stands", by_loop), looks=3)
    assert (first[0].still, second[0].still, third[0].still) == (None, 1.0, 2.0)


def test_a_task_that_waits_at_the_same_place_for_something_else_has_moved():
    watch = TaskWatch()

    async def main():
        loop, events = asyncio.get_running_loop(), [asyncio.Event() for _ in range(4)]

        async def poll():
            for event in events:
                await event.wait()

        task = loop.create_task(poll())
        seen = []
        for number, event in enumerate(events):
            await turns(2)
            seen += watch.stacks([task], float(number))
            event.set()
        await task
        return seen

    seen = asyncio.run(main())
    assert len({each.frames for each in seen}) == 1
    assert [each.still for each in seen] == [None] * 4


def test_a_task_that_is_a_second_old_says_so():
    watch = TaskWatch()
    (first, second) = stacks_of(("read", by_loop), watch=watch, looks=2)
    assert first[0].age >= 0.0
    assert second[0].age - first[0].age == pytest.approx(1.0)


def test_of_a_deep_stack_the_innermost_frames_are_shown():
    ((found,),) = stacks_of(("deep", lambda event: deep(event, 2 * FRAMES)))
    assert len(found.frames) == FRAMES + 1
    assert found.frames[0] == f"({2 * FRAMES + 3 - FRAMES} frames)"
    assert found.frames[-1] == "waits for a future"


def test_threads_are_shown_by_name_those_at_the_same_place_together_and_the_main_thread_first():
    go, found = threading.Event(), []
    workers = [threading.Thread(target=go.wait, name=f"render_{number}") for number in range(3)]
    for worker in workers:
        worker.start()

    def waiting():
        return [each for each in found if each.names == ("render_0", "render_1", "render_2") and " in Event.wait" in str(each.frames)]

    def look():
        while not waiting():  # the last of them may still be on its way
            found[:] = threads()

    looking = threading.Thread(target=look, name="looks")
    looking.start()
    looking.join()
    go.set()
    for worker in workers:
        worker.join()
    assert found[0].names == (threading.main_thread().name,)
    (together,) = waiting()
    assert (together.kind, together.count) == ("thread", 3)
    assert not any("looks" in each.names for each in found)


def test_a_stack_is_shown_in_lines():
    stack = Stack("task", ("a", "b"), 2, ("x.py:1 in f", "waits for a future"), 12.34, 2.0)
    assert stack.lines() == ["task a, b, age 12.3 s, has not moved for 2.0 s or longer", "    x.py:1 in f", "    waits for a future"]
