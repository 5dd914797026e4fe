"""Reads the records of a chain from the source again, to compare them with what was committed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from stream.audit.source import Reread
from stream.batch import ORIGIN, SEQUENCE, SUBSEQUENCE
from stream.commit.log import CommitLog
from stream.commit.lookup import starts_of
from stream.commit.manifest import Kind, unpinned
from stream.contracts import LendingSource, Shard, Start, StartKind
from stream.errors import Halted
from stream.source.bounded import BoundedSource, place_of
from stream.source.unreadable import UNREADABLE
from stream.worker.objects.slices import ClaimedSource


async def records_again(
    source: LendingSource, log: CommitLog, shard: Shard, generation: int, pinned: Start, until: int, *, to_its_end: bool = False
) -> AsyncIterator[Reread]:
    """The records of ``shard`` as ``generation`` of its chain in ``log`` has read them, up to ``until``, or ``to_its_end``.

    ``pinned``: where the stream starts. If some of the records cannot be read any more, the others are.

    Raises:
        Halted: some records could not be read; raised after the others.
    """
    start, position = await _start_of(log, shard, pinned), ORIGIN
    ends: list[int | None] = [None if to_its_end else until]
    if isinstance(source, ClaimedSource | BoundedSource):
        shard = replace(shard, generation=generation)
        # How an object that could not be read is read again depends on where the range ends.
        starts = [each async for each in starts_of(log.store, shard.stream, shard.chain)]
        position = starts[0] if starts else ORIGIN
        ends = [*(each for each in starts if place_of(each)[1] == UNREADABLE and position < each < until), until]
    lost: Halted | None = None
    for end in ends:
        try:
            async with aclosing(source.read(shard, position, start, end)) as pages:  # type: ignore[type-var]
                async for page in pages:
                    yield Reread(page.batch.frame.select(SEQUENCE, SUBSEQUENCE), page.position)
                    source.budget.release(page.held)
        except Halted as error:
            # What follows is compared nevertheless.
            lost = lost or error
        position = end or until
    if lost is not None:
        raise lost


async def _start_of(log: CommitLog, shard: Shard, pinned: Start) -> Start:
    """Where the chain of ``shard`` starts. What another application left may lie before the start of this one."""
    try:
        genesis, first = await log.genesis(shard), await log.read(shard, ORIGIN)
    except Halted:
        # A damaged link is a finding of its own.
        return pinned
    if first is not None and first.manifest.kind is Kind.FOREIGN:
        return Start(StartKind.TRIM_HORIZON)
    recorded = None if genesis is None else genesis.manifest.start
    return pinned if recorded is None else unpinned(recorded)
