"""Runs the streams of one worker concurrently: one supervisor each, one drain for all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from stream import events
from stream.contracts import Emit
from stream.errors import Fatal
from stream.worker.parts import StreamParts
from stream.worker.supervisor import Supervisor

ALL: Final = ""
"""Stands for the stream as a whole, in place of a shard's id."""


class Streams:
    """Runs all streams of a worker; what ends one of them does not affect the others."""

    def __init__(self, streams: Sequence[StreamParts], draining: asyncio.Event, emit: Emit) -> None:
        self._supervisors = [Supervisor(each.stream, each.start, each.parts) for each in streams]
        self._draining = draining
        self._emit = emit
        self._refused: dict[str, Fatal] = {}

    @property
    def names(self) -> str:
        """All streams, for events about the whole worker."""
        return ", ".join(each.stream for each in self._supervisors)

    @property
    def halted(self) -> Mapping[str, str]:
        """Why shards and streams are halted, by ``<stream>/<shard>`` or, for a whole stream, its name."""
        shards = {f"{each.stream}/{shard}": why for each in self._supervisors for shard, why in each.halted.items()}
        return shards | {stream: str(error) for stream, error in self._refused.items()}

    @property
    def cut_short(self) -> list[str]:
        """Streams that end by themselves but were told to stop before they had."""
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

                watching = group.create_task(watch())
                async with asyncio.TaskGroup() as streams:
                    for supervisor in self._supervisors:
                        streams.create_task(self._one(supervisor))
                watching.cancel()
        except TimeoutError:
            msg = (
                f"units in progress were not sealed within {drain_seconds:g} s of the signal. Nothing is lost: the next worker finishes "
                "them. Allow a longer drain, or see what the last log lines were waiting for. If they do not say, `stream doctor` finds "
                "what does not answer."
            )
            raise Fatal(msg) from None

    async def _one(self, supervisor: Supervisor) -> None:
        try:
            await supervisor.run()
        except Fatal as error:
            self._refused[supervisor.stream] = error
            if len(self._refused) == len(self._supervisors):
                raise
            self._emit(events.ShardHalted(supervisor.stream, ALL, str(error)))
