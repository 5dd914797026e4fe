"""The export of spans: by the worker after each sealed unit, or by a command for a range."""

from __future__ import annotations

import asyncio
import functools
import secrets
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
from pydantic import ValidationError

from stream import events
from stream.audit.chain import Link, LinkKind
from stream.audit.export import FIRST_PROBE, LONGEST_PROBE, Cursor, Destinations, Exporter, LedgerMissing, Mode, Refused, Sender
from stream.audit.export_options import Shape
from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import LedgerObject, Segment, SegmentError, read_segment
from stream.audit.objects import Area, url_in
from stream.audit.otlp_responses import Answer
from stream.aws.secrets import read_secret
from stream.batch import ORIGIN
from stream.clock import SystemClock
from stream.commit.log import CommitLog
from stream.commit.lookup import shards_of, unit_start
from stream.commit.naming import manifest_key
from stream.concurrency import run_concurrently
from stream.contracts import Checkpoint, Checkpoints, Clock, Emit, ObjectStore, Shard
from stream.errors import DefinitionError, Halted, LeaseLost, Retryable, StreamError
from stream.pipeline.audit import Otlp
from stream.pipeline.model import Pipeline
from stream.pipeline.secrets import SecretReader, find_headers
from stream.sink.rejects import NAME as REJECTS
from stream.worker.opening.links import link_of
from stream.worker.opening.places import located, session_of
from stream.worker.opening.stores import Stores
from stream.worker.receivers.http_errors import describe_failure
from stream.worker.receivers.recent_segments import RecentSegments

TIMEOUT: Final = 30.0
"""Seconds that a collector may take for one request."""

LOOK_SECONDS: Final = 1.0
"""Seconds between checks of a shard's log when no sealed unit is announced."""

LAG_SECONDS: Final = 5.0
"""Seconds between two reports of how long units have been waiting for a collector."""

SHARDS_AT_ONCE: Final = 4
"""Shards whose spans are encoded and sent at a time: enough to hide the collector's response time."""

FINISH_SECONDS: Final = 5.0
"""Seconds for the export after the last unit is sealed; a slow collector must not hold up a drain."""

PATIENT_SECONDS: Final = 60.0
"""Seconds for each unit at the end of a run, when no later worker would export it."""

ANSWER_BYTES: Final = 65_536

_jitter = secrets.SystemRandom().random


