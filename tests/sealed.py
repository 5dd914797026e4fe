"""A small application whose units the production code has sealed, and the stream that it read: what tests of the audit examine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl

from stream.batch import RAW_SCHEMA, Batch, SeqRange
from stream.budget import ByteBudget
from stream.commit.committer import Committer, Head, RenderedUnit
from stream.commit.log import CommitLog
from stream.commit.manifest import FileEntry, Kind, Manifest, State, decode, digest, encode, with_seal
from stream.commit.places import Places
from stream.commit.rewind import history, rewind_link
from stream.contracts import Checkpoint, Page, Shard, Start, StartKind
from stream.lease.checkpoints import StoredCheckpoints
from stream.pipeline.checks.lint import check_content
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import fetch_resources
from stream.storage.memory import MemoryStore
from stream.storage.prefixed import PrefixedStore
from stream.worker.opening.evidence import StoredEvidence
from stream.worker.opening.stores import Stores
from stream.worker.recipes.definitions import Definitions
from stream.worker.recipes.recipe import CutUnit, render, with_previous
from tests import kernel_use

BEGIN = 49590338271490256608559692538361571095921575989136588898
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
START = Start(StartKind.TRIM_HORIZON)

PIPELINE = """\
application: flights
source:
  kinesis: {stream: events}
  schema: {n: int64, kind: string}
stages:
  - filter: n % 5 <> 0
  - derive: {twice: n * 2}
sinks:
  - s3: {url: "file:./lake", partition_by: [kind]}
