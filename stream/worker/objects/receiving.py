"""Receives the notifications of a watched source from a queue, and has the objects claimed that they name.

A message is deleted once every object that it names is in a claim, or can never be in one. If this process is killed in between, the
message comes again and its objects are known.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeAlias, TypeVar

from stream import events
from stream.aws.errors import AccessRefused
from stream.aws.sqs import LONG_POLL, MAX_MESSAGES, Received
from stream.commit.retry import RefusedWaits, Repeater
from stream.concurrency import ObservableEvent, run_concurrently, unless_set
from stream.contracts import Clock, Emit, ObjectInfo, RangedStore, Shard
from stream.errors import Fatal, StreamError
from stream.source.notifications import Named, read_notice
from stream.storage.keys import check_key
from stream.worker.objects.choosing import CLAIM_OBJECTS, Held, is_due, seconds_to_wait, sort_out
from stream.worker.objects.claimed import version_digest
from stream.worker.objects.claiming import Claimer, WatchSettings
from stream.worker.objects.claimlog import ClaimLog

LONGEST_HOLD: Final = 60.0
"""Seconds for which a message waits for its claim at most, however old units may become: it is hidden from other workers meanwhile."""

HIDDEN_SECONDS: Final = 60
"""Seconds for which a message stays hidden beyond the time that it may wait for its claim: for the requests that the claim takes."""

QUEUE_PAUSE: Final = 60.0
"""Seconds before a queue that refused a call is asked again."""

RECEIVES: Final = 4
"""Calls at a time while a queue gives as many messages as it can: some 500 messages a second."""

LOOKS: Final = 16
"""Objects looked at concurrently before they are claimed."""

_CLAIM: Final = "claim objects that messages name"

T = TypeVar("T")


class Queue(Protocol):
    """A queue of messages; ``aws.sqs.Sqs`` is one."""

    async def receive(self, *, wait: int, hidden: int) -> list[Received]:
        """A few messages, or those that arrive within ``wait`` seconds; each is hidden from others for ``hidden`` seconds."""
        ...

    async def delete(self, handles: Sequence[str]) -> int:
        """Delete messages; returns how many could not be."""
        ...


OpenQueue: TypeAlias = Callable[[], AbstractAsyncContextManager[Queue]]


class _QueueRefused(StreamError):
    """The queue is missing, or a call of it is not allowed."""


class Receiver:
    """Receives from the queue that ``open_queue`` opens. ``claimer`` claims what messages name, as ``store`` has it then, in ``log``."""

    def __init__(
        self, settings: WatchSettings, log: ClaimLog, store: RangedStore, claimer: Claimer, open_queue: OpenQueue, clock: Clock, emit: Emit
    ) -> None:
        self._settings = settings
        self._log = log
        self._store = store
        self._claimer = claimer
        self._open_queue = open_queue
        self._clock = clock
        self._emit = emit
        self._repeat = Repeater(clock, emit)
        self._messages: dict[str, tuple[str, ...]] = {}
        """Messages that wait for a claim, by handle, with the keys that they name."""
        self._asked: list[str] = []
        """Keys that are being claimed, or could not be, since access was refused."""
        self._claimed_at = float("-inf")
        self._failing = False

    async def run(self, draining: ObservableEvent) -> None:
        """Receive messages until ``draining`` is set, and claim what they name; then claim what still waits.

        While access to the objects or to the claims is refused, messages stay in the queue.

        Raises:
            Fatal: a bucket is gone.
            Halted: a claim is unreadable.
        """
        waits = RefusedWaits(self._clock)
        while not draining.is_set():
            try:
                await self._try_again()
                async with self._open_queue() as queue:
                    await self._receive_until_refused(queue, draining)
            except AccessRefused as error:
                self._forget()
                self._claimer.halt(_CLAIM, error)
                await unless_set(draining, self._clock.sleep(waits.next()))
            except _QueueRefused as error:
                # Objects are still found by listing, so one who may list is not stopped by a queue that is gone or closed to it.
                self._forget()
                if not self._failing:
                    self._failing = True
                    self._emit(events.QueueFailed(self._settings.stream, "", str(error)))
                await unless_set(draining, self._clock.sleep(QUEUE_PAUSE))

    async def _try_again(self) -> None:
        """If access was refused, look whether it is back: the messages come later, and somebody else may have claimed what they name."""
        if self._asked:
            await self._repeat("look at objects", self._whole, functools.partial(self._store.stat, self._asked[0]))
            self._asked = []
            self._claimer.go_on(_CLAIM)

    def _forget(self) -> None:
        """Forget messages that wait; they come again."""
        self._messages.clear()
        self._claimer.waiting.clear()
        self._claimer.tell_waiting()

    async def _receive_until_refused(self, queue: Queue, draining: ObservableEvent) -> None:
        calls, hidden = 1, int(self._settings.hold) + HIDDEN_SECONDS
        while not draining.is_set():
            wait = seconds_to_wait(self._held(), self._clock.monotonic(), self._settings.hold, LONG_POLL)
            batches: list[list[Received]] = []

            async def receive(seconds: int, into: list[list[Received]] = batches) -> None:
                into.append(await self._ask("receive notifications", lambda: queue.receive(wait=seconds, hidden=hidden)))

            # Only the first call waits; the others are made while there is plenty.
            await unless_set(draining, run_concurrently([receive(0 if number else wait) for number in range(calls)], calls))
            if self._failing:
                self._failing = False
                self._emit(events.QueueAnswered(self._settings.stream, ""))
            calls = RECEIVES if all(len(batch) == MAX_MESSAGES for batch in batches) else 1
            await self._delete(queue, self._note([message for batch in batches for message in batch]))
            # What this worker still held when it ends would be hidden for a minute or two from those that stay.
            if draining.is_set() or is_due(self._held(), self._clock.monotonic(), self._settings.hold):
                await self._claim_waiting(queue)

    def _held(self) -> Held:
        return Held(len(self._claimer.waiting), len(self._messages), self._claimed_at)

    def _note(self, messages: Sequence[Received]) -> list[str]:
        """Note what ``messages`` say. Returns the handles of those that need no claim."""
        done, now = [], self._clock.now().timestamp()
        for message in messages:
            notice = read_notice(message.body, *self._settings.place)
            if notice.unreadable:
                why = f"a message of the queue is no notification of S3 and stays there: {notice.unreadable}"
                self._claimer.refuse("unreadable", why)
                continue
            for beside in notice.beside:
                self._skip(beside.value, 1)
            keys = self._unclaimed(notice.named)
            if keys:
                self._messages[message.handle] = keys
                for key in keys:
                    self._claimer.waiting.setdefault(key, now)
            else:
                done.append(message.handle)
        self._claimer.tell_waiting()
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
        messages, self._messages = self._messages, {}
        keys = self._asked = list(self._claimer.waiting)
        self._claimer.waiting.clear()
        found, refused = await self._looked_at(keys)
        self._skip("claimed", sort_out(found, self._log.claimed).claimed)
        for begin in range(0, len(found), CLAIM_OBJECTS):
            refused |= {info.key for info in await self._claimer.claim(found[begin : begin + CLAIM_OBJECTS])}
        self._asked = []
        self._claimed_at = self._clock.monotonic()
        self._claimer.tell_waiting()
        # What is refused comes again, until somebody sees to it or the queue's redrive policy sets it aside.
        await self._delete(queue, [handle for handle, keys in messages.items() if refused.isdisjoint(keys)])

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
                self._claimer.refuse("key", str(error))
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

    def _skip(self, why: str, objects: int) -> None:
        if objects:
            self._emit(events.ObjectsSkipped(self._settings.stream, "", why, objects))

    async def _delete(self, queue: Queue, handles: Sequence[str]) -> None:
        if handles:
            await self._ask("delete notifications", lambda: queue.delete(handles))

    async def _ask(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """The answer to a call of the queue."""
        try:
            return await self._repeat(what, self._whole, call)
        except Fatal as error:
            raise _QueueRefused(str(error)) from error

    @property
    def _whole(self) -> Shard:
        return Shard(self._settings.stream, "")
