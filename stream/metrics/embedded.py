"""Metrics for CloudWatch as JSON lines in its embedded metric format, for hosts that nobody can scrape.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html. CloudWatch bills each
name and each stream as a metric, so there are few.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import orjson

from stream import events as ev
from stream.batch import Outcome
from stream.contracts import Clock

NAMESPACE: Final = "stream"

UNITS: Final[dict[str, str]] = {
    "records": "Count",
    "dead_letters": "Count",
    "units": "Count",
    "files": "Count",
    "file_bytes": "Bytes",
    "commit_age": "Seconds",
    "gaps": "Count",
    "halts": "Count",
    "retries": "Count",
    "load_lag": "Seconds",
}
"""CloudWatch's unit of each metric. ``commit_age``: from a unit's first arrival to its seal, at most since the last line."""


class EmbeddedMetrics:
    """An ``Emit`` that counts, and with ``flush`` passes one line per stream to ``write``. Callable from any thread."""

    def __init__(self, application: str, write: Callable[[bytes], object], clock: Clock) -> None:
        self._application = application
        self._write = write
        self._clock = clock
        self._values: dict[str, dict[str, float]] = {}
        self._lock = threading.Lock()

    def __call__(self, event: ev.Event) -> None:
        """Count ``event``."""
        match event:
            case ev.UnitSealed(outcomes=outcomes, oldest_age=age):
                numbers = dict(outcomes)
                self._add(event.stream, units=1, records=sum(numbers.values()), dead_letters=numbers.get(Outcome.DEAD_LETTERED.label, 0))
                self._raise(event.stream, commit_age=age)
            case ev.RecordsTransformed(outcomes=outcomes):
                numbers = dict(outcomes)
                self._add(event.stream, records=sum(numbers.values()), dead_letters=numbers.get(Outcome.DEAD_LETTERED.label, 0))
            case ev.FileWritten(size=size):
                self._add(event.stream, files=1, file_bytes=size)
            case ev.RecordsExpired():
                self._add(event.stream, gaps=1)
            case ev.ShardHalted():
                self._add(event.stream, halts=1)
            case ev.CallRepeated() | ev.PollRepeated():
                self._add(event.stream, retries=1)
            case ev.LoadsWaiting(age=age):
                self._raise(event.stream, load_lag=age)
            case _:
                pass

    def flush(self) -> None:
        """Write what was counted since the last call, and start again."""
        with self._lock:
            values, self._values = self._values, {}
        for stream, numbers in sorted(values.items()):
            self._write(orjson.dumps(self._line(stream, numbers), option=orjson.OPT_APPEND_NEWLINE))

    def _line(self, stream: str, numbers: dict[str, float]) -> dict[str, Any]:
        metrics = [{"Name": name, "Unit": UNITS[name]} for name in numbers]
        directive = {"Namespace": NAMESPACE, "Dimensions": [["application", "stream"]], "Metrics": metrics}
        about = {"Timestamp": int(self._clock.now().timestamp() * 1000), "CloudWatchMetrics": [directive]}
        return {"_aws": about, "application": self._application, "stream": stream, **numbers}

    def _add(self, stream: str, **more: float) -> None:
        with self._lock:
            values = self._values.setdefault(stream, {})
            for name, number in more.items():
                values[name] = values.get(name, 0) + number

    def _raise(self, stream: str, **least: float) -> None:
        with self._lock:
            values = self._values.setdefault(stream, {})
            for name, number in least.items():
                values[name] = max(values.get(name, 0.0), number)
