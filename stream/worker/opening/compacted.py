"""Where the rows of compacted files are now, for ``stream trace`` and ``stream audit verify``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from stream.audit.chain import Link as Unit
from stream.audit.compacted import CompactionView, Part
from stream.audit.ledger import LedgerObject
from stream.batch import ORIGIN
from stream.commit.compaction import (
    FOLDER,
    Catalogue,
    Compaction,
    CompactionError,
    Link,
    Origin,
    Output,
    State,
    is_taken,
    number_of,
    problems,
)
from stream.commit.lookup import streams_of
from stream.contracts import ObjectStore

KEPT: Final = 16
"""Compactions that are kept in memory: units that follow each other have their files in the same ones."""


class CompactedFiles:
    """``audit.compacted.Compacted`` over an application's state, for the files of one ``stream`` (or redrive, or backfill).

    ``open_place`` opens the URL of a dataset, and ``places`` has stores that are open. What was read once is taken to be as it was: what
    is published does not change, and what is begun meanwhile counts for the next command.
    """

    def __init__(
        self, store: ObjectStore, stream: str, open_place: Callable[[str], ObjectStore] | None, places: Mapping[str, ObjectStore]
    ) -> None:
        self._store = store
        self._stream = stream
        self._open = open_place
        self._places = dict(places)
        self._sinks: list[str] | None = None
        self._streams: list[str] | None = None
        self._lengths: dict[tuple[str, str], int] = {}
        self._covered: dict[tuple[str, str, int], Mapping[str, str]] = {}
        self._links: OrderedDict[tuple[str, str, int], Link] = OrderedDict()

    async def all(self) -> AsyncIterator[CompactionView]:
        """See ``audit.compacted.Compacted``."""
        for sink in await self.sinks():
            catalogue = Catalogue(self._store, self._stream, sink)
            for partition in await catalogue.partitions():
                previous: Compaction | None = None
                for number in range(1, await catalogue.length(partition) + 1):
                    key = catalogue.key(partition, number)
                    try:
                        link = await catalogue.read(partition, number)
                    except CompactionError as error:
                        link = None
                        yield CompactionView(key, (str(error),))
                    else:
                        if link is None:
                            yield CompactionView(key, ("the compaction is missing, and later ones are there",))
                    if link is not None:
                        found = (*problems(link, previous), *_moved(link.compaction, self._stream, sink, partition, number))
                        yield _view(link, found)
                    previous = link.compaction if link is not None else None

    async def has(self, unit: Unit, file: LedgerObject) -> bool | None:
        """See ``audit.compacted.Compacted``."""
        if unit.last is None or not is_taken(file.key) or file.sink not in await self.sinks():
            return None
        partition = file.key.rpartition("/")[0]
        try:
            found = await self._containing(file.sink, partition, unit.shard, unit.after)
        except CompactionError:
            return None  # what is wrong with the compactions is found when these are checked
        if found is None or not found.published:
            return None
        if unit.targets.get(file.sink, found.source) != found.source:
            return None
        return any((each.key, each.rows, each.size, each.sha256) == (file.key, file.rows, file.size, file.sha256) for each in found.sources)

    async def place(self, sink: str, shard: str, after: int, key: str) -> tuple[str, int] | None:
        """The URL of the compacted file that has the rows of the file ``key``, and the row there with which they begin."""
        found = await self.part(sink, shard, after, key)
        return None if found is None else (f"{found[0].removesuffix('/')}/{found[1].key}", found[2])

    async def part(self, sink: str, shard: str, after: int, key: str) -> tuple[str, LedgerObject, int] | None:
        """See ``audit.compacted.Compacted``."""
        if sink not in await self.sinks():
            return None
        try:
            found = await self._containing(sink, key.rpartition("/")[0], shard, after)
        except CompactionError:
            return None  # the record's outcome is still known, and `stream audit verify` says what is wrong
        origin = None if found is None or not found.published else next((each for each in found.sources if each.key == key), None)
        return None if found is None or origin is None else (found.url, _file(found, origin.output), found.first_row(origin))

    async def origin(self, url: str, row: int) -> tuple[str, Origin, int] | None:
        """The sink, the file and the row in it that row ``row`` of the compacted file at ``url`` was made of; None if it is no such file.

        ``url`` may be the key inside the dataset.
        """
        for sink in await self.sinks():
            number = number_of(url, self._stream, sink)
            if number is None:
                continue
            catalogue = Catalogue(self._store, self._stream, sink)
            for partition in await catalogue.partitions():
                link = await catalogue.read(partition, number) if not partition or f"{partition}/" in url else None
                if link is not None and link.compaction.published:
                    found = _origin(link.compaction, url, row)
                    if found is not None:
                        return sink, *found
        return None

    async def is_output(self, url: str) -> bool:
        """Whether the file at ``url`` is named as compacted files of this stream are."""
        return any(number_of(url, self._stream, sink) is not None for sink in await self.sinks())

    async def read(self, root: str, key: str) -> bytes | None:
        """See ``audit.compacted.Compacted``."""
        stored = await self._at(root).get(key)
        return None if stored is None else stored.body

    async def listed(self, root: str) -> AsyncIterator[str]:
        """See ``audit.compacted.Compacted``."""
        if self._streams is None:
            self._streams = [stream async for stream in streams_of(self._store) if stream != self._stream]
        others = {stream: await self._store.folders(f"{FOLDER}{stream}/") for stream in self._streams}
        async for info in self._at(root).list(""):
            if not any(number_of(info.key, stream, sink) is not None for stream, sinks in others.items() for sink in sinks):
                yield info.key

    async def names(self, root: str, key: str) -> bool:
        """See ``audit.compacted.Compacted``."""
        for sink in await self._store.folders(f"{FOLDER}{self._stream}/"):
            number = number_of(key, self._stream, sink)
            if number is None:
                continue
            try:
                link = await Catalogue(self._store, self._stream, sink).read(key.rpartition("/")[0], number)
            except CompactionError:
                return True  # what it names is not known, and that is a finding of its own
            if link is None or link.compaction.state is State.WITHDRAWN or link.compaction.url != root:
                continue
            named = {each.key for each in link.compaction.outputs}
            if key in named or (key in link.compaction.superseded and not link.compaction.published):
                return True
        return False

    async def sinks(self) -> list[str]:
        """The sinks some of whose files were compacted."""
        if self._sinks is None:
            self._sinks = await self._store.folders(f"{FOLDER}{self._stream}/")
        return self._sinks

    async def _containing(self, sink: str, partition: str, shard: str, after: int) -> Compaction | None:
        """The compaction that has the files of the unit of ``shard`` after ``after``, if any does: the first that covers it."""
        catalogue = Catalogue(self._store, self._stream, sink)
        if (sink, partition) not in self._lengths:
            self._lengths[sink, partition] = await catalogue.length(partition)
        low, high = 1, self._lengths[sink, partition] + 1
        while low < high:
            middle = (low + high) // 2
            covered = self._covered.get((sink, partition, middle))
            if covered is None:
                covered = (await self._link(catalogue, partition, middle)).compaction.covered
            if int(covered.get(shard, ORIGIN)) > after:
                high = middle
            else:
                low = middle + 1
        return None if low > self._lengths[sink, partition] else (await self._link(catalogue, partition, low)).compaction

    async def _link(self, catalogue: Catalogue, partition: str, number: int) -> Link:
        at = (catalogue.sink, partition, number)
        if at not in self._links:
            link = await catalogue.read(partition, number)
            if link is None:
                msg = f"the compaction {catalogue.key(partition, number)} is missing; `stream audit verify` says what else is"
                raise CompactionError(msg)
            self._links[at] = link
            self._covered[at] = link.compaction.covered
            if len(self._links) > KEPT:
                self._links.popitem(last=False)
        self._links.move_to_end(at)
        return self._links[at]

    def _at(self, root: str) -> ObjectStore:
        if root not in self._places:
            if self._open is None:
                msg = f"the dataset at {root} cannot be opened here"
                raise CompactionError(msg)
            self._places[root] = self._open(root)
        return self._places[root]


def _moved(compaction: Compaction, stream: str, sink: str, partition: str, number: int) -> list[str]:
    if (compaction.stream, compaction.sink, compaction.partition, compaction.number) == (stream, sink, partition, number):
        return []
    return ["the compaction is where another belongs: it was moved or copied"]


def _view(link: Link, found: tuple[str, ...]) -> CompactionView:
    compaction = link.compaction
    first = [0] * len(compaction.outputs)
    parts = []
    for each in compaction.sources:
        file = LedgerObject(compaction.sink, each.key, each.rows, each.size, each.sha256)
        parts.append(Part(each.shard, int(each.after), int(each.last), file, each.output, first[each.output]))
        first[each.output] += each.rows
    return CompactionView(
        link.key,
        found,
        published=compaction.published,
        withdrawn=compaction.state is State.WITHDRAWN,
        root=compaction.url,
        parts=tuple(parts),
        outputs=tuple(_file(compaction, at) for at in range(len(compaction.outputs))),
    )


def _file(compaction: Compaction, output: int) -> LedgerObject:
    each = compaction.outputs[output]
    return LedgerObject(compaction.sink, each.key, each.rows, each.size, each.sha256)


def _origin(compaction: Compaction, url: str, row: int) -> tuple[Origin, int] | None:
    at = next((at for at, each in enumerate(compaction.outputs) if url in {each.key, _url(compaction, each)}), None)
    left = row
    for each in compaction.sources:
        if each.output == at:
            if left < each.rows:
                return each, left
            left -= each.rows
    return None


def _url(compaction: Compaction, output: Output) -> str:
    return f"{compaction.url.removesuffix('/')}/{output.key}"
