"""Which shards this process works on: starts each when its parents are done, parks those that must not go on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from stream import events
from stream.contracts import Shard, Start
from stream.errors import Fatal, Halted, LeaseLost, Retryable, unforeseen
from stream.lease.shards import ready
from stream.worker.parts import Parts
from stream.worker.shard import run_shard

SYNC_SECONDS: Final = 30.0
"""Between looks at the list of shards when nothing else asks for one. A shard's end asks at once, so this only finds what nobody
announced; ListShards allows 1000 calls a second for a whole account."""

LISTING_SECONDS: Final = 120.0
"""Between listings that no new lease asks for. What the service says of the stream comes with them, such as a retention that was raised."""

RESTART_SECONDS: Final = 5.0
"""Before a shard is tried again after its source or store went on failing."""


@dataclass(slots=True)
class Supervisor:
    """Runs one task per shard of one stream.

    ``halted`` maps parked shards to the reason; those of ``avoided`` are never taken up again. ``finished``: nothing is left to do, which a
    worker that was told to drain does not know.
    """

    stream: str
    start: Start
    parts: Parts
    ended: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    active: set[str] = field(default_factory=set)
    halted: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    avoided: set[str] = field(default_factory=set)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    finished: bool = False
    listed_at: float = float("-inf")

    async def run(self) -> None:
        """Until the worker drains, or every shard that is not finished is halted.

        Under leases only until it drains; with ``parts.once``, until each shard has paused or ended.

        Raises:
            Fatal: the process cannot go on; shards that work are cancelled at their next step, which loses nothing.
        """
        leases = self.parts.leases
        if leases is not None:
            leases.listeners.append(self.changed.set)
        try:
            async with asyncio.TaskGroup() as group:
                while not self.parts.draining.is_set():
                    self.changed.clear()
                    # A task cancelled before its first step never comes to its own end, and its shard would count as active for good.
                    await asyncio.sleep(0)  # noqa: TID251 - lets those begin that were started last, takes no time
                    self._stop_lost()
                    await self._hand_over_idle()
                    for shard in await self._startable_or_draining():
                        self.started.add(shard.shard_id)
                        self.active.add(shard.shard_id)
                        self.tasks[shard.shard_id] = group.create_task(self._work(shard))
                    if (self.halted or self.parts.once) and not self.active and leases is None:
                        self.finished = True
                        return
                    await self._wait()
                if leases is not None:
                    await leases.stop_taking()
                    await asyncio.gather(*(leases.release(self.stream, idle) for idle in leases.held(self.stream) - self.active))
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error

    async def _startable_or_draining(self) -> list[Shard]:
        """Shards to start on now; none once the worker drains, which a service that does not answer must not hold up."""
        asking, ending = asyncio.ensure_future(self._startable()), asyncio.ensure_future(self.parts.draining.wait())
        try:
            await asyncio.wait((asking, ending), return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else []
        finally:
            asking.cancel()
            ending.cancel()
            await asyncio.gather(asking, ending, return_exceptions=True)

    async def _startable(self) -> list[Shard]:
        """Shards to start on now."""
        if self.parts.leases is None:
            return ready(await self._listed(), self.ended, self.started)
        wanted = self.parts.leases.runnable(self.stream) - self.started
        now = self.parts.clock.monotonic()
        if not wanted and now - self.listed_at < LISTING_SECONDS:
            return []
        self.listed_at = now
        listed = {shard.shard_id: shard for shard in await self._listed()}
        # A leased shard that the service has forgotten is started too: its end, and what was lost, belong into the log.
        return [listed.get(shard_id, Shard(self.stream, shard_id)) for shard_id in sorted(wanted)] if listed else []

    def _stop_lost(self) -> None:
        """Stop at once what works on shards that are another worker's now. That may happen anywhere: the commit log bears it.

        A halted shard is no longer this worker's to speak of either: whoever has it says how it is, and it is tried anew if it comes back.
        """
        if self.parts.leases is None:
            return
        held = self.parts.leases.held(self.stream)
        for shard_id in self.active - held - self.lost:
            self.lost.add(shard_id)
            self.tasks[shard_id].cancel()
        for shard_id in self.halted.keys() - held - self.active - self.avoided:
            del self.halted[shard_id]
            self._let_go(Shard(self.stream, shard_id))

    async def _hand_over_idle(self) -> None:
        """Release what another worker is to have and nobody here works on; what is being worked on comes to its end by itself."""
        leases = self.parts.leases
        if leases is not None:
            idle = leases.held(self.stream) - self.active
            wanted = [shard_id for shard_id in idle if leases.wanted_elsewhere(self.stream, shard_id)]
            await asyncio.gather(*(leases.release(self.stream, shard_id) for shard_id in wanted))

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
            await self._attempt(shard)
        except asyncio.CancelledError:
            if shard.shard_id not in self.lost:
                raise
            self._let_go(shard)
        finally:
            self.lost.discard(shard.shard_id)
            self.active.discard(shard.shard_id)
            self.tasks.pop(shard.shard_id, None)
            self.changed.set()

    async def _attempt(self, shard: Shard) -> None:
        """Work on the shard once, and do what its end or its error calls for; either may be cut off wherever it waits."""
        try:
            await self._close_parents(shard)
            ended = await run_shard(shard, self.start, self.parts) is not None
            await self._finish(shard, ended=ended)
        except Fatal:
            raise
        except Halted as error:
            self._park(shard, str(error))
        except LeaseLost:
            self._let_go(shard)
        except Retryable as error:
            self.parts.emit(events.CallRepeated(shard.stream, shard.shard_id, "run shard", str(error), RESTART_SECONDS))
            await self.parts.clock.sleep(RESTART_SECONDS)
            self.started.discard(shard.shard_id)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one shard must not take the others down
            self._park(shard, unforeseen(error))
            if self.parts.leases is not None:
                self.avoided.add(shard.shard_id)
                await self.parts.leases.release(self.stream, shard.shard_id, avoid=True)

    async def _close_parents(self, shard: Shard) -> None:
        """Write the end of parents that another application has finished into the log, so that the order of chains is the shards'."""
        for parent in self.parts.leases.finished_elsewhere(self.stream, shard.shard_id) if self.parts.leases is not None else ():
            # The parent's lease is not this worker's, and its row says already what the log says now.
            with suppress(LeaseLost):
                await run_shard(Shard(self.stream, parent), self.start, self.parts)

    async def _finish(self, shard: Shard, *, ended: bool) -> None:
        """The shard's task came to its end, or had to stop; either way somebody else need not wait for its lease."""
        if ended:
            self.ended.add(shard.shard_id)
        if self.parts.leases is None:
            return
        if self.parts.draining.is_set():
            await self.parts.leases.stop_taking()
        await (self.parts.leases.done if ended else self.parts.leases.release)(self.stream, shard.shard_id)
        if not ended:
            # It may come back.
            self.started.discard(shard.shard_id)

    def _let_go(self, shard: Shard) -> None:
        """The shard is another worker's; it is taken up again if its lease ever comes back."""
        self.started.discard(shard.shard_id)
        self.parts.emit(events.ShardReleased(shard.stream, shard.shard_id, "lease_lost"))

    def _park(self, shard: Shard, reason: str) -> None:
        self.halted[shard.shard_id] = reason
        self.parts.emit(events.ShardHalted(shard.stream, shard.shard_id, reason))
