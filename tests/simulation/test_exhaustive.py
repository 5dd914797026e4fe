"""Every schedule of two workers with different builds over one shard, up to a bound on switches and faults.

Most concurrency bugs need few preemptions; all schedules with few of them are few enough to try (iterative context bounding).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from stream.simulation.schedule import Trouble
from tests.simulation.schedule import World, judge
from tests.simulation.world import FATES, Fate, Records, Stepped, Version

FAULTS = (*FATES[1:], Trouble.KILLED_BEFORE)


@dataclass
class Enumeration:
    """Depth-first search over decisions: repeat the prefix, then always take the first option; ``next`` goes to the next path."""

    path: list[int] = field(default_factory=list)
    options: list[int] = field(default_factory=list)
    depth: int = 0

    def pick(self, options: int, what: str) -> int:
        del what
        if self.depth == len(self.path):
            self.path.append(0)
            self.options.append(options)
        choice = self.path[self.depth]
        self.depth += 1
        return choice

    def next(self) -> bool:
        while self.path and self.path[-1] + 1 == self.options[-1]:
            self.path.pop()
            self.options.pop()
        if not self.path:
            return False
        self.path[-1] += 1
        self.depth = 0
        return True


class AlwaysFirst:
    """Decisions inside the workers (file order, where to cut) are not enumerated."""

    def pick(self, options: int, what: str) -> int:
        return 0


def run_path(decisions: Enumeration, switches: int, faults: int) -> None:
    world = World(AlwaysFirst(), {"p": Records({1: 1, 4: 3})}, {})
    workers = [world.start("p", Version(1, 1)), world.start("p", Version(1, 2))]
    current = 0
    for _ in range(400):
        alive = [number for number, process in enumerate(workers) if not process.finished]
        if not alive:
            break
        if current not in alive:
            current = alive[0]
        elif switches and len(alive) > 1 and decisions.pick(2, "switch"):
            switches -= 1
            current = 1 - current
        fault = decisions.pick(1 + len(FAULTS), "fault") if faults else 0
        if not fault:
            workers[current].advance(None)
            continue
        faults -= 1
        _inject(workers[current], FAULTS[fault - 1])
    while world.late:
        world.late.pop(0)()
    last = world.start("p", Version(1, 1))
    while not last.finished:
        last.advance(None)
    judge(world, strict_listing=False)


def _inject(process: Stepped, fault: Fate) -> None:
    if fault is Trouble.KILLED_BEFORE:
        process.kill()
    else:
        process.advance(fault)


@pytest.mark.parametrize(("switches", "faults"), [(0, 1), (0, 2), (3, 0), (1, 1)])
def test_every_schedule_within_the_bounds_commits_each_record_once(switches: int, faults: int) -> None:
    decisions = Enumeration()
    paths = 0
    more = True
    while more:
        try:
            run_path(decisions, switches, faults)
        except Exception as error:
            raise AssertionError(f"path {decisions.path} with {switches} switches, {faults} faults: {error}") from error
        paths += 1
        more = decisions.next()
    assert paths > 40
    print(f"{paths} schedules with at most {switches} switches and {faults} faults")  # noqa: T201 - the figure is the result
