"""Which sealed units are loaded next: pure decisions of the loader."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from stream.sink.layouts import Layout


class Failure(StrEnum):
    """What to do about a load that failed.

    ``RACE``: the ledger has changed; read it. ``TRANSIENT``: try the same again later. ``SETUP``: no load can work until an operator acts.
    ``DATA``: something is wrong with these units.
    """

    RACE = "race"
    TRANSIENT = "transient"
    SETUP = "setup"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One file of a unit, by its full URL."""

    url: str
    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class Link:
    """One sealed link of a shard's chain, ``(after, last]``, with its staged files; none for a unit without rows, or a gap.

    ``links``: how many links of the chain it represents; more than one only if none of them has files.
    """

    shard: str
    after: int
    last: int
    files: tuple[StagedFile, ...] = ()
    layout: Layout | None = None
    sealed_at: str = ""
    links: int = 1

    @property
    def rows(self) -> int:
        """Rows in its files."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True, slots=True)
class Load:
    """What one transaction loads: whole links, those of one shard contiguous and in order; all files of one layout.

    ``layout`` is None exactly if there is no file.
    """

    links: tuple[Link, ...]
    layout: Layout | None

    @property
    def files(self) -> tuple[StagedFile, ...]:
        """All files, in the order of the links."""
        return tuple(file for link in self.links for file in link.files)

    @property
    def rows(self) -> int:
        """Rows in them."""
        return sum(link.rows for link in self.links)

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(file.size for file in self.files)

    def halves(self) -> tuple[Load, Load]:
        """Two loads, the second to be made after the first; each shard's links stay in order."""
        middle = len(self.links) // 2
        return Load(self.links[:middle], _layout(self.links[:middle])), Load(self.links[middle:], _layout(self.links[middle:]))

    def without(self, shards: Collection[str]) -> Load:
        """The load without the links of ``shards``."""
        links = tuple(link for link in self.links if link.shard not in shards)
        return Load(links, _layout(links))


def _layout(links: Sequence[Link]) -> Layout | None:
    return next((link.layout for link in links if link.layout is not None), None)


def joined(links: Sequence[Link], link: Link) -> tuple[Link, ...]:
    """``links`` of one shard, followed by ``link``; neighbours without files become one."""
    if links and not links[-1].files and not link.files:
        before = links[-1]
        return (*links[:-1], Link(link.shard, before.after, link.last, (), None, before.sealed_at, before.links + link.links))
    return (*links, link)


def choose(waiting: Mapping[str, Sequence[Link]], most: int) -> Load | None:
    """The next load of up to ``most`` links, or None while nothing with rows waits.

    It begins with the link that was sealed first and takes, from every shard in turn, what comes next and has the same layout.
    Links without rows go along, so that their shards' positions move; alone they are worth no transaction.
    """
    full = [link for links in waiting.values() for link in links if link.files]
    if not full:
        return None
    heads = sorted(
        (link for link in (_first_full(links) for links in waiting.values()) if link), key=lambda each: (each.sealed_at, each.shard)
    )
    layout = heads[0].layout
    order = [heads[0].shard, *(shard for shard in sorted(waiting) if shard != heads[0].shard)]
    chosen: dict[str, list[Link]] = {shard: [] for shard in order}
    room, moved = most, True
    while room and moved:
        moved = False
        for shard in order:
            taken = len(chosen[shard])
            if room and taken < len(waiting[shard]) and waiting[shard][taken].layout in {None, layout}:
                chosen[shard].append(waiting[shard][taken])
                room, moved = room - 1, True
    links = tuple(link for shard in order for link in chosen[shard])
    return Load(links, _layout(links))


def _first_full(links: Sequence[Link]) -> Link | None:
    return next((link for link in links if link.files), None)


def remaining(waiting: Mapping[str, Sequence[Link]], done: Load) -> dict[str, tuple[Link, ...]]:
    """``waiting`` without the links of ``done``."""
    loaded = {(link.shard, link.after) for link in done.links}
    return {shard: tuple(link for link in links if (link.shard, link.after) not in loaded) for shard, links in waiting.items()}


def is_quiet(windows: Sequence[str], now: datetime) -> bool:
    """Whether ``now`` (UTC) is in one of ``windows``, each ``HH:MM-HH:MM`` without its end; a window may cross midnight."""
    minute = now.strftime("%H:%M")
    for window in windows:
        begin, _, end = window.partition("-")
        if begin <= minute < end if begin < end else minute >= begin or minute < end:
            return True
    return False
