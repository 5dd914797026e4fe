"""Compares a followed chain with what belongs to it: its checkpoint, the chains of other shards, the ledger of each unit. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from stream.audit.chain import Followed, Link, ShardLog, StoredCheckpoint
from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import LedgerObject, Segment
from stream.audit.report import Check, Finding, Verdict
from stream.batch import ORIGIN
from stream.contracts import Shard, StartKind, shard_of_chain

FOREIGN: Final = "foreign"
"""The trigger of an end that another application on the same leases has reached."""


def check_checkpoint(log: ShardLog, chain: Followed, stored: StoredCheckpoint | None) -> list[Finding]:
    """Compare the checkpoint with the chain. A crash between seal and checkpoint leaves it one unit late, which is ``unknown``."""
    head, units = chain.head, chain.units
    ended = chain.end is not None
    at_start = not units and not ended and (stored is None or (not stored.problem and stored.position == chain.start))

    def failure(why: str, verdict: Verdict = Verdict.FAILED) -> list[Finding]:
        return [Finding(log.shard, Check.CHECKPOINT, verdict, why, *(units[-1].bounds if units else (str(ORIGIN), "")))]

    if stored is not None and _is_ahead(log, chain, stored):
        stored = replace(stored, problem=_of_no_chain(stored))
    elif at_start or chain.rewind is not None or _ended_elsewhere(chain, stored):  # after a rewind, it is that of the next generation
        return []

    if stored is None:
        only = len(units) + ended == 1
        why = f"there is no checkpoint, although the log is sealed up to {head}"
        crash = "; a crash after the very first seal leaves this, and the next run corrects it"
        return failure(why + crash, Verdict.UNKNOWN) if only else failure(why)
    if stored.problem:
        return failure(stored.problem)
    last = chain.end or (units[-1] if units else None)
    before = units[-1] if ended and units else units[-2] if len(units) > 1 else None
    if last is not None and _agrees(stored, last):
        return []
    if before is not None and _agrees(stored, before):
        why = f"the checkpoint is one unit behind the head {head}: a crash between seal and checkpoint leaves this; the next run repairs it"
        return failure(why, Verdict.UNKNOWN)
    shown = "the shard's end" if stored.position is None else str(stored.position)
    where = "beyond" if stored.position is None or stored.position > head else "not at"
    return failure(f"the checkpoint (position {shown}, unit after {stored.unit_after}) is {where} the end of the sealed chain, {head}")


def _is_ahead(log: ShardLog, chain: Followed, stored: StoredCheckpoint) -> bool:
    """Whether the checkpoint is about a later generation, and not where ``chain`` was rewound to: nothing else of that one is there."""
    later = stored.generation > shard_of_chain(log.shard)[1]
    return later and (chain.rewind is None or stored.position != chain.rewind.target)


def _of_no_chain(stored: StoredCheckpoint) -> str:
    return (
        f"the checkpoint is at {stored.position} in generation {stored.generation} of the shard, of which the log has no manifest: "
        "restore them, or their records are written again"
    )


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
    if chain.end is None or chain.end.trigger != FOREIGN or (stored is not None and stored.problem):
        return False
    return stored is None or (_agrees(stored, chain.units[-1]) if chain.units else stored.position == chain.start)


def _agrees(stored: StoredCheckpoint, link: Link) -> bool:
    return (stored.position, stored.subsequence, stored.unit_after) == (link.last, link.subsequence, link.after)


def outline(chain: Followed) -> Followed:
    """``chain`` reduced to what ``check_family`` needs: only the first of its units, since a long chain has many."""
    return replace(chain, units=chain.units[:1])


def check_rewinds(logs: Mapping[str, tuple[ShardLog, Followed]]) -> list[Finding]:
    """Check for all generations of one shard that each rewind goes back to where a link in force ends.

    From anywhere else, the unit around its target would be taken back, and only a part of it read again.
    """
    findings = []
    ends, unread = {ORIGIN}, ORIGIN
    for _, (log, followed) in sorted(logs.items(), key=lambda entry: shard_of_chain(entry[0])):
        ends |= {link.last for link in followed.units if link.last is not None}
        unread = max(unread, log.since or ORIGIN)
        rewind = followed.rewind
        if rewind is None or rewind.target is None:
            continue
        if rewind.target not in ends and rewind.target > unread:
            why = f"the rewind goes back to {rewind.target}, where no unit ends: records before that were taken back and are not read again"
            findings.append(Finding(log.shard, Check.CHAIN, Verdict.FAILED, why, *rewind.bounds, object=rewind.key))
        ends = {end for end in ends if end <= rewind.target}
    return findings


def check_listed(
    chains: Mapping[str, tuple[Link | None, Followed]], listed: Mapping[str, Shard] | None, *, whole: bool = True
) -> list[Finding]:
    """Check that no shard is called ended that is open, and that the log has the children of each that has ended.

    ``listed``: the shards that the stream has now; None: not known. ``whole``: ``chains`` has all shards of the log.
    """
    newest = _newest(chains)
    continued = {parent for genesis, _ in chains.values() if genesis is not None for parent in genesis.parents}
    findings = []
    for shard_id, (name, followed) in newest.items():
        end = followed.end
        if end is None or end.trigger == FOREIGN:
            continue
        shard = listed.get(shard_id) if listed is not None else None
        if shard is not None and shard.is_open:
            findings.append(_ended_too_early(name, end, shard))
        for child in end.children if whole else ():
            if child in newest or (child not in continued and (listed is None or child in listed)):
                continue
            what = "shards that continue it have one" if child in continued else "the stream does not have the shard any more"
            why = (
                f"its child {child} has no chain in the log, and {what}: its records expired before they were read, or its manifests "
                f"were lost. Restore commits/.../{child}/ if a version of it is left"
            )
            findings.append(Finding(name, Check.CHAIN, Verdict.UNKNOWN, why, *end.bounds, object=end.key))
    return findings


def _ended_too_early(name: str, end: Link, shard: Shard) -> Finding:
    if shard.begins > end.after + 1:
        why = "the stream has another shard under this id: it was deleted and created again, so what was read cannot be compared with it"
        return Finding(name, Check.CHAIN, Verdict.UNKNOWN, why, *end.bounds, object=end.key)
    why = "the log says that the shard was read to its end, and in the stream it is open: what was put since then is not read"
    return Finding(name, Check.CHAIN, Verdict.FAILED, why, *end.bounds, object=end.key)


def _newest(chains: Mapping[str, tuple[Link | None, Followed]]) -> dict[str, tuple[str, Followed]]:
    """By shard, the name and the outline of its newest generation."""
    ordered = sorted(chains.items(), key=lambda entry: shard_of_chain(entry[0]))
    return {shard_of_chain(name)[0]: (name, followed) for name, (_, followed) in ordered}


def check_family(chains: Mapping[str, tuple[Link | None, Followed]], start: str | None) -> list[Finding]:
    """Check across shards: each starts as pinned or at TRIM_HORIZON, and no child has a unit before all its parents in the log ended."""
    findings = []
    newest = _newest(chains)
    for shard, (genesis, chain) in sorted(chains.items()):
        if genesis is None:
            continue
        findings += _check_generation(shard, genesis, chains)
        if start is not None and genesis.start not in {start, StartKind.TRIM_HORIZON}:
            why = f"the chain starts at {genesis.start}, but the stream's pinned start is {start}"
            findings.append(Finding(shard, Check.CHAIN, Verdict.FAILED, why, object=genesis.key))
        for parent in genesis.parents:
            known = newest.get(parent)
            if known is not None and known[1].end is None:
                why = (
                    f"the chain continues although its parent {parent} has not ended"
                    if chain.units
                    else f"opened before its parent {parent} ended"
                )
                findings.append(Finding(shard, Check.CHAIN, Verdict.FAILED, why, object=genesis.key))
    return findings


def _check_generation(name: str, genesis: Link, chains: Mapping[str, tuple[Link | None, Followed]]) -> list[Finding]:
    """Check that a chain begins with the shard's first record, or after a rewind at its target."""
    shard_id, generation = shard_of_chain(name)
    if not generation:
        why = f"the shard's first chain begins after {genesis.after}, not with the first record: nothing says what became of those before"
        return [] if genesis.after == ORIGIN else [Finding(name, Check.CHAIN, Verdict.FAILED, why, object=genesis.key)]
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
