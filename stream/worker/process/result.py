"""The summary of a run, as one JSON document for its caller."""

from __future__ import annotations

import errno
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from stream import events
from stream.contracts import Clock
from stream.storage.whole import write_whole


class ShardResult(msgspec.Struct):
    """How far one shard has got; ``position`` is the last committed sequence number, as text. ``state``: open, ended, paused, halted."""

    stream: str
    shard: str
    position: str = "0"
    units: int = 0
    records: int = 0
    state: str = "open"
    reason: str = ""


class Result(msgspec.Struct, frozen=True):
    """Counts cover the units that this run committed. Times are ISO 8601, UTC; ``seconds`` is the duration of the run."""

    application: str
    exit_code: int
    records: int
    outcomes: dict[str, int]
    units: int
    shards: list[ShardResult]
    started_at: str
    finished_at: str
    seconds: float
    error: str = ""


class ResultListener:
    """An ``Emit`` that collects the figures of the result. Callable from any thread."""

    def __init__(self, application: str, clock: Clock) -> None:
        self._application = application
        self._clock = clock
        self._started, self._begun = clock.now(), clock.monotonic()
        self._outcomes: Counter[str] = Counter()
        self._shards: dict[tuple[str, str], ShardResult] = {}
        self._lock = threading.Lock()
        self.failed = False
        """Whether an event said why the run failed."""

    @property
    def records(self) -> int:
        """Records committed so far."""
        return sum(self._outcomes.values())

    def __call__(self, event: events.Event) -> None:
        """Count ``event``."""
        with self._lock:
            match event:
                case events.UnitSealed():
                    self._outcomes.update(dict(event.outcomes))
                    shard = self._shard(event)
                    shard.units += 1
                    shard.records += sum(count for _, count in event.outcomes)
                    shard.position = str(event.last)
                case events.ShardStarted():
                    self._shard(event).position = str(event.position)
                case events.ShardEnded():
                    self._shard(event).state = "ended"
                case events.ShardPaused():
                    shard = self._shard(event)
                    shard.state, shard.reason = "paused", event.note
                case events.ShardResumed():
                    shard = self._shard(event)
                    shard.state, shard.reason = "open", ""
                case events.ShardHalted():
                    shard = self._shard(event)
                    shard.state, shard.reason = "halted", event.reason
                case events.WorkerFailed():
                    self.failed = True
                case _:
                    pass

    def result(self, exit_code: int, error: str = "") -> Result:
        """The result so far."""
        now, seconds = self._clock.now(), self._clock.monotonic() - self._begun
        with self._lock:
            return Result(
                application=self._application,
                exit_code=exit_code,
                records=self.records,
                outcomes=dict(sorted(self._outcomes.items())),
                units=sum(shard.units for shard in self._shards.values()),
                shards=[self._shards[key] for key in sorted(self._shards)],
                started_at=self._started.isoformat(),
                finished_at=now.isoformat(),
                seconds=round(seconds, 3),
                error=error,
            )

    def _shard(self, event: events.Event) -> ShardResult:
        return self._shards.setdefault((event.stream, event.shard), ShardResult(event.stream, event.shard))


STANDARD_OUTPUT: Final = Path("-")

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def write_result(path: Path, result: Result) -> None:
    """Write the document to ``path`` in one step, so that readers see all of it or nothing. On ``STANDARD_OUTPUT`` it is one line.

    A pipe or the like is written in place; so is a file that cannot be replaced, such as the termination log of a pod.

    Raises:
        OSError: it cannot be written.
    """
    if path == STANDARD_OUTPUT:
        sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
        sys.stdout.buffer.flush()
        return
    document = msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"
    if path.exists() and not path.is_file():
        path.write_bytes(document)
        return
    try:
        write_whole(path, document)
    except OSError as error:
        if error.errno in _FULL:  # half of it would take the place of what is there
            raise
        path.write_bytes(document)
