"""Exports the spans of the shards that a worker holds, after each sealed unit."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from stream import events
from stream.audit.export import FIRST_PROBE, LONGEST_PROBE, Cursor, Exporter, Refused
from stream.concurrency import run_concurrently
from stream.contracts import Checkpoint, Checkpoints, Clock, Emit, Shard
from stream.errors import LeaseLost, Retryable, StreamError
from stream.worker.receivers.recent_segments import RecentSegments

LOOK_SECONDS: Final = 1.0
"""Seconds between checks of a shard's log when no sealed unit is announced."""

LAG_SECONDS: Final = 5.0
"""Seconds between two reports of how long units have been waiting for a collector."""

SHARDS_AT_ONCE: Final = 4
"""Shards whose spans are encoded and sent at a time: enough to hide the collector's response time."""

FINISH_SECONDS: Final = 5.0
"""Seconds for the export after the last unit is sealed; a slow collector must not hold up a drain."""

PATIENT_SECONDS: Final = 60.0
"""Seconds for each unit at the end of a run, when no later worker would export it."""


@dataclass(slots=True)
class _ShardExport:
    """The state of one shard's export. ``cursor``: how far it has got; None until it has been read."""

    cursor: Cursor | None = None
    probe: float = FIRST_PROBE
    halted: bool = False
    has_news: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def reached(self, generation: int, position: int | None) -> bool:
        """Whether everything up to ``position`` (None: the end of the shard) of the chain of ``generation`` is exported."""
        cursor = self.cursor
        if cursor is None or cursor.ended or cursor.generation != generation:
            return cursor is not None and (cursor.ended or cursor.generation > generation)
        return position is not None and int(cursor.position) >= position


