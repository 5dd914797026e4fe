"""What a loader reads from the commit log, and what it keeps beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from stream.batch import ORIGIN
from stream.commit.log import CommitLog
from stream.commit.lookup import shards_of, unit_start
from stream.commit.manifest import Manifest
from stream.commit.rewind import LEDGER
from stream.concurrency import run_concurrently
from stream.contracts import ObjectStore, Shard
from stream.errors import Halted
from stream.pipeline.model import Pipeline
from stream.sink import rejects
from stream.sink.layouts import HasLayout, Layout
from stream.sink.loads import Link, StagedFile, joined
from stream.sink.objects import SinkConfig
from stream.sink.tables import TableSinkConfig
from stream.worker.recipes.definitions import Definitions

AT_ONCE: Final = 16
"""Shards whose manifests are read at a time."""

LOOK_AHEAD: Final = 400
"""Links of one shard that are read ahead of loading."""

Staging: TypeAlias = Callable[[Manifest], Awaitable[tuple[str, Layout | None]]]
"""Returns the name of the sink whose files of a unit are for the table, and their layout; None if the unit has none."""


def recorded_staging(
    definitions: Definitions, config: TableSinkConfig, others: Collection[SinkConfig], left: Callable[[str], None] = lambda _: None
) -> Staging:
    """What recorded definitions say about files for the table of ``config``. ``others``: the pipeline's other sinks.

    When a unit was sealed, the sink may have had another name, its name another table, and another sink its name. Files that were made for
    a table of another kind are not for this one. ``left`` is told once of each such table that had the sink's name, in words, if no sink
    loads it. Raises ``Halted`` if a definition cannot be obtained.
    """
    names: dict[str, str] = {}
    layouts: dict[str, Layout | None] = {}
    passed: dict[str, str] = {}

    async def staging(manifest: Manifest) -> tuple[str, Layout | None]:
        digest, written = manifest.pipeline, {file.sink for file in manifest.files}
        if written <= {rejects.NAME, LEDGER}:
            return config.name, None
        if digest not in names:
            names[digest] = _name_in(await definitions.pipeline(digest), config, others)
        name = names[digest]
        if name not in written:
            if config.name in written and digest not in passed:
                table = _left_in(await definitions.pipeline(digest), config, others)
                if table and table not in passed.values():
                    left(table)
                passed[digest] = table
            return name, None
        if digest not in layouts:
            recipe = await definitions.recorded(digest)
            layouts[digest] = next((each.layout for each in recipe.sinks if isinstance(each, HasLayout) and each.name == name), None)
        return name, layouts[digest]

    return staging


def _name_in(recorded: Pipeline, config: TableSinkConfig, others: Collection[SinkConfig]) -> str:
    """The sink of ``recorded`` whose files are for the table of ``config``; empty if there was none."""
    named = {each.name: each for each in recorded.sinks if isinstance(each, TableSinkConfig)}
    same = next((name for name, each in named.items() if is_same_table(each, config)), None)
    if same is not None:
        return same
    own = named.get(config.name)
    return "" if own is None or own.kind != config.kind or any(is_same_table(each, own) for each in others) else own.name


def _left_in(recorded: Pipeline, config: TableSinkConfig, others: Collection[SinkConfig]) -> str:
    """The table of another kind that had the name of ``config`` in ``recorded``, in words; empty if there was none, or another loads it."""
    own = next((each for each in recorded.sinks if each.name == config.name), None)
    if not isinstance(own, TableSinkConfig) or own.kind == config.kind or any(is_same_table(each, own) for each in others):
        return ""
    return table_in_words(own)


def is_same_table(sink: SinkConfig, config: TableSinkConfig) -> bool:
    """Whether ``sink`` loads the table of ``config``."""
    return isinstance(sink, TableSinkConfig) and sink.unique_table == config.unique_table


def table_in_words(config: TableSinkConfig) -> str:
    """The table of ``config`` with its kind, which tells tables of one name apart."""
    return f"{config.kind} table {config.table}"


class Parked(msgspec.Struct, frozen=True):
    """Why a shard's units are not loaded until an operator acts. ``after``: where the unit begins, as decimal text.

    ``table``: into which, as ``table_in_words`` says; empty in notes of older builds.
    """

    after: str
    reason: str
    since: datetime
    table: str = ""

    def is_over(self, loaded: int) -> bool:
        """Whether the unit is in the table, which is loaded up to ``loaded``."""
        return self.after.isdecimal() and int(self.after) < loaded


class _Position(msgspec.Struct, frozen=True):
    position: str


class LoadState:
    """Small objects about the loads of one sink from one stream in the state store, under ``loads/<sink>/<stream>/``.

    ``table``: what the sink loads, as ``table_in_words`` says; notes about another one that had its name do not count. Empty: all count.
    """

    def __init__(self, store: ObjectStore, sink: str, stream: str, table: str = "") -> None:
        self.store = store
        self.root = f"loads/{sink}/{stream}/"
        self.table = table

    async def parked(self) -> dict[str, Parked]:
        """Parked shards; an object that cannot be read parks its shard too."""
        found: dict[str, Parked] = {}
        prefix = f"{self.root}parked/"
        async for info in self.store.list(prefix):
            stored = await self.store.get(info.key)
            if stored is None:
                continue
            shard = info.key.removeprefix(prefix).removesuffix(".json")
            try:
                note = msgspec.json.decode(stored.body, type=Parked)
            except msgspec.MsgspecError as error:
                note = Parked("", f"the object {info.key} cannot be read: {error}", info.modified)
            if note.table in {"", self.table} or not self.table:
                found[shard] = note
        return found

    async def park(self, shard: str, parked: Parked) -> None:
        """Stop loading ``shard`` until ``release``."""
        noted = msgspec.structs.replace(parked, table=self.table)
        await self.store.put(f"{self.root}parked/{shard}.json", msgspec.json.encode(noted))

    async def release(self, shard: str) -> None:
        """Let ``shard`` be loaded again."""
        await self.store.delete(f"{self.root}parked/{shard}.json")

    async def retry(self, shard: str | None = None) -> list[str]:
        """Release all parked shards, or only ``shard``. Returns those that were parked, ascending."""
        chosen = [each for each in sorted(await self.parked()) if shard in {None, each}]
        for each in chosen:
            await self.release(each)
        return chosen

    async def removed(self) -> dict[str, int]:
        """The sequence number up to which each shard's staged files were removed after their load."""
        found: dict[str, int] = {}
        prefix = f"{self.root}removed/"
        async for info in self.store.list(prefix):
            stored = await self.store.get(info.key)
            if stored is not None:
                row = msgspec.json.decode(stored.body, type=_Position)
                found[info.key.removeprefix(prefix).removesuffix(".json")] = int(row.position)
        return found

    async def note_removed(self, shard: str, position: int) -> None:
        """Record that everything staged up to ``position`` may be gone; call it before the files are removed."""
        await self.store.put(f"{self.root}removed/{shard}.json", msgspec.json.encode(_Position(str(position))))


