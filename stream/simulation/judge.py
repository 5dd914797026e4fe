"""Checks from the outside what a schedule has left in the stores: the promises of docs/guarantees.md, for this pipeline and these records.

What is true is known without asking the workers: which records were put, in which order, and what the definition makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from stream.audit.report import Verdict
from stream.audit.verify import Scope, Verifier
from stream.batch import ORIGIN, RAW_SCHEMA, Batch, Outcome
from stream.commit.log import CommitLog
from stream.commit.manifest import FileEntry, Kind, Manifest, decode
from stream.commit.naming import genesis_key, manifest_key, sha256_hex
from stream.contracts import Shard
from stream.errors import Halted, StreamError
from stream.lease.checkpoints import StoredCheckpoints
from stream.simulation.fleet import source_of
from stream.simulation.places import SimulatedStore, at_once, prefix_of
from stream.simulation.world import Put, World, short
from stream.worker.auditing import StoredEvidence, Stores
from stream.worker.places import located
from stream.worker.recipe import CutUnit, Recipe, Rendered, render

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Failure:
    """A broken promise. ``promise``: its number in docs/guarantees.md, or what else is wrong; equal kinds have equal ones.

    ``unit``: digest of the definition and the records of the unit whose rows are wrong, if it is about rows.
    """

    promise: str
    message: str
    unit: tuple[str, Batch] | None = None


async def judge(world: World) -> list[Failure]:
    """Everything that is wrong after the schedule was played; nothing, if it went as promised."""
    found = [Failure("halted", f"{short(shard)} is halted: {why}") for shard, why in sorted(world.halted.items())]
    found += [Failure("ended", f"{who} ended with an error: {why}") for who, why in world.ended]
    if found:
        return found
    log = _Log(world)
    for shard in _shards(world):
        found += log.shard_failures(shard)
    found += log.order_failures()
    found += log.leftovers()
    return found + await _audit(world)


def _shards(world: World) -> list[str]:
    stream = world.state.account.streams[world.subject.stream]
    return [shard for shard in stream.shards if shard in {put.shard for put in world.puts} or not stream.shards[shard].is_open]


def batch_of(puts: Sequence[Put]) -> Batch:
    """The user records of ``puts``, as a reader that makes no mistake delivers them."""
    rows = [
        (str(put.sequence), place, _EPOCH + timedelta(milliseconds=put.arrival_ms), put.key, content, int(Outcome.PENDING))
        for put in puts
        for place, content in enumerate(put.contents)
    ]
    return Batch(pl.DataFrame(rows, schema=RAW_SCHEMA, orient="row"), sum(len(row[4]) for row in rows))


class _Log:
    """The commit log and the files as they are at the end."""

    def __init__(self, world: World) -> None:
        self.world = world
        pipeline, _ = world.subject.version(newer=False)
        self.state = prefix_of(located(pipeline.state, world.subject.base)) + f"{pipeline.application}/"
        self.listed: set[str] = set()

    def body(self, key: str) -> bytes | None:
        """The object at the full ``key``."""
        stored = at_once(self.world.bucket.get(key))
        return None if stored is None else stored.body

    def links(self, shard: str) -> Iterator[tuple[str, Manifest]]:
        """The links of the shard's chain with their keys, from the beginning for as long as each leads to the next."""
        position: int | None = ORIGIN
        while position is not None:
            key = self.state + manifest_key(self.world.subject.stream, shard, position)
            body = self.body(key)
            if body is None:
                return
            manifest = decode(body, key)
            yield key, manifest
            position = None if manifest.last is None else int(manifest.last)

    def shard_failures(self, shard: str) -> Iterator[Failure]:
        """P1 to P4 for one shard: its ranges hold each of its records once, and its files what the definition makes of them."""
        puts = [put for put in self.world.puts if put.shard == shard]
        seen: list[int] = []
        ended = False
        for key, manifest in self.links(shard):
            if not manifest.sealed:
                yield Failure("P1", f"{short(shard)}: the unit after {_numbered(puts, manifest.after)} was begun and never sealed")
                return
            if manifest.kind is Kind.END:
                ended = True
            elif manifest.kind is Kind.UNIT:
                inside = [put for put in puts if manifest.span.after < put.sequence <= manifest.span.last]
                seen += [put.sequence for put in inside]
                yield from self.unit_failures(shard, manifest, inside)
            else:
                yield Failure("P4", f"{short(shard)}: the log has a `{manifest.kind}` link that nobody asked for: {key}")
        missing = [put for put in puts if put.sequence not in set(seen)]
        if missing:
            yield Failure("P1", f"{short(shard)}: no unit has {spelled(missing)}")
        open_now = self.world.state.account.streams[self.world.subject.stream].shards[shard].is_open
        if not open_now and not ended:
            yield Failure("P1", f"{short(shard)} has ended in the stream, but not in the log, so that its children never start")

    def unit_failures(self, shard: str, manifest: Manifest, puts: Sequence[Put]) -> Iterator[Failure]:
        """Whether the unit's files are in place, and are what its definition makes of its records."""
        where = f"the unit of {short(shard)} with {spelled(puts)}"
        for entry in manifest.files:
            key = self.key_of(manifest, entry)
            self.listed.add(key)
            body = self.body(key)
            if body is None:
                yield Failure("P1", f"{where} is sealed, and its file {key} is missing")
            elif sha256_hex(body) != entry.sha256:
                yield Failure("P4", f"{where} is sealed, and its file {key} has other bytes than the manifest says")
        recipe = self.world.subject.known.recipes.get(manifest.pipeline)
        if recipe is None:
            yield Failure("P2", f"{where} names the definition {manifest.pipeline}, which no worker has")
            return
        batch = batch_of(puts)
        try:
            expected = self._rendered(recipe, shard, manifest, batch)
        except StreamError as error:
            yield Failure("stages", f"{where} was committed, but to run its stages again fails: {error}", (manifest.pipeline, batch))
            return
        promised = {(file.sink, file.key, file.sha256) for file in expected.unit.files}
        committed = {(file.sink, file.key, file.sha256) for file in manifest.files}
        if promised != committed or expected.unit.manifest.outcomes != manifest.outcomes:
            sinks = sorted({sink for sink, _, _ in promised ^ committed}) or ["none"]
            outcomes = expected.unit.manifest.outcomes
            fates = "" if outcomes == manifest.outcomes else f"; outcomes: {manifest.outcomes}, and should be {outcomes}"
            what = "what was committed is not what its definition gives for these records"
            message = f"{where}: {what}; different files: {', '.join(sinks)}{fates}"
            yield Failure("rows", message, (manifest.pipeline, batch))

    def _rendered(self, recipe: Recipe, shard: str, manifest: Manifest, batch: Batch) -> Rendered:
        where = Shard(self.world.subject.stream, shard)
        return render(recipe, CutUnit(where, manifest.span, batch, manifest.trigger, manifest.foreign_subsequence))

    def key_of(self, manifest: Manifest, entry: FileEntry) -> str:
        """The full key of a file."""
        own = {"ledger": "ledger/v1/", "rejects": "rejects/"}
        folder = self.state + own[entry.sink] if entry.sink in own else prefix_of(manifest.targets[entry.sink])
        return folder + entry.key

    def order_failures(self) -> Iterator[Failure]:
        """P3: no child was begun before all its parents had ended."""
        stream = self.world.subject.stream
        order: dict[str, int] = {}
        for number, (_, key) in enumerate(self.world.writes):
            order.setdefault(key, number)
        for shard in self.world.state.account.streams[stream].shards.values():
            begun = order.get(self.state + genesis_key(stream, shard.shard_id))
            for parent in shard.parents if begun is not None else ():
                ends = [order[key] for key, manifest in self.links(parent) if manifest.kind is Kind.END]
                if not ends or (begun is not None and begun < ends[0]):
                    yield Failure("P3", f"{short(shard.shard_id)} was begun before its parent {short(parent)} had ended")

    def leftovers(self) -> Iterator[Failure]:
        """P2 for readers that list: no file is there that no sealed manifest lists."""
        pipelines = [self.world.subject.version(newer=newer)[0] for newer in (False, True)]
        folders = {prefix_of(located(config.url, self.world.subject.base)) for each in pipelines for config in each.sinks}
        folders |= {f"{self.state}ledger/", f"{self.state}rejects/"}
        written = dict.fromkeys(key for _, key in self.world.writes)
        for key in written:
            inside = any(key.startswith(folder) for folder in folders)
            beside = key.startswith(self.state) and not key.startswith((f"{self.state}ledger/", f"{self.state}rejects/"))
            if inside and not beside and key not in self.listed and self.body(key) is not None:
                yield Failure("P2", f"the file {key} is left over: no sealed manifest lists it, and whoever lists the folder reads it")


