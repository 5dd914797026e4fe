"""Workers around the production commit code, the scheduler that disturbs them, and the oracle that judges the result."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec

from stream.batch import ORIGIN, SeqRange
from stream.commit import protocol
from stream.commit.committer import Committer, Head, RenderedUnit, checkpoint_of, head_after
from stream.commit.foreign import admit_foreign
from stream.commit.log import CommitLog
from stream.commit.manifest import FileEntry, Kind, Manifest, State, decode, digest
from stream.commit.naming import genesis_key, manifest_key, sha256_hex, unit_name
from stream.commit.places import Places
from stream.commit.recovery import recover
from stream.commit.retry import Repeater
from stream.commit.rewind import effective, history, rewind_link, skip_link
from stream.contracts import Checkpoint, OutputFile, Reached, Shard, Start, StartKind, shard_of_chain
from stream.errors import LeaseLost, Superseded
from tests.simulation.world import (
    FATES,
    Call,
    Chooser,
    Objects,
    Process,
    Records,
    SimCheckpoints,
    SimClock,
    SimStore,
    Version,
    body_of,
    etag_of,
    outcome_of,
)

STREAM = "s"
DATA = "sim:data/"
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
    log_objects: Objects = field(default_factory=Objects)
    data_objects: Objects = field(default_factory=Objects)
    checkpoints: SimCheckpoints = field(default_factory=SimCheckpoints)
    processes: list[Process] = field(default_factory=list)
    started: int = 0
    moving: bool = False
    moved: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    sinks: dict[int, tuple[str, str]] = field(default_factory=dict)

    def sink(self, definition: int) -> tuple[str, str]:
        """Name and folder of the definition's sink."""
        return self.sinks.get(definition, ("data", ""))

    def place(self, url: str) -> SimStore:
        """The store at the ``url`` of a sink."""
        return SimStore(self.data_objects, url, root=url.removeprefix(DATA))

    def start(self, shard_id: str, version: Version) -> Process:
        self.started += 1
        name = f"w{self.started}"
        process = Process(name, worker(self, name, shard_id, version))
        self.processes.append(process)
        process.advance(None)
        return process

    def operate(self, shard_id: str, version: Version) -> None:
        """An operator begins to move the shard."""
        self.started += 1
        self.moved["operator"] += 1
        process = Process(f"o{self.started}", operator(self, f"o{self.started}", shard_id, version))
        self.processes.append(process)
        process.advance(None)

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
        self.checkpoints.rows[shard_id] = replace(row, foreign=reached)

    def ended(self, shard_id: str) -> bool:
        ends = (key.split("/")[2] for key, body in self.log_objects.bodies.items() if b'"kind":"end"' in body)
        return any(shard_of_chain(chain)[0] == shard_id for chain in ends)

    def children(self, shard_id: str) -> tuple[str, ...]:
        return tuple(sorted(child for child, parents in self.parents.items() if shard_id in parents))


def manifests(objects: Objects) -> list[tuple[str, Manifest]]:
    return [(key, decode(body, key)) for key, body in sorted(objects.bodies.items()) if key.startswith("commits/")]


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
                await super()._carry_out(protocol.Look(), work)
                return protocol.Replaced(etag)
            case "blind_seal", protocol.Replace(manifest, _) if manifest.sealed:
                key = manifest_key(work.shard.stream, work.shard.shard_id, work.after)
                latest = etag_of(self.log.store.objects.bodies[key])  # type: ignore[attr-defined]
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
class Bench:
    """What a worker or an operator works with: the production log and committer over the world's stores."""

    log: CommitLog
    committer: Committer
    repeat: Repeater
    world: World
    shard_id: str
    version: Version

    def shard(self, generation: int = 0) -> Shard:
        return Shard(STREAM, self.shard_id, self.world.parents.get(self.shard_id, ()), generation=generation)

    async def render_again(self, manifest: Manifest) -> RenderedUnit:
        await Call("read_stream")
        pinned = self.version.definition if self.world.mutant == "unpinned" else int(manifest.pipeline)
        version = Version(pinned, self.version.build)
        return render(self.world.shards[self.shard_id], manifest, version, self.world.sink(pinned))

    async def children(self) -> tuple[str, ...]:
        return self.world.children(self.shard_id)

    async def recovered(self) -> tuple[Shard, Head]:
        """The newest generation and its head, with what other applications did recorded."""
        shard, start = self.shard(), Start(StartKind.TRIM_HORIZON)
        genesis = await self.repeat("open chain", shard, lambda: self.log.open_chain(shard, start))
        while True:
            head = await recover(self.committer, shard, genesis, self.render_again)
            if head.target is None:
                try:
                    head = await admit_foreign(self.committer, shard, head, self.children, self.render_again)
                except Superseded:
                    continue
            if head.target is None:
                return shard, head
            shard = self.shard(shard.generation + 1)
            genesis = await self.repeat("open chain", shard, partial(self.log.open_chain, shard, start, head.target, head.previous))


