"""Finds one record: its unit in the log, its outcome in the ledger, and the record after each recorded stage."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import polars as pl

from stream.audit import ids
from stream.audit.chain import Link
from stream.audit.criteria import LEDGER_COLUMNS, Criterion, in_file, in_segment
from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import LedgerObject, Segment, read_segment
from stream.audit.objects import Area, unit_of, url_in
from stream.audit.trace import Fate, Place, RecordQuery, Row, fates, find, record_at
from stream.batch import ORIGIN, ROW, SEQUENCE, SUBSEQUENCE, Batch
from stream.commit.log import CommitLog
from stream.commit.lookup import last_starts, shards_of, unit_start
from stream.commit.naming import manifest_key
from stream.concurrency import run_concurrently
from stream.contracts import LendingSource, Shard, Start, StartKind, shard_of_chain
from stream.errors import DefinitionError, Halted
from stream.lease.checkpoints import StoredCheckpoints
from stream.pipeline.sensitive import Sensitive, hidden, sensitive_by_step, unreadable
from stream.sink.rejects import NAME as REJECTS
from stream.transform.engine import SOURCE, CompiledChain
from stream.transform.stage import StageConfig
from stream.worker.opening.compacted import CompactedFiles
from stream.worker.opening.links import link_of
from stream.worker.opening.separations import Separations
from stream.worker.recipes.recipe import Recipe

SEARCHED_AT_ONCE: Final = 8
"""Units whose files are fetched at a time in a search."""


@dataclass(frozen=True, slots=True)
class Step:
    """A record after one step of the chain: its rows as plain values, or the outcome and reason with which it ended there."""

    name: str
    rows: tuple[Mapping[str, Any], ...]
    ended: str = ""


@dataclass(slots=True)
class SearchExtent:
    """How much was searched."""

    units: int = 0
    files: int = 0
    files_with_column: int = 0


class Tracer:
    """Finds records of one stream in one application's log."""

    def __init__(self, log: CommitLog, stream: str, areas: Mapping[str, Area]) -> None:
        self._log = log
        self._checkpoints = StoredCheckpoints(log.store)
        self._stream = stream
        self._areas = areas
        self._separations = Separations(log.store)
        self._compacted = CompactedFiles(log.store, stream, None, {})

    async def find(self, wanted: RecordQuery) -> list[tuple[Link, Fate]]:
        """What became of the records that ``wanted`` names; empty if no sealed unit holds one.

        Searches every shard that could hold the number, by bisecting its log.
        """
        shards = [wanted.shard] if wanted.shard else [shard async for shard in shards_of(self._log.store, self._stream)]
        found = []
        for shard in shards:
            start = await unit_start(self._log.store, self._stream, shard, wanted.sequence)
            link = None if start is None else await self._link(shard, start)
            if link is not None and link.sealed and link.last is not None and link.last >= wanted.sequence:
                segment = await self._segment(link)
                found += await self._fates(find(segment, wanted), segment, link)
        return found

    async def find_row(self, url: str, row: int) -> list[tuple[Link, Fate]]:
        """The record whose rows include row ``row`` (from 0) of the file at ``url`` (or its key), which may be a compacted one.

        Raises:
            DefinitionError: ``url`` is not a file of this pipeline.
        """
        compacted = await self._compacted.origin(url, row)
        if compacted is not None:
            _, origin, row = compacted
            url = origin.key
        name = (origin.shard, int(origin.after)) if compacted is not None else unit_of(url, self._stream)
        link = await self._link(*name) if name is not None else None
        file = next((each for each in link.files if url in {each.key, self._url(link, each)}), None) if link is not None else None
        if link is None or file is None or not link.sealed or file.sink == LEDGER:
            if await self._compacted.is_output(url):
                return []
            self._refuse_foreign(url)
            if name is None:
                msg = f"{url} is not named as this service names files: [<stream>.]<shard>-<after>-<last>.<part>.<digest>.<extension>"
                raise DefinitionError(msg)
            return []
        segment = await self._segment(link)
        return await self._fates(record_at(segment, file.sink, file.key, row), segment, link)

    async def search(self, criterion: Criterion, units: int) -> tuple[list[tuple[Link, Fate]], SearchExtent]:
        """Records that match ``criterion`` in the newest ``units`` of each shard, newest unit first.

        Columns of the ledger find every record; columns of data files find written ones, since filtered records are in no file.

        Raises:
            DefinitionError: no file that was searched has the column.
        """
        found: dict[tuple[str, str, int], tuple[Link, Fate]] = {}
        searched = SearchExtent()
        for shard in [each async for each in shards_of(self._log.store, self._stream)]:
            near = await self._checkpoints.read(Shard(self._stream, shard))
            position = near.unit_after if near is not None else ORIGIN
            ended = near is not None and near.position is None  # then the last link is the shard's end
            starts = await last_starts(self._log.store, self._stream, shard, units + ended, max(ORIGIN, position))

            async def one(start: int, shard: str = shard) -> None:
                for link, fate in await self._search_unit(shard, start, criterion, searched):
                    found[fate.shard, fate.sequence, fate.subsequence] = link, fate

            await run_concurrently([one(start) for start in reversed(starts)], SEARCHED_AT_ONCE)
        if searched.files and not searched.files_with_column:
            msg = f"none of {searched.files} files has a column {criterion.column!r}; the ledger has {', '.join(LEDGER_COLUMNS)}"
            raise DefinitionError(msg)
        newest_first = sorted(found.items(), key=lambda item: (int(item[0][1]), item[0][2]), reverse=True)
        return [each for _, each in newest_first], searched

    async def _search_unit(self, shard: str, start: int, criterion: Criterion, searched: SearchExtent) -> list[tuple[Link, Fate]]:
        link = await self._link(shard, start)
        if link is None or not link.sealed or link.ledger is None:
            return []
        searched.units += 1
        if criterion.in_ledger:
            segment = await self._segment(link)
            return await self._fates(in_segment(segment, criterion), segment, link)
        hits: list[tuple[LedgerObject, list[int]]] = []
        for file in link.files:
            if file.sink in {LEDGER, REJECTS} or file.sink not in self._areas:
                continue
            stored = await self._areas[file.sink].store.get(file.key)
            form = await self._separations.of(link, file.sink, file.key)
            rows = None if stored is None or form is None else await asyncio.to_thread(in_file, file, stored.body, criterion, form)
            searched.files += 1
            searched.files_with_column += rows is not None
            if rows:
                hits.append((file, rows))
        if not hits:
            return []
        segment = await self._segment(link)
        rows_of = [record_at(segment, file.sink, file.key, row) for file, rows in hits for row in rows]
        return await self._fates(pl.concat(rows_of).unique("at", maintain_order=True), segment, link)

    def _url(self, link: Link, file: LedgerObject) -> str:
        return url_in(link, file.sink, file.key, self._areas)

    def _refuse_foreign(self, url: str) -> None:
        roots = [area.url_of("") for sink, area in self._areas.items() if sink != LEDGER]
        if not url.startswith(tuple(roots)) and ("://" in url or url.startswith(("file:", "/"))):
            msg = f"{url} is in none of this pipeline's targets: {', '.join(roots)}"
            raise DefinitionError(msg)

    async def _fates(self, rows: pl.DataFrame, segment: Segment, link: Link) -> list[tuple[Link, Fate]]:
        known = ids.hex_ids(rows, link.stream, link.shard, link.application)
        found = []
        for fate in fates(rows, segment, link, self._areas, known):
            places = [await self._with_compacted(place, link) for place in fate.places]
            found.append((link, msgspec.structs.replace(fate, places=tuple(places))))
        return found

    async def _with_compacted(self, place: Place, link: Link) -> Place:
        """``place``, and where its row is in the compacted dataset."""
        file = next((each for each in link.files if each.sink == place.sink and self._url(link, each) == place.url), None)
        there = None if file is None else await self._compacted.place(file.sink, link.shard, link.after, file.key)
        return place if there is None else msgspec.structs.replace(place, compacted=Row(there[0], there[1] + place.row))

    async def _link(self, shard: str, start: int) -> Link | None:
        key = manifest_key(self._stream, shard, start)
        stored = await self._log.store.get(key)
        return None if stored is None else link_of(key, stored.body, start)

    async def _segment(self, link: Link) -> Segment:
        return read_segment(await self._body(link, link.ledger))

    async def _body(self, link: Link, file: LedgerObject | None) -> bytes:
        stored = None if file is None else await self._areas[LEDGER].store.get(file.key)
        if stored is None:
            msg = f"the ledger of {link.shard} after {link.after} is missing; `stream audit verify` says what else is"
            raise Halted(msg)
        return stored.body


