"""Compaction: the sealed files of a sink, partition by partition, become a few large files with the same rows in a dataset of their own.

Sealed manifests say what is compacted, never a listing. ``commit/compaction.py`` says why neither a crash nor a second compactor
can double or lose a row; here are the steps: read the sources and check them against the manifests, merge, begin, write, read back,
compare, publish. Each can be repeated, and a compactor that finds a compaction begun by another finishes it first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NoReturn

import msgspec

from stream.audit.set_hash import SetHash
from stream.batch import ORIGIN, SEQUENCE, SUBSEQUENCE
from stream.commit import compaction as compactions
from stream.commit.compaction import Catalogue, Compaction, CompactionError, Link, Origin, Output, SealedFile, State
from stream.commit.log import CommitLog
from stream.concurrency import run_concurrently
from stream.contracts import Clock, ObjectStore
from stream.errors import DefinitionError, Retryable
from stream.operations.compaction.uncompacted import Scan, rewound, rewound_since, scan
from stream.sink.merge import Content, Merged, UnreadableFileError, differs, digest, lineage, merge
from stream.sink.objects import ObjectsSinkConfig

AT_ONCE: Final = 16
"""Files that are fetched or deleted at a time, and chains that are followed."""
ATTEMPTS: Final = 5
"""How often a step is repeated whose outcome is not known."""
PAUSE: Final = 2.0
"""Seconds before the first repetition; it doubles."""


class PartitionDone(msgspec.Struct, frozen=True):
    """What a run made of one partition: files and bytes before and after, and their rows. ``planned``: nothing was written."""

    stream: str
    sink: str
    partition: str
    files: int
    size: int
    outputs: int
    output_size: int
    rows: int
    planned: bool = False


class _RewoundError(Exception):
    """A shard was rewound since the log was read."""


class Compactor:
    """Compacts the files of the sink ``config`` that one stream's log lists, from ``source`` to ``target``; at most ``size`` bytes at once.

    ``tell`` is called with a line for people whenever something was done.
    """

    def __init__(
        self,
        log: CommitLog,
        stream: str,
        config: ObjectsSinkConfig,
        source: ObjectStore,
        target: ObjectStore,
        clock: Clock,
        size: int,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.source = source
        self.target = target
        self.clock = clock
        self.tell = tell
        self.catalogue = Catalogue(log.store, stream, config.name)
        self._log = log
        self._stream = stream
        self._config = config
        self._size = size
        self._scanned = Scan()

    async def scan(self) -> Scan:
        """Read the log from where the last run has left it.

        Raises:
            Halted: a link of the log cannot be read.
        """
        return await scan(self._log, self.catalogue, self.source.url)

    async def plan(self, before: datetime, *, closed: bool, only: Sequence[str] = ()) -> list[PartitionDone]:
        """What ``run`` would do if no other compactor were at work. Writes nothing."""
        self._scanned = await self.scan()
        found = []
        for name in self._scanned.files:
            if not is_chosen(name, only):
                continue
            newest = await self._newest(name)
            taken = compactions.eligible(self._scanned.free(name), newest.compaction.covered if newest else {}, before, closed=closed)
            if taken:
                parts = len(list(compactions.groups(taken, self._size)))
                size, rows = sum(each.size for each in taken), sum(each.rows for each in taken)
                found.append(PartitionDone(self._stream, self._config.name, name, len(taken), size, parts, size, rows, planned=True))
        return found

    async def run(self, before: datetime, *, closed: bool, only: Sequence[str] = ()) -> list[PartitionDone]:
        """Compact what arrived before ``before``; with ``closed``, only partitions of which that is all.

        First finishes what other compactors have begun. Returns what this run published.

        Raises:
            DefinitionError: the partition was compacted to another place.
            CompactionError: a source or a compaction is not what the log says; the other partitions were compacted.
            Retryable: a store kept failing.
        """
        self._scanned = await self.scan()
        done = []
        positions: dict[str, dict[str, str]] = {}
        wrong: list[CompactionError] = []
        for name in [name for name in self._scanned.files if is_chosen(name, only)]:
            try:
                positions[name], published = await self._partition(name, before, closed=closed)
            except CompactionError as error:
                self.tell(f"{name or 'all rows'}: {error}")
                wrong.append(error)
                continue
            if published:
                done.append(_partition_done(self._stream, self._config.name, name, published))
                self.tell(f"{name or 'all rows'}: {done[-1].files:,} files became {done[-1].outputs:,}")
        await self.catalogue.set_cursor(await self._cursor(positions))
        if wrong:
            raise wrong[0]
        return done

    async def _partition(self, name: str, before: datetime, *, closed: bool) -> tuple[dict[str, str], list[Compaction]]:
        """Compact one partition. Returns up to where its files are covered, and what was published."""
        published: list[Compaction] = []
        failures = 0
        while True:
            try:
                newest = await self._newest(name)
                if newest is not None and newest.compaction.state is State.BEGUN:
                    link: Link | None = await self._finish(newest)
                else:
                    covered = newest.compaction.covered if newest else {}
                    taken = compactions.eligible(self._scanned.free(name), covered, before, closed=closed)
                    group = next(compactions.groups(taken, self._size), None)
                    if group is None:
                        return covered, published
                    link = await self._compact(name, newest, group)
            except Retryable as error:
                failures += 1
                if failures == ATTEMPTS:
                    raise
                self.tell(f"{name}: {error}; trying again")
                await self.clock.sleep(PAUSE * 2 ** (failures - 1))
                continue
            except _RewoundError:
                self._scanned = await self.scan()
                continue
            failures = 0
            if link is not None and link.compaction.published:
                published.append(link.compaction)

    async def _newest(self, partition: str) -> Link | None:
        newest = await self.catalogue.newest(partition)
        if newest is not None and newest.compaction.url != self.target.url:
            msg = (
                f"the partition {partition or 'of all rows'} of sink {self._config.name} was compacted to {newest.compaction.url} before, "
                f"and not to {self.target.url}: a dataset is in one place. Give --to {newest.compaction.url}"
            )
            raise DefinitionError(msg)
        return newest

    async def _compact(self, partition: str, before: Link | None, group: Sequence[SealedFile]) -> Link | None:
        """Compact ``group`` as the next link of its partition; None if another compactor has begun that link."""
        previous, sources = before.compaction if before else None, tuple(each.origin() for each in group)
        fresh = Compaction(
            state=State.BEGUN,
            application=self._log.application,
            stream=self._stream,
            sink=self._config.name,
            partition=partition,
            number=previous.number + 1 if previous else 1,
            source=self.source.url,
            url=self.target.url,
            sources=sources,
            outputs=(),
            rows=sum(each.rows for each in group),
            covered=compactions.covered_by(sources, previous.covered if previous else {}),
            previous=previous.seal if previous else "",
            created_at=self.clock.now().isoformat(),
            created_by=self._log.worker,
        )
        merged = await self._merged(fresh)
        begun = _with_outputs(fresh, merged)
        etag = await self.catalogue.create(begun)
        if etag is None:
            return None
        key = self.catalogue.key(partition, begun.number)
        return await self._write(Link(begun, key, compactions.encode(begun), etag), merged)

    async def _finish(self, begun: Link) -> Link | None:
        """Finish what a compactor has begun, which may be dead or still at work; None if somebody else has changed it meanwhile."""
        known = (self._scanned.cutoffs, self._scanned.claimed)
        taken_back = any(rewound(each.shard, int(each.last), cutoffs) for each in begun.compaction.sources for cutoffs in known)
        if taken_back or await rewound_since(self._log, self._stream, begun.compaction, self._scanned):
            await self._withdraw(begun)
        merged = await self._merged(begun.compaction)
        own = _with_outputs(begun.compaction, merged)
        link: Link | None = begun
        if own.outputs != begun.compaction.outputs:
            # Another build began it. Whatever it has written is removed once this is published.
            foreign = {each.key for each in begun.compaction.outputs} | set(begun.compaction.superseded)
            left = tuple(sorted(foreign - {each.key for each in own.outputs}))
            link = await self.catalogue.replace(begun, msgspec.structs.replace(own, superseded=left))
        return None if link is None else await self._write(link, merged)

    async def _merged(self, compaction: Compaction) -> Merged:
        """The sources, merged, as the store has them now.

        Raises:
            CompactionError: one of them is not what its manifest says.
            _RewoundError: a rewind has removed them.
        """
        try:
            return await self._merged_as_sealed(compaction)
        except CompactionError:
            if await rewound_since(self._log, self._stream, compaction, self._scanned):
                raise _RewoundError from None
            raise

    async def _merged_as_sealed(self, compaction: Compaction) -> Merged:
        bodies: dict[int, bytes] = {}

        async def fetch(at: int, origin: Origin) -> None:
            stored = await self.source.get(origin.key)
            if stored is None or digest(stored.body) != origin.sha256:
                how = "is missing" if stored is None else "has other content than its manifest says"
                raise CompactionError(_not_as_sealed(self.source.url, origin.key, how))
            bodies[at] = stored.body

        await run_some_at_a_time(fetch(at, origin) for at, origin in enumerate(compaction.sources))
        ordered = [bodies[at] for at in range(len(bodies))]
        try:
            merged = await asyncio.to_thread(merge, ordered, self._config.codec, self._config.encoder.level)
        except UnreadableFileError as error:
            raise CompactionError(_not_as_sealed(self.source.url, compaction.sources[error.args[0]].key, "is no Parquet file")) from error
        for origin, content in zip(compaction.sources, merged.contents, strict=True):
            if origin.rows != content.rows:
                raise CompactionError(_not_as_sealed(self.source.url, origin.key, f"has {content.rows} rows instead of {origin.rows}"))
        return merged

    async def _write(self, begun: Link, merged: Merged) -> Link | None:
        """Write the outputs of a begun compaction, read them back, compare, and publish it; None if somebody else has changed it."""
        compaction = begun.compaction
        set_hash: SetHash | None = SetHash()
        for at, (output, body) in enumerate(zip(compaction.outputs, merged.outputs, strict=True)):
            await self.target.put(output.key, body)
            stored = await self.target.get(output.key)
            contents = [each for each, of in zip(merged.contents, merged.output_of, strict=True) if of == at]
            found = await asyncio.to_thread(_examine, stored.body if stored else None, output, contents)
            if isinstance(found, str):
                current = await self.catalogue.read(compaction.partition, compaction.number)
                if current is not None and current.etag != begun.etag:  # another compactor has withdrawn or published it, and cleaned up
                    await self._take_back(compaction)
                    return None
                msg = f"{self.target.url.removesuffix('/')}/{output.key} was written and read back, and {found}: it is not published"
                raise CompactionError(msg)
            set_hash = None if set_hash is None or found is None else set_hash + found
        if await rewound_since(self._log, self._stream, compaction, self._scanned):
            await self._withdraw(begun)
        now = self.clock.now().isoformat()
        done = msgspec.structs.replace(
            compaction,
            state=State.PUBLISHED,
            set_hash=set_hash.hex if set_hash is not None else "",
            published_at=now,
            published_by=self._log.worker,
        )
        link = await self.catalogue.replace(begun, compactions.sealed(done))
        if link is not None:
            await run_some_at_a_time(self.target.delete(key) for key in compaction.superseded)
        else:
            await self._take_back(compaction)
        return link

    async def _take_back(self, own: Compaction) -> None:
        """Remove what was written of ``own`` and is not named by the compaction that another compactor has made of it."""
        current = await self.catalogue.read(own.partition, own.number)
        if current is not None:
            named = {each.key for each in current.compaction.outputs} if current.compaction.state is not State.WITHDRAWN else set()
            await run_some_at_a_time(self.target.delete(each.key) for each in own.outputs if each.key not in named)

    async def _withdraw(self, begun: Link) -> NoReturn:
        """Give up a begun compaction whose sources a rewind takes back, and remove what was written of it.

        Raises:
            _RewoundError: always, since the log must be read again before anything else is begun.
        """
        compaction = begun.compaction
        before = await self.catalogue.read(compaction.partition, compaction.number - 1) if compaction.number > 1 else None
        withdrawn = msgspec.structs.replace(
            compaction,
            state=State.WITHDRAWN,
            covered=before.compaction.covered if before else {},
            superseded=tuple(sorted({*compaction.superseded, *(each.key for each in compaction.outputs)})),
            published_at=self.clock.now().isoformat(),
            published_by=self._log.worker,
        )
        link = await self.catalogue.replace(begun, compactions.sealed(withdrawn))
        if link is not None:
            await run_some_at_a_time(self.target.delete(key) for key in link.compaction.superseded)
        else:
            await self._take_back(compaction)
        raise _RewoundError

    async def _cursor(self, positions: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
        """By chain, where its first unit begins with a file that is in no compaction."""
        found = dict(self._scanned.heads)
        for name, files in self._scanned.files.items():
            covered, left = positions.get(name), self._scanned.in_force(name)
            if covered is None:
                covered = await self._certainly_covered(name)
                left = left if covered is not None else list(files)
            for each in left:
                if covered is None or each.after >= int(covered.get(each.shard, ORIGIN)):
                    found[each.shard] = min(found[each.shard], each.after)
        return found

    async def _certainly_covered(self, partition: str) -> Mapping[str, str] | None:
        """Up to where the files of a partition are covered; None if its newest compaction is begun, and may be withdrawn, or is damaged.

        Whoever finishes or repairs it must find its partition in the log.
        """
        try:
            newest = await self.catalogue.newest(partition)
        except CompactionError:
            return None
        if newest is None:
            return {}
        return None if newest.compaction.state is State.BEGUN else newest.compaction.covered


def is_chosen(partition: str, only: Sequence[str]) -> bool:
    """Whether a partition is one of ``only``, or below one of them; every one is if there are none."""
    return not only or any(partition == each or partition.startswith(f"{each}/") for each in only)


def _with_outputs(compaction: Compaction, merged: Merged) -> Compaction:
    outputs = []
    for part, body in enumerate(merged.outputs):
        sha256 = digest(body)
        rows = sum(each.rows for each, of in zip(merged.contents, merged.output_of, strict=True) if of == part)
        outputs.append(Output(compactions.output_key(compaction, part, sha256), rows, len(body), sha256))
    sources = [msgspec.structs.replace(each, output=output) for each, output in zip(compaction.sources, merged.output_of, strict=True)]
    return msgspec.structs.replace(compaction, sources=tuple(sources), outputs=tuple(outputs))


def _examine(body: bytes | None, output: Output, contents: Sequence[Content]) -> SetHash | str | None:
    """The hash of the records of an output as it was read back, None if it does not name them; or what is wrong with it."""
    if body is None:
        return "it is missing"
    if digest(body) != output.sha256:
        return "it has other content"
    if wrong := differs(body, contents):
        return wrong
    frames = list(lineage(body, (SEQUENCE, SUBSEQUENCE)))
    if not frames:
        return None
    with suppress(ValueError):
        return sum((SetHash.of(each[SEQUENCE], each[SUBSEQUENCE]) for each in frames), SetHash())
    return None


async def run_some_at_a_time(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Carry out ``calls``, some at a time."""
    await run_concurrently(list(calls), AT_ONCE)


def _not_as_sealed(root: str, key: str, how: str) -> str:
    return f"{root.removesuffix('/')}/{key} {how}: `stream audit verify` says what else is wrong. Its partition is not compacted until then"


def _partition_done(stream: str, sink: str, partition: str, published: Sequence[Compaction]) -> PartitionDone:
    sources = [each for one in published for each in one.sources]
    outputs = [each for one in published for each in one.outputs]
    sizes = sum(each.size for each in sources), sum(each.size for each in outputs)
    return PartitionDone(stream, sink, partition, len(sources), sizes[0], len(outputs), sizes[1], sum(one.rows for one in published))
