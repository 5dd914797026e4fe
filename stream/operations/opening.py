"""Opens what operations read: the log of one chain, its files, its checkpoints, and its records as far as they can be read again."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from stream.audit.evidence import horizon
from stream.audit.objects import Area
from stream.aws.kinesis import open_kinesis
from stream.aws.secrets import read_secret
from stream.aws.session import AwsSession
from stream.budget import ByteBudget
from stream.commit.log import CommitLog
from stream.commit.lookup import streams_of
from stream.contracts import Checkpoints, Clock, Emit, LendingSource, ObjectStore
from stream.lease.checkpoints import StoredCheckpoints
from stream.lease.native import TableCheckpoints
from stream.pipeline.model import Pipeline
from stream.sink import rejects
from stream.sink.iceberg import METADATA, IcebergSinkConfig
from stream.sink.objects import ObjectsSinkConfig
from stream.sink.tables import TableSinkConfig
from stream.source.aggregated import OutOfRange
from stream.source.kinesis import KinesisSource
from stream.source.pace import ReadSettings
from stream.source.until import ReadUntil
from stream.storage.open import open_store
from stream.worker.coordination.leasing import key_prefix, open_table
from stream.worker.objects.watched import object_opener, slices_of
from stream.worker.opening.evidence import StoredEvidence
from stream.worker.opening.identity import only_compared
from stream.worker.opening.places import located, session_of
from stream.worker.opening.stores import Stores
from stream.worker.parts import to_nobody
from stream.worker.sources.dead_letters import DeadLetters, chain_name
from stream.worker.sources.reading import BACKFILL
from stream.worker.tables.iceberg_catalog import CatalogTable
from stream.worker.tables.iceberg_properties import catalog_properties, secrets_of
from stream.worker.tables.loadlog import LoadState

READING: Final = ReadSettings()
BUDGET: Final = 64 * 2**20
"""Bytes that re-reading a stream may hold in memory."""

_FOR_EVER: Final = datetime.min.replace(tzinfo=UTC)
"""The time from which on a source that never expires is complete."""


async def chains_of(pipeline: Pipeline, base: Path) -> list[str]:
    """Names of the chains of ``pipeline``, which reads one stream: the stream's own, then those of its redrives and backfills."""
    stream, stores = pipeline.source.kinesis.stream, Stores.open(pipeline, base, session_of(pipeline))
    known = [name async for name in streams_of(stores.state)]
    return [stream, *(name for name in known if name == chain_name(stream) or name.startswith(f"{BACKFILL}.{stream}."))]


async def open_evidence(
    pipeline: Pipeline,
    base: Path,
    clock: Clock,
    stack: AsyncExitStack,
    *,
    with_stream: bool,
    chain: str | None = None,
    with_tables: bool = True,
    emit: Emit = to_nobody,
) -> tuple[StoredEvidence, Stores]:
    """The evidence about ``pipeline``, which reads one stream, or about its ``chain``; connections live as long as ``stack``.

    ``with_tables``: also ask catalogs which files their tables consist of. ``emit`` gets events about calls that are repeated.

    Raises:
        Fatal: the stream was requested, but is missing or may not be read.
    """
    session = session_of(pipeline)
    stores, name = Stores.open(pipeline, base, session), chain or pipeline.source.kinesis.stream
    source, oldest = None, None
    if with_stream:
        source, oldest = await open_source(pipeline, base, clock, stack, name, emit)
    log = CommitLog(stores.state, pipeline.application, clock, "audit")
    areas = stores.areas(located(pipeline.state, base), name)
    for config in pipeline.sinks:
        if isinstance(config, TableSinkConfig):
            removed = await LoadState(stores.state, config.name, name).removed()
            areas[config.name] = replace(areas[config.name], removed=removed)
        if isinstance(config, ObjectsSinkConfig) and config.shared:
            areas[config.name] = replace(areas[config.name], mixed=True)
        if isinstance(config, IcebergSinkConfig):
            area = areas[config.name]
            areas[config.name] = replace(area, foreign=(*area.foreign, area.url_of(METADATA)), shared=True)
            if with_tables:
                areas[config.name] = await _of_table(areas[config.name], config, base, session)
    checkpoints = await open_checkpoints(pipeline, name, stores.state, session, clock, stack, emit)
    open_place, beside = partial(open_store, session=session), name != pipeline.source.kinesis.stream
    leased = pipeline.leases is not None and not beside
    evidence = StoredEvidence(log, areas, checkpoints, name, source, oldest, open_place, deletes_ended_checkpoints=leased)
    evidence.shares_places, evidence.loaded = beside, await _loaded(stores.state, name)
    if isinstance(checkpoints, TableCheckpoints):
        evidence.damage = checkpoints.damage
    return evidence, stores


