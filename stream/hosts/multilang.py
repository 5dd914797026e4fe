"""A worker for one shard as a child of the KCL's MultiLangDaemon, which owns leases and retrieval. The commit log is the usual one.

The daemon sends a message and waits for the reply. Records are passed to the shard's task as they arrive. The daemon's checkpoint is
advanced to what is sealed with its next message, because it accepts checkpoints at no other time. A halted shard drops its records, and its
checkpoint stays: exiting would end every shard of the daemon.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any, BinaryIO, Final

from stream import events
from stream.aws.errors import AccessRefused
from stream.commit.retry import RefusedWaits
from stream.concurrency import ObservableEvent, unless_set
from stream.contracts import Emit, Shard, Start, StartKind
from stream.errors import DefinitionError, Fatal, Halted, LeaseLost, Retryable, unforeseen
from stream.hosts.daemon_source import DaemonSource
from stream.lease import multilang as ml
from stream.lease.rows import TRIM_HORIZON
from stream.metrics.log_output import standard_error
from stream.metrics.logs import JsonLog
from stream.pipeline.model import Pipeline, Retrieval
from stream.source.kinesis import KinesisSource
from stream.watchdog import WATCHDOG
from stream.worker.assemble import WorkerOptions, assemble, worker_id
from stream.worker.halts.notes import HaltNotes
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.parts import Stop, StreamParts, to_all
from stream.worker.process.allocators import prepare_allocators
from stream.worker.process.failure import reporting_failure
from stream.worker.process.reporting import reports_to
from stream.worker.process.threads import limit_default_threads
from stream.worker.shards.reasons import GOES_ON
from stream.worker.shards.shard import run_shard
from stream.worker.shards.supervisor import RESTART_SECONDS

LINE_BYTES: Final = 256 * 2**20
"""Longest line, in bytes: GetRecords returns up to 10 MiB, which base64 and expanded KPL aggregates can multiply."""

_GONE: Final = frozenset({"ShutdownException", "LeaseLostException"})
"""The daemon's answer to a checkpoint when the shard belongs to another worker."""


class Daemon:
    """The two ends of the pipe."""

    def __init__(self, lines: asyncio.StreamReader, out: BinaryIO) -> None:
        self._lines = lines
        self._out = out

    async def receive(self) -> ml.Message | None:
        """The next message; None once the daemon has closed the pipe.

        Raises:
            Fatal: it is not a known message.
        """
        while (line := await self._lines.readline()) and not line.strip():
            pass
        return ml.parse(line) if line else None

    def send(self, line: bytes) -> None:
        """Write a line immediately. If the daemon is gone, the line is dropped, and ``receive`` returns None next."""
        with suppress(BrokenPipeError):
            self._out.write(line)
            self._out.flush()


class Progress:
    """An ``Emit`` that tracks how far the shard is committed, and up to which delivered record the daemon may checkpoint."""

    def __init__(self) -> None:
        self._committed = 0
        self._delivered: deque[tuple[int, str, int]] = deque()

    def __call__(self, event: events.Event) -> None:
        """Note commits."""
        match event:
            case events.Checkpointed(_, _, int(position)) | events.RecoveryFinished(_, _, position, _, _):
                self._committed = max(self._committed, position)
            case _:
                pass

    def delivered(self, records: list[ml.Record]) -> None:
        """Note that the daemon delivered ``records``; it accepts checkpoints up to the last of them."""
        if records:
            last = records[-1]
            self._delivered.append((int(last.sequenceNumber), last.sequenceNumber, last.subSequenceNumber or 0))

    def due(self) -> tuple[str, int] | None:
        """The last delivered record that is committed, if the daemon does not know it yet."""
        while len(self._delivered) > 1 and self._delivered[1][0] <= self._committed:
            self._delivered.popleft()
        if not self._delivered or self._delivered[0][0] > self._committed:
            return None
        _, sequence, subsequence = self._delivered[0]
        return sequence, subsequence

    def accepted(self) -> None:
        """Note that the daemon has accepted the checkpoint that was due."""
        self._delivered.popleft()


