"""Dead letters as a source: chosen rows of rejects files, read again as the original records."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import polars as pl

from stream.batch import ARRIVAL, ATTEMPT, DATA, FIRST_READ, PARTITION_KEY
from stream.contracts import ObjectStore
from stream.errors import Halted
from stream.source.bounded import BLOCK_BYTES, Block, Part

SLICE_ROWS: Final = 10_000


class ChosenRows(msgspec.Struct, frozen=True):
    """Rows of one rejects file; ``key`` holds a digest of the file's content, ``runs`` are ``[from, to)``, ascending."""

    key: str
    runs: tuple[tuple[int, int], ...]

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


def part_of(number: int, files: Sequence[ChosenRows], store: ObjectStore) -> Part:
    """The redrive with that number, as a shard; ``store`` holds the rejects files."""
    return Part(shard_name(number), [DeadLetterPiece(store, each) for each in files])


@dataclass(frozen=True, slots=True)
class DeadLetterPiece:
    """Chosen rows of one file; see ``bounded.Piece``. Record numbers count the chosen rows."""

    store: ObjectStore
    chosen: ChosenRows

    async def blocks(self, after_number: int) -> AsyncIterator[Block]:
        """See ``bounded.Piece``."""
        frame = (await read_dead_letters(self.store, self.chosen.key))[self.chosen.rows]
        height = max(1, min(SLICE_ROWS, frame.height * BLOCK_BYTES // max(1, int(frame.estimated_size()))))
        for begin in range(after_number, frame.height, height):
            part = frame.slice(begin, height)
            numbers = pl.int_range(begin + 1, begin + 1 + part.height, dtype=pl.UInt64, eager=True)
            first = part.select(FIRST_READ.names()).match_to_schema(FIRST_READ)
            yield Block(numbers, part.select(ARRIVAL, PARTITION_KEY, DATA), first)


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
