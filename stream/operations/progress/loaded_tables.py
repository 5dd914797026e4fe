"""Which sealed units are not loaded into a table yet, by the table's own account and the log."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from stream.audit.completeness import Loaded, Question
from stream.batch import ORIGIN
from stream.commit.log import CommitLog
from stream.commit.manifest import Manifest
from stream.concurrency import run_concurrently
from stream.contracts import Shard
from stream.errors import Halted, StreamError
from stream.worker.tables.parts import LoaderParts

AT_ONCE: Final = 16
"""Chains that are read at a time."""


async def loaded(table: LoaderParts, log: CommitLog, question: Question, *, ascending: bool = True) -> Loaded:
    """Sealed units with rows for ``table`` that may have arrived before the given time and are not loaded.

    ``ascending``: later units of a shard hold no older records.
    """
    sink = table.config.name
    try:
        positions, parked = await table.warehouse.positions(), await table.state.parked()
        chains = await table.log.shards()
    except StreamError as error:
        return Loaded(sink, why=str(error))
    waiting: dict[str, list[tuple[Manifest, int]]] = {}

    async def one(chain: str) -> None:
        waiting[chain] = await _waiting(log, Shard(table.stream, chain), positions.get(chain, ORIGIN), table, question, ascending=ascending)

    try:
        await run_concurrently([one(chain) for chain in chains], AT_ONCE)
    except Halted as error:
        return Loaded(sink, why=str(error))
    links = [link for chain in chains for link in waiting[chain]]
    arrivals = [datetime.fromisoformat(link.first_arrival) for link, _ in links if link.first_arrival]
    return Loaded(
        sink,
        units=len(links),
        rows=sum(rows for _, rows in links),
        oldest=min(arrivals) if links and len(arrivals) == len(links) else None,
        parked=tuple((chain, parked[chain].reason) for chain in chains if waiting[chain] and chain in parked),
    )


async def _waiting(
    log: CommitLog, shard: Shard, position: int, table: LoaderParts, question: Question, *, ascending: bool
) -> list[tuple[Manifest, int]]:
    """Sealed links of ``shard`` after ``position`` with rows for ``table``, and the number of these rows."""
    found: list[tuple[Manifest, int]] = []
    loaded_to = position = position or await log.chain_start(shard.stream, shard.shard_id)
    while (entry := await log.read(shard, position)) is not None and entry.manifest.sealed and entry.manifest.last is not None:
        link = entry.manifest
        late = bool(link.first_arrival) and datetime.fromisoformat(link.first_arrival) >= question.enough
        if late and ascending:
            break
        if not late and (rows := await table.log.rows(link)):
            found.append((link, rows))
        position = link.reach
    if entry is None and position == loaded_to:
        await table.log.confirm(shard.shard_id, position)
    return found
