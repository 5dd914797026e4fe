"""Proves from outside that every record between the start and the head of each shard has exactly one outcome, and is where the log says.

The service is not trusted: manifests, ledger, files, checkpoints and, while the stream still has them, the records themselves are read
again and compared with each other. Whatever was lost, duplicated, moved or edited contradicts something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from stream.audit import chain, chain_checks, objects
from stream.audit.chain import Followed, Link, LinkKind, ShardLog, StoredCheckpoint
from stream.audit.compacted import CompactionCheck
from stream.audit.evidence import Evidence
from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import LedgerObject, Segment, SegmentError, read_segment
from stream.audit.report import Check, Finding, Report, ShardSummary, Verdict, verdict
from stream.audit.set_hash import SetHash
from stream.audit.source import check_source
from stream.concurrency import run_concurrently
from stream.contracts import Clock, shard_of_chain

AT_ONCE: Final = 8
"""Units examined at a time: most of the time is spent on reads, and the files of each unit are in memory meanwhile."""

ATTEMPTS: Final = 3
"""How often to read a shard whose log or checkpoint changes during the verification because a worker is processing it."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called to report progress: the kind of work, the number done, and the total."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to verify, for one shard or all: the chain after ``after``, and the files and records of units that overlap ``(after, last]``.

    ``contents``: read the files, not only their names and sizes. ``source``: read the stream again.
    """

    shard: str | None = None
    after: int = 0
    last: int | None = None
    contents: bool = True
    source: bool = True

    def takes(self, unit: Link) -> bool:
        """Whether the unit's files and records are to be checked."""
        return self.overlaps(unit.after, unit.last or 0)

    def takes_end(self, head: int) -> bool:
        """Whether what comes after the last unit of a shard is to be checked."""
        return self.last is None and head >= self.after

    def overlaps(self, after: int, last: int) -> bool:
        """Whether a unit ``(after, last]`` is to be checked."""
        return last > self.after and (self.last is None or after < self.last)

    def names(self, chain: str, after: int, last: int) -> bool:
        """Whether files of the unit ``(after, last]`` of ``chain`` are to be listed."""
        return self.family in {None, shard_of_chain(chain)[0]} and self.overlaps(after, last)

    @property
    def family(self) -> str | None:
        """The shard whose generations are to be checked."""
        return None if self.shard is None else shard_of_chain(self.shard)[0]


@dataclass(slots=True)
class _State:
    findings: list[Finding] = field(default_factory=list)
    checked: Counter[Check] = field(default_factory=Counter)
    hashes: dict[tuple[str, int], str] = field(default_factory=dict)
    """Set hash of each unit of the current shard whose ledger could be read, by chain and start."""
    superseded: set[tuple[str, int]] = field(default_factory=set)
    """The units that rewinds took back, by chain and start."""
    units: int = 0
    examined: int = 0
    records: int = 0
    read: int = 0
    in_scope: int = 0


@dataclass(frozen=True, slots=True)
class _Family:
    """The results for all generations of one shard. ``chains``: the first link and the outline of each."""

    chains: Mapping[str, tuple[Link | None, Followed]]
    summaries: Sequence[ShardSummary]
    unlisted_files: Sequence[objects.UnlistedFile]


