"""Which of the worker's operations are logged and exported."""

from __future__ import annotations

import json

import pytest

from stream import events
from stream.audit.operations import Operation, Operations
from stream.clock import SystemClock
from stream.metrics.logs import JsonLog, Level
from stream.worker.receivers.telemetry import OperationTracker

PAGE = events.PageReceived("s", "shardId-1", 3, 3, 30, 0, 0.1)
STARTED = events.ShardStarted("s", "shardId-1", 0)


class Queue:
    def __init__(self) -> None:
        self.ended: list[Operation] = []

    def put(self, ended: tuple[Operation, ...]) -> None:
        self.ended += ended


def tracker(level: Level = Level.INFO) -> tuple[OperationTracker, list[str]]:
    clock, lines = SystemClock(), []
    log = JsonLog(lambda line: lines.append(json.loads(line)["event"]), clock, level)
    return OperationTracker(Operations("app", "worker", clock), log), lines


@pytest.mark.parametrize("level", Level)
def test_pages_are_logged_at_debug_only(level: Level) -> None:
    tell, lines = tracker(level)
    for event in (STARTED, PAGE):
        tell(event)
    assert ("page_received" in lines) == (level is Level.DEBUG)
    assert ("shard_started" in lines) == (level <= Level.INFO)


def test_a_collector_gets_a_span_for_every_page_whatever_the_log_level() -> None:
    tell, lines = tracker()
    queue = tell.sender = Queue()  # type: ignore[assignment]
    for event in (STARTED, PAGE, PAGE):
        tell(event)
    assert [operation.name for operation in queue.ended] == ["take shard s", "get_records s", "get_records s"]
    assert lines == ["shard_started"]
