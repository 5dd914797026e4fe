"""Workers around the production commit code, and the scheduler that disturbs them. ``stream.simulation.promises`` judges the result."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from stream.batch import ORIGIN, SeqRange
from stream.commit import protocol
from stream.commit.committer import Committer, Head, RenderedUnit, checkpoint_of, head_after
from stream.commit.foreign import admit_foreign
from stream.commit.log import CommitLog
from stream.commit.manifest import FileEntry, Kind, Manifest, State, decode
from stream.commit.naming import manifest_key, sha256_hex, unit_name
from stream.commit.places import Places
from stream.commit.recovery import recover
from stream.commit.retry import Repeater
from stream.commit.rewind import history, rewind_link, skip_link
from stream.contracts import Checkpoint, OutputFile, Reached, Shard, Start, StartKind, shard_of_chain
from stream.errors import LeaseLost, Superseded
from stream.simulation.places import Bucket, SimulatedStore, at_once, prefix_of, tag_of
from stream.simulation.promises import FOREIGN_END, Judgement, leftovers
from stream.simulation.virtual_time import EPOCH
from tests.simulation.world import FATES, Call, Chooser, Records, StandingClock, Stepped, StoredRows, Version, body_of, outcome_of

STREAM = "s"
LOG, DATA = "sim:log", "sim:data/"
NOTHING = lambda event: None  # noqa: E731


@dataclass
class World:
    """Everything outside the workers.

    ``sinks``: name and folder of a definition's sink, if it is not the one that all share. ``mutant`` names a fault built into the
    workers on purpose, which the oracle must find.
    """

    chooser: Chooser
    shards: dict[str, Records]
    parents: dict[str, tuple[str, ...]]
    mutant: str = ""
    bucket: Bucket = field(default_factory=lambda: Bucket(clock=StandingClock()))
    writes: list[tuple[str, str]] = field(default_factory=list)
    late: list[Callable[[], Any]] = field(default_factory=list)
    checkpoints: StoredRows = field(default_factory=StoredRows)
    processes: list[Stepped] = field(default_factory=list)
    ends: set[str] = field(default_factory=set)
    started: int = 0
    moving: bool = False
    moved: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    sinks: dict[int, tuple[str, str]] = field(default_factory=dict)
    claims: defaultdict[str, set[Reached]] = field(default_factory=lambda: defaultdict(set))
    """How far another application has got in each shard, each time it said so."""
    skips: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    rewinds: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Where operators wanted to skip to, and to rewind to."""
    tips: set[tuple[str, int, datetime]] = field(default_factory=set)
    """Up to when everything was said to be committed, by chain and position."""

    def sink(self, definition: int) -> tuple[str, str]:
        """Name and folder of the definition's sink."""
        return self.sinks.get(definition, ("data", ""))

    def store(self, url: str, process: Stepped) -> SimulatedStore:
        """The store at ``url`` as ``process`` sees it."""
        kind = Overwriting if url == LOG and self.mutant == "no_create_only" else SimulatedStore
        return kind(self.bucket, url, process, self.touched)

    def touched(self, what: str, key: str) -> None:
        self.writes.append((what, key))
        if key.startswith(f"{prefix_of(LOG)}commits/") and b'"kind":"end"' in (self.body(key) or b""):
            self.ends.add(shard_of_chain(key.split("/")[-2])[0])

    def body(self, key: str) -> bytes | None:
        """The object at the full ``key``."""
        found = self.bucket._objects.get(key)
        return None if found is None else found.body

    def start(self, shard_id: str, version: Version) -> Stepped:
        return self._begin("w", worker, shard_id, version)

    def operate(self, shard_id: str, version: Version) -> None:
        """An operator begins to move the shard."""
        self.moved["operator"] += 1
        self._begin("o", operator, shard_id, version)

    def _begin(self, kind: str, life: Any, shard_id: str, version: Version) -> Stepped:
        self.started += 1
        process = Stepped(f"{kind}{self.started}", self.late)
        process.coroutine = life(self, bench(self, process, shard_id, version))
        self.processes.append(process)
        process.advance(None)
        return process

    def foreign(self, shard_id: str) -> None:
        """A Java KCL on the same lease checkpoints somewhere in the shard, perhaps inside an aggregate, perhaps its end."""
        records = self.shards[shard_id]
        row = self.checkpoints.rows.get(shard_id) or Checkpoint(ORIGIN, 0, ORIGIN)
        ahead = records.after(row.position or ORIGIN)
        if row.position is None or not ahead:
            return
        self.moved["foreign"] += 1
        which = self.chooser.pick(len(ahead) + 1, "foreign")
        reached = Reached(None, 0) if which == len(ahead) else Reached(ahead[which], self.chooser.pick(records.sizes[ahead[which]], "sub"))
        self.claims[shard_id].add(reached)
        self.checkpoints.rows[shard_id] = replace(row, foreign=reached)

    def mislead(self) -> None:
        """The checkpoint of some shard is lost, an older one, one that somebody set back, or names another link than the one before it."""
        rows = self.checkpoints.rows
        shard_id = sorted(rows)[self.chooser.pick(len(rows), "shard")]
        what = ("lost", "older", "set_back", "elsewhere")[self.chooser.pick(4, "hint")]
        self.faults[what] += 1
        match what:
            case "lost":
                del rows[shard_id]
            case "older":
                before = self.checkpoints.stored[shard_id] or [rows[shard_id]]
                rows[shard_id] = before[self.chooser.pick(len(before), "older")]
            case "set_back":
                rows[shard_id] = replace(rows[shard_id], set_back="1")
            case _:
                others = (ORIGIN, rows[shard_id].position or ORIGIN, *self.shards[shard_id].after(ORIGIN), rows[shard_id].unit_after + 1)
                rows[shard_id] = replace(rows[shard_id], unit_after=others[self.chooser.pick(len(others), "elsewhere")])

    def ended(self, shard_id: str) -> bool:
        return shard_id in self.ends

    def children(self, shard_id: str) -> tuple[str, ...]:
        return tuple(sorted(child for child, parents in self.parents.items() if shard_id in parents))