class Child:
    """Serves one shard's requests until the pipe closes. ``latest``: the stream is read from its tip, as it was when it was first read."""

    def __init__(
        self, daemon: Daemon, stream: StreamParts, progress: Progress, emit: Emit, drain_seconds: float, *, latest: bool = False
    ) -> None:
        self._daemon = daemon
        self._start = stream.start
        self._latest = latest
        if not isinstance(stream.parts.source, KinesisSource):
            msg = "the daemon's shards are those of a Kinesis stream"
            raise Fatal(msg)
        self._source = DaemonSource(stream.parts.source, stream.parts.budget, emit)
        # A pause would leave the daemon's messages unanswered, and with them its lease: `stream pause` refuses such a pipeline.
        self._parts = replace(stream.parts, source=self._source, pauses=None)
        self._stream = stream.stream
        self._progress = progress
        self._emit = emit
        self._drain_seconds = drain_seconds
        self._stopped = asyncio.Event()
        self._ended = False
        self._refused = RefusedWaits(stream.parts.clock)

    async def run(self) -> None:
        """Serve until the daemon closes the pipe.

        Raises:
            Fatal: the process cannot continue; the daemon notices that it is gone.
        """
        first = await self._daemon.receive()
        if first is None:
            return
        if not isinstance(first, ml.Initialize):
            msg = f"the MultiLangDaemon began with {type(first).__name__} instead of Initialize"
            raise Fatal(msg)
        if self._latest and first.sequenceNumber == TRIM_HORIZON:
            # It continues a leased shard, which another application may have read, before this one began to read the stream from its tip.
            self._start = Start(StartKind.TRIM_HORIZON)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self._work(first.shardId), name=f"work on {first.shardId}")
            self._daemon.send(ml.done(first))
            while (message := await self._daemon.receive()) is not None:
                await self._answer(message, working)
            working.cancel()

    async def _answer(self, message: ml.Message, working: asyncio.Task[None]) -> None:
        match message:
            case ml.ProcessRecords(records, behind_ms):
                await self._unless_stopped(self._source.deliver(ml.batch_of(records), behind_ms or 0))
                self._progress.delivered(records)
                await self._checkpoint()
            case ml.ShardEnded() | ml.Shutdown("TERMINATE"):
                await self._unless_stopped(self._source.end())
                await self._stopped.wait()
                if self._ended:
                    await self._ask(None, None)
            case ml.ShutdownRequested():
                await self._drain(working)
                await self._checkpoint()
            case ml.LeaseLost() | ml.Shutdown():
                working.cancel()
                await self._stopped.wait()
            case ml.Initialize() | ml.CheckpointDone():
                msg = f"the MultiLangDaemon sent {type(message).__name__} where none was expected"
                raise Fatal(msg)
        self._daemon.send(ml.done(message))

    async def _drain(self, working: asyncio.Task[None]) -> None:
        self._emit(events.DrainStarted(self._stream, "", self._drain_seconds))
        try:
            async with asyncio.timeout(self._drain_seconds):
                # Our own client may still be reading the last delivery again. A shard that drains does not wait for that.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._drain_seconds / 2):
                        await self._unless_stopped(self._source.passed_on())
                self._parts.draining.set()
                await self._stopped.wait()
        except TimeoutError:
            working.cancel()
            await self._stopped.wait()

    async def _unless_stopped(self, delivery: Coroutine[Any, Any, None]) -> None:
        """Wait until the shard's task has taken a delivery, or has stopped."""
        async with asyncio.TaskGroup() as group:
            delivering = group.create_task(delivery, name="deliver to the shard")
            stopped = group.create_task(self._stopped.wait(), name="wait for the shard to stop")
            await asyncio.wait([delivering, stopped], return_when=asyncio.FIRST_COMPLETED)
            delivering.cancel()
            stopped.cancel()

    async def _checkpoint(self) -> None:
        if (due := self._progress.due()) is not None and await self._ask(*due):
            self._progress.accepted()

    async def _ask(self, sequence: str | None, subsequence: int | None) -> bool:
        """Request a checkpoint; returns whether the daemon accepted it. If not, it is requested again with the daemon's next message."""
        self._daemon.send(ml.checkpoint(sequence, subsequence))
        answer = await self._daemon.receive()
        if answer is None:
            return False
        if not isinstance(answer, ml.CheckpointDone):
            msg = f"the MultiLangDaemon answered a checkpoint with {type(answer).__name__}"
            raise Fatal(msg)
        if answer.error is not None and answer.error not in _GONE:
            self._emit(events.CallRepeated(self._stream, "", "daemon checkpoint", answer.error, 0.0))
        return answer.error is None

    async def _work(self, shard_id: str) -> None:
        try:
            while not await self._once(shard_id):
                pass
        finally:
            self._stopped.set()

    async def _once(self, shard_id: str) -> bool:
        """Run the shard; returns whether it is done. If not, it is time to run it again."""
        where = (self._stream, shard_id)
        try:
            listed = {shard.shard_id: shard for shard in await self._parts.source.shards()}
            shard = listed.get(shard_id, Shard(self._stream, shard_id))
            self._ended = not isinstance(await run_shard(shard, self._start, self._parts), Stop)
        except Retryable as error:
            self._emit(events.CallRepeated(*where, "run shard", str(error), RESTART_SECONDS))
            await self._parts.clock.sleep(RESTART_SECONDS)
            return False
        except AccessRefused as error:
            # As under our own supervisor: who has sealed something has lost its access, and may get it back.
            if self._parts.committer.sealed == 0:
                raise
            self._emit(events.ShardHalted(*where, f"{str(error).rstrip('.')}. {GOES_ON}"))
            if not self._parts.draining.is_set():
                await unless_set(self._parts.draining, self._parts.clock.sleep(self._refused.next()))
                return False
        except Fatal:
            raise
        except LeaseLost:
            self._emit(events.ShardReleased(*where, "lease_lost"))
        except Halted as error:
            self._emit(events.ShardHalted(*where, str(error)))
        except Exception as error:  # noqa: BLE001 - ending the process would end every shard of the daemon
            self._emit(events.ShardHalted(*where, unforeseen(error)))
        return True