async def _loaded(state: ObjectStore, chain: str) -> dict[str, int]:
    """By shard, the position up to which loaded files of ``chain`` may have been removed, under any name of the sink."""
    found: dict[str, int] = {}
    for sink in await state.folders("loads/"):
        for shard, last in (await LoadState(state, sink, chain).removed()).items():
            found[shard] = max(last, found.get(shard, 0))
    return found


async def open_checkpoints(
    pipeline: Pipeline, chain: str, state: ObjectStore, session: AwsSession, clock: Clock, stack: AsyncExitStack, emit: Emit = to_nobody
) -> Checkpoints:
    """Read-only checkpoints of ``chain`` of ``pipeline``, which reads one stream."""
    native = pipeline.leases
    if native is None or chain != pipeline.source.kinesis.stream:
        return StoredCheckpoints(state)
    table = await open_table(pipeline, native, clock, emit, stack)
    return TableCheckpoints(table, await key_prefix(pipeline, session, clock, stack))


async def _of_table(area: Area, config: IcebergSinkConfig, base: Path, session: AwsSession) -> Area:
    """``area`` with the files that the table consists of now; its maintenance may have replaced files that were loaded."""
    secret = secrets_of(os.environ, base, partial(read_secret, session))
    with closing(CatalogTable(config, area.store.url, catalog_properties(config, session, secret))) as table:
        return replace(area, needed=frozenset(map(area.url_of, await table.files())))


async def open_source(
    pipeline: Pipeline,
    base: Path,
    clock: Clock,
    stack: AsyncExitStack,
    chain: str,
    emit: Emit = to_nobody,
    *,
    calls_per_second: float = READING.calls_per_second,
    compared: bool = True,
) -> tuple[LendingSource, datetime]:
    """The source that ``chain`` was read from, for reading again, with a byte budget of its own; ``emit`` gets its events.

    ``calls_per_second``: GetRecords calls per shard, of the five that its readers share. ``compared``: nothing is read unless the stream is
    the one that the log is of, which needs the state. Also the moment from which the source is complete:
    records that arrived earlier may be gone.
    """
    session, budget, kinesis = session_of(pipeline), ByteBudget(BUDGET), pipeline.source.kinesis
    stores = Stores.open(pipeline, base, session)
    if chain == chain_name(kinesis.stream):
        opener = None
        if pipeline.source.s3 is not None:
            slices = slices_of(pipeline, session, stores.state, partial(located, base=base), "audit", clock)
            opener = object_opener(slices, chain, commits=False)
        letters = DeadLetters(kinesis.stream, stores.state, stores.targets[rejects.NAME], pipeline.rejects.redrive, clock, opener)
        return await letters.source(budget, emit), _FOR_EVER
    if pipeline.source.s3 is not None:
        slices = slices_of(pipeline, session, stores.state, partial(located, base=base), "audit", clock)
        return await slices.source(budget, emit), _FOR_EVER
    client = await stack.enter_async_context(open_kinesis(session))
    settings = ReadSettings(calls_per_second=calls_per_second, kpl_out_of_range=OutOfRange(kinesis.kpl_out_of_range.value))
    pinned = only_compared(client, stores.state, kinesis.stream) if compared else None
    source = KinesisSource(client, kinesis.stream, budget=budget, clock=clock, emit=emit, settings=settings, recognition=pinned)
    # A stream that was deleted and created again has nothing of what the log has from its predecessors.
    oldest = max(horizon(clock.now(), await source.retention()), await source.created())
    return (source if chain == kinesis.stream else ReadUntil(source, clock.now(), clock, end=True, name=chain, time=source.time)), oldest


async def open_sample(pipeline: Pipeline, base: Path, clock: Clock, stack: AsyncExitStack, *, compared: bool) -> LendingSource:
    """The source of ``pipeline``, which reads one stream, for a sample of its records; if it reads objects, all that exist now.

    ``compared``: as in ``open_source``. Whoever develops a pipeline need not be allowed to read its state.
    """
    if pipeline.source.s3 is None:
        source, _ = await open_source(pipeline, base, clock, stack, pipeline.source.kinesis.stream, compared=compared)
        return source
    session, stores = session_of(pipeline), Stores.open(pipeline, base, session_of(pipeline))
    slices = slices_of(pipeline, session, stores.state, partial(located, base=base), "sample", clock)
    return await slices.peek(ByteBudget(BUDGET), to_nobody)
