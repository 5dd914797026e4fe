"""Assembles a worker of the simulation, the parts of a real one over simulated streams, stores and tables, and runs it as a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from stream.budget import ByteBudget
from stream.commit.committer import Committer
from stream.commit.cut import Limits
from stream.commit.log import CommitLog
from stream.commit.places import Places
from stream.commit.retry import Repeater
from stream.concurrency import ObservableEvent
from stream.contracts import Checkpoints, Emit, LendingSource, Shard, Start, StartKind
from stream.errors import LeaseLost
from stream.lease.checkpoints import StoredCheckpoints
from stream.lease.coordinator import Coordinator
from stream.lease.native import LeaseCheckpoints
from stream.lease.pauses import PauseRecord
from stream.lease.table import LeaseTable
from stream.local.kinesis.state import State
from stream.pipeline.limits import unit_bytes
from stream.pipeline.model import Pipeline
from stream.simulation.dynamodb import RecentTables, SimulatedDynamo
from stream.simulation.places import LeasedCheckpoints, SimulatedKinesis, SimulatedStore
from stream.simulation.process import Process
from stream.simulation.schedule import Schedule
from stream.simulation.subject import KnownDefinitions, Subject
from stream.source.aggregated import OutOfRange
from stream.source.kinesis import KinesisSource
from stream.source.pace import ReadSettings, tip_seconds
from stream.source.until import ReadUntil
from stream.worker.coordination.leasing import coordinator_over, leased_streams, options_alone, settings_of, take_first
from stream.worker.coordination.pausing import CALL, PauseWatch
from stream.worker.halts.breaker import Breaker
from stream.worker.objects.slices import record_options
from stream.worker.opening.stores import Stores
from stream.worker.parts import Parts, StreamParts, to_all
from stream.worker.recipes.recipe import CutUnit, Recipe, Rendered, render
from stream.worker.recipes.refreshing import CurrentRecipe
from stream.worker.shards.reread import Rereader
from stream.worker.shards.streams import PendingCalls, Streams

BUDGET: Final = 64 * 2**20
IDLE: Final = 4.0
"""Longest pause in seconds between polls of a quiet shard: quiet minutes are where a schedule would spend most of its time."""

FIRST: Final = Start(StartKind.TRIM_HORIZON)
"""Where reading begins, whatever the pipeline says: there is nothing in the stream before the schedule begins."""

NEVER_TRIPS: Final = Breaker(max_ratio=1.0, min_records=2**62)
"""The breaker is about data that does not suit the pipeline. The damaged records of a schedule are no reason to stop."""

DRAIN: Final = 3600.0
"""Seconds that a worker may take to drain: a process that stands still would otherwise end with an error, rightly."""

Render = Callable[[Recipe, CutUnit], Rendered]
OpenPlace = Callable[[str, Process], SimulatedStore]


@dataclass(frozen=True)
class Tools:
    """What workers are made of. Tests put defects in their places, which must be found."""

    committer: type[Committer] = Committer
    store: type[SimulatedStore] = SimulatedStore
    definitions: type[KnownDefinitions] = KnownDefinitions
    coordinator: type[Coordinator] = Coordinator
    table: type[LeaseTable] = LeaseTable
    pauses: type[PauseWatch] = PauseWatch
    render: Render = render


@dataclass(frozen=True)
class Surroundings:
    """What is there before a worker starts, and outlives it."""

    subject: Subject
    schedule: Schedule
    state: State
    tables: RecentTables
    open_place: OpenPlace
    tools: Tools


def source_of(
    subject: Subject, stream: str, state: State, process: Process, *, newer: bool = False, emit: Emit | None = None
) -> KinesisSource:
    """``stream`` as ``process`` reads it: the real reader and client. ``emit``: who else hears of it."""
    pipeline, _ = subject.version(newer=newer)
    settings = ReadSettings(
        idle_first=tip_seconds(pipeline.flush.age.total_seconds()),
        idle_last=IDLE,
        kpl_out_of_range=OutOfRange(pipeline.source.kinesis.kpl_out_of_range.value),
    )
    client, budget = SimulatedKinesis(state, process), ByteBudget(BUDGET)
    heard = emit or process.emit
    return KinesisSource(client, stream, budget=budget, clock=process.clock, emit=heard, settings=settings, random=lambda: 0.5)


def table_of(pipeline: Pipeline, tables: RecentTables, process: Process, kind: type[LeaseTable] = LeaseTable) -> LeaseTable:
    """The pipeline's lease table as ``process`` sees it."""
    options = pipeline.leases
    if options is None:
        msg = "the pipeline has no leases"
        raise ValueError(msg)
    name, client = options.tables(pipeline.application).leases, SimulatedDynamo(tables, process)
    return kind(client, name, process.clock, process.emit, process.mark)


async def leases_of(around: Surroundings, process: Process, *, newer: bool, alone: bool = False) -> Coordinator | None:
    """What ``worker.leasing.coordinator_of`` makes; None if the schedule has no leases. It has not read the table yet."""
    pipeline, _ = around.subject.version(newer=newer)
    if not around.schedule.leased or pipeline.leases is None:
        return None
    options = options_alone(pipeline.leases) if alone else pipeline.leases
    table = table_of(pipeline, around.tables, process, around.tools.table)
    streams = await leased_streams(pipeline, SimulatedKinesis(around.state, process), Repeater(process.clock, process.emit))
    settings = settings_of(options, pipeline.application)
    return coordinator_over(table, process.name, streams, settings, process.clock, process.emit, around.tools.coordinator)


