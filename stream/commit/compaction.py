"""The record of one compaction: small files of a sink, which became a few large ones in a dataset of their own.

The compactions of one partition are a chain of objects, ``compactions/<stream>/<sink>/<partition>/<number>.json``. Each is created once, so
of several compactors only one begins the next; the others find it and finish the same. It fixes sources and outputs before an output is
written, and says ``published`` only after the outputs were read back and found to hold the rows of the sources. So a dataset never holds a
file that the chain does not name, and a source is in one compaction at most, whichever worker dies, at any moment.

Files are taken in the order of their shard's log. So ``covered``, the position up to which each shard's files are taken, says all about
those before, and the newest link is enough to plan the next.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Final

import msgspec

from stream.batch import ORIGIN
from stream.contracts import ObjectStore
from stream.errors import StreamError

FOLDER: Final = "compactions/"
CURSORS: Final = "compacting/"
"""Where hints are kept from which position on the log has files that are in no compaction yet."""
FORMAT: Final = 1
MOST_SOURCES: Final = 5000
"""Files of one compaction: their list is then some 2 MB of JSON."""

_UNPARTITIONED: Final = "all"
_DIGITS: Final = 8
_OUTPUT: Final = re.compile(r"(?P<label>[A-Za-z0-9_.@-]+)\.(?P<number>\d{8})\.\d+\.[0-9a-f]{16}\.parquet")


class CompactionError(StreamError):
    """A compaction, or a file of one, is not what was recorded. Nothing more is written or deleted until a person has looked at it."""


class State(StrEnum):
    """``begun``: sources and outputs are fixed, outputs may be missing. ``published``: the outputs are there, and have the rows.

    ``withdrawn``: a rewind took back what was to be compacted; the outputs are removed.
    """

    BEGUN = "begun"
    PUBLISHED = "published"
    WITHDRAWN = "withdrawn"


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that was compacted: of the unit ``(after, last]`` of the chain ``shard``. ``output``: index of the file that has its rows."""

    shard: str
    after: str
    last: str
    key: str
    rows: int
    size: int
    sha256: str
    output: int = 0


class Output(msgspec.Struct, frozen=True):
    """A file of the dataset; ``key`` is relative to its root."""

    key: str
    rows: int
    size: int
    sha256: str


class Compaction(msgspec.Struct, frozen=True, omit_defaults=True):
    """One link of a partition's chain. The rows of each output are those of its ``sources``, one after the other, in this order.

    ``source`` and ``url`` are the roots of the sink and of the dataset. ``set_hash`` is the order-free hash of the records of the rows
    (``audit/set_hash.py``); empty if the files have no lineage columns. ``superseded``: keys of outputs that another build was to write.
    ``previous`` is the ``seal`` of the preceding link. ``seal``: the SHA-256 of the link without it and without ``removed_at``, which is
    set once the sources have been deleted. Times are ISO 8601, UTC.
    """

    state: State
    application: str
    stream: str
    sink: str
    partition: str
    number: int
    source: str
    url: str
    sources: tuple[Origin, ...]
    outputs: tuple[Output, ...]
    rows: int
    covered: dict[str, str]
    set_hash: str = ""
    superseded: tuple[str, ...] = ()
    previous: str = ""
    created_at: str = ""
    created_by: str = ""
    published_at: str = ""
    published_by: str = ""
    removed_at: str = ""
    seal: str = ""
    format: int = FORMAT

    @property
    def published(self) -> bool:
        """Whether the outputs hold the rows."""
        return self.state is State.PUBLISHED

    def first_row(self, origin: Origin) -> int:
        """The row of its output, counted from 0, with which the rows of ``origin`` begin."""
        before = self.sources[: self.sources.index(origin)]
        return sum(each.rows for each in before if each.output == origin.output)


@dataclass(frozen=True, slots=True)
class Link:
    """A stored compaction with its key, and the ETag that a conditional replace must match."""

    compaction: Compaction
    key: str
    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file of a sink that the sealed unit ``(after, last]`` of the chain ``shard`` lists. ``arrived``: when its last record did."""

    shard: str
    after: int
    last: int
    key: str
    rows: int
    size: int
    sha256: str
    arrived: datetime

    @property
    def partition(self) -> str:
        """Its folder, which is the partition that its rows are in."""
        return self.key.rpartition("/")[0]

    def origin(self) -> Origin:
        """The file as a source of a compaction."""
        return Origin(self.shard, str(self.after), str(self.last), self.key, self.rows, self.size, self.sha256)


def is_taken(key: str) -> bool:
    """Whether compactions take the sink's file ``key``: Parquet. Those from when the sink wrote another format stay where they are."""
    return key.endswith(".parquet")