class ExportTask:
    """Exports the shards that this worker holds, as their units are sealed. It is an ``Emit`` and learns about shards from events.

    ``strict``: checkpoints wait, so a halted export prevents readiness. ``recent`` may hold segments of units that are about to be
    sealed.
    """

    def __init__(
        self, exporter: Exporter, clock: Clock, emit: Emit, stream: str, *, strict: bool = False, recent: RecentSegments | None = None
    ) -> None:
        self.recent = recent or RecentSegments(0)
        self._exporter = exporter
        self._clock = clock
        self._emit = emit
        self._stream = stream
        self._strict = strict
        self._exports: dict[str, _ShardExport] = {}
        self._new = asyncio.Event()
        self._slots = asyncio.Semaphore(SHARDS_AT_ONCE)
        self._loop = asyncio.get_running_loop()

    def __call__(self, event: events.Event) -> None:
        """Note shards that start, advance or are given up."""
        match event:
            case events.ShardStarted(_, shard, _) | events.UnitSealed(_, shard) | events.ShardEnded(_, shard, _):
                self._loop.call_soon_threadsafe(self._look_at, shard)
            case events.ShardReleased(_, shard, "lease_lost" | "handed_over"):
                self._loop.call_soon_threadsafe(self._forget, shard)
            case _:
                return

    def _look_at(self, shard: str) -> _ShardExport:
        export = self._exports.setdefault(shard, _ShardExport())
        export.has_news.set()
        self._new.set()
        return export

    def _forget(self, shard: str) -> None:
        export = self._exports.pop(shard, None)
        if export is not None:
            export.moved.set()

    async def run(self) -> None:
        """Export until cancelled. Errors are reported and retried; they never end the worker."""
        followed: dict[str, _ShardExport] = {}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report_lag(), name="report the lag of the export")
            while True:
                self._new.clear()
                for shard, export in self._exports.items():
                    if followed.get(shard) is not export:
                        followed[shard] = export
                        group.create_task(self._follow(shard, export), name=f"export {shard}")
                await self._new.wait()

    async def finish(self, until: asyncio.Event | None = None) -> None:
        """Export what is left, for a few seconds at most; the next worker exports the rest. Call it after ``run`` has been cancelled.

        If ``until`` is given, there is no next worker: export until the collector stops accepting units, or that event is set.
        """

        async def rest(shard: str, export: _ShardExport) -> None:
            more = True
            while more and not export.halted and (until is None or not until.is_set()):
                async with asyncio.timeout(None if until is None else PATIENT_SECONDS):
                    more = await self._attempt(shard, export)

        try:
            async with asyncio.timeout(FINISH_SECONDS if until is None else None):
                await run_concurrently([rest(shard, export) for shard, export in self._exports.items()], SHARDS_AT_ONCE)
        except TimeoutError:
            return

    async def _follow(self, shard: str, export: _ShardExport) -> None:
        while self._exports.get(shard) is export:
            export.has_news.clear()
            if await self._attempt(shard, export):
                continue
            if export.halted:
                await self._clock.sleep(export.probe)
                export.probe = min(2 * export.probe, LONGEST_PROBE)
                continue
            if export.cursor is not None and export.cursor.ended:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await export.has_news.wait()

    async def _attempt(self, shard: str, export: _ShardExport) -> bool:
        """Export one unit of ``shard``; returns whether there was one and it was exported."""
        try:
            async with self._slots:
                return await self._step(shard, export)
        except Retryable as error:
            self._emit(events.CallRepeated(self._stream, shard, "export unit", str(error), LOOK_SECONDS))
        except StreamError as error:
            self._halt(shard, export, error.status if isinstance(error, Refused) else 0, str(error))
        except Exception as error:  # noqa: BLE001 - an error in the spans of one unit must not end the worker
            # The error's message may quote record data; its location does not.
            at = traceback.extract_tb(error.__traceback__)[-1]
            self._halt(shard, export, 0, f"unexpected {type(error).__name__} in {Path(at.filename).name}:{at.lineno}; please report it")
        return False

    async def _step(self, shard: str, export: _ShardExport) -> bool:
        # A stored end is not trusted: its writer may have seen only the last link, which has no range.
        cursor = export.cursor or msgspec.structs.replace(await self._exporter.cursor(shard), ended=False)
        after = await self._exporter.step(shard, cursor)
        if export.halted:
            export.halted, export.probe = False, FIRST_PROBE
            self._emit(events.ExportResumed(self._stream, shard))
        export.cursor = after or cursor
        export.moved.set()
        if after is None:
            self._exporter.caught_up(shard)
        return after is not None

    def _halt(self, shard: str, export: _ShardExport, status: int, reason: str) -> None:
        export.halted = True
        self._emit(events.ExportHalted(self._stream, shard, status, reason, export.probe, self._strict))

    async def _report_lag(self) -> None:
        never = asyncio.Event()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAG_SECONDS):
                    await never.wait()
            self._exporter.report_lag()

    async def exported(self, shard: str, generation: int, position: int | None) -> None:
        """Return once everything up to ``position`` (None: the shard's end) of the chain of ``generation`` is exported.

        Raises:
            LeaseLost: the shard is no longer this worker's, so this worker no longer exports it.
        """
        export = self._look_at(shard)
        while not export.reached(generation, position):
            if self._exports.get(shard) is not export:
                msg = f"{self._stream}/{shard} went to another worker while its checkpoint waited for the collector"
                raise LeaseLost(msg)
            export.moved.clear()
            await export.moved.wait()


class WaitingCheckpoints:
    """Checkpoints that advance only once the collector has accepted the spans up to them: ``mode: strict``."""

    def __init__(self, checkpoints: Checkpoints, task: ExportTask) -> None:
        self._checkpoints = checkpoints
        self._task = task

    async def read(self, shard: Shard) -> Checkpoint | None:
        """See ``contracts.Checkpoints``."""
        return await self._checkpoints.read(shard)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """See ``contracts.Checkpoints``; waits until the collector has accepted the spans."""
        await self._task.exported(shard.shard_id, checkpoint.generation, checkpoint.position)
        await self._checkpoints.advance(shard, checkpoint)
