"""Looking one record up: its unit in the log, its fate in the ledger, and its way through the recorded stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import polars as pl

from stream.audit import ids
from stream.audit.chain import Link
from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import LedgerObject, Segment, read_segment
from stream.audit.objects import Area, unit_of
from stream.audit.trace import Fate, Wanted, fates, find, record_at
from stream.batch import ROW, SEQUENCE, SUBSEQUENCE, Batch
from stream.budget import Lending
from stream.commit.log import CommitLog
from stream.commit.lookup import shards_of, unit_start
from stream.commit.naming import manifest_key
from stream.contracts import Source, Start, StartKind
from stream.errors import DefinitionError, Halted
from stream.transform.engine import CompiledChain
from stream.worker.auditing import link_of
from stream.worker.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Step:
    """A record behind one step of the chain: its rows as plain values, or the outcome and reason with which it ended there."""

    name: str
    rows: tuple[Mapping[str, Any], ...]
    ended: str = ""


class Tracer:
    """Finds records of one stream in one application's log."""

    def __init__(self, log: CommitLog, stream: str, areas: Mapping[str, Area]) -> None:
        self._log = log
        self._stream = stream
        self._areas = areas

    async def find(self, wanted: Wanted) -> list[tuple[Link, Fate]]:
        """What became of the records that ``wanted`` names; empty if no sealed unit holds one.

        Every shard that could hold the number is asked, by bisecting its log.
        """
        shards = [wanted.shard] if wanted.shard else [shard async for shard in shards_of(self._log.store, self._stream)]
        found = []
        for shard in shards:
            start = await unit_start(self._log.store, self._stream, shard, wanted.sequence)
            link = None if start is None else await self._link(shard, start)
            if link is not None and link.sealed and link.last is not None and link.last >= wanted.sequence:
                segment = await self._segment(link)
                found += self._fates(find(segment, wanted), segment, link)
        return found

    async def find_row(self, url: str, row: int) -> list[tuple[Link, Fate]]:
        """The record whose rows include row ``row`` (from 0) of the file at ``url``, which may be a key inside a target.

        Raises:
            DefinitionError: ``url`` is no file of this pipeline.
        """
        sink, key = self._target(url)
        name = unit_of(key, self._stream)
        if name is None:
            msg = f"{url} has no name that this service gives; it is [<stream>.]<shard>-<after>-<last>.<part>.<digest>.<extension>"
            raise DefinitionError(msg)
        link = await self._link(*name)
        if link is None or not link.sealed or (sink, key) not in {(file.sink, file.key) for file in link.files}:
            return []
        segment = await self._segment(link)
        return self._fates(record_at(segment, sink, key, row), segment, link)

    def _target(self, url: str) -> tuple[str, str]:
        for sink, area in self._areas.items():
            root = area.url_of("")
            if sink != LEDGER and url.startswith(root):
                return sink, url.removeprefix(root)
        if "://" not in url and not url.startswith(("file:", "/")):
            return next(sink for sink in self._areas if sink != LEDGER), url
        known = ", ".join(area.url_of("") for sink, area in self._areas.items() if sink != LEDGER)
        msg = f"{url} lies in none of this pipeline's targets: {known}"
        raise DefinitionError(msg)

    def _fates(self, rows: pl.DataFrame, segment: Segment, link: Link) -> list[tuple[Link, Fate]]:
        known = ids.hex_ids(rows, link.stream, link.shard, link.application)
        return [(link, fate) for fate in fates(rows, segment, link, self._areas, known)]

    async def _link(self, shard: str, start: int) -> Link | None:
        key = manifest_key(self._stream, shard, start)
        stored = await self._log.store.get(key)
        return None if stored is None else link_of(key, stored.body, start)

    async def _segment(self, link: Link) -> Segment:
        return read_segment(await self._body(link, link.ledger))

    async def _body(self, link: Link, file: LedgerObject | None) -> bytes:
        stored = None if file is None else await self._areas[LEDGER].store.get(file.key)
        if stored is None:
            msg = f"the ledger of {link.shard} behind {link.after} is missing; `stream audit verify` says what else is"
            raise Halted(msg)
        return stored.body


async def read_unit(source: Source, link: Link) -> Batch:
    """The records of a unit, from the stream.

    Raises:
        Halted: the stream does not hold them any more.
    """
    listed = {shard.shard_id: shard for shard in await source.shards()}
    shard = listed.get(link.shard)
    if shard is None:
        msg = f"the stream has no shard {link.shard} any more: its records were dropped by age and cannot be shown"
        raise Halted(msg)
    frames = []
    async with aclosing(source.read(shard, link.after, Start(StartKind.TRIM_HORIZON), link.last)) as pages:  # type: ignore[type-var]
        async for page in pages:
            frames.append(page.batch)
            if isinstance(source, Lending):
                source.budget.release(page.held)
    batch = Batch.concat(frames)
    if batch.rows != link.records:
        msg = (
            f"the stream holds {batch.rows} of the unit's {link.records} records: the others were dropped by age, so it cannot be run again"
        )
        raise Halted(msg)
    return batch


def replay(recipe: Recipe, batch: Batch, link: Link, fate: Fate) -> Sequence[Step]:
    """The record before decoding and behind each stage, from running the whole unit again.

    Raises:
        DefinitionError: the recipe's chain cannot be walked step by step.
    """
    chain = recipe.chain
    if not isinstance(chain, CompiledChain):
        msg = f"the definition {recipe.digest} was not compiled by this build's engine"
        raise DefinitionError(msg)
    is_it = (pl.col(SEQUENCE) == fate.sequence) & (pl.col(SUBSEQUENCE) == fate.subsequence)
    row = batch.frame.with_row_index(ROW).filter(is_it)[ROW]
    steps = []
    for name, _, after, gone, _ in chain.walk(batch, recipe.label(link.stream, link.shard)):
        rows = after.filter(pl.col(ROW).is_in(row.implode())).drop(ROW)
        end = gone.filter(pl.col(ROW).is_in(row.implode()))
        ended = "" if end.is_empty() else f"{fate.outcome}: {end['reason'][0]}"
        if rows.height or ended:
            steps.append(Step(name, tuple(rows.to_dicts()), ended))
    return steps
