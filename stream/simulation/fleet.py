"""Assembles a worker of the simulation: the parts of a real one, over a simulated stream and simulated stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stream.budget import ByteBudget
from stream.commit.committer import Committer
from stream.commit.cut import Limits
from stream.commit.log import CommitLog
from stream.commit.places import Places
from stream.commit.retry import Repeater
from stream.concurrency import ObservableEvent
from stream.contracts import LendingSource, Shard, Start, StartKind
from stream.lease.checkpoints import StoredCheckpoints
from stream.local.kinesis.state import State
from stream.pipeline.limits import unit_bytes
from stream.simulation.places import LeasedCheckpoints, SimulatedKinesis, SimulatedStore
from stream.simulation.process import Process
from stream.simulation.schedule import Schedule
from stream.simulation.subject import KnownDefinitions, Subject
from stream.source.aggregated import OutOfRange
from stream.source.kinesis import KinesisSource
from stream.source.pace import ReadSettings, tip_seconds
from stream.source.until import ReadUntil
from stream.worker.auditing import Stores
from stream.worker.breaker import Breaker
from stream.worker.parts import Parts
from stream.worker.recipe import CutUnit, Recipe, Rendered, render
from stream.worker.refreshing import CurrentRecipe
from stream.worker.reread import Rereader
from stream.worker.slices import record_options
from stream.worker.supervisor import Supervisor

BUDGET: Final = 64 * 2**20
IDLE: Final = 4.0
"""Longest pause in seconds between polls of a quiet shard: quiet minutes are where a schedule would spend most of its time."""

FIRST: Final = Start(StartKind.TRIM_HORIZON)
"""Where reading begins, whatever the pipeline says: there is nothing in the stream before the schedule begins."""

NEVER_TRIPS: Final = Breaker(max_ratio=1.0, min_records=2**62)
"""The breaker is about data that does not suit the pipeline. The damaged records of a schedule are no reason to stop."""

Render = Callable[[Recipe, CutUnit], Rendered]
OpenPlace = Callable[[str, Process], SimulatedStore]


@dataclass(frozen=True)
class Tools:
    """What workers are made of. Tests put defects in their places, which must be found."""

    committer: type[Committer] = Committer
    store: type[SimulatedStore] = SimulatedStore
    definitions: type[KnownDefinitions] = KnownDefinitions
    render: Render = render


@dataclass(frozen=True)
class Surroundings:
    """What a worker does not make itself: how to open a place, the tools, and the event that tells it to stop."""

    open_place: OpenPlace
    tools: Tools
    draining: ObservableEvent


def source_of(subject: Subject, state: State, process: Process, *, newer: bool = False) -> KinesisSource:
    """The stream as ``process`` reads it: the real reader and client."""
    pipeline, _ = subject.version(newer=newer)
    settings = ReadSettings(
        idle_first=tip_seconds(pipeline.flush.age.total_seconds()),
        idle_last=IDLE,
        kpl_out_of_range=OutOfRange(pipeline.source.kinesis.kpl_out_of_range.value),
    )
    client, budget = SimulatedKinesis(state, process), ByteBudget(BUDGET)
    return KinesisSource(
        client, subject.stream, budget=budget, clock=process.clock, emit=process.emit, settings=settings, random=lambda: 0.5
    )


async def supervisor_of(
    subject: Subject,
    schedule: Schedule,
    state: State,
    process: Process,
    around: Surroundings,
    *,
    newer: bool = False,
    once: bool = False,
) -> Supervisor:
    """What ``worker.assemble`` makes for one stream, ready to run. ``once``: as with `run --once`, it ends when all is read."""
    pipeline, fetched = subject.version(newer=newer)
    clock, emit = process.clock, process.emit
    stores = Stores.over(pipeline, subject.base, lambda url: around.open_place(url, process))
    repeat, no_shard = Repeater(clock, emit), Shard(subject.stream, "")
    definitions = around.tools.definitions(stores.state, subject.base, subject.env, clock, subject.managed)
    definitions.known = subject.known
    recipe = await repeat("record definition", no_shard, lambda: definitions.record(pipeline, fetched))
    log = CommitLog(stores.state, pipeline.application, clock, process.name)
    start = await repeat("pin start", no_shard, lambda: log.pin_start(subject.stream, FIRST))

    parts = _parts(subject, schedule, state, process, around, (stores, definitions, recipe, log), newer=newer, once=once)
    return Supervisor(subject.stream, start, parts)


def _parts(
    subject: Subject,
    schedule: Schedule,
    state: State,
    process: Process,
    around: Surroundings,
    kept: tuple[Stores, KnownDefinitions, Recipe, CommitLog],
    *,
    newer: bool,
    once: bool,
) -> Parts:
    pipeline, _ = subject.version(newer=newer)
    clock, emit, (stores, definitions, recipe, log) = process.clock, process.emit, kept

    async def rendered(with_recipe: Recipe, unit: CutUnit) -> Rendered:
        return around.tools.render(with_recipe, unit)

    kinesis = source_of(subject, state, process, newer=newer)
    source: LendingSource = ReadUntil(kinesis, clock.now(), clock, end=False, name=subject.stream) if once else kinesis
    checkpoints = LeasedCheckpoints(StoredCheckpoints(stores.state), process)
    places = Places(stores.targets, lambda url: around.open_place(url, process))
    again, repeat = source_of(subject, state, process, newer=newer), Repeater(clock, emit)
    rereader = Rereader(again, definitions, rendered, repeat, emit, admit_gaps=False, reads=record_options(pipeline))
    return Parts(
        worker=process.name,
        source=source,
        log=log,
        committer=around.tools.committer(log, places, checkpoints, clock, emit, process.name),
        checkpoints=checkpoints,
        current=CurrentRecipe(recipe),
        render=rendered,
        render_again=rereader.render,
        limits=Limits(min(schedule.rows, pipeline.flush.rows), unit_bytes(pipeline), schedule.age),
        breaker=NEVER_TRIPS,
        admit_gaps=False,
        budget=kinesis.budget,
        draining=around.draining,
        clock=clock,
        emit=emit,
        repeat=repeat,
        once=once,
    )
