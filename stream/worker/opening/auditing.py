"""A pipeline's log, files and stream, opened for reading by the audit commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from stream.audit import ledger
from stream.audit.chain import Link, LinkKind, ShardLog, StageRun, StoredCheckpoint
from stream.audit.compacted import Compacted
from stream.audit.ledger import LedgerObject
from stream.audit.objects import Area, former_place, stream_of, unit_of, url_in
from stream.audit.outputs import Separation
from stream.audit.source import Reread
from stream.aws.session import AwsSession
from stream.batch import ORIGIN, SEQUENCE, SUBSEQUENCE
from stream.commit.log import CommitLog
from stream.commit.lookup import PAGE, position_of, shards_of, starts_of, streams_of, unit_start
from stream.commit.manifest import FileEntry, Kind, Manifest, decode, decode_start, digest, is_canonical, pinned, seal_of, unpinned
from stream.commit.naming import genesis_key, manifest_key, shard_prefix, start_key
from stream.concurrency import run_concurrently
from stream.contracts import Checkpoints, LendingSource, ObjectStore, Shard, Start, StartKind, shard_of_chain
from stream.errors import Halted
from stream.pipeline.model import Pipeline
from stream.sink import rejects
from stream.sink.redshift import COPY_MANIFESTS
from stream.source.bounded import BoundedSource, place_of
from stream.source.unreadable import UNREADABLE
from stream.storage.open import open_store
from stream.storage.prefixed import PrefixedStore
from stream.worker.objects.slices import ClaimedSource
from stream.worker.opening.compacted import CompactedFiles
from stream.worker.opening.places import kms_key, located
from stream.worker.opening.separations import Separations

READ_AT_ONCE: Final = 16
"""Manifests fetched at a time."""

KNOWN_MANIFESTS: Final = 10_000
"""Manifests of other chains kept in memory. Files are listed by name, so the files of a unit are spread over its partitions."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of one pipeline. ``targets``: the store of every sink by name, including ledger and rejects."""

    state: ObjectStore
    targets: Mapping[str, ObjectStore]

    @staticmethod
    def open(pipeline: Pipeline, base: Path, session: AwsSession) -> Stores:
        """Open the stores, without reading anything yet; relative paths start at ``base``.

        Raises:
            DefinitionError: a URL does not name a store.
        """
        return Stores.over(pipeline, base, partial(open_store, session=session, key=kms_key(pipeline)))

    @staticmethod
    def over(pipeline: Pipeline, base: Path, open_place: Callable[[str], ObjectStore]) -> Stores:
        """The stores at the pipeline's URLs, each opened by ``open_place``."""
        state = PrefixedStore(open_place(located(pipeline.state, base)), f"{pipeline.application}/")
        targets: dict[str, ObjectStore] = {config.name: open_place(located(config.url, base)) for config in pipeline.sinks}
        targets[rejects.NAME] = PrefixedStore(state, "rejects/")
        targets[ledger.NAME] = PrefixedStore(state, "ledger/v1/")
        return Stores(state, targets)

    def areas(self, state_url: str, stream: str) -> dict[str, Area]:
        """Where the files of each target are. If the state is under a sink's prefix, it does not count as that sink's files."""
        own = {rejects.NAME, ledger.NAME}
        return {
            name: Area(name, store, f"{stream}/" if name in own else "", () if name in own else self._foreign(store, state_url))
            for name, store in self.targets.items()
        }

    @staticmethod
    def _foreign(store: ObjectStore, state_url: str) -> tuple[str, ...]:
        return state_url, f"{store.url.removesuffix('/')}/{COPY_MANIFESTS}"