def bench(world: World, name: str, shard_id: str, version: Version) -> Bench:
    clock = SimClock()
    log_store = SimStore(world.log_objects, "sim:log", create_only=world.mutant != "no_create_only")
    name_of_sink, folder = world.sink(version.definition)
    log = CommitLog(log_store, "app", clock, name)
    kind = MutantCommitter if world.mutant else Committer
    places = Places({name_of_sink: world.place(DATA + folder), "ledger": world.place(DATA)}, world.place)
    committer = kind(log, places, world.checkpoints, clock, NOTHING, name, lambda calls: one_by_one(world, calls))
    if isinstance(committer, MutantCommitter):
        committer.mutant = world.mutant
    return Bench(log, committer, Repeater(clock, NOTHING), world, shard_id, version)


async def worker(world: World, name: str, shard_id: str, version: Version) -> None:
    """What worker/shard.py does, with a toy stream and a toy transform around the production commit code."""
    tools = bench(world, name, shard_id, version)
    records = world.shards[shard_id]
    while True:
        shard, head = await tools.recovered()
        with suppress(Superseded):
            while head.open:
                remaining = records.after(head.position)
                if not remaining:
                    head = await tools.committer.end(shard, head, world.children(shard_id))
                    break
                last = remaining[world.chooser.pick(min(3, len(remaining)), "cut")]
                frame = blank(shard.chain, SeqRange(head.position, last), head.previous, head.foreign_subsequence)
                unit = render(records, frame, version, world.sink(version.definition), split=world.mutant == "cut_inside_aggregate")
                if world.mutant == "checkpoint_before_write":
                    await tools.committer.checkpoint(shard, checkpoint_of(unit.manifest))
                head = head_after(await tools.committer.commit(shard, unit, tools.render_again))
        if head.ended:
            return


async def operator(world: World, name: str, shard_id: str, version: Version) -> None:
    """What an operator does: recover the chain up to its head, then rewind or skip, unless a worker is faster."""

    async def never(_manifest: Manifest) -> RenderedUnit:
        raise LeaseLost("a unit is in the way")

    tools = bench(world, name, shard_id, version)
    shard, head = await tools.recovered()
    if head.ended:
        return
    known = await tools.repeat("read history", shard, lambda: history(tools.log, shard))
    ahead = world.shards[shard_id].after(head.position)
    if world.chooser.pick(3, "operation") == 0 and ahead:
        link = skip_link(tools.log, shard, head, ahead[world.chooser.pick(min(2, len(ahead)), "skip")], "", "")
    else:
        targets = sorted({ORIGIN, *(each.reach for each in known.links)} - {head.position})
        if not targets or known.shard != replace(shard, parents=known.shard.parents) or known.head != head.position:
            return
        link = rewind_link(tools.log, known, head, targets[world.chooser.pick(len(targets), "target")], "", "")
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


