"""The interfaces between the rooms: what each needs from the others, as Protocols. Read this page first.

No room imports a neighbour. Each sees only the Protocols below; ``worker/assemble.py`` passes in the objects that satisfy them.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol, TypeAlias, runtime_checkable

import polars as pl

from stream.batch import Batch
from stream.events import Event

Emit: TypeAlias = Callable[[Event], None]
"""Announces that something happened. Never blocks, never raises, may be called from any thread."""


class Clock(Protocol):
    """Time, passed in so that tests control it."""

    def now(self) -> datetime:
        """Wall-clock time, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        ...


# --- records in -----------------------------------------------------------------------------------------------------------


class StartKind(StrEnum):
    """Where reading of a new shard begins."""

    TRIM_HORIZON = "trim_horizon"
    LATEST = "latest"
    AT_TIMESTAMP = "at_timestamp"


@dataclass(frozen=True, slots=True)
class Start:
    """A start position; ``timestamp`` (UTC) is set for ``AT_TIMESTAMP`` and only then."""

    kind: StartKind
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as the service lists it. The hash range is inclusive on both ends; ``parents`` has 0, 1 or 2 ids.

    ``generation`` counts how often the shard was rewound. Each rewind starts a new chain in the commit log, under the name ``chain``.
    ``begins``: no record of the shard has a smaller sequence number; 0 if that is not known. ``is_open``: records can still be put into it.
    """

    stream: str
    shard_id: str
    parents: tuple[str, ...] = ()
    first_hash: int = 0
    last_hash: int = 2**128 - 1
    generation: int = 0
    begins: int = field(default=0, compare=False)
    is_open: bool = field(default=False, compare=False)

    @property
    def chain(self) -> str:
        """The name of its chain in the commit log and in file names: the shard id, and after a rewind also the generation."""
        return f"{self.shard_id}{GENERATION_MARK}{self.generation}" if self.generation else self.shard_id


GENERATION_MARK: Final = "_r"
"""Separates shard id and generation in the name of a chain; shard ids are ``shardId-`` and digits."""


def shard_of_chain(chain: str) -> tuple[str, int]:
    """Shard id and generation from a chain's name."""
    shard_id, mark, generation = chain.rpartition(GENERATION_MARK)
    return (shard_id, int(generation)) if mark and generation.isdigit() else (chain, 0)


@dataclass(frozen=True, slots=True)
class Page:
    """One response of the source.

    ``position`` is the greatest sequence number read so far in this shard, even if the page has no rows. ``held`` is the
    number of bytes of the byte budget that this page occupies; the receiver must give them back when it drops the page. After a page with
    ``ended`` set there is no further page, and ``children`` lists the shards that continue this one. After a page with ``paused`` set
    there is none either, although the shard continues: the reader asked for no more than this. With ``closes``, a unit must end with this
    page, because how a range is read again depends on where it ends. ``behind_ms`` was true at ``asked`` (wall clock) or later; None if
    the source does not say when.
    """

    batch: Batch
    position: int
    behind_ms: int
    held: int
    ended: bool = False
    children: tuple[str, ...] = ()
    paused: bool = False
    closes: bool = False
    asked: datetime | None = None


class Source(Protocol):
    """Shards of one stream and the records in them."""

    async def shards(self) -> list[Shard]:
        """All shards the service still knows, open or closed."""
        ...

    def read(
        self, shard: Shard, after: int, start: Start, until: int | None = None, complete_until: datetime | None = None
    ) -> AsyncIterator[Page]:
        """Pages of ``shard`` in order, starting after sequence number ``after``.

        With ``after == ORIGIN``, reading begins at ``start`` instead. With ``until``, no row beyond it is delivered and the
        iterator ends once ``position`` has reached it; without, it ends only with the shard. An idle shard yields pages
        without rows: about once a second if it is polled, every few seconds if records are pushed. A page never splits a KPL
        aggregate. ``complete_until`` states that everything that had arrived by then is at or before ``after``. Without it, if the
        record ``after`` is gone from the stream, records that followed it may be gone too.

        Raises:
            Fatal: stream missing, access denied.
            Expired: records after ``after`` may be gone from the stream.
        """
        ...


class Budget(Protocol):
    """A limit on the bytes held at once."""

    def release(self, size: int) -> None:
        """Give ``size`` bytes back."""
        ...


class LendingSource(Source, Protocol):
    """A source whose pages hold bytes of ``budget``."""

    @property
    def budget(self) -> Budget:
        """Takes back the ``held`` bytes of a dropped page."""
        ...


# --- the engine -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transformed:
    """What the chain made of one batch of ``records`` records.

    ``frame``: the rows to write, in stream order, with the lineage columns and ``_row`` (UInt32, the index of the input record).
    ``settled``: one row per input record that is *not* in ``frame``: ``_row`` UInt32, ``outcome`` UInt8, ``stage`` String,
    ``reason`` String, ascending by ``_row``. Every record is in exactly one of the two. ``taken``: by the name of each
    sink that has a condition, which rows of ``frame`` it takes (Boolean); every other sink takes them all, and each row is taken by a sink.
    """

    frame: pl.DataFrame
    settled: pl.DataFrame
    records: int
    stage_rows: tuple[tuple[str, int, int, float], ...] = ()
    """Per stage: name, rows in, rows out, seconds of CPU-bound work."""
    taken: Mapping[str, pl.Series] = field(default_factory=dict)

    def rows_for(self, sink: str) -> pl.DataFrame:
        """The rows of ``frame`` that the sink with that name takes, in their order."""
        return self.frame.filter(self.taken[sink]) if sink in self.taken else self.frame


