"""Faults of the double: once at a named point, or at random points."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from random import Random

LOST_REPLIES = ("ExecuteStatement:reply", "BatchExecuteStatement:reply", "DescribeStatement:reply", "GetStatementResult:reply")
REQUESTS = ("ExecuteStatement:begin", "BatchExecuteStatement:begin", "DescribeStatement:begin", "GetStatementResult:begin")
STATEMENTS = tuple(f"statement:{step}" for step in ("LOCK", "CREATE TEMP", "INSERT", "SELECT", "COPY", "DROP"))
COMMITS = ("commit:before", "commit:after")


class Once:
    """Calls ``act`` when ``point`` is reached for the ``occurrence``-th time. ``waits``: executes are answered after their end only."""

    def __init__(self, point: str, act: Callable[[], str], *, occurrence: int = 1, waits: bool = True) -> None:
        self.waits = waits
        self.happened = threading.Event()
        self._point = point
        self._act = act
        self._left = occurrence

    def __call__(self, point: str) -> str:
        if point != self._point or self.happened.is_set():
            return ""
        self._left -= 1
        if self._left:
            return ""
        self.happened.set()
        return self._act()


class RandomFaults:
    """At most ``most`` faults at random points; ``done`` counts them by kind. ``kill`` kills one of the loaders."""

    def __init__(self, rng: Random, most: int, kill: Callable[[], None] | None = None) -> None:
        self.waits = rng.random() < 0.7
        self.done: Counter[str] = Counter()
        self._dice = rng
        self._left = most
        self._kill = kill

    def __call__(self, point: str) -> str:
        if self._left <= 0 or self._dice.random() > 0.15:
            return ""
        fault = self._dice.choice(_possible(point, can_kill=self._kill is not None))
        if not fault:
            return ""
        self._left -= 1
        self.done[f"{fault} at {point}"] += 1
        if fault == "kill" and self._kill is not None:
            self._kill()
            return ""
        return fault


def _possible(point: str, *, can_kill: bool) -> list[str]:
    kill = ["kill"] if can_kill else []
    if point.endswith(":reply"):
        return ["drop", *kill]
    if point.endswith(":begin"):
        return ["drop", "busy", *kill]
    if point == "commit:after":
        return [*kill, ""]
    return ["abort", "1023", *kill]
