"""Objects in S3 or a directory as a source: listed once, pinned by size and version, divided into shards, read in parts."""

from __future__ import annotations

import asyncio
import errno
import io
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, BinaryIO, Final, cast
from weakref import WeakKeyDictionary

import msgspec
import polars as pl

from stream.batch import ARRIVAL, DATA, PARTITION_KEY, Outcome
from stream.contracts import RangedStore
from stream.errors import Halted, Retryable, StreamError
from stream.source.bounded import BLOCK_BYTES, Block, Part
from stream.source.object_formats import TYPED, Chunk, Layout, chunks
from stream.source.unreadable import UNREADABLE, Note, UnreadPart

TYPED_AT_ONCE: Final = 2
"""Typed objects that are read on at a time: each takes a process of 100 to 200 MB, which the memory budget does not count."""

_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[asyncio.Semaphore, asyncio.Semaphore]]] = WeakKeyDictionary()
"""By event loop: the turns for reading on, and the one for reading a range again."""


class Gone(Halted):
    """An object was deleted after it was chosen."""


class Changed(Halted):
    """An object was overwritten after it was chosen."""


READ_AHEAD: Final = 4 * 2**20
"""Bytes of one ranged read: large enough that S3's response time hardly matters, small compared with a memory budget."""


class PinnedObject(msgspec.Struct, frozen=True):
    """An object as it was when it was chosen; ``modified`` is in ISO 8601, UTC."""

    key: str
    size: int
    version: str
    modified: str


def split(objects: Sequence[PinnedObject], shards: int) -> list[tuple[int, int]]:
    """Bounds ``[from, to)`` of at most ``shards`` non-empty runs of ``objects`` with about equal numbers of bytes."""
    total = sum(item.size for item in objects)
    bounds: list[tuple[int, int]] = []
    begin, seen = 0, 0
    for at, item in enumerate(objects, 1):
        seen += item.size
        left = shards - len(bounds)
        if at == len(objects) or (left > 1 and seen * shards >= total * (len(bounds) + 1)):
            bounds.append((begin, at))
            begin = at
    return bounds


def shard_name(number: int, part: int) -> str:
    """The id of a shard, made from the number of its slice and of its run."""
    return f"objects-{number:06d}-{part:04d}"


def parts_of(
    number: int, objects: Sequence[PinnedObject], bounds: Sequence[tuple[int, int]], store: RangedStore, layout: Layout
) -> list[Part]:
    """The shards of one slice."""
    return [
        Part(shard_name(number, part), [ObjectPiece(store, item, layout) for item in objects[begin:end]])
        for part, (begin, end) in enumerate(bounds, 1)
    ]