def link_of(key: str, body: bytes, position: int | None) -> Link:
    """The manifest with the bytes ``body`` at ``key``, as the audit sees it.

    Raises:
        Halted: it is not a manifest.
    """
    manifest = decode(body, key)
    return Link(
        key=key,
        kind=LinkKind(manifest.kind.value),
        sealed=manifest.sealed,
        digest=digest(body),
        position=position,
        application=manifest.application,
        stream=manifest.stream,
        shard=manifest.shard,
        after=int(manifest.after),
        last=None if manifest.last is None else int(manifest.last),
        subsequence=manifest.subsequence,
        records=manifest.records,
        outcomes=manifest.outcomes,
        files=_files(manifest.files),
        superseded=_files(manifest.superseded),
        targets=manifest.targets,
        stages=tuple(StageRun(run.name, run.rows_in, run.rows_out, run.micros) for run in manifest.stages),
        previous=manifest.previous,
        pipeline=manifest.pipeline,
        start=str(manifest.start.timestamp or manifest.start.kind) if manifest.start else "",
        parents=manifest.parents,
        children=manifest.children,
        trigger=manifest.trigger,
        first_arrival=manifest.first_arrival,
        last_arrival=manifest.last_arrival,
        worker=manifest.worker,
        created_at=manifest.created_at,
        sealed_by=manifest.sealed_by,
        sealed_at=manifest.sealed_at,
        target=None if manifest.target is None else int(manifest.target),
        note=manifest.note,
        damage=_damage(manifest, body),
    )


def _files(entries: Sequence[FileEntry]) -> tuple[LedgerObject, ...]:
    return tuple(LedgerObject(entry.sink, entry.key, entry.rows, entry.size, entry.sha256) for entry in entries)


def _damage(manifest: Manifest, body: bytes) -> str:
    if not is_canonical(body):
        return "the manifest does not have the form in which the service writes it: it was edited"
    if manifest.sealed and seal_of(body) != manifest.seal:
        return "the manifest's seal does not match its content: it was edited after it was sealed"
    if not manifest.sealed and manifest.seal:
        return "the manifest carries a seal but says that it is an intent: it was edited"
    return ""


