"""Finds the objects of a watched source as they arrive and claims them: by listing, and by the notifications in a queue.

A message is deleted once every object that it names is in a claim, or can never be in one. If this process is killed in between, the
message comes again and its objects are known. Listings find what no message told of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias, TypeVar

import msgspec

from stream import events
from stream.aws.sqs import LONG_POLL, MAX_MESSAGES, Received
from stream.commit.retry import Repeater
from stream.concurrency import ObservableEvent, run_concurrently, unless_set
from stream.contracts import Clock, Emit, ObjectInfo, RangedStore, Shard
from stream.errors import Fatal, StreamError
from stream.source.notifications import Named, read_notice
from stream.storage.keys import check_key
from stream.worker.objects.choosing import CLAIM_OBJECTS, Held, claim_of, is_due, seconds_to_wait, sort_out
from stream.worker.objects.claimed import version_digest
from stream.worker.objects.claimlog import ClaimLog
from stream.worker.objects.slice import Slice

LONGEST_HOLD: Final = 60.0
"""Seconds for which a message waits for its claim at most, however old units may become: it is hidden from other workers meanwhile."""

FOLLOW_SECONDS: Final = 15.0
"""Seconds between two looks for claims of other workers, where there should be none: one request each."""

FOLLOW_SHARED_SECONDS: Final = 2.0
"""The same where workers share the shards: an object waits for so long if another worker reads its shard than the one that claimed it."""

TURN_SECONDS: Final = 5.0
"""Seconds between two looks whether it has become this worker's turn to list: it costs no request."""

FINISH_SECONDS: Final = 10.0
"""Seconds that a worker which drains allows for claiming what its messages name. If that is not enough, they come again."""

HIDDEN_SECONDS: Final = 60
"""Seconds for which a message stays hidden beyond the time that it may wait for its claim: for the requests that the claim takes."""

QUEUE_PAUSE: Final = 60.0
"""Seconds before a queue that refused a call is asked again."""

RECEIVES: Final = 4
"""Calls at a time while a queue gives as many messages as it can: some 500 messages a second."""

LOOKS: Final = 16
"""Objects looked at concurrently before they are claimed."""

REPORTED: Final = 10_000
"""Changed objects that are remembered, so that each is reported once and not with every listing."""

T = TypeVar("T")


class Queue(Protocol):
    """A queue of messages; ``aws.sqs.Sqs`` is one."""

    async def receive(self, *, wait: int, hidden: int) -> list[Received]:
        """A few messages, or those that arrive within ``wait`` seconds; each is hidden from others for ``hidden`` seconds."""
        ...

    async def delete(self, handles: Sequence[str]) -> int:
        """Delete messages; returns how many could not be."""
        ...


class _QueueRefused(StreamError):
    """The queue is missing, or a call of it is not allowed."""


OpenQueue: TypeAlias = Callable[[], AbstractAsyncContextManager[Queue]]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """``stream``: the source's name. ``place``: bucket and prefix that notifications must name. ``every``: seconds between listings.

    ``hold``: the longest that a message waits for its claim, in seconds. ``shards``: how many shards objects are appended to. ``shared``:
    whether other workers read some of them.
    """

    stream: str
    place: tuple[str, str]
    every: float
    hold: float
    shards: int
    worker: str
    shared: bool = False


@dataclass(slots=True)
class _Waiting:
    """Messages that wait for a claim, by handle, with the keys that they name, and since when (Unix time) each key waits."""

    messages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keys: dict[str, float] = field(default_factory=dict)


