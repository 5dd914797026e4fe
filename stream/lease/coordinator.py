"""Keeps this worker's leases: schedules what is done with the table, and gives leases back.

Which shards may be worked on is said in ``view.py``, leases are taken in ``taker.py``, renewed in ``holding.py``, and their rows kept in
``row_keeper.py``. The output is correct whatever happens here, because the commit log does not rely on leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from stream import events
from stream.aws.errors import AccessRefused, StreamMissing
from stream.concurrency import run_concurrently
from stream.contracts import Clock, Emit, Shard
from stream.errors import Fatal, LeaseLost, Retryable
from stream.lease import decide, fleet_rules
from stream.lease.access import AccessRecord
from stream.lease.decide import ObservedLease
from stream.lease.follower import Follower
from stream.lease.holding import AT_ONCE, Holdings
from stream.lease.hole_watch import HoleWatch
from stream.lease.row_keeper import RowKeeper
from stream.lease.rows import Lease
from stream.lease.settings import LeasedStream, LeaseSettings, refuse_other_keys
from stream.lease.table import LeaseTable
from stream.lease.taker import LeaseTaker
from stream.lease.view import LeaseView

REFUSED_SECONDS: Final = 5.0
"""Seconds before the table is looked at again while access to it is refused."""

SEIZE_ATTEMPTS: Final = 10
"""Attempts to take a lease. Its owner writes the row only a few times per failover time, so one attempt will not collide."""


class Coordinator(LeaseView):
    """The leases of one worker in one table, for any number of streams. ``order`` shuffles candidates.

    ``listeners`` are called whenever what this worker may read, or must release, may have changed.
    """

    def __init__(
        self,
        table: LeaseTable,
        me: str,
        streams: Sequence[LeasedStream],
        settings: LeaseSettings,
        clock: Clock,
        emit: Emit,
        order: decide.Order,
    ) -> None:
        super().__init__(streams, Holdings(table, me, settings, clock, emit, self._notify), settings, clock)
        self.me = me
        self.table = table
        self.rows = RowKeeper(table, self.holdings, emit)
        self.follower = Follower(table, me, settings, clock, emit)
        self.listeners: list[Callable[[], None]] = []
        self._emit = emit
        self.access = AccessRecord()
        self._taker = LeaseTaker(table, me, self, self.follower, clock, emit, order, self.access)
        self._size = 0
        self._holes = HoleWatch(emit)
        self._wake = asyncio.Event()

    # --- what the worker calls --------------------------------------------------------------------------------------------

    def count(self, event: events.Event) -> None:
        """An ``Emit`` that counts the traffic of each shard, and notes whether this worker can work on it."""
        if (leased := self.streams.get(event.stream)) is None or not event.shard:
            return
        key = leased.key(event.shard)
        match event:
            case events.PageReceived(records=records, behind_ms=behind_ms):
                self.holdings.count(key, event.payload_bytes)
                if records or behind_ms == 0:
                    self.holdings.work_on(key, sealed=False, records=bool(records))
            case events.ManifestSealed():
                self.holdings.work_on(key, sealed=True)
                self.access.seal(event.stream, key, self._clock.monotonic())
            case events.CallRepeated():
                if self.holdings.no_answer(key) and self.holdings.refuse(key, begins_anew=False):
                    self.access.refuse(event.stream, key, self._clock.monotonic())
            case _:
                pass

    def refused(self, stream: str, shard_id: str) -> None:
        """Note that access was refused to this worker, which is about to begin the shard anew, after its last seal.

        The lease is kept and renewed. Its row says so, and a worker that has access takes it (``access.py``).
        """
        key = self.streams[stream].key(shard_id)
        if self.holdings.refuse(key, begins_anew=True):
            self.access.refuse(stream, key, self._clock.monotonic())

    def lists(self, stream: str) -> bool:
        """Whether this worker is to list the objects of a watched source for all: one does, and if nobody holds a lease, everyone."""
        return self.first_holder(stream) in {self.me, None}

    def may_list(self, stream: str, *, allowed: bool) -> None:
        """Note whether this worker may list the objects of a watched source. While it may not, one that may lists for all."""
        (self.holdings.unlisted.discard if allowed else self.holdings.unlisted.add)(stream)

    def inherited(self, stream: str, shard_id: str) -> bool:
        """Whether this worker took the shard's lease from one that had no access, or after one that had none until its end."""
        held = self.holdings.held.get(self.streams[stream].key(shard_id))
        return held is not None and held.inherited

    def read_elsewhere(self, stream: str) -> bool:
        """Whether another worker holds the lease of a shard of the stream that may be read now."""
        return any(holder not in {None, self.me} for holder in self.waiting(stream).values())

    async def release(self, stream: str, shard_id: str, *, avoid: bool = False) -> None:
        """Release the shard's lease, to the worker that is to take it over, if any; with ``avoid``, never take it again in this process."""
        key = self.streams[stream].key(shard_id)
        if avoid:
            self._taker.avoid(key)
        await self._give_up(key)

    async def done(self, stream: str, shard_id: str) -> None:
        """Note that the shard has been read to its end. KCL keeps its lease until the row is deleted; by our own rules it is released."""
        if not self._taker.follows_kcl():
            await self.release(stream, shard_id)

    async def seize(self, stream: str, shard_id: str) -> Lease | None:
        """Take the lease from its holder, regardless of the rules. Returns the lease as it was, or None if there is none.

        Raises:
            LeaseLost: others keep changing the row.
        """
        key = self.streams[stream].key(shard_id)
        for _ in range(SEIZE_ATTEMPTS):
            lease = await self.table.get(key)
            if lease is None:
                return None
            asked = self._clock.monotonic()
            if (taken := await self.table.take(lease, self.me)) is not None:
                self.holdings.add(stream, taken, asked)
                return lease
        msg = f"the lease {key} in table {self.table.name} changes faster than it can be taken; try again"
        raise LeaseLost(msg)

    async def stop_taking(self) -> None:
        """Take no more leases, and have none assigned; leases that are held continue to be renewed."""
        self._taker.stop()
        await self.follower.leave()

    async def leave(self) -> None:
        """Take no more leases and release all of them at once."""
        await self.stop_taking()
        await run_concurrently([self._give_up(key) for key in self.holdings.held], AT_ONCE)

    async def settle_end(self, stream: str, shard_id: str) -> None:
        """Prepare the end of a shard, as ``RowKeeper.settle_end`` does."""
        await self.rows.settle_end(self.streams[stream], shard_id, self.leases(stream))
        self.scan_soon()

    def scan_soon(self) -> None:
        """Scan the table soon, because something in it has changed."""
        self._wake.set()

    # --- the life of a coordinator ----------------------------------------------------------------------------------------

    async def start(self, observed: Mapping[str, ObservedLease] | None = None) -> None:
        """Create missing rows and take free leases; after this, work can begin. ``observed``: the leases as observed before.

        A stream of several to which access is refused is left for later, unless it is all of them, or ``observed`` is given: a run that
        ends has to read every one.

        Raises:
            Fatal: the table is missing, or belongs to a fleet that this worker must not join; access to every stream is refused.
        """
        self.observed = dict(observed or {})
        await self.follower.refresh()
        await self.scan()
        if not self.observed:
            refuse_other_keys(self.table.name, (await self.table.scan()).leases, self.streams.values())
        await self._sync_first(alone=observed is not None)
        await self.scan()

    async def run(self) -> None:
        """Renew leases, scan the table and clean it up until cancelled. While access is refused, leases expire, and are taken again later.

        Raises:
            Fatal: the table can no longer be used, or the fleet on it has changed to rules that this worker must not join.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self.holdings.keep_renewed(), name="renew leases")
            group.create_task(self._expiring(), name="drop expired leases")
            group.create_task(self._scanning(), name="look at leases")
            group.create_task(self._syncing(), name="create leases")
            group.create_task(self._following(), name="follow the fleet")

    async def keep(self) -> None:
        """Only renew what is held, until cancelled; for a caller that has taken a lease for the duration of one operation."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.holdings.keep_renewed(), name="renew leases")
            group.create_task(self._expiring(), name="drop expired leases")

    async def scan(self, *, consistent: bool = False) -> None:
        """Scan the table, take what the rules or the leader give to this worker, and notice rows that are gone."""
        started = self._clock.monotonic()
        scanned = await self.table.scan(consistent=consistent)
        now = self._clock.monotonic()
        self._size = scanned.size
        self._emit(events.LeasesScanned("", "", len(scanned.leases), scanned.size, now - started))
        known = [lease for lease in scanned.leases if any(each.owns(lease.key) for each in self.streams.values())]
        # Counters were read at some moment during the scan: counting from its beginning would expire leases too early.
        self.observed = decide.observe(self.observed, known, now)
        for lease in known:
            self.holdings.refresh(lease)
        await self._notice_vanished({lease.key for lease in known}, started)
        await self._taker.take_due(known, started, now)
        self._notify()

    async def settle(self) -> None:
        """Scan the table with consistent reads, and with rows for all shards that exist now."""
        await self.scan(consistent=True)
        await self.sync()
        await self.scan(consistent=True)

    async def sync(self) -> None:
        """Create the lease rows that the shards of each stream need, remove those that are no longer needed, and look for holes."""
        for name in tuple(self.streams):
            await self._keep_rows(*await self._listed(name))

    async def _sync_first(self, *, alone: bool) -> None:
        refused = 0
        for name in tuple(self.streams):
            try:
                leased, listed = await self._listed(name)
            except AccessRefused as error:
                refused += 1
                if alone or refused == len(self.streams):
                    raise
                self._emit(events.CallRepeated(name, "", "list shards", str(error), self.settings.sync))
            else:
                await self._keep_rows(leased, listed)

    async def _listed(self, stream: str) -> tuple[LeasedStream, list[Shard]]:
        """The stream, identified, and its shards."""
        leased = self.streams[stream]
        if leased.identify is not None and not leased.identified:
            leased = self.streams[stream] = replace(leased, prefix=await leased.identify())
            await self.scan(consistent=True)  # rows of it were passed over until now
        return leased, await leased.list_shards()

    async def _forget(self, stream: str) -> None:
        """Release the leases of a stream that is gone, and leave their rows alone: one that is created under its name has others."""
        leased = self.streams[stream]
        if leased.identify is None or not leased.identified:
            return
        await run_concurrently([self._give_up(key) for key, held in self.holdings.held.items() if held.stream == stream], AT_ONCE)
        self.streams[stream] = leased.unidentified()
        self.observed = {key: row for key, row in self.observed.items() if not leased.owns(key)}
        self._notify()

    # --- loops ------------------------------------------------------------------------------------------------------------

    async def _expiring(self) -> None:
        while True:
            self.holdings.expire()
            await run_concurrently([self._give_up(key) for key in self.holdings.overdue(fleet_rules.HAND_OFF_SECONDS)], AT_ONCE)
            await self._clock.sleep(self.settings.renew_every / 4)

    async def _scanning(self) -> None:
        while True:
            await self._pause(self.settings.look_after(self._size))
            await self._unless_refused(self.scan())

    async def _syncing(self) -> None:
        while True:
            await self._clock.sleep(self.settings.sync)
            for name in tuple(self.streams):
                try:
                    leased, listed = await self._listed(name)
                except (Retryable, Fatal) as error:
                    # If the stream is gone, its readers find out, and say so; the leases of other streams must go on.
                    self._emit(events.CallRepeated(name, "", "list shards", str(error), self.settings.sync))
                    if isinstance(error, StreamMissing):
                        await self._unless_refused(self._forget(name))
                else:
                    await self._unless_refused(self._keep_rows(leased, listed))

    async def _following(self) -> None:
        while True:
            await self._clock.sleep(self.follower.every)
            await self._unless_refused(self.follower.refresh(self.observed.values()))

    async def _unless_refused(self, work: Awaitable[None]) -> None:
        """Do ``work`` on the table. If access to it is refused, say so and wait: somebody has taken it away, and may give it back."""
        try:
            await work
        except AccessRefused as error:
            self._emit(events.CallRepeated("", "", "lease table", str(error), REFUSED_SECONDS))
            await self._clock.sleep(REFUSED_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Wait until ``seconds`` have passed, or a scan has been requested."""
        waiting = asyncio.ensure_future(self._wake.wait())
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait((waiting, sleeping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (waiting, sleeping):
                task.cancel()
        self._wake.clear()

    # --- steps ------------------------------------------------------------------------------------------------------------

    async def _keep_rows(self, leased: LeasedStream, listed: Sequence[Shard]) -> None:
        leases = self.leases(leased.stream)
        await self.rows.keep(leased, listed, leases, self._idle)
        self._holes.check(leased.stream, leases.values())

    def _idle(self, lease: Lease) -> bool:
        """Whether no other live worker holds the lease; a live worker removes its own rows."""
        observed = self.observed.get(lease.key)
        available = observed is None or decide.is_available(observed, self._clock.monotonic(), self.settings.failover)
        return lease.holder in {None, self.me} or available

    async def _give_up(self, key: str) -> None:
        await self.holdings.release(key, self.follower.successor(self.observed.values()))

    async def _notice_vanished(self, scanned: set[str], started: float) -> None:
        missing = [key for key, held in self.holdings.held.items() if key not in scanned and held.renewed < started - self.settings.look]
        for key in missing:
            held = self.holdings.held.get(key)
            if held is not None and await self.table.get(key) is None:
                self._emit(events.LeaseVanished(held.stream, held.lease.shard, key))
                self.holdings.drop(key, "vanished")

    def _notify(self) -> None:
        for listener in self.listeners:
            listener()
