"""Dead letters as a source: chosen rows of rejects files, read again as the original records.

A letter that stands for the unreadable part of an object is not such a record: that part of the object is read again in its place.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import msgspec
import polars as pl

from stream.batch import ARRIVAL, ATTEMPT, DATA, FIRST_READ, PARTITION_KEY, SEQUENCE, SHARD, SUBSEQUENCE
from stream.contracts import ObjectStore
from stream.errors import Halted
from stream.source.bounded import BLOCK_BYTES, Block, Part, place_of, sequence_of
from stream.source.objects import ObjectPiece, PinnedObject
from stream.source.unreadable import UnreadPart

SLICE_ROWS: Final = 10_000


class ChosenRows(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rows of one rejects file; ``key`` holds a digest of the file's content, ``runs`` are ``[from, to)``, ascending.

    ``is_object``: it is one row, which stands for the unreadable part of an object.
    """

    key: str
    runs: tuple[tuple[int, int], ...]
    is_object: bool = False

    @property
    def rows(self) -> list[int]:
        """The rows, one by one."""
        return [row for begin, end in self.runs for row in range(begin, end)]


def runs_of(rows: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """``rows``, which ascend, as runs ``[from, to)``."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and runs[-1][1] == row:
            runs[-1] = (runs[-1][0], row + 1)
        else:
            runs.append((row, row + 1))
    return tuple(runs)


def shard_name(number: int) -> str:
    """The id of the shard that stands for redrive ``number``."""
    return f"redrive-{number:06d}"


OpenObject: TypeAlias = Callable[[PinnedObject, str, int], ObjectPiece]
"""Opens an object as the pipeline reads it now, as the piece of that number of the redrive with that shard id."""


def part_of(number: int, files: Sequence[ChosenRows], store: ObjectStore, open_object: OpenObject | None) -> Part:
    """The redrive with that number, as a shard; ``store`` holds the rejects files. ``open_object``: None if there are no objects."""
    name = shard_name(number)

    def open_as(piece: int) -> Callable[[PinnedObject], ObjectPiece] | None:
        return None if open_object is None else lambda item: open_object(item, name, piece)

    pieces = [
        ObjectLetterPiece(store, each, open_as(at)) if each.is_object else DeadLetterPiece(store, each) for at, each in enumerate(files, 1)
    ]
    return Part(name, pieces)


@dataclass(frozen=True, slots=True)
class DeadLetterPiece:
    """Chosen rows of one file; see ``bounded.Piece``. Record numbers count the chosen rows."""

    store: ObjectStore
    chosen: ChosenRows

    async def blocks(self, after_number: int, until: int | None = None) -> AsyncIterator[Block]:  # noqa: ARG002 - it is the same for all
        """See ``bounded.Piece``."""
        frame = (await read_dead_letters(self.store, self.chosen.key))[self.chosen.rows]
        height = max(1, min(SLICE_ROWS, frame.height * BLOCK_BYTES // max(1, int(frame.estimated_size()))))
        for begin in range(after_number, frame.height, height):
            part = frame.slice(begin, height)
            numbers = pl.int_range(begin + 1, begin + 1 + part.height, dtype=pl.UInt64, eager=True)
            first = part.select(FIRST_READ.names()).match_to_schema(FIRST_READ)
            yield Block(numbers, part.select(ARRIVAL, PARTITION_KEY, DATA), first)


@dataclass(frozen=True, slots=True)
class ObjectLetterPiece:
    """The part of an object for which one letter stands; see ``bounded.Piece``.

    Records have their numbers in the object, and the lineage that they would have got when it was read first. If the object still cannot
    be read, or is another one or gone by now, what is left of it becomes one dead letter again.
    """

    store: ObjectStore
    chosen: ChosenRows
    open_object: Callable[[PinnedObject], ObjectPiece] | None

    async def blocks(self, after_number: int, until: int | None = None) -> AsyncIterator[Block]:
        """See ``bounded.Piece``.

        Raises:
            Halted: the pipeline reads no objects any more.
        """
        letter = (await read_dead_letters(self.store, self.chosen.key))[self.chosen.rows]
        if self.open_object is None:
            msg = (
                f"a dead letter of {self.chosen.key} stands for an object, and this pipeline reads none: put back `source.s3` as it was, "
                "and the object is read again"
            )
            raise Halted(msg)
        part = msgspec.json.decode(letter[DATA][0], type=UnreadPart)
        piece = self.open_object(PinnedObject(part.key, part.size, part.version, part.modified))
        begun = place_of(int(letter[SEQUENCE][0]))[0]
        async with aclosing(piece.blocks(max(after_number, part.after), until)) as blocks:  # type: ignore[type-var]
            async for block in blocks:
                yield _first_read(block, letter, begun)


def _first_read(block: Block, letter: pl.DataFrame, piece: int) -> Block:
    """``block`` with the lineage of the object's records: it was the one with the number ``piece`` of the letter's shard."""
    first = pl.select(
        pl.lit(letter[SHARD][0]).alias(SHARD),
        pl.Series(SEQUENCE, [str(sequence_of(piece, number)) for number in block.numbers]),
        pl.lit(0, pl.UInt32).alias(SUBSEQUENCE),
        pl.lit(letter[ATTEMPT][0], pl.UInt16).alias(ATTEMPT),
    ).match_to_schema(FIRST_READ)
    return replace(block, first_read=first)


async def read_dead_letters(store: ObjectStore, key: str, *, contents: bool = True) -> pl.DataFrame:
    """The rejects file at ``key``, with the columns of ``sink.rejects.SCHEMA``; without ``contents`` the records' bytes are null.

    Raises:
        Halted: it is gone, or its bytes do not match its name.
    """
    stored = await store.get(key)
    if stored is None or hashlib.sha256(stored.body).hexdigest()[:16] != key.split(".")[-2]:
        what = "missing" if stored is None else "not the one that its name describes: it was edited"
        msg = f"the file of dead letters {key} under {store.url} is {what}. Restore it; nothing in it is redriven until then."
        raise Halted(msg)
    frame = pl.read_parquet(io.BytesIO(stored.body), hive_partitioning=False)
    if not contents:
        frame = frame.with_columns(pl.lit(None, pl.Binary).alias(DATA))
    return frame if ATTEMPT in frame.columns else frame.with_columns(pl.lit(1, pl.UInt16).alias(ATTEMPT))
