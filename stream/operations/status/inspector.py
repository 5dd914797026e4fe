"""Reads the shared state of a stream: the log, the stream, the leases, the tables, the notes of halts. Asks no worker, changes nothing.

The snapshot says what could not be read, and has the rest all the same. How many calls it takes is in docs/status.md, and
tests/unit/operations/status/test_inspector.py counts them. A later snapshot of the same process starts where the earlier one ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from stream.audit.completeness import Answer, Question, State
from stream.audit.export import Mode
from stream.aws.kinesis import StreamSummary
from stream.batch import ORIGIN
from stream.commit.identity import DamagedPin
from stream.commit.manifest import decode_start
from stream.commit.naming import start_key
from stream.contracts import Clock
from stream.errors import DefinitionError, StreamError
from stream.lease.paused import NONE, Pause, Pauses
from stream.lease.pauses import PauseRecord
from stream.lease.rows import Lease
from stream.lease.settings import RENEWALS
from stream.lease.shards import holes
from stream.operations.progress.completeness import Completeness, Tail
from stream.operations.shards.survey import unfinished
from stream.operations.status.objects import read_objects
from stream.operations.status.outcomes import RecentUnits, read_exported, read_table
from stream.operations.status.readers import Listing, ScannedCheckpoints, Troubles
from stream.operations.status.snapshot import (
    DAMAGED_PIN,
    FRESH,
    LEASE_ROW,
    LEASES,
    LOG,
    MARGIN,
    OBJECTS,
    PIN,
    STREAM,
    Exported,
    ShardStatus,
    Snapshot,
    TableStatus,
    Unread,
    silent_after,
)
from stream.pipeline.model import Pipeline
from stream.worker.halts.note import WHOLE_STREAM, Halt
from stream.worker.halts.notes import read_halts
from stream.worker.opening.identity import PinnedStream
from stream.worker.tables.parts import LoaderParts

T = TypeVar("T")

PART_SECONDS: Final = 15.0
"""Seconds after which a part of the shared state counts as unreadable."""

LIST_SECONDS: Final = 300.0
"""The same for a listing of all objects: a million of them need about a minute."""

TABLE_SECONDS: Final = 60.0
"""The same for a table: a warehouse that was paused needs most of a minute until it answers."""

LONGEST_LOOK: Final = 30.0
"""Seconds for which a lease of a doubtful date is looked at, at most, to see whether it is renewed."""

SHARDS_PER_SECOND: Final = 10.0
"""A part with an answer for each shard has another second for so many of them."""


@dataclass(frozen=True, slots=True)
class InspectorParts:
    """What an inspector reads from; ``pipeline`` is narrowed to one stream.

    ``describe`` asks the stream about itself, ``pinned`` knows which one the log is of, ``leases`` scans the lease table, ``queue`` asks
    for the attributes of the queue of notifications; each is None if the pipeline has none.
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
    troubles: Troubles
    queue: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    pinned: PinnedStream | None = None


