"""Objects that arrive for as long as a worker is up: a fixed number of shards, to each of which claims append objects.

Records are numbered as in ``bounded``: the p-th object that was ever appended to a shard is its piece ``p``. A shard never ends. Once an
object has been read to its end, the position is before the first record of the next one, so that the log says which objects are finished.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from stream.batch import DATA, Batch
from stream.budget import ByteBudget
from stream.contracts import Clock, Emit, ObjectStore, Page, Shard, Start
from stream.errors import Expired, Halted
from stream.events import ObjectRefused, ObjectsUnread, PageReceived
from stream.source.bounded import Pages, place_of, sequence_of
from stream.source.object_formats import Unreadable
from stream.source.objects import Gone, ObjectPiece
from stream.source.unreadable import UNREADABLE, ShardNotes, notes_of

IDLE_SECONDS: Final = 1.0
"""Seconds between two pages of a shard in which there is nothing to read."""

_PREFIX: Final = "watch-"
_SHOWN: Final = 3


def growing_shard(number: int) -> str:
    """The id of the shard with that number, from 1."""
    return f"{_PREFIX}{number:04d}"


def number_of(shard_id: str) -> int:
    """The number of the growing shard with that id."""
    return int(shard_id.removeprefix(_PREFIX))


def first_unfinished(position: int) -> int:
    """The number of the first object that, at ``position`` of its shard, is not known to have been read to its end."""
    piece, number = place_of(position)
    return max(1, piece + (number >= UNREADABLE))


def is_growing(shard_id: str) -> bool:
    """Whether a shard of that id is one of those to which claims append."""
    return shard_id.startswith(_PREFIX)


class Appended(Protocol):
    """What has been appended so far."""

    def shards(self) -> int:
        """The number of shards; never falls."""
        ...

    def end(self, shard: int) -> int:
        """How many objects have been appended to ``shard`` (from 1)."""
        ...

    async def pieces(self, shard: int, piece: int) -> Sequence[ObjectPiece]:
        """Pieces of ``shard`` (from 1), beginning with number ``piece`` (from 1); empty if that one has not been appended yet."""
        ...

    async def wait(self, seconds: float) -> None:
        """Return once something is appended, or after ``seconds``."""
        ...

    async def follow(self) -> None:
        """Learn what other workers have appended."""
        ...


@dataclass(frozen=True, slots=True)
class GrowingReads:
    """How shards that grow are read.

    ``once``: a shard pauses where nothing more has been appended; otherwise reading waits there. ``past_deleted``: what is gone is left out
    when a range is read again, and named in an error at its end; this is for checking, not for committing. ``gives_up``: an object whose
    content cannot be read becomes a dead letter; otherwise its shard halts.
    """

    once: bool
    past_deleted: bool = False
    gives_up: bool = False


class GrowingSource:
    """``contracts.Source`` over shards that grow. ``state`` has the notes of objects that could not be read."""

    def __init__(
        self, stream: str, appended: Appended, state: ObjectStore, reads: GrowingReads, budget: ByteBudget, clock: Clock, emit: Emit
    ) -> None:
        self.stream = stream
        self.budget = budget
        self._appended = appended
        self._clock = clock
        self._emit = emit
        self._state = state
        self._reads = reads
        self._pages = Pages(budget, clock, emit)

    async def shards(self) -> list[Shard]:
        """All shards, ordered by id; they are never closed."""
        return [Shard(self.stream, growing_shard(number)) for number in range(1, self._appended.shards() + 1)]

    async def read(
        self,
        shard: Shard,
        after: int,
        start: Start,  # noqa: ARG002 - each shard begins at its first object
        until: int | None = None,
        complete_until: datetime | None = None,  # noqa: ARG002 - whether an object is gone shows when it is read
    ) -> AsyncIterator[Page]:
        """Pages of ``shard``, as ``contracts.Source.read`` promises.

        Raises:
            Expired: an object was deleted before all of it was read; ``resume`` is the position after it.
            Halted: an object has changed since it was chosen, or cannot be read and is not given up; or one is gone of a range that is read
                again.
        """
        number, position = number_of(shard.shard_id), after
        piece = first_unfinished(after)
        after_number = place_of(after)[1] if place_of(after)[0] == piece else 0
        deleted: list[str] = []
        notes = await notes_of(self._state, shard.stream, shard.chain, piece)
        while until is None or position < until:
            some = await self._pieces_from(number, piece, until)
            self._report_unread(shard, number, piece, until)
            for each in some:
                async with aclosing(self._of(shard, piece, each, after_number, until, deleted, notes)) as pages:  # type: ignore[type-var]
                    async for page in pages:
                        position = page.position
                        if until is None:
                            self._tell_given_up(shard, page)
                        yield page
                piece, after_number = piece + 1, 0
                self._report_unread(shard, number, piece, until)
                if until is not None and position >= until:
                    break
            if some:
                continue
            if until is not None:
                break
            self._emit(PageReceived(shard.stream, shard.shard_id, 0, 0, 0, 0, 0.0))
            yield Page(Batch.empty(), position, 0, 0, paused=self._reads.once)
            if self._reads.once:
                return
            await self._appended.wait(IDLE_SECONDS)
        if deleted:
            more = f" and {len(deleted) - _SHOWN:,} more" if len(deleted) > _SHOWN else ""
            msg = f"{len(deleted):,} object(s) have been deleted since they were read: {', '.join(deleted[:_SHOWN])}{more}"
            raise Halted(msg)

    async def _pieces_from(self, number: int, piece: int, until: int | None) -> Sequence[ObjectPiece]:
        some = await self._appended.pieces(number, piece)
        if some or until is None:
            return some
        # Another worker may have begun this range with objects of which this one has not heard yet.
        await self._appended.follow()
        return await self._appended.pieces(number, piece)

    def _report_unread(self, shard: Shard, number: int, piece: int, until: int | None) -> None:
        if until is None:
            self._emit(ObjectsUnread(shard.stream, shard.shard_id, max(0, self._appended.end(number) - piece + 1)))

    def _tell_given_up(self, shard: Shard, page: Page) -> None:
        if place_of(page.position)[1] == UNREADABLE:
            why = str(page.batch.frame[DATA][-1], "utf-8", "replace")
            self._emit(ObjectRefused(shard.stream, shard.shard_id, "content", f"an object became a dead letter: {why}"))

    async def _of(
        self, shard: Shard, piece: int, each: ObjectPiece, after_number: int, until: int | None, deleted: list[str], notes: ShardNotes
    ) -> AsyncIterator[Page]:
        """Pages of one object, the last of which ends before the next object.

        Of one that is gone, the key goes into ``deleted``, if what is deleted is to be left out.
        """
        each = replace(each, note=notes.of(piece), gives_up=(Unreadable,) if self._reads.gives_up else ())
        position = 0
        try:
            async with aclosing(self._pages.of(shard, piece, each, after_number, until, each.modified)) as pages:  # type: ignore[type-var]
                async for page in pages:
                    position = page.position
                    yield page
        except Gone as error:
            if until is None:
                msg = f"{shard.stream}/{shard.shard_id}: object {piece} of the shard was deleted before all of it was read: {error}"
                raise Expired(msg, resume=sequence_of(piece + 1, 0)) from error
            if not self._reads.past_deleted:
                raise
            deleted.append(each.item.key)
        if place_of(position)[1] < UNREADABLE and (until is None or until >= sequence_of(piece + 1, 0)):
            yield Page(Batch.empty(), sequence_of(piece + 1, 0), 0, 0)