class LoadLog:
    """Follows the sealed links of every shard for one table."""

    def __init__(self, log: CommitLog, stream: str, staging: Staging) -> None:
        self._log = log
        self._stream = stream
        self._staging = staging
        self._known: set[str] = set()
        """Shards of which the table says as much as this log."""

    async def shards(self) -> list[str]:
        """Every shard that has a chain."""
        return [shard async for shard in shards_of(self._log.store, self._stream)]

    async def read_on(
        self, waiting: Mapping[str, tuple[Link, ...]], positions: Mapping[str, int], ended: set[str]
    ) -> dict[str, tuple[Link, ...]]:
        """``waiting`` with what was sealed after it, a bounded number of links per chain; chains at their end are added to ``ended``.

        ``positions`` says where a shard that has nothing waiting continues.

        Raises:
            Halted: no unit of the log ends there.
        """
        seen: dict[str, tuple[Link, ...]] = {}

        async def one(shard: str) -> None:
            links = waiting[shard] or await self._passed(shard, positions.get(shard, ORIGIN))
            while len(links) < LOOK_AHEAD:
                position = links[-1].last if links else positions.get(shard, ORIGIN)
                entry = await self._log.read(Shard(self._stream, shard), position)
                if entry is None or not entry.manifest.sealed:
                    if entry is None and not links:
                        await self.confirm(shard, position)
                    break
                if entry.manifest.last is None:
                    ended.add(shard)
                    break
                links = joined(links, await self.link(entry.manifest))
            seen[shard] = links

        await run_concurrently([one(shard) for shard in waiting if shard not in ended], AT_ONCE)
        return {shard: seen.get(shard, links) for shard, links in waiting.items()}

    async def confirm(self, shard: str, position: int) -> None:
        """Make sure that a table which is loaded up to ``position`` was loaded from this log. A shard is looked up only once.

        Raises:
            Halted: no unit ends there; nobody would notice that what follows is not in the table.
        """
        if position == ORIGIN or shard in self._known or position == await self._log.chain_start(self._stream, shard):
            return
        start = await unit_start(self._log.store, self._stream, shard, position)
        entry = None if start is None else await self._log.read(Shard(self._stream, shard), start)
        if entry is None or not entry.manifest.sealed or entry.manifest.reach != position:
            msg = (
                f"the table is loaded up to {position} of {self._stream}/{shard}, but no unit in {self._log.store.url} ends there: it was "
                "loaded from another state, or from a later one than was restored. Nothing is loaded until this is settled. Restore the "
                "state; or, before a worker reads on with this one, pass over what the table has with `stream leases skip`; or load "
                "another table"
            )
            raise Halted(msg)
        self._known.add(shard)

    async def _passed(self, shard: str, position: int) -> tuple[Link, ...]:
        """Where the chain of a shard begins of which nothing is loaded; after a rewind, that is in the middle of the shard."""
        begins = await self._log.chain_start(self._stream, shard) if position == ORIGIN else ORIGIN
        return (Link(shard, ORIGIN, begins),) if begins > ORIGIN else ()

    async def link(self, manifest: Manifest) -> Link:
        """A sealed unit or gap as the loader sees it; its files are where the manifest says the sink was at that time."""
        span, (sink, layout) = manifest.span, await self._staging(manifest)
        root = manifest.targets.get(sink, "").removesuffix("/")
        files = tuple(StagedFile(f"{root}/{file.key}", file.size, file.rows) for file in manifest.files if file.sink == sink)
        return Link(manifest.shard, span.after, span.last, files, layout, manifest.sealed_at)

    async def sink(self, manifest: Manifest) -> str:
        """The name that the table's sink had in a unit."""
        return (await self._staging(manifest))[0]

    async def rows(self, manifest: Manifest) -> int:
        """How many rows of a sealed unit are for the table."""
        sink, _ = await self._staging(manifest)
        return sum(file.rows for file in manifest.files if file.sink == sink)

    async def keys_between(self, shard: str, after: int, last: int, url: str) -> tuple[list[str], int]:
        """Keys of the table's files at ``url`` for units in ``(after, last]``, up to a few hundred links, and where the last ends."""
        keys: list[str] = []
        root, position = url.removesuffix("/"), max(after, await self._log.chain_start(self._stream, shard))
        for _ in range(LOOK_AHEAD):
            entry = await self._log.read(Shard(self._stream, shard), position)
            if entry is None or not entry.manifest.sealed or entry.manifest.last is None or int(entry.manifest.last) > last:
                break
            manifest = entry.manifest
            sink, _ = await self._staging(manifest)
            if manifest.targets.get(sink, "").removesuffix("/") == root:
                keys += [file.key for file in manifest.files if file.sink == sink]
            position = manifest.span.last
        return keys, position
