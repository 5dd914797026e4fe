"""Runs the streams of one worker concurrently: one supervisor each, one drain for all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from stream import events
from stream.contracts import Emit
from stream.errors import Fatal, OtherStream
from stream.lease.paused import Pause
from stream.worker.parts import StreamParts
from stream.worker.shards.supervisor import Supervisor

ALL: Final = ""
"""Stands for the stream as a whole, in place of a shard's id."""

EXPORT: Final = "export spans"
MAX_SHOWN: Final = 10
"""Shards listed in the error, since usually the cause is the same for all."""


class PendingCalls:
    """An ``Emit`` that remembers which retried call each shard waits for. ``strict``: checkpoints wait for exported spans, too."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._waiting: dict[tuple[str, str], str] = {}

    def __call__(self, event: events.Event) -> None:
        """Update what the event's shard waits for."""
        where = event.stream, event.shard
        match event:
            case events.CallRepeated(_, _, call, detail, _) if call != EXPORT:
                self._waiting[where] = f"{call}: {detail}"
            case events.CallRepeated(_, _, _, detail, _) | events.ExportHalted(_, _, _, detail, _, _) if self._strict:
                self._waiting[where] = f"{EXPORT}, for which checkpoints wait with `mode: strict`: {detail}"
            case events.Checkpointed() | events.ShardReleased() | events.ShardEnded():
                self._waiting.pop(where, None)
            case _:
                pass

    def __str__(self) -> str:
        """What each shard waits for, one line each; empty if nothing is known."""
        lines = [f"  {stream}/{shard} waits for {what}" for (stream, shard), what in sorted(self._waiting.items())]
        more = [f"  and {len(lines) - MAX_SHOWN:,} more shards"] if len(lines) > MAX_SHOWN else []
        return "\n".join(lines[:MAX_SHOWN] + more)


class Streams:
    """Runs all streams of a worker. A stream that fails does not affect the others.

    Access that is refused to one is waited for as long as the worker can do something for another one.
    """

    def __init__(self, streams: Sequence[StreamParts], draining: asyncio.Event, emit: Emit, pending: PendingCalls) -> None:
        self._supervisors = [Supervisor(each.stream, each.start, each.parts, partial(self._others_work, each.stream)) for each in streams]
        self._draining = draining
        self._emit = emit
        self._pending = pending
        self._refused: dict[str, Fatal] = {}

    @property
    def names(self) -> str:
        """The names of all streams, for events about the whole worker."""
        return ", ".join(each.stream for each in self._supervisors)

    @property
    def halted(self) -> Mapping[str, str]:
        """Why shards and streams are halted, by ``<stream>/<shard>`` or, for a whole stream, its name."""
        shards = {f"{each.stream}/{shard}": why for each in self._supervisors for shard, why in each.halted.items()}
        unlisted = {each.stream: each.unlisted for each in self._supervisors if each.unlisted}
        return shards | unlisted | {stream: str(error) for stream, error in self._refused.items()}

    @property
    def paused(self) -> Mapping[str, Pause]:
        """Shards that a run which ends by itself has not read to their end because they are paused, by ``<stream>/<shard>``."""
        each = [one for one in self._supervisors if one.parts.once]
        return {f"{one.stream}/{shard}": pause for one in each for shard, pause in one.paused.shown.items()}

    @property
    def interrupted(self) -> list[str]:
        """Streams that end by themselves but were stopped before their end."""
        return [each.stream for each in self._supervisors if each.parts.once and not each.finished and each.stream not in self._refused]

    async def run(self, drain_seconds: float) -> None:
        """Run until every stream has drained or is halted; a drain that takes longer than ``drain_seconds`` is abandoned.

        Raises:
            Fatal: no stream could continue, or the drain was too slow.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:

                async def watch() -> None:
                    await self._draining.wait()
                    self._emit(events.DrainStarted(self.names, ALL, drain_seconds))
                    deadline.reschedule(loop.time() + drain_seconds)
                    for supervisor in self._supervisors:
                        supervisor.changed.set()

                watching = group.create_task(watch(), name="wait for a drain")
                async with asyncio.TaskGroup() as streams:
                    for supervisor in self._supervisors:
                        streams.create_task(self._one(supervisor), name=f"supervise {supervisor.stream}")
                watching.cancel()
        except TimeoutError:
            raise self._too_slow(drain_seconds) from None

    def _too_slow(self, seconds: float) -> Fatal:
        what = f"work in progress was not sealed and its checkpoints stored within {seconds:g} s of the signal"
        advice = "Nothing is lost: the next worker finishes it. Allow a longer drain"
        if known := str(self._pending):
            return Fatal(f"{what}. {advice}, or remove what held it up:\n{known}")
        return Fatal(f"{what}. {advice}, or see what the last log lines say; `stream doctor` finds what does not answer.")

    def _others_work(self, stream: str) -> bool:
        """Whether there is another stream of which it is not known that this worker can do nothing for it."""
        return any(each.stream not in self._refused and each.works for each in self._supervisors if each.stream != stream)

    async def _one(self, supervisor: Supervisor) -> None:
        try:
            await supervisor.run()
        except Fatal as error:
            self._refused[supervisor.stream] = error
            if not self._others_work(supervisor.stream):
                raise
            self._emit(events.ShardHalted(supervisor.stream, ALL, str(error), shared=not isinstance(error, OtherStream)))


def halted_error(halted: Mapping[str, str]) -> Fatal:
    """The error that says why these shards and streams are halted."""
    reasons = "\n".join(f"  {where}: {reason}" for where, reason in sorted(halted.items()))
    return Fatal(f"{len(halted)} shard(s) or stream(s) are halted:\n{reasons}")
