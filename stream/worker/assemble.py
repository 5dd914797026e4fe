"""Assembles the parts of a worker from a pipeline, and checks before the first record is read that everything it needs is there."""

from __future__ import annotations

import asyncio
import functools
import os
import platform
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from stream.audit import ledger
from stream.audit.export import Exporter, Mode, Sender
from stream.aws.secrets import read_secret
from stream.aws.session import AwsSession
from stream.budget import ByteBudget
from stream.cgroup import memory_limit
from stream.clock import SystemClock
from stream.commit.committer import Committer
from stream.commit.cut import Limits
from stream.commit.log import CommitLog
from stream.commit.places import Places
from stream.commit.retry import Repeater
from stream.concurrency import ObservableEvent
from stream.contracts import Checkpoints, Clock, Emit, ObjectStore, Shard
from stream.errors import Fatal
from stream.lease.checkpoints import StoredCheckpoints
from stream.lease.coordinator import Coordinator
from stream.lease.native import LeaseCheckpoints
from stream.lease.pauses import PauseRecord
from stream.metrics.logs import Level
from stream.pipeline.access.actions import needed
from stream.pipeline.limits import READING_SHARE, unit_bytes
from stream.pipeline.model import OnExpired, Pipeline
from stream.pipeline.replay import OnDeleted
from stream.pipeline.resources.fetching import Fetched, fetch_resources
from stream.pipeline.resources.secrets import SecretReader
from stream.sink import rejects
from stream.worker.coordination.leasing import ListShards, open_leases
from stream.worker.coordination.pausing import CALL, PauseWatch
from stream.worker.halts.breaker import Breaker
from stream.worker.objects.slices import Window, record_options
from stream.worker.objects.watched import NotedEnds, WatchedShards, slices_of
from stream.worker.objects.watching import Turns
from stream.worker.opening.places import former_place, is_there, kms_key, located, read_object, session_of
from stream.worker.opening.stores import Stores
from stream.worker.parts import Parts, StreamParts, to_all
from stream.worker.process.credentials import CredentialKeeper
from stream.worker.receivers.collector import open_sender, shape_of
from stream.worker.receivers.exporting import ExportTask, WaitingCheckpoints
from stream.worker.receivers.log_units import LogUnits
from stream.worker.receivers.recent_segments import RECENT_SHARE, RecentSegments
from stream.worker.recipes.definitions import Definitions
from stream.worker.recipes.recipe import CutUnit, Recipe, Rendered, render
from stream.worker.recipes.refreshing import CurrentRecipe, Refresher, intervals
from stream.worker.shards.reread import Rereader
from stream.worker.sources.reading import Opened, Reading, SourceContext, open_reading
from stream.worker.tables.loaders import open_loader_parts
from stream.worker.tables.loading import Loader