async def _audit(world: World) -> list[Failure]:
    """What `stream audit verify` says, which reads the log, the files and the stream by its own code."""
    pipeline, _ = world.subject.version(newer=True)
    process = world.observer("audit")

    def open_place(url: str) -> SimulatedStore:
        return SimulatedStore(world.bucket, url, process, lambda _what, _key: None)

    stores = Stores.over(pipeline, world.subject.base, open_place)
    log = CommitLog(stores.state, pipeline.application, process.clock, process.name)
    evidence = StoredEvidence(
        log,
        stores.areas(located(pipeline.state, world.subject.base), world.subject.stream),
        StoredCheckpoints(stores.state),
        world.subject.stream,
        source_of(world.subject, world.state, process),
        datetime.min.replace(tzinfo=UTC),
        open_place,
    )
    try:
        report = await Verifier(evidence, Scope(), process.clock).run()
    except Halted as error:
        return [Failure("audit", f"`audit verify` cannot read the log: {error}")]
    # After a change of the file, files of sinks that it does not have any more cannot be judged by it.
    bad = {Verdict.FAILED} if world.subject.newer is not None else {Verdict.FAILED, Verdict.UNKNOWN}
    return [
        Failure("audit", f"`audit verify`, {each.check}: {each.message} {each.object}".rstrip())
        for each in report.findings
        if each.verdict in bad
    ]


def spelled(puts: Sequence[Put]) -> str:
    """The user records of ``puts`` by their numbers, for people."""
    numbers = [number for put in puts for number in put.numbers]
    if not numbers:
        return "no record"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in runs]
    return f"record{'' if len(numbers) == 1 else 's'} {', '.join(parts)}"


def _numbered(puts: Sequence[Put], after: str) -> str:
    before = [put for put in puts if put.sequence <= int(after)]
    return spelled(before[-1:]) if before else "the beginning"