async def parts_of(
    around: Surroundings,
    process: Process,
    draining: ObservableEvent,
    leases: Coordinator | None,
    *,
    newer: bool = False,
    once: bool = False,
) -> list[StreamParts]:
    """What ``worker.assemble`` makes for each stream. ``once``: as with `run --once`, the worker ends when all is read."""
    subject = around.subject
    pipeline, fetched = subject.version(newer=newer)
    clock, emit = process.clock, process.emit
    stores = Stores.over(pipeline, subject.base, lambda url: around.open_place(url, process))
    repeat, no_shard = Repeater(clock, emit), Shard(subject.streams[0], "")
    pauses = around.tools.pauses(PauseRecord(stores.state), clock, emit)
    await repeat(CALL, no_shard, pauses.refresh)
    definitions = around.tools.definitions(stores.state, subject.base, subject.env, clock, subject.managed)
    definitions.known = subject.known
    recipe = await repeat("record definition", no_shard, lambda: definitions.record(pipeline, fetched))
    log = CommitLog(stores.state, pipeline.application, clock, process.name)
    worker = _Worker(around, process, stores, definitions, CurrentRecipe(recipe), log, leases, pauses, draining)
    found = []
    for stream in subject.streams:
        start = await repeat("pin start", Shard(stream, ""), partial(log.pin_start, stream, FIRST))
        found.append(StreamParts(stream, start, worker.parts(stream, newer=newer, once=once)))
    return found


@dataclass(frozen=True)
class _Worker:
    """What the streams of one worker share."""

    around: Surroundings
    process: Process
    stores: Stores
    definitions: KnownDefinitions
    current: CurrentRecipe
    log: CommitLog
    leases: Coordinator | None
    pauses: PauseWatch
    draining: ObservableEvent

    def parts(self, stream: str, *, newer: bool, once: bool) -> Parts:
        """The parts for ``stream``."""
        subject, process, tools = self.around.subject, self.process, self.around.tools
        pipeline, _ = subject.version(newer=newer)
        clock, emit = process.clock, process.emit if self.leases is None else to_all(process.emit, self.leases.count)

        async def rendered(with_recipe: Recipe, unit: CutUnit) -> Rendered:
            return tools.render(with_recipe, unit)

        kinesis = source_of(subject, stream, self.around.state, process, newer=newer, emit=emit)
        source: LendingSource = ReadUntil(kinesis, clock.now(), clock, end=False, name=stream) if once else kinesis
        checkpoints = self._checkpoints()
        places = Places(self.stores.targets, lambda url: self.around.open_place(url, process))
        again, repeat = source_of(subject, stream, self.around.state, process, newer=newer), Repeater(clock, emit)
        rereader = Rereader(again, self.definitions, rendered, repeat, emit, admit_gaps=False, reads=record_options(pipeline))
        return Parts(
            worker=process.name,
            source=source,
            log=self.log,
            committer=tools.committer(self.log, places, checkpoints, clock, emit, process.name),
            checkpoints=checkpoints,
            current=self.current,
            render=rendered,
            render_again=rereader.render,
            limits=Limits(min(self.around.schedule.rows, pipeline.flush.rows), unit_bytes(pipeline), self.around.schedule.age),
            breaker=NEVER_TRIPS,
            admit_gaps=False,
            budget=kinesis.budget,
            draining=self.draining,
            clock=clock,
            emit=emit,
            repeat=repeat,
            leases=self.leases,
            pauses=self.pauses,
            once=once,
        )

    def _checkpoints(self) -> Checkpoints:
        leases = self.leases
        if leases is None:
            return LeasedCheckpoints(StoredCheckpoints(self.stores.state), self.process, _refuse)
        rows = self.around.tables.rows(leases.table.name)
        return LeasedCheckpoints(
            LeaseCheckpoints(leases), self.process, lambda shard: steal(rows, leases.streams[shard.stream].key(shard.shard_id))
        )


def _refuse(shard: Shard) -> None:
    msg = f"{shard.shard_id} is another worker's"
    raise LeaseLost(msg)


THIEF: Final = "a worker that takes leases and dies"
"""Who takes leases when the schedule says so."""


def steal(rows: dict[str, Any], key: str) -> None:
    """Take the lease as a worker would, in the name of one that does nothing with it."""
    if (row := rows.get(key)) is not None:
        counter = {"N": str(int(row["leaseCounter"]["N"]) + 1)}
        rows[key] = {**row, "leaseOwner": {"S": THIEF}, "sxOwner": {"S": THIEF}, "leaseCounter": counter}


async def work(around: Surroundings, process: Process, draining: ObservableEvent, *, newer: bool = False, once: bool = False) -> Streams:
    """Run a worker as ``worker.service`` does, until it has drained or, with ``once``, read everything.

    Raises:
        Fatal: it cannot continue.
    """
    async with AsyncExitStack() as stack:
        leases = await leases_of(around, process, newer=newer, alone=once)
        if leases is not None:
            await take_first(leases, process.clock, stack, alone=once)
        parts = await parts_of(around, process, draining, leases, newer=newer, once=once)
        streams = Streams(parts, draining, process.emit, PendingCalls(strict=False))
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(each.run()) for each in (leases, parts[0].parts.pauses) if each is not None]
            await streams.run(DRAIN)
            if leases is not None:
                await leases.leave()
            for task in background:
                task.cancel()
    return streams