REREADING_SHARE: Final = 1 / 16
"""Share of the memory budget for re-reading ranges. It is separate from that for reading, which may be held by units that wait for a
re-read."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Options of this process, as opposed to the pipeline.

    ``base``: the folder to which the pipeline's paths are relative. ``env``: environment variables, for secrets. ``drain_seconds``: limit
    for sealing the units in progress after a signal. ``threads``: for decoding, transforming and encoding. ``listeners`` get every event.
    ``reading``: which part of its source the pipeline reads. ``leases``: an operator's leases, used instead of a worker's own. ``worker``:
    its name in manifests, leases and spans; generated if empty. ``log_level``: the lowest level of events in the log. ``memory_limit``:
    that of the container, in bytes.
    """

    base: Path
    env: Mapping[str, str]
    drain_seconds: float
    threads: int
    listeners: tuple[Emit, ...] = ()
    clock: Clock = field(default_factory=SystemClock)
    reading: Reading = field(default_factory=Reading)
    leases: Coordinator | None = None
    worker: str = ""
    log_level: Level = Level.INFO
    memory_limit: int | None = field(default_factory=memory_limit)


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def worker_id(clock: Clock) -> str:
    """A name that distinguishes this process from every other: host, process id, and start time."""
    return f"{platform.node()}/{os.getpid()}-{int(clock.now().timestamp())}"


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all streams of one worker have in common."""

    pipeline: Pipeline
    options: WorkerOptions
    worker: str
    stores: Stores
    files: Places
    definitions: Definitions
    current: CurrentRecipe
    refresher: Refresher | None
    keeper: CredentialKeeper | None
    render: Callable[[Recipe, CutUnit], Awaitable[Rendered]]
    budget: ByteBudget
    rereading: ByteBudget
    sender: Sender | None
    repeat: Repeater
    emit: Emit
    draining: ObservableEvent
    leases: Coordinator | None
    pauses: PauseWatch


def ends_by_itself(pipeline: Pipeline, reading: Reading) -> bool:
    """Whether the run ends by itself, because what it reads has an end."""
    return reading != Reading() or (pipeline.source.s3 is not None and pipeline.source.s3.watch is None)


async def assemble(
    pipeline: Pipeline, options: WorkerOptions, emit: Emit, draining: ObservableEvent, stack: AsyncExitStack
) -> list[StreamParts]:
    """The parts of a worker for each stream of the pipeline; connections live as long as ``stack``.

    Streams share the client, memory budget, threads, stores and definitions; each has its own source, start and export.

    Raises:
        Fatal: a stream, a bucket or a permission is missing; nothing has been read.
        DefinitionError: a table, a secret or a function is missing.
    """
    kinesis, clock = pipeline.source.kinesis, options.clock
    session = session_of(pipeline)
    stores = Stores.open(pipeline, options.base, session)
    state, targets = stores.state, stores.targets
    repeat, no_shard = Repeater(clock, emit), Shard(kinesis.names[0], "")
    await require(pipeline.requires, options.base, session)
    await _look_at(stores, lambda what, call: repeat(what, no_shard, call))
    pauses = PauseWatch(PauseRecord(state), clock, emit)
    await repeat(CALL, no_shard, pauses.refresh)
    name = options.worker or worker_id(clock)
    watched = _watched(pipeline, options, session, state, name)
    leases = options.leases or await _leases(pipeline, options, session if watched is None else watched.shards, name, emit, stack)
    emit = emit if leases is None else to_all(emit, leases.count)
    repeat, places, managed = Repeater(clock, emit), functools.partial(located, base=options.base), functools.partial(read_secret, session)
    read = functools.partial(read_object, session)

    async def fetch(known: Mapping[str, bytes]) -> Fetched:
        return await fetch_resources(pipeline, options.base, options.env, read, known, managed)

    fetched = await repeat("fetch tables and secrets", no_shard, lambda: fetch({}))
    definitions = Definitions(state, options.base, options.env, clock, managed)
    current = CurrentRecipe(await repeat("record definition", no_shard, lambda: definitions.record(pipeline, fetched)))
    shared = _Shared(
        pipeline=pipeline,
        options=options,
        worker=name,
        stores=stores,
        files=Places(stores.targets, functools.partial(former_place, session=session, key=kms_key(pipeline))),
        definitions=definitions,
        current=current,
        refresher=Refresher(pipeline, fetched, fetch, definitions, current, clock, emit) if intervals(pipeline) else None,
        keeper=CredentialKeeper(session, clock, emit) if needed(pipeline) else None,
        render=_in_threads(stack.enter_context(ThreadPoolExecutor(options.threads, "render"))),
        budget=ByteBudget(int(pipeline.memory.budget * READING_SHARE), options.threads),
        rereading=ByteBudget(int(pipeline.memory.budget * REREADING_SHARE)),
        sender=await _sender(pipeline, options, managed, emit, stack),
        repeat=repeat,
        emit=emit,
        draining=draining,
        leases=leases,
        pauses=pauses,
    )
    context = SourceContext(pipeline, options.reading, session, state, targets[rejects.NAME], places, name, clock, emit, watched)
    context = context if leases is None else replace(context, shared=True, turns=_turns(leases, kinesis.stream))
    sources = await repeat("open source", no_shard, lambda: open_reading(context, stack))
    return [await _with_loaders(source, await _stream_parts(source, shared), shared, session, stack) for source in sources]


async def _with_loaders(opened: Opened, one: StreamParts, shared: _Shared, session: AwsSession, stack: AsyncExitStack) -> StreamParts:
    """``one`` with its loaders, which obey the pauses of the stream that the records come from, in whatever way they were read."""
    identity, targets = (shared.worker, shared.options.clock, shared.emit), shared.stores.targets
    tables = await open_loader_parts(shared.pipeline, one.stream, session, one.parts.log, targets, shared.definitions, identity, stack)
    pauses = [functools.partial(shared.pauses.loads, opened.stream, table.config.name) for table in tables]
    return replace(one, loaders=tuple(Loader(replace(table, pause=pause)) for table, pause in zip(tables, pauses, strict=True)))


async def _stream_parts(opened: Opened, shared: _Shared) -> StreamParts:
    """The parts for one stream, or for what is read instead of it."""
    pipeline, clock, emit = shared.pipeline, shared.options.clock, shared.emit
    log = CommitLog(shared.stores.state, pipeline.application, clock, shared.worker)
    start = await shared.repeat("pin start", Shard(opened.chain, ""), lambda: log.pin_start(opened.chain, opened.start))
    export = _export(opened.chain, shared, log)
    leases = None if opened.finite and not shared.options.reading.once else shared.leases
    checkpoints: Checkpoints = StoredCheckpoints(shared.stores.state) if leases is None else LeaseCheckpoints(leases)
    if leases is not None and pipeline.source.s3 is not None:
        checkpoints = NotedEnds(checkpoints, shared.stores.state)
    if export is not None and pipeline.audit.otlp is not None and pipeline.audit.otlp.mode is Mode.STRICT:
        checkpoints = WaitingCheckpoints(checkpoints, export)
    admit_gaps = _admits_gaps(pipeline) and shared.options.reading.window.begin is None
    reread_source = await opened.make(shared.rereading)
    reads = "" if shared.options.reading.letters else record_options(pipeline)
    rereader = Rereader(reread_source, shared.definitions, shared.render, shared.repeat, emit, admit_gaps=admit_gaps, reads=reads)
    parts = Parts(
        worker=shared.worker,
        source=await opened.make(shared.budget),
        log=log,
        committer=Committer(log, shared.files, checkpoints, clock, emit, shared.worker),
        checkpoints=checkpoints,
        current=shared.current,
        render=shared.render,
        render_again=rereader.render,
        limits=_limits(pipeline),
        breaker=Breaker(pipeline.rejects.max_ratio, pipeline.rejects.min_records, pipeline.rejects.window.total_seconds()),
        admit_gaps=admit_gaps,
        budget=shared.budget,
        draining=shared.draining,
        clock=clock,
        emit=emit if export is None else to_all(emit, export),
        repeat=shared.repeat,
        export=export,
        leases=leases,
        pauses=shared.pauses,
        once=opened.finite,
        refresher=shared.refresher,
        keeper=shared.keeper,
    )
    return StreamParts(opened.chain, start, parts, watcher=opened.watcher)


def _watched(pipeline: Pipeline, options: WorkerOptions, session: AwsSession, state: ObjectStore, name: str) -> WatchedShards | None:
    """The shards of the pipeline's objects, if they are to be read as they arrive; None for a stream, a range of time, and redrives."""
    objects, reading = pipeline.source.s3, options.reading
    if objects is None or objects.watch is None or reading.letters or reading.window != Window():
        return None
    slices = slices_of(pipeline, session, state, functools.partial(located, base=options.base), name, options.clock)
    return WatchedShards(slices, write_blocks=True)


