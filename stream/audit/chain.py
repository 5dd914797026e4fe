"""The links of a shard's chain as plain values, and the chain as workers follow it. Pure: the caller has read everything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import LedgerObject
from stream.audit.report import Check, Finding, Verdict
from stream.batch import ORIGIN
from stream.contracts import shard_of_chain

EXPIRED: Final = "expired"
"""The trigger of a link that was made because records had expired; of an end, because the shard holds none any more."""

_POSITION: Final = re.compile(r"\d{60}")


class LinkKind(StrEnum):
    """What a link of the chain records."""

    GENESIS = "genesis"
    UNIT = "unit"
    GAP = "gap"
    FOREIGN = "foreign"
    SKIP = "skip"
    REWIND = "rewind"
    END = "end"


RANGES: Final = frozenset({LinkKind.UNIT, LinkKind.GAP, LinkKind.FOREIGN, LinkKind.SKIP})
"""Kinds of links that have a range of records."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """Name, rows in, rows out and microseconds of one stage over one unit."""

    name: str
    rows_in: int
    rows_out: int
    micros: int


@dataclass(frozen=True, slots=True)
class Link:
    """One manifest. ``position`` is the position in its key (None for genesis), ``digest`` the SHA-256 of its bytes.

    ``shard`` is the chain's name, ``target`` the position that a rewind goes back to. ``damage`` says how its bytes differ from what was
    sealed, or is empty. ``start`` is the pinned start as text. ``targets``: each sink's URL at that time, as far as the manifest has it.
    """

    key: str
    kind: LinkKind
    sealed: bool
    digest: str
    position: int | None = None
    application: str = ""
    stream: str = ""
    shard: str = ""
    after: int = ORIGIN
    last: int | None = None
    subsequence: int = 0
    records: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    files: tuple[LedgerObject, ...] = ()
    superseded: tuple[LedgerObject, ...] = ()
    targets: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[StageRun, ...] = ()
    previous: str = ""
    pipeline: str = ""
    build: str = ""
    start: str = ""
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    trigger: str = ""
    first_arrival: str = ""
    last_arrival: str = ""
    worker: str = ""
    created_at: str = ""
    sealed_by: str = ""
    sealed_at: str = ""
    target: int | None = None
    note: str = ""
    damage: str = ""

    @property
    def bounds(self) -> tuple[str, str]:
        """``after`` and ``last`` as findings show them."""
        return str(self.after), "" if self.last is None else str(self.last)

    @property
    def ledger(self) -> LedgerObject | None:
        """The unit's ledger segment."""
        return next((file for file in self.files if file.sink == LEDGER), None)

    def loaded_by(self, positions: Mapping[str, int]) -> bool:
        """Whether a table that is loaded up to ``positions`` (by shard) has its rows."""
        return self.last is not None and self.last <= positions.get(self.shard, 0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Records that arrived at ``begin`` or later, and before ``end``; None is open."""

    begin: datetime | None = None
    end: datetime | None = None

    @property
    def open(self) -> bool:
        """Whether every record is inside."""
        return self.begin is None and self.end is None

    def touches(self, link: Link) -> bool:
        """Whether a record of the unit ``link`` may be inside."""
        first, last = arrivals(link)
        return not ((self.begin and last and last < self.begin) or (self.end and first and first >= self.end))


def arrivals(link: Link) -> tuple[datetime | None, datetime | None]:
    """When the first and the last record of a unit arrived; None if its manifest does not say."""
    first, last = (datetime.fromisoformat(text) if text else None for text in (link.first_arrival, link.last_arrival))
    return first, last


@dataclass(frozen=True, slots=True)
class ShardLog:
    """The contents of one shard's folder: readable links, and the keys of other objects with the problem of each.

    ``since``: only links from this position on were read; None if all were. ``application``: whose log it is.
    """

    stream: str
    shard: str
    links: tuple[Link, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    since: int | None = None
    application: str = ""


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A stored checkpoint. ``position`` is None for a shard that has ended; ``problem`` is set if it cannot be read.

    ``generation``: the one of the shard's chain that it is about.
    """

    position: int | None
    subsequence: int = 0
    unit_after: int = ORIGIN
    problem: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Followed:
    """A chain as followed from its start: the sealed links with a range, then the end or an intent, if there is one.

    ``start``: where the chain begins; after a rewind, that is the rewind's target. ``rewind``: the link that ended this generation.
    """

    units: tuple[Link, ...]
    end: Link | None
    intent: Link | None
    start: int = ORIGIN
    rewind: Link | None = None

    @property
    def head(self) -> int:
        """The last committed sequence number."""
        return self.units[-1].last or ORIGIN if self.units else self.start


def follow(log: ShardLog) -> tuple[Followed, list[Finding]]:
    """Follow the chain as workers do. The findings cover the chain and links that it does not reach."""
    findings = [_finding(log, Check.CHAIN, why, key=key) for key, why in log.unreadable]
    for link in log.links:
        findings += _link_findings(log, link)
    genesis = next((link for link in log.links if link.kind is LinkKind.GENESIS), None)
    if genesis is None:
        why = "the chain has no genesis manifest, so nothing says where it started"
        findings.append(Finding(log.shard, Check.CHAIN, Verdict.FAILED, why, str(ORIGIN)))
    by_start: dict[int, Link] = {link.position: link for link in log.links if link.position is not None}
    units: list[Link] = []
    end = intent = rewind = None
    start = genesis.after if genesis else ORIGIN
    position, previous = start, genesis.digest if genesis else None
    if log.since is not None:
        start = position = log.since
        previous = None
    while position in by_start:
        link = by_start.pop(position)
        if not link.sealed:
            intent = link
            break
        if previous is not None and link.previous != previous:
            why = f"names {link.previous[:12] or 'nothing'} as its predecessor, but that manifest is {previous[:12]}: one was edited"
            findings.append(_finding(log, Check.SEAL, why, link))
        if link.kind is LinkKind.REWIND:
            rewind = link
            break
        if link.last is None:
            end = link
            break
        units.append(link)
        position, previous = link.last, link.digest
    findings += _unreached(log, by_start, position)
    return Followed(tuple(units), end, intent, start, rewind), findings


def _link_findings(log: ShardLog, link: Link) -> Iterator[Finding]:
    if link.damage:
        yield _finding(log, Check.SEAL, link.damage, link)
    if (link.stream, link.shard) != (log.stream, log.shard):
        yield _finding(log, Check.CHAIN, f"is a manifest of {link.stream}/{link.shard}", link)
    if log.application and link.application != log.application:
        why = f"is a manifest of the application {link.application}, and this is the log of {log.application}: it was copied"
        yield _finding(log, Check.CHAIN, why, link)
    if link.position is not None and link.position != link.after:
        yield _finding(log, Check.CHAIN, f"is at position {link.position} but starts after {link.after}: it was moved or copied", link)
    if (link.position is None) != (link.kind is LinkKind.GENESIS):
        yield _finding(log, Check.CHAIN, f"a {link.kind} manifest is where another kind belongs", link)
    if link.kind in RANGES and (link.last is None or link.last <= link.after):
        yield _finding(log, Check.CHAIN, "the range is empty", link)
    if link.kind is LinkKind.UNIT and sum(link.outcomes.values()) != link.records:
        why = f"{link.records} records were read, but the outcomes sum up to {sum(link.outcomes.values())}"
        yield _finding(log, Check.CONSERVATION, why, link)


def _unreached(log: ShardLog, unreached: Mapping[int, Link], position: int) -> Iterator[Finding]:
    """Findings for links that the chain does not reach. Those after its end show that a link is missing; others overlap its units."""
    remaining = sorted(unreached.items())
    later = [start for start, _ in remaining if start > position]
    if later:
        first = later[0]
        why = f"the manifest after {position} is missing: {len(later)} further manifests, the first after {first}, cannot be reached"
        yield Finding(log.shard, Check.CHAIN, Verdict.FAILED, why, str(position), str(first))
    for start, link in remaining:
        if start < position:
            yield _finding(log, Check.CHAIN, "overlaps units of the chain; no other manifest leads to it", link)


def gap_findings(links: Iterable[Link]) -> list[Finding]:
    """Findings for gaps, and for ends that were found by expiry: records that expired in the stream before they were read.

    Their number can no longer be known.
    """
    why = "records of this range expired in the stream before they were read; how many there were, if any, can no longer be determined"
    lost = (link for link in links if link.kind is LinkKind.GAP or (link.kind is LinkKind.END and link.trigger == EXPIRED))
    return [Finding(link.shard, Check.CHAIN, Verdict.UNKNOWN, why, *link.bounds, object=link.key) for link in lost]


def notes(links: Iterable[Link]) -> list[Finding]:
    """Findings for records that were not processed here, or whose units were rewound: these are decisions, not damage."""
    explanations = {
        LinkKind.FOREIGN: "another application on the same leases processed the records of this range",
        LinkKind.SKIP: "an operator decided not to process the records of this range",
        LinkKind.REWIND: "an operator rewound the shard from here; the units after the target were taken back and processed again",
    }
    found = []
    for link in links:
        why = explanations.get(link.kind)
        if link.kind is LinkKind.END and link.trigger == "foreign":
            why = "another application on the same leases processed the rest of the shard"
        if why is not None:
            bounds = (str(link.target), str(link.after)) if link.target is not None else link.bounds
            by_whom = f" ({link.worker}{': ' if link.note else ''}{link.note})"
            found.append(Finding(link.shard, Check.CHAIN, Verdict.OK, why + by_whom, *bounds, object=link.key))
    return found


def superseded(chains: Mapping[str, Followed]) -> set[tuple[str, int]]:
    """The chain and start of every unit that a rewind superseded, over all generations of every shard."""
    superseded_units: set[tuple[str, int]] = set()
    links_in_force: dict[str, list[Link]] = {}
    for name, chain in sorted(chains.items(), key=lambda entry: shard_of_chain(entry[0])):
        links = links_in_force.setdefault(shard_of_chain(name)[0], [])
        links += chain.units
        target = chain.rewind.target if chain.rewind is not None else None
        if target is not None:
            superseded_units |= {(link.shard, link.after) for link in links if (link.last or 0) > target}
            links[:] = [link for link in links if (link.last or 0) <= target]
    return superseded_units


def _finding(log: ShardLog, check: Check, why: str, link: Link | None = None, key: str = "") -> Finding:
    """A failure of ``link``, or of the object ``key`` in the shard's folder, whose name may say where its range begins."""
    position = _POSITION.search(key)
    bounds = link.bounds if link else (str(int(position[0])) if position else str(ORIGIN), "")
    return Finding(log.shard, check, Verdict.FAILED, why, *bounds, object=link.key if link else key)
