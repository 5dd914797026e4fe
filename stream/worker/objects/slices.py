"""Which objects a pipeline reads: new objects under its URL become a slice, which is pinned in the state and read once."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from stream.budget import ByteBudget
from stream.commit.claims import Claims
from stream.contracts import Clock, Emit, ObjectInfo, ObjectStore, Page, RangedStore, Shard, Start
from stream.errors import DefinitionError, Halted
from stream.pipeline.model import Pipeline
from stream.pipeline.replay import ObjectsSource, OnUnreadable
from stream.source.bounded import BoundedSource
from stream.source.growing import GrowingReads, GrowingSource, is_growing
from stream.source.object_formats import TYPED, Layout, ObjectFormat
from stream.source.objects import PinnedObject, parts_of, split
from stream.transform.decoders.csv import Csv
from stream.worker.objects.claimlog import ClaimLog, Pieces
from stream.worker.objects.finished_claims import FinishedClaims
from stream.worker.objects.slice import Slice

MODIFIED: Final = "modified"
_FIELDS: Final = {"%Y": r"(?P<Y>\d{4})", "%m": r"(?P<m>\d{2})", "%d": r"(?P<d>\d{2})", "%H": r"(?P<H>\d{2})", "%M": r"(?P<M>\d{2})"}


@dataclass(frozen=True, slots=True)
class Window:
    """From ``begin`` (included) to ``end`` (excluded); None is open."""

    begin: datetime | None = None
    end: datetime | None = None

    def holds(self, moment: datetime) -> bool:
        """Whether ``moment`` is inside."""
        return (self.begin is None or moment >= self.begin) and (self.end is None or moment < self.end)


def key_times(pattern: str) -> re.Pattern[str]:
    """A regular expression that finds a time in a key, from a pattern such as ``%Y/%m/%d/%H``.

    Raises:
        DefinitionError: the pattern lacks a year, or has a field that cannot be searched for.
    """
    expression = re.escape(pattern)
    for field, group in _FIELDS.items():
        expression = expression.replace(re.escape(field), group, 1)
    if "(?P<Y>" not in expression or "%" in expression:
        msg = (
            f"source.s3.time {pattern!r} names no time: write `modified`, or fields of {', '.join(_FIELDS)}, each once, with %Y among them"
        )
        raise DefinitionError(msg)
    return re.compile(expression)


def time_of(info: ObjectInfo, pattern: re.Pattern[str] | None) -> datetime | None:
    """The object's time, from ``pattern`` in its key (UTC) or from its modification; None if its key contains no time."""
    if pattern is None:
        return info.modified
    found = pattern.search(info.key)
    if found is None:
        return None
    parts = {"m": 1, "d": 1, "H": 0, "M": 0} | {name: int(text) for name, text in found.groupdict().items()}
    try:
        return datetime(parts["Y"], parts["m"], parts["d"], parts["H"], parts["M"], tzinfo=UTC)
    except ValueError:
        return None


def fresh(listed: Iterable[ObjectInfo], known: Iterable[Slice], where: str) -> list[PinnedObject]:
    """The objects of ``listed``, which are under the URL ``where``, that are not in the slices ``known``.

    Raises:
        Halted: the content of a known object has changed.
    """
    versions = {key: item for each in known for key, item in each.under(where)}
    found = []
    for info in listed:
        seen = versions.get(info.key)
        if seen is None:
            found.append(PinnedObject(info.key, info.size, info.version, info.modified.isoformat()))
        elif (seen.size, seen.version) != (info.size, info.version):
            msg = (
                f"the object {info.key} under {where} is not the one that was listed ({seen.size} bytes, modified {seen.modified}; now "
                f"{info.size} bytes, modified {info.modified.isoformat()}): it has been changed since. Put that version back, "
                "give the new one another key, or start over in another --namespace."
            )
            raise Halted(msg)
    return found


def layout_of(pipeline: Pipeline, config: ObjectsSource) -> Layout:
    """How the objects contain records, according to the options of source and decoder."""
    decode = pipeline.source.decode
    csv = decode if isinstance(decode, Csv) else Csv()
    return Layout(
        config.format, config.compression, csv.header, csv.quote or "", config.column, csv.delimiter, csv.comment or "", config.records_path
    )


def record_options(pipeline: Pipeline) -> str:
    """The options that decide what the records of the objects are, for a person; empty if the pipeline reads no objects.

    Not the compression: with a wrong one, an object cannot be read at all.
    """
    if pipeline.source.s3 is None:
        return ""
    layout = layout_of(pipeline, pipeline.source.s3)
    if layout.format is ObjectFormat.CSV:
        comment = f", comment {layout.comment!r}" if layout.comment else ""
        return f"csv, header {str(layout.header).lower()}, quote {layout.quote!r}, delimiter {layout.delimiter!r}{comment}"
    column = f", column {layout.column}" if layout.format in TYPED and layout.column is not None else ""
    records = f", records {pipeline.source.s3.records}" if layout.records is not None else ""
    return f"{layout.format}{column}{records}"


