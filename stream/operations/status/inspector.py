"""Looks at the shared state of a stream: the log, the stream, the leases, the tables, the notes of halts. Asks no worker, changes nothing.

What cannot be read is said in the snapshot, and the rest is there all the same. How many calls a look makes is in docs/status.md, and
tests/unit/operations/status/test_inspector.py counts them. A later look of the same process starts where the earlier one ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from stream import events
from stream.audit.completeness import Answer, Found, Lookahead, Question, State, Unclaimed
from stream.audit.export import Mode
from stream.aws.kinesis import StreamSummary, open_kinesis
from stream.aws.secrets import read_secret
from stream.batch import ORIGIN
from stream.commit.log import CommitLog
from stream.commit.lookup import shards_of
from stream.commit.manifest import decode_start
from stream.commit.naming import start_key
from stream.commit.retry import Repeater
from stream.contracts import Checkpoint, Checkpoints, Clock, Shard, Start, shard_of_chain
from stream.errors import DefinitionError, LeaseLost, StreamError
from stream.lease.checkpoints import StoredCheckpoints
from stream.lease.native import checkpoint_in
from stream.lease.paused import NONE, Pause
from stream.lease.pauses import PauseRecord
from stream.lease.rows import Lease
from stream.lease.shards import holes
from stream.operations.opening import session_of
from stream.operations.progress.completeness import Completeness, Stream, Tail
from stream.operations.progress.object_lookahead import ObjectsLookahead, open_lookahead
from stream.operations.progress.stream_lookahead import StreamLookahead
from stream.operations.shards.survey import unfinished
from stream.operations.status.objects import objects_look, queue_attributes
from stream.operations.status.outcomes import RecentUnits, exported_look, table_look
from stream.operations.status.snapshot import FRESH, LEASES, LOG, MARGIN, OBJECTS, STREAM, ShardLook, Snapshot, TableLook, Unread
from stream.pipeline.model import Pipeline
from stream.sink import rejects
from stream.worker.auditing import Stores
from stream.worker.definitions import Definitions
from stream.worker.halt import WHOLE_STREAM, Halt
from stream.worker.halts import read_halts
from stream.worker.leasing import key_prefix, open_table
from stream.worker.tables.loaders import open_loader_parts
from stream.worker.tables.parts import LoaderParts

T = TypeVar("T")

PART_SECONDS: Final = 15.0
"""Seconds after which a part of the shared state counts as unreadable."""

LIST_SECONDS: Final = 300.0
"""The same for a listing of all objects: a million of them need about a minute."""

TABLE_SECONDS: Final = 60.0
"""The same for a table: a warehouse that was paused needs most of a minute until it answers."""

SHARDS_PER_SECOND: Final = 10.0
"""A part with an answer for each shard has another second for so many of them."""


class ScannedCheckpoints:
    """The checkpoints in ``leases``, by shard, as the last scan found them, so that they cost no call of their own."""

    def __init__(self) -> None:
        self.leases: Mapping[str, Lease] = {}

    async def read(self, shard: Shard) -> Checkpoint | None:
        """As ``contracts.Checkpoints.read``."""
        lease = self.leases.get(shard.shard_id)
        return None if lease is None else checkpoint_in(lease)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """Always refuse.

        Raises:
            LeaseLost: always.
        """
        msg = f"{shard.stream}/{shard.shard_id} is opened for reading only; {checkpoint} was not stored"
        raise LeaseLost(msg)


class Listing:
    """A stream that remembers which shards it listed. While ``why`` says that it cannot be read, it lists those of the log.

    ``objects``: what lists objects; then ``arrived`` and ``listed_at`` are what it found and when it began, None if it could not be listed.
    """

    def __init__(self, inner: Stream, log: CommitLog, stream: str, clock: Clock, objects: ObjectsLookahead | None = None) -> None:
        self.objects = objects
        self.arrived: Unclaimed | None = None
        self.listed_at: datetime | None = None
        self.listed: list[Shard] = []
        self.why = ""
        self._inner = inner
        self._log = log
        self._stream = stream
        self._clock = clock

    async def time(self) -> datetime:
        """As ``completeness.Stream.time``."""
        return self.listed_at or (self._clock.now() if self.why else await self._inner.time())

    async def list_objects(self, objects: ObjectsLookahead) -> Unclaimed:
        """List the objects, which may take longer than everything else."""
        self.arrived = self.listed_at = None
        begun = await objects.time()
        self.arrived, self.listed_at = await objects.unclaimed(), begun
        return self.arrived

    async def unclaimed(self) -> Unclaimed | None:
        """As ``completeness.Stream.unclaimed``, by the last ``list_objects``."""
        return None if self.objects is None else self.arrived or Unclaimed()

    async def shards(self) -> list[Shard]:
        """As ``completeness.Stream.shards``."""
        if self.why:
            chains = [shard_of_chain(chain)[0] async for chain in shards_of(self._log.store, self._stream)]
            self.listed = [Shard(self._stream, name) for name in dict.fromkeys(chains)]
        else:
            self.listed = await self._inner.shards()
        return self.listed

    async def look(self, shard: Shard, position: int, start: Start, complete_until: datetime | None, asked_at: datetime) -> Lookahead:
        """As ``completeness.Stream.look``."""
        if self.why:
            return Lookahead(Found.SILENT, why="the stream could not be read")
        return await self._inner.look(shard, position, start, complete_until, asked_at)


class Heard:
    """An ``Emit`` that remembers what went wrong last, and which rows of the lease table could not be read."""

    def __init__(self) -> None:
        self.last = ""
        self.rows: list[str] = []

    def __call__(self, event: events.Event) -> None:
        """Remember ``event`` if it says that something cannot be read."""
        match event:
            case events.CallRepeated(detail=detail):
                self.last = detail
            case events.LeaseRowUnreadable(detail=detail):
                self.rows.append(detail)
            case _:
                pass


@dataclass(slots=True)
class Inspector:
    """Looks at one stream of ``pipeline``, which is narrowed to it; remembers between looks where each chain ended.

    ``describe`` asks the stream about itself, ``leases`` scans the lease table, ``queue`` asks for the attributes of the queue of
    notifications; each is None if the pipeline has none.
    """

    pipeline: Pipeline
    completeness: Completeness
    source: Listing
    describe: Callable[[], Awaitable[StreamSummary]] | None
    leases: Callable[[], Awaitable[Sequence[Lease]]] | None
    scanned: ScannedCheckpoints
    tables: Sequence[LoaderParts]
    recent: RecentUnits
    clock: Clock
    heard: Heard
    unread: list[Unread] = field(default_factory=list)
    queue: Callable[[], Awaitable[Mapping[str, str]]] | None = None

    async def look(self) -> Snapshot:
        """What can be read now.

        Raises:
            DefinitionError: there is no shard of a name that is to be left out.
        """
        self.unread, self.heard.rows, self.heard.last = [], [], ""
        summary = None
        if self.describe is not None:
            summary = await self._part(STREAM, self.describe())
            self.source.why = "" if summary is not None else self.unread[0].why
        objects = self.source.objects
        arrived = None if objects is None else await self._part(OBJECTS, self.source.list_objects(objects), least=LIST_SECONDS)
        leases = await self._part(LEASES, self.leases()) if self.leases is not None else None
        self.unread += [Unread("lease row", why) for why in self.heard.rows]
        self.scanned.leases = {lease.shard: lease for lease in leases or ()}
        log = self.completeness.log
        answer = await self._part(LOG, self._answer(), max(len(self.source.listed), len(self.scanned.leases)))
        halts = await self._part("notes of halts", read_halts(log.store, self._stream)) or {}
        asked_at = answer.asked_at if answer else self.clock.now()
        pauses = await self._part("pauses", PauseRecord(log.store).in_force(asked_at)) or NONE
        otlp, native = self.pipeline.audit.otlp, self.pipeline.leases
        blocking = otlp is not None and otlp.mode is Mode.STRICT
        return Snapshot(
            stream=self._stream,
            asked_at=asked_at,
            flush_age=self.pipeline.flush.age,
            retention=None if summary is None else summary.retention,
            failover=None if self.leases is None or native is None else native.failover.total_seconds(),
            reach=answer.reach if answer and (objects is None or arrived is not None) else None,
            shards=tuple(replace(each, paused=_words(pauses.reading(self._stream, each.name))) for each in self._shards(answer, halts)),
            finished=0 if answer is None else sum(each.state is State.ENDED for each in answer.shards),
            tables=tuple(
                [
                    replace(look, paused=_words(pauses.loads(self._stream, look.sink)))
                    for table in self.tables
                    if (look := await self._table(table)) is not None
                ]
            ),
            dead_letters=await self._part("dead letters", self.recent.look(self._tails, asked_at), len(self._tails)),
            exported=await self._part("export of spans", exported_look(log, self._stream, self._tails, blocking=blocking), len(self._tails))
            if otlp
            else None,
            holes=len(holes(leases)) if leases else 0,
            stream_halt=halts.get(WHOLE_STREAM),
            why=answer.why if answer else "",
            objects=None
            if objects is None
            else await objects_look(self.pipeline, objects, arrived, log.store, self.queue, asked_at, self._part),
            unread=tuple(self.unread),
        )

    @property
    def _stream(self) -> str:
        return self.pipeline.source.kinesis.stream

    @property
    def _tails(self) -> Mapping[str, Tail]:
        return self.completeness.tails

    async def _part(self, part: str, reading: Awaitable[T], shards: int = 0, least: float | None = None) -> T | None:
        """The result of ``reading``, or None after noting why it could not be had.

        ``shards``: of how many there is something to read. ``least``: seconds beside those for the shards.
        """
        seconds = (PART_SECONDS if least is None else least) + shards / SHARDS_PER_SECOND
        try:
            async with asyncio.timeout(seconds):
                return await reading
        except TimeoutError:
            why = f"no answer within {seconds:.0f} s" + (f": {self.heard.last}" if self.heard.last else "")
        except StreamError as error:
            if part == LOG and isinstance(error, DefinitionError):
                raise
            why = str(error)
        self.unread.append(Unread(part, why))
        return None

    async def _answer(self) -> Answer:
        asked_at, key = await self.source.time(), start_key(self._stream)
        until = asked_at - self.pipeline.flush.age - FRESH
        stored = await self.completeness.log.store.get(key)
        start = None if stored is None else decode_start(stored.body, key)
        if start is not None and start.timestamp is not None:
            until = max(until, start.timestamp + timedelta(milliseconds=1))
        return await self.completeness.look(Question(until, MARGIN), tables=False)

    async def _table(self, table: LoaderParts) -> TableLook | None:
        reading = table_look(table, self.completeness.log, self._tails)
        return await self._part(f"table of {table.config.name}", reading, len(self._tails), TABLE_SECONDS)

    def _shards(self, answer: Answer | None, halts: Mapping[str, Halt]) -> list[ShardLook]:
        """The unfinished shards; if nothing could be read of the log, those that have leases."""
        if answer is None:
            leases = {name: lease for name, lease in self.scanned.leases.items() if not lease.ended}
            return [self._leased(ShardLook(name, True, State.SILENT, "the log could not be read"), lease) for name, lease in leases.items()]
        without = self.completeness.without
        rows = [row for row in unfinished(self.source.listed, answer.shards) if row.name not in without] if not answer.why else []
        names = {row.name for row in rows}
        found = []
        for row in rows:
            tail, standing = self._tails.get(row.name), row.standing
            last, begun = (None, None) if tail is None else (tail.last, tail.begun)
            position = ORIGIN if tail is None else tail.position
            halt = halts.get(row.name)
            look = ShardLook(
                name=row.name,
                open=row.open,
                state=State.SILENT if standing is None else standing.state,
                why="" if standing is None else standing.why,
                unread=standing.reach + MARGIN if standing is not None and standing.state is State.UNSEALED and standing.reach else None,
                reach=None if standing is None else standing.reach,
                position=position,
                last=None if last is None else last.kind,
                sealed_at=_moment(last.sealed_at) if last is not None else None,
                sealed_by="" if last is None else last.sealed_by,
                begun=_moment(begun.created_at) if begun is not None else None,
                begun_by="" if begun is None else begun.worker,
                blocked=row.shard is not None and any(parent in names for parent in row.shard.parents),
                halt=None if halt is None or halt.is_over(position) else halt,
            )
            if self.source.objects is not None:
                backlog = self.source.objects.backlogs.get(row.name)
                look = replace(look, objects=backlog.objects if backlog else None, size=backlog.size if backlog else None)
            found.append(self._leased(look, self.scanned.leases.get(row.name)))
        return found

    def _leased(self, look: ShardLook, lease: Lease | None) -> ShardLook:
        if lease is None:
            return look
        # A Java worker leaves our attributes as they were.
        ours = lease.owner is None or lease.owner == lease.signed
        return replace(look, leased=True, owner=lease.owner, renewed=_moment(lease.renewed) if ours and lease.renewed else None)


def _words(pause: Pause | None) -> str | None:
    return None if pause is None else str(pause)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


async def open_inspectors(
    streams: Sequence[Pipeline], base: Path, env: Mapping[str, str], without: Collection[str], clock: Clock, stack: AsyncExitStack
) -> list[Inspector]:
    """An inspector for each of ``streams``, each a pipeline narrowed to one stream, that leaves out the shards ``without``.

    Nothing is called yet, and connections live as long as ``stack``.

    Raises:
        DefinitionError: a shard is to be left out and there are several streams.
    """
    if without and len(streams) > 1:
        msg = f"--without names a shard of one stream, and this pipeline reads {len(streams)}: name it with --stream"
        raise DefinitionError(msg)
    session = session_of(streams[0])
    client = None if streams[0].source.s3 is not None else await stack.enter_async_context(open_kinesis(session))
    found = []
    for one in streams:
        stream, stores, heard = one.source.kinesis.stream, Stores.open(one, base, session), Heard()
        log = CommitLog(stores.state, one.application, clock, "status")
        watch = None if one.source.s3 is None else one.source.s3.watch
        describe: Callable[[], Awaitable[StreamSummary]] | None = None
        if client is None:
            objects = open_lookahead(one, base, stores.state, session, clock)
            listing = Listing(objects, log, stream, clock, objects)
        else:
            listing = Listing(StreamLookahead(client, stream, clock), log, stream, clock)
            repeat = Repeater(clock, heard)
            describe = partial(repeat, "describe stream", Shard(stream, ""), partial(client.describe_stream_summary, stream))
        definitions = Definitions(stores.state, base, env, clock, partial(read_secret, session))
        tables = await open_loader_parts(one, stream, session, log, stores.targets, definitions, ("status", clock, heard), stack)
        scanned = ScannedCheckpoints()
        native = one.leases is not None
        checkpoints: Checkpoints = scanned if native else StoredCheckpoints(stores.state)
        found.append(
            Inspector(
                pipeline=one,
                completeness=Completeness(stream, log, checkpoints, listing, without=without, tolerant=True),
                source=listing,
                describe=describe,
                leases=await _scan(one, clock, heard, stack) if native else None,
                scanned=scanned,
                tables=tables,
                recent=RecentUnits(log, stream, stores.targets[rejects.NAME]),
                clock=clock,
                heard=heard,
                queue=None if watch is None or watch.queue is None else partial(queue_attributes, session, watch.queue, clock),
            )
        )
    return found


async def _scan(one: Pipeline, clock: Clock, heard: Heard, stack: AsyncExitStack) -> Callable[[], Awaitable[Sequence[Lease]]]:
    """Reads the leases of the one stream to which ``one`` is narrowed."""
    native = one.leases
    if native is None:
        msg = "this pipeline has no leases"
        raise DefinitionError(msg)
    table = await open_table(one, native, clock, heard, stack)
    prefixes: list[str] = []

    async def scan() -> Sequence[Lease]:
        if not prefixes:
            prefixes.append(await key_prefix(one, session_of(one), clock, stack))
        prefix = prefixes[0]
        scanned = await table.scan()
        return [lease for lease in scanned.leases if (lease.key.startswith(prefix) if prefix else ":" not in lease.key)]

    return scan
