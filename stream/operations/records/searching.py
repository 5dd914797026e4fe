"""Searches for records by values, wherever one can be found: in the log and its files, in tables, and in the source itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl

from stream.audit.chain import Bounds, Link
from stream.audit.criteria import LEDGER_COLUMNS, Criteria, Criterion
from stream.audit.trace import Fate, RecordQuery
from stream.batch import ARRIVAL, ORIGIN, PARTITION_KEY, SEQUENCE, SUBSEQUENCE, Outcome
from stream.commit.log import CommitLog
from stream.concurrency import run_concurrently
from stream.contracts import Clock, LendingSource, Shard, Start, StartKind
from stream.errors import DefinitionError, StreamError
from stream.operations.compaction.opening import MARGIN
from stream.operations.opening import open_source
from stream.operations.progress.stream_lookahead import CALLS_PER_SECOND
from stream.operations.records.originals import Originals, open_originals
from stream.operations.records.search_extent import MOST_FOUND, SearchExtent
from stream.operations.records.tracing import SEARCHED_AT_ONCE, Tracer
from stream.pipeline.model import Pipeline
from stream.sink.tables import TableSinkConfig
from stream.source.access import MOST_AHEAD
from stream.source.kinesis import KinesisSource
from stream.source.until import ReadUntil
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.recipes.definitions import Definitions
from stream.worker.tables.loaders import open_loader_parts
from stream.worker.tables.parts import LoaderParts

NAMED: Final = 5
"""Most records that a note names."""

SHARDS_AT_ONCE: Final = 16

Found = list[tuple[Link, Fate]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for, and where: in the newest ``units`` of each shard, or with ``bounds`` in all units that these touch.

    ``tables``: ask the tables that the pipeline loads, too. ``source``: read the source again, over ``bounds``.
    """

    criteria: Criteria
    units: int
    bounds: Bounds = Bounds()  # noqa: RUF009 - it is frozen
    tables: bool = True
    source: bool = False


@dataclass(slots=True)
class Searched:
    """How far one or several searches went. ``notes``: what a person should know."""

    extent: SearchExtent = field(default_factory=SearchExtent)
    notes: list[str] = field(default_factory=list)


