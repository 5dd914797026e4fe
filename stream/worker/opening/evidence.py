"""What a pipeline has written, opened for reading: its log, its files, its checkpoints, and its records where they can be read again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from stream.audit.chain import Link, ShardLog, StoredCheckpoint
from stream.audit.compacted import Compacted
from stream.audit.ledger import LedgerObject
from stream.audit.objects import Area, former_place, url_in
from stream.audit.outputs import Separation
from stream.audit.source import Reread
from stream.batch import ORIGIN
from stream.commit.log import CommitLog
from stream.commit.lookup import PAGE, position_of, shards_of, unit_start
from stream.commit.manifest import decode_start, pinned
from stream.commit.naming import genesis_key, manifest_key, shard_prefix, start_key
from stream.concurrency import run_concurrently
from stream.contracts import Checkpoints, LendingSource, ObjectStore, Shard, Start, StartKind, shard_of_chain
from stream.errors import Halted
from stream.source.bounded import BoundedSource
from stream.source.until import ReadUntil
from stream.worker.objects.slices import ClaimedSource
from stream.worker.opening.compacted import CompactedFiles
from stream.worker.opening.links import link_of
from stream.worker.opening.other_streams import OtherStreams
from stream.worker.opening.recorded import RecordedDefinitions
from stream.worker.opening.rereading import records_again
from stream.worker.opening.separations import Separations

READ_AT_ONCE: Final = 16
"""Manifests fetched at a time."""


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
        self._others = OtherStreams(log.store, stream)
        self._separations = Separations(log.store)
        self._recorded = RecordedDefinitions(log.store)
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
        found = tuple(links[key] for key in sorted(links))
        return ShardLog(self.stream, shard, found, tuple(sorted(unreadable.items())), since, self.application)

    async def _since(self, shard: str, after: int) -> int | None:
        """Where to begin reading for what follows ``after``: one unit earlier, at whose end a checkpoint may be; None: at the beginning."""
        start = await unit_start(self._log.store, self.stream, shard, after + 1) if after else None
        return await unit_start(self._log.store, self.stream, shard, start) if start else None

    async def listed(self) -> Mapping[str, Shard] | None:
        """See ``audit.verify.Evidence``."""
        return self._listed if self._follows_a_stream else None

    @property
    def _follows_a_stream(self) -> bool:
        """Whether the chains go on for as long as the shards of the source do: those of objects, dead letters and ranges of time do not."""
        return self._source is not None and not isinstance(self._source, ClaimedSource | BoundedSource | ReadUntil)

    async def definition(self, unit: Link) -> str:
        """See ``audit.verify.Evidence``."""
        return await self._recorded.problem(unit.pipeline, unit.build)

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
            next_one = genesis_key(self.stream, Shard(self.stream, shard_id, generation=generation + 1).chain)
            if stored.generation < generation or await self._log.store.get(next_one) is not None:
                return None
        if stored is not None:
            return StoredCheckpoint(stored.position, stored.subsequence, stored.unit_after, generation=stored.generation)
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
        """See ``audit.verify.Evidence``."""
        return await self._others.have(sink, key, self.areas.keys())

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

    def reread(self, shard: str, until: int, *, ended: bool = False) -> AsyncIterator[Reread] | None:
        """See ``audit.verify.Evidence``."""
        shard_id, generation = shard_of_chain(shard)
        if self._source is None or shard_id not in self._listed:
            return None
        # An open shard comes to no end, and that it is open is a finding of its own.
        to_its_end = ended and self._follows_a_stream and not self._listed[shard_id].is_open
        return records_again(self._source, self._log, self._listed[shard_id], generation, self._start, until, to_its_end=to_its_end)
