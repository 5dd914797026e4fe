"""A pipeline in a function that is invoked when a shard has records: by a Lambda event source mapping, or by a schedule.

An event says which shard has records, and up to which one. The records themselves are read from the stream, from where the commit log ends:
so nothing that the mapping leaves out, repeats or does at the same time elsewhere has any effect on what is committed. An invocation is a
worker for one shard that stops at the last record of the event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from stream import events
from stream.audit.export import Mode
from stream.concurrency import ObservableEvent
from stream.contracts import Shard
from stream.errors import DefinitionError, Fatal, Halted, Retryable, most_severe
from stream.hosts.allowance import Allowance, allowance
from stream.lease.paused import Pause
from stream.pipeline.model import Pipeline
from stream.source.announced import ReadAnnounced
from stream.source.kinesis import KinesisSource
from stream.source.mapping import Delivery
from stream.source.until import ReadUntil
from stream.worker.assemble import WorkerOptions, assemble
from stream.worker.coordination.pausing import CALL
from stream.worker.parts import Stop, StreamParts, to_all
from stream.worker.receivers.notifying import Notifier, open_notifier
from stream.worker.shards.shard import run_shard
from stream.worker.shards.streams import PendingCalls, Streams, halted_error
from stream.worker.shards.supervisor import LISTING_SECONDS, RESTART_SECONDS
from stream.worker.sources.reading import Reading
from stream.worker.tables.loading import complete_all

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Sealed:
    """An ``Emit`` that knows up to where the shard of the current delivery is sealed and checkpointed, and whether any chain has advanced.

    Of positions, the latest counts, not the greatest: a rewind leads back.
    """

    def __init__(self) -> None:
        self._where = ("", "")
        self._position: int | None = 0
        self.advanced = False

    def watch(self, delivery: Delivery) -> None:
        """Forget what was, and watch the shard of ``delivery``."""
        self._where, self._position, self.advanced = (delivery.stream, delivery.shard_id), 0, False

    def __call__(self, event: events.Event) -> None:
        """Note where the shard is."""
        here = (event.stream, event.shard) == self._where
        match event:
            case events.Checkpointed(position=position) | events.RecoveryFinished(position=position) if here:
                self._position = position
            case events.ShardEnded() if here:
                self._position = None
            case events.ManifestSealed():
                self.advanced = True
            case _:
                pass

    def settle(self) -> None:
        """Note that nothing of the current delivery is to be sealed."""
        self._position = None

    def first_missing(self, delivery: Delivery) -> int | None:
        """The first record of ``delivery`` that is not sealed; None if all are."""
        return None if self._position is None else delivery.first_after(self._position)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the invocations of one execution environment share."""

    streams: Mapping[str, StreamParts]
    notifier: Notifier | None
    stack: AsyncExitStack


@dataclass(slots=True)
class _Shards:
    """The shards of one stream as they were last listed, and those known to have ended."""

    listed: dict[str, Shard] = field(default_factory=dict)
    listed_at: float = float("-inf")
    ended: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Time:
    """An invocation's time. ``began``: on the loop's clock."""

    began: float
    allowed: Allowance

    @staticmethod
    def now(seconds: float) -> _Time:
        return _Time(asyncio.get_running_loop().time(), allowance(seconds))

    def set_when_over(self, event: ObservableEvent, share: float = 1.0) -> asyncio.TimerHandle:
        """Set ``event`` once this share of the time for reading is over."""
        return asyncio.get_running_loop().call_at(self.began + share * self.allowed.reading, event.set)