class Inspector:
    """Takes snapshots of one stream; remembers where each chain ended, so that the next one reads less."""

    def __init__(self, parts: InspectorParts) -> None:
        self._parts = parts
        self._unread: list[Unread] = []
        self._renews: Mapping[str, bool] = {}

    async def inspect(self) -> Snapshot:
        """What can be read now.

        Raises:
            DefinitionError: there is no shard of a name that is to be left out.
        """
        parts, troubles, log = self._parts, self._parts.troubles, self._parts.completeness.log
        self._unread, troubles.rows, troubles.last = [], [], ""
        summary = None
        if parts.describe is not None:
            summary = await self._part(STREAM, parts.describe())
            parts.source.why = "" if summary is not None else self._unread[0].why
        other = await self._other_stream(summary)
        objects = parts.source.objects
        arrived = None if objects is None else await self._part(OBJECTS, parts.source.list_objects(objects), least=LIST_SECONDS)
        leases = await self._part(LEASES, parts.leases()) if parts.leases is not None else None
        self._unread += [Unread(LEASE_ROW, why) for why in troubles.rows]
        self._renews = await self._seen_to_be_renewed(leases or ())
        parts.scanned.leases = {lease.shard: lease for lease in leases or ()}
        answer = await self._part(LOG, self._answer(), max(len(parts.source.listed), len(parts.scanned.leases)))
        halts = await self._part("notes of halts", read_halts(log.store, self._stream)) or {}
        asked_at = answer.asked_at if answer else parts.clock.now()
        pauses = await self._part("pauses", PauseRecord(log.store).in_force(asked_at)) or NONE
        native = parts.pipeline.leases
        tables = await self._tables(pauses)
        dead_letters = await self._part("dead letters", parts.recent.outcomes(self._tails, asked_at), len(self._tails))
        exported = await self._exported()
        objects_status = None
        if objects is not None:
            objects_status = await read_objects(parts.pipeline, objects, arrived, log.store, parts.queue, asked_at, self._part)
        return Snapshot(
            stream=self._stream,
            asked_at=asked_at,
            flush_age=parts.pipeline.flush.age,
            retention=None if summary is None else summary.retention,
            failover=None if parts.leases is None or native is None else native.failover.total_seconds(),
            reach=answer.reach if answer and (objects is None or arrived is not None) else None,
            shards=tuple(replace(each, paused=_words(pauses.reading(self._stream, each.name))) for each in self._shards(answer, halts)),
            finished=0 if answer is None else sum(each.state is State.ENDED for each in answer.shards),
            tables=tables,
            dead_letters=dead_letters,
            exported=exported,
            holes=len(holes(leases)) if leases else 0,
            stream_halt=halts.get(WHOLE_STREAM),
            other_stream=other,
            why=answer.why if answer else "",
            objects=objects_status,
            unread=tuple(self._unread),
        )

    async def _other_stream(self, summary: StreamSummary | None) -> str:
        """Why the stream is not the one that the log is of; empty if it is, or if that is not known."""
        pinned = self._parts.pinned
        if summary is None or pinned is None:
            return ""
        try:
            return pinned.why_refused(await self._part(PIN, pinned.pin()), summary)
        except DamagedPin as error:
            self._unread.append(Unread(DAMAGED_PIN, str(error)))
            return ""

    async def _seen_to_be_renewed(self, leases: Sequence[Lease]) -> Mapping[str, bool]:
        """Of leases that were last renewed long ago or in the future, by the clock of their worker, whether they are renewed now, by shard.

        A clock may be wrong, also that of this machine. Only such leases are looked at twice, for as long as two renewals are apart.
        """
        native = self._parts.pipeline.leases
        if native is None or self._parts.leases is None:
            return {}
        failover, now = native.failover.total_seconds(), self._parts.clock.now()
        doubtful = {}
        for lease in leases:
            moment = _moment(lease.renewed or "")
            dated = lease.owner is not None and not lease.owned_elsewhere and not lease.ended and moment is not None
            if dated and moment is not None and abs((now - moment).total_seconds()) > silent_after(failover):
                doubtful[lease.shard] = lease.counter
        if not doubtful:
            return {}
        await self._parts.clock.sleep(min(1.5 * failover / RENEWALS, LONGEST_LOOK))
        again = await self._part(LEASES, self._parts.leases())
        return {lease.shard: lease.counter != doubtful[lease.shard] for lease in again or () if lease.shard in doubtful}

    @property
    def _stream(self) -> str:
        return self._parts.pipeline.source.kinesis.stream

    @property
    def _tails(self) -> Mapping[str, Tail]:
        return self._parts.completeness.tails

    async def _part(self, part: str, reading: Awaitable[T], shards: int = 0, least: float | None = None) -> T | None:
        """The result of ``reading``, or None after noting why it could not be read.

        ``shards``: of how many there is something to read. ``least``: seconds beside those for the shards.
        """
        seconds = (PART_SECONDS if least is None else least) + shards / SHARDS_PER_SECOND
        try:
            async with asyncio.timeout(seconds):
                return await reading
        except TimeoutError:
            why = f"no answer within {seconds:.0f} s" + (f": {self._parts.troubles.last}" if self._parts.troubles.last else "")
        except StreamError as error:
            if isinstance(error, DamagedPin) or (part == LOG and isinstance(error, DefinitionError)):
                raise
            why = str(error)
        self._unread.append(Unread(part, why))
        return None

    async def _answer(self) -> Answer:
        asked_at, key = await self._parts.source.time(), start_key(self._stream)
        until = asked_at - self._parts.pipeline.flush.age - FRESH
        stored = await self._parts.completeness.log.store.get(key)
        start = None if stored is None else decode_start(stored.body, key)
        if start is not None and start.timestamp is not None:
            until = max(until, start.timestamp + timedelta(milliseconds=1))
        return await self._parts.completeness.ask(Question(until, MARGIN), tables=False)

    async def _tables(self, pauses: Pauses) -> tuple[TableStatus, ...]:
        found = []
        for table in self._parts.tables:
            reading = read_table(table, self._parts.completeness.log, self._tails)
            status = await self._part(f"table of {table.config.name}", reading, len(self._tails), TABLE_SECONDS)
            if status is not None:
                found.append(replace(status, paused=_words(pauses.loads(self._stream, status.sink))))
        return tuple(found)

    async def _exported(self) -> Exported | None:
        otlp = self._parts.pipeline.audit.otlp
        if otlp is None:
            return None
        reading = read_exported(self._parts.completeness.log, self._stream, self._tails, blocking=otlp.mode is Mode.STRICT)
        return await self._part("export of spans", reading, len(self._tails))

    def _shards(self, answer: Answer | None, halts: Mapping[str, Halt]) -> list[ShardStatus]:
        """The unfinished shards; if nothing could be read of the log, those that have leases."""
        if answer is None:
            leases = {name: lease for name, lease in self._parts.scanned.leases.items() if not lease.ended}
            return [
                self._leased(ShardStatus(name, open=True, state=State.SILENT, why="the log could not be read"), lease)
                for name, lease in leases.items()
            ]
        without = self._parts.completeness.without
        rows = [row for row in unfinished(self._parts.source.listed, answer.shards) if row.name not in without] if not answer.why else []
        names = {row.name for row in rows}
        found = []
        for row in rows:
            tail, standing = self._tails.get(row.name), row.standing
            last, begun = (None, None) if tail is None else (tail.last, tail.begun)
            position = ORIGIN if tail is None else tail.position
            halt = halts.get(row.name)
            status = ShardStatus(
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
            if self._parts.source.objects is not None:
                backlog = self._parts.source.objects.backlogs.get(row.name)
                status = replace(status, objects=backlog.objects if backlog else None, size=backlog.size if backlog else None)
            found.append(self._leased(status, self._parts.scanned.leases.get(row.name)))
        return found

    def _leased(self, status: ShardStatus, lease: Lease | None) -> ShardStatus:
        if lease is None:
            return status
        elsewhere = lease.owned_elsewhere
        renewed = _moment(lease.renewed) if lease.renewed and not elsewhere else None
        renews = self._renews.get(lease.shard)
        status = replace(status, leased=True, owner=lease.owner, renewed=renewed, renews=renews, elsewhere=elsewhere)
        return replace(status, out_of_reach=lease.out_of_reach, bars_listing=lease.bars_listing)


def _words(pause: Pause | None) -> str | None:
    return None if pause is None else str(pause)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
