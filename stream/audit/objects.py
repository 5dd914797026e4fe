"""Checks the files of sealed units: is each in place with its bytes, rows and records, and are there any that no unit lists?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stream.audit.chain import Link
from stream.audit.ledger import LedgerObject, Segment
from stream.audit.report import Check, Finding, Verdict
from stream.batch import SEQUENCE, SUBSEQUENCE
from stream.contracts import CONSOLE, ObjectStore

WITH_THE_LOG: Final = frozenset({"ledger", "rejects"})
"""Targets whose files lie beside the log, those of each stream in a folder of its own."""

_NAME: Final = re.compile(
    r"(?:.*/)?(?P<label>[A-Za-z0-9_.-]+)-(?P<after>\d{1,60})-(?P<last>\d{1,60})(?:\.\d+)?\.(?P<sha>[0-9a-f]{16})\.[a-z.]+"
)
"""File names as sinks make them: ``[<stream>.]<shard>-<after>-<last>[.<part>].<sha16>.<extension>``."""


_LIKE: Final = re.compile(r"(shardId-\d{12})-(\d+)-(\d+)")
"""What remains recognisable of such a name after somebody has changed it."""


@dataclass(frozen=True, slots=True)
class Area:
    """Where files of the target ``sink`` lie, and nothing else but what lies in or below one of ``foreign`` (URLs).

    ``prefix`` narrows the listing; keys of files are relative to ``store``. ``removed`` says by shard up to which sequence number the
    files may have been taken away on purpose, because what was staged in them has been loaded elsewhere; ``needed`` has the URLs of those
    that a table consists of all the same. ``shared``: others may write there, too, because a catalog says what counts.
    """

    sink: str
    store: ObjectStore
    prefix: str = ""
    foreign: tuple[str, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)
    needed: AbstractSet[str] = frozenset()
    shared: bool = False

    def may_be_gone(self, link: Link, key: str) -> bool:
        """Whether the file ``key`` of ``link`` may have been removed."""
        return link.loaded_by(self.removed) and self.url_of(key) not in self.needed

    def url_of(self, key: str) -> str:
        """The file's URL as a person would write it, unique across all areas."""
        return f"{self.store.url.removesuffix('/')}/{key}"


@dataclass(frozen=True, slots=True)
class Stray:
    """A file that no manifest lists. ``ours``: a sealed manifest says that a worker of this log wrote it and that it counts no more.

    ``shard``, ``after`` and ``last`` are the unit of which its name speaks; ``sealed``: this log has that unit.
    """

    sink: str
    key: str
    url: str
    shard: str = ""
    after: str = ""
    last: str = ""
    sealed: bool = False
    ours: bool = False


def kept_files(unit: Link) -> list[LedgerObject]:
    """The files of ``unit`` that somebody can look at: not those that were printed."""
    return [file for file in unit.files if unit.targets.get(file.sink) != CONSOLE]


def former_place(unit: Link, sink: str, areas: Mapping[str, Area]) -> str | None:
    """Where the sink was when ``unit`` was sealed, if it has moved since. Ledger and rejects move with the log itself."""
    url, area = unit.targets.get(sink), areas.get(sink)
    if url is None or sink in WITH_THE_LOG or (area is not None and area.store.url == url):
        return None
    return url


def url_in(unit: Link, sink: str, key: str, areas: Mapping[str, Area]) -> str:
    """The URL at which a file of ``unit`` was written; only its key if that is unknown."""
    former = former_place(unit, sink, areas)
    if former is not None:
        return f"{former.removesuffix('/')}/{key}"
    return areas[sink].url_of(key) if sink in areas else key


def unit_of(key: str, stream: str) -> tuple[str, int] | None:
    """Shard and start of the unit of ``stream`` that a file of ours belongs to by its name, or None for another name.

    Names that do not begin with the stream's are those of a pipeline that reads one stream only.
    """
    match = _NAME.fullmatch(key)
    return None if match is None else (match["label"].removeprefix(f"{stream}."), int(match["after"]))


def stream_of(key: str, streams: Iterable[str]) -> str | None:
    """Which of ``streams`` the name of a file of ours begins with; None if it names no stream, or is none of ours."""
    match = _NAME.fullmatch(key)
    if match is None:
        return None
    return max((stream for stream in streams if match["label"].startswith(f"{stream}.")), key=len, default=None)


class Wanted(Protocol):
    """Which files of units to list."""

    def __call__(self, chain: str, after: int, last: int) -> bool:
        """Whether files of the unit ``(after, last]`` of ``chain`` are wanted."""
        ...


async def list_files(areas: Iterable[Area], stream: str, wanted: Wanted) -> dict[str, dict[str, str]]:
    """The files of ``areas`` by URL, each with its sink; of areas that overlap, the first one names it.

    They come by the chain of ``stream`` that their names speak of; all that have other names are under the empty one.
    """
    found: dict[str, dict[str, str]] = {}
    for area in areas:
        foreign = tuple(f"{url.removesuffix('/')}/" for url in area.foreign)
        async for info in area.store.list(area.prefix):
            match = _NAME.fullmatch(info.key)
            chain = match["label"].removeprefix(f"{stream}.") if match else ""
            if match and not wanted(chain, int(match["after"]), int(match["last"])):
                continue
            url = area.url_of(info.key)
            if not url.startswith(foreign):
                found.setdefault(chain, {}).setdefault(url, area.sink)
    return found


def listed_in(links: Iterable[Link], areas: Mapping[str, Area]) -> set[str]:
    """URLs of all files that ``links`` list: where they were written, and where they may be now, if all of a sink was moved or renamed."""
    return {
        url for link in links for file in (*link.files, *(() if link.sealed else link.superseded)) for url in _places(link, file, areas)
    }


