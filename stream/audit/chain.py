"""The links of a shard's chain as plain values, and the checks on them. Pure: the caller has read everything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import LedgerObject, Segment
from stream.audit.report import Check, Finding, Verdict
from stream.batch import ORIGIN
from stream.contracts import Shard, StartKind, shard_of_chain

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
class ShardLog:
    """The contents of one shard's folder: readable links, and the keys of other objects with the problem of each.

    ``since``: only links from this position on were read; None if all were.
    """

    stream: str
    shard: str
    links: tuple[Link, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    since: int | None = None


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A stored checkpoint. ``position`` is None for a shard that has ended; ``problem`` is set if it cannot be read."""

    position: int | None
    subsequence: int = 0
    unit_after: int = ORIGIN
    problem: str = ""


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
    """Findings for gaps: records that expired in the stream before they were read. Their number can no longer be known."""
    why = "records of this range expired in the stream before they were read; how many there were, if any, can no longer be determined"
    return [Finding(link.shard, Check.CHAIN, Verdict.UNKNOWN, why, *link.bounds, object=link.key) for link in links]


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


def outline(chain: Followed) -> Followed:
    """``chain`` reduced to what ``check_family`` needs: only the first of its units, since a long chain has many."""
    return replace(chain, units=chain.units[:1])


def check_checkpoint(log: ShardLog, chain: Followed, stored: StoredCheckpoint | None) -> list[Finding]:
    """Compare the checkpoint with the chain. A crash between seal and checkpoint leaves it one unit late, which is ``unknown``."""
    head, units = chain.head, chain.units
    ended = chain.end is not None
    at_start = not units and not ended and (stored is None or (not stored.problem and stored.position == chain.start))
    if at_start or chain.rewind is not None or _ended_elsewhere(chain, stored):  # after a rewind, it is that of the next generation
        return []

    def failure(why: str, verdict: Verdict = Verdict.FAILED) -> list[Finding]:
        return [Finding(log.shard, Check.CHECKPOINT, verdict, why, *(units[-1].bounds if units else (str(ORIGIN), "")))]

    if stored is None:
        only = len(units) + ended == 1
        why = f"there is no checkpoint, although the log is sealed up to {head}"
        crash = "; a crash after the very first seal leaves this, and the next run corrects it"
        return failure(why + crash, Verdict.UNKNOWN) if only else failure(why)
    if stored.problem:
        return failure(stored.problem)
    last = chain.end or (units[-1] if units else None)
    if last is not None and _agrees(stored, last):
        return []
    before = units[-1] if ended and units else units[-2] if len(units) > 1 else None
    if before is not None and _agrees(stored, before):
        why = f"the checkpoint is one unit behind the head {head}: a crash between seal and checkpoint leaves this; the next run repairs it"
        return failure(why, Verdict.UNKNOWN)
    shown = "the shard's end" if stored.position is None else str(stored.position)
    where = "beyond" if stored.position is None or stored.position > head else "not at"
    return failure(f"the checkpoint (position {shown}, unit after {stored.unit_after}) is {where} the end of the sealed chain, {head}")


def check_passed(log: ShardLog, chain: Followed, stored: StoredCheckpoint | None) -> list[Finding]:
    """Check a checkpoint that was read before the chain: since then, the chain may have grown, so any of its links will do."""
    if chain.rewind is not None or stored is None:
        return []
    links = (*chain.units, *([chain.end] if chain.end is not None else ()))
    if not stored.problem and (stored.position == chain.start or any(_agrees(stored, link) for link in links)):
        return []
    why = f"the checkpoint (position {stored.position}, unit after {stored.unit_after}) is not at the end of any unit of the sealed chain"
    return [
        Finding(log.shard, Check.CHECKPOINT, Verdict.FAILED, stored.problem or why, *(links[-1].bounds if links else (str(ORIGIN), "")))
    ]


def _ended_elsewhere(chain: Followed, stored: StoredCheckpoint | None) -> bool:
    """Whether another application read the shard to its end. Then the end is in its checkpoint, and ours stays where it was."""
    if chain.end is None or chain.end.trigger != "foreign" or (stored is not None and stored.problem):
        return False
    return stored is None or (_agrees(stored, chain.units[-1]) if chain.units else stored.position == chain.start)


def _agrees(stored: StoredCheckpoint, link: Link) -> bool:
    return (stored.position, stored.subsequence, stored.unit_after) == (link.last, link.subsequence, link.after)


