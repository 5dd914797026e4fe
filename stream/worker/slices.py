"""Which objects a pipeline reads: new objects under its URL become a slice, which is pinned in the state and read once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from stream.budget import ByteBudget
from stream.commit.claims import Claims
from stream.contracts import Clock, Emit, ObjectInfo, ObjectStore, RangedStore
from stream.errors import DefinitionError, Halted
from stream.pipeline.model import Pipeline
from stream.pipeline.replay import ObjectsSource
from stream.source.bounded import BoundedSource
from stream.source.object_formats import Layout, ObjectFormat
from stream.source.objects import PinnedObject, parts_of, split
from stream.transform.decoders.csv import Csv
from stream.worker.finished_claims import FinishedClaims

MODIFIED: Final = "modified"
_FIELDS: Final = {"%Y": r"(?P<Y>\d{4})", "%m": r"(?P<m>\d{2})", "%d": r"(?P<d>\d{2})", "%H": r"(?P<H>\d{2})", "%M": r"(?P<M>\d{2})"}


class Slice(msgspec.Struct, frozen=True):
    """Objects that are read together; ``bounds`` divides them into shards. ``worker`` and ``claimed_at`` tell claims apart.

    ``url``: what their keys are relative to; empty in claims of builds that did not note it.
    """

    objects: tuple[PinnedObject, ...]
    bounds: tuple[tuple[int, int], ...]
    worker: str
    claimed_at: str
    url: str = ""

    def under(self, where: str) -> Iterator[tuple[str, PinnedObject]]:
        """Its objects by their keys under ``where``: their own URL, a parent or child of it, or a URL to which they moved."""
        here, own = (f"{url.removesuffix('/')}/" for url in (where, self.url or where))
        moved = not here.startswith(own) and not own.startswith(here)
        for item in self.objects:
            if moved:
                yield item.key, item
            elif f"{own}{item.key}".startswith(here):
                yield f"{own}{item.key}".removeprefix(here), item


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
    return Layout(config.format, config.compression, csv.header, csv.quote, config.column, csv.delimiter)


def record_options(pipeline: Pipeline) -> str:
    """The options that decide what the records of the objects are, for a person; empty if the pipeline reads no objects.

    Not the compression: with a wrong one, an object cannot be read at all.
    """
    if pipeline.source.s3 is None:
        return ""
    layout = layout_of(pipeline, pipeline.source.s3)
    if layout.format is ObjectFormat.CSV:
        return f"csv, header {str(layout.header).lower()}, quote {layout.quote!r}, delimiter {layout.delimiter!r}"
    column = f", column {layout.column}" if layout.format is ObjectFormat.PARQUET and layout.column is not None else ""
    return f"{layout.format}{column}"


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
            return Slice(tuple(objects), bounds, self.worker, now, self.store.url)

        return await self.claims.claim(choose)

    async def peek(self, budget: ByteBudget, emit: Emit) -> BoundedSource:
        """A source of every object that exists now, chosen or not; this pins nothing."""
        objects = fresh([info async for info in self.store.list("") if info.size], (), self.store.url)
        parts = parts_of(0, objects, split(objects, self.config.shards), self.store, layout_of(self.pipeline, self.config))
        return BoundedSource(self.config.name, parts, budget=budget, clock=self.clock, emit=emit)

    async def source(self, budget: ByteBudget, emit: Emit, finished: FinishedClaims | None = None) -> BoundedSource:
        """A source of every slice chosen so far, except those that are ``finished``."""
        layout = layout_of(self.pipeline, self.config)
        claims = enumerate(await self.claims.all(), 1)
        slices = [parts_of(number, each.objects, each.bounds, self.store, layout) for number, each in claims]
        begin = await finished.count(slices) if finished is not None else 0
        parts = [part for each in slices[begin:] for part in each]
        return BoundedSource(self.config.name, parts, budget=budget, clock=self.clock, emit=emit)


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
