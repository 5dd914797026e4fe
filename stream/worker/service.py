"""One worker process: runs a pipeline until a signal, drains, and says how it ended."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Final

from prometheus_client import CollectorRegistry

import stream
from stream import events
from stream.errors import Fatal
from stream.metrics.catalog import LOOP_LAG
from stream.metrics.logs import JsonLog
from stream.metrics.process import register_process, watch_loop
from stream.metrics.recorder import Recorder
from stream.metrics.server import Health, MetricsServer
from stream.metrics.stall import StallWatch, watch_stalls
from stream.pipeline.model import Pipeline
from stream.worker.allocators import keep_giving_back, prepare_allocators
from stream.worker.assemble import WorkerOptions, assemble
from stream.worker.notifying import open_notifier
from stream.worker.parts import to_all, weightiest
from stream.worker.several import Streams

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def run_worker(pipeline: Pipeline, options: WorkerOptions) -> None:
    """Read, transform, commit, until SIGTERM or SIGINT; then seal what is in hand and return.

    Raises:
        Fatal: something that this process needs is missing, or no shard can go on; what is sealed stays, nothing else is visible.
        DefinitionError: the pipeline asks for something that cannot be had.
    """
    prepare_allocators()
    registry, health = CollectorRegistry(), Health()
    recorder, log = Recorder(registry, options.clock), JsonLog(_to_stderr, options.clock)
    stalls = StallWatch(options.clock)
    emit = to_all(recorder, log, _HealthListener(health), stalls, *options.listeners)
    register_process(registry)
    draining = asyncio.Event()
    try:
        async with AsyncExitStack() as stack:
            stack.enter_context(_signals(draining))
            await stack.enter_async_context(MetricsServer(registry, health, pipeline.metrics.host, pipeline.metrics.port))
            told = await open_notifier(pipeline.notify, pipeline.application, options.env, options.base, options.clock, emit, stack)
            emit = to_all(emit, told) if told else emit
            each = await assemble(pipeline, options, emit, draining, stack)
            budget, exports = each[0].parts.budget, [one.parts.export for one in each if one.parts.export]
            recorder.watch_buffer(lambda: budget.held, budget.limit)
            streams = Streams(each, draining, emit)
            emit(events.WorkerStarted(streams.names, "", each[0].parts.worker, stream.__version__))
            health.clear("worker")
            async with asyncio.TaskGroup() as group:
                aside = [group.create_task(watch_loop(options.clock, lambda late: recorder.set(LOOP_LAG, late)))]
                aside.append(group.create_task(watch_stalls(stalls, options.clock, lambda *where: emit(events.ShardStalled(*where)))))
                aside.append(group.create_task(keep_giving_back(options.clock)))
                aside += [group.create_task(export.run()) for export in exports]
                aside += [group.create_task(keeper.run()) for keeper in [each[0].parts.keeper] if keeper]
                aside += [group.create_task(told.run())] if told else []
                loaders = [loader for one in each for loader in one.loaders]
                aside += [group.create_task(loader.run()) for loader in loaders]
                if (refresher := each[0].parts.refresher) is not None:
                    aside.append(group.create_task(refresher.run()))
                await streams.run(options.drain_seconds)
                if told:
                    await told.finish()
                for task in aside:
                    task.cancel()
                await asyncio.gather(*(export.finish() for export in exports), *(loader.finish() for loader in loaders))
    except ExceptionGroup as group_error:
        raise weightiest(group_error) from group_error
    finally:
        log.flush()
    if streams.halted:
        raise _standing_still(streams.halted)


def _standing_still(halted: Mapping[str, str]) -> Fatal:
    reasons = "\n".join(f"  {where}: {reason}" for where, reason in sorted(halted.items()))
    return Fatal(f"{len(halted)} shard(s) or stream(s) stand still:\n{reasons}")


@contextmanager
def _signals(draining: asyncio.Event) -> Iterator[None]:
    """Until the context ends, SIGTERM and SIGINT ask for the drain, from the first moment on."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, draining.set)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


class _HealthListener:
    """Keeps readiness in step with the shards: a parked shard is an obstacle that a person has to see."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.ShardHalted(stream, shard, reason):
                self._health.block(f"shard {stream}/{shard}" if shard else f"stream {stream}", reason)
            case events.ShardStarted(stream, shard, _):
                self._health.clear(f"shard {stream}/{shard}")
            case events.ShardStalled(stream, shard, seconds):
                self._health.fault = f"shard {stream}/{shard} has not moved for {seconds:.0f} s, and nothing is known to hold it up"
            case events.DrainStarted():
                self._health.block("worker", "draining")
            case _:
                pass


def _to_stderr(line: bytes) -> None:
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()
