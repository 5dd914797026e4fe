"""The export of spans as a part of the worker: after each sealed unit, or by command for a range."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp

from stream import events
from stream.audit.chain import Link, LinkKind
from stream.audit.export import Answer, Cursor, Exporter, Mode, Sender
from stream.audit.ledger import Segment, SegmentError, read_segment
from stream.audit.objects import Area
from stream.audit.spans import Shape
from stream.aws.secrets import read_secret
from stream.aws.session import AwsSession
from stream.clock import SystemClock
from stream.commit.log import CommitLog
from stream.commit.lookup import shards_of
from stream.commit.naming import manifest_key
from stream.contracts import Checkpoint, Checkpoints, Clock, Emit, ObjectStore, Shard
from stream.errors import DefinitionError, Halted, Retryable, StreamError
from stream.pipeline.model import Otlp, Pipeline
from stream.pipeline.secrets import SecretReader, find_secret
from stream.worker.auditing import Stores, link_of
from stream.worker.places import located

TIMEOUT: Final = 30.0
"""Seconds that a collector may take over one request."""

LOOK_SECONDS: Final = 1.0
"""Between looks at a shard's log where nothing was sealed in between."""

FINISH_SECONDS: Final = 5.0
"""After the last unit is sealed; a drain must not hang on a collector."""

ANSWER_BYTES: Final = 65_536

_dice = secrets.SystemRandom().random


class HttpCollector:
    """``audit.export.Collector`` over OTLP/HTTP with protobuf bodies."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: str, headers: Mapping[str, str]) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._headers = {"content-type": "application/x-protobuf", **headers}

    async def send(self, path: str, body: bytes, encoding: str) -> Answer:
        """See ``audit.export.Collector``."""
        headers = self._headers | ({"content-encoding": encoding} if encoding else {})
        try:
            async with self._session.post(f"{self._endpoint}{path}", data=body, headers=headers, allow_redirects=False) as answer:
                content = await answer.content.read(ANSWER_BYTES)
                return Answer(answer.status, content, answer.headers.get("retry-after", ""), answer.reason or "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Answer(0, detail=f"{type(error).__name__} at {self._endpoint}")


class LogUnits:
    """``audit.export.Units`` over the commit log and the ledger."""

    def __init__(self, log: CommitLog, stream: str, areas: Mapping[str, Area], ledger: ObjectStore) -> None:
        self._log = log
        self._stream = stream
        self._areas = areas
        self._ledger = ledger

    async def read(self, shard: str, after: int) -> tuple[Link, Segment | None, Mapping[tuple[str, str], str]] | None:
        """See ``audit.export.Units``; raises ``Halted`` where a sealed unit has no readable ledger."""
        key = manifest_key(self._stream, shard, after)
        stored = await self._log.store.get(key)
        if stored is None:
            return None
        link = link_of(key, stored.body, after)
        if not link.sealed:
            return None
        urls = {(file.sink, file.key): self._areas[file.sink].url_of(file.key) for file in link.files if file.sink in self._areas}
        if link.kind is LinkKind.END or link.ledger is None:
            return link, None, urls
        body = await self._ledger.get(link.ledger.key)
        try:
            if body is not None:
                return link, await asyncio.to_thread(read_segment, body.body), urls
            why = "it is missing"
        except SegmentError as error:
            why = str(error)
        msg = f"the ledger of {shard} behind {after} cannot be exported: {why}; `stream audit verify` says what else is wrong"
        raise Halted(msg)


async def open_sender(
    otlp: Otlp, env: Mapping[str, str], base: Path, clock: Clock, emit: Emit, stack: AsyncExitStack, managed: SecretReader | None = None
) -> Sender:
    """A sender to the pipeline's collector; its connections live as long as ``stack``. ``managed`` reads secrets of Secrets Manager.

    Raises:
        DefinitionError: a header's secret is missing.
    """
    headers = {name: (await find_secret(reference, env, base, managed)).decode() for name, reference in otlp.headers.items()}
    session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)))
    collector = HttpCollector(session, otlp.endpoint, headers)
    return Sender(collector, clock, emit, _dice, otlp.compression, once=otlp.mode is Mode.BEST_EFFORT)


def shape_of(otlp: Otlp) -> Shape:
    """How the pipeline wants its spans."""
    return Shape(otlp.signal, otlp.tier, otlp.trust_producer_context, otlp.sample, otlp.request_bytes)


class ExportTask:
    """Exports the shards that this worker has, as their units are sealed. An ``Emit``: it hears which those are."""

    def __init__(self, exporter: Exporter, clock: Clock, emit: Emit, stream: str) -> None:
        self._exporter = exporter
        self._clock = clock
        self._emit = emit
        self._stream = stream
        self._shards: dict[str, Cursor | None] = {}
        self._news = asyncio.Event()
        self._moved = asyncio.Condition()
        self._loop = asyncio.get_running_loop()

    def __call__(self, event: events.Event) -> None:
        """Take note of shards that start, move and go away."""
        match event:
            case events.ShardStarted(_, shard, _):
                self._loop.call_soon_threadsafe(self._shards.setdefault, shard, None)
            case events.ShardReleased(_, shard, "lease_lost"):
                self._loop.call_soon_threadsafe(self._shards.pop, shard, None)
            case events.UnitSealed() | events.ShardEnded():
                pass
            case _:
                return
        self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> None:
        """Export until cancelled. What goes wrong is told and tried again; it never ends the worker."""
        while True:
            self._news.clear()
            if not await self.catch_up():
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    continue

    async def finish(self) -> None:
        """Export what is left, for a few seconds at most; what remains is the next worker's. Call it when ``run`` has been cancelled."""
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                while await self.catch_up():
                    pass
        except TimeoutError:
            return

    async def catch_up(self) -> bool:
        """Export one unit of each shard that has one; whether any had."""
        any_had = False
        for shard in list(self._shards):
            try:
                any_had = await self._step(shard) or any_had
            except (Halted, Retryable) as error:
                self._emit(events.CallRepeated(self._stream, shard, "export unit", str(error), LOOK_SECONDS))
            except StreamError:
                raise
            except Exception as error:  # noqa: BLE001 - what is wrong with the spans of one unit must not take the worker down
                self._emit(events.ExportRefused(self._stream, shard, 0, 0, f"unexpected {type(error).__name__}: {error}"))
                self._shards.pop(shard, None)
        return any_had

    async def _step(self, shard: str) -> bool:
        cursor = self._shards[shard] or await self._exporter.cursor(shard)
        after = await self._exporter.step(shard, cursor)
        async with self._moved:
            if shard in self._shards:
                self._shards[shard] = after or cursor
            self._moved.notify_all()
        if after is None:
            self._exporter.caught_up(shard)
        return after is not None

    async def exported(self, shard: str, position: int | None) -> None:
        """Return once everything up to ``position`` (None: the shard's end) is exported."""
        self._shards.setdefault(shard, None)
        self._news.set()

        def reached() -> bool:
            cursor = self._shards.get(shard)
            return cursor is not None and (cursor.ended or (position is not None and int(cursor.position) >= position))

        async with self._moved:
            await self._moved.wait_for(reached)


