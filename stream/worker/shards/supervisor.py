"""Runs the shards of one stream: starts each shard when its parents have ended, and halts those that must not continue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from stream import events
from stream.aws.errors import AccessRefused, StreamMissing
from stream.commit.retry import RefusedWaits
from stream.contracts import Shard, Start
from stream.errors import Fatal, Halted, LeaseLost, Retryable, unforeseen
from stream.lease.shards import ready
from stream.worker.parts import Parts, Stop
from stream.worker.shards.paused_shards import PausedShards
from stream.worker.shards.reasons import GOES_ON, LISTED_AGAIN, LOOKED_FOR
from stream.worker.shards.shard import run_shard

SYNC_SECONDS: Final = 30.0
"""Seconds between listings of shards when nothing else requests one. A shard's end requests one at once, so this only finds changes that no
event announced. ListShards allows 1000 calls per second per account."""

LISTING_SECONDS: Final = 120.0
"""Seconds between listings when no new lease requests one. They also notice changes of the stream, such as a raised retention."""

RESTART_SECONDS: Final = 5.0
"""Seconds before a shard is restarted after its source or store kept failing."""


def _nobody_else() -> bool:
    return False


class Supervisor:
    """Runs one task per shard of one stream. ``others_work``: whether this process can do something for another stream.

    ``halted`` maps halted shards to the reason, those included that are tried again because access was refused; shards in ``avoided`` are
    never started again. ``paused``: those that operators have
    paused. ``finished``: every shard has ended, caught up, halted or been paused; never true after a drain, which stops before that is
    known.
    """

    def __init__(self, stream: str, start: Start, parts: Parts, others_work: Callable[[], bool] = _nobody_else) -> None:
        self.stream = stream
        self.parts = parts
        self.halted: dict[str, str] = {}
        self.avoided: set[str] = set()
        self.paused = PausedShards(stream, parts)
        self.unlisted = ""
        """Why none of the shards is read now, if they may not be listed."""
        self.finished = False
        self.changed = asyncio.Event()
        """Set it to make the supervisor check its shards at once."""
        self._start = start
        self._others_work = others_work
        self._ended: set[str] = set()
        """Shards that have been read to their end."""
        self._started: set[str] = set()
        """Shards that must not be started: their task runs, or they have ended or are halted."""
        self._active: set[str] = set()
        """Shards whose task runs."""
        self._lost: set[str] = set()
        """Active shards whose task was cancelled, since another worker has the lease."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, RefusedWaits] = {}
        """For shards to which access was refused."""
        self._may_list = True
        self._missing = False
        """Whether there is no such stream, as far as is known."""
        self._waiting: set[str] = set()
        """Shards that wait until they are tried again because access was refused."""
        self._listed_at = float("-inf")

    @property
    def works(self) -> bool:
        """Whether this worker has sealed something of the stream, or may be able to: no access to it is refused, and it is not missing."""
        return not self._missing and (self.parts.committer.sealed > 0 or (self._may_list and not self._waiting))

    async def run(self) -> None:
        """Run until the worker drains, or every unfinished shard is halted.

        With leases, only until it drains; with ``parts.once``, until each shard has caught up, ended, halted or been paused.

        Raises:
            Fatal: the process cannot continue. Running shards are cancelled, which loses nothing.
        """
        leases = self.parts.leases
        for listeners in self.parts.stop_listeners:
            listeners.append(self.changed.set)
        try:
            async with asyncio.TaskGroup() as group:
                while not self.parts.draining.is_set():
                    self.changed.clear()
                    # A task cancelled before its first step never runs its `finally`, so its shard would stay active forever.
                    await asyncio.sleep(0)  # noqa: TID251 - lets tasks that were just created begin; takes no time
                    self._stop_lost()
                    await self._hand_over_idle()
                    for shard in await self._startable_or_draining():
                        self._started.add(shard.shard_id)
                        self._active.add(shard.shard_id)
                        self._tasks[shard.shard_id] = group.create_task(self._work(shard), name=f"shard {self.stream}/{shard.shard_id}")
                    if not self._active and await self._nothing_left():
                        self.finished = True
                        return
                    await self._wait()
                if leases is not None:
                    await leases.stop_taking()
                    await asyncio.gather(*(leases.release(self.stream, idle) for idle in leases.held(self.stream) - self._active))
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error

    async def _nothing_left(self) -> bool:
        """Whether no shard is left to start, while none is being worked on. With leases, only a run that ends has an end."""
        leases = self.parts.leases
        if leases is None:
            return self.parts.once or bool(self.halted and not self.paused.shown)
        if not self.parts.once:
            return False
        # The leases of shards that have just ended, and those of their children, must be seen as they are.
        await leases.settle()
        waiting, held = leases.waiting(self.stream), leases.held(self.stream)
        left = waiting.keys() - self._started - self.paused.shown.keys()
        for shard_id in left - held:
            if (holder := waiting[shard_id]) is not None:
                self._started.add(shard_id)
                msg = f"{self.stream}/{shard_id}: {holder} has taken the lease, and a run that ends has to read every shard; run it again"
                self._halt(Shard(self.stream, shard_id), msg)
        return not left

    async def _startable_or_draining(self) -> list[Shard]:
        """Shards to start now; none once the worker drains, which a service that does not answer must not delay."""
        listing, draining = asyncio.ensure_future(self._startable()), asyncio.ensure_future(self.parts.draining.wait())
        try:
            await asyncio.wait((listing, draining), return_when=asyncio.FIRST_COMPLETED)
            return listing.result() if listing.done() else []
        finally:
            listing.cancel()
            draining.cancel()
            await asyncio.gather(listing, draining, return_exceptions=True)

    async def _startable(self) -> list[Shard]:
        """Shards to start now."""
        if self.parts.leases is None:
            return await self._ready()
        # A shard that has ended is runnable again if somebody has set its row back: that holds up its children, so the row is restored.
        wanted = self.parts.leases.runnable(self.stream) - (self._started - self._ended) - self._active
        wanted -= await self.paused.hold_back(wanted)
        now = self.parts.clock.monotonic()
        if (self._missing or not wanted) and now - self._listed_at < (SYNC_SECONDS if self._missing else LISTING_SECONDS):
            return []
        self._listed_at = now
        listed = {shard.shard_id: shard for shard in await self._listed()}
        # A leased shard that Kinesis no longer lists is started too: its end, and what was lost, belong in the log.
        return [listed.get(shard_id, Shard(self.stream, shard_id)) for shard_id in sorted(wanted)] if listed else []

    async def _ready(self) -> list[Shard]:
        if not (listed := await self._listed()):
            return []
        found = ready(listed, self._ended, self._started)
        held_back = await self.paused.hold_back([shard.shard_id for shard in found])
        return [shard for shard in found if shard.shard_id not in held_back]

    def _stop_lost(self) -> None:
        """Stop working on shards whose lease another worker has now. This is safe at any point, thanks to the commit log.

        A halted shard is forgotten too: its new owner reports its state, and it is started again if its lease comes back.
        """
        if self.parts.leases is None:
            return
        held = self.parts.leases.held(self.stream)
        for shard_id in self._active - held - self._lost:
            self._lost.add(shard_id)
            self._tasks[shard_id].cancel()
        for shard_id in self.halted.keys() - held - self._active - self.avoided if not self.parts.once else ():
            del self.halted[shard_id]
            self._forget(Shard(self.stream, shard_id))
        self.paused.drop_lost(held)

    async def _hand_over_idle(self) -> None:
        """Release shards that another worker is to take over and that no task here works on; the others stop by themselves."""
        leases = self.parts.leases
        if leases is not None:
            idle = leases.held(self.stream) - self._active
            wanted = [shard_id for shard_id in idle if leases.wanted_elsewhere(self.stream, shard_id)]
            await asyncio.gather(*(leases.release(self.stream, shard_id) for shard_id in wanted))

    async def _listed(self) -> list[Shard]:
        """The stream's shards; none while they cannot be listed, so that shards being read are not disturbed."""
        try:
            listed = await self.parts.source.shards()
        except (Retryable, AccessRefused) as error:
            if isinstance(error, AccessRefused):
                self._note_unlisted(error)
            if self.parts.once and not self._active:
                return await self.parts.repeat("list shards", Shard(self.stream, ""), self.parts.source.shards)
            self.parts.emit(events.CallRepeated(self.stream, "", "list shards", str(error), SYNC_SECONDS))
            return []
        self._may_list, self._missing = True, False
        self._note_listed()
        return listed

    def _note_listed(self) -> None:
        if self.unlisted:
            self.unlisted = ""
            self.parts.emit(events.StreamResumed(self.stream, ""))

    def _note_unlisted(self, error: AccessRefused) -> None:
        """Halt the stream as a whole until its shards can be listed, unless some of them are read all the same, here or elsewhere.

        Raises:
            AccessRefused: this is not to be waited for.
        """
        if isinstance(error, StreamMissing):
            self._note_missing(error)
            return
        if not self._waits_for_access:
            raise error
        self._may_list = bool(self._active)
        leases = self.parts.leases
        if leases is not None:
            self._say_refused(leases.runnable(self.stream) - self._active)
        if self._active or (leases is not None and leases.read_elsewhere(self.stream)):
            self._note_listed()
        else:
            self._halt_whole(f"its shards cannot be listed: {str(error).rstrip('.')}. {LISTED_AGAIN}")

    def _note_missing(self, error: StreamMissing) -> None:
        """Halt the stream as a whole until it is there, whatever other workers do: none of them can read it.

        A new stream of that name begins with the ids that the old one began with, so no shard counts as read to its end any more: the log
        says which are, and finds those that are others.

        Raises:
            StreamMissing: this is not to be waited for.
        """
        self._missing = True
        if not self._waits_for_stream:
            raise error
        self._started -= self._ended
        self._ended.clear()
        self._halt_whole(f"there is no such stream: {str(error).rstrip('.')}. {LOOKED_FOR}")

    def _halt_whole(self, reason: str) -> None:
        if not self.unlisted:
            self.unlisted = reason
            self.parts.emit(events.ShardHalted(self.stream, "", reason))

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
            if shard.shard_id not in self._lost:
                raise
            self._forget(shard)
        finally:
            self._lost.discard(shard.shard_id)
            self._active.discard(shard.shard_id)
            self._tasks.pop(shard.shard_id, None)
            self.changed.set()

    async def _attempt(self, shard: Shard) -> None:
        """Work on the shard once, and act on its end or its error. May be cancelled at any await."""
        try:
            await self._record_parents_ended(shard)
            result = await run_shard(shard, self._start, self.parts)
            if result is Stop.PAUSED:
                # Its lease stays here, so that no other worker reads it, and it continues here when it is resumed.
                self._started.discard(shard.shard_id)
            else:
                await self._give_lease_back(shard, ended=not isinstance(result, Stop))
        except StreamMissing as error:
            await self._wait_for_stream(shard, error)
        except AccessRefused as error:
            await self._wait_for_access(shard, error)
        except Fatal:
            raise
        except Halted as error:
            self._halt(shard, str(error))
        except LeaseLost:
            self._forget(shard)
        except Retryable as error:
            await self._restart(shard, error)
        except Exception as error:  # noqa: BLE001 - an error in one shard must not end the others
            self._halt(shard, unforeseen(error))
            if self.parts.leases is not None:
                self.avoided.add(shard.shard_id)
                await self.parts.leases.release(self.stream, shard.shard_id, avoid=True)

    async def _wait_for_stream(self, shard: Shard, error: StreamMissing) -> None:
        """Have the shards listed, which says of the whole stream that it is missing, and let the shard be started again.

        Raises:
            StreamMissing: this is not to be waited for.
        """
        if not self._waits_for_stream:
            raise error
        self._listed_at = float("-inf")
        self.changed.set()
        await self._restart(shard, error)

    async def _restart(self, shard: Shard, error: Retryable | StreamMissing) -> None:
        """Let the shard be started again in a moment."""
        self.parts.emit(events.CallRepeated(shard.stream, shard.shard_id, "run shard", str(error), RESTART_SECONDS))
        await self.parts.clock.sleep(RESTART_SECONDS)
        self._started.discard(shard.shard_id)

    @property
    def _waits_for_stream(self) -> bool:
        """Whether to wait for the stream, which is missing. Nothing but other streams is left to do for this worker.

        Otherwise it ends, so that whoever runs it learns at once of a name that is wrong, or of a stream that was deleted.
        """
        return not self.parts.once and self._others_work()

    @property
    def _waits_for_access(self) -> bool:
        """Whether to wait for access that is refused now. Somebody has taken it away if this worker has sealed something already.

        A worker that has not may be set up wrongly: it ends, so that whoever started it learns of that, and others take its shards. But
        not while it can do something for another stream.
        """
        return not self.parts.once and (self.parts.committer.sealed > 0 or self._others_work())

    def _inherited(self, shard: Shard) -> bool:
        """Whether access was refused to the worker from which this one took the shard, too, so that neither is set up wrongly."""
        return self.parts.leases is not None and self.parts.leases.inherited(self.stream, shard.shard_id)

    def _say_refused(self, shard_ids: Iterable[str]) -> None:
        for shard_id in shard_ids:
            if self.parts.leases is not None:
                self.parts.leases.refused(self.stream, shard_id)

    async def _wait_for_access(self, shard: Shard, error: AccessRefused) -> None:
        """Halt the shard until it is time to try it again, or until the worker drains.

        Raises:
            AccessRefused: this is not to be waited for.
        """
        if not self._waits_for_access and not self._inherited(shard):
            raise error
        wait = self._refused.setdefault(shard.shard_id, RefusedWaits(self.parts.clock)).next()
        self._waiting.add(shard.shard_id)
        self._halt(shard, f"{str(error).rstrip('.')}. {GOES_ON}")
        self._say_refused((shard.shard_id,))
        draining = asyncio.ensure_future(self.parts.draining.wait())
        sleeping = asyncio.ensure_future(self.parts.clock.sleep(wait))
        try:
            await asyncio.wait((draining, sleeping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.discard(shard.shard_id)
            if not self.parts.draining.is_set():
                del self.halted[shard.shard_id]
                self._started.discard(shard.shard_id)
            draining.cancel()
            sleeping.cancel()

    async def _record_parents_ended(self, shard: Shard) -> None:
        """Record in the log the end of parents that another application has finished, so that a child's chain never starts before."""
        for parent in self.parts.leases.finished_elsewhere(self.stream, shard.shard_id) if self.parts.leases is not None else ():
            # This worker does not hold the parent's lease, and the lease row already says what the log now says.
            with suppress(LeaseLost):
                await run_shard(Shard(self.stream, parent), self._start, self.parts)

    async def _give_lease_back(self, shard: Shard, *, ended: bool) -> None:
        """Give the lease back after the shard's task has ended or stopped, so that no other worker has to wait for it."""
        if ended:
            self._ended.add(shard.shard_id)
        if self.parts.leases is None:
            return
        if self.parts.draining.is_set():
            await self.parts.leases.stop_taking()
        elif self.parts.once and not ended:
            # Nobody else has to read it before this run is over.
            return
        await (self.parts.leases.done if ended else self.parts.leases.release)(self.stream, shard.shard_id)
        if not ended:
            # Its lease may come back.
            self._started.discard(shard.shard_id)

    def _forget(self, shard: Shard) -> None:
        """Forget a shard whose lease another worker has; it is started again if the lease comes back."""
        self._started.discard(shard.shard_id)
        self.parts.emit(events.ShardReleased(shard.stream, shard.shard_id, "lease_lost"))

    def _halt(self, shard: Shard, reason: str) -> None:
        self.halted[shard.shard_id] = reason
        self.parts.emit(events.ShardHalted(shard.stream, shard.shard_id, reason))
