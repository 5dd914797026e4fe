"""Surveys the shards of a stream: how much arrives in each, how far the pipeline is, who reads it, and the load of its partition keys.

Progress comes from the log and from what the stream holds after it, as for ``stream complete``; rates come from the ledger. More of the
stream is read only for keys.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from stream.audit import ledger
from stream.audit.arrivals import Arrivals
from stream.audit.completeness import FOR_EVER, Question, Standing, State
from stream.audit.ledger import SegmentError
from stream.aws.kinesis import KinesisClient, StreamSummary, open_kinesis
from stream.batch import ORIGIN
from stream.commit.log import CommitLog
from stream.commit.lookup import PAGE, last_starts
from stream.commit.manifest import Kind, Manifest
from stream.commit.retry import Repeater
from stream.concurrency import run_concurrently
from stream.contracts import Clock, Emit, ObjectStore, Shard
from stream.errors import DefinitionError
from stream.lease.paused import NONE, Pauses
from stream.lease.pauses import PauseRecord
from stream.lease.rows import RowProblem
from stream.lease.shards import HASH_KEYS, children_of
from stream.metrics import thresholds
from stream.operations.opening import open_checkpoints
from stream.operations.progress.completeness import Completeness, Tail
from stream.operations.progress.stream_lookahead import StreamLookahead
from stream.pipeline.model import Pipeline
from stream.source.excerpt import Excerpt, Excerpts
from stream.source.keys import Sample, counted
from stream.source.resharding import Advice, OpenShard, Rate, advise
from stream.transform.masking import keyed_hash
from stream.worker.coordination.leasing import key_prefix, open_table
from stream.worker.opening.identity import asks_first, only_compared
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores

AT_ONCE: Final = 16
"""Shards that are examined at a time."""

UNITS_AT_ONCE: Final = 8
MOST_UNITS: Final = PAGE - 1
"""Most units of one shard that are counted, however long the window."""

LATE: Final = timedelta(seconds=thresholds.BEHIND_SECONDS)
"""A shard is late if its oldest unsealed record is older than this and ``flush.age`` together, as for the alert StreamBehind."""

LEAST_COVERED: Final = 1.0
"""Seconds that an excerpt must cover for a rate to be computed from it."""

DIGEST: Final = 16
"""Hex digits of a key's hash."""