class WaitingCheckpoints:
    """Checkpoints that move only when the spans up to them have reached the collector: ``mode: strict``."""

    def __init__(self, checkpoints: Checkpoints, task: ExportTask) -> None:
        self._checkpoints = checkpoints
        self._task = task

    async def read(self, shard: Shard) -> Checkpoint | None:
        """See ``contracts.Checkpoints``."""
        return await self._checkpoints.read(shard)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """See ``contracts.Checkpoints``; waits as long as the collector does not take the spans."""
        await self._task.exported(shard.shard_id, checkpoint.position)
        await self._checkpoints.advance(shard, checkpoint)


async def open_export(
    pipeline: Pipeline, endpoint: str | None, base: Path, env: Mapping[str, str], stack: AsyncExitStack
) -> tuple[Exporter, LogUnits, list[str]]:
    """An exporter to ``endpoint`` or the pipeline's own collector, and the shards in the log of ``pipeline``, which reads one stream.

    Raises:
        DefinitionError: there is no endpoint.
    """
    clock, kinesis = SystemClock(), pipeline.source.kinesis
    otlp = pipeline.audit.otlp or (Otlp(endpoint=endpoint) if endpoint else None)
    if otlp is None:
        msg = "the pipeline names no collector; write audit: {otlp: {endpoint: ...}} or give --endpoint"
        raise DefinitionError(msg)
    if endpoint:
        otlp = otlp.model_copy(update={"endpoint": endpoint})
    session = AwsSession(region=kinesis.region)
    stores = Stores.open(pipeline, base, session)
    log = CommitLog(stores.state, pipeline.application, clock, "export")
    units = LogUnits(log, kinesis.stream, stores.areas(located(pipeline.state, base), kinesis.stream), stores.targets["ledger"])
    sender = await open_sender(otlp, env, base, clock, _nobody, stack, functools.partial(read_secret, session))
    shards = [shard async for shard in shards_of(stores.state, kinesis.stream)]
    return Exporter(units, stores.state, sender, shape_of(otlp), clock, _nobody, kinesis.stream), units, shards


def _nobody(_: events.Event) -> None:
    """Commands say at the end what they did."""


async def export_range(exporter: Exporter, units: LogUnits, shards: Sequence[str], after: int, last: int | None) -> tuple[int, int]:
    """Export every sealed unit that overlaps ``(after, last]`` again, cursors untouched; units and items that were accepted."""
    count = accepted = 0
    for shard in shards:
        position = 0
        while (found := await units.read(shard, position)) is not None:
            link, segment, urls = found
            if link.last is None or segment is None or (last is not None and link.after >= last):
                break
            if link.last > after:
                accepted += (await exporter.export(link, segment, urls)).accepted
                count += 1
            position = link.last
    return count, accepted