def check_family(chains: Mapping[str, tuple[Link | None, Followed]], start: str | None) -> list[Finding]:
    """Check across shards: each starts as pinned or at TRIM_HORIZON, and no child has a unit before all its parents in the log ended."""
    findings = []
    newest = {shard_of_chain(name)[0]: done for name, (_, done) in sorted(chains.items(), key=lambda entry: shard_of_chain(entry[0]))}
    for shard, (genesis, chain) in sorted(chains.items()):
        if genesis is None:
            continue
        findings += _check_generation(shard, genesis, chains)
        if start is not None and genesis.start not in {start, StartKind.TRIM_HORIZON}:
            why = f"the chain starts at {genesis.start}, but the stream's pinned start is {start}"
            findings.append(Finding(shard, Check.CHAIN, Verdict.FAILED, why, object=genesis.key))
        for parent in genesis.parents:
            known = newest.get(parent)
            if known is not None and known.end is None:
                why = (
                    f"the chain continues although its parent {parent} has not ended"
                    if chain.units
                    else f"opened before its parent {parent} ended"
                )
                findings.append(Finding(shard, Check.CHAIN, Verdict.FAILED, why, object=genesis.key))
    return findings


def _check_generation(name: str, genesis: Link, chains: Mapping[str, tuple[Link | None, Followed]]) -> list[Finding]:
    """Check that a chain after a rewind begins at the rewind's target."""
    shard_id, generation = shard_of_chain(name)
    if not generation:
        return []
    before = chains.get(Shard("", shard_id, generation=generation - 1).chain)
    rewind = before[1].rewind if before is not None else None
    if rewind is not None and (rewind.target, rewind.digest) == (genesis.after, genesis.previous):
        return []
    why = "the chain claims to follow a rewind, but no rewind of the previous generation leads to it"
    return [Finding(name, Check.CHAIN, Verdict.FAILED, why, object=genesis.key)]


def check_unit(link: Link, segment: Segment) -> list[Finding]:
    """Check that the unit's manifest and ledger segment agree, and that the segment is consistent."""
    header = segment.header
    problems = segment.problems()
    stated = {
        "application": (header.application, link.application),
        "stream": (header.stream, link.stream),
        "shard": (header.shard, link.shard),
        "after": (header.after, str(link.after)),
        "last": (header.last, str(link.last)),
        "pipeline": (header.pipeline, link.pipeline),
        "records": (header.records, link.records),
        "outcomes": (dict(header.outcomes), dict(link.outcomes)),
        "files": (_sorted(header.objects), _sorted(file for file in link.files if file.sink != LEDGER)),
    }
    problems += [
        f"the ledger's {name} are not the manifest's" for name, (in_ledger, in_manifest) in stated.items() if in_ledger != in_manifest
    ]
    problems += _lost_rows(segment)
    ledger = link.ledger
    return [
        Finding(link.shard, Check.CONSERVATION, Verdict.FAILED, why, *link.bounds, object=ledger.key if ledger else link.key)
        for why in problems
    ]


def _sorted(files: Iterable[LedgerObject]) -> list[tuple[str, str, int, int, str]]:
    return sorted((file.sink, file.key, file.rows, file.size, file.sha256) for file in files)


def _lost_rows(segment: Segment) -> list[str]:
    """Problems in which the number of a target's rows differs between the ledger's records and its object list."""
    found = []
    for index, target in enumerate(segment.header.targets):
        written = segment.frame.filter(segment.frame[f"dest_{index}"].is_not_null())
        by_record = int(written[f"rows_{index}" if segment.header.routed else "rows"].clip(lower_bound=1).sum())
        by_object = sum(item.rows for item in segment.header.objects if item.sink == target)
        if by_record != by_object:
            found.append(f"the ledger places {by_record} rows in {target}, but its objects hold {by_object}")
    return found


def _finding(log: ShardLog, check: Check, why: str, link: Link | None = None, key: str = "") -> Finding:
    """A failure of ``link``, or of the object ``key`` in the shard's folder, whose name may say where its range begins."""
    position = _POSITION.search(key)
    bounds = link.bounds if link else (str(int(position[0])) if position else str(ORIGIN), "")
    return Finding(log.shard, check, Verdict.FAILED, why, *bounds, object=link.key if link else key)
