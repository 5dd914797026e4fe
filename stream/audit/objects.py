"""Checks the files of sealed units: each must be in place with its bytes, rows and records, and no other files may be there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import polars as pl

from stream.audit.chain import Link
from stream.audit.ledger import LedgerObject, Segment
from stream.audit.outputs import DAMAGE, Separation, damage, rows_of
from stream.audit.report import Check, Finding, Verdict
from stream.batch import SEQUENCE, SUBSEQUENCE
from stream.contracts import CONSOLE, ObjectStore

WITH_THE_LOG: Final = frozenset({"ledger", "rejects"})
"""Targets whose files are beside the log, in one folder per stream."""

_NAME: Final = re.compile(
    r"(?:.*/)?(?P<label>[A-Za-z0-9_.@-]+)-(?P<after>\d{1,60})-(?P<last>\d{1,60})(?:\.\d+)?\.(?P<sha>[0-9a-f]{16})\.[a-z.]+"
)
"""File names as sinks make them: ``[<stream>.]<shard>-<after>-<last>[.<part>].<sha16>.<extension>``."""


_SIMILAR: Final = re.compile(r"(shardId-\d{12})-(\d+)-(\d+)")
"""The part of such a name that can be recognised even if the rest has been changed."""


@dataclass(frozen=True, slots=True)
class Area:
    """Where the files of the target ``sink`` are. Other files may only be there below one of ``foreign`` (URLs).

    ``prefix`` narrows the listing; keys are relative to ``store``. ``removed``: by shard, the sequence number up to which files may have
    been deleted on purpose, because their rows have been loaded elsewhere; ``needed`` has the URLs of those that must exist nevertheless,
    because a table consists of them. ``shared``: others may write there too, because a catalog defines which files count. ``mixed``: others
    may write there too, and files that are not named as sinks name files are theirs.
    """

    sink: str
    store: ObjectStore
    prefix: str = ""
    foreign: tuple[str, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)
    needed: AbstractSet[str] = frozenset()
    shared: bool = False
    mixed: bool = False

    def may_be_gone(self, link: Link, key: str) -> bool:
        """Whether the file ``key`` of ``link`` may have been deleted on purpose."""
        return link.loaded_by(self.removed) and self.url_of(key) not in self.needed

    def url_of(self, key: str) -> str:
        """The file's URL, unique across all areas."""
        return f"{self.store.url.removesuffix('/')}/{key}"


@dataclass(frozen=True, slots=True)
class UnlistedFile:
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
    """The files of ``unit`` that exist: not those that were printed to the console."""
    return [file for file in unit.files if unit.targets.get(file.sink) != CONSOLE]


def former_place(unit: Link, sink: str, areas: Mapping[str, Area]) -> str | None:
    """The sink's URL when ``unit`` was sealed, if the sink has moved since. Ledger and rejects move together with the log."""
    url, area = unit.targets.get(sink), areas.get(sink)
    if url is None or sink in WITH_THE_LOG or (area is not None and area.store.url == url):
        return None
    return url


def url_in(unit: Link, sink: str, key: str, areas: Mapping[str, Area]) -> str:
    """The URL to which a file of ``unit`` was written; only its key if that is unknown."""
    former = former_place(unit, sink, areas)
    if former is not None:
        return f"{former.removesuffix('/')}/{key}"
    return areas[sink].url_of(key) if sink in areas else key


def unit_of(key: str, stream: str) -> tuple[str, int] | None:
    """The shard and start of the unit of ``stream`` to which a file belongs, from its name; None if it is not named as sinks name files.

    Names without the stream are those of a pipeline that reads one stream only.
    """
    match = _NAME.fullmatch(key)
    return None if match is None else (match["label"].removeprefix(f"{stream}."), int(match["after"]))


def stream_of(key: str, streams: Iterable[str]) -> str | None:
    """Which of ``streams`` a file's name begins with; None if it names none of them, or is not named as sinks name files."""
    match = _NAME.fullmatch(key)
    if match is None:
        return None
    return max((stream for stream in streams if match["label"].startswith(f"{stream}.")), key=len, default=None)


class UnitFilter(Protocol):
    """Decides which units' files to list."""

    def __call__(self, chain: str, after: int, last: int) -> bool:
        """Whether files of the unit ``(after, last]`` of ``chain`` are wanted."""
        ...