def eligible(files: Iterable[SealedFile], covered: Mapping[str, str], before: datetime, *, closed: bool) -> list[SealedFile]:
    """Which ``files`` of one partition can be compacted now, in the order of their rows: by shard, then as they were sealed.

    Those beyond ``covered`` whose records all arrived before ``before``, up to the first of their shard that has a later one. With
    ``closed``, none unless that holds for all of them: then the partition gets rows no more, as far as one can tell.
    """
    left = sorted(
        (each for each in files if each.after >= int(covered.get(each.shard, ORIGIN))), key=lambda each: (each.shard, each.after, each.key)
    )
    found: list[SealedFile] = []
    for _, of_shard in groupby(left, key=lambda each: each.shard):
        for each in of_shard:
            if each.arrived >= before:
                if closed:
                    return []
                break
            found.append(each)
    return found


def groups(files: Sequence[SealedFile], target: int) -> Iterator[tuple[SealedFile, ...]]:
    """``files``, as ``eligible`` orders them, in groups of at most ``target`` bytes each, except that a unit's files stay together."""
    group: list[SealedFile] = []
    size = 0
    for _, unit in groupby(files, key=lambda each: (each.shard, each.after)):
        added = list(unit)
        more = sum(each.size for each in added)
        if group and (size + more > target or len(group) + len(added) > MOST_SOURCES):
            yield tuple(group)
            group, size = [], 0
        group += added
        size += more
    if group:
        yield tuple(group)


def covered_by(sources: Iterable[Origin], before: Mapping[str, str]) -> dict[str, str]:
    """``covered`` after a compaction of ``sources`` that follows one with ``before``."""
    found = dict(before)
    for each in sources:
        found[each.shard] = str(max(int(each.last), int(found.get(each.shard, ORIGIN))))
    return dict(sorted(found.items()))


def output_key(compaction: Compaction, part: int, sha256: str) -> str:
    """The key of an output, ``<partition>/<stream>.<sink>.<number>.<part>.<first 16 hex digits of the SHA-256>.parquet``."""
    name = f"{compaction.stream}.{compaction.sink}.{compaction.number:0{_DIGITS}d}.{part}.{sha256[:16]}.parquet"
    return f"{compaction.partition}/{name}" if compaction.partition else name


def number_of(key: str, stream: str, sink: str) -> int | None:
    """The number of the compaction of ``sink`` that an output of ``stream`` belongs to, by its key; None if it is not named like one."""
    match = _OUTPUT.fullmatch(key.rpartition("/")[2])
    return int(match["number"]) if match is not None and match["label"] == f"{stream}.{sink}" else None


def seal_of(compaction: Compaction) -> str:
    """The correct seal of a compaction that is not begun only."""
    return hashlib.sha256(_ENCODER.encode(msgspec.structs.replace(compaction, seal="", removed_at=""))).hexdigest()


def sealed(compaction: Compaction) -> Compaction:
    """``compaction`` with its seal."""
    return msgspec.structs.replace(compaction, seal=seal_of(compaction))


_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def encode(compaction: Compaction) -> bytes:
    """Canonical JSON; equal compactions give equal bytes."""
    return _ENCODER.encode(compaction)


