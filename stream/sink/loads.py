"""Decides which sealed units are loaded next. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from stream.sink.layouts import Layout


class Failure(StrEnum):
    """What to do about a load that failed.

    ``RACE``: the ledger has changed; read it again. ``TRANSIENT``: retry later. ``SETUP``: no load can succeed until an operator acts.
    ``DATA``: something is wrong with the load's own units.
    """

    RACE = "race"
    TRANSIENT = "transient"
    SETUP = "setup"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One staged file of a unit; ``url`` is complete, ``size`` in bytes."""

    url: str
    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class Link:
    """One sealed link ``(after, last]`` of a shard's chain, with its staged files; a unit without rows and a gap have none.

    ``links``: how many links of the chain it stands for. It is more than one only for consecutive links without files.
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
        """Rows in all its files."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True, slots=True)
class Load:
    """What one transaction loads: whole links. Those of one shard are contiguous and in order; all files have the same layout.

    ``layout`` is None if and only if there are no files.
    """

    links: tuple[Link, ...]
    layout: Layout | None

    @property
    def files(self) -> tuple[StagedFile, ...]:
        """All files, in the order of the links."""
        return tuple(file for link in self.links for file in link.files)

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(link.rows for link in self.links)

    @property
    def bytes(self) -> int:
        """Size of all files in bytes."""
        return sum(file.size for file in self.files)

    def halves(self) -> tuple[Load, Load]:
        """The load split in two. The second must be loaded after the first, so that each shard's links stay in order."""
        middle = len(self.links) // 2
        return Load(self.links[:middle], _layout(self.links[:middle])), Load(self.links[middle:], _layout(self.links[middle:]))

    def without(self, shards: Collection[str]) -> Load:
        """The load without the links of ``shards``."""
        links = tuple(link for link in self.links if link.shard not in shards)
        return Load(links, _layout(links))


def _layout(links: Sequence[Link]) -> Layout | None:
    return next((link.layout for link in links if link.layout is not None), None)


def joined(links: Sequence[Link], link: Link) -> tuple[Link, ...]:
    """``links`` of one shard, followed by ``link``; consecutive links without files are merged into one."""
    if links and not links[-1].files and not link.files:
        previous = links[-1]
        return (*links[:-1], Link(link.shard, previous.after, link.last, (), None, previous.sealed_at, previous.links + link.links))
    return (*links, link)


def choose(waiting: Mapping[str, Sequence[Link]], most: int) -> Load | None:
    """The next load of up to ``most`` links; None if no waiting link has files.

    The shard whose first link with files was sealed earliest determines the layout and comes first. Then the next link of each shard is
    taken in turn, as long as it has that layout. Links without files are included, so that their shards' positions advance; they alone do
    not justify a transaction.
    """
    heads = [link for link in (_first_with_files(links) for links in waiting.values()) if link is not None]
    if not heads:
        return None
    oldest = min(heads, key=lambda link: (link.sealed_at, link.shard))
    order = [oldest.shard, *(shard for shard in sorted(waiting) if shard != oldest.shard)]
    chosen: dict[str, list[Link]] = {shard: [] for shard in order}
    room, progress = most, True
    while progress:
        progress = False
        for shard in order:
            taken = len(chosen[shard])
            if room and taken < len(waiting[shard]) and waiting[shard][taken].layout in {None, oldest.layout}:
                chosen[shard].append(waiting[shard][taken])
                room, progress = room - 1, True
    links = tuple(link for shard in order for link in chosen[shard])
    return Load(links, _layout(links))


def _first_with_files(links: Sequence[Link]) -> Link | None:
    return next((link for link in links if link.files), None)


def remaining(waiting: Mapping[str, Sequence[Link]], done: Load) -> dict[str, tuple[Link, ...]]:
    """``waiting`` without the links of ``done``."""
    loaded = {(link.shard, link.after) for link in done.links}
    return {shard: tuple(link for link in links if (link.shard, link.after) not in loaded) for shard, links in waiting.items()}


def is_quiet(windows: Sequence[str], now: datetime) -> bool:
    """Whether ``now`` (UTC) is in one of ``windows``, each ``HH:MM-HH:MM`` with its end excluded; a window may cross midnight."""
    minute = now.strftime("%H:%M")
    for window in windows:
        begin, _, end = window.partition("-")
        if begin <= minute < end if begin < end else minute >= begin or minute < end:
            return True
    return False