class _Elsewhere:
    """Which files other chains list. There may be very many, so the keys of each chain and each manifest are read only once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._starts: dict[tuple[str, str], frozenset[int]] = {}
        self._files: dict[str, frozenset[tuple[str, str]]] = {}

    async def sinks(self, stream: str, shard: str, after: int, name: str) -> frozenset[str]:
        """The sinks under which the unit of ``shard`` that begins after ``after`` lists a file with the key ``name``."""
        if after not in await self._starts_of(stream, shard):
            return frozenset()
        key = manifest_key(stream, shard, after)
        if key not in self._files:
            while len(self._files) >= KNOWN_MANIFESTS:
                del self._files[next(iter(self._files))]
            self._files[key] = await self._files_in(key)
        return frozenset(sink for sink, file in self._files[key] if file == name)

    async def _starts_of(self, stream: str, shard: str) -> frozenset[int]:
        if (stream, shard) not in self._starts:
            prefix = shard_prefix(stream, shard)
            found = [position_of(info.key, prefix) async for info in self._store.list(prefix)]
            self._starts[stream, shard] = frozenset(start for start in found if start is not None)
        return self._starts[stream, shard]

    async def _files_in(self, key: str) -> frozenset[tuple[str, str]]:
        stored = await self._store.get(key)
        try:
            return frozenset((file.sink, file.key) for file in decode(stored.body, key).files) if stored else frozenset()
        except Halted:  # the verification of its own stream says so
            return frozenset()


async def _whole(_: Shard) -> str:
    return ""


class StoredEvidence:
    """``audit.verify.Evidence`` over a pipeline's stores; with a ``source``, over the stream too.

    ``open_place`` opens a URL at which a sink was when an older unit was sealed. ``loaded``: by shard, up to where files of sinks that the
    pipeline does not have any more may have been removed after their load.
    """

    def __init__(
        self,
        log: CommitLog,
        areas: Mapping[str, Area],
        checkpoints: Checkpoints,
        stream: str,
        source: LendingSource | None = None,
        oldest: datetime | None = None,
        open_place: Callable[[str], ObjectStore] | None = None,
        *,
        deletes_ended_checkpoints: bool = False,
    ) -> None:
        self.application = log.application
        self.stream = stream
        self.areas = areas
        self.horizon = oldest
        self.deletes_ended_checkpoints = deletes_ended_checkpoints
        self.shares_places = False
        self.loaded: Mapping[str, int] = {}
        self.damage: Callable[[Shard], Awaitable[str]] = _whole
        """Says why the place of a shard's checkpoint cannot be read."""
        self.compacted: Compacted = CompactedFiles(log.store, stream, open_place, {area.store.url: area.store for area in areas.values()})
        self._log = log
        self._checkpoints = checkpoints
        self._source = source
        self._open = open_place
        self._former: dict[str, ObjectStore] = {}
        self._listed: dict[str, Shard] = {}
        self._streams: list[str] | None = None
        self._elsewhere = _Elsewhere(log.store)
        self._separations = Separations(log.store)
        self._start = Start(StartKind.TRIM_HORIZON)

    async def shards(self) -> list[str]:
        """See ``audit.verify.Evidence``."""
        if self._source is not None:
            self._listed = {shard.shard_id: shard for shard in await self._source.shards()}
        return [shard_id async for shard_id in shards_of(self._log.store, self.stream)]

    async def log(self, shard: str, after: int = ORIGIN) -> ShardLog:
        """See ``audit.verify.Evidence``."""
        prefix = shard_prefix(self.stream, shard)
        links: dict[str, Link] = {}
        unreadable: dict[str, str] = {}

        async def read(key: str) -> None:
            position = position_of(key, prefix)
            if position is None and key != genesis_key(self.stream, shard):
                unreadable[key] = "no manifest has such a name: somebody else put the object here"
                return
            stored = await self._log.store.get(key)
            try:
                if stored is not None:
                    links[key] = link_of(key, stored.body, position)
            except (Halted, ValueError) as error:
                unreadable[key] = str(error)

        since = await self._since(shard, after)
        keys: list[str] = []
        async for info in self._log.store.list(prefix, manifest_key(self.stream, shard, since - 1) if since else ""):
            keys.append(info.key)
            if len(keys) == PAGE:
                await run_concurrently([read(key) for key in keys], READ_AT_ONCE)
                keys.clear()
        await run_concurrently([read(key) for key in keys], READ_AT_ONCE)
        return ShardLog(self.stream, shard, tuple(links[key] for key in sorted(links)), tuple(sorted(unreadable.items())), since)

    async def _since(self, shard: str, after: int) -> int | None:
        """Where to begin reading for what follows ``after``: one unit earlier, at whose end a checkpoint may be; None: at the beginning."""
        start = await unit_start(self._log.store, self.stream, shard, after + 1) if after else None
        return await unit_start(self._log.store, self.stream, shard, start) if start else None

    async def unit(self, shard: str, after: int) -> Link | None:
        """See ``audit.verify.Evidence``."""
        key = manifest_key(self.stream, shard, after)
        stored = await self._log.store.get(key)
        try:
            return None if stored is None else link_of(key, stored.body, after)
        except (Halted, ValueError):
            return None

    async def checkpoint(self, shard: str) -> StoredCheckpoint | None:
        """See ``audit.verify.Evidence``."""
        shard_id, generation = shard_of_chain(shard)
        stored = await self._checkpoints.read(Shard(self.stream, shard_id))
        if stored is not None and stored.generation != generation:
            return None
        if stored is not None:
            return StoredCheckpoint(stored.position, stored.subsequence, stored.unit_after)
        if why := await self.damage(Shard(self.stream, shard_id)):
            remedy = "repair it, or delete it while no worker runs: it is created again, and the log says where to continue"
            return StoredCheckpoint(None, problem=f"the lease cannot be read, so nobody reads the shard: {why}; {remedy}")
        # Beside a lease table such an object is of a run without leases, as `run --once` is, and nobody goes by it.
        if not self.deletes_ended_checkpoints and await self._log.store.get(f"checkpoints/{self.stream}/{shard}.json") is not None:
            return StoredCheckpoint(None, problem="the stored checkpoint cannot be read: it was edited")
        return None

    async def unlisted_checkpoints(self, shards: Sequence[str]) -> list[str]:
        """See ``audit.verify.Evidence``."""
        prefix = f"checkpoints/{self.stream}/"
        known = {f"{prefix}{shard_of_chain(shard)[0]}.json" for shard in shards}
        return [info.key async for info in self._log.store.list(prefix) if info.key not in known]

    async def of_another_stream(self, sink: str, key: str) -> bool:
        """See ``audit.verify.Evidence``. A file whose name begins with a stream's name is that stream's; for others, the logs are read."""
        if self._streams is None:
            self._streams = [stream async for stream in streams_of(self._log.store)]
        named = stream_of(key, self._streams)
        if named is not None:
            return named != self.stream
        for stream in self._streams:
            unit = unit_of(key, stream)
            sinks = await self._elsewhere.sinks(stream, *unit, key) if unit is not None and stream != self.stream else frozenset()
            # A sink that the pipeline does not have any more may be this one, under its earlier name.
            if sink in sinks or sinks - self.areas.keys():
                return True
        return False

    async def pinned_start(self) -> str | None:
        """See ``audit.verify.Evidence``."""
        key = start_key(self.stream)
        stored = await self._log.store.get(key)
        if stored is None:
            return None
        try:
            self._start = decode_start(stored.body, key)
        except Halted as error:
            return str(error)
        recorded = pinned(self._start)
        return str(recorded.timestamp or recorded.kind)

    async def read_file(self, unit: Link, file: LedgerObject) -> tuple[bytes | None, str] | None:
        """See ``audit.verify.Evidence``; files that were moved together with the pipeline are found at its current place."""
        area, former = self.areas.get(file.sink), former_place(unit, file.sink, self.areas)
        if former is not None and self._open is not None:
            store = self._former.setdefault(former, self._open(former))
            stored = await store.get(file.key)
            if stored is not None or area is None:
                return stored.body if stored else None, f"{former.removesuffix('/')}/{file.key}"
        if area is None:
            return None
        stored = await area.store.get(file.key)
        return stored.body if stored else None, url_in(unit, file.sink, file.key, self.areas) if stored is None else area.url_of(file.key)

    async def separation(self, unit: Link, file: LedgerObject) -> Separation | None:
        """See ``audit.verify.Evidence``."""
        return await self._separations.of(unit, file.sink, file.key)

    def may_be_gone(self, unit: Link, file: LedgerObject) -> bool:
        """See ``audit.verify.Evidence``."""
        area = self.areas.get(file.sink)
        return unit.loaded_by(self.loaded) if area is None else area.may_be_gone(unit, file.key)

    def reread(self, shard: str, until: int) -> AsyncIterator[Reread] | None:
        """See ``audit.verify.Evidence``."""
        shard_id, generation = shard_of_chain(shard)
        if self._source is None or shard_id not in self._listed:
            return None
        return self._reread(self._source, self._listed[shard_id], generation, until)

    async def _reread(self, source: LendingSource, shard: Shard, generation: int, until: int) -> AsyncIterator[Reread]:
        start, position, ends = await self._start_of(shard), ORIGIN, [until]
        if isinstance(source, ClaimedSource | BoundedSource):
            shard = replace(shard, generation=generation)
            # How an object that could not be read is read again depends on where the range ends.
            starts = [each async for each in starts_of(self._log.store, self.stream, shard.chain)]
            position = starts[0] if starts else ORIGIN
            ends = [*(each for each in starts if place_of(each)[1] == UNREADABLE and position < each < until), until]
        lost: Halted | None = None
        for end in ends:
            try:
                async with aclosing(source.read(shard, position, start, end)) as pages:  # type: ignore[type-var]
                    async for page in pages:
                        yield Reread(page.batch.frame.select(SEQUENCE, SUBSEQUENCE), page.position)
                        source.budget.release(page.held)
            except Halted as error:
                # What follows is compared nevertheless.
                lost = lost or error
            position = end
        if lost is not None:
            raise lost

    async def _start_of(self, shard: Shard) -> Start:
        """Where the chain of ``shard`` starts. What another application left may lie before the start of this one."""
        try:
            genesis, first = await self._log.genesis(shard), await self._log.read(shard, ORIGIN)
        except Halted:
            # A damaged link is a finding of its own.
            return self._start
        if first is not None and first.manifest.kind is Kind.FOREIGN:
            return Start(StartKind.TRIM_HORIZON)
        recorded = None if genesis is None else genesis.manifest.start
        return self._start if recorded is None else unpinned(recorded)