def render(records: Records, frame: Manifest, version: Version, place: tuple[str, str], *, split: bool = False) -> RenderedUnit:
    """The toy transform: rows to partitions ``a`` and ``b``, a ledger of what became of each, all named by content."""
    sink, folder = place
    span, name = frame.span, unit_name(frame.shard, frame.span)
    rows = records.within(span.after, span.last)
    if split and len(rows) > 1 and rows[-1][1] > 0:
        rows = rows[:-1]
    foreign = {row for row in rows if row[0] == span.after + 1 and row[1] <= frame.foreign_subsequence}
    fates = {row: "foreign" if row in foreign else outcome_of(row, version.definition, version.build) for row in rows}
    files = []
    for partition in ("a", "b"):
        chosen = [row for row in rows if fates[row] == partition]
        if chosen:
            files.append(_file(sink, f"{partition}/{name}", body_of(chosen), len(chosen)))
    ledger = json.dumps([[*row, fate] for row, fate in sorted(fates.items())]).encode()
    files.append(_file("ledger", f"ledger/{name}", ledger, len(rows)))
    outcomes = Counter(fate if fate in UNWRITTEN else "written" for fate in fates.values())
    manifest = msgspec.structs.replace(
        frame,
        state=State.INTENT,
        pipeline=str(version.definition),
        build=str(version.build),
        records=len(rows),
        outcomes=dict(sorted(outcomes.items())),
        files=tuple(FileEntry.of(file) for file in files),
        superseded=(),
        targets={sink: DATA + folder},
    )
    return RenderedUnit(manifest, tuple(files))


UNWRITTEN = ("filtered", "foreign")


def _file(sink: str, stem: str, body: bytes, rows: int) -> OutputFile:
    sha256 = sha256_hex(body)
    return OutputFile(sink, f"{stem}-{sha256[:16]}", body, rows, sha256)


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
    while world.processes or world.log_objects.in_flight or world.data_objects.in_flight:
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
    elif choice in {4, 5} and world.moving and (ready := [shard for shard in _ready(world) if not world.ended(shard)]):
        shard = ready[world.chooser.pick(len(ready), "shard")]
        if choice == 4:
            world.operate(shard, versions[world.chooser.pick(len(versions), "version")])
        else:
            world.foreign(shard)


def _step(world: World, *, faults: bool) -> bool:
    world.processes = [process for process in world.processes if not process.finished]
    if not world.processes:
        return _deliver_late_write(world)
    process = world.processes[world.chooser.pick(len(world.processes), "worker")]
    fate = FATES[world.chooser.pick(len(FATES), "fate")] if faults else "done"
    if fate != "done":
        world.faults[fate] += 1
    process.advance(fate)
    if not faults and world.chooser.pick(4, "late") == 0:
        _deliver_late_write(world)
    return True


def _deliver_late_write(world: World) -> bool:
    for objects in (world.log_objects, world.data_objects):
        if objects.in_flight:
            objects.in_flight.pop(world.chooser.pick(len(objects.in_flight), "which"))()
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


# --- the oracle ---------------------------------------------------------------------------------------------------------------


def judge(world: World, *, strict_listing: bool) -> int:
    """Assert every promise from the outside; returns the number of files that no sealed manifest lists.

    With ``strict_listing`` there may be none: a plain listing of the data shows each record once.
    """
    found = dict(manifests(world.log_objects))
    superseded = {_where(manifest, entry) for manifest in found.values() if manifest.sealed for entry in manifest.superseded}
    listed: set[str] = set()
    for shard, records in world.shards.items():
        seen: list[tuple[int, int]] = []
        for manifest in _judge_chains(world, shard, found, listed):
            if manifest.kind is Kind.UNIT:
                seen += _judge_unit(world, manifest, records)
                listed |= {_where(manifest, entry) for entry in manifest.files}
            elif manifest.kind is Kind.END:
                assert world.moved or manifest.trigger != "foreign"
                seen += records.within(int(manifest.after), 10**9) if manifest.trigger == "foreign" else []
            else:
                assert not manifest.files
                assert world.moved, f"{shard} has a {manifest.kind} link that nobody asked for"
                seen += records.within(manifest.span.after, manifest.span.last)
        assert seen == records.within(ORIGIN, 10**9), f"P1/P2: {shard} delivered {seen}"
    assert not [key for key in found if not key.endswith("genesis.json")], f"manifests outside every chain: {found}"
    _judge_order_of_shards(world)
    extra = set(world.data_objects.bodies) - listed
    assert extra <= superseded or world.mutant, f"files of which the log says nothing: {sorted(extra - superseded)}"
    assert not (strict_listing and extra), f"P2: files beside the log: {sorted(extra)}"
    return len(extra)


