"""Finds the objects of a watched source as they arrive and has them claimed: by listing, and by the notifications in a queue.

Listings find what no message told of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from stream import events
from stream.aws.errors import AccessRefused
from stream.commit.retry import RefusedWaits, Repeater
from stream.concurrency import ObservableEvent
from stream.contracts import Clock, Emit, ObjectInfo, RangedStore, Shard
from stream.errors import Retryable
from stream.worker.objects.choosing import CLAIM_OBJECTS, sort_out
from stream.worker.objects.claiming import Claimer, WatchSettings
from stream.worker.objects.claimlog import ClaimLog
from stream.worker.objects.receiving import OpenQueue, Receiver

FOLLOW_SECONDS: Final = 15.0
"""Seconds between two looks for claims of other workers, where there should be none: one request each."""

FOLLOW_SHARED_SECONDS: Final = 2.0
"""The same where workers share the shards: an object waits for so long if another worker reads its shard than the one that claimed it."""

TURN_SECONDS: Final = 5.0
"""Seconds between two looks whether it has become this worker's turn to list: it costs no request."""

FINISH_SECONDS: Final = 10.0
"""Seconds that a worker which drains allows for claiming what its messages name. If that is not enough, they come again."""


_LIST: Final = "list objects"
_FOLLOW: Final = "follow claims"


@dataclass(frozen=True, slots=True)
class Turns:
    """Which of several workers lists the objects. ``mine``: whether this one is to do it now. ``allowed``: told whether it may."""

    mine: Callable[[], bool] = lambda: True
    allowed: Callable[[bool], None] = lambda _: None


ALONE: Final = Turns()
"""There is no other worker."""


class Watcher:
    """Claims the objects of ``store`` in ``log``. ``open_queue``: opens the queue of notifications, if there is one.

    ``turns``: who lists objects, if workers share the work. Messages are shared by the queue itself. If several list at once, or none does
    for a while, objects are claimed once all the same, or later.
    """

    def __init__(
        self,
        settings: WatchSettings,
        log: ClaimLog,
        store: RangedStore,
        open_queue: OpenQueue | None,
        clock: Clock,
        emit: Emit,
        turns: Turns = ALONE,
    ) -> None:
        self._settings = settings
        self._turns = turns
        self._barred: RefusedWaits | None = None
        """How long to wait between attempts to list, while this worker may not."""
        self._log = log
        self._store = store
        self._clock = clock
        self._emit = emit
        self._repeat = Repeater(clock, emit)
        self._whole = Shard(settings.stream, "")
        self._claimer = Claimer(settings, log, store, clock, emit)
        self._receiver = Receiver(settings, log, store, self._claimer, open_queue, clock, emit) if open_queue is not None else None
        self._draining, self._ended = ObservableEvent(), asyncio.Event()

    def drain(self) -> None:
        """Receive nothing more, claim what waits, and let ``run`` return."""
        self._draining.set()

    async def finish(self) -> None:
        """``drain``, and wait until that is done, or has taken too long."""
        self.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                await self._ended.wait()

    async def run(self) -> None:
        """Find and claim objects until drained or cancelled. While access is refused, say so, and try again.

        Raises:
            Fatal: the bucket is gone.
            Halted: a claim is unreadable.
        """
        try:
            async with asyncio.TaskGroup() as group:
                endless = (
                    group.create_task(self._unless_refused(_LIST, self._list_for_ever), name=_LIST),
                    group.create_task(self._unless_refused(_FOLLOW, self._follow_for_ever), name=_FOLLOW),
                )
                if self._receiver is not None:
                    group.create_task(self._receiver.run(self._draining), name="receive notifications")
                await self._draining.wait()
                for task in endless:
                    task.cancel()
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error
        finally:
            self._ended.set()

    async def list_once(self) -> None:
        """List all objects and claim the new ones."""
        await self._repeat(_LIST, self._whole, self._list)

    async def _unless_refused(self, what: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run ``loop``, which ends only with an error, and run it again after each that refuses access."""
        waits = RefusedWaits(self._clock)
        while True:
            try:
                await loop()
            except AccessRefused as error:
                self._claimer.halt(what, error)
                await self._clock.sleep(waits.next())

    async def _list(self) -> None:
        fresh: list[ObjectInfo] = []
        async for page in self._listed():
            found = sort_out(page, self._log.claimed)
            self._claimer.refuse_changed(found.changed)
            fresh += found.fresh
            while len(fresh) >= CLAIM_OBJECTS:
                await self._claimer.claim(fresh[:CLAIM_OBJECTS])
                del fresh[:CLAIM_OBJECTS]
        await self._claimer.claim(fresh)

    async def _listed(self) -> AsyncIterator[list[ObjectInfo]]:
        page: list[ObjectInfo] = []
        try:
            async for info in self._store.list(""):
                if info.size:
                    page.append(info)
                if len(page) == CLAIM_OBJECTS:
                    yield page
                    page = []
        except AccessRefused:
            self._allow(allowed=False)
            raise
        self._allow(allowed=True)
        if page:
            yield page

    def _allow(self, *, allowed: bool) -> None:
        self._barred = None if allowed else self._barred or RefusedWaits(self._clock)
        self._turns.allowed(allowed)

    async def _try_to_list(self, waits: RefusedWaits) -> None:
        """See whether listing is still refused to this worker. If so, say so and wait; if not, its turn may come again."""
        try:
            async for _ in self._store.list(""):
                break
        except (AccessRefused, Retryable) as error:
            wait = waits.next()
            self._emit(events.CallRepeated(self._settings.stream, "", _LIST, str(error), wait))
            await self._clock.sleep(wait)
        else:
            self._allow(allowed=True)

    async def _list_for_ever(self) -> None:
        due = self._clock.monotonic()
        while True:
            if not self._turns.mine():
                self._claimer.go_on(_LIST)  # it is another worker's turn
                await (self._clock.sleep(TURN_SECONDS) if self._barred is None else self._try_to_list(self._barred))
                # Nobody knows when the worker whose turn it was has listed last, so the next one lists at once.
                due = self._clock.monotonic()
                continue
            if self._clock.monotonic() >= due:
                await self.list_once()
                self._claimer.go_on(_LIST)
                due = self._clock.monotonic() + self._settings.every
            # Not down to nothing: sums of seconds are not exact.
            await self._clock.sleep(min(max(due - self._clock.monotonic(), 1.0), TURN_SECONDS))

    async def _follow_for_ever(self) -> None:
        seconds = FOLLOW_SHARED_SECONDS if self._settings.shared else FOLLOW_SECONDS
        while True:
            await self._repeat(_FOLLOW, self._whole, self._log.follow)
            self._claimer.go_on(_FOLLOW)
            await self._clock.sleep(seconds)