class HttpCollector:
    """``audit.export.Collector`` over OTLP/HTTP with protobuf bodies."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: str, headers: Mapping[str, str]) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._headers = {"content-type": "application/x-protobuf", **headers}

    async def send(self, path: str, body: bytes | memoryview, encoding: str) -> Answer:
        """See ``audit.export.Collector``."""
        headers = self._headers | ({"content-encoding": encoding} if encoding else {})
        try:
            async with self._session.post(f"{self._endpoint}{path}", data=body, headers=headers, allow_redirects=False) as answer:
                content = b""
                # A read returns what has arrived so far, which may be only a part.
                while len(content) < ANSWER_BYTES and (part := await answer.content.read(ANSWER_BYTES - len(content))):
                    content += part
                return Answer(answer.status, content, answer.headers.get("retry-after", ""), answer.reason or "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Answer(0, detail=f"{describe_failure(error)} at {self._endpoint}")


class LogUnits:
    """``audit.export.Units`` over the commit log and the ledger."""

    def __init__(
        self,
        log: CommitLog,
        stream: str,
        areas: Mapping[str, Area],
        ledger: ObjectStore,
        naming: Destinations = Destinations.FULL,
        recent: RecentSegments | None = None,
    ) -> None:
        self._log = log
        self._stream = stream
        self._areas = areas
        self._ledger = ledger
        self._naming = naming
        self._recent = recent

    async def begins(self, shard: str, after: int = ORIGIN) -> int:
        """Where the unit of the chain ``shard`` begins that holds the records after ``after``, or else where the chain begins."""
        start = await unit_start(self._log.store, self._stream, shard, after + 1) if after > ORIGIN else None
        return await self._log.chain_start(self._stream, shard) if start is None else start

    async def read(self, shard: str, after: int) -> tuple[Link, Segment | None, Mapping[tuple[str, str], str]] | None:
        """See ``audit.export.Units``; raises ``Halted`` if a sealed unit has no readable ledger."""
        key = manifest_key(self._stream, shard, after)
        stored = await self._log.store.get(key)
        if stored is None:
            return None
        link = link_of(key, stored.body, after)
        if not link.sealed:
            return None
        urls = {(file.sink, file.key): self._name(link, file) for file in link.files}
        if link.kind is not LinkKind.UNIT:
            return link, None, urls
        if self._recent is not None and link.ledger and (segment := self._recent.take(link.ledger.sha256)):
            return link, segment, urls
        body = await self._ledger.get(link.ledger.key) if link.ledger else None
        what = f"the ledger of {shard} after {after} cannot be exported"
        if body is None:
            msg = f"{what}: it is missing; `stream audit verify` says what else is wrong"
            raise LedgerMissing(msg, link)
        try:
            return link, await asyncio.to_thread(read_segment, body.body), urls
        except SegmentError as error:
            msg = f"{what}: {error}; `stream audit verify` says what else is wrong"
            raise Halted(msg) from error

    def _name(self, unit: Link, file: LedgerObject) -> str:
        """Keys of ledger and rejects consist of stream, shard and range, so their URLs reveal nothing about a record."""
        if self._naming is Destinations.DIGEST and file.sink not in {LEDGER, REJECTS}:
            return f"sha256:{file.sha256}"
        return url_in(unit, file.sink, file.key, self._areas)


async def open_sender(
    otlp: Otlp, env: Mapping[str, str], base: Path, clock: Clock, emit: Emit, stack: AsyncExitStack, managed: SecretReader | None = None
) -> Sender:
    """A sender to the pipeline's collector; its connections live as long as ``stack``. ``managed`` reads secrets of Secrets Manager.

    Raises:
        DefinitionError: a header's secret is missing.
    """
    headers = await find_headers(otlp.headers, env, base, managed)
    session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)))
    collector = HttpCollector(session, otlp.endpoint, headers)
    # One thread makes more spans than any collector accepts, and several would only compete for the interpreter lock.
    threads = stack.enter_context(ThreadPoolExecutor(1, "spans"))
    return Sender(collector, clock, emit, _jitter, otlp.compression, once=otlp.mode is Mode.BEST_EFFORT, threads=threads)


def shape_of(otlp: Otlp) -> Shape:
    """The shape of the pipeline's spans."""
    return Shape(otlp.signal, otlp.tier, otlp.trust_producer_context, otlp.sample, otlp.request_bytes)


@dataclass(slots=True)
class _ShardExport:
    """The state of one shard's export. ``cursor``: how far it has got; None until it has been read."""

    cursor: Cursor | None = None
    probe: float = FIRST_PROBE
    halted: bool = False
    has_news: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def reached(self, generation: int, position: int | None) -> bool:
        """Whether everything up to ``position`` (None: the end of the shard) of the chain of ``generation`` is exported."""
        cursor = self.cursor
        if cursor is None or cursor.ended or cursor.generation != generation:
            return cursor is not None and (cursor.ended or cursor.generation > generation)
        return position is not None and int(cursor.position) >= position