def _judge_chains(world: World, shard: str, found: dict[str, Manifest], listed: set[str]) -> tuple[Manifest, ...]:
    """Follow every generation of a shard to the links that count. Ledgers of rewound units stay, and are added to ``listed``."""
    links: tuple[Manifest, ...] = ()
    position, generation, expected = ORIGIN, 0, None
    while True:
        name = Shard(STREAM, shard, generation=generation).chain
        genesis = found[genesis_key(STREAM, name)]
        assert int(genesis.after) == position
        assert expected is None or genesis.previous == expected, f"{name} does not continue the rewind that leads to it"
        previous, chain = digest(world.log_objects.bodies[genesis_key(STREAM, name)]), []
        while True:
            key = manifest_key(STREAM, name, position)
            assert key in found, f"P1: chain of {name} is cut at {position}"
            manifest = found.pop(key)
            assert manifest.sealed or world.mutant == "no_seal", f"P1: {key} was never sealed"
            assert manifest.previous == previous or world.mutant == "no_seal", f"{key} does not continue its predecessor"
            previous = digest(world.log_objects.bodies[key])
            chain.append(manifest)
            listed |= {entry.key for entry in manifest.files if entry.sink == "ledger"}
            if manifest.last is None:
                break
            position = manifest.reach
        links = effective(chain, links)
        if manifest.target is None:
            return (*links, manifest)
        position, generation, expected = int(manifest.target), generation + 1, previous


def _where(manifest: Manifest, entry: FileEntry) -> str:
    return manifest.targets[entry.sink].removeprefix(DATA) + entry.key


def _judge_unit(world: World, manifest: Manifest, records: Records) -> list[tuple[int, int]]:
    bodies = {}
    for entry in manifest.files:
        body = world.data_objects.bodies.get(_where(manifest, entry))
        assert body is not None, f"P1: {entry.key} is listed and missing"
        assert sha256_hex(body) == entry.sha256, f"P4: {entry.key} is not what the manifest lists"
        bodies[entry.key] = [tuple(row) for row in json.loads(body)]
    ledger = {(seq, sub): fate for entry in manifest.files if entry.sink == "ledger" for seq, sub, fate in bodies[entry.key]}
    written = [row for entry in manifest.files if entry.sink != "ledger" for row in bodies[entry.key]]
    for entry in manifest.files:
        if entry.sink != "ledger":
            assert bodies[entry.key] == sorted(bodies[entry.key]), f"P3: order inside {entry.key}"
    recorded = sorted(row for row, fate in ledger.items() if fate not in UNWRITTEN)
    assert sorted(written) == recorded, "P4: the ledger does not say what is in the data"
    assert len(written) == len(set(written)), "P2: a record twice in one unit"
    return sorted(ledger)


def _judge_order_of_shards(world: World) -> None:
    created = [key for how, key in world.log_objects.history if how == "create"]
    for child, parents in world.parents.items():
        first = created.index(genesis_key(STREAM, child))
        for parent in parents:
            ends = [key for key, manifest in manifests(world.log_objects) if _is_end_of(manifest, parent)]
            assert created.index(ends[0]) < first, f"P3: {child} began before {parent} had ended"


def _is_end_of(manifest: Manifest, shard_id: str) -> bool:
    return manifest.kind is Kind.END and shard_of_chain(manifest.shard)[0] == shard_id
