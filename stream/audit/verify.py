"""The proof, from outside, that every record between the start and the head of each shard ended exactly once, where the log says.

The service is not trusted: manifests, ledger, files, checkpoints and, as long as the stream still has them, the records themselves are
read again and compared with each other. Any of them that was lost, duplicated, moved or edited disagrees with another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeAlias

from stream.audit import chain, objects
from stream.audit.chain import Followed, Link, LinkKind, ShardLog, StoredCheckpoint
from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import LedgerObject, Segment, SegmentError, read_segment
from stream.audit.objects import Area
from stream.audit.report import Check, Finding, Report, ShardSummary, Verdict, verdict
from stream.audit.set_hash import SetHash
from stream.audit.source import Reread, check_source
from stream.batch import ORIGIN
from stream.contracts import Clock, shard_of_chain
from stream.together import a_few_at_once

AT_ONCE: Final = 8
"""Units examined at a time: reading takes most of the time, and each unit holds its files in memory meanwhile."""

LOOKS: Final = 3
"""How often to look again at a shard that is being worked on, whose log or checkpoint moves during the verification."""

Told: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


class Evidence(Protocol):
    """What the verifier may examine. ``horizon``: records that arrived earlier may have left the stream; None without a stream.

    ``tidied``: checkpoints of ended shards are removed once nobody needs them, so they may be missing. ``beside``: another stream of the
    application writes to the same places, and its own verification reports files that nobody lists.
    """

    application: str
    stream: str
    areas: Mapping[str, Area]
    horizon: datetime | None
    tidied: bool
    beside: bool

    async def shards(self) -> list[str]:
        """Ids of all shards that have a folder in the log."""
        ...

    async def log(self, shard: str, after: int = ORIGIN) -> ShardLog:
        """Everything in that folder; with ``after``, at least from the unit on that holds what follows it."""
        ...

    async def checkpoint(self, shard: str) -> StoredCheckpoint | None:
        """The checkpoint, or None."""
        ...

    async def stray_checkpoints(self, shards: Sequence[str]) -> list[str]:
        """Names of stored checkpoints that belong to none of ``shards``."""
        ...

    async def read_file(self, unit: Link, file: LedgerObject) -> tuple[bytes | None, str] | None:
        """The bytes of a file of ``unit`` (None: it does not exist) and its URL; None if the place of its sink is unknown."""
        ...

    def may_be_gone(self, unit: Link, file: LedgerObject) -> bool:
        """Whether a file of ``unit`` may have been removed on purpose, because a table has its rows."""
        ...

    async def of_another_stream(self, sink: str, key: str) -> bool:
        """Whether a file that no manifest of this stream lists belongs to another stream of the same application."""
        ...

    async def pinned_start(self) -> str | None:
        """The stream's pinned start, as ``Link.start`` would show it."""
        ...

    def reread(self, shard: str, until: int) -> AsyncIterator[Reread] | None:
        """The records of ``shard`` from its start up to ``until``, from the stream; None if the stream no longer has that shard."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """What to verify: of one shard or of all, the chain after ``after``, and files and records of units that overlap ``(after, last]``.

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

    def overlaps(self, after: int, last: int) -> bool:
        """Whether a unit ``(after, last]`` is to be checked."""
        return last > self.after and (self.last is None or after < self.last)

    def names(self, chain: str, after: int, last: int) -> bool:
        """Whether files of that unit of ``chain`` are to be listed."""
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
    """Set hash of each unit of the shard in hand whose ledger could be read, by shard and start."""
    units: int = 0
    looked_at: int = 0
    records: int = 0
    read: int = 0
    in_scope: int = 0


@dataclass(frozen=True, slots=True)
class _Family:
    """What came of all generations of one shard. ``chains``: the first link of each and an outline."""

    chains: Mapping[str, tuple[Link | None, Followed]]
    summaries: Sequence[ShardSummary]
    strays: Sequence[objects.Stray]