class ExportTask:
    """Exports the shards that this worker holds, as their units are sealed. It is an ``Emit`` and learns about shards from events.

    ``strict``: checkpoints wait, so a halted export prevents readiness. ``recent`` may hold segments of units that are about to be
    sealed.
    """

    def __init__(
        self, exporter: Exporter, clock: Clock, emit: Emit, stream: str, *, strict: bool = False, recent: RecentSegments | None = None
    ) -> None:
        self.recent = recent or RecentSegments(0)
        self._exporter = exporter
        self._clock = clock
        self._emit = emit
        self._stream = stream
        self._strict = strict
        self._exports: dict[str, _ShardExport] = {}
        self._new = asyncio.Event()
        self._slots = asyncio.Semaphore(SHARDS_AT_ONCE)
        self._loop = asyncio.get_running_loop()

    def __call__(self, event: events.Event) -> None:
        """Note shards that start, advance or are given up."""
        match event:
            case events.ShardStarted(_, shard, _) | events.UnitSealed(_, shard) | events.ShardEnded(_, shard, _):
                self._loop.call_soon_threadsafe(self._look_at, shard)
            case events.ShardReleased(_, shard, "lease_lost" | "handed_over"):
                self._loop.call_soon_threadsafe(self._forget, shard)
            case _:
                return

    def _look_at(self, shard: str) -> _ShardExport:
        export = self._exports.setdefault(shard, _ShardExport())
        export.has_news.set()
        self._new.set()
        return export

    def _forget(self, shard: str) -> None:
        export = self._exports.pop(shard, None)
        if export is not None:
            export.moved.set()

    async def run(self) -> None:
        """Export until cancelled. Errors are reported and retried; they never end the worker."""
        followed: dict[str, _ShardExport] = {}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report_lag(), name="report the lag of the export")
            while True:
                self._new.clear()
                for shard, export in self._exports.items():
                    if followed.get(shard) is not export:
                        followed[shard] = export
                        group.create_task(self._follow(shard, export), name=f"export {shard}")
                await self._new.wait()

    async def finish(self, until: asyncio.Event | None = None) -> None:
        """Export what is left, for a few seconds at most; the next worker exports the rest. Call it after ``run`` has been cancelled.

        If ``until`` is given, there is no next worker: export until the collector stops accepting units, or that event is set.
        """

        async def rest(shard: str, export: _ShardExport) -> None:
            more = True
            while more and not export.halted and (until is None or not until.is_set()):
                async with asyncio.timeout(None if until is None else PATIENT_SECONDS):
                    more = await self._attempt(shard, export)

        try:
            async with asyncio.timeout(FINISH_SECONDS if until is None else None):
                await run_concurrently([rest(shard, export) for shard, export in self._exports.items()], SHARDS_AT_ONCE)
        except TimeoutError:
            return

    async def _follow(self, shard: str, export: _ShardExport) -> None:
        while self._exports.get(shard) is export:
            export.has_news.clear()
            if await self._attempt(shard, export):
                continue
            if export.halted:
                await self._clock.sleep(export.probe)
                export.probe = min(2 * export.probe, LONGEST_PROBE)
                continue
            if export.cursor is not None and export.cursor.ended:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await export.has_news.wait()

    async def _attempt(self, shard: str, export: _ShardExport) -> bool:
        """Export one unit of ``shard``; returns whether there was one and it was exported."""
        try:
            async with self._slots:
                return await self._step(shard, export)
        except Retryable as error:
            self._emit(events.CallRepeated(self._stream, shard, "export unit", str(error), LOOK_SECONDS))
        except StreamError as error:
            self._halt(shard, export, error.status if isinstance(error, Refused) else 0, str(error))
        except Exception as error:  # noqa: BLE001 - an error in the spans of one unit must not end the worker
            # The error's message may quote record data; its location does not.
            at = traceback.extract_tb(error.__traceback__)[-1]
            self._halt(shard, export, 0, f"unexpected {type(error).__name__} in {Path(at.filename).name}:{at.lineno}; please report it")
        return False

    async def _step(self, shard: str, export: _ShardExport) -> bool:
        # A stored end is not trusted: its writer may have seen only the last link, which has no range.
        cursor = export.cursor or msgspec.structs.replace(await self._exporter.cursor(shard), ended=False)
        after = await self._exporter.step(shard, cursor)
        if export.halted:
            export.halted, export.probe = False, FIRST_PROBE
            self._emit(events.ExportResumed(self._stream, shard))
        export.cursor = after or cursor
        export.moved.set()
        if after is None:
            self._exporter.caught_up(shard)
        return after is not None

    def _halt(self, shard: str, export: _ShardExport, status: int, reason: str) -> None:
        export.halted = True
        self._emit(events.ExportHalted(self._stream, shard, status, reason, export.probe, self._strict))

    async def _report_lag(self) -> None:
        never = asyncio.Event()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAG_SECONDS):
                    await never.wait()
            self._exporter.report_lag()

    async def exported(self, shard: str, generation: int, position: int | None) -> None:
        """Return once everything up to ``position`` (None: the shard's end) of the chain of ``generation`` is exported.

        Raises:
            LeaseLost: the shard is no longer this worker's, so this worker no longer exports it.
        """
        export = self._look_at(shard)
        while not export.reached(generation, position):
            if self._exports.get(shard) is not export:
                msg = f"{self._stream}/{shard} went to another worker while its checkpoint waited for the collector"
                raise LeaseLost(msg)
            export.moved.clear()
            await export.moved.wait()


