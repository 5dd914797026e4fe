"""Which shards this process works on: starts each when its parents are done, parks those that must not go on."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass, field
from typing import Final

from stream import events
from stream.contracts import Shard, Start
from stream.errors import Fatal, Halted, LeaseLost, Retryable
from stream.lease.shards import ready
from stream.worker.parts import Parts
from stream.worker.shard import run_shard

SYNC_SECONDS: Final = 30.0
"""Between looks at the list of shards when nothing else asks for one. A shard's end asks at once, so this only finds what nobody
announced; ListShards allows 1000 calls a second for a whole account."""

RESTART_SECONDS: Final = 5.0
"""Before a shard is tried again after its source or store went on failing."""


@dataclass(slots=True)
class Supervisor:
    """Runs one task per shard of one stream. ``halted`` maps parked shards to the reason."""

    stream: str
    start: Start
    parts: Parts
    ended: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    active: set[str] = field(default_factory=set)
    halted: dict[str, str] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until the worker drains, or every shard that is not finished is halted; with ``parts.once``, until each has paused or ended.

        Raises:
            Fatal: the process cannot go on; shards that work are cancelled at their next step, which loses nothing.
        """
        try:
            async with asyncio.TaskGroup() as group:
                while not self.parts.draining.is_set():
                    self.changed.clear()
                    for shard in ready(await self._listed(), self.ended, self.started):
                        self.started.add(shard.shard_id)
                        self.active.add(shard.shard_id)
                        group.create_task(self._work(shard))
                    if (self.halted or self.parts.once) and not self.active:
                        return
                    await self._wait()
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error

    async def _listed(self) -> list[Shard]:
        """The stream's shards; none while they cannot be listed, which must not stop those that are being read."""
        try:
            return await self.parts.source.shards()
        except Retryable as error:
            if self.parts.once and not self.active:
                return await self.parts.repeat("list shards", Shard(self.stream, ""), self.parts.source.shards)
            self.parts.emit(events.CallRepeated(self.stream, "", "list shards", str(error), SYNC_SECONDS))
            return []

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                await self.changed.wait()
        except TimeoutError:
            return

    async def _work(self, shard: Shard) -> None:
        try:
            if await run_shard(shard, self.start, self.parts) is not None:
                self.ended.add(shard.shard_id)
        except Fatal:
            raise
        except Halted as error:
            self._park(shard, str(error))
        except LeaseLost:
            self.parts.emit(events.ShardReleased(shard.stream, shard.shard_id, "lease_lost"))
        except Retryable as error:
            self.parts.emit(events.CallRepeated(shard.stream, shard.shard_id, "run shard", str(error), RESTART_SECONDS))
            await self.parts.clock.sleep(RESTART_SECONDS)
            self.started.discard(shard.shard_id)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one shard must not take the others down
            where = "".join(traceback.format_exception(error)[-3:])
            self._park(shard, f"unexpected {type(error).__name__}: {error}; please report it with this trace: {where}")
        finally:
            self.active.discard(shard.shard_id)
            self.changed.set()

    def _park(self, shard: Shard, reason: str) -> None:
        self.halted[shard.shard_id] = reason
        self.parts.emit(events.ShardHalted(shard.stream, shard.shard_id, reason))