def manifests(world: World) -> list[tuple[str, Manifest]]:
    folder = f"{prefix_of(LOG)}commits/"
    found = {key.removeprefix(prefix_of(LOG)): body for _, key in world.writes if key.startswith(folder) and (body := world.body(key))}
    return [(key, decode(body, key)) for key, body in sorted(found.items())]


class Overwriting(SimulatedStore):
    """Creates objects that exist already, as a store does that ignores `If-None-Match`."""

    async def create(self, key: str, body: bytes) -> str | None:
        await self.put(key, body)
        return tag_of(body)


async def one_by_one(world: World, calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """The committer's file writes in some order: which of them happen before a kill is part of the schedule."""
    remaining = list(calls)
    try:
        while remaining:
            await remaining.pop(world.chooser.pick(len(remaining), "order"))
    finally:
        for call in remaining:
            call.close()


class MutantCommitter(Committer):
    """The committer with one step done wrongly: the oracle must notice."""

    mutant = ""
    unwritten: tuple[FileEntry, ...] = ()

    async def _carry_out(self, todo: protocol.Instruction, work: Any) -> protocol.Event:
        match self.mutant, todo:
            case "no_seal", protocol.Replace(manifest, etag) if manifest.sealed:
                await super()._carry_out(protocol.ReadManifest(), work)
                return protocol.Replaced(etag)
            case "blind_seal", protocol.Replace(manifest, _) if manifest.sealed:
                key = manifest_key(work.shard.stream, work.shard.shard_id, work.after)
                latest = tag_of(at_once(self.log.store._bucket.get(prefix_of(LOG) + key)).body)
                return await super()._carry_out(protocol.Replace(manifest, latest), work)
            case "seal_before_write", protocol.Write(files):
                self.unwritten = files
                return protocol.Written()
            case "delete_before_seal", protocol.Write(_) if work.entry is not None:
                await self._concurrently([self._delete(work, entry) for entry in work.entry.manifest.superseded])
            case "unpinned", protocol.Render(manifest):
                return await self._render_with_own_definition(manifest, work)
            case _:
                pass
        event = await super()._carry_out(todo, work)
        if self.unwritten and isinstance(todo, protocol.Replace) and isinstance(event, protocol.Replaced):
            await self._concurrently([self._write(work, work.bodies[e]) for e in self.unwritten if e in work.bodies])
        return event

    async def _render_with_own_definition(self, manifest: Manifest, work: Any) -> protocol.Event:
        rendered = await work.render(manifest)
        mine = {file.key.split("/")[0]: file.body for file in rendered.files}
        for entry in manifest.files:
            body = mine.get(entry.key.split("/")[0], b"[]")
            work.bodies[entry] = OutputFile(entry.sink, entry.key, body, entry.rows, entry.sha256)
        return protocol.Rendered(manifest)


@dataclass
class Row:
    """The checkpoints as one worker sees them: ``seen`` is what it read last. What it stores must be where a sealed link ends."""

    world: World
    seen: Checkpoint | None = None

    async def read(self, shard: Shard) -> Checkpoint | None:
        self.seen = await self.world.checkpoints.read(shard)
        return self.seen

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        found = self._link(shard.shard_id, checkpoint.generation, checkpoint.unit_after)
        ends = found is not None and found.sealed and _as_checkpoint(found) == replace(checkpoint, tip=None, foreign=None, set_back="")
        if not ends and self.world.mutant != "checkpoint_before_write":
            assert checkpoint.generation, f"{checkpoint} of {shard.shard_id} is where no sealed link ends"
            rewind = self._rewind(shard.shard_id, checkpoint.generation - 1)
            assert rewind is not None, f"{checkpoint} of {shard.shard_id} is where no sealed link ends and no rewind leads to"
            wanted = Checkpoint(int(rewind.target or 0), rewind.subsequence, int(rewind.target or 0), generation=checkpoint.generation)
            assert wanted == replace(checkpoint, tip=None, foreign=None, set_back=""), (
                f"{checkpoint} of {shard.shard_id}, and the rewind says {wanted}"
            )
        await self.world.checkpoints.advance(shard, checkpoint)

    def _link(self, shard_id: str, generation: int, after: int) -> Manifest | None:
        key = manifest_key(STREAM, Shard(STREAM, shard_id, generation=generation).chain, after)
        body = self.world.body(prefix_of(LOG) + key)
        return None if body is None else decode(body, key)

    def _rewind(self, shard_id: str, generation: int) -> Manifest | None:
        chain = Shard(STREAM, shard_id, generation=generation).chain
        links = [manifest for _, manifest in manifests(self.world) if manifest.shard == chain]
        return next((link for link in links if link.kind is Kind.REWIND and link.sealed), None)


def _as_checkpoint(link: Manifest) -> Checkpoint:
    """Where a checkpoint at the end of ``link`` is, by the docstring of ``Checkpoint`` and not by the code that makes one."""
    position = None if link.kind is Kind.END else int(link.last or 0)
    record = link.kind in {Kind.UNIT, Kind.END}
    return Checkpoint(position, link.subsequence, int(link.after), record=record, generation=shard_of_chain(link.shard)[1])


@dataclass
class Bench:
    """What a worker or an operator works with: the production log and committer over the world's stores."""

    log: CommitLog
    committer: Committer
    repeat: Repeater
    row: Row
    world: World
    shard_id: str
    version: Version

    def shard(self, generation: int = 0) -> Shard:
        return Shard(STREAM, self.shard_id, self.world.parents.get(self.shard_id, ()), generation=generation)

    async def render_again(self, manifest: Manifest) -> RenderedUnit:
        await Call("read_stream")
        pinned = self.version.definition if self.world.mutant == "unpinned" else int(manifest.pipeline)
        version = Version(pinned, self.version.build)
        mutant = "" if self.world.mutant == "cut_inside_aggregate" else self.world.mutant
        return render(self.world.shards[self.shard_id], manifest, version, self.world.sink(pinned), mutant)

    async def children(self) -> tuple[str, ...]:
        return self.world.children(self.shard_id)

    async def recovered(self) -> tuple[Shard, Head]:
        """The newest generation and its head, with what other applications did recorded: all that the checkpoint said of them."""
        shard, head = await self._recovered()
        row = self.row.seen
        reached = None if row is None else row.foreign
        if reached is not None and not head.ended:
            assert reached.position is not None, (
                f"{self.shard_id} goes on at {head.position}, and another application has read it to its end"
            )
            assert reached.position <= head.position + 1, f"{self.shard_id} goes on at {head.position}, before {reached}"
            partly = reached.subsequence if reached.position == head.position + 1 else -1
            assert partly in {-1, head.foreign_subsequence}, f"{self.shard_id} at {head.position}: {head.foreign_subsequence} of {reached}"
        return shard, head

    async def _recovered(self) -> tuple[Shard, Head]:
        shard, start = self.shard(), Start(StartKind.TRIM_HORIZON)
        hinted, genesis = await self._hinted(shard), None
        if hinted.generation:
            genesis = await self.repeat("read chain", shard, lambda: self.log.genesis(hinted))
        if genesis is None:
            genesis = await self.repeat("open chain", shard, lambda: self.log.open_chain(shard, start))
        else:
            shard = hinted
        while True:
            head = await recover(self.committer, shard, genesis, self.render_again)
            self._check_hints(shard, head)
            if head.target is None:
                try:
                    head = await admit_foreign(self.committer, shard, head, self.children, self.render_again)
                except Superseded:
                    continue
            if head.target is None:
                return shard, head
            shard = self.shard(shard.generation + 1)
            genesis = await self.repeat("open chain", shard, partial(self.log.open_chain, shard, start, head.target, head.previous))

    async def _hinted(self, shard: Shard) -> Shard:
        """The generation that the checkpoint names, with which a worker begins (``open_newest``); or the first, which leads to it."""
        row = await self.repeat("read checkpoint", shard, lambda: self.row.read(shard))
        by_hint = row is not None and self.world.chooser.pick(2, "hint") == 0
        return replace(shard, generation=row.generation) if row is not None and by_hint else shard

    def _check_hints(self, shard: Shard, head: Head) -> None:
        if head.complete_until is not None:
            said = (shard.chain, head.position, head.complete_until)
            assert said in self.world.tips, f"{said}: nobody said that everything was committed up to then"
        found, row = self.row.seen, self.world.checkpoints.rows.get(self.shard_id)
        if found is not None and found.set_back and head.target is None and head.foreign is None and head.checkpoint is not None:
            assert row is not None
            assert not row.set_back, f"{self.shard_id}: the checkpoint that somebody set back was left as it is"


def bench(world: World, process: Stepped, shard_id: str, version: Version) -> Bench:
    clock, name = StandingClock(), process.name
    log = CommitLog(world.store(LOG, process), "app", clock, name)
    kind = MutantCommitter if world.mutant else Committer
    name_of_sink, folder = world.sink(version.definition)

    def place(url: str) -> SimulatedStore:
        return world.store(url, process)

    places = Places({name_of_sink: place(DATA + folder), "ledger": place(DATA)}, place)
    row = Row(world)
    committer = kind(log, places, row, clock, NOTHING, name, lambda calls: one_by_one(world, calls))
    if isinstance(committer, MutantCommitter):
        committer.mutant = world.mutant
    return Bench(log, committer, Repeater(clock, NOTHING), row, world, shard_id, version)


async def worker(world: World, tools: Bench) -> None:
    """What worker/shards/shard.py does, with a toy stream and a toy transform around the production commit code."""
    shard_id, version = tools.shard_id, tools.version
    records = world.shards[shard_id]
    while True:
        shard, head = await tools.recovered()
        with suppress(Superseded):
            while head.open:
                if world.chooser.pick(8, "tip") == 7 and head.checkpoint is not None:
                    tip = EPOCH + timedelta(seconds=len(world.tips))
                    world.tips.add((shard.chain, head.position, tip))
                    head = await tools.committer.note_tip(shard, head, tip)
                remaining = records.after(head.position)
                if not remaining:
                    head = await tools.committer.end(shard, head, world.children(shard_id))
                    break
                last = remaining[world.chooser.pick(min(3, len(remaining)), "cut")]
                frame = blank(shard.chain, SeqRange(head.position, last), head.previous, head.foreign_subsequence)
                unit = render(records, frame, version, world.sink(version.definition), world.mutant)
                if world.mutant == "checkpoint_before_write":
                    await tools.committer.checkpoint(shard, checkpoint_of(unit.manifest))
                head = head_after(await tools.committer.commit(shard, unit, tools.render_again))
        if head.ended:
            return


async def operator(world: World, tools: Bench) -> None:
    """What an operator does: recover the chain up to its head, then rewind or skip, unless a worker is faster."""

    async def never(_manifest: Manifest) -> RenderedUnit:
        raise LeaseLost("a unit is in the way")

    shard, head = await tools.recovered()
    if head.ended:
        return
    known = await tools.repeat("read history", shard, lambda: history(tools.log, shard))
    ahead = world.shards[tools.shard_id].after(head.position)
    if world.chooser.pick(3, "operation") == 0 and ahead:
        last = ahead[world.chooser.pick(min(2, len(ahead)), "skip")]
        world.skips[tools.shard_id].add(last)
        link = skip_link(tools.log, shard, head, last, "", "")
    else:
        targets = sorted({ORIGIN, *(each.reach for each in known.links)} - {head.position})
        if not targets or known.shard != replace(shard, parents=known.shard.parents) or known.head != head.position:
            return
        target = targets[world.chooser.pick(len(targets), "target")]
        world.rewinds[tools.shard_id].add(target)
        link = rewind_link(tools.log, known, head, target, "", "")
    await tools.committer.commit(shard, RenderedUnit(link, ()), never)


def blank(chain: str, span: SeqRange, previous: str, foreign_subsequence: int = -1) -> Manifest:
    """A unit's manifest before anything was made of its records."""
    return Manifest(
        kind=Kind.UNIT,
        state=State.INTENT,
        application="app",
        stream=STREAM,
        shard=chain,
        after=str(span.after),
        last=str(span.last),
        previous=previous,
        foreign_subsequence=foreign_subsequence,
    )


def render(records: Records, frame: Manifest, version: Version, place: tuple[str, str], mutant: str = "") -> RenderedUnit:
    """The toy transform: rows to partitions ``a`` and ``b``, a ledger of what became of each, all named by content."""
    sink, folder = place
    span, name = frame.span, unit_name(frame.shard, frame.span)
    rows = records.within(span.after, span.last)
    if mutant == "cut_inside_aggregate" and len(rows) > 1 and rows[-1][1] > 0:
        rows = rows[:-1]
    foreign = {row for row in rows if row[0] == span.after + 1 and row[1] <= frame.foreign_subsequence}
    fates = {row: "foreign" if row in foreign else outcome_of(row, version.definition, version.build) for row in rows}
    files = []
    for partition in ("a", "b"):
        chosen = [row for row in rows if fates[row] == partition]
        if chosen:
            files.append(_file(sink, f"{partition}/{name}", body_of(chosen), len(chosen), mutant))
    ledger = json.dumps([[*row, fate] for row, fate in sorted(fates.items())]).encode()
    files.append(_file("ledger", f"ledger/{name}", ledger, len(rows), mutant))
    outcomes = Counter(fate if fate in UNWRITTEN else "written" for fate in fates.values())
    manifest = msgspec.structs.replace(
        frame,
        state=State.INTENT,
        pipeline=str(version.definition),
        build=str(version.build),
        subsequence=rows[-1][1] if rows and rows[-1][0] == span.last else 0,
        records=len(rows),
        outcomes=dict(sorted(outcomes.items())),
        files=tuple(FileEntry.of(file) for file in files),
        superseded=(),
        targets={sink: DATA + folder},
    )
    return RenderedUnit(manifest, tuple(files))


UNWRITTEN = ("filtered", "foreign")


def _file(sink: str, stem: str, body: bytes, rows: int, mutant: str) -> OutputFile:
    sha256 = sha256_hex(body)
    return OutputFile(sink, stem if mutant == "same_names" else f"{stem}-{sha256[:16]}", body, rows, sha256)


# --- running ------------------------------------------------------------------------------------------------------------------


def run_schedule(world: World, versions: Sequence[Version], steps: int, settle_steps: int = 4000) -> None:
    """``steps`` with faults, then none: the workers that are left continue, and new ones finish the job."""
    for _ in range(steps):
        _disturb(world, versions)
        _step(world, faults=True)
    for number in range(settle_steps):
        if _complete(world):
            break
        if number % 40 == 0:
            _start_missing(world, versions)
        _step(world, faults=False)
    else:
        raise AssertionError(f"not complete after {settle_steps} steps without faults")
    while world.processes or world.late:
        if not _step(world, faults=False):
            break


def _disturb(world: World, versions: Sequence[Version]) -> None:
    choice = world.chooser.pick(12, "disturb")
    if (choice < 2 and len(world.processes) < 4) or not world.processes:
        ready = _ready(world)
        if ready:
            world.start(ready[world.chooser.pick(len(ready), "shard")], versions[world.chooser.pick(len(versions), "version")])
    elif choice == 2 and world.processes:
        world.faults["kill"] += 1
        world.processes.pop(world.chooser.pick(len(world.processes), "victim")).kill()
    elif choice == 3:
        world.chooser.pick(2, "late") and _deliver_late_write(world)
    elif choice in {4, 5, 6, 7} and world.moving and (ready := [shard for shard in _ready(world) if not world.ended(shard)]):
        shard = ready[world.chooser.pick(len(ready), "shard")]
        if choice != 5:
            world.operate(shard, versions[world.chooser.pick(len(versions), "version")])
        else:
            world.foreign(shard)
    elif choice == 8 and world.checkpoints.rows:
        world.mislead()


def _step(world: World, *, faults: bool) -> bool:
    world.processes = [process for process in world.processes if not process.finished]
    if not world.processes:
        return _deliver_late_write(world)
    process = world.processes[world.chooser.pick(len(world.processes), "worker")]
    fate = FATES[world.chooser.pick(len(FATES), "fate")] if faults else None
    if fate is not None:
        world.faults[fate] += 1
    process.advance(fate)
    if not faults and world.chooser.pick(4, "late") == 0:
        _deliver_late_write(world)
    return True


def _deliver_late_write(world: World) -> bool:
    if world.late:
        world.late.pop(world.chooser.pick(len(world.late), "which"))()
        return True
    return False


def _ready(world: World) -> list[str]:
    return [shard for shard in world.shards if all(world.ended(parent) for parent in world.parents.get(shard, ()))]


def _complete(world: World) -> bool:
    return all(world.ended(shard) for shard in world.shards)


def _start_missing(world: World, versions: Sequence[Version]) -> None:
    for shard in _ready(world):
        if not world.ended(shard) and len(world.processes) < 6:
            world.start(shard, versions[world.chooser.pick(len(versions), "version")])


# --- the truth ----------------------------------------------------------------------------------------------------------------


@dataclass
class Known:
    """A ``Truth`` about the world."""

    world: World
    stream: str = STREAM

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        return {shard: self.world.parents.get(shard, ()) for shard in self.world.shards}

    def records(self, shard_id: str) -> list[int]:
        return self.world.shards[shard_id].after(ORIGIN)

    def closed(self, shard_id: str) -> bool:
        return True

    def unasked(self, shard_id: str, link: Manifest) -> str:
        claims, what = self.world.claims[shard_id], f"the `{link.kind}` link after {link.after}"
        match link.kind:
            case Kind.FOREIGN if Reached(link.reach + 1, link.foreign_subsequence) not in claims:
                return f"{what} ends at {link.last}:{link.foreign_subsequence}, where no other application was"
            case Kind.UNIT if link.foreign_subsequence >= 0 and Reached(int(link.after) + 1, link.foreign_subsequence) not in claims:
                return f"{what} leaves out {link.foreign_subsequence + 1} user records that no other application had processed"
            case Kind.END if link.trigger == FOREIGN_END and Reached(None, 0) not in claims:
                return f"{what} says that another application read the rest, and none did"
            case Kind.END if link.children != self.world.children(shard_id):
                return f"{what} names the children {link.children}, and they are {self.world.children(shard_id)}"
            case Kind.SKIP if link.reach not in self.world.skips[shard_id]:
                return f"{what} ends at {link.last}, where no operator skipped to"
            case Kind.REWIND if int(link.target or 0) not in self.world.rewinds[shard_id]:
                return f"{what} goes back to {link.target}, and no operator asked for that"
            case Kind.REWIND if link.target != "0" and link.subsequence not in self._subsequences(shard_id, int(link.target or 0)):
                return f"{what} goes back to {link.target}:{link.subsequence}, and no unit ends there"
            case Kind.GAP:
                return f"{what} is there, and nothing expired"
            case _:
                return ""

    def _subsequences(self, shard_id: str, position: int) -> set[int]:
        """The user records with which links of the shard end at ``position``."""
        links = [link for _, link in manifests(self.world) if shard_of_chain(link.shard)[0] == shard_id and link.last is not None]
        return {link.subsequence for link in links if link.reach == position}

    def expected(self, manifest: Manifest, records: Sequence[int]) -> tuple[frozenset[tuple[str, str, str]], dict[str, int]]:
        version = Version(int(manifest.pipeline), int(manifest.build))
        shard_id = shard_of_chain(manifest.shard)[0]
        # Names are not what is wrong with files that share one.
        mutant = "same_names" if self.world.mutant == "same_names" else ""
        unit = render(self.world.shards[shard_id], manifest, version, self.world.sink(version.definition), mutant)
        return frozenset((file.sink, file.key, file.sha256) for file in unit.files), unit.manifest.outcomes

    def place(self, manifest: Manifest, entry: FileEntry) -> str:
        return prefix_of(manifest.targets.get(entry.sink, DATA)) + entry.key

    def spelled(self, shard_id: str, records: Sequence[int]) -> str:
        return f"records {list(records)}"

    def named(self, shard_id: str) -> str:
        return f"shard {shard_id}"


def judge(world: World, *, strict_listing: bool) -> int:
    """Assert every promise from the outside; returns the number of files that no sealed manifest lists.

    With ``strict_listing`` there may be none: a plain listing of the data shows each record once.
    """
    judgement = Judgement(Known(world), world.body, prefix_of(LOG), world.writes)
    failures = list(judgement.failures())
    assert not failures, failures
    extra = leftovers([judgement], lambda key: key.startswith(prefix_of(DATA)))
    unknown = [key for key in extra if key not in judgement.superseded]
    assert not unknown, f"files of which the log says nothing: {unknown}"
    assert not (strict_listing and extra), f"P2: files beside the log: {extra}"
    return len(extra)
