"""What a query reads: the rows of a sink, each once, those of sealed units and those of records that no worker has sealed yet.

Of each shard, the log is read first, and says where its sealed part ends. Then the source is read after exactly that position, and what it
gives goes through the definition that workers have. What is sealed meanwhile does not count. So no row is there twice, and none is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl

from stream.audit.chain import Bounds
from stream.audit.ledger import LedgerObject
from stream.audit.outputs import DamagedFileError
from stream.aws.secrets import read_secret
from stream.commit.log import CommitLog
from stream.commit.lookup import shards_of
from stream.commit.manifest import decode_start
from stream.commit.naming import start_key
from stream.concurrency import run_concurrently
from stream.contracts import CONSOLE, Checkpoints, Clock, Emit, LendingSource, Shard, Start, shard_of_chain
from stream.errors import DefinitionError
from stream.lease.pauses import PauseRecord
from stream.operations.opening import chains_of, open_checkpoints, open_evidence, open_source
from stream.operations.progress.object_lookahead import ObjectsLookahead, open_lookahead
from stream.operations.progress.stream_lookahead import CALLS_PER_SECOND
from stream.operations.query.cuts import CutReader, ShardCut, newest_definition
from stream.operations.query.sink_rows import ADDED, LETTERS, ROWS, TABLES, FileMovedError, Piece, Recipes, RowReader
from stream.operations.query.unsealed import Room, Tail, TailReader
from stream.operations.records.sampling import resources_of
from stream.pipeline.components import canonical_name
from stream.pipeline.digest import canonical_text
from stream.pipeline.model import Pipeline
from stream.sink import rejects
from stream.sink.objects import SinkConfig
from stream.sink.tables import TableSinkConfig
from stream.worker.halts.notes import read_halts
from stream.worker.opening.evidence import StoredEvidence
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.recipes.compiling import Unrecorded
from stream.worker.recipes.definitions import Definitions
from stream.worker.recipes.recipe import Recipe

AT_ONCE: Final = 16
"""Shards, or files, that are read at a time."""

ATTEMPTS: Final = 3
"""How often everything is read again because a rewind or `stream compact` has removed a file meanwhile."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a query reads. ``tables``: those of ``TABLES`` that it names."""

    sink: SinkConfig
    tables: frozenset[str] = frozenset(TABLES)
    bounds: Bounds = Bounds()  # noqa: RUF009 - it is frozen
    reveal: bool = False