class Search:
    """Searches one stream's own chain and those of its redrives and backfills, which ``tracers`` has by name, the own one first.

    ``env``: where the decoder's files may be named. Connections live as long as ``stack``.
    """

    def __init__(
        self, pipeline: Pipeline, base: Path, env: Mapping[str, str], clock: Clock, tracers: Mapping[str, Tracer], stack: AsyncExitStack
    ) -> None:
        self._pipeline = pipeline
        self._base = base
        self._env = env
        self._clock = clock
        self._tracers = tracers
        self._stack = stack
        self._stream = pipeline.source.kinesis.stream

    async def run(self, wanted: Wanted, searched: Searched) -> Found:
        """The records that match, each once, newest first; adds to ``searched`` how far the search went.

        Raises:
            DefinitionError: neither a file nor a table has one of the columns, nor do records when they arrive.
        """
        criteria, extent = wanted.criteria, SearchExtent()
        originals = await self._originals(wanted, searched) if criteria.values else None
        found: Found = []
        for tracer in self._tracers.values():
            some, went = await tracer.search(criteria, wanted.units, wanted.bounds, originals)
            found += some
            extent.add(went)
        may_be_in_tables = False
        if wanted.tables and criteria.values and PARTITION_KEY not in criteria.columns:
            records, may_be_in_tables = await self._in_tables(criteria, searched)
            found += await self._fates(records)
        if originals is not None and not may_be_in_tables and extent.files:
            _refuse_unknown([each for each in criteria.columns if not (originals.know([each]) or extent.columns[each])], extent, originals)
        if originals is not None and wanted.source:
            found += await self._in_source(wanted, originals, searched)
        found = [each for each in found if each[1].fits(criteria.ledger)]
        masked = frozenset(name for stage in self._pipeline.stages for name in stage.masked())
        searched.notes += _limits(wanted, extent, originals, masked)
        searched.extent.add(extent)
        once = {(link.stream, fate.shard, fate.sequence, fate.subsequence): (link, fate) for link, fate in found}
        return sorted(once.values(), key=lambda each: (int(each[1].sequence), each[1].subsequence), reverse=True)

    async def _originals(self, wanted: Wanted, searched: Searched) -> Originals | None:
        try:
            return await open_originals(self._pipeline, self._base, self._env, self._clock)
        except StreamError as error:
            if wanted.source:
                raise
            searched.notes.append(f"dead letters were not searched, since they cannot be decoded here: {error}")
            return None

    async def _fates(self, records: Sequence[RecordQuery]) -> Found:
        """What became of ``records``, of which each names its shard."""
        found: Found = []

        async def one(record: RecordQuery) -> None:
            for tracer in self._tracers.values():
                found.extend(await tracer.find_in(record.shard or "", record))

        await run_concurrently([one(each) for each in records], SEARCHED_AT_ONCE)
        return found

    async def _in_tables(self, criteria: Criteria, searched: Searched) -> tuple[list[RecordQuery], bool]:
        """The records that have rows with the values in tables, and whether one may have the columns."""
        records: dict[RecordQuery, None] = {}
        may_have_columns, values = False, {each.column: each.value for each in criteria.values}
        columns, these = ("columns", "values") if len(values) > 1 else ("column", "value")
        for table in await self._tables():
            name = table.config.table
            try:
                rows = await table.warehouse.records(values, MOST_FOUND)
            except StreamError as error:
                searched.notes.append(f"the table {name} could not be asked: {error}")
                may_have_columns = True
                continue
            if rows is None:
                searched.notes.append(
                    f"the table {name} cannot tell: it is not there, lacks the {columns} or the lineage, or does not compare such values"
                )
                continue
            may_have_columns = True
            merged = "; it has only the newest row of each key" if getattr(table.config, "keys", ()) else ""
            searched.notes.append(f"the table {name} has {len(rows)} records with the {these}{merged}")
            for label, sequence, subsequence in rows:
                stream, _, shard = label.rpartition("/")
                if stream in {"", self._stream}:
                    records[RecordQuery(int(sequence), subsequence, shard)] = None
        return list(records), may_have_columns

    async def _tables(self) -> Sequence[LoaderParts]:
        if not any(isinstance(config, TableSinkConfig) for config in self._pipeline.sinks):
            return ()
        session = session_of(self._pipeline)
        stores = Stores.open(self._pipeline, self._base, session)
        log = CommitLog(stores.state, self._pipeline.application, self._clock, "trace")
        definitions = Definitions(stores.state, self._base, self._env, self._clock)
        identity = ("trace", self._clock, lambda _: None)
        return await open_loader_parts(self._pipeline, self._stream, session, log, stores.targets, definitions, identity, self._stack)

    async def _in_source(self, wanted: Wanted, originals: Originals, searched: Searched) -> Found:
        source, oldest = await open_source(
            self._pipeline, self._base, self._clock, self._stack, self._stream, calls_per_second=CALLS_PER_SECOND
        )
        reading = SourceSearch(source, wanted.bounds, originals, wanted.criteria.values, self._clock)
        records = await reading.records()
        known = await self._fates(records)
        searched.notes += reading.notes(self._stream, oldest)
        decided = {(int(fate.sequence), fate.subsequence) for _, fate in known}
        if waiting := [each for each in records if (each.sequence, each.subsequence) not in decided]:
            names = ", ".join(f"{each.shard}:{each.sequence}:{each.subsequence}" for each in waiting[:NAMED])
            more = f" and {len(waiting) - NAMED} more" if len(waiting) > NAMED else ""
            searched.notes.append(f"in the stream, but in no sealed unit yet: {names}{more}")
        return known


@dataclass(slots=True)
class SourceSearch:
    """Reads the records of a source that arrived within ``bounds``, and compares each as it is when it arrives."""

    source: LendingSource
    bounds: Bounds
    originals: Originals
    criteria: Sequence[Criterion]
    clock: Clock
    read: int = 0
    size: int = 0
    shards: int = 0
    by_text: int = 0
    full: bool = False

    async def records(self) -> list[RecordQuery]:
        """The records that match; no more than ``MOST_FOUND``, and ``full`` says whether there may be others."""
        found: list[RecordQuery] = []

        async def one(shard: Shard) -> None:
            async with aclosing(self._shard(shard)) as here:  # type: ignore[type-var]
                async for each in here:
                    if len(found) >= MOST_FOUND:
                        self.full = True
                        return
                    found.append(each)

        listed = await self.source.shards()
        self.shards = len(listed)
        await run_concurrently([one(shard) for shard in listed], SHARDS_AT_ONCE)
        return found

    async def _shard(self, shard: Shard) -> AsyncIterator[RecordQuery]:
        begin, end = self.bounds.begin, self.bounds.end
        start = Start(StartKind.TRIM_HORIZON) if begin is None else Start(StartKind.AT_TIMESTAMP, min(begin, self.clock.now()) - MARGIN)
        reader = self.source
        if isinstance(self.source, KinesisSource):
            # Later than any record that has arrived, whatever the clocks say: reading ends where nothing follows.
            moment = self.clock.now() + MOST_AHEAD
            moment = moment if end is None else min(moment, end + MARGIN)
            reader = ReadUntil(self.source, moment, self.clock, end=False, name=self.source.stream)
        async with aclosing(reader.read(shard, ORIGIN, start)) as pages:  # type: ignore[type-var]
            async for page in pages:
                try:
                    frame = _inside(page.batch.frame, self.bounds)
                    self.read += frame.height
                    self.size += page.batch.payload_bytes
                    matching = await asyncio.to_thread(self.originals.matching, frame, self.criteria)
                finally:
                    self.source.budget.release(page.held)
                self.by_text += matching.by_text
                for row in matching.rows:
                    yield RecordQuery(int(frame[SEQUENCE][row]), frame[SUBSEQUENCE][row], shard.shard_id)
                if page.ended or page.paused:
                    return

    def notes(self, stream: str, oldest: datetime) -> list[str]:
        """What was read, and what could not be."""
        found = [f"{stream}: read {self.read:,} records ({self.size:,} bytes) of {self.shards} shards as they arrived"]
        if self.bounds.begin is not None and self.bounds.begin < oldest:
            found.append(
                f"{stream} does not keep records so long: those that arrived before {oldest.isoformat(timespec='seconds')} are gone"
            )
        if self.by_text:
            found.append(_by_text(self.by_text))
        if self.full:
            found.append(f"there are more than {MOST_FOUND:,} such records in {stream}: ask for a shorter time")
        return found