class Function:
    """Runs the invocations of one execution environment, one at a time. ``close`` it at the end.

    ``options.listeners`` get every event. What the first invocation opens serves the following ones, until one fails.
    """

    def __init__(self, pipeline: Pipeline, options: WorkerOptions) -> None:
        self._pipeline = pipeline
        self._sealed = Sealed()
        strict = pipeline.audit.otlp is not None and pipeline.audit.otlp.mode is Mode.STRICT
        self._pending = PendingCalls(strict=strict)
        self._options = options
        self._emit = to_all(self._sealed, self._pending, *options.listeners)
        self._opened: _Opened | None = None
        self._shards: dict[str, _Shards] = {}
        self._paused_parent: Pause | None = None
        """Why a parent of the current delivery's shard is not read to its end."""

    async def close(self) -> None:
        """Close what invocations have left open."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.stack.aclose()

    @property
    def streams(self) -> tuple[str, ...]:
        """The pipeline's streams."""
        return self._pipeline.source.kinesis.names

    async def deliver(self, delivery: Delivery, seconds: float) -> int | None:
        """Commit the records of ``delivery``, and all before them, within ``seconds``. Returns the first one that is not sealed, or None.

        Raises:
            Halted: the shard must not continue by itself.
            Fatal: something is missing, or nothing could be sealed in time.
            DefinitionError: the pipeline does not read that stream, or asks for something that is not available.
        """
        if delivery.stream not in self.streams:
            known = ", ".join(self._pipeline.source.kinesis.names)
            msg = f"the event is about the stream {delivery.stream}, and the pipeline reads {known}; correct the mapping or the pipeline"
            raise DefinitionError(msg)
        time = _Time.now(seconds)
        self._sealed.watch(delivery)
        self._paused_parent = None
        try:
            async with asyncio.timeout(time.allowed.working):
                await self._deliver(delivery, time)
        except TimeoutError:
            pass
        except Halted:
            raise
        except Exception:
            await self.close()
            raise
        missing = self._sealed.first_missing(delivery)
        if missing is not None and not self._sealed.advanced:
            if (pause := self._pause_of(delivery)) is not None:
                msg = f"{pause}. Lambda tries again until `stream resume`; to spare these attempts, disable the event source mapping, too"
                raise Fatal(msg)
            waits = (
                str(self._pending) or "  nothing is known to hold it up; give the function more time, or more memory, and so more of a core"
            )
            where = f"{delivery.stream}/{delivery.shard_id}"
            msg = f"no record of {where} could be sealed in {seconds:.1f} s. Nothing is lost, and Lambda tries again:\n{waits}"
            raise Fatal(msg)
        return missing

    async def catch_up(self, seconds: float) -> Sequence[str]:
        """Commit what the stream holds now, of every shard, and load the tables, as far as possible within ``seconds``.

        This is for what no mapping delivers: the last records of a shard if the mapping gave them up, ends of shards, spans that a
        collector did not accept, and loads. Returns what is left for the next time, in words.

        Raises:
            Fatal: shards are halted, and the others were read; or something is missing.
            DefinitionError: the pipeline asks for something that is not available.
        """
        time = _Time.now(seconds)
        try:
            async with asyncio.timeout(time.allowed.working):
                return await self._catch_up(time)
        except TimeoutError:
            return [f"the time, {seconds:.0f} s, was over before all was done"]
        except Exception:
            await self.close()
            raise

    def _pause_of(self, delivery: Delivery) -> Pause | None:
        """Why the shard of ``delivery`` is not read, if an operator has paused it or one that comes before it."""
        if self._opened is None or self._paused_parent is not None:
            return self._paused_parent
        return self._opened.streams[delivery.stream].parts.pause_of(Shard(delivery.stream, delivery.shard_id))

    # --- one delivery -----------------------------------------------------------------------------------------------------

    async def _deliver(self, delivery: Delivery, time: _Time) -> None:
        opened = await self._open(delivery.first_arrival)
        stream, draining = opened.streams[delivery.stream], ObservableEvent()
        timer = time.set_when_over(draining)
        async with self._services(opened, [stream]):
            try:
                if stream.parts.refresher is not None:
                    await stream.parts.refresher.refresh_if_due()
                shard = await self._listed(stream, delivery.shard_id)
                await self._run(shard, delivery, replace(stream, parts=replace(stream.parts, draining=draining)))
            finally:
                timer.cancel()

    async def _run(self, shard: Shard, delivery: Delivery, stream: StreamParts) -> None:
        parts = stream.parts
        if parts.pause_of(shard) is not None:
            return
        up_to = replace(parts, source=ReadAnnounced(_own(stream), {shard.shard_id: delivery.numbers}, parts.emit))
        before_the_start = delivery.last_arrival < (stream.start.timestamp or _LONG_AGO)
        while not parts.draining.is_set():
            try:
                if before_the_start and await parts.checkpoints.read(shard) is None:
                    self._sealed.settle()
                elif await self._end_parents(shard, stream):
                    await run_shard(shard, stream.start, up_to)
            except Retryable as error:
                parts.emit(events.CallRepeated(shard.stream, shard.shard_id, "run shard", str(error), RESTART_SECONDS))
                await parts.clock.sleep(RESTART_SECONDS)
            except Halted as error:
                parts.emit(events.ShardHalted(shard.stream, shard.shard_id, str(error)))
                raise
            else:
                return

    async def _end_parents(self, shard: Shard, stream: StreamParts) -> bool:
        """Read the parents of ``shard`` to their ends, if the log does not say yet that they are; returns whether all have ended now.

        A mapping delivers the records of a parent before those of its children, but does not say that it has ended.
        """
        for parent in await self._unended(shard, stream):
            self._paused_parent = stream.parts.pause_of(parent)
            if self._paused_parent is not None or isinstance(await run_shard(parent, stream.start, stream.parts), Stop):
                return False
            self._shards[stream.stream].ended.add(parent.shard_id)
        return True

    async def _unended(self, shard: Shard, stream: StreamParts) -> list[Shard]:
        """The listed ancestors of ``shard`` that are not known to have ended, oldest first."""
        known, found, rest = self._shards[stream.stream], dict[str, Shard](), list(shard.parents)
        while rest:
            parent = known.listed.get(rest.pop())
            if parent is None or parent.shard_id in known.ended or parent.shard_id in found:
                continue
            checkpoint = await stream.parts.checkpoints.read(parent)
            if checkpoint is not None and checkpoint.position is None:
                # A checkpoint may lag behind the log, but never lead it.
                known.ended.add(parent.shard_id)
                continue
            found[parent.shard_id] = parent
            rest += parent.parents
        return [found[name] for name in sorted(found)]

    async def _listed(self, stream: StreamParts, shard_id: str) -> Shard:
        """The shard as Kinesis lists it; one that is listed no more is read too: its end, or what was lost, belongs in the log."""
        known, now = self._shards.setdefault(stream.stream, _Shards()), stream.parts.clock.monotonic()
        if shard_id not in known.listed or now - known.listed_at >= LISTING_SECONDS:
            found = await stream.parts.repeat("list shards", Shard(stream.stream, shard_id), stream.parts.source.shards)
            known.listed, known.listed_at = {shard.shard_id: shard for shard in found}, now
        return known.listed.get(shard_id, Shard(stream.stream, shard_id))

    # --- all shards -------------------------------------------------------------------------------------------------------

    async def _catch_up(self, time: _Time) -> Sequence[str]:
        opened = await self._open(self._options.clock.now())
        loaders = [loader for stream in opened.streams.values() for loader in stream.loaders]
        draining, loading_over = ObservableEvent(), ObservableEvent()
        # Loads come after reading, and each gets half of the time.
        timers = [time.set_when_over(draining, 0.5 if loaders else 1.0), time.set_when_over(loading_over)]
        try:
            async with self._services(opened, opened.streams.values()):
                until_now = [_until_now(stream, draining) for stream in opened.streams.values()]
                streams = Streams(until_now, draining, self._emit, self._pending)
                await streams.run(time.allowed.working)
                left = await complete_all(loaders, loading_over, "the time was over")
                await asyncio.gather(*(loader.finish() for loader in loaders))
        finally:
            for timer in timers:
                timer.cancel()
        if streams.halted:
            raise halted_error(streams.halted)
        paused = dict.fromkeys(str(pause) for pause in streams.paused.values())
        return [*(f"{name} is not read to its tip" for name in streams.interrupted), *paused, *left]

    # --- what invocations share -------------------------------------------------------------------------------------------

    async def _open(self, since: datetime) -> _Opened:
        """The parts of the worker. With ``start: latest``, a stream begins ``since`` the first record that was ever delivered."""
        if self._opened is None:
            options, pipeline = self._options, self._pipeline
            async with AsyncExitStack() as stack:
                notify = (pipeline.notify, pipeline.application, options.env, options.base, options.clock, self._emit)
                notifier = await open_notifier(*notify, stack)
                emit = to_all(self._emit, notifier) if notifier else self._emit
                reading = Reading(announced_since=since)
                made = await assemble(pipeline, replace(options, reading=reading), emit, ObservableEvent(), stack)
                self._opened = _Opened({each.stream: each for each in made}, notifier, stack.pop_all())
        else:
            parts = next(iter(self._opened.streams.values())).parts
            if parts.pauses is not None:
                # All streams share them. Between invocations nothing runs that would look.
                await parts.repeat(CALL, Shard(self._pipeline.source.kinesis.names[0], ""), parts.pauses.refresh)
        return self._opened

    @asynccontextmanager
    async def _services(self, opened: _Opened, streams: Iterable[StreamParts]) -> AsyncIterator[None]:
        """Export spans and send notifications beside the work in the block, and finish both after it, unless the time is over."""
        exports = [each.parts.export for each in streams if each.parts.export is not None]
        failed: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                exporting = [group.create_task(export.run(), name="export") for export in exports]
                notifying = [group.create_task(opened.notifier.run(), name="notify")] if opened.notifier else []
                try:
                    yield
                except Exception as error:  # noqa: BLE001 - raised again below, after people were notified of it
                    failed = error
                for task in exporting:
                    task.cancel()
                await asyncio.gather(*exporting, return_exceptions=True)
                await asyncio.gather(*(export.finish() for export in exports))
                if opened.notifier:
                    await opened.notifier.finish()
                for task in notifying:
                    task.cancel()
        except ExceptionGroup as group_error:
            raise most_severe(group_error) from group_error
        if failed is not None:
            raise failed


def _own(stream: StreamParts) -> KinesisSource:
    """The source of our own reads."""
    source = stream.parts.source
    if not isinstance(source, KinesisSource):
        msg = f"{stream.stream} is not a Kinesis stream, and a function is invoked with records of one"
        raise Fatal(msg)
    return source


def _until_now(stream: StreamParts, draining: ObservableEvent) -> StreamParts:
    """``stream`` for one reading of what it holds now."""
    parts = stream.parts
    source = ReadUntil(_own(stream), parts.clock.now(), parts.clock, end=False, name=stream.stream)
    return replace(stream, parts=replace(parts, source=source, once=True, draining=draining))
