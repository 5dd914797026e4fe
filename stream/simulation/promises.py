"""Checks a commit log and the files beside it against what is known to be true, from the outside: the promises of docs/guarantees.md.

All simulations are judged by this: complete workers with a pipeline (``judge.py``), and the commit protocol alone (``tests/simulation/``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from stream.batch import ORIGIN
from stream.commit.manifest import FileEntry, Kind, Manifest, decode, digest
from stream.commit.naming import genesis_key, manifest_key, sha256_hex
from stream.commit.rewind import LEDGER, effective
from stream.contracts import Shard
from stream.errors import Halted, StreamError

BodyOf = Callable[[str], bytes | None]
"""The bytes of the object at a key, or None."""

GENESIS: Final = "/genesis.json"

FOREIGN_END: Final = "foreign"
"""The trigger of an end that another application reached: it has processed what was left."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A broken promise. ``promise``: its number in docs/guarantees.md, or what else is wrong; equal kinds have equal ones.

    ``unit``: the manifest of the unit whose rows are wrong, and its records, if it is about rows.
    """

    promise: str
    message: str
    unit: tuple[Manifest, tuple[int, ...]] | None = None


@dataclass
class ShardLog:
    """What the log says of one shard.

    ``links``: those in force, in order, without genesis and end. ``end``: the link that ends the shard. ``begun``: a unit at the head that
    is not sealed. ``every``: all links of all generations by their keys, in the order in which they follow each other. ``broken``: why the
    chain cannot be followed, or does not continue itself; empty if it is sound.
    """

    links: tuple[Manifest, ...] = ()
    end: Manifest | None = None
    begun: Manifest | None = None
    every: dict[str, Manifest] = field(default_factory=dict)
    broken: str = ""

    @property
    def head(self) -> int:
        """The last sequence number that is committed."""
        return self.links[-1].reach if self.links else ORIGIN


def shard_log(body_of: BodyOf, stream: str, shard_id: str) -> ShardLog:
    """Follow the shard through all of its generations."""
    found, position, expected = ShardLog(), ORIGIN, ""
    for generation in range(10_000):
        name = Shard(stream, shard_id, generation=generation).chain
        key = genesis_key(stream, name)
        if (body := body_of(key)) is None:
            # A rewind has been sealed, and nobody has opened the next generation yet; or the shard was never begun.
            return found
        genesis, previous = decode(body, key), digest(body)
        found.every[key] = genesis
        if int(genesis.after) != position or (generation and genesis.previous != expected):
            found.broken = f"{key} does not continue the rewind that leads to it"
            return found
        chain: list[Manifest] = []
        while (body := body_of(key := manifest_key(stream, name, position))) is not None:
            manifest = decode(body, key)
            found.every[key] = manifest
            if not manifest.sealed:
                found.begun = manifest
                break
            if manifest.previous != previous:
                found.broken = f"{key} does not continue its predecessor"
            chain.append(manifest)
            position, previous = manifest.reach, digest(body)
            if manifest.last is None:
                break
        found.links = effective(chain, found.links)
        last = chain[-1] if chain else None
        found.end = last if last is not None and last.kind is Kind.END else None
        if last is None or last.target is None:
            return found
        position, expected = int(last.target), previous
    found.broken = f"{stream}/{shard_id} has no last generation"
    return found


class Truth(Protocol):
    """What is known of one stream without asking those who wrote the log."""

    @property
    def stream(self) -> str:
        """The stream's name."""
        ...

    @property
    def parents(self) -> Mapping[str, tuple[str, ...]]:
        """The parents of every shard whose records or whose end belong in the log."""
        ...

    def records(self, shard_id: str) -> Sequence[int]:
        """The sequence numbers of the shard's records, ascending."""
        ...

    def closed(self, shard_id: str) -> bool:
        """Whether the shard has ended in the stream."""
        ...

    def unasked(self, shard_id: str, link: Manifest) -> str:
        """Why ``link`` says something of operators, of other applications or of reshards that is not so; empty if it does not."""
        ...

    def expected(self, manifest: Manifest, records: Sequence[int]) -> tuple[frozenset[tuple[str, str, str]], Mapping[str, int]] | None:
        """The unit's files (sink, key, SHA-256) and outcomes, as its definition makes them of ``records``; None if nobody has it.

        Raises:
            StreamError: to make them fails.
        """
        ...

    def place(self, manifest: Manifest, entry: FileEntry) -> str:
        """The full key of a file."""
        ...

    def spelled(self, shard_id: str, records: Sequence[int]) -> str:
        """The records, for people."""
        ...

    def named(self, shard_id: str) -> str:
        """The shard, for people."""
        ...