WHOLE: Final = Question(FOR_EVER, timedelta())
"""Asks about all records, so that the age of the oldest unsealed one is always determined."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The rate of a shard from ``since`` to ``until``; if ``rate`` is None, ``why`` says why it is unknown.

    ``sampled``: it comes from an excerpt of the stream, otherwise from the ledger. ``aggregated``: there are KPL aggregates. ``weighed``:
    bytes are those that Kinesis counts, otherwise those of payloads.
    """

    rate: Rate | None = None
    since: datetime | None = None
    until: datetime | None = None
    why: str = ""
    sampled: bool = False
    aggregated: bool = False
    weighed: bool = False

    @property
    def light(self) -> bool:
        """Whether more may have arrived than ``rate`` says, by as much again: KPL aggregates add to payloads."""
        return self.rate is not None and self.aggregated and not self.weighed


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys in an excerpt of a shard."""

    sample: Sample
    excerpt: Excerpt


@dataclass(frozen=True, slots=True)
class Row:
    """One unfinished shard. ``shard`` is None if the stream does not list it.

    ``unread``: arrival of the oldest unsealed record; None if there is none, or if unknown. ``owner``: of its lease, if there are leases.
    ``sealed_by``: the worker that sealed its last unit.
    """

    name: str
    shard: Shard | None
    open: bool
    standing: Standing | None
    unread: datetime | None = None
    expires: datetime | None = None
    measured: Measured = field(default_factory=Measured)
    owner: str | None = None
    sealed_by: str = ""
    keys: Keys | None = None
    marks: tuple[str, ...] = ()

    @property
    def part(self) -> float | None:
        """Share of the hash key space."""
        return None if self.shard is None else (self.shard.last_hash - self.shard.first_hash + 1) / HASH_KEYS

    @property
    def unknown(self) -> bool:
        """Whether something could not be determined that another attempt may determine."""
        silent = self.standing is None or self.standing.state is State.SILENT
        return silent or (self.open and self.measured.rate is None)


@dataclass(frozen=True, slots=True)
class Survey:
    """The shards of one stream. ``leased``: whether a lease table says who reads them. ``why``: what is unknown of the stream."""

    stream: str
    summary: StreamSummary
    asked_at: datetime
    rows: tuple[Row, ...]
    advice: tuple[Advice, ...]
    leased: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class SurveyRequest:
    """What to survey. ``pages``: 0 if no keys are wanted. ``secret``: show keyed hashes instead of keys. ``only``: these shards."""

    window: timedelta
    pages: int = 0
    secret: bytes | None = None
    only: tuple[str, ...] = ()


@dataclass(slots=True)
class Surveyor:
    """Surveys one stream. ``late``: age at which a record should be sealed. ``owner`` returns the owner of a shard's lease."""

    stream: str
    client: KinesisClient
    completeness: Completeness
    ledger: ObjectStore
    clock: Clock
    emit: Emit
    late: timedelta
    owner: Callable[[str], Awaitable[str | None]] | None = None
    pauses: Pauses = NONE

    async def survey(self, wanted: SurveyRequest) -> Survey:
        """The state of the shards now.

        Raises:
            DefinitionError: there is no shard with one of the given names.
            Retryable: the stream did not answer.
            Halted: a link of the log cannot be read.
            Fatal: the stream or a permission is missing.
        """
        answer = await self.completeness.ask(WHOLE, tables=False)
        rows = unfinished(await self.completeness.source.shards(), answer.shards)
        repeat, whole = Repeater(self.clock, self.emit), Shard(self.stream, "")
        summary = await repeat("describe stream", whole, lambda: self.client.describe_stream_summary(self.stream))
        if unknown := set(wanted.only).difference(row.name for row in rows):
            msg = f"{', '.join(sorted(unknown))}: no shard of {self.stream} that is not finished; there are {_names(rows)}"
            raise DefinitionError(msg)
        found: dict[str, Row] = {}

        async def one(row: Row) -> None:
            found[row.name] = await self._row(row, summary, answer.asked_at, wanted)

        await run_concurrently([one(row) for row in rows if not wanted.only or row.name in wanted.only], AT_ONCE)
        ordered = tuple(sorted(found.values(), key=lambda row: (row.shard.first_hash if row.shard else HASH_KEYS, row.name)))
        # Advice considers all shards, since it depends on how many are hot and which are adjacent.
        advice = () if summary.on_demand else tuple(advise([_open_shard(found.get(row.name, row)) for row in rows if row.open]))
        return Survey(self.stream, summary, answer.asked_at, ordered, advice, self.owner is not None, answer.why)

    async def _row(self, row: Row, summary: StreamSummary, asked_at: datetime, wanted: SurveyRequest) -> Row:
        tail = self.completeness.tails.get(row.name)
        measured, keys = Measured(), None
        if row.open:
            measured = await self._measured(row, tail, wanted.window)
        if row.open and wanted.pages:
            keys = await self._keys(row, asked_at, wanted)
        owner = await self.owner(row.name) if self.owner is not None else None
        sealed_by = tail.last.sealed_by if tail is not None and tail.last is not None else ""
        if keys is not None and (measured.until is None or measured.rate is None or asked_at - measured.until > self.late):
            measured = rate_from_sample(keys, asked_at, wanted.window) or measured
        if keys is not None and not measured.sampled:
            measured = with_overhead(measured, keys.sample)
        known = replace(row, measured=measured, keys=keys, owner=owner, sealed_by=sealed_by)
        found = with_marks(known, asked_at, summary.retention, self.late)
        paused = self.pauses.reading(self.stream, row.name) is not None
        return replace(found, marks=("paused", *found.marks)) if paused else found

    async def _keys(self, row: Row, asked_at: datetime, wanted: SurveyRequest) -> Keys:
        excerpts = Excerpts(self.client, self.stream, wanted.pages, self.clock)
        excerpt = await excerpts.read(row.name, asked_at - wanted.window, asked_at)
        shown: Callable[[pl.Series], pl.Series] | None = None if wanted.secret is None else keyed_hash(wanted.secret, DIGEST)
        first, last = (row.shard.first_hash, row.shard.last_hash) if row.shard is not None else (0, HASH_KEYS - 1)
        return Keys(counted(excerpt.pages, first, last, shown), excerpt)

    async def _measured(self, row: Row, tail: Tail | None, window: timedelta) -> Measured:
        standing = row.standing
        if tail is None or standing is None or standing.reach is None or standing.state not in {State.UNSEALED, State.EARLY}:
            return Measured(why="nothing is known of what arrived: " + (standing.why if standing and standing.why else "nothing is sealed"))
        until = standing.reach
        begin = until - window
        links, whole = await self._links(tail, begin)
        if not_units := [link for link in links if link.kind is not Kind.UNIT]:
            why = f"the log has a link of the kind {not_units[0].kind.value} there, and how many records that stands for is not known"
            return Measured(until=until, why=why)
        if not links and tail.position == ORIGIN and standing.state is State.UNSEALED:
            return Measured(until=until, why="nothing of it is sealed yet")
        oldest = [datetime.fromisoformat(link.first_arrival) for link in links if link.first_arrival]
        since = begin if whole or not oldest else max(begin, min(oldest))
        arrivals = Arrivals(since, until)
        for link in links:
            if why := await self._add(link, arrivals):
                return Measured(None, since, until, why)
        return Measured(rate_of(arrivals), since, until, aggregated=arrivals.users > int(arrivals.records.sum()))

    async def _links(self, tail: Tail, begin: datetime) -> tuple[list[Manifest], bool]:
        """The sealed links of a chain whose records may have arrived at ``begin`` or later, and whether an older one is known."""
        log = self.completeness.log
        starts = await last_starts(log.store, self.stream, tail.shard.chain, MOST_UNITS, tail.position)
        left = [start for start in starts if start < tail.position]
        found: list[Manifest] = []
        while left:
            read: dict[int, Manifest] = {}

            async def one(start: int, into: dict[int, Manifest] = read) -> None:
                entry = await log.read(tail.shard, start)
                if entry is not None:
                    into[start] = entry.manifest

            await run_concurrently([one(start) for start in left[-UNITS_AT_ONCE:]], UNITS_AT_ONCE)
            left = left[:-UNITS_AT_ONCE]
            for _, link in sorted(read.items(), reverse=True):
                if link.last_arrival and datetime.fromisoformat(link.last_arrival) < begin:
                    return found, True
                found.append(link)
        return found, False

    async def _add(self, link: Manifest, arrivals: Arrivals) -> str:
        """Count the records of a unit. Returns why they cannot be counted, or an empty text."""
        for entry in link.files:
            if entry.sink != ledger.NAME:
                continue
            stored = await self.ledger.get(entry.key)
            if stored is None:
                return f"the ledger segment {entry.key} is missing"
            try:
                arrivals.add(stored.body)
            except SegmentError as error:
                return f"{entry.key}: {error}"
        return ""


