"""What tasks and threads are doing: their chains of frames as places in the source, without any value that a frame holds."""

from __future__ import annotations

import asyncio
import gc
import sys
import sysconfig
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final
from weakref import WeakKeyDictionary, ref

FRAMES: Final = 60
"""The most frames of one stack; of a longer one, the outermost are left out."""
NAMES: Final = 8
"""The most names of one group that are shown; of the rest, only the number is."""

_ROOTS: Final = tuple(
    f"{root}/"
    for root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]))
)
_PREFIXES: Final = (("cr_frame", "cr_await"), ("ag_frame", "ag_await"), ("gi_frame", "gi_yieldfrom"))
_INDIRECT: Final = frozenset(
    {"async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable", "FutureIter", "_FutureIter"}
)
"""Types that stand between two links of a chain and do not say what they await; the garbage collector knows."""


@dataclass(frozen=True, slots=True)
class Stack:
    """``count`` tasks (``kind``: task) or threads (thread) that stand at the same place; some of their ``names``.

    ``frames``: places in the source, innermost last; the last line may say what is awaited. ``age``: seconds since the oldest of them was
    created. ``still``: seconds for which all of them are known not to have moved. Either is None if it is not known.
    """

    kind: str
    names: tuple[str, ...]
    count: int
    frames: tuple[str, ...]
    age: float | None = None
    still: float | None = None

    def lines(self) -> list[str]:
        """For people."""
        rest = f" and {self.count - len(self.names)} more" if self.count > len(self.names) else ""
        age = "" if self.age is None else f", age {self.age:.1f} s"
        still = "" if self.still is None else f", has not moved for {self.still:.1f} s or longer"
        return [f"{self.kind} {', '.join(self.names)}{rest}{age}{still}", *(f"    {frame}" for frame in self.frames)]


class TaskWatch:
    """Remembers when tasks of one loop were created, and what they awaited the last time that somebody looked.

    A task that awaits the same future as before has not moved: only what the future brings can wake it up.

    ``make`` is the loop's task factory. Everything else may be called from any thread.
    """

    def __init__(self) -> None:
        self._created: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()
        self._stood: WeakKeyDictionary[asyncio.Task[Any], tuple[ref[Any], float]] = WeakKeyDictionary()

    def make(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        """A task for ``work``, as the loop would make it."""
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        self._created[task] = loop.time()
        return task

    def stacks(self, tasks: Iterable[asyncio.Task[Any]], now: float) -> list[Stack]:
        """Where ``tasks`` stand; those at the same place together, larger groups first. ``now``: the loop's time."""
        groups: defaultdict[tuple[str, ...], list[tuple[str, float | None, float | None]]] = defaultdict(list)
        for task in tasks:
            if task.done():
                continue
            frames, future = awaited(task.get_coro())
            created = self._created.get(task)
            groups[frames].append((task.get_name(), None if created is None else now - created, self._still(task, future, now)))
        return sorted((_task_group(frames, found) for frames, found in groups.items()), key=lambda each: -each.count)

    def _still(self, task: asyncio.Task[Any], future: Any, now: float) -> float | None:
        before, since = self._stood.get(task, (None, now))
        if future is not None and before is not None and before() is future:
            return now - since
        if future is not None:
            self._stood[task] = ref(future), now
        return None


def _task_group(frames: tuple[str, ...], found: Sequence[tuple[str, float | None, float | None]]) -> Stack:
    names = tuple(sorted(name for name, _, _ in found)[:NAMES])
    ages = [age for _, age, _ in found if age is not None]
    stills = [still for _, _, still in found if still is not None]
    return Stack("task", names, len(found), frames, max(ages, default=None), min(stills) if len(stills) == len(found) else None)


def threads() -> list[Stack]:
    """Where the threads stand that run Python code; those at the same place together, the main thread first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    groups: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - documented, in spite of its name
        if ident != threading.get_ident():
            groups[_running(frame)].append(names.get(ident, f"{ident:#x}"))
    main = threading.main_thread().name
    found = [Stack("thread", tuple(sorted(each)[:NAMES]), len(each), frames) for frames, each in groups.items()]
    return sorted(found, key=lambda each: (main not in each.names, -each.count))


def awaited(outermost: Any) -> tuple[tuple[str, ...], asyncio.Future[Any] | None]:
    """The frames through which the coroutine ``outermost`` awaits, innermost last, and the future at the end, if it is known.

    The last line says what that is. A coroutine that is running has neither; the stack of its thread shows where it is.
    """
    frames: list[str] = []
    future: asyncio.Future[Any] | None = None
    link, seen = outermost, set[int]()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        names = next((each for each in _PREFIXES if hasattr(link, each[0])), None)
        if names is None:
            inner = _behind(link)
            if inner is None:
                frames += _named(link)
                future = link if asyncio.isfuture(link) else None
            link = inner
            continue
        frame: FrameType | None = getattr(link, names[0])
        if frame is not None:
            frames.append(_place(frame, frame.f_lineno))
        link = getattr(link, names[1])
    return _shortened(frames), future


def _behind(link: Any) -> Any:
    """What an object between two links of a chain stands for; None at the end of the chain."""
    if type(link).__name__ not in _INDIRECT:
        return None
    found = [each for each in gc.get_referents(link) if asyncio.isfuture(each) or any(hasattr(each, name) for name, _ in _PREFIXES)]
    found = found or [each for each in gc.get_referents(link) if type(each).__name__ in _INDIRECT]
    return found[0] if found else None


def _named(awaitable: Any) -> list[str]:
    if isinstance(awaitable, asyncio.Task):
        return [f"waits for the task {awaitable.get_name()}"]
    children = getattr(awaitable, "_children", None)
    if isinstance(children, list) and asyncio.isfuture(awaitable):
        names = [each.get_name() for each in children if isinstance(each, asyncio.Task) and not each.done()]
        more = ", ..." if len(names) > NAMES else ""
        return [f"waits for the tasks {', '.join(names[:NAMES])}{more}"] if names else ["waits for futures"]
    if asyncio.isfuture(awaitable):
        return ["waits for a future that is done: the event loop has not come to it yet"] if awaitable.done() else ["waits for a future"]
    return [f"waits for {type(awaitable).__module__}.{type(awaitable).__qualname__}"]


def _running(frame: FrameType | None) -> tuple[str, ...]:
    frames = []
    while frame is not None:
        frames.append(_place(frame, frame.f_lineno))
        frame = frame.f_back
    return _shortened(frames[::-1])


def _shortened(frames: Sequence[str]) -> tuple[str, ...]:
    left_out = len(frames) - FRAMES
    return tuple(frames) if left_out <= 0 else (f"({left_out} frames)", *frames[left_out:])


def _place(frame: FrameType, line: int | None) -> str:
    file = frame.f_code.co_filename
    root = next((each for each in _ROOTS if file.startswith(each)), "")
    return f"{file[len(root) :]}:{line or '?'} in {frame.f_code.co_qualname}"