@dataclass(frozen=True, slots=True)
class ObjectPiece:
    """One object; see ``bounded.Piece``. ``_arrival`` is the time of its last modification, ``_partition_key`` its key.

    ``note``: where it is noted if the rest of it cannot be read. Then that rest is one dead letter, an ``UnreadPart``, the last record of a
    unit. So a range that ends with it is read as the note says, and for any other range the note is wrong: its writer had lost the shard.
    ``gives_up``: because of which errors this is noted now; because of others, or without a note, the shard halts.
    """

    store: RangedStore
    item: PinnedObject
    layout: Layout
    note: Note | None = None
    gives_up: tuple[type[Halted], ...] = ()

    @property
    def modified(self) -> datetime:
        """When the object was last modified."""
        return datetime.fromisoformat(self.item.modified)

    async def blocks(self, after_number: int, until: int | None = None) -> AsyncIterator[Block]:
        """See ``bounded.Piece``. Of typed objects, only a few are read at a time."""
        if self.item.size == 0 or after_number >= UNREADABLE:
            return
        async with self._turn(again=until is not None), aclosing(self._blocks(after_number, until)) as blocks:
            async for block in blocks:
                yield block

    def _turn(self, *, again: bool) -> AbstractAsyncContextManager[object]:
        """Waits for a turn to read. Whoever reads on may wait for memory that is free only once a range has been read again."""
        if self.layout.format not in TYPED:
            return nullcontext()
        new = (asyncio.Semaphore(TYPED_AT_ONCE), asyncio.Semaphore(1))
        return _turns.setdefault(asyncio.get_running_loop(), new)[again]

    async def _blocks(self, after_number: int, until: int | None) -> AsyncGenerator[Block, None]:
        part = await self.note.read() if self.note is not None and until in {None, UNREADABLE} else None
        if part is not None and after_number > part.after:
            # More was committed than the note allows for, so no unit can end as it says.
            part = None
        last, end = after_number, UNREADABLE if part is None else part.after
        loop = asyncio.get_running_loop()
        file = _RangedFile(self.store, self.item, loop)
        buffered = cast("BinaryIO", io.BufferedReader(file, READ_AHEAD))
        found = chunks(self.layout, buffered, self.item.key, after_number, BLOCK_BYTES)
        # A thread of its own, because it waits for the store, which may need a thread of the loop's few to answer.
        thread = ThreadPoolExecutor(1, "objects")
        try:
            while last < end and (chunk := await loop.run_in_executor(thread, next, found, None)) is not None:
                last = min(chunk[-1][0], end)
                if wanted := chunk if chunk[-1][0] <= end else [record for record in chunk if record[0] <= end]:
                    yield self._block(wanted)
        except Halted as error:
            # Whatever a decoder makes of it, the content is not to blame if it could not be fetched.
            problem = file.failure or error
            if part is not None or until is not None or self.note is None or not isinstance(problem, self.gives_up):
                raise problem from error
            item = self.item
            part = await self.note.write(UnreadPart(item.key, item.size, item.version, item.modified, last, str(problem)), after_number)
            if part.after != last:
                msg = f"another worker has given up {item.key} after record {part.after}, not {last}; it is read again up to there"
                raise Retryable(msg) from error
        finally:
            file.abandon()
            # After what the thread does now, it lets go of the process that reads for it.
            thread.submit(found.close)
            thread.shutdown(wait=False)
        if part is not None:
            yield replace(self._block([(UNREADABLE, msgspec.json.encode(part))]), outcome=Outcome.DEAD_LETTERED)

    def _block(self, chunk: Chunk) -> Block:
        frame = pl.DataFrame(
            {DATA: [body for _, body in chunk]},
            schema={DATA: pl.Binary()},
        ).select(
            pl.lit(self.modified).dt.cast_time_unit("ms").alias(ARRIVAL),
            pl.lit(self.item.key).alias(PARTITION_KEY),
            DATA,
        )
        return Block(pl.Series([number for number, _ in chunk], dtype=pl.UInt64), frame)


class _RangedFile(io.RawIOBase):
    """A file for blocking code in a thread: each read is a ranged read, on the event loop, of one version of the object."""

    def __init__(self, store: RangedStore, item: PinnedObject, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._store = store
        self._item = item
        self._loop = loop
        self._at = 0
        self._answer: Future[bytes] | None = None
        self._abandoned = False
        self.failure: StreamError | None = None
        """What kept a part of the object from being fetched."""

    def abandon(self) -> None:
        """Make the read that the thread waits for, and every further one, fail, since nobody waits for the thread any more."""
        self._abandoned = True
        if self._answer is not None:
            self._answer.cancel()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._item.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._item.size)
        if end <= self._at:
            return 0
        if self._abandoned:
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        self._answer = answer = asyncio.run_coroutine_threadsafe(self._range(self._at, end), self._loop)
        if self._abandoned:
            answer.cancel()
        try:
            body = answer.result()
        except StreamError as error:
            self.failure = error
            raise
        buffer[: len(body)] = body
        self._at += len(body)
        return len(body)

    async def _range(self, start: int, end: int) -> bytes:
        body = await self._store.read_range(self._item.key, start, end, self._item.version)
        if body is None and await self._store.stat(self._item.key) is None:
            what = f"the object {self._item.key} under {self._store.url} ({self._item.size} bytes, modified {self._item.modified})"
            msg = f"{what} was deleted after it was chosen. Put that version back, or start over in another --namespace."
            raise Gone(msg)
        if body is None:
            msg = (
                f"the object {self._item.key} under {self._store.url} is not the one that was listed ({self._item.size} bytes, modified "
                f"{self._item.modified}): it was changed since. Put that version back, or start over in another --namespace."
            )
            raise Changed(msg)
        if len(body) != end - start:
            msg = f"{self._store.url} returned {len(body)} of {end - start} bytes of {self._item.key}"
            raise Retryable(msg)
        return body
