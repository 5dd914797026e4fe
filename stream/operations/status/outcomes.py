"""The results of sealed units: dead letters and gaps of the last hour, rows that wait for a table, spans that wait for export."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import polars as pl
from polars.exceptions import PolarsError

from stream.audit.export import stored_cursor
from stream.batch import ORIGIN
from stream.commit.log import CommitLog
from stream.commit.lookup import last_starts
from stream.commit.manifest import Kind, Manifest
from stream.concurrency import run_concurrently
from stream.contracts import ObjectStore, Shard, shard_of_chain
from stream.operations.progress.completeness import Tail
from stream.operations.status.definitions import read_definitions
from stream.operations.status.snapshot import DeadLetters, Exported, Parked, TableStatus
from stream.sink import rejects
from stream.worker.halts.note import Halt
from stream.worker.halts.notes import read_halted_exports
from stream.worker.tables.parts import LoaderParts

AT_ONCE: Final = 16
"""Shards that are examined at a time."""

HOUR: Final = timedelta(hours=1)
"""How far back dead letters and gaps are counted."""

UNITS: Final = 1_000
"""Most units that are read for dead letters at a time; with more shards than this, only the newest of each, which is read anyway."""

MOST_UNITS: Final = 60
"""Most units of one shard that are read for dead letters."""

FILES: Final = 20
FILE_BYTES: Final = 8 * 2**20
"""How many files of dead letters are opened for their causes, and how large one may be."""

LINKS: Final = 8
"""Most links that are read to find the first with rows for a table."""


class RecentUnits:
    """The units of one stream that were sealed within the last hour. Their manifests are read once.

    ``rejects``: the store of the files of dead letters.
    """

    def __init__(self, log: CommitLog, stream: str, rejects: ObjectStore) -> None:
        self._log = log
        self._stream = stream
        self._rejects = rejects
        self._known: dict[tuple[str, int], Manifest] = {}

    async def outcomes(self, tails: Mapping[str, Tail], asked_at: datetime) -> DeadLetters:
        """Their outcomes, according to the log up to ``tails``."""
        since = asked_at - HOUR
        recent = [tail for tail in tails.values() if tail.last is not None and _sealed_after(tail.last, since)]
        count = min(MOST_UNITS, UNITS // max(1, len(recent)))
        links: list[Manifest] = []

        async def one(tail: Tail) -> None:
            links.extend(await self._newest(tail, count, since))

        await run_concurrently([one(tail) for tail in recent], AT_ONCE)
        self._known = {(link.shard, int(link.after)): link for link in links}
        units = [link for link in links if link.kind is Kind.UNIT]
        gaps = [(shard_of_chain(link.shard)[0], moment) for link in links if _admits_loss(link) and (moment := _moment(link))]
        causes, files, of = await self._causes(units)
        return DeadLetters(
            since=since,
            units=len(units),
            records=sum(link.records for link in units),
            dead=sum(link.outcomes.get("dead_lettered", 0) for link in units),
            causes=causes,
            files=files,
            of=of,
            gaps=tuple(sorted(gaps, key=lambda gap: gap[1])),
            definitions=await read_definitions(self._log.store, units),
        )

    async def _newest(self, tail: Tail, count: int, since: datetime) -> list[Manifest]:
        """Up to ``count`` of the newest links of a chain that were sealed after ``since``; those that are known are not read again."""
        log, found = self._log, [tail.last] if tail.last is not None else []
        if count < 2 or not found:
            return found
        starts = await last_starts(log.store, self._stream, tail.shard.chain, count, tail.position)
        for start in reversed([start for start in starts if start < int(found[0].after)]):
            link = self._known.get((tail.shard.chain, start))
            if link is None:
                entry = await log.read(tail.shard, start)
                link = None if entry is None else entry.manifest
            if link is None or not _sealed_after(link, since):
                break
            found.append(link)
        return found

    async def _causes(self, units: Sequence[Manifest]) -> tuple[tuple[tuple[str, str, int], ...], int, int]:
        """Stages and reasons in the newest files of dead letters, how many files these are, and how many there are."""
        newest = sorted(units, key=lambda link: link.sealed_at, reverse=True)
        files = [file for link in newest for file in link.files if file.sink == rejects.NAME]
        opened = [file for file in files if file.size <= FILE_BYTES][:FILES]
        found: Counter[tuple[str, str]] = Counter()

        async def one(key: str) -> None:
            stored = await self._rejects.get(key)
            if stored is None:
                return
            try:
                table = await asyncio.to_thread(pl.read_parquet, io.BytesIO(stored.body), columns=["stage", "reason"])
            except PolarsError:
                return
            found.update((stage or "", reason or "") for stage, reason in table.iter_rows())

        await run_concurrently([one(file.key) for file in opened], AT_ONCE)
        return tuple((stage, reason, records) for (stage, reason), records in found.most_common()), len(opened), len(files)


async def read_table(table: LoaderParts, log: CommitLog, tails: Mapping[str, Tail]) -> TableStatus:
    """How far ``table`` is loaded, given where the log ends; raises a ``StreamError`` if the table does not say."""
    positions, parked = await table.warehouse.positions(), await table.state.parked()
    since: list[datetime] = []

    async def one(tail: Tail) -> None:
        chain = Shard(table.stream, tail.shard.chain)
        position = positions.get(chain.shard_id, ORIGIN) or await log.chain_start(table.stream, chain.shard_id)
        for _ in range(LINKS):
            entry = await log.read(chain, position) if position < tail.position else None
            if entry is None or not entry.manifest.sealed or entry.manifest.last is None:
                return
            if await table.log.rows(entry.manifest):
                since.append(datetime.fromisoformat(entry.manifest.sealed_at))
                return
            position = entry.manifest.reach

    await run_concurrently([one(tail) for tail in tails.values()], AT_ONCE)
    reasons = tuple(Parked(shard, each.reason, each.since) for shard, each in sorted(parked.items()))
    return TableStatus(table.config.name, len(since), min(since, default=None), reasons)


async def read_exported(log: CommitLog, stream: str, tails: Mapping[str, Tail], *, blocking: bool = False) -> Exported:
    """How far spans are exported, given where the log ends, and which exports are halted; ``blocking`` as for ``Exported``."""
    since: list[datetime] = []
    notes, halted = await read_halted_exports(log.store, stream), dict[str, Halt]()

    async def one(name: str, tail: Tail) -> None:
        cursor = await stored_cursor(log.store, stream, name)
        shard = replace(tail.shard, generation=cursor.generation)
        if cursor.ended or (shard == tail.shard and int(cursor.position) >= tail.position):
            return
        position = int(cursor.position) or await log.chain_start(stream, shard.chain)
        entry = await log.read(shard, position)
        if entry is not None and entry.manifest.sealed and (moment := _moment(entry.manifest)) is not None:
            since.append(moment)
            # A worker that has gone on without removing its note has nothing left to export.
            halted.update({name: notes[name]} if name in notes else {})

    await run_concurrently([one(name, tail) for name, tail in tails.items()], AT_ONCE)
    return Exported(len(since), min(since, default=None), tuple(sorted(halted.items(), key=lambda pair: pair[1].since)), blocking)


def _moment(link: Manifest) -> datetime | None:
    """When the link was sealed; one that is sealed from the beginning, such as a shard's end, says only when it was created."""
    text = link.sealed_at or link.created_at
    return datetime.fromisoformat(text) if text else None


def _sealed_after(link: Manifest, since: datetime) -> bool:
    moment = _moment(link)
    return link.sealed and moment is not None and moment >= since


def _admits_loss(link: Manifest) -> bool:
    return link.kind is Kind.GAP or (link.kind is Kind.END and link.trigger == "expired")