def unfinished(shards: Sequence[Shard], standings: Sequence[Standing]) -> list[Row]:
    """The shards that are open, or have something left to read, according to the stream and the log."""
    listed = {shard.shard_id: shard for shard in shards}
    standing = {each.shard: each for each in standings}
    rows = []
    for name in sorted(listed.keys() | standing.keys()):
        is_open = name in listed and not children_of(shards, name)
        if is_open or name not in standing or standing[name].state is not State.ENDED:
            rows.append(Row(name, listed.get(name), is_open, standing.get(name)))
    return rows


def with_marks(row: Row, asked_at: datetime, retention: timedelta, late: timedelta) -> Row:
    """``row`` with the age of its oldest unsealed record, when that expires, and its notes for an operator."""
    standing, rate = row.standing, row.measured.rate
    unread = standing.reach if standing is not None and standing.state is State.UNSEALED else None
    expires = None if unread is None else unread + retention
    marks = []
    if rate is not None and rate.hot:
        marks.append("hot")
    elif rate is not None and rate.peak is not None and rate.peak >= 1.0:
        marks.append("peaks")
    if unread is not None and asked_at - unread > late:
        marks.append("late")
    if unread is not None and asked_at - unread > retention * thresholds.RETENTION_SHARE:
        marks.append("expiring")
    if standing is not None and standing.state in {State.EXPIRED, State.GONE, State.SILENT}:
        marks.append(standing.state.value)
    return replace(row, unread=unread, expires=expires, marks=tuple(marks))