def _places(link: Link, file: LedgerObject, areas: Mapping[str, Area]) -> Iterator[str]:
    now = areas.get(file.sink)
    for area in areas.values() if now is None else (now,):
        yield area.url_of(file.key)
    if (written := former_place(link, file.sink, areas)) is not None:
        yield f"{written.removesuffix('/')}/{file.key}"


def strays(files: Mapping[str, str], links: Sequence[Link], areas: Mapping[str, Area], stream: str) -> list[Stray]:
    """Those of ``files``, sinks by URL, that are in no list; ``links`` are all of the chains of ``stream`` that their names speak of."""
    sealed = {(link.shard, str(link.after), str(link.last)) for link in links if link.sealed}
    # A worker writes only what the manifest in the log lists, and whoever lists something else keeps a list of it.
    ours = {url for link in links if link.sealed for file in link.superseded for url in _places(link, file, areas)}
    found = (replace(_stray(areas[files[url]], url, stream, sealed), ours=url in ours) for url in sorted(files))
    return [each for each in found if each.ours or not areas[each.sink].shared]


def _stray(area: Area, url: str, stream: str, sealed: set[tuple[str, str, str]]) -> Stray:
    sink, key = area.sink, url.removeprefix(area.url_of(""))
    match = _NAME.fullmatch(key)
    shard = match["label"].removeprefix(f"{stream}.") if match else ""
    if match is None or (shard, match["after"], match["last"]) not in sealed:
        like = _LIKE.search(key)
        named, after, last = like.groups() if like else ("", "", "")
        return Stray(sink, key, url, named, after, last)
    return Stray(sink, key, url, shard, match["after"], match["last"], sealed=True)


def stray_findings(found: Iterable[Stray]) -> list[Finding]:
    """Findings that say what each stray means for a reader who lists the prefix."""
    return [
        Finding(
            each.shard,
            Check.OBJECTS,
            Verdict.FAILED,
            f"no manifest lists this file, but a reader of the whole prefix sees it; {_whose(each)}",
            each.after,
            each.last,
            each.url,
        )
        for each in found
    ]


def _whose(stray: Stray) -> str:
    if stray.ours:
        return "it was made for a unit that was sealed with other files, --repair removes it"
    if stray.sealed:
        return "its name is of a sealed unit, for which no worker of this pipeline made it: does another pipeline write here? examine it"
    return "its name is of no unit of this log: examine it"


def check_file(link: Link, file: LedgerObject, url: str, body: bytes | None) -> list[Finding]:
    """Whether ``body`` is what the manifest says was written."""

    def bad(why: str) -> list[Finding]:
        return [Finding(link.shard, Check.OBJECTS, Verdict.FAILED, why, *link.bounds, object=url)]

    if body is None:
        return bad(f"the file is missing; the manifest lists {file.rows} rows in {file.size} bytes")
    if len(body) != file.size:
        return bad(f"the file has {len(body)} bytes, but the manifest says {file.size}")
    found = hashlib.sha256(body).hexdigest()
    if found != file.sha256:
        return bad(f"the file's SHA-256 is {found[:16]}..., the manifest says {file.sha256[:16]}...: its content was changed")
    return []


def check_rows(link: Link, segment: Segment, place: int, url: str, body: bytes) -> list[Finding]:
    """Whether the Parquet file that is the ledger's object number ``place`` holds the records that the ledger places there, line by line.

    A file without lineage columns can only be counted.
    """
    item = segment.header.objects[place]

    def bad(why: str) -> list[Finding]:
        return [Finding(link.shard, Check.OBJECTS, Verdict.FAILED, why, *link.bounds, object=url)]

    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        rows = file.metadata.num_rows
        lineage = _lineage(file)
    except (pa.ArrowInvalid, OSError) as error:
        return bad(f"the file is not readable Parquet: {error}")
    if rows != item.rows:
        return bad(f"the file has {rows} rows, but the ledger says {item.rows}")
    if lineage is None:
        return []
    why = _misplaced(lineage, segment, place)
    return bad(why) if why else []


def _misplaced(lineage: pl.DataFrame, segment: Segment, place: int) -> str:
    """How the lineage columns of a file disagree with the ledger; empty if they agree."""
    column = segment.header.targets.index(segment.header.objects[place].sink)
    seq, sub = ("first_seq", "first_sub") if segment.header.again else ("seq", "sub")
    told = segment.frame.filter(pl.col(f"dest_{column}") == place).select(
        pl.col(seq).alias("seq"), pl.col(sub).alias("sub"), pl.col(f"row_{column}").alias("row")
    )
    if told.is_empty():
        return ""
    if int(told["row"].max()) >= lineage.height:  # type: ignore[arg-type]
        return "the ledger names rows beyond the end of the file"
    there = lineage[told["row"].cast(pl.UInt32)]
    wrong = told.filter((there[SEQUENCE] != told["seq"]) | (there[SUBSEQUENCE].cast(pl.UInt32) != told["sub"]))
    if wrong.is_empty():
        return ""
    first = wrong.row(0, named=True)
    return f"{wrong.height} rows belong to other records than the ledger says; the first is row {first['row']} (record {first['seq']})"


def _lineage(file: Any) -> pl.DataFrame | None:
    if not {SEQUENCE, SUBSEQUENCE} <= set(file.schema_arrow.names):
        return None
    frame = pl.from_arrow(file.read(columns=[SEQUENCE, SUBSEQUENCE]))
    return frame if isinstance(frame, pl.DataFrame) else None