@dataclass(frozen=True, slots=True)
class ShardRead:
    """How one shard was read: sealed up to ``position``, and on from there up to ``read_to``; None if it was not read on.

    ``sealed_rows`` and ``unsealed_rows``: of the tables that are wanted, in units that the bounds touch. ``why``: what people should know.
    """

    shard: str
    position: int
    read_to: int | None
    sealed_rows: int
    unsealed_records: int
    unsealed_rows: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What was read of one stream: by table, its frames. ``empty``: the table of the sink's rows, if it has none.

    ``hidden``: columns whose values are hidden; ``notes``: what a person should know.
    """

    stream: str
    frames: Mapping[str, Sequence[pl.LazyFrame]]
    shards: tuple[ShardRead, ...]
    hidden: frozenset[str]
    notes: tuple[str, ...]
    empty: pl.DataFrame | None = None


def tables_in(contents: Sequence[Contents], wanted: Wanted) -> dict[str, list[pl.LazyFrame]]:
    """The tables that ``wanted`` names, over all streams, each in parts, of which there is at least one."""
    found = {table: [frame for each in contents for frame in each.frames[table]] for table in sorted(wanted.tables)}
    if not found.get(LETTERS, True):
        found[LETTERS] = [pl.LazyFrame(schema={**rejects.SCHEMA, **ADDED})]
    if not found.get(ROWS, True):
        found[ROWS] = [each.empty.lazy() for each in contents if each.empty is not None][:1]
    return found


@dataclass(frozen=True, slots=True)
class Queried:
    """One stream, as it can be asked. ``chains``: the stream's own, then those of its redrives and backfills, with their checkpoints.

    ``source``: None if only what is sealed counts. ``objects``: what says which objects are in no shard yet, if objects are read.
    """

    recipes: Recipes
    chains: Sequence[tuple[StoredEvidence, Checkpoints]]
    log: CommitLog
    start: Start
    source: LendingSource | None
    clock: Clock
    objects: ObjectsLookahead | None = None

    @property
    def stream(self) -> str:
        """The name of the stream."""
        return self.chains[0][0].stream

    async def read(self, wanted: Wanted, room: Room) -> Contents:
        """Everything that ``wanted`` asks for, each row once.

        Raises:
            DefinitionError: it is more than there is room for, or the definition cannot be run here.
            DamagedLogError: it is not known what is sealed.
            DamagedFileError: a file that the log lists is missing, or is not what was written.
            Halted: a stage broke its contract, or a definition cannot be run here.
            Fatal: the stream, a bucket or a permission is missing.
        """
        taken, missing = room.taken, ""
        for _ in range(ATTEMPTS):
            room.taken = taken
            try:
                return await self._read(wanted, room)
            except FileMovedError as error:
                missing = str(error)
        msg = f"the file {missing} is missing, though the log lists it; `stream audit verify` says what else is wrong"
        raise DamagedFileError(msg)

    async def _read(self, wanted: Wanted, room: Room) -> Contents:
        listed = {} if self.source is None else {shard.shard_id: shard for shard in await self.source.shards()}
        # The order matters: the position of a shard is fixed first, and what follows it is read afterwards.
        cuts = await self._cuts(0, listed, wanted.bounds)
        newest = newest_definition(cuts)
        sealed = list(_sealed(self.chains[0][0], cuts, wanted))
        beside = [list(_sealed(self.chains[at][0], await self._cuts(at, (), wanted.bounds), wanted)) for at in range(1, len(self.chains))]
        room.take(sum(piece.file.size for pieces in (sealed, *beside) for piece in pieces))
        tails = await self._tails(cuts, listed, newest, wanted.bounds, room)
        # Sorting keeps the order of what is equal: of each shard, first the sealed units, as they follow each other, then the rest.
        own = sorted([*sealed, *_unsealed(self.chains[0][0], tails, wanted)], key=lambda piece: piece.shard)
        reader = RowReader(self.recipes, wanted.sink, wanted.bounds, wanted.reveal)
        frames: dict[str, list[pl.LazyFrame]] = {table: [] for table in TABLES}
        for (chain, _), pieces in zip(self.chains, (own, *beside), strict=True):
            for piece, frame in zip(pieces, await _frames(reader, chain, pieces), strict=True):
                frames[piece.table] += [] if frame is None else [frame]
        return Contents(
            self.stream,
            frames,
            await self._shards(cuts, tails, own),
            frozenset(reader.hidden),
            tuple([note async for note in self._notes(reader, newest, tails)]),
            None if frames[ROWS] or ROWS not in wanted.tables else await self.recipes.empty(newest, wanted.sink),
        )

    async def _cuts(self, at: int, listed: Iterable[str], bounds: Bounds) -> dict[str, ShardCut]:
        chain, checkpoints = self.chains[at]
        reader = CutReader(chain, self.log, checkpoints, self.start, bounds)
        found: dict[str, ShardCut] = {}

        async def one(name: str) -> None:
            found[name] = await reader.cut(name)

        logged = {shard_of_chain(name)[0] async for name in shards_of(self.log.store, chain.stream)}
        await run_concurrently([one(name) for name in sorted(logged.union(listed))], AT_ONCE)
        return found

    async def _tails(
        self, cuts: Mapping[str, ShardCut], listed: Mapping[str, Shard], newest: str | None, bounds: Bounds, room: Room
    ) -> dict[str, Tail]:
        found: dict[str, Tail] = {}
        if self.source is None:
            return found

        async def recipe(digest: str | None) -> tuple[str | None, Recipe]:
            return digest or newest, await self.recipes.recipe(digest or newest)

        reader = TailReader(self.source, recipe, bounds, room, self.clock)

        async def one(name: str) -> None:
            found[name] = await reader.read(cuts[name], listed[name])

        await run_concurrently([one(name) for name in sorted(listed) if not cuts[name].ended], AT_ONCE)
        return found

    async def _shards(self, cuts: Mapping[str, ShardCut], tails: Mapping[str, Tail], pieces: Sequence[Piece]) -> tuple[ShardRead, ...]:
        halts, pauses = await read_halts(self.log.store, self.stream), await PauseRecord(self.log.store).in_force(self.clock.now())
        found = []
        for name, cut in sorted(cuts.items()):
            tail, reasons = tails.get(name), list[str]()
            if tail is None and not cut.ended and self.source is not None:
                reasons.append("the source does not list it any more, and the log does not have its end: what followed is gone")
            if tail is not None and tail.records:
                halt, pause = halts.get(name), pauses.reading(self.stream, name)
                reasons += [f"halted since {halt.since.isoformat()}: {halt.reason}"] if halt and not halt.is_over(cut.position) else []
                reasons += [str(pause)] if pause is not None else []
            reasons += [tail.why] if tail is not None and tail.why else []
            rows = [piece for piece in pieces if piece.shard == name]
            sealed = sum(piece.file.rows for piece in rows if piece.link is not None)
            unsealed = sum(piece.file.rows for piece in rows) - sealed
            read_to, records = (None, 0) if tail is None else (tail.position, tail.records)
            found.append(ShardRead(name, cut.position, read_to, sealed, records, unsealed, "; ".join(reasons)))
        return tuple(found)

    async def _notes(self, reader: RowReader, newest: str | None, tails: Mapping[str, Tail]) -> AsyncIterator[str]:
        recorded, config = await self.recipes.definition(newest), reader.config
        if newest is None:
            yield f"no worker has committed anything from {self.stream} yet"
        unclaimed = None if self.objects is None else await self.objects.unclaimed()
        if unclaimed is not None and unclaimed.fresh:
            yield f"{unclaimed.fresh:,} objects are not claimed by a worker yet: their rows are not here"
        if any(tail.records for tail in tails.values()):
            if canonical_text(recorded) != canonical_text(self.recipes.pipeline):
                yield "what is not sealed was made with the definition that workers have, which is not that of this file: see `stream diff`"
            whole = [f"{at}:{canonical_name(stage)}" for at, stage in enumerate(recorded.stages, 1) if not stage.divisible()]
            if whole:
                yield (
                    f"{', '.join(whole)} looks at a unit as a whole. What is not sealed was taken as one unit per shard; workers may "
                    "cut it otherwise, and these rows may still change"
                )
        if reader.gone and isinstance(config, TableSinkConfig):
            rows = sum(file.rows for file in reader.gone)
            yield (
                f"{rows:,} rows are not among these: their files have been removed or replaced since they were loaded into the table "
                f"{config.table}; ask the table for them"
            )
        if reader.undated:
            yield "the files do not say when a row arrived (`lineage: false`): units are here whole if any of their records is in the range"


async def _frames(reader: RowReader, chain: StoredEvidence, pieces: Sequence[Piece]) -> list[pl.LazyFrame | None]:
    found: list[pl.LazyFrame | None] = [None] * len(pieces)

    async def one(at: int, piece: Piece) -> None:
        found[at] = await reader.frame(piece, chain)

    await run_concurrently([one(at, piece) for at, piece in enumerate(pieces)], AT_ONCE)
    return found


def _sealed(chain: StoredEvidence, cuts: Mapping[str, ShardCut], wanted: Wanted) -> Iterator[Piece]:
    for name, cut in sorted(cuts.items()):
        for link in cut.units:
            for file in link.files:
                if (table := _table(chain, wanted, file.sink, link.targets)) is not None:
                    yield Piece(table, name, file, link.pipeline, link)


def _unsealed(chain: StoredEvidence, tails: Mapping[str, Tail], wanted: Wanted) -> Iterator[Piece]:
    for name, tail in sorted(tails.items()):
        for unit in tail.units:
            for file in unit.files:
                if (table := _table(chain, wanted, file.sink, unit.recipe.places)) is not None:
                    entry = LedgerObject(file.sink, file.key, file.rows, len(file.body), file.sha256)
                    yield Piece(table, name, entry, unit.digest, body=file.body)


def _table(chain: StoredEvidence, wanted: Wanted, sink: str, places: Mapping[str, str]) -> str | None:
    """The table that has the rows of a file of ``sink``, which was where ``places`` says; None if none has, or it is not wanted."""
    name = wanted.sink.name
    # A sink that had another name is the same if its files are in the same place.
    same = sink == name or (sink not in chain.areas and places.get(sink) == chain.areas[name].store.url)
    table = LETTERS if sink == rejects.NAME else ROWS if same else None
    return table if table in wanted.tables else None


def chosen_sink(pipeline: Pipeline, name: str | None) -> SinkConfig:
    """The sink with that name, or the only one.

    Raises:
        DefinitionError: there is none, there are several, or it keeps no files.
    """
    known = ", ".join(each.name for each in pipeline.sinks)
    found = [each for each in pipeline.sinks if name in {None, each.name}]
    if not found:
        msg = f"--sink {name}: the pipeline has no such sink; it has {known}"
        raise DefinitionError(msg)
    if len(found) > 1:
        msg = f"the pipeline has several sinks: choose one with --sink ({known})"
        raise DefinitionError(msg)
    if found[0].url == CONSOLE:
        msg = f"the sink {found[0].name} prints its rows and keeps none; --sink names another ({known})"
        raise DefinitionError(msg)
    return found[0]


async def open_queried(
    pipeline: Pipeline, one: Pipeline, base: Path, env: Mapping[str, str], clock: Clock, emit: Emit, stack: AsyncExitStack, *, tail: bool
) -> Queried:
    """The stream of ``one``, which is ``pipeline`` narrowed to it; connections live as long as ``stack``. Reads nothing of the stream yet.

    ``tail``: also read what is not sealed. ``emit`` hears of calls that are repeated.
    """
    session, stream = session_of(one), one.source.kinesis.stream
    stores = Stores.open(one, base, session)
    log = CommitLog(stores.state, one.application, clock, "query")
    chains = []
    for name in await chains_of(one, base):
        evidence, _ = await open_evidence(one, base, clock, stack, with_stream=False, chain=name, with_tables=False, emit=emit)
        chains.append((evidence, await open_checkpoints(one, name, stores.state, session, clock, stack, emit)))
    source = None
    if tail:
        source, _ = await open_source(one, base, clock, stack, stream, emit, calls_per_second=CALLS_PER_SECOND)

    async def own() -> Recipe:
        return await Unrecorded(clock).record(pipeline, await resources_of(pipeline, base, env))

    definitions = Definitions(stores.state, base, env, clock, partial(read_secret, session))
    stored = await stores.state.get(start_key(stream))
    start = one.source.kinesis.start if stored is None else decode_start(stored.body, start_key(stream))
    objects = open_lookahead(one, base, stores.state, session, clock) if tail and one.source.s3 is not None else None
    return Queried(Recipes(pipeline, definitions, own), chains, log, start, source, clock, objects)