def _inside(frame: pl.DataFrame, bounds: Bounds) -> pl.DataFrame:
    if bounds.begin is not None:
        frame = frame.filter(pl.col(ARRIVAL) >= bounds.begin)
    return frame if bounds.end is None else frame.filter(pl.col(ARRIVAL) < bounds.end)


def _by_text(count: int) -> str:
    return f"records that cannot be decoded, and match by what stands in their bytes: {count}"


def _refuse_unknown(unknown: Sequence[str], extent: SearchExtent, originals: Originals) -> None:
    if unknown:
        columns = ", ".join((*originals.columns, PARTITION_KEY))
        msg = (
            f"none of {extent.files} files has a column {unknown[0]!r}, nor do records when they arrive ({columns}); the ledger "
            f"has {', '.join(LEDGER_COLUMNS)}"
        )
        raise DefinitionError(msg)


def _limits(wanted: Wanted, extent: SearchExtent, originals: Originals | None, masked: frozenset[str]) -> list[str]:
    """What the search in the log cannot know. ``masked``: columns whose values a stage hides."""
    found = []
    if wanted.source and not wanted.criteria.values:
        found.append("the source was not read: the ledger alone knows what a search by outcome, stage, reason or trace asks for")
    if originals is not None and not wanted.source:
        outcome = next((each.value for each in wanted.criteria.ledger if each.column == "outcome"), "")
        found += _unsearched(wanted.criteria.columns, extent, originals, masked, outcome)
    if extent.by_text:
        found.append(_by_text(extent.by_text))
    if extent.gone:
        found.append(f"{extent.gone} files were not searched: they are not there any more (loaded into a table, taken back, or expired)")
    if extent.left:
        found.append(f"more than {MOST_FOUND:,} such records: {extent.left} units were not searched to their ends; ask for a shorter time")
    return found


def _unsearched(
    columns: tuple[str, ...], extent: SearchExtent, originals: Originals, masked: frozenset[str], outcome: str
) -> Iterator[str]:
    """What cannot be found in the log by ``columns``, of records with ``outcome`` (empty: of any); with ``--source`` it can."""
    if PARTITION_KEY in columns:
        yield "partition keys are kept with dead letters only; --source with --since also reads the source again"
    in_rows = [column for column in columns if column != PARTITION_KEY]
    if outcome in {"", Outcome.DEAD_LETTERED.label}:
        for column in in_rows:
            if not originals.know([column]):
                yield f"records have no column {column} when they arrive: among dead letters, it was not searched for"
    if outcome in {"", Outcome.WRITTEN.label}:
        yield from _hidden_in_files(in_rows, extent, originals, masked)
        if extent.files and not extent.whole and all(extent.columns[column] for column in columns):
            yield f"no file has all of the columns {', '.join(columns)}, and all must hold of one row"
    if outcome not in {Outcome.WRITTEN.label, Outcome.DEAD_LETTERED.label} and in_rows == list(columns):
        yield "filtered records are in no file; --source with --since finds them, as far back as the source has its records"


def _hidden_in_files(columns: Sequence[str], extent: SearchExtent, originals: Originals, masked: frozenset[str]) -> Iterator[str]:
    for column in columns:
        if extent.files and not extent.columns[column] and originals.know([column]):
            yield f"no file has the column {column}: a stage drops or renames it"
        elif column in masked and originals.know([column]):
            yield (
                f"the column {column} is masked: files have its masked values, and only dead letters the value that arrived; --source with "
                f"--since finds written records by it"
            )
