"""Which objects could not be read to their ends: noted once, so that every later reader gets the same records.

What can be read of an object depends on the pipeline's options and on the build. So the first worker that gives an object up notes after
which record, before it commits anything of it. The note holds for every process that finishes the unit, verifies it, or reads the same
object. A unit that continues beyond the object has read it to its end, whatever a note says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from stream.contracts import ObjectStore, Stored
from stream.errors import Halted, Retryable
from stream.source.bounded import ROWS_PER_PIECE

UNREADABLE: Final = ROWS_PER_PIECE - 1
"""The number of the record that stands for the part of an object that cannot be read. No object has as many records, and it is the same
wherever reading begins."""


class UnreadPart(msgspec.Struct, frozen=True):
    """The content of that record: the object as it was chosen, ``after`` which record it could not be read, and ``why``."""

    key: str
    size: int
    version: str
    modified: str
    after: int
    why: str


@dataclass(frozen=True, slots=True)
class Note:
    """The place of the note of one object; ``may_exist`` says whether there can be one without anybody writing it now."""

    state: ObjectStore
    key: str
    may_exist: bool = True

    async def read(self) -> UnreadPart | None:
        """The note, if there is one."""
        return await self._read() if self.may_exist else None

    async def write(self, part: UnreadPart, committed: int = 0) -> UnreadPart:
        """Write the note unless there is one; returns the one that holds.

        ``committed``: up to which record of the object the log goes already. A note that allows for less was written by a worker that had
        lost the shard, and no unit can end as it says, so it is replaced.

        Raises:
            Retryable: another worker was faster, or the store did not say who was.
        """
        if await self.state.create(self.key, msgspec.json.encode(part)) is not None:
            return part
        stored = await self.state.get(self.key)
        if stored is None:
            msg = f"the note {self.key} under {self.state.url} was there and is gone"
            raise Retryable(msg)
        found = self._decoded(stored)
        if found.after >= committed:
            return found
        if await self.state.replace(self.key, msgspec.json.encode(part), stored.etag) is None:
            msg = f"the note {self.key} under {self.state.url} was replaced by another worker at the same time"
            raise Retryable(msg)
        return part

    async def _read(self) -> UnreadPart | None:
        stored = await self.state.get(self.key)
        return None if stored is None else self._decoded(stored)

    def _decoded(self, stored: Stored) -> UnreadPart:
        try:
            return msgspec.json.decode(stored.body, type=UnreadPart)
        except msgspec.MsgspecError as error:
            msg = f"the note {self.key} under {self.state.url} is not one that a worker wrote: restore it: {error}"
            raise Halted(msg) from error


class ShardNotes:
    """The notes of one shard: ``there`` are the keys of those that existed when they were listed."""

    def __init__(self, state: ObjectStore, folder: str, there: frozenset[str]) -> None:
        self._state = state
        self._folder = folder
        self._there = there

    def of(self, piece: int) -> Note:
        """The note of the object number ``piece`` of the shard."""
        key = _key(self._folder, piece)
        return Note(self._state, key, key in self._there)


def note_of(state: ObjectStore, chain: str, shard: str, piece: int) -> Note:
    """The note of one object, without knowing whether it exists."""
    return Note(state, _key(_folder(chain, shard), piece))


async def notes_of(state: ObjectStore, chain: str, shard: str, first: int) -> ShardNotes:
    """The notes of a shard, from its object number ``first`` on: one listing."""
    folder = _folder(chain, shard)
    there = frozenset([info.key async for info in state.list(folder, _key(folder, first - 1))])
    return ShardNotes(state, folder, there)


async def unreadable_notes(state: ObjectStore, chain: str) -> list[tuple[Note, datetime]]:
    """All notes of ``chain``, and when each was written."""
    return [(Note(state, info.key), info.modified) async for info in state.list(f"unreadable/{chain}/")]


def _folder(chain: str, shard: str) -> str:
    return f"unreadable/{chain}/{shard}/"


def _key(folder: str, piece: int) -> str:
    return f"{folder}{piece:015d}.json"