def _turns(leases: Coordinator, stream: str) -> Turns:
    """Which worker lists the objects of ``stream`` for all."""
    return Turns(functools.partial(leases.lists, stream), lambda allowed: leases.may_list(stream, allowed=allowed))


async def _leases(
    pipeline: Pipeline, options: WorkerOptions, source: AwsSession | ListShards, name: str, emit: Emit, stack: AsyncExitStack
) -> Coordinator | None:
    """The leases, if workers share shards; None for backfills and redrives, which do not work on the stream's own chains."""
    native, once = pipeline.leases, options.reading == Reading(once=True)
    if native is None or (ends_by_itself(pipeline, options.reading) and not once):
        return None
    return await open_leases(pipeline, native, source, name, options.clock, emit, stack, alone=once)


async def _sender(pipeline: Pipeline, options: WorkerOptions, managed: SecretReader, emit: Emit, stack: AsyncExitStack) -> Sender | None:
    otlp = pipeline.audit.otlp
    return None if otlp is None else await open_sender(otlp, options.env, options.base, options.clock, emit, stack, managed)


def _admits_gaps(pipeline: Pipeline) -> bool:
    objects = pipeline.source.s3
    if objects is not None and objects.watch is not None:
        return objects.watch.on_deleted is OnDeleted.GAP
    return pipeline.source.kinesis.on_expired is OnExpired.GAP