async def run_child(pipeline: Pipeline, options: WorkerOptions, pipe: tuple[BinaryIO, BinaryIO]) -> None:
    """Serve the daemon at the other end of ``pipe`` (in, out); ``pipeline`` reads one stream.

    Raises:
        Fatal: something that this process needs is missing.
        DefinitionError: the pipeline asks for something that is not available.
    """
    prepare_allocators()
    limit_default_threads(options.threads)
    progress, output = Progress(), standard_error()
    log = JsonLog(output, options.clock, options.log_level)
    emit = to_all(log, progress, *options.listeners)
    with output, WATCHDOG.telling(reports_to(log)), reporting_failure(pipeline.source.kinesis.stream, log, emit):
        async with AsyncExitStack() as stack:
            lines = asyncio.StreamReader(limit=LINE_BYTES)
            await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), pipe[0])
            state = Stores.open(pipeline, options.base, session_of(pipeline)).state
            name, exports = options.worker or worker_id(options.clock), pipeline.audit.otlp is not None
            notes = HaltNotes(state, name, options.clock, emit, exports=exports)
            emit = to_all(emit, notes)
            (stream,) = await assemble(polled(pipeline), options, emit, ObservableEvent(), stack)
            export = stream.parts.export
            async with asyncio.TaskGroup() as group:
                parts = (export, stream.parts.refresher, notes)
                background = [group.create_task(part.run(), name=type(part).__name__) for part in parts if part is not None]
                latest = pipeline.source.kinesis.start.kind is StartKind.LATEST
                await Child(Daemon(lines, pipe[1]), stream, progress, emit, options.drain_seconds, latest=latest).run()
                await notes.finish()
                for task in background:
                    task.cancel()
                if export:
                    await export.finish()


def polled(pipeline: Pipeline) -> Pipeline:
    """``pipeline`` with polling for what our own client reads again: the daemon owns the subscriptions."""
    kinesis = pipeline.source.kinesis
    own = tuple(entry for entry in kinesis.streams if entry.stream == kinesis.stream)
    name = "" if own else kinesis.stream
    kinesis = kinesis.model_copy(update={"retrieval": Retrieval.POLLING, "streams": own, "stream": name})
    return pipeline.model_copy(update={"source": pipeline.source.model_copy(update={"kinesis": kinesis})})


def protected_pipe() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output, reserved for the protocol: other readers find nothing, and other output goes to standard error.

    Ignores signals to end: the daemon itself asks for the end, and a signal to the process group must not end the child first.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(incoming, "rb", buffering=0), os.fdopen(outgoing, "wb", buffering=0)


def one_stream(pipeline: Pipeline, stream: str | None) -> Pipeline:
    """``pipeline`` narrowed to the named stream, or to its only one.

    Raises:
        DefinitionError: there is no such stream, or there are several and none was named.
    """
    wanted = None if stream is None else pipeline.source.kinesis.called(stream)
    found = [one for one in pipeline.each() if wanted in {None, one.source.kinesis.stream}]
    if len(found) != 1:
        msg = f"a daemon reads one stream; name it with --stream: {', '.join(pipeline.source.kinesis.names)}"
        raise DefinitionError(msg)
    return found[0]
