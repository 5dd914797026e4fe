"""One worker process: runs a pipeline until a signal, drains, and says how it ended."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from prometheus_client import CollectorRegistry

import stream
from stream import events
from stream.audit.export import Mode
from stream.audit.lineage import RunTotals, run_id
from stream.audit.operations import Operations
from stream.aws.secrets import read_secret
from stream.concurrency import ObservableEvent, unless_set
from stream.contracts import Emit
from stream.errors import Fatal
from stream.lease.paused import Pause
from stream.metrics.board import Board
from stream.metrics.catalog import LOG_LINES_DROPPED, LOOP_LAG, TELEMETRY_SPANS
from stream.metrics.log_output import standard_error
from stream.metrics.logs import JsonLog
from stream.metrics.process import register_process, watch_loop
from stream.metrics.recorder import Recorder
from stream.metrics.server import Health, MetricsServer
from stream.metrics.stall import StallWatch, watch_stalls
from stream.pipeline.limits import memory_need
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.secrets import SecretReader
from stream.storage.prefixed import PrefixedStore
from stream.watchdog import WATCHDOG
from stream.worker.assemble import WorkerOptions, assemble, ends_by_itself, worker_id
from stream.worker.halts.notes import HaltNotes
from stream.worker.objects.watching import Watcher
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.parts import Parts, StreamParts, to_all
from stream.worker.process.allocators import prepare_allocators, trim_periodically
from stream.worker.process.failure import reporting_failure
from stream.worker.process.hung import watching_files
from stream.worker.process.patience import Patience
from stream.worker.process.readiness import Readiness
from stream.worker.process.reporting import reports_to
from stream.worker.process.startup import leave_startup_behind
from stream.worker.process.threads import limit_default_threads
from stream.worker.receivers.lineage import Reporter, job_of, open_reporter
from stream.worker.receivers.notifying import Notifier, open_notifier
from stream.worker.receivers.telemetry import OperationTracker, SpanQueue, spans_to_collector
from stream.worker.shards.streams import PendingCalls, Streams, halted_error
from stream.worker.tables.loading import complete_all

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def run_worker(pipeline: Pipeline, options: WorkerOptions) -> None:
    """Read, transform and commit until SIGTERM or SIGINT, or until everything has been read. Then seal the units in progress and return.

    Raises:
        Fatal: something that this process needs is missing, no shard can continue, or a signal interrupted a run that ends by itself.
            What is sealed stays, and nothing else is visible.
        DefinitionError: the pipeline asks for something that cannot be provided.
    """
    prepare_allocators()
    limit_default_threads(options.threads)
    registry, health = CollectorRegistry(), Health()
    recorder, name = Recorder(registry, options.clock), worker_id(options.clock)
    output = standard_error()
    log = JsonLog(output, options.clock, options.log_level, lambda: recorder.add(LOG_LINES_DROPPED, 1))
    tracker = OperationTracker(Operations(pipeline.application, name, options.clock), log)
    totals, board = RunTotals(), Board(pipeline.application, options.clock)
    stalls, patience = StallWatch(options.clock), Patience(options.clock)
    pending = PendingCalls(strict=pipeline.audit.otlp is not None and pipeline.audit.otlp.mode is Mode.STRICT)
    emit = to_all(recorder, tracker, totals, stalls, pending, board, Readiness(health), patience, *options.listeners)
    register_process(registry)
    draining = _set_by_signals()
    with output, WATCHDOG.telling(reports_to(log)), reporting_failure(", ".join(pipeline.source.kinesis.names), log, emit):
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(watching_files(options.clock, emit))
            await stack.enter_async_context(patience.limiting(ends=ends_by_itself(pipeline, options.reading)))
            await stack.enter_async_context(MetricsServer(registry, health, board, pipeline.metrics.host, pipeline.metrics.port))
            opening = _open(pipeline, replace(options, worker=name), tracker, recorder, totals, emit, draining, stack)
            if (opened := await unless_set(draining, opening)) is None:
                _drained_before_start(pipeline, options, emit)
                return
            parts_by_stream, notifier, notes, reporter, emit = opened
            # The streams of a worker share these.
            shared = parts_by_stream[0].parts
            recorder.watch_buffer(lambda: shared.budget.held, shared.budget.limit)
            streams = Streams(parts_by_stream, draining, emit, pending)
            _report_start(streams.names, shared.worker, pipeline, options, emit)
            health.clear("worker")
            leave_startup_behind()
            async with asyncio.TaskGroup() as group:
                background = _watch_itself(group, options, recorder, stalls, emit)
                senders = [each for one in parts_by_stream for each in (one.parts.export, *one.loaders)]
                watchers = _watchers(parts_by_stream, draining)
                shared_services = (shared.leases, shared.pauses, shared.refresher, shared.keeper)
                services = (*senders, *watchers, reporter, notifier, notes, *shared_services)
                background += [group.create_task(each.run(), name=type(each).__name__) for each in services if each is not None]
                await streams.run(options.drain_seconds)
                await asyncio.gather(*(watcher.finish() for watcher in watchers))
                if shared.leases is not None:
                    await shared.leases.leave()
                if notifier:
                    await notifier.finish()
                await notes.finish()
                for task in background:
                    task.cancel()
                await asyncio.wait(background)
                unloaded = await _export_and_load_rest(parts_by_stream, streams, draining)
        _refuse_unfinished(streams, unloaded)


def _watch_itself(
    group: asyncio.TaskGroup, options: WorkerOptions, recorder: Recorder, stalls: StallWatch, emit: Emit
) -> list[asyncio.Task[None]]:
    """Tasks that look after the process, until they are cancelled."""
    clock = options.clock
    return [
        group.create_task(watch_loop(clock, lambda late: recorder.set(LOOP_LAG, late)), name="watch loop"),
        group.create_task(watch_stalls(stalls, clock, functools.partial(_report_stall, emit)), name="watch stalls"),
        group.create_task(trim_periodically(clock), name="trim memory"),
    ]


def _report_start(names: str, worker: str, pipeline: Pipeline, options: WorkerOptions, emit: Emit) -> None:
    """Report that the worker is up, and a container that is too small. It is not refused: a quiet stream may never fill the budget."""
    emit(events.WorkerStarted(names, "", worker, stream.__version__))
    need, limit = memory_need(pipeline), options.memory_limit
    if limit is not None and (shortage := need.shortage(limit)):
        emit(events.MemoryShort(", ".join(pipeline.source.kinesis.names), "", limit, need.least, shortage))


def _report_stall(emit: Emit, stream_name: str, shard: str, seconds: float) -> None:
    """Report a shard that stands still, and what the process waits for: liveness is about to have it restarted."""
    emit(events.ShardStalled(stream_name, shard, seconds))
    WATCHDOG.tell(f"the shard {stream_name}/{shard} stands still")


def _watchers(parts_by_stream: Sequence[StreamParts], draining: ObservableEvent) -> list[Watcher]:
    """What claims objects, told of a drain as soon as it begins."""
    watchers = [one.watcher for one in parts_by_stream if one.watcher is not None]
    draining.listeners += [watcher.drain for watcher in watchers]
    return watchers


async def _export_and_load_rest(parts_by_stream: Sequence[StreamParts], streams: Streams, draining: asyncio.Event) -> list[str]:
    """Export the remaining spans and load the remaining rows, all of them if the run is complete. Returns why rows are not loaded."""
    complete = parts_by_stream[0].parts.once and not streams.halted and not streams.interrupted and not streams.paused
    exports = [one.parts.export for one in parts_by_stream if one.parts.export]
    loaders = [loader for one in parts_by_stream for loader in one.loaders]
    unloaded = await complete_all(loaders if complete else [], draining)
    await asyncio.gather(*(export.finish(draining if complete else None) for export in exports), *(loader.finish() for loader in loaders))
    return unloaded


def _refuse_unfinished(streams: Streams, unloaded: Sequence[str]) -> None:
    if streams.halted:
        raise halted_error(streams.halted)
    if streams.interrupted:
        raise _interrupted_error(streams.interrupted)
    if streams.paused:
        raise _paused_error(streams.paused)
    if unloaded:
        msg = f"rows that this run sealed are not loaded ({'; '.join(unloaded)}); nothing is lost, run it again to continue"
        raise Fatal(msg)


async def _open(
    pipeline: Pipeline,
    options: WorkerOptions,
    tracker: OperationTracker,
    recorder: Recorder,
    totals: RunTotals,
    emit: Emit,
    draining: ObservableEvent,
    stack: AsyncExitStack,
) -> tuple[list[StreamParts], Notifier | None, HaltNotes, Reporter | None, Emit]:
    """What a worker needs before it reads: the parts of its streams, what tells of halts, the reporter of runs, and the ``Emit``."""
    session = session_of(pipeline)
    managed = functools.partial(read_secret, session)
    tracker.sender = await _span_queue(pipeline, options, managed, emit, recorder, stack)
    notifier = await open_notifier(pipeline.notify, pipeline.application, options.env, options.base, options.clock, emit, stack)
    state, exports = Stores.open(pipeline, options.base, session).state, pipeline.audit.otlp is not None
    notes = HaltNotes(state, options.worker, options.clock, emit, exports=exports)
    emit = to_all(emit, notifier, notes) if notifier else to_all(emit, notes)
    parts_by_stream = await assemble(pipeline, options, emit, draining, stack)
    reporter = await _reporter(pipeline, options, parts_by_stream[0].parts, totals, managed, stack)
    return parts_by_stream, notifier, notes, reporter, emit


def _drained_before_start(pipeline: Pipeline, options: WorkerOptions, emit: Emit) -> None:
    """Report a drain that began before anything was read. It is done at once, but a run that ends by itself has not done its work."""
    emit(events.DrainStarted(", ".join(pipeline.source.kinesis.names), "", options.drain_seconds))
    if ends_by_itself(pipeline, options.reading):
        raise _interrupted_error(pipeline.source.kinesis.names)


def _paused_error(paused: Mapping[str, Pause]) -> Fatal:
    """The error of a run that ends by itself and must not read everything: exit code 0 would mean that it has."""
    reasons = "\n".join(f"  {where}: {pause}" for where, pause in sorted(paused.items()))
    msg = f"{len(paused)} shard(s) are paused, so this run has not read everything; run it again after `stream resume`:\n{reasons}"
    return Fatal(msg)


def _interrupted_error(streams: Sequence[str]) -> Fatal:
    """The error of a run that a signal interrupted: exit code 0 would mean that everything was read."""
    names = ", ".join(streams)
    return Fatal(f"a signal ended the run, and it is not known that {names} is read to its end; nothing is lost, run it again to continue")


def _set_by_signals() -> ObservableEvent:
    """The request to drain, which SIGTERM and SIGINT make.

    The handlers stay until the loop is closed, not only until the drain is done: a second signal, from a user or from a supervisor that
    signals the whole process group, must not interrupt the last steps.
    """
    loop, draining = asyncio.get_running_loop(), ObservableEvent()
    for number in _SIGNALS:
        loop.add_signal_handler(number, draining.set)
    return draining


async def _span_queue(
    pipeline: Pipeline, options: WorkerOptions, managed: SecretReader, emit: Emit, recorder: Recorder, stack: AsyncExitStack
) -> SpanQueue | None:
    """The queue for spans of this worker's operations, if the pipeline has telemetry."""
    if pipeline.telemetry is None:
        return None

    def count(result: str, spans: int) -> None:
        recorder.add(TELEMETRY_SPANS, spans, result)

    names = pipeline.application, options.worker
    queue = spans_to_collector(pipeline.telemetry, names, options.env, options.base, managed, emit, count)
    return await stack.enter_async_context(queue)


async def _reporter(
    pipeline: Pipeline, options: WorkerOptions, parts: Parts, totals: RunTotals, managed: SecretReader, stack: AsyncExitStack
) -> Reporter | None:
    """The reporter of this run, or None if the pipeline has none."""
    lineage = pipeline.audit.lineage
    if lineage is None:
        return None
    state = parts.log.store
    job, run = job_of(pipeline, lineage, parts.recipe, state, options.base), run_id(pipeline.application, parts.worker)
    reporter = Reporter(job, run, totals, PrefixedStore(state, "lineage/"), parts.clock, parts.emit, lineage.interval)
    return await open_reporter(reporter, lineage, options.env, options.base, managed, stack)