async def list_files(areas: Iterable[Area], stream: str, wanted: UnitFilter) -> dict[str, dict[str, str]]:
    """The files of ``areas``, grouped by the chain of ``stream`` that their names contain ("" for other names), then sink by URL.

    A file in several areas gets the sink of the first.
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
    """The URLs of all files that ``links`` list: where they were written, and where they are now if a sink was moved or renamed."""
    return {
        url for link in links for file in (*link.files, *(() if link.sealed else link.superseded)) for url in _places(link, file, areas)
    }


def _places(link: Link, file: LedgerObject, areas: Mapping[str, Area]) -> Iterator[str]:
    now = areas.get(file.sink)
    for area in areas.values() if now is None else (now,):
        yield area.url_of(file.key)
    if (written := former_place(link, file.sink, areas)) is not None:
        yield f"{written.removesuffix('/')}/{file.key}"


def unlisted_files(files: Mapping[str, str], links: Sequence[Link], areas: Mapping[str, Area], stream: str) -> list[UnlistedFile]:
    """``files`` (sink by URL), which no manifest lists, with what their names say about them.

    ``links``: all links of the chains that those names contain.
    """
    sealed = {(link.shard, str(link.after), str(link.last)) for link in links if link.sealed}
    # A worker writes only what the manifest in the log lists, and whoever lists something else keeps a list of it.
    ours = {url for link in links if link.sealed for file in link.superseded for url in _places(link, file, areas)}
    found = (replace(_unlisted_file(areas[files[url]], url, stream, sealed), ours=url in ours) for url in sorted(files))
    return [each for each in found if each.ours or not _of_others(each, areas[each.sink])]


def _of_others(file: UnlistedFile, area: Area) -> bool:
    return area.shared or (area.mixed and _NAME.fullmatch(file.key) is None)


def _unlisted_file(area: Area, url: str, stream: str, sealed: set[tuple[str, str, str]]) -> UnlistedFile:
    sink, key = area.sink, url.removeprefix(area.url_of(""))
    match = _NAME.fullmatch(key)
    shard = match["label"].removeprefix(f"{stream}.") if match else ""
    if match is None or (shard, match["after"], match["last"]) not in sealed:
        similar = _SIMILAR.search(key)
        shard, after, last = similar.groups() if similar else ("", "", "")
        return UnlistedFile(sink, key, url, shard, after, last)
    return UnlistedFile(sink, key, url, shard, match["after"], match["last"], sealed=True)


def unlisted_file_findings(found: Iterable[UnlistedFile]) -> list[Finding]:
    """One finding per file."""
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


def _whose(file: UnlistedFile) -> str:
    if file.ours:
        return "a worker wrote it for a unit that was then sealed with other files; --repair removes it"
    if file.sealed:
        return (
            "its name belongs to a sealed unit, but no worker of this pipeline wrote it for that unit: find out whether "
            "another pipeline writes here"
        )
    return "its name belongs to no unit of this log: find out who wrote it"


def check_file(link: Link, file: LedgerObject, url: str, body: bytes | None) -> list[Finding]:
    """Check that ``body`` is what the manifest says was written."""

    def failure(why: str) -> list[Finding]:
        return [Finding(link.shard, Check.OBJECTS, Verdict.FAILED, why, *link.bounds, object=url)]

    if body is None:
        return failure(f"the file is missing; the manifest lists {file.rows} rows in {file.size} bytes")
    if len(body) != file.size:
        return failure(f"the file has {len(body)} bytes, but the manifest says {file.size}")
    found = hashlib.sha256(body).hexdigest()
    if found != file.sha256:
        return failure(f"the file's SHA-256 is {found[:16]}..., the manifest says {file.sha256[:16]}...: its content was changed")
    return []


def check_rows(link: Link, segment: Segment, file: LedgerObject, url: str, body: bytes, separation: Separation) -> list[Finding]:
    """Check that ``body``, the content of ``file``, has the records that the ledger says, row by row; nothing if the ledger lacks it.

    Of a file without lineage columns, only the number of rows is checked. ``separation``: how it is written if its values are separated.
    """
    number = _number(segment, file)
    if number is None:
        return []
    item = segment.header.objects[number]

    def failure(why: str) -> list[Finding]:
        return [Finding(link.shard, Check.OBJECTS, Verdict.FAILED, why, *link.bounds, object=url)]

    try:
        found = rows_of(item.key, body, separation)
        with_lineage = {SEQUENCE, SUBSEQUENCE} <= set(found.collect_schema())
        lineage = found.select(SEQUENCE, pl.col(SUBSEQUENCE).cast(pl.UInt32)).collect() if with_lineage else None
        rows = lineage.height if lineage is not None else int(found.select(pl.len()).collect().item())
    except DAMAGE as error:
        return failure(f"the file cannot be read: {damage(error)}")
    if rows != item.rows:
        return failure(f"the file has {rows} rows, but the ledger says {item.rows}")
    if lineage is None:
        return []
    why = _misplaced(lineage, segment, number)
    return failure(why) if why else []


def misplaced(link: Link, segment: Segment, file: LedgerObject, url: str, lineage: pl.DataFrame) -> list[Finding]:
    """Check that rows with the lineage columns ``lineage``, found at ``url``, are those that the ledger has in ``file``."""
    number = _number(segment, file)
    if number is None:
        return []
    why = _misplaced(lineage, segment, number)
    return [Finding(link.shard, Check.OBJECTS, Verdict.FAILED, why, *link.bounds, object=url)] if why else []


def _number(segment: Segment, file: LedgerObject) -> int | None:
    return next((n for n, item in enumerate(segment.header.objects) if (item.sink, item.key) == (file.sink, file.key)), None)


def _misplaced(lineage: pl.DataFrame, segment: Segment, number: int) -> str:
    """How the lineage columns of a file differ from the ledger; "" if they agree."""
    column = segment.header.targets.index(segment.header.objects[number].sink)
    seq, sub = ("first_seq", "first_sub") if segment.header.again else ("seq", "sub")
    expected = segment.frame.filter(pl.col(f"dest_{column}") == number).select(
        pl.col(seq).alias("seq"), pl.col(sub).alias("sub"), pl.col(f"row_{column}").alias("row")
    )
    if expected.is_empty():
        return ""
    if int(expected["row"].max()) >= lineage.height:  # type: ignore[arg-type]
        return "the ledger names rows beyond the end of the file"
    actual = lineage[expected["row"].cast(pl.UInt32)]
    wrong = expected.filter((actual[SEQUENCE] != expected["seq"]) | (actual[SUBSEQUENCE] != expected["sub"]))
    if wrong.is_empty():
        return ""
    first = wrong.row(0, named=True)
    return f"{wrong.height} rows belong to other records than the ledger says; the first is row {first['row']} (record {first['seq']})"