class Verifier:
    """One verification of one application's log of one stream."""

    def __init__(self, evidence: Evidence, scope: Scope, clock: Clock, progress: Progress = lambda _what, _done, _total: None) -> None:
        self._evidence = evidence
        self._scope = scope
        self._clock = clock
        self._progress = progress
        self._state = _State()

    async def run(self, *, repair: bool = False) -> Report:
        """Check everything in scope; with ``repair``, then delete the leftovers that certainly belong to this log.

        Raises:
            Fatal: a store cannot be read.
            Retryable: a store kept failing.
        """
        evidence, state = self._evidence, self._state
        started = self._clock.now().isoformat()
        # Listed before the log is read, so every file listed already has its intent in the log.
        files = await objects.list_files(evidence.areas.values(), evidence.stream, self._scope.names)
        state.checked[Check.OBJECTS] += sum(map(len, files.values()))
        shards = await evidence.shards()
        for name in await evidence.unlisted_checkpoints(shards):
            shard = next((each for each in shards if each in name), "")
            why = "the checkpoint belongs to a shard that has no log"
            state.findings.append(Finding(shard, Check.CHECKPOINT, Verdict.FAILED, why, "0" if shard else "", object=name))
        groups = _families(shard for shard in shards if self._scope.family in {None, shard_of_chain(shard)[0]})
        families = [await self._family(group, files) for group in groups]
        chains = {name: each for family in families for name, each in family.chains.items()}
        state.findings += chain_checks.check_family(chains, await self._start(shards))
        state.findings += chain_checks.check_listed(chains, await evidence.listed(), whole=self._scope.shard is None)
        await self._compactions()
        unlisted_files = [file for family in families for file in family.unlisted_files]
        if self._scope.shard is None:
            unlisted_files += await self._unlisted_files({url: sink for remaining in files.values() for url, sink in remaining.items()}, ())
        state.findings += objects.unlisted_file_findings(unlisted_files)
        removed = await self._remove(unlisted_files) if repair else ()
        return self._report(started, [row for family in families for row in family.summaries], unlisted_files, removed)

    async def _family(self, names: Sequence[str], files: dict[str, dict[str, str]]) -> _Family:
        """Check all generations of one shard. Their links are not kept: all shards together may have millions.

        Files that they list, and files whose names say that they are theirs, are removed from ``files``.
        """
        logs = {name: await self._shard(name) for name in names}
        chains = {name: (_genesis(log), chain_checks.outline(followed)) for name, (log, followed) in logs.items()}
        self._state.findings += chain_checks.check_rewinds(logs)
        superseded = chain.superseded({name: followed for name, (_, followed) in logs.items()})
        self._state.superseded |= superseded
        links = [_as_left_by_rewind(link, superseded) for log, _ in logs.values() for link in log.links]
        logs = {name: (log, _without(superseded, followed)) for name, (log, followed) in logs.items()}
        chosen = [name for name in names if self._scope.shard in {None, name}]
        in_scope = [link for name in chosen for link in logs[name][1].units if self._scope.takes(link)]
        ends = [end for name in chosen for end in (logs[name][1].end, logs[name][1].rewind) if end is not None]
        self._state.findings += chain.notes([*in_scope, *ends])
        self._state.findings += chain.gap_findings([*in_scope, *ends])
        units = [link for link in in_scope if link.kind is LinkKind.UNIT]
        family_files = {url: sink for name in names for url, sink in files.pop(name, {}).items()}
        await self._all_units(units, family_files)
        listed = objects.listed_in(links, self._evidence.areas)
        unlisted_files = await self._unlisted_files({url: sink for url, sink in family_files.items() if url not in listed}, links)
        for url in listed - family_files.keys():
            files.get("", {}).pop(url, None)
        if self._scope.source:
            await self._all_sources(chosen, units, logs)
        self._state.in_scope += sum(link.records for link in in_scope)
        summaries = [self._summary(*logs[name]) for name in chosen]
        self._state.hashes.clear()
        return _Family(chains, summaries, unlisted_files)

    async def _unlisted_files(self, files: Mapping[str, str], links: Sequence[Link]) -> list[objects.UnlistedFile]:
        """Those of ``files`` that no manifest of any stream of the application lists: several streams may write to one place."""
        found = objects.unlisted_files(files, links, self._evidence.areas, self._evidence.stream)
        if self._evidence.shares_places:
            found = [file for file in found if file.ours or file.sealed or file.sink in objects.WITH_THE_LOG]
        elsewhere: set[str] = set()

        async def check(file: objects.UnlistedFile) -> None:
            if await self._evidence.of_another_stream(file.sink, file.key):
                elsewhere.add(file.url)

        await run_concurrently([check(file) for file in found], AT_ONCE)
        return [file for file in found if file.url not in elsewhere]

    async def _start(self, shards: Sequence[str]) -> str | None:
        start = await self._evidence.pinned_start()
        if start is None and shards:
            self._state.findings.append(Finding("", Check.CHAIN, Verdict.FAILED, "the stream's pinned start is missing from the log"))
        return start

    async def _shard(self, shard: str) -> tuple[ShardLog, Followed]:
        seen: tuple[int, StoredCheckpoint | None] | None = None
        before = await self._evidence.checkpoint(shard)
        for _ in range(ATTEMPTS):
            log = await self._evidence.log(shard, self._scope.after)
            stored = await self._evidence.checkpoint(shard)
            followed, findings = chain.follow(log)
            if before != stored:
                # While a long chain was being read, units were sealed: the checkpoint may now name some that the read missed.
                findings += chain_checks.check_passed(log, followed, before)
            elif not (self._evidence.deletes_ended_checkpoints and stored is None and followed.end is not None):
                findings += chain_checks.check_checkpoint(log, followed, stored)
            if not findings or (followed.head, stored) == seen:
                break
            before, seen = stored, (followed.head, stored)
        self._state.findings += findings
        self._state.checked.update({Check.CHAIN: len(log.links), Check.SEAL: len(log.links), Check.CHECKPOINT: 1})
        return log, followed

    async def _all_units(self, units: Sequence[Link], files: Mapping[str, str]) -> None:
        self._state.units += len(units)
        for unit in {(unit.pipeline, unit.build): unit for unit in reversed(units)}.values():
            if why := await self._evidence.definition(unit):
                self._state.findings.append(self._failed(unit, Check.SEAL, why, unit.key))

        async def one(unit: Link) -> None:
            await (self._unit(unit) if self._scope.contents else self._presence(unit, files))
            self._state.examined += 1
            self._progress("units", self._state.examined, self._state.units)

        await run_concurrently((one(unit) for unit in units), AT_ONCE)

    async def _presence(self, unit: Link, files: Mapping[str, str]) -> None:
        areas = self._evidence.areas
        for file in objects.kept_files(unit):
            if file.sink not in areas or objects.former_place(unit, file.sink, areas) is not None:
                await self._body(unit, file)  # the sink's former location was not listed, since others may use it by now
                continue
            if areas[file.sink].url_of(file.key) not in files:
                await self._body(unit, file)  # it may have been written after the files were listed

    async def _unit(self, unit: Link) -> None:
        segment = await self._segment(unit)
        for file in (each for each in objects.kept_files(unit) if each.sink != LEDGER):
            body, url = await self._body(unit, file)
            if await self._evidence.compacted.has(unit, file) is False:
                why = "compactions took files that were sealed after this one, but not this: its rows are not in the compacted dataset"
                self._state.findings.append(self._failed(unit, Check.OBJECTS, why, url))
            separation = await self._evidence.separation(unit, file)
            if body is not None and segment is not None and separation is not None:
                self._state.findings += objects.check_rows(unit, segment, file, url, body, separation)

    async def _compactions(self) -> None:
        """Check the compacted datasets against the log."""
        scope = self._scope
        whole = scope.shard is None and not scope.after and scope.last is None
        check = CompactionCheck(
            self._evidence.compacted, self._compacted_unit, self._state.superseded, scope.names, contents=scope.contents, whole=whole
        )
        await check.run()
        self._state.findings += check.findings
        self._state.checked[Check.OBJECTS] += check.files

    async def _compacted_unit(self, shard: str, after: int) -> tuple[Link, Segment | None] | None:
        link = await self._evidence.unit(shard, after)
        if link is None or not link.sealed or link.ledger is None:
            return None
        # What is wrong with the ledger is found when the unit is checked.
        found = await self._evidence.read_file(link, link.ledger) if self._scope.contents else None
        try:
            return link, None if found is None or found[0] is None else read_segment(found[0])
        except SegmentError:
            return link, None

    async def _segment(self, unit: Link) -> Segment | None:
        ledger = unit.ledger
        if ledger is None:
            self._state.findings.append(self._failed(unit, Check.CONSERVATION, "the manifest lists no ledger segment", unit.key))
            return None
        body, url = await self._body(unit, ledger)
        if body is None:
            return None
        try:
            segment = read_segment(body)
        except SegmentError as error:
            self._state.findings.append(self._failed(unit, Check.CONSERVATION, str(error), url))
            return None
        self._state.checked[Check.CONSERVATION] += segment.frame.height
        self._state.findings += chain_checks.check_unit(unit, segment)
        self._state.hashes[unit.shard, unit.after] = segment.header.set_hash
        return segment

    async def _body(self, unit: Link, file: LedgerObject) -> tuple[bytes | None, str]:
        """The bytes of a file (None if they are not what the manifest says), and its URL."""
        found = await self._evidence.read_file(unit, file)
        if found is None:
            why = f"the pipeline has no sink {file.sink!r} now, so its files cannot be checked; verify with the pipeline file that had it"
            self._state.findings.append(Finding(unit.shard, Check.OBJECTS, Verdict.UNKNOWN, why, *unit.bounds, object=file.key))
            return None, ""
        body, url = found
        if body is None and (self._evidence.may_be_gone(unit, file) or await self._evidence.compacted.has(unit, file)):
            return None, url
        wrong = objects.check_file(unit, file, url, body)
        self._state.findings += wrong
        return (None if wrong else body), url

    async def _all_sources(self, shards: Sequence[str], units: Sequence[Link], logs: Mapping[str, tuple[ShardLog, Followed]]) -> None:
        before = self._state.read
        self._state.records += sum(unit.records for unit in units)
        for shard in shards:
            shard_units, followed = [unit for unit in units if unit.shard == shard], logs[shard][1]
            ended = followed.end is not None and followed.end.trigger != chain_checks.FOREIGN and self._scope.takes_end(followed.head)
            if not shard_units and not ended:
                continue
            records = self._evidence.reread(shard, followed.head, ended=ended)
            hashes = {start: SetHash.parse(text) for (name, start), text in self._state.hashes.items() if name == shard}

            def read(count: int, before: int = before) -> None:
                self._progress("records re-read", min(self._state.records, before + count), self._state.records)

            self._state.findings += await check_source(shard, shard_units, followed, hashes, records, self._evidence.horizon, read)
            before += sum(unit.records for unit in shard_units)
            self._state.checked[Check.SOURCE] += sum(unit.records for unit in shard_units)
        self._state.read = before

    async def _remove(self, found: Sequence[objects.UnlistedFile]) -> tuple[str, ...]:
        removed = []
        for file in found:
            if file.ours:
                await self._evidence.areas[file.sink].store.delete(file.key)
                removed.append(file.url)
        self._state.findings = [each for each in self._state.findings if each.object not in removed]
        return tuple(removed)

    def _failed(self, unit: Link, check: Check, why: str, key: str) -> Finding:
        return Finding(unit.shard, check, Verdict.FAILED, why, *unit.bounds, object=key)

    def _report(
        self, started: str, summaries: Sequence[ShardSummary], found: Sequence[objects.UnlistedFile], removed: tuple[str, ...]
    ) -> Report:
        findings = tuple(sorted(set(self._state.findings), key=lambda each: (each.shard, int(each.after or 0), each)))
        return Report(
            application=self._evidence.application,
            stream=self._evidence.stream,
            started_at=started,
            finished_at=self._clock.now().isoformat(),
            shards=tuple(summaries),
            checked=dict(sorted(self._state.checked.items())),
            findings=findings,
            leftovers=tuple(file.url for file in found if file.ours and file.url not in removed),
            removed=removed,
            verdict=verdict(findings),
            in_scope=self._state.in_scope,
        )

    def _summary(self, log: ShardLog, done: Followed) -> ShardSummary:
        outcomes: Counter[str] = Counter()
        for unit in done.units:
            outcomes.update(unit.outcomes)
        hashes = [self._state.hashes.get((log.shard, unit.after)) for unit in done.units]
        whole = sum((SetHash.parse(each) for each in hashes if each), SetHash())
        return ShardSummary(
            shard=log.shard,
            units=len(done.units),
            records=sum(unit.records for unit in done.units),
            outcomes=dict(sorted(outcomes.items())),
            last=str(done.head),
            ended=done.end is not None,
            open_unit=done.intent is not None,
            set_hash=whole.hex if all(hashes) else None,
        )


def _families(shards: Iterable[str]) -> list[list[str]]:
    """Groups chains by shard: each group has all generations of one shard."""
    found: dict[str, list[str]] = {}
    for name in shards:
        found.setdefault(shard_of_chain(name)[0], []).append(name)
    return list(found.values())


def _without(superseded: Container[tuple[str, int]], chain: Followed) -> Followed:
    return replace(chain, units=tuple(link for link in chain.units if (link.shard, link.after) not in superseded))


def _as_left_by_rewind(link: Link, superseded: Container[tuple[str, int]]) -> Link:
    """``link``; if it is a superseded unit, only with its ledger segment: a rewind deletes the other files."""
    if link.kind is not LinkKind.UNIT or (link.shard, link.after) not in superseded:
        return link
    return replace(link, files=tuple(file for file in link.files if file.sink == LEDGER))


def _genesis(log: ShardLog) -> Link | None:
    return next((link for link in log.links if link.kind is LinkKind.GENESIS), None)