@dataclass(frozen=True, slots=True)
class Slices:
    """The slices of one pipeline. ``store`` holds the objects, ``state`` the claims."""

    pipeline: Pipeline
    config: ObjectsSource
    store: RangedStore
    state: ObjectStore
    worker: str
    clock: Clock

    @property
    def claims(self) -> Claims[Slice]:
        """The claims made so far."""
        return Claims(self.state, self.config.name, Slice)

    async def choose_new(self, window: Window, manifest: bytes | None) -> int | None:
        """Choose the objects in ``window`` that were not chosen before. Returns the number of their slice, or None if there are none.

        Raises:
            Halted: an object that was chosen before has changed, or one that ``manifest`` lists is missing.
            DefinitionError: ``manifest`` or the time pattern cannot be read.
        """
        pattern = None if self.config.time == MODIFIED else key_times(self.config.time)
        listed = [info async for info in self.store.list("") if info.size]
        if manifest is not None:
            listed = _listed_in(manifest, listed, self.config)
        inside = []
        for info in listed:
            moment = time_of(info, pattern)
            if window == Window() or (moment is not None and window.holds(moment)):
                inside.append(info)

        async def choose(known: list[Slice]) -> Slice | None:
            objects = fresh(inside, known, self.store.url)
            if not objects:
                return None
            bounds, now = tuple(split(objects, self.config.shards)), self.clock.now().isoformat()
            # Each later claim says how far shards that grow have grown, so that a position in them is found by bisection.
            grown = tuple((end, end) for _, end in known[-1].appended) if known else ()
            return Slice(tuple(objects), self.worker, now, bounds, self.store.url, grown)

        return await self.claims.claim(choose)

    async def peek(self, budget: ByteBudget, emit: Emit) -> BoundedSource:
        """A source of every object that exists now, chosen or not; this pins nothing."""
        objects = fresh([info async for info in self.store.list("") if info.size], (), self.store.url)
        parts = parts_of(0, objects, split(objects, self.config.shards), self.store, layout_of(self.pipeline, self.config))
        return BoundedSource(self.config.name, parts, budget=budget, clock=self.clock, emit=emit)

    async def log(self, *, write_blocks: bool) -> ClaimLog:
        """The claims made so far, ready to be followed."""
        log = ClaimLog(self.state, self.config.name, self.store.url)
        await log.open(write_blocks=write_blocks)
        return log

    async def source(
        self,
        budget: ByteBudget,
        emit: Emit,
        finished: FinishedClaims | None = None,
        log: ClaimLog | None = None,
        *,
        ends: bool = True,
        grown: bool = True,
    ) -> ClaimedSource:
        """A source of every object chosen so far, except for claims with shards of their own that are ``finished``.

        Shards that grow pause at what is claimed, or with ``ends`` False wait for more; with ``grown`` False they are left to the worker
        that watches. ``log``: the claims, if they are open already.
        Without ``finished``, it is for checking, and what has been deleted is left out and reported at the end.
        """
        log, layout = log or await self.log(write_blocks=False), layout_of(self.pipeline, self.config)
        known = await finished.noted() if finished is not None else 0
        numbers = [number for number in log.bounded if number > known]
        read = await log.slices(numbers)
        parts_by_claim = {
            number: parts_of(number, each.objects, each.bounds, self.store, layout) for number, each in zip(numbers, read, strict=True)
        }
        done = await finished.count([parts_by_claim.get(number, []) for number in range(1, log.last + 1)]) if finished is not None else 0
        parts = [part for number, each in parts_by_claim.items() if number > done for part in each]
        bounded = BoundedSource(self.config.name, parts, budget=budget, clock=self.clock, emit=emit)
        watch = self.config.watch
        pieces = Pieces(log, self.store, layout, 0 if watch is None else self.config.shards)
        gives_up = watch is not None and watch.on_unreadable is OnUnreadable.DEAD_LETTER
        reads = GrowingReads(once=ends, past_deleted=finished is None, gives_up=gives_up)
        growing = GrowingSource(self.config.name, pieces, self.state, reads, budget, self.clock, emit)
        return ClaimedSource(bounded, growing, grown=grown)


class ClaimedSource:
    """``contracts.Source`` over the shards of claims that have their own, and those to which claims append."""

    def __init__(self, bounded: BoundedSource, growing: GrowingSource, *, grown: bool = True) -> None:
        self._grown = grown
        self.stream = bounded.stream
        self.budget = bounded.budget
        self._bounded = bounded
        self._growing = growing

    async def shards(self) -> list[Shard]:
        """All shards, ordered by id."""
        return [*await self._bounded.shards(), *(await self._growing.shards() if self._grown else ())]

    def read(
        self, shard: Shard, after: int, start: Start, until: int | None = None, complete_until: datetime | None = None
    ) -> AsyncIterator[Page]:
        """Pages of ``shard``, as ``contracts.Source.read`` promises."""
        source = self._growing if is_growing(shard.shard_id) else self._bounded
        return source.read(shard, after, start, until, complete_until)


class _CopyEntry(msgspec.Struct):
    url: str


class _CopyManifest(msgspec.Struct):
    entries: list[_CopyEntry]


def _listed_in(manifest: bytes, listed: Sequence[ObjectInfo], config: ObjectsSource) -> list[ObjectInfo]:
    """Those of ``listed`` that the manifest names; all of them must be there."""
    try:
        text = manifest.decode()
        urls = (
            [entry.url for entry in msgspec.json.decode(manifest, type=_CopyManifest).entries] if text.startswith("{") else text.split("\n")
        )
    except (UnicodeDecodeError, msgspec.MsgspecError) as error:
        msg = f"the manifest {config.manifest} is neither a list of keys, one per line, nor a COPY manifest: {error}"
        raise DefinitionError(msg) from error
    root = config.url.removesuffix("/") + "/"
    wanted = {url.strip().removeprefix(root) for url in urls if url.strip()}
    missing = sorted(wanted - {info.key for info in listed})
    if missing:
        msg = (
            f"{len(missing)} object(s) that {config.manifest} lists are not under {config.url}; the first is {missing[0]}. Put them there."
        )
        raise DefinitionError(msg)
    return [info for info in listed if info.key in wanted]