class Catalogue:
    """The compactions of one sink's files of one stream, over the application's state."""

    def __init__(self, store: ObjectStore, stream: str, sink: str) -> None:
        self.store = store
        self.stream = stream
        self.sink = sink
        self._root = f"{FOLDER}{stream}/{sink}/"

    async def partitions(self) -> list[str]:
        """The partitions that have compactions."""
        return [partition_of(name) for name in await self.store.folders(self._root)]

    async def length(self, partition: str) -> int:
        """The number of the newest compaction; 0 if there is none."""
        prefix = f"{self._root}{_folder(partition)}/"
        names = [info.key.removeprefix(prefix).removesuffix(".json") async for info in self.store.list(prefix)]
        numbers = [int(name) for name in names if len(name) == _DIGITS and name.isascii() and name.isdigit()]
        return max(numbers, default=0)

    async def newest(self, partition: str) -> Link | None:
        """The newest compaction of a partition.

        Raises:
            CompactionError: it cannot be read.
        """
        number = await self.length(partition)
        return await self.read(partition, number) if number else None

    async def read(self, partition: str, number: int) -> Link | None:
        """The compaction with that number; the first has 1.

        Raises:
            CompactionError: it cannot be read.
        """
        key = self.key(partition, number)
        stored = await self.store.get(key)
        return None if stored is None else Link(decode(stored.body, key), key, stored.body, stored.etag)

    async def all(self, partition: str) -> AsyncIterator[Link]:
        """The compactions of a partition in order.

        Raises:
            CompactionError: one of them is missing or cannot be read.
        """
        for number in range(1, await self.length(partition) + 1):
            link = await self.read(partition, number)
            if link is None:
                msg = (
                    f"the compaction {self.key(partition, number)} under {self.store.url} is missing, and later ones are there: restore it"
                )
                raise CompactionError(msg)
            yield link

    async def create(self, compaction: Compaction) -> str | None:
        """Begin a compaction; its ETag, or None if somebody else has begun the one with its number."""
        return await self.store.create(self.key(compaction.partition, compaction.number), encode(compaction))

    async def replace(self, link: Link, by: Compaction) -> Link | None:
        """``by`` in the place of ``link``, unless somebody else has changed that: then None."""
        body = encode(by)
        etag = await self.store.replace(link.key, body, link.etag)
        return None if etag is None else Link(by, link.key, body, etag)

    def key(self, partition: str, number: int) -> str:
        """Where a compaction is kept; keys sort like numbers."""
        return f"{self._root}{_folder(partition)}/{number:0{_DIGITS}d}.json"

    async def cursor(self) -> dict[str, int]:
        """By chain, a position before which every file is in a compaction: a hint, which may lag; empty if there is none."""
        stored = await self.store.get(self._cursor)
        try:
            found = {} if stored is None else msgspec.json.decode(stored.body, type=dict[str, str])
            return {shard: int(after) for shard, after in found.items()}
        except (msgspec.MsgspecError, ValueError):
            return {}

    async def set_cursor(self, positions: Mapping[str, int]) -> None:
        """Keep ``positions`` as the hint."""
        await self.store.put(self._cursor, _ENCODER.encode({shard: str(after) for shard, after in positions.items()}))

    @property
    def _cursor(self) -> str:
        return f"{CURSORS}{self.stream}/{self.sink}.json"


def _folder(partition: str) -> str:
    # Values are percent-encoded except for a few characters; a comma is not one of them.
    return partition.replace("/", ",") or _UNPARTITIONED


def partition_of(folder: str) -> str:
    """The partition whose compactions are in ``folder``."""
    return "" if folder == _UNPARTITIONED else folder.replace(",", "/")


def decode(body: bytes, key: str) -> Compaction:
    """The compaction in ``body``; ``key`` is named in errors.

    Raises:
        CompactionError: the object is not one that this build can read.
    """
    try:
        found = msgspec.json.decode(body, type=Compaction)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        msg = f"the compaction {key} is not readable: {error}. Restore its previous version; its partition is not compacted until then."
        raise CompactionError(msg) from error
    positions = [*found.covered.values(), *(each.after for each in found.sources), *(each.last for each in found.sources)]
    wrong = any(not (each.isascii() and each.isdigit()) for each in positions)
    if wrong or any(not 0 <= each.output < len(found.outputs) for each in found.sources):
        msg = f"the compaction {key} names positions or files that there are not: it was edited. Restore its previous version"
        raise CompactionError(msg)
    if found.format != FORMAT:
        msg = f"the compaction {key} has format {found.format}, but this build reads {FORMAT}; run the newer build"
        raise CompactionError(msg)
    return found


def problems(link: Link, previous: Compaction | None) -> list[str]:
    """How a link was changed, by itself and by the link before it; empty for an unchanged one."""
    found = []
    compaction = link.compaction
    if encode(compaction) != link.body:
        found.append("the compaction does not have the form in which the service writes it: it was edited")
    if compaction.state is not State.BEGUN and compaction.seal != seal_of(compaction):
        found.append("the compaction's seal does not match its content: it was edited after it was published")
    if compaction.previous != (previous.seal if previous else ""):
        found.append("the compaction does not name its predecessor as that is now: one of the two was edited")
    before = previous.covered if previous else {}
    if compaction.state is not State.WITHDRAWN:
        if any(int(each.after) < int(before.get(each.shard, ORIGIN)) for each in compaction.sources):
            found.append("the compaction has a file again that an earlier one has: its rows are in the dataset twice")
        if len({each.key for each in compaction.sources}) < len(compaction.sources):
            found.append("the compaction has a file twice")
        if compaction.covered != covered_by(compaction.sources, before):
            found.append("up to where the compaction says that files are taken is not what its files say")
    elif compaction.covered != before:
        found.append("the compaction was withdrawn, yet says that it took files")
    if compaction.rows != sum(each.rows for each in compaction.sources) or [each.rows for each in compaction.outputs] != [
        sum(each.rows for each in compaction.sources if each.output == at) for at in range(len(compaction.outputs))
    ]:
        found.append("the compaction does not have as many rows after it as before")
    return found