async def read_unit(source: LendingSource, link: Link) -> Batch:
    """The records of a unit, from the stream.

    Raises:
        Halted: the stream no longer holds them.
    """
    listed = {shard.shard_id: shard for shard in await source.shards()}
    name, generation = shard_of_chain(link.shard)
    shard = listed.get(name)
    if shard is None:
        msg = f"the stream no longer has the shard {link.shard}: its records were dropped by age and cannot be shown"
        raise Halted(msg)
    frames, shard = [], replace(shard, generation=generation)
    async with aclosing(source.read(shard, link.after, Start(StartKind.TRIM_HORIZON), link.last)) as pages:  # type: ignore[type-var]
        async for page in pages:
            frames.append(page.batch)
            source.budget.release(page.held)
    batch = Batch.concat(frames)
    if batch.rows != link.records:
        msg = (
            f"the stream holds {batch.rows} of the unit's {link.records} records: the others were dropped by age, so it cannot be run again"
        )
        raise Halted(msg)
    return batch


def replay(
    recipe: Recipe, stages: Sequence[StageConfig], sensitive: Sensitive | None, batch: Batch, link: Link, fate: Fate
) -> Sequence[Step]:
    """The record before decoding and after each of the ``stages`` of ``recipe``, obtained by running the whole unit again.

    What ``sensitive`` declares is hidden.

    Raises:
        DefinitionError: the recipe's chain cannot be run step by step.
    """
    chain = recipe.chain
    if not isinstance(chain, CompiledChain):
        msg = f"the definition {recipe.digest} was not compiled by this build's engine"
        raise DefinitionError(msg)
    is_it = (pl.col(SEQUENCE) == fate.sequence) & (pl.col(SUBSEQUENCE) == fate.subsequence)
    row = batch.frame.with_row_index(ROW).filter(is_it)[ROW]
    steps = []
    columns: dict[str, Collection[str]] = {SOURCE: (), **sensitive_by_step(sensitive, stages, chain)}
    hide = {name: unreadable(sensitive, each) for name, each in columns.items()}
    for name, _, after, settled, _ in chain.walk(batch, recipe.label(link.stream, shard_of_chain(link.shard)[0])):
        rows = after.filter(pl.col(ROW).is_in(row.implode())).drop(ROW)
        end = settled.filter(pl.col(ROW).is_in(row.implode()))
        ended = "" if end.is_empty() else f"{fate.outcome}: {end['reason'][0]}"
        if rows.height or ended:
            steps.append(Step(name, tuple(hidden(each, hide[name]) for each in rows.to_dicts()), ended))
    return steps
