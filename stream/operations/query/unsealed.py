"""The records that follow the sealed part of a shard, read from the source, and the files that a worker would make of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import polars as pl

from stream.audit.chain import Bounds
from stream.batch import ORIGIN, SEQUENCE, Batch, SeqRange
from stream.commit.naming import SEQUENCE_DIGITS
from stream.contracts import Clock, LendingSource, OutputFile, Shard, Start, StartKind
from stream.errors import DefinitionError, Expired
from stream.operations.compaction.opening import MARGIN
from stream.operations.query.cuts import ShardCut
from stream.source.access import MOST_AHEAD
from stream.source.kinesis import KinesisSource
from stream.source.until import ReadUntil
from stream.worker.recipes.recipe import CutUnit, Recipe, render

_TRIGGER: Final = "query"
"""What the manifest of a unit says that is never committed."""


@dataclass(slots=True)
class Room:
    """Bytes that may be read, ``most`` of them."""

    most: int
    taken: int = 0

    def take(self, size: int) -> None:
        """Count ``size`` bytes.

        Raises:
            DefinitionError: they are too many.
        """
        self.taken += size
        if self.taken > self.most:
            msg = (
                f"more than {self.most:,} bytes of files and records would be read: ask for fewer with --since, or --from and --to, or "
                "raise --max-bytes, if there is memory for them"
            )
            raise DefinitionError(msg)


@dataclass(frozen=True, slots=True)
class MadeUnit:
    """The files of a unit that nobody has committed, made with ``recipe``; ``digest``: its name in the log, None if it is not there."""

    digest: str | None
    recipe: Recipe
    files: tuple[OutputFile, ...]


@dataclass(frozen=True, slots=True)
class Tail:
    """What follows the cut of one shard, up to ``position``. ``why``: what is not as it should be; empty if nothing is."""

    position: int
    records: int = 0
    units: tuple[MadeUnit, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class TailReader:
    """Reads what follows cuts. ``recipe`` gives that with a digest; for None the newest one, with its digest."""

    source: LendingSource
    recipe: Callable[[str | None], Awaitable[tuple[str | None, Recipe]]]
    bounds: Bounds
    room: Room
    clock: Clock

    async def read(self, cut: ShardCut, listed: Shard) -> Tail:
        """What follows ``cut`` in the shard that the source lists as ``listed``: everything that had arrived before this was called.

        Raises:
            DefinitionError: it is more than there is room for.
            Halted: a stage broke its contract, or a definition cannot be run here.
            Fatal: the stream is missing or may not be read.
        """
        batch, position, why = await self._records(cut, listed)
        made: list[MadeUnit] = []
        for wanted, unit in _units(cut, batch, position):
            digest, recipe = await self.recipe(wanted)
            rendered = await asyncio.to_thread(render, recipe, unit)
            made.append(MadeUnit(digest, recipe, rendered.unit.files))
        return Tail(position, batch.rows, tuple(made), why)

    def _up_to_now(self) -> LendingSource:
        """The source, up to what has arrived."""
        if not isinstance(self.source, KinesisSource):
            return self.source  # it pauses, or ends, by itself
        # Later than any record that has arrived, whatever the clocks say: reading ends where nothing follows.
        moment, end = self.clock.now() + MOST_AHEAD, self.bounds.end
        moment = moment if end is None else min(moment, end + MARGIN)
        return ReadUntil(self.source, moment, self.clock, end=False, name=self.source.stream)

    async def _records(self, cut: ShardCut, listed: Shard) -> tuple[Batch, int, str]:
        batches: list[Batch] = []
        after, start = self._beginning(cut)
        position, why, complete_until, source = cut.after, "", cut.complete_until, self._up_to_now()
        while True:
            try:
                async with aclosing(source.read(listed, after, start, complete_until=complete_until)) as pages:  # type: ignore[type-var]
                    async for page in pages:
                        self.source.budget.release(page.held)
                        batch = _after(page.batch, position)
                        self.room.take(batch.payload_bytes)
                        batches.append(batch)
                        position = max(position, page.position)
                        if page.ended or page.paused:
                            break
            except Expired as error:
                if why and error.resume is None:
                    return Batch.concat(batches), position, why
                # As a worker does that records a gap: reading continues with the oldest record that is left.
                why = f"records after {position} may be gone, and no gap is recorded yet: {error}"
                after, start = (ORIGIN, Start(StartKind.TRIM_HORIZON)) if error.resume is None else (error.resume, start)
                position, complete_until = max(position, error.resume or ORIGIN), None
            else:
                return Batch.concat(batches), position, why

    def _beginning(self, cut: ShardCut) -> tuple[int, Start]:
        """Where to read from: after the cut, or, if that is long before the bounds, a little before those."""
        begin = self.bounds.begin
        late = (
            begin is not None and cut.sealed_to is not None and cut.sealed_to < begin - 2 * MARGIN and begin < self.clock.now() - MOST_AHEAD
        )
        if begin is None or not late or not isinstance(self.source, KinesisSource):
            return cut.after, cut.start
        return ORIGIN, Start(StartKind.AT_TIMESTAMP, begin - MARGIN)


def _after(batch: Batch, position: int) -> Batch:
    """The records of ``batch`` whose sequence numbers are greater than ``position``."""
    return _part(batch, pl.col(SEQUENCE).str.zfill(SEQUENCE_DIGITS) > f"{position:0{SEQUENCE_DIGITS}d}")


def _part(batch: Batch, chosen: pl.Expr) -> Batch:
    kept = batch.frame.select(chosen).to_series()
    if kept.all():
        return batch
    return Batch.of(batch.frame.filter(kept), None if batch.first_read is None else batch.first_read.filter(kept))


def _units(cut: ShardCut, batch: Batch, position: int) -> Iterator[tuple[str | None, CutUnit]]:
    """The records as units, each with the digest of its definition: what a worker has begun keeps that with which it was begun."""
    after, foreign = cut.after, cut.foreign_subsequence
    begun = cut.begun
    if begun is not None and begun.last is not None and begun.last > after:
        first = _part(batch, pl.col(SEQUENCE).str.zfill(SEQUENCE_DIGITS) <= f"{begun.last:0{SEQUENCE_DIGITS}d}")
        if first.rows:
            yield begun.pipeline, CutUnit(cut.shard, SeqRange(after, begun.last), (first,), _TRIGGER, foreign)
            foreign = -1
        after, batch = begun.last, _after(batch, begun.last)
    if batch.rows:
        yield None, CutUnit(cut.shard, SeqRange(after, position), (batch,), _TRIGGER, foreign)