state: "file:./state"
"""


class StillClock:
    """A clock that moves only in ``sleep`` or when a test sets ``time``."""

    def __init__(self, now: datetime = NOON) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def records(shard: int, first: int, count: int, payload=None) -> pl.DataFrame:
    """``count`` raw records of a shard from number ``first`` on; every 13th is not JSON."""
    rows = []
    for n in range(first, first + count):
        body = json.dumps({"n": n, "kind": "ab"[n % 2]}).encode() if payload is None else payload(n)
        if payload is None and n % 13 == 12:
            body = b"{broken"
        rows.append((str(sequence(shard, n)), 0, NOON + timedelta(milliseconds=n), f"key-{n}", body, 0))
    return pl.DataFrame(rows, schema=RAW_SCHEMA, orient="row")


def sequence(shard: int, n: int) -> int:
    return BEGIN + shard * 2**4 + n * 2**8


def shard_id(shard: int) -> str:
    return f"shardId-{shard:012d}"


@dataclass
class StreamOfRecords:
    """A ``contracts.LendingSource`` over records in memory; its pages hold nothing of the budget."""

    frames: dict[str, pl.DataFrame] = field(default_factory=dict)
    page_rows: int = 7
    budget: ByteBudget = field(default_factory=lambda: ByteBudget(2**20))

    async def shards(self):
        return [Shard("events", name) for name in sorted(self.frames)]

    async def read(self, shard, after, start, until=None):
        frame = self.frames[shard.shard_id]
        frame = frame.filter(pl.col("_sequence").str.zfill(60) > str(after).zfill(60))
        position = after
        for at in range(0, frame.height, self.page_rows):
            page = frame.slice(at, self.page_rows)
            if until is not None:
                page = page.filter(pl.col("_sequence").str.zfill(60) <= str(until).zfill(60))
            if page.is_empty():
                return
            position = int(page["_sequence"][-1])
            yield Page(Batch(page, 0), position, 0, 0)


@dataclass
class Sealed:
    """The application: its stores, its stream, and the head of each chain."""

    pipeline: Pipeline
    stores: Stores
    root: object
    clock: StillClock = field(default_factory=StillClock)
    source: StreamOfRecords = field(default_factory=StreamOfRecords)
    heads: dict[str, Head] = field(default_factory=dict)
    recipe: object = None
    places: dict[str, object] = field(default_factory=dict)
    """Stores by URL, of sinks that have moved."""
    generations: dict[str, int] = field(default_factory=dict)

    def move(self, place: str) -> None:
        """From now on the sink writes to the URL ``place``."""
        lake = self.stores.targets["s3"]
        self.places[lake.url] = lake
        self.stores = Stores(self.stores.state, {**self.stores.targets, "s3": MemoryStore(url=place)})

    @staticmethod
    async def open(*, state=None, lake=None, text: str = PIPELINE, base: Path = Path(), env=None) -> Sealed:
        result = check_content(text.encode(), "pipeline.yaml", base, env or {})
        assert result.pipeline is not None, [finding.render() for finding in result.findings]
        root = state or MemoryStore(url="memory:state")
        inner = PrefixedStore(root, f"{result.pipeline.application}/")
        targets = {"s3": lake or MemoryStore(url="memory:lake")}
        targets |= {"rejects": PrefixedStore(inner, "rejects/"), "ledger": PrefixedStore(inner, "ledger/v1/")}
        sealed = Sealed(result.pipeline, Stores(inner, targets), root)
        fetched = await fetch_resources(result.pipeline, base, env or {})
        sealed.recipe = await Definitions(inner, base, env or {}, sealed.clock).record(result.pipeline, fetched)
        await sealed.log.pin_start("events", START)
        return sealed

    @property
    def log(self) -> CommitLog:
        return CommitLog(self.stores.state, self.pipeline.application, self.clock, "worker-1")

    @property
    def committer(self) -> Committer:
        places = Places(self.stores.targets, self.places.__getitem__)
        return Committer(self.log, places, StoredCheckpoints(self.stores.state), self.clock, lambda event: None, "worker-1")

    async def unit(self, shard: int, first: int, count: int, payload=None) -> Manifest:
        """Commit the next unit of ``shard``, from records that are added to the stream if it does not have them."""
        name = shard_id(shard)
        where = self._shard(name)
        if name not in self.heads:
            genesis = await self.log.open_chain(where, START)
            self.heads[name] = Head(0, digest(genesis.body))
        frame = records(shard, first, count, payload)
        there = self.source.frames.get(name, frame.clear())
        self.source.frames[name] = pl.concat([there, frame.join(there, on="_sequence", how="anti", maintain_order="left")])
        head = self.heads[name]
        span = SeqRange(head.position, int(frame["_sequence"][-1]))
        batch = Batch(frame, int(frame["_data"].bin.size().sum()))
        rendered = render(self.recipe, CutUnit(where, span, (batch,), "rows"))
        self.clock.time += timedelta(seconds=1)
        own = with_previous(rendered.unit, head.previous, "worker-1", self.clock.now())
        self.clock.time += timedelta(milliseconds=250)
        entry = await self.committer.commit(where, own, None)
        self.heads[name] = Head(span.last, digest(entry.body))
        return entry.manifest

    async def gap(self, shard: int, last: int, kind: Kind = Kind.GAP) -> Manifest:
        """Commit a gap up to record ``last``, which expired unread; or that it was not processed for another reason."""
        name = shard_id(shard)
        head = self.heads[name]
        where = Shard("events", name)
        manifest = Manifest(
            kind,
            State.INTENT,
            self.pipeline.application,
            "events",
            name,
            after=str(head.position),
            last=str(sequence(shard, last)),
            outcomes={"expired_gap": 0},
            previous=head.previous,
            trigger="expired",
            worker="worker-1",
            created_at=self.clock.now().isoformat(),
        )
        entry = await self.committer.commit(where, RenderedUnit(manifest, ()), None)
        self.heads[name] = Head(sequence(shard, last), digest(entry.body))
        return entry.manifest

    async def end(self, shard: int, children=()) -> None:
        """Commit the end of ``shard``; the stream has the ``children``, without a record so far."""
        name = shard_id(shard)
        for child in children:
            self.source.frames.setdefault(child, self.source.frames[name].clear() if name in self.source.frames else records(shard, 1, 0))
        self.heads[name] = await self.committer.end(self._shard(name), self.heads[name], tuple(children))

    async def rewind(self, shard: int, n: int) -> None:
        """Rewind to the position after record ``n``, with which a unit ends; 0: to the beginning."""
        name, target = shard_id(shard), sequence(shard, n) if n else 0
        where = self._shard(name)
        link = rewind_link(self.log, await history(self.log, where), self.heads[name], target, "", self.clock.now().isoformat())
        entry = await self.committer.commit(where, RenderedUnit(link, ()), None)
        self.generations[name] = where.generation + 1
        genesis = await self.log.open_chain(self._shard(name), START, target, digest(entry.body))
        self.heads[name] = Head(target, digest(genesis.body))

    def _shard(self, name: str) -> Shard:
        return Shard("events", name, generation=self.generations.get(name, 0))

    def copy(self) -> Sealed:
        """The same application over copies of its stores, which must be in memory."""
        root, lake = MemoryStore(url=self.root.url), MemoryStore(url=self.stores.targets["s3"].url)
        root._objects, lake._objects = dict(self.root._objects), dict(self.stores.targets["s3"]._objects)
        inner = PrefixedStore(root, f"{self.pipeline.application}/")
        targets = {"s3": lake, "rejects": PrefixedStore(inner, "rejects/"), "ledger": PrefixedStore(inner, "ledger/v1/")}
        clock, source = StillClock(self.clock.time), StreamOfRecords(dict(self.source.frames))
        stores, generations = Stores(inner, targets), dict(self.generations)
        return Sealed(self.pipeline, stores, root, clock, source, dict(self.heads), self.recipe, generations=generations)

    def evidence(self, *, source: bool = True) -> StoredEvidence:
        oldest = NOON - timedelta(hours=1) if source else None
        areas = self.stores.areas(self.root.url, "events")
        checkpoints = StoredCheckpoints(self.stores.state)
        return StoredEvidence(self.log, areas, checkpoints, "events", self.source if source else None, oldest, self.places.__getitem__)


_MADE: list[Sealed] = []


async def three_units(**options) -> Sealed:
    """Two shards: three units of 40 records in the first, two of 25 and the end in the second. Made once, then copied."""
    if options:
        return await _three_units(**options)
    if not _MADE:
        with kernel_use.made_once():
            _MADE.append(await _three_units())
    return _MADE[0].copy()


async def _three_units(**options) -> Sealed:
    sealed = await Sealed.open(**options)
    for first in (1, 41, 81):
        await sealed.unit(0, first, 40)
    await sealed.unit(1, 1, 25)
    await sealed.unit(1, 26, 25)
    await sealed.end(1, [shard_id(2), shard_id(3)])
    return sealed


__all__ = ["NOON", "START", "Checkpoint", "Sealed", "StillClock", "StreamOfRecords", "records", "sequence", "shard_id", "three_units"]


def superseding(body: bytes, key: str) -> bytes:
    """The sealed manifest ``body`` as it is if the unit was begun by another build with the file ``key`` of the sink ``s3``.

    The manifest must be the last of its chain, since the next one would name its digest.
    """
    entry = FileEntry("s3", key, 1, 1, "0" * 64)
    return encode(with_seal(msgspec.structs.replace(decode(body, ""), superseded=(entry,))))


def another(key: str) -> str:
    """The name that another file has which was made for the same unit and partition as the file ``key``."""
    return key.replace(key.split(".")[-2], "0" * 16)