class Watcher:
    """Claims the objects of ``store`` in ``log``. ``open_queue``: opens the queue of notifications, if there is one.

    ``lists``: if workers share the work, whether this one is to list objects now. Messages are shared by the queue itself. If several list
    at once, or none does for a while, objects are claimed once all the same, or later.
    """

    def __init__(
        self,
        settings: WatchSettings,
        log: ClaimLog,
        store: RangedStore,
        open_queue: OpenQueue | None,
        clock: Clock,
        emit: Emit,
        lists: Callable[[], bool] = lambda: True,
    ) -> None:
        self._settings = settings
        self._lists = lists
        self._log = log
        self._store = store
        self._open_queue = open_queue
        self._clock = clock
        self._emit = emit
        self._repeat = Repeater(clock, emit)
        self._whole = Shard(settings.stream, "")
        self._claimed_at = float("-inf")
        self._waiting = _Waiting()
        self._reported: set[tuple[str, str]] = set()
        self._failing = False
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
        """Find and claim objects until drained or cancelled.

        Raises:
            Fatal: the objects cannot be listed or looked at.
            Halted: a claim is unreadable.
        """
        try:
            async with asyncio.TaskGroup() as group:
                endless = (
                    group.create_task(self._list_for_ever(), name="list objects"),
                    group.create_task(self._follow_for_ever(), name="follow claims"),
                )
                if self._open_queue is not None:
                    group.create_task(self._receive_for_ever(self._open_queue), name="receive notifications")
                await self._draining.wait()
                for task in endless:
                    task.cancel()
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error
        finally:
            self._ended.set()

    # --- listing ----------------------------------------------------------------------------------------------------------

    async def list_once(self) -> None:
        """List all objects and claim the new ones."""
        await self._repeat("list objects", self._whole, self._list)

    async def _list(self) -> None:
        fresh: list[ObjectInfo] = []
        async for page in self._listed():
            found = sort_out(page, self._log.claimed)
            self._refuse_changed(found.changed)
            fresh += found.fresh
            while len(fresh) >= CLAIM_OBJECTS:
                await self._claim(fresh[:CLAIM_OBJECTS])
                del fresh[:CLAIM_OBJECTS]
        await self._claim(fresh)

    async def _listed(self) -> AsyncIterator[list[ObjectInfo]]:
        page: list[ObjectInfo] = []
        async for info in self._store.list(""):
            if info.size:
                page.append(info)
            if len(page) == CLAIM_OBJECTS:
                yield page
                page = []
        if page:
            yield page

    async def _list_for_ever(self) -> None:
        due = self._clock.monotonic()
        while True:
            if not self._lists():
                # Nobody knows when the worker whose turn it was has listed last, so the next one lists at once.
                due = self._clock.monotonic()
                await self._clock.sleep(TURN_SECONDS)
                continue
            if self._clock.monotonic() >= due:
                await self.list_once()
                due = self._clock.monotonic() + self._settings.every
            # Not down to nothing: sums of seconds are not exact.
            await self._clock.sleep(min(max(due - self._clock.monotonic(), 1.0), TURN_SECONDS))

    async def _follow_for_ever(self) -> None:
        seconds = FOLLOW_SHARED_SECONDS if self._settings.shared else FOLLOW_SECONDS
        while True:
            await self._clock.sleep(seconds)
            await self._repeat("follow claims", self._whole, self._log.follow)

    # --- claiming ---------------------------------------------------------------------------------------------------------

    async def _claim(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        """Claim those of ``infos`` that nobody has claimed. Returns those of which another version is claimed."""
        if not infos:
            return ()
        oldest = min(info.modified for info in infos)
        since = min(self._waiting.keys.values(), default=self._clock.now().timestamp())
        self._emit(events.ObjectsWaiting(*self._where, len(infos), since))

        def choose() -> Slice | None:
            fresh = sort_out(infos, self._log.claimed).fresh
            if not fresh:
                return None
            claim = claim_of(fresh, self._log.ends, self._settings.shards, self._log.last)
            now = self._clock.now().isoformat()
            return msgspec.structs.replace(claim, worker=self._settings.worker, claimed_at=now, url=self._store.url)

        claim = await self._repeat("claim objects", self._whole, lambda: self._log.append(choose))
        if claim is not None:
            size, age = sum(item.size for item in claim.objects), (self._clock.now() - oldest).total_seconds()
            self._emit(events.ObjectsClaimed(*self._where, self._log.last, len(claim.objects), size, max(0.0, age)))
        self._tell_waiting()
        changed = sort_out(infos, self._log.claimed).changed
        self._refuse_changed(changed)
        return changed

    def _refuse_changed(self, infos: Sequence[ObjectInfo]) -> None:
        for info in infos:
            if (known := (info.key, info.version)) in self._reported:
                continue
            if len(self._reported) < REPORTED:
                self._reported.add(known)
            what = f"the object {info.key} under {self._store.url} ({info.size} bytes, modified {info.modified.isoformat()})"
            self._refuse("changed", f"{what} is another version than the one that was claimed, and is not read: give it a key of its own")

    def _refuse(self, why: str, detail: str) -> None:
        self._emit(events.ObjectRefused(*self._where, why, detail))

    def _skip(self, why: str, objects: int) -> None:
        if objects:
            self._emit(events.ObjectsSkipped(*self._where, why, objects))

    def _tell_waiting(self) -> None:
        keys = self._waiting.keys
        self._emit(events.ObjectsWaiting(*self._where, len(keys), min(keys.values(), default=0.0)))

    @property
    def _where(self) -> tuple[str, str]:
        return self._settings.stream, ""

    # --- notifications ----------------------------------------------------------------------------------------------------

    async def _receive_for_ever(self, open_queue: OpenQueue) -> None:
        while not self._draining.is_set():
            try:
                async with open_queue() as queue:
                    await self._receive_until_refused(queue)
            except _QueueRefused as error:
                # Objects are still found by listing, so one who may list is not stopped by a queue that is gone or closed to it.
                self._waiting = _Waiting()
                if not self._failing:
                    self._failing = True
                    self._emit(events.QueueFailed(*self._where, str(error)))
                await unless_set(self._draining, self._clock.sleep(QUEUE_PAUSE))

    async def _receive_until_refused(self, queue: Queue) -> None:
        calls, hidden = 1, int(self._settings.hold) + HIDDEN_SECONDS
        while not self._draining.is_set():
            wait = seconds_to_wait(self._held(), self._clock.monotonic(), self._settings.hold, LONG_POLL)
            batches: list[list[Received]] = []

            async def receive(seconds: int, into: list[list[Received]] = batches) -> None:
                into.append(await self._ask("receive notifications", lambda: queue.receive(wait=seconds, hidden=hidden)))

            # Only the first call waits; the others are made while there is plenty.
            await unless_set(self._draining, run_concurrently([receive(0 if number else wait) for number in range(calls)], calls))
            if self._failing:
                self._failing = False
                self._emit(events.QueueAnswered(*self._where))
            calls = RECEIVES if all(len(batch) == MAX_MESSAGES for batch in batches) else 1
            await self._delete(queue, self._note([message for batch in batches for message in batch]))
            # What this worker still held when it ends would be hidden for a minute or two from those that stay.
            if self._draining.is_set() or is_due(self._held(), self._clock.monotonic(), self._settings.hold):
                await self._claim_waiting(queue)

    def _held(self) -> Held:
        return Held(len(self._waiting.keys), len(self._waiting.messages), self._claimed_at)

    def _note(self, messages: Sequence[Received]) -> list[str]:
        """Note what ``messages`` say. Returns the handles of those that need no claim."""
        done, now = [], self._clock.now().timestamp()
        for message in messages:
            notice = read_notice(message.body, *self._settings.place)
            if notice.unreadable:
                self._refuse("unreadable", f"a message of the queue is no notification of S3 and stays there: {notice.unreadable}")
                continue
            for why in notice.beside:
                self._skip(why.value, 1)
            keys = self._unclaimed(notice.named)
            if keys:
                self._waiting.messages[message.handle] = keys
                for key in keys:
                    self._waiting.keys.setdefault(key, now)
            else:
                done.append(message.handle)
        self._tell_waiting()
        return done

    def _unclaimed(self, named: Sequence[Named]) -> tuple[str, ...]:
        """The keys of ``named`` without those of which exactly the named version is claimed, or that are known to be empty."""
        versions = self._log.claimed.of_keys([each.key for each in named]) if named else []
        left = []
        for each, version in zip(named, versions, strict=True):
            if each.size == 0:
                self._skip("empty", 1)
            elif version is not None and version == version_digest(each.size or 0, f'"{each.etag}"'):
                self._skip("claimed", 1)
            else:
                left.append(each.key)
        return tuple(dict.fromkeys(left))

    async def _claim_waiting(self, queue: Queue) -> None:
        """Claim what waits, as it is now, and delete the messages of which nothing is left to do."""
        waiting, self._waiting = self._waiting, _Waiting()
        found, refused = await self._looked_at(list(waiting.keys))
        self._skip("claimed", sort_out(found, self._log.claimed).claimed)
        for begin in range(0, len(found), CLAIM_OBJECTS):
            refused |= {info.key for info in await self._claim(found[begin : begin + CLAIM_OBJECTS])}
        self._claimed_at = self._clock.monotonic()
        self._tell_waiting()
        # What is refused comes again, until somebody sees to it or the queue's redrive policy sets it aside.
        await self._delete(queue, [handle for handle, keys in waiting.messages.items() if refused.isdisjoint(keys)])

    async def _looked_at(self, keys: Sequence[str]) -> tuple[list[ObjectInfo], set[str]]:
        """What the store says of ``keys`` now, and the keys that cannot be used. Objects that are gone or empty are left out."""
        found: dict[str, ObjectInfo] = {}
        refused: set[str] = set()
        missing = empty = 0

        async def check(key: str) -> None:
            nonlocal missing, empty
            try:
                check_key(key, self._store.url)
            except Fatal as error:
                refused.add(key)
                self._refuse("key", str(error))
                return
            info = await self._repeat("look at objects", self._whole, lambda: self._store.stat(key))
            if info is None:
                missing += 1
            elif not info.size:
                empty += 1
            else:
                found[key] = info

        await run_concurrently([check(key) for key in keys], LOOKS)
        self._skip("deleted", missing)
        self._skip("empty", empty)
        return [found[key] for key in keys if key in found], refused

    async def _delete(self, queue: Queue, handles: Sequence[str]) -> None:
        if handles:
            await self._ask("delete notifications", lambda: queue.delete(handles))

    async def _ask(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """The answer to a call of the queue."""
        try:
            return await self._repeat(what, self._whole, call)
        except Fatal as error:
            raise _QueueRefused(str(error)) from error