def _export(stream: str, shared: _Shared, log: CommitLog) -> ExportTask | None:
    """The task that exports sealed units of one stream to an OTLP collector, if the pipeline names one."""
    otlp, clock = shared.pipeline.audit.otlp, shared.options.clock
    if otlp is None or shared.sender is None:
        return None
    areas = shared.stores.areas(located(shared.pipeline.state, shared.options.base), stream)
    recent = RecentSegments(int(shared.pipeline.memory.budget * RECENT_SHARE))
    units = LogUnits(log, stream, areas, shared.stores.targets[ledger.NAME], otlp.destinations, recent)
    exporter = Exporter(units, shared.stores.state, shared.sender, shape_of(otlp), clock, shared.emit, stream)
    return ExportTask(exporter, clock, shared.emit, stream, strict=otlp.mode is Mode.STRICT, recent=recent)


def _limits(pipeline: Pipeline) -> Limits:
    """The pipeline's flush settings, with units no larger than the memory budget allows."""
    flush = pipeline.flush
    return Limits(flush.rows, unit_bytes(pipeline), flush.age.total_seconds())


async def require(urls: tuple[str, ...], base: Path, session: AwsSession) -> None:
    """Make sure that there is an object at each of ``urls``, or under it if it ends in a slash.

    Raises:
        Fatal: there is none; nothing has been read.
    """
    for url in urls:
        if not await is_there(session, url, base):
            msg = f"there is no object {url}, which the pipeline requires before anything is read; run again once it exists"
            raise Fatal(msg)


async def _look_at(stores: Stores, repeat: Callable[[str, Callable[[], Awaitable[None]]], Awaitable[None]]) -> None:
    """Make sure that what the pipeline writes to is there, before anything is read."""
    await repeat("prove writable", stores.prove_writable)
    for store in (*stores.targets.values(), stores.state):
        await repeat("look at", functools.partial(_probe, store))


async def _probe(store: ObjectStore) -> None:
    """List one folder, which fails if the bucket or the permission is missing."""
    async for _ in store.list("_preflight/"):
        return


def _in_threads(pool: ThreadPoolExecutor) -> Callable[[Recipe, CutUnit], Awaitable[Rendered]]:
    async def run(recipe: Recipe, cut: CutUnit) -> Rendered:
        return await asyncio.get_running_loop().run_in_executor(pool, render, recipe, cut)

    return run