class Verifier:
    """One verification of one application's log of one stream."""

    def __init__(self, evidence: Evidence, scope: Scope, clock: Clock, told: Told = lambda _what, _done, _total: None) -> None:
        self._evidence = evidence
        self._scope = scope
        self._clock = clock
        self._told = told
        self._state = _State()

    async def run(self, *, repair: bool = False) -> Report:
        """Check everything in scope; with ``repair``, then remove the leftovers that are certainly this log's.

        Raises:
            Fatal: a store cannot be read at all.
            Retryable: a store kept failing.
        """
        evidence, state = self._evidence, self._state
        started = self._clock.now().isoformat()
        # Before the log is read: whatever is listed already had its intent.
        files = await objects.list_files(evidence.areas.values(), evidence.stream, self._scope.names)
        state.checked[Check.OBJECTS] += sum(map(len, files.values()))
        shards = await evidence.shards()
        for name in await evidence.stray_checkpoints(shards):
            shard = next((each for each in shards if each in name), "")
            why = "the checkpoint belongs to a shard that has no log"
            state.findings.append(Finding(shard, Check.CHECKPOINT, Verdict.FAILED, why, "0" if shard else "", object=name))
        groups = _families(shard for shard in shards if self._scope.family in {None, shard_of_chain(shard)[0]})
        done = [await self._family(group, files) for group in groups]
        state.findings += chain.check_family({name: each for one in done for name, each in one.chains.items()}, await self._start(shards))
        found = [stray for one in done for stray in one.strays]
        if self._scope.shard is None:
            found += await self._strays({url: sink for some in files.values() for url, sink in some.items()}, ())
        state.findings += objects.stray_findings(found)
        removed = await self._remove(found) if repair else ()
        return self._report(started, [row for one in done for row in one.summaries], found, removed)

    async def _family(self, names: Sequence[str], files: dict[str, dict[str, str]]) -> _Family:
        """Check all generations of one shard. Of their links nothing stays in memory: all shards together may have millions.

        Files that they list are taken out of ``files``, with others whose names speak of them.
        """
        logs = {name: await self._shard(name) for name in names}
        chains = {name: (_genesis(log), chain.outline(done)) for name, (log, done) in logs.items()}
        links = [link for log, _ in logs.values() for link in log.links]
        gone = chain.superseded({name: done for name, (_, done) in logs.items()})
        logs = {name: (log, _without(gone, done)) for name, (log, done) in logs.items()}
        links = [_taken_back(link) if (link.shard, link.after) in gone and link.kind is LinkKind.UNIT else link for link in links]
        chosen = [name for name in names if self._scope.shard in {None, name}]
        taken = [link for name in chosen for link in logs[name][1].units if self._scope.takes(link)]
        ends = [end for name in chosen for end in (logs[name][1].end, logs[name][1].rewind) if end is not None]
        self._state.findings += chain.notes([*taken, *ends])
        self._state.findings += chain.gap_findings(link for link in taken if link.kind is LinkKind.GAP)
        units = [link for link in taken if link.kind is LinkKind.UNIT]
        own = {url: sink for name in names for url, sink in files.pop(name, {}).items()}
        await self._all_units(units, own)
        listed = objects.listed_in(links, self._evidence.areas)
        strays = await self._strays({url: sink for url, sink in own.items() if url not in listed}, links)
        for url in listed - own.keys():
            files.get("", {}).pop(url, None)
        if self._scope.source:
            await self._all_sources(chosen, units, logs)
        self._state.in_scope += sum(link.records for link in taken)
        summaries = [self._summary(*logs[name]) for name in chosen]
        self._state.hashes.clear()
        return _Family(chains, summaries, strays)

    async def _strays(self, files: Mapping[str, str], links: Sequence[Link]) -> list[objects.Stray]:
        """``files`` that no manifest lists, of any stream of the application: several streams may write to one place."""
        found = objects.strays(files, links, self._evidence.areas, self._evidence.stream)
        if self._evidence.beside:
            found = [stray for stray in found if stray.ours or stray.sink in objects.WITH_THE_LOG]
        elsewhere: set[str] = set()

        async def look(stray: objects.Stray) -> None:
            if await self._evidence.of_another_stream(stray.sink, stray.key):
                elsewhere.add(stray.url)

        await a_few_at_once([look(stray) for stray in found], AT_ONCE)
        return [stray for stray in found if stray.url not in elsewhere]

    async def _start(self, shards: Sequence[str]) -> str | None:
        start = await self._evidence.pinned_start()
        if start is None and shards:
            self._state.findings.append(Finding("", Check.CHAIN, Verdict.FAILED, "the stream's pinned start is missing from the log"))
        return start

    async def _shard(self, shard: str) -> tuple[ShardLog, Followed]:
        seen: tuple[int, StoredCheckpoint | None] | None = None
        before = await self._evidence.checkpoint(shard)
        for _ in range(LOOKS):
            log = await self._evidence.log(shard, self._scope.after)
            stored = await self._evidence.checkpoint(shard)
            followed, findings = chain.follow(log)
            if before != stored:
                # Reading a long chain takes longer than sealing a unit: by now the checkpoint may name units that did not exist before.
                findings += chain.check_passed(log, followed, before)
            elif not (self._evidence.tidied and stored is None and followed.end is not None):
                findings += chain.check_checkpoint(log, followed, stored)
            if not findings or (followed.head, stored) == seen:
                break
            before, seen = stored, (followed.head, stored)
        self._state.findings += findings
        self._state.checked.update({Check.CHAIN: len(log.links), Check.SEAL: len(log.links), Check.CHECKPOINT: 1})
        return log, followed

    async def _all_units(self, units: Sequence[Link], files: Mapping[str, str]) -> None:
        self._state.units += len(units)

        async def one(unit: Link) -> None:
            await (self._unit(unit) if self._scope.contents else self._presence(unit, files))
            self._state.looked_at += 1
            self._told("units", self._state.looked_at, self._state.units)

        await a_few_at_once((one(unit) for unit in units), AT_ONCE)

    async def _presence(self, unit: Link, files: Mapping[str, str]) -> None:
        areas = self._evidence.areas
        for file in objects.kept_files(unit):
            if file.sink not in areas or objects.former_place(unit, file.sink, areas) is not None:
                await self._body(unit, file)  # that place was not listed, since somebody else may use it by now
                continue
            if areas[file.sink].url_of(file.key) not in files:
                await self._body(unit, file)  # it may have been written since the files were listed

    async def _unit(self, unit: Link) -> None:
        segment = await self._segment(unit)
        for file in objects.kept_files(unit):
            if file.sink == LEDGER:
                continue
            body, url = await self._body(unit, file)
            if body is not None and segment is not None and file.key.endswith(".parquet"):
                place = next((n for n, item in enumerate(segment.header.objects) if (item.sink, item.key) == (file.sink, file.key)), None)
                if place is not None:
                    self._state.findings += objects.check_rows(unit, segment, place, url, body)

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
        self._state.findings += chain.check_unit(unit, segment)
        self._state.hashes[unit.shard, unit.after] = segment.header.set_hash
        return segment

    async def _body(self, unit: Link, file: LedgerObject) -> tuple[bytes | None, str]:
        """The bytes of a file if they are what the manifest says, and its URL."""
        found = await self._evidence.read_file(unit, file)
        if found is None:
            why = f"the pipeline has no sink {file.sink!r} now, so its files cannot be checked; verify with the pipeline file that had it"
            self._state.findings.append(Finding(unit.shard, Check.OBJECTS, Verdict.UNKNOWN, why, *unit.bounds, object=file.key))
            return None, ""
        body, url = found
        if body is None and self._evidence.may_be_gone(unit, file):
            return None, url
        wrong = objects.check_file(unit, file, url, body)
        self._state.findings += wrong
        return (None if wrong else body), url

    async def _all_sources(self, shards: Sequence[str], units: Sequence[Link], logs: Mapping[str, tuple[ShardLog, Followed]]) -> None:
        before = self._state.read
        self._state.records += sum(unit.records for unit in units)
        for shard in shards:
            own = [unit for unit in units if unit.shard == shard]
            if not own:
                continue
            records = self._evidence.reread(shard, logs[shard][1].head)
            hashes = {start: SetHash.parse(text) for (name, start), text in self._state.hashes.items() if name == shard}

            def read(count: int, before: int = before) -> None:
                self._told("records re-read", min(self._state.records, before + count), self._state.records)

            self._state.findings += await check_source(own, hashes, records, self._evidence.horizon, read)
            before += sum(unit.records for unit in own)
            self._state.checked[Check.SOURCE] += sum(unit.records for unit in own)
        self._state.read = before

    async def _remove(self, found: Sequence[objects.Stray]) -> tuple[str, ...]:
        removed = []
        for stray in found:
            if stray.ours:
                await self._evidence.areas[stray.sink].store.delete(stray.key)
                removed.append(stray.url)
        self._state.findings = [each for each in self._state.findings if each.object not in removed]
        return tuple(removed)

    def _failed(self, unit: Link, check: Check, why: str, key: str) -> Finding:
        return Finding(unit.shard, check, Verdict.FAILED, why, *unit.bounds, object=key)

    def _report(self, started: str, summaries: Sequence[ShardSummary], found: Sequence[objects.Stray], removed: tuple[str, ...]) -> Report:
        findings = tuple(sorted(set(self._state.findings)))
        return Report(
            application=self._evidence.application,
            stream=self._evidence.stream,
            started_at=started,
            finished_at=self._clock.now().isoformat(),
            shards=tuple(summaries),
            checked=dict(sorted(self._state.checked.items())),
            findings=findings,
            leftovers=tuple(stray.url for stray in found if stray.ours and stray.url not in removed),
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
    """Chains by the shard whose generations they are."""
    found: dict[str, list[str]] = {}
    for name in shards:
        found.setdefault(shard_of_chain(name)[0], []).append(name)
    return list(found.values())


def _without(gone: Container[tuple[str, int]], done: Followed) -> Followed:
    return replace(done, units=tuple(link for link in done.units if (link.shard, link.after) not in gone))


def _taken_back(link: Link) -> Link:
    """The unit as a rewind leaves it: its ledger segment tells what had become of the records, its other files are gone."""
    return replace(link, files=tuple(file for file in link.files if file.sink == LEDGER))


def _genesis(log: ShardLog) -> Link | None:
    return next((link for link in log.links if link.kind is LinkKind.GENESIS), None)


def horizon(now: datetime, retention: timedelta) -> datetime:
    """Records that arrived before this may have left the stream; an hour is allowed for clocks and for arrival times being approximate."""
    return now - retention + timedelta(hours=1)