class Chain(Protocol):
    """Decoder and stages of one pipeline definition, ready to run. Pure: equal batches give equal frames."""

    def run(self, batch: Batch, shard_id: str) -> Transformed:
        """Decode ``batch`` and run every stage over it. Never raises for bad data; called from worker threads."""
        ...


# --- batches out ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One object to write: its place, its bytes, and what the manifest will say about it.

    ``sink`` names the target as the manifest does; ``key`` is relative to that target's root and contains a digest of ``body``, so
    that writing the object twice changes nothing.
    """

    sink: str
    key: str
    body: bytes
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sink's files for one unit, and where each row went.

    ``placement`` has the columns ``_row`` UInt32, ``file`` UInt16 (index into ``files``), ``line`` UInt32 (0-based row inside the
    file), one row per row of the encoded frame.
    """

    files: tuple[OutputFile, ...]
    placement: pl.DataFrame


class Sink(Protocol):
    """Turns rows into files, purely. The same frame and unit name always give the same keys and bytes."""

    @property
    def name(self) -> str:
        """Unique within the pipeline."""
        ...

    def encode(self, frame: pl.DataFrame, unit: str) -> Encoded:
        """The files for ``frame`` (from ``Transformed.rows_for``); ``unit`` is the stem of their names, from ``commit/naming.py``."""
        ...


@runtime_checkable
class RefusingSink(Protocol):
    """A sink that cannot take every row. A record with a refused row becomes a dead letter for all sinks, so that they agree."""

    @property
    def name(self) -> str:
        """The ``name`` of the ``Sink``."""
        ...

    def refused(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The records of ``frame`` that the sink cannot take, one row each, ascending: ``_row`` UInt32, ``reason`` String. Pure."""
        ...


# --- where things are kept --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """An object's content, and the tag that a conditional replace must name."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A listed object."""

    key: str
    size: int
    modified: datetime
    version: str = ""
    """Changes whenever the content does. ``RangedStore.read_range`` takes it; it is not the tag that ``replace`` takes."""


CONSOLE: Final = "console:"
"""The URL of standard output, where objects are printed and not kept."""


class ObjectStore(Protocol):
    """Objects under one root (a bucket prefix, a directory, memory), with compare-and-swap.

    Every method raises ``Retryable`` when the outcome is unknown (time-out, reset, 5xx: the write may have happened) and
    ``Fatal`` when the target or the permission is missing.
    """

    @property
    def url(self) -> str:
        """The root, as a person would write it."""
        ...

    async def create(self, key: str, body: bytes) -> str | None:
        """Write ``key`` if it does not exist and return its tag; if it exists, write nothing and return None."""
        ...

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        """Write ``key`` if its tag is ``etag`` and return the new tag; if it is not, write nothing and return None."""
        ...

    async def put(self, key: str, body: bytes) -> None:
        """Write ``key``, whether or not it exists."""
        ...

    async def get(self, key: str) -> Stored | None:
        """The object, or None if there is none."""
        ...

    def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with ``prefix`` and sorts after ``after``, in ascending order of key."""
        ...

    async def folders(self, prefix: str) -> builtins.list[str]:
        """Names of the folders right under ``prefix``, which ends in a slash, in the order in which ``list`` comes to what they hold.

        A store gives a thousand of them in one answer, however many objects there are.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove ``key``; do nothing if it does not exist."""
        ...


class RangedStore(ObjectStore, Protocol):
    """A store whose objects can be read in parts, with the certainty that all parts are of the same version."""

    async def read_range(self, key: str, start: int, end: int, version: str) -> bytes | None:
        """Bytes ``[start, end)`` of ``key`` as it was listed with ``version``; None if it is gone or has another version now."""
        ...

    async def stat(self, key: str) -> ObjectInfo | None:
        """What ``list`` would say of ``key`` now; None if there is no such object."""
        ...


# --- leases ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reached:
    """How far another application claims to have processed a shard: up to user record ``subsequence`` of ``position``; None: to its end."""

    position: int | None
    subsequence: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A hint where the commit log's sealed part ends: it may lag behind the log, but never lead it.

    ``position`` is a sequence number, or None for a shard that has ended; ``subsequence`` is the index of its last user record;
    ``unit_after`` is where the unit that ends there begins, so that the log can be entered without listing it. ``tip``: everything
    that had arrived by then is committed; on a quiet shard that is much later than the last record. ``record``: whether a record has the
    sequence number ``position``; at the end of a gap, none does. ``generation``: the generation of its chain. ``foreign``: set if another
    application, such as a Java KCL that shares the lease table, has overwritten the checkpoint; None if only the log counts. ``set_back``:
    what somebody else has set the checkpoint to, if that is before ``position``; it counts for nothing.
    """

    position: int | None
    subsequence: int
    unit_after: int
    tip: datetime | None = None
    record: bool = True
    generation: int = 0
    foreign: Reached | None = None
    set_back: str = ""

    def foreign_after(self, position: int) -> Reached | None:
        """How far the other application has got, if that is beyond ``position``."""
        reached = self.foreign
        return reached if reached is not None and (reached.position is None or reached.position > position) else None


class Checkpoints(Protocol):
    """Where checkpoints are kept, one per shard."""

    async def read(self, shard: Shard) -> Checkpoint | None:
        """The stored checkpoint, or None if there is none."""
        ...

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """Store ``checkpoint``.

        Raises:
            LeaseLost: the shard belongs to another worker now; nothing was stored.
        """
        ...
