"""Sources that end: records are in pieces (objects, files of dead letters) whose order and content are pinned before reading begins.

A record's sequence number is made from its position, so that it is the same whenever the record is read: record ``r`` (from 1) of piece
``p`` (from 1) of a shard has the number ``p * 10**12 + r``. Numbers ascend in reading order, as in a stream, so ranges, units, ledger and
checkpoints work unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import polars as pl

from stream.batch import OUTCOME, SEQUENCE, SUBSEQUENCE, Batch, Outcome
from stream.budget import ByteBudget
from stream.contracts import Clock, Emit, Page, Shard, Start
from stream.events import PageReceived, PartOpened
from stream.source.memory import BudgetShare

ROWS_PER_PIECE: Final = 10**12
"""The most records that one piece may have: more than the lines that an object of 5 TB can hold."""

BLOCK_BYTES: Final = 2 * 2**20
"""Record bytes in one block, about as many as GetRecords returns; held in the byte budget."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some records of a piece, in order.

    ``numbers`` (UInt64): which records of the piece, ascending from 1. ``frame`` has ``RAW_SCHEMA`` without ``_sequence``,
    ``_subsequence`` and ``_outcome``. ``first_read`` as in ``Batch``. ``outcome``: of all of them, if the source settles them itself.
    """

    numbers: pl.Series
    frame: pl.DataFrame
    first_read: pl.DataFrame | None = None
    outcome: Outcome = Outcome.PENDING


class Piece(Protocol):
    """A part of a bounded source that is read from beginning to end."""

    def blocks(self, after_number: int, until: int | None = None) -> AsyncIterator[Block]:
        """Blocks of about ``BLOCK_BYTES`` with the records whose number is greater than ``after_number``.

        ``until``: the last record of the piece in the range that is read again, or a larger number if the range goes on beyond the piece;
        there may be records after it. None if reading goes on.

        Raises:
            Halted: what was pinned no longer exists, or cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One shard of a bounded source: its pieces in reading order, at least one."""

    shard_id: str
    pieces: Sequence[Piece]


def sequence_of(piece: int, number: int) -> int:
    """The sequence number of record ``number`` (from 1) of piece ``piece`` (from 1)."""
    return piece * ROWS_PER_PIECE + number


def place_of(sequence: int) -> tuple[int, int]:
    """Piece and record number, both from 1, of a sequence number; ``(0, 0)`` for the position before the first record."""
    return divmod(sequence, ROWS_PER_PIECE)


class BoundedSource:
    """``contracts.Source`` over parts that are known in advance. Every shard ends, and none has children."""

    def __init__(self, stream: str, parts: Sequence[Part], *, budget: ByteBudget, clock: Clock, emit: Emit) -> None:
        self.stream = stream
        self.budget = budget
        self._parts = {part.shard_id: part for part in parts}
        self._emit = emit
        self._pages = Pages(budget, clock, emit)

    async def shards(self) -> list[Shard]:
        """All parts, ordered by id."""
        return [Shard(self.stream, name) for name in sorted(self._parts)]

    async def read(
        self,
        shard: Shard,
        after: int,
        start: Start,  # noqa: ARG002 - a bounded source begins at its beginning
        until: int | None = None,
        complete_until: datetime | None = None,  # noqa: ARG002 - nothing expires here
    ) -> AsyncIterator[Page]:
        """Pages of ``shard``, as ``contracts.Source.read`` promises."""
        pieces, position = self._parts[shard.shard_id].pieces, after
        piece, after_number = max(1, place_of(after)[0]), place_of(after)[1]
        if until is None:
            self._emit(PartOpened(shard.stream, shard.shard_id, len(pieces)))
        while piece <= len(pieces) and (until is None or position < until):
            async with aclosing(self._pages.of(shard, piece, pieces[piece - 1], after_number, until)) as pages:  # type: ignore[type-var]
                async for page in pages:
                    position = page.position
                    yield page
            piece, after_number = piece + 1, 0
        if until is None:
            yield Page(Batch.empty(), position, 0, 0, ended=True)


class Pages:
    """Reads pieces page by page; each page holds bytes of ``budget``."""

    def __init__(self, budget: ByteBudget, clock: Clock, emit: Emit) -> None:
        self.budget = budget
        self._clock = clock
        self._emit = emit

    async def of(
        self, shard: Shard, number: int, piece: Piece, after_number: int, until: int | None, since: datetime | None = None
    ) -> AsyncIterator[Page]:
        """Pages of ``piece``, the one with that number in ``shard``, after its record ``after_number``, and up to position ``until``.

        ``since``: when the piece arrived, for the delay that pages show; without it, they show none.
        """
        share = BudgetShare(self.budget, shard, self._clock, self._emit)
        position = -1
        last = None if until is None else until - number * ROWS_PER_PIECE
        async with aclosing(piece.blocks(after_number, last)) as blocks:  # type: ignore[type-var]
            while until is None or position < until:
                page = await self._page(share, shard, number, blocks, until, since)
                if page is None:
                    return
                position = page.position
                yield page

    async def _page(
        self, share: BudgetShare, shard: Shard, piece: int, blocks: AsyncIterator[Block], until: int | None, since: datetime | None
    ) -> Page | None:
        with await share.reserve(BLOCK_BYTES) as reservation:
            started = self._clock.monotonic()
            block = await anext(blocks, None)
            if block is None:
                return None
            batch = _batch(piece, block)
            position = int(batch.frame[SEQUENCE][-1])
            if until is not None and position > until:
                batch, position = _up_to(batch, block.numbers <= until - piece * ROWS_PER_PIECE), until
            reservation.settle(max(batch.payload_bytes, int(batch.frame.estimated_size())))
            seconds = self._clock.monotonic() - started
            behind = 0 if since is None else max(0, int((self._clock.now() - since).total_seconds() * 1000))
            self._emit(PageReceived(shard.stream, shard.shard_id, batch.rows, batch.rows, batch.payload_bytes, behind, seconds))
            return Page(batch, position, behind, reservation.hand_on(), closes=block.outcome is not Outcome.PENDING)


def _batch(piece: int, block: Block) -> Batch:
    # As text, since a shard that grows for years has more pieces than UInt64 has room for.
    digits = block.numbers.cast(pl.String).str.zfill(len(str(ROWS_PER_PIECE)) - 1)
    frame = block.frame.select(
        (pl.lit(str(piece)) + digits).alias(SEQUENCE),
        pl.lit(0, pl.UInt32).alias(SUBSEQUENCE),
        *(pl.col(name) for name in block.frame.columns),
        pl.lit(int(block.outcome), pl.UInt8).alias(OUTCOME),
    )
    return Batch.of(frame, block.first_read)


def _up_to(batch: Batch, keep: pl.Series) -> Batch:
    frame = batch.frame.filter(keep)
    first = None if batch.first_read is None else batch.first_read.filter(keep)
    return Batch.of(frame, first)