def rate_of(arrivals: Arrivals) -> Rate:
    """Averages over the whole time; less than a second counts as one second, because limits are per second."""
    seconds = max(1.0, (arrivals.end - arrivals.begin).total_seconds())
    size, records = arrivals.size, arrivals.records
    return Rate(float(size.sum()) / seconds, float(records.sum()) / seconds, float(size.max()), float(records.max()))


def rate_from_sample(keys: Keys, asked_at: datetime, window: timedelta) -> Measured | None:
    """The rate computed from an excerpt, for a shard without recent sealed units; None if the excerpt is too short."""
    sample, covered = keys.sample, keys.excerpt.covered
    if covered < LEAST_COVERED:
        return None
    return Measured(Rate(sample.size / covered, sample.records / covered), asked_at - window, asked_at, sampled=True, weighed=True)


def with_overhead(measured: Measured, sample: Sample) -> Measured:
    """What the ledger measured, with what partition keys and KPL aggregates add to payloads, in the proportion of ``sample``."""
    rate = measured.rate
    if rate is None or not sample.payload:
        return measured
    heavier = sample.size / sample.payload
    peak = None if rate.peak_size is None else rate.peak_size * heavier
    return replace(measured, rate=replace(rate, size=rate.size * heavier, peak_size=peak), weighed=True)


def _open_shard(row: Row) -> OpenShard:
    """``row`` as input for advice. It has no peak, so that the shard is never merged, if more may arrive in it than is known.

    That is the case if the shard is late, since its rate is then outdated, or if the bytes of KPL aggregates were not weighed.
    """
    shard, rate = row.shard or Shard("", row.name), row.measured.rate
    if rate is not None and ("late" in row.marks or row.measured.light):
        rate = replace(rate, peak_size=None, peak_records=None)
    return OpenShard(row.name, shard.first_hash, shard.last_hash, rate, row.keys.sample if row.keys is not None else None)


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(row.name for row in rows) or "none"


async def survey(streams: Sequence[Pipeline], base: Path, wanted: SurveyRequest, clock: Clock, emit: Emit) -> list[Survey]:
    """The state of the shards of each of ``streams``, each a pipeline narrowed to one stream.

    Raises:
        DefinitionError: shards are named, and there are several streams.
        StreamError: as ``Surveyor.survey``.
    """
    if wanted.only and len(streams) > 1:
        msg = f"--shard names a shard of one stream, and this pipeline reads {len(streams)}: name it with --stream"
        raise DefinitionError(msg)
    async with AsyncExitStack() as stack:
        session = session_of(streams[0])
        client = await stack.enter_async_context(open_kinesis(session))
        found = []
        for one in streams:
            stream, stores = one.source.kinesis.stream, Stores.open(one, base, session)
            log = CommitLog(stores.state, one.application, clock, "shards")
            checkpoints = await open_checkpoints(one, stream, stores.state, session, clock, stack, emit)
            compared = only_compared(client, stores.state, stream, asks=asks_first(one))
            lookahead = StreamLookahead(client, stream, clock, compared)
            completeness = Completeness(stream, log, checkpoints, lookahead)
            late, owner = one.flush.age + LATE, await owners(one, clock, emit, stack)
            pauses = await PauseRecord(stores.state).in_force(clock.now())
            surveyor = Surveyor(stream, client, completeness, stores.targets[ledger.NAME], clock, emit, late, owner, pauses)
            found.append(await surveyor.survey(wanted))
        return found


async def owners(pipeline: Pipeline, clock: Clock, emit: Emit, stack: AsyncExitStack) -> Callable[[str], Awaitable[str | None]] | None:
    """Asks for the owner of a shard's lease; None if the pipeline has no leases."""
    native = pipeline.leases
    if native is None:
        return None
    table = await open_table(pipeline, native, clock, emit, stack)
    prefix = await key_prefix(pipeline, session_of(pipeline), clock, stack)

    async def owner(shard_id: str) -> str | None:
        try:
            lease = await table.get(f"{prefix}{shard_id}")
        except RowProblem:
            return None
        return None if lease is None else lease.owner

    return owner
