"""Writes what the watchdog finds into the structured log of a worker."""

from __future__ import annotations

from stream import events
from stream.metrics.logs import JsonLog
from stream.watchdog import Listener, Report


def reports_to(log: JsonLog) -> Listener:
    """Writes reports to ``log``, one line per stack, unless its level leaves them out: then they go to standard error as text."""

    def write(report: Report) -> bool:
        lines: list[events.Event] = [] if report.why else [events.LoopBlocked("", "", report.blocked or 0.0)]
        lines.extend(
            events.StackTaken("", "", each.kind, each.names, each.count, each.age, each.still, each.frames) for each in report.stacks
        )
        if not all(log.writes(line) for line in lines):
            return False
        for line in lines:
            log(line)
        return True

    return write
