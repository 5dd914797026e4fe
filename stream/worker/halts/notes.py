"""Records beside the commit log why a shard stands still, for commands that cannot ask the worker: ``halts/<stream>/<shard>.json``.

A note is written when a shard halts, and removed when the shard is known to continue. A halt that is only this deployment's is not noted:
the log is read by others. A note about a whole stream is removed by whoever reads the stream all the same. The same is done for the
export of a shard's spans, in ``export/<stream>/halted/<shard>.json``. Starting a shard costs one read, and another one if spans are
exported. No code decides anything by a note; it is for people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from stream import events
from stream.commit.retry import Repeater
from stream.contracts import Clock, Emit, ObjectStore, Shard
from stream.errors import StreamError
from stream.worker.halts.note import WHOLE_STREAM, Halt

FINISH_SECONDS: Final = 5.0
"""Seconds that a process spends at its end on notes that are not written yet."""

MAX_QUEUED: Final = 10_000
"""Changes that may be queued while the store does not answer; further ones are only in the log."""

_Where: TypeAlias = tuple[str, str]
"""Stream and shard."""


_DECODER: Final = msgspec.json.Decoder(Halt)


def folder_of(stream: str) -> str:
    """The prefix of the notes about the shards of ``stream``."""
    return f"halts/{stream}/"


def halt_key(stream: str, shard: str) -> str:
    """The key of the note about a shard; an empty name means the stream as a whole."""
    return f"{folder_of(stream)}{shard or WHOLE_STREAM}.json"


def halted_exports_of(stream: str) -> str:
    """The prefix of the notes about the exports of the shards of ``stream``."""
    return f"export/{stream}/halted/"


def export_key(stream: str, shard: str) -> str:
    """The key of the note about the export of a shard."""
    return f"{halted_exports_of(stream)}{shard}.json"


async def read_halts(store: ObjectStore, stream: str) -> Mapping[str, Halt]:
    """The notes about the shards of ``stream``, by shard, ``WHOLE_STREAM`` included; one that cannot be read says so itself."""
    return await _read_all(store, folder_of(stream))


async def read_halted_exports(store: ObjectStore, stream: str) -> Mapping[str, Halt]:
    """The notes about the exports of the shards of ``stream``, by shard."""
    return await _read_all(store, halted_exports_of(stream))


async def _read_all(store: ObjectStore, folder: str) -> Mapping[str, Halt]:
    found: dict[str, Halt] = {}
    async for info in store.list(folder):
        stored = await store.get(info.key)
        if stored is not None:
            shard = info.key.removeprefix(folder).removesuffix(".json")
            found[shard] = _read(stored.body) or Halt(f"the note {info.key} cannot be read", "", info.modified)
    return found


class HaltNotes:
    """An ``Emit`` that keeps the notes of one worker; ``run`` writes and removes them. Callable from any thread of the loop's process.

    ``exports``: whether the worker exports spans.
    """

    def __init__(self, store: ObjectStore, worker: str, clock: Clock, emit: Emit, *, exports: bool = False) -> None:
        self._exports = exports
        self._store = store
        self._worker = worker
        self._clock = clock
        self._emit = emit
        self._repeat = Repeater(clock, emit)
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(MAX_QUEUED)
        self._positions: dict[_Where, int] = {}
        self._received: set[_Where] = set()
        """Shards of which records were received since they were started."""
        self._streams: set[str] = set()
        """Streams of which a shard was started, so that they can be read."""
        self._halted: set[str] = set()
        """Streams that this worker has halted as a whole."""
        self._noted: set[str] = set()
        """Keys of the notes that there are, as far as this worker knows."""

    def __call__(self, event: events.Event) -> None:
        """Queue what ``event`` changes."""
        where = event.stream, event.shard
        if not event.shard:
            self._about_stream(event)
            return
        match event:
            case events.PageReceived():
                self._page(where, event)
            case events.ShardStarted():
                self._start(where, event.position)
            case events.UnitSealed():
                self._positions[where] = event.last
                self._go_on(where)
            case events.ShardHalted(reason=reason):
                since, position = self._clock.now(), self._positions.get(where)
                self._later(lambda: self._write(halt_key(*where), where, reason, since, position))
            case events.ExportHalted(reason=reason):
                since = self._clock.now()
                self._noted.add(export_key(*where))
                self._later(lambda: self._write(export_key(*where), where, reason, since, None))
            case events.ExportResumed() | events.SpansExported():
                self._withdraw(export_key(*where), where)
            case events.ShardEnded():
                self._forget(where)
                self._go_on(where)
            case events.ShardReleased():
                self._forget(where)
            case _:
                pass

    def _about_stream(self, event: events.Event) -> None:
        whole, since = (event.stream, ""), self._clock.now()
        match event:
            case events.ShardHalted(reason=reason, shared=shared):
                self._halted.add(event.stream)
                if shared:
                    self._later(lambda: self._write(halt_key(*whole), whole, reason, since, None))
            case events.StreamDescribed() if event.stream in self._streams - self._halted:
                # Another worker may have halted it, whose access, region or name is wrong.
                self._check_stream(event.stream)
            case events.StreamResumed():
                self._halted.discard(event.stream)
                # Also if the note is still to be written.
                self._later(lambda: self._remove(halt_key(*whole), whole))
            case _:
                pass

    def _page(self, where: _Where, page: events.PageReceived) -> None:
        if page.records:
            self._received.add(where)
        elif page.behind_ms == 0 and where not in self._received:
            self._go_on(where)  # it is at its tip, and nothing is there at which it could halt

    def _start(self, where: _Where, position: int) -> None:
        self._positions[where] = position
        self._received.discard(where)
        if where[0] not in self._streams:
            self._streams.add(where[0])
            self._check_stream(where[0])
        self._later(lambda: self._check_note(halt_key(*where), where))
        if self._exports:
            self._later(lambda: self._check_export_note(where))

    def _check_stream(self, stream: str) -> None:
        self._later(lambda: self._check_note(halt_key(stream, ""), (stream, "")))

    def _forget(self, where: _Where) -> None:
        self._positions.pop(where, None)
        self._received.discard(where)

    def _go_on(self, where: _Where) -> None:
        self._withdraw(halt_key(*where), where)

    def _withdraw(self, key: str, where: _Where) -> None:
        if key in self._noted:
            self._later(lambda: self._remove(key, where))

    async def run(self) -> None:
        """Write and remove notes until cancelled. A store that refuses costs the notes, and nothing else."""
        while True:
            change = await self._queue.get()
            try:
                await change()
            finally:
                self._queue.task_done()

    async def finish(self) -> None:
        """Return once everything is written, or after ``FINISH_SECONDS``; ``run`` must still be running."""
        handed_over = asyncio.Event()
        self._loop.call_soon_threadsafe(handed_over.set)  # runs after everything that was handed over before
        await handed_over.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                await self._queue.join()

    def _later(self, change: Callable[[], Awaitable[None]]) -> None:
        self._loop.call_soon_threadsafe(self._put, change)

    def _put(self, change: Callable[[], Awaitable[None]]) -> None:
        if not self._queue.full():
            self._queue.put_nowait(change)

    async def _check_export_note(self, where: _Where) -> None:
        """A shard was started: if its export had halted, the note goes as soon as something is exported."""

        async def attempt() -> None:
            if await self._store.get(export_key(*where)) is not None:
                self._noted.add(export_key(*where))

        await self._patiently("read note of a halt", where, attempt)

    async def _check_note(self, key: str, where: _Where) -> None:
        """A shard was started: its note is out of date if it had halted elsewhere, or before it was started."""

        async def attempt() -> None:
            stored = await self._store.get(key)
            if stored is None:
                return
            halt, position = _read(stored.body), self._positions.get(where)
            if halt is None or halt.position is None or (position is not None and halt.is_over(position)):
                await self._store.delete(key)
            else:
                self._noted.add(key)

        await self._patiently("read note of a halt", where, attempt)

    async def _write(self, key: str, where: _Where, reason: str, since: datetime, position: int | None) -> None:
        async def attempt() -> None:
            stored = await self._store.get(key)
            before = _read(stored.body) if stored is not None else None
            text = None if position is None else str(position)
            first = before.since if before is not None and before.position == text else since
            await self._store.put(key, msgspec.json.encode(Halt(reason, self._worker, first, text)))
            self._noted.add(key)

        await self._patiently("note a halt", where, attempt)

    async def _remove(self, key: str, where: _Where) -> None:
        async def attempt() -> None:
            if key in self._noted:
                await self._store.delete(key)
                self._noted.discard(key)

        await self._patiently("remove note of a halt", where, attempt)

    async def _patiently(self, call: str, where: _Where, attempt: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._repeat(call, Shard(*where), attempt)
        except StreamError as error:
            self._emit(events.NotificationFailed(*where, "state", str(error)))


def _read(body: bytes) -> Halt | None:
    try:
        return _DECODER.decode(body)
    except msgspec.MsgspecError:
        return None