class WaitingCheckpoints:
    """Checkpoints that advance only once the collector has accepted the spans up to them: ``mode: strict``."""

    def __init__(self, checkpoints: Checkpoints, task: ExportTask) -> None:
        self._checkpoints = checkpoints
        self._task = task

    async def read(self, shard: Shard) -> Checkpoint | None:
        """See ``contracts.Checkpoints``."""
        return await self._checkpoints.read(shard)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """See ``contracts.Checkpoints``; waits until the collector has accepted the spans."""
        await self._task.exported(shard.shard_id, checkpoint.generation, checkpoint.position)
        await self._checkpoints.advance(shard, checkpoint)


async def open_export(
    pipeline: Pipeline, chain: str, endpoint: str | None, base: Path, env: Mapping[str, str], stack: AsyncExitStack, emit: Emit
) -> tuple[Exporter, LogUnits, list[str]]:
    """An exporter to ``endpoint`` or else the pipeline's own collector, its units, and the shards in the log of ``chain``.

    ``emit`` gets events about refused spans and retries.

    Raises:
        DefinitionError: no endpoint is named, or it is not a URL.
    """
    clock = SystemClock()
    try:
        from_option = Otlp(endpoint=endpoint) if endpoint else None
    except ValidationError as error:
        msg = f"--endpoint {endpoint}: name the collector by its base URL, such as http://127.0.0.1:4318"
        raise DefinitionError(msg) from error
    otlp = pipeline.audit.otlp or from_option
    if otlp is None:
        msg = "the pipeline names no collector; write audit: {otlp: {endpoint: ...}}, or use --endpoint"
        raise DefinitionError(msg)
    if from_option is not None:
        otlp = otlp.model_copy(update={"endpoint": from_option.endpoint})
    session = session_of(pipeline)
    stores = Stores.open(pipeline, base, session)
    log = CommitLog(stores.state, pipeline.application, clock, "export")
    areas = stores.areas(located(pipeline.state, base), chain)
    units = LogUnits(log, chain, areas, stores.targets[LEDGER], otlp.destinations)
    sender = await open_sender(otlp, env, base, clock, emit, stack, functools.partial(read_secret, session))
    shards = [shard async for shard in shards_of(stores.state, chain)]
    return Exporter(units, stores.state, sender, shape_of(otlp), clock, emit, chain), units, shards


async def export_range(exporter: Exporter, units: LogUnits, shards: Sequence[str], after: int, last: int | None) -> tuple[int, int]:
    """Re-export every sealed unit that overlaps ``(after, last]``, without moving cursors. Returns how many units, and items accepted."""
    count = accepted = 0
    for shard in shards:
        position = await units.begins(shard, after)
        while (found := await units.read(shard, position)) is not None:
            link, segment, urls = found
            if link.last is None or (last is not None and link.after >= last):
                break
            if link.last > after:
                accepted += (await exporter.export(link, segment, urls)).accepted
                count += 1
            position = link.last
    return count, accepted
