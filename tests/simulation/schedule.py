"""Workers, the scheduler that torments them, and the oracle that looks at what is left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from stream.batch import ORIGIN, SeqRange
from stream.commit import protocol
from stream.commit.committer import Committer, Head, RenderedUnit
from stream.commit.log import CommitLog
from stream.commit.manifest import FileEntry, Kind, Manifest, State, decode, digest
from stream.commit.naming import genesis_key, manifest_key, sha256_hex, unit_name
from stream.commit.recovery import recover
from stream.commit.repeat import Repeater
from stream.contracts import OutputFile, Shard, Start, StartKind
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
    treat,
)

STREAM = "s"
NOTHING = lambda event: None  # noqa: E731


@dataclass
class World:
    """Everything outside the workers."""

    chooser: Chooser
    shards: dict[str, Records]
    parents: dict[str, tuple[str, ...]]
    mutant: str = ""
    log_objects: Objects = field(default_factory=Objects)
    data_objects: Objects = field(default_factory=Objects)
    checkpoints: SimCheckpoints = field(default_factory=SimCheckpoints)
    processes: list[Process] = field(default_factory=list)
    started: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def start(self, shard_id: str, version: Version) -> Process:
        self.started += 1
        name = f"w{self.started}"
        process = Process(name, worker(self, name, shard_id, version))
        self.processes.append(process)
        process.advance(None)
        return process

    def ended(self, shard_id: str) -> bool:
        return any(f"/{shard_id}/" in key and b'"kind":"end"' in body for key, body in self.log_objects.bodies.items())

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
    """The committer with one step done wrongly, to see whether the oracle notices."""

    mutant = ""
    unwritten: tuple[FileEntry, ...] = ()

    async def _carry_out(self, todo: protocol.Instruction, work: Any) -> protocol.Event:
        match self.mutant, todo:
            case "no_seal", protocol.Replace(manifest, etag) if manifest.sealed:
                await super()._carry_out(protocol.Look(), work)
                return protocol.Replaced(etag)
            case "blind_seal", protocol.Replace(manifest, _) if manifest.sealed:
                key = manifest_key(work.shard.stream, work.shard.shard_id, work.after)
                latest = etag_of(self._log.store.objects.bodies[key])  # type: ignore[attr-defined]
                return await super()._carry_out(protocol.Replace(manifest, latest), work)
            case "seal_before_write", protocol.Write(files):
                self.unwritten = files
                return protocol.Written()
            case "delete_before_seal", protocol.Write(_) if work.entry is not None:
                await self._concurrently([self._delete(work.shard, entry) for entry in work.entry.manifest.superseded])
            case "unpinned", protocol.Render(manifest):
                return await self._render_with_own_definition(manifest, work)
            case _:
                pass
        event = await super()._carry_out(todo, work)
        if self.unwritten and isinstance(todo, protocol.Replace) and isinstance(event, protocol.Replaced):
            await self._concurrently([self._write(work.shard, work.bodies[e]) for e in self.unwritten if e in work.bodies])
        return event

    async def _render_with_own_definition(self, manifest: Manifest, work: Any) -> protocol.Event:
        rendered = await work.render(manifest)
        mine = {file.key.split("/")[0]: file.body for file in rendered.files}
        for entry in manifest.files:
            body = mine.get(entry.key.split("/")[0], b"[]")
            work.bodies[entry] = OutputFile(entry.sink, entry.key, body, entry.rows, entry.sha256)
        return protocol.Rendered(manifest)


async def worker(world: World, name: str, shard_id: str, version: Version) -> None:
    """What worker/shard.py does, with a toy stream and a toy transform around the production commit code."""
    clock = SimClock()
    log_store = SimStore(world.log_objects, "sim:log", create_only=world.mutant != "no_create_only")
    data_store = SimStore(world.data_objects, "sim:data")
    log = CommitLog(log_store, "app", clock, name)
    kind = MutantCommitter if world.mutant else Committer
    stores = {"data": data_store, "ledger": data_store}
    committer = kind(log, stores, world.checkpoints, clock, NOTHING, name, lambda calls: one_by_one(world, calls))
    if isinstance(committer, MutantCommitter):
        committer.mutant = world.mutant
    repeat = Repeater(clock, NOTHING)
    shard = Shard(STREAM, shard_id, world.parents.get(shard_id, ()))
    records = world.shards[shard_id]

    async def render_again(manifest: Manifest) -> RenderedUnit:
        await Call("read_stream")
        pinned = version.definition if world.mutant == "unpinned" else int(manifest.pipeline)
        return render(records, shard_id, manifest.span, Version(pinned, version.build), manifest.previous)

    genesis = await repeat("open chain", shard, lambda: log.open_chain(shard, Start(StartKind.TRIM_HORIZON)))
    head = await recover(log, committer, world.checkpoints, shard, genesis, render_again, clock, NOTHING)
    while not head.ended:
        remaining = records.behind(head.position)
        if not remaining:
            head = await committer.end(shard, head, world.children(shard_id))
            break
        last = remaining[world.chooser.pick(min(3, len(remaining)), "cut")]
        span = SeqRange(head.position, last)
        unit = render(records, shard_id, span, version, head.previous, split=world.mutant == "cut_inside_aggregate")
        if world.mutant == "checkpoint_before_write":
            await committer.checkpoint(shard, unit.manifest)
        entry = await committer.commit(shard, unit, render_again)
        head = Head(entry.manifest.span.last, digest(entry.body))


def render(records: Records, shard_id: str, span: SeqRange, version: Version, previous: str, *, split: bool = False) -> RenderedUnit:
    """The toy transform: rows to partitions ``a`` and ``b``, a ledger of what became of each, all named by content."""
    rows = records.within(span.after, span.last)
    if split and len(rows) > 1 and rows[-1][1] > 0:
        rows = rows[:-1]
    fates = {row: treat(row, version.definition, version.build) for row in rows}
    files = []
    for partition in ("a", "b"):
        chosen = [row for row in rows if fates[row] == partition]
        if chosen:
            files.append(_file("data", f"{partition}/{unit_name(shard_id, span)}", body_of(chosen), len(chosen)))
    ledger = json.dumps([[*row, fate] for row, fate in sorted(fates.items())]).encode()
    files.append(_file("ledger", f"ledger/{unit_name(shard_id, span)}", ledger, len(rows)))
    outcomes = Counter("filtered" if fate == "filtered" else "written" for fate in fates.values())
    manifest = Manifest(
        kind=Kind.UNIT,
        state=State.INTENT,
        application="app",
        stream=STREAM,
        shard=shard_id,
        pipeline=str(version.definition),
        build=str(version.build),
        after=str(span.after),
        last=str(span.last),
        records=len(rows),
        outcomes=dict(sorted(outcomes.items())),
        files=tuple(FileEntry.of(file) for file in files),
        previous=previous,
    )
    return RenderedUnit(manifest, tuple(files))


def _file(sink: str, stem: str, body: bytes, rows: int) -> OutputFile:
    sha256 = sha256_hex(body)
    return OutputFile(sink, f"{stem}-{sha256[:16]}", body, rows, sha256)


# --- running ------------------------------------------------------------------------------------------------------------------


def run_schedule(world: World, versions: Sequence[Version], steps: int, settle_steps: int = 4000) -> None:
    """``steps`` of trouble, then none: what is left of the old workers goes on, and fresh ones finish the job."""
    for _ in range(steps):
        _disturb(world, versions)
        _go_on(world, faults=True)
    for number in range(settle_steps):
        if _complete(world):
            break
        if number % 40 == 0:
            _start_missing(world, versions)
        _go_on(world, faults=False)
    else:
        raise AssertionError(f"not complete after {settle_steps} steps without faults")
    while world.processes or world.log_objects.in_flight or world.data_objects.in_flight:
        if not _go_on(world, faults=False):
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


def _go_on(world: World, *, faults: bool) -> bool:
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
    listed: set[str] = set()
    for shard, records in world.shards.items():
        position, previous = ORIGIN, digest(world.log_objects.bodies[genesis_key(STREAM, shard)])
        seen: list[tuple[int, int]] = []
        while True:
            key = manifest_key(STREAM, shard, position)
            assert key in found, f"P1: chain of {shard} is cut at {position}"
            manifest = found.pop(key)
            assert manifest.sealed or world.mutant == "no_seal", f"P1: {key} was never sealed"
            assert manifest.previous == previous or world.mutant == "no_seal", f"{key} does not continue its predecessor"
            previous = digest(world.log_objects.bodies[key])
            if manifest.kind is Kind.END:
                break
            seen += _judge_unit(world, manifest, records)
            listed |= {entry.key for entry in manifest.files}
            position = manifest.span.last
        assert seen == records.within(ORIGIN, 10**9), f"P1/P2: {shard} delivered {seen}"
    assert not [key for key in found if not key.endswith("genesis.json")], f"manifests outside every chain: {found}"
    _judge_order_of_shards(world)
    extra = set(world.data_objects.bodies) - listed
    assert not (strict_listing and extra), f"P2: files beside the log: {sorted(extra)}"
    return len(extra)


def _judge_unit(world: World, manifest: Manifest, records: Records) -> list[tuple[int, int]]:
    bodies = {}
    for entry in manifest.files:
        body = world.data_objects.bodies.get(entry.key)
        assert body is not None, f"P1: {entry.key} is listed and missing"
        assert sha256_hex(body) == entry.sha256, f"P4: {entry.key} is not what the manifest lists"
        bodies[entry.key] = [tuple(row) for row in json.loads(body)]
    ledger = {(seq, sub): fate for entry in manifest.files if entry.sink == "ledger" for seq, sub, fate in bodies[entry.key]}
    written = [row for entry in manifest.files if entry.sink == "data" for row in bodies[entry.key]]
    for entry in manifest.files:
        if entry.sink == "data":
            assert bodies[entry.key] == sorted(bodies[entry.key]), f"P3: order inside {entry.key}"
    recorded = sorted(row for row, fate in ledger.items() if fate != "filtered")
    assert sorted(written) == recorded, "P4: the ledger does not say what is in the data"
    assert len(written) == len(set(written)), "P2: a record twice in one unit"
    return sorted(ledger)


def _judge_order_of_shards(world: World) -> None:
    created = [key for how, key in world.log_objects.history if how == "create"]
    for child, parents in world.parents.items():
        first = created.index(genesis_key(STREAM, child))
        for parent in parents:
            ends = [key for key, manifest in manifests(world.log_objects) if manifest.kind is Kind.END and manifest.shard == parent]
            assert created.index(ends[0]) < first, f"P3: {child} began before {parent} had ended"