class Judgement:
    """The log of one stream. ``listed``: the files that count, once every shard was looked at; ``superseded``: those that were replaced.

    ``state``: where the log is. ``writes``: what was done to which key, in order. ``followed``: manifests that a chain leads to.
    """

    def __init__(self, truth: Truth, body_of: BodyOf, state: str, writes: Sequence[tuple[str, str]]) -> None:
        self.truth = truth
        self.body_of = body_of
        self.state = state
        self.writes = writes
        self.listed: set[str] = set()
        self.superseded: set[str] = set()
        self.followed: set[str] = set()
        self._logs: dict[str, ShardLog] = {}

    def log(self, shard_id: str) -> ShardLog:
        """The shard's log as it is now."""
        return shard_log(lambda key: self.body_of(self.state + key), self.truth.stream, shard_id)

    def failures(self) -> Iterator[Failure]:
        """Whatever is wrong with the stream's shards; only files that are left over are looked for later."""
        for shard_id in self.truth.parents:
            try:
                yield from self._of_shard(shard_id)
            except Halted as error:
                yield Failure("P4", f"{self.truth.named(shard_id)}: {error}")
        yield from self._of_order()
        yield from self._of_strays()

    def missing(self, shard_id: str, log: ShardLog) -> list[int]:
        """The records that no link has."""
        spans = [link.span for link in log.links]
        foreign = log.end is not None and log.end.trigger == FOREIGN_END
        return [] if foreign else [each for each in self.truth.records(shard_id) if not any(s.after < each <= s.last for s in spans)]

    def left(self) -> str:
        """What of the stream is not in the log yet, for people; empty if all is."""
        for shard_id in self.truth.parents:
            log = self.log(shard_id)
            if missing := self.missing(shard_id, log):
                return f"{self.truth.named(shard_id)}: no unit has {self.truth.spelled(shard_id, missing)}"
            if self.truth.closed(shard_id) and log.end is None:
                return f"{self.truth.named(shard_id)} has ended in the stream, but not in the log, so that its children never start"
        return ""

    def _of_shard(self, shard_id: str) -> Iterator[Failure]:
        truth, log, records = self.truth, self.log(shard_id), self.truth.records(shard_id)
        self._logs[shard_id] = log
        name = truth.named(shard_id)
        if log.broken:
            yield Failure("P4", f"{name}: {log.broken}")
            return
        if log.begun is not None:
            before = [each for each in records if each <= int(log.begun.after)]
            where = truth.spelled(shard_id, before[-1:]) if before else "the beginning"
            yield Failure("P1", f"{name}: the unit after {where} was begun and never sealed")
            return
        self.followed |= {self.state + key for key in log.every}
        for manifest in log.every.values():
            ledgers = {truth.place(manifest, each) for each in manifest.files if each.sink == LEDGER}
            self.listed |= ledgers
            yield from (Failure("P4", f"{name}: the ledger {key} is missing") for key in ledgers if self.body_of(key) is None)
            self.superseded |= {truth.place(manifest, each) for each in manifest.superseded}
        for link in log.links:
            inside = [each for each in records if link.span.after < each <= link.span.last]
            if link.kind is Kind.UNIT:
                yield from self._of_unit(shard_id, link, inside)
        for link in log.every.values():
            if why := truth.unasked(shard_id, link):
                yield Failure("P4", f"{name}: {why}")
        if missing := self.missing(shard_id, log):
            yield Failure("P1", f"{name}: no unit has {truth.spelled(shard_id, missing)}")
        if truth.closed(shard_id) and log.end is None:
            yield Failure("P1", f"{name} has ended in the stream, but not in the log, so that its children never start")

    def _of_unit(self, shard_id: str, manifest: Manifest, records: Sequence[int]) -> Iterator[Failure]:
        where = f"the unit of {self.truth.named(shard_id)} with {self.truth.spelled(shard_id, records)}"
        for entry in manifest.files:
            key = self.truth.place(manifest, entry)
            self.listed.add(key)
            body = self.body_of(key)
            if body is None:
                yield Failure("P1", f"{where} is sealed, and its file {key} is missing")
            elif sha256_hex(body) != entry.sha256:
                yield Failure("P4", f"{where} is sealed, and its file {key} has other bytes than the manifest says")
        unit = (manifest, tuple(records))
        try:
            expected = self.truth.expected(manifest, records)
        except StreamError as error:
            yield Failure("stages", f"{where} was committed, but to run its stages again fails: {error}", unit)
            return
        if expected is None:
            yield Failure("P2", f"{where} names the definition {manifest.pipeline}, which no worker has")
            return
        promised, outcomes = expected
        committed = {(file.sink, file.key, file.sha256) for file in manifest.files}
        if promised != committed or dict(outcomes) != manifest.outcomes:
            sinks = sorted({sink for sink, _, _ in promised ^ committed}) or ["none"]
            fates = "" if dict(outcomes) == manifest.outcomes else f"; outcomes: {manifest.outcomes}, and should be {dict(outcomes)}"
            what = "what was committed is not what its definition gives for these records"
            yield Failure("rows", f"{where}: {what}; different files: {', '.join(sinks)}{fates}", unit)

    def _of_strays(self) -> Iterator[Failure]:
        """Manifests that no chain leads to: what they list is not there for anybody."""
        folder = f"{self.state}commits/{self.truth.stream}/"
        for key in dict.fromkeys(key for _, key in self.writes if key.startswith(folder) and key not in self.followed):
            if self.body_of(key) is not None and not key.endswith(GENESIS):
                yield Failure("P4", f"the manifest {key} is outside every chain")

    def _of_order(self) -> Iterator[Failure]:
        """P3: no child was begun before all its parents had ended."""
        order: dict[str, int] = {}
        for number, (_, key) in enumerate(self.writes):
            order.setdefault(key, number)
        for shard_id, parents in self.truth.parents.items():
            begun = order.get(self.state + genesis_key(self.truth.stream, shard_id))
            for parent in parents if begun is not None else ():
                every = self._logs[parent].every if parent in self._logs else {}
                ends = [order[self.state + key] for key, link in every.items() if link.kind is Kind.END]
                if not ends or (begun is not None and begun < ends[0]):
                    name = self.truth.named
                    yield Failure("P3", f"{name(shard_id)} was begun before its parent {name(parent)} had ended")


def leftovers(judgements: Sequence[Judgement], beside: Callable[[str], bool]) -> list[str]:
    """P2 for readers that list: files for which ``beside`` is true and which no link in force lists, of all streams together."""
    listed = {key for each in judgements for key in each.listed}
    written = dict.fromkeys(key for each in judgements[:1] for _, key in each.writes)
    return [key for key in written if beside(key) and key not in listed and judgements[0].body_of(key) is not None]
