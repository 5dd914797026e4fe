"""Checks from the outside what a schedule has left in the stores and tables: the promises of docs/guarantees.md, for this pipeline.

What is true is known without asking the workers: which records were put, in which order, and what the definition makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from stream.audit.report import Verdict
from stream.audit.verify import Scope, Verifier
from stream.batch import RAW_SCHEMA, Batch, Outcome
from stream.commit.log import CommitLog
from stream.commit.manifest import FileEntry, Kind, Manifest, decode
from stream.contracts import Checkpoints, Shard, shard_of_chain
from stream.errors import Halted
from stream.lease.checkpoints import StoredCheckpoints
from stream.lease.native import TableCheckpoints
from stream.simulation.fleet import leases_of, source_of, table_of
from stream.simulation.leasing import lease_failures, pause_failures
from stream.simulation.places import SimulatedStore, at_once, prefix_of
from stream.simulation.promises import FOREIGN_END, Failure, Judgement, leftovers
from stream.simulation.world import Put, World, named
from stream.worker.opening.evidence import StoredEvidence
from stream.worker.opening.places import located
from stream.worker.opening.stores import Stores
from stream.worker.recipes.recipe import CutUnit, render

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def judge(world: World) -> list[Failure]:
    """Everything that is wrong after the schedule was played; nothing, if it went as promised."""
    found = [Failure("halted", f"{where} is halted: {why}") for where, why in sorted(world.halted.items())]
    found += [Failure("ended", f"{who} ended with an error: {why}") for who, why in world.ended]
    if found:
        return found
    judgements = [judgement(world, stream) for stream in world.subject.streams]
    for each in judgements:
        found += each.failures()
    found += [
        Failure("P2", f"the file {key} is left over: no sealed manifest lists it, and readers that list the folder read it")
        for key in leftovers(judgements, _beside(world))
    ]
    found += [*_redefined(world), *lease_failures(world), *pause_failures(world)]
    for stream in world.subject.streams:
        found += await _audit(world, stream)
    return found


def _redefined(world: World) -> Iterator[Failure]:
    """P2 in a rolling update: whoever finishes a unit runs the definition with which it was begun."""
    for key, digest in world.begun.items():
        body = _body(world, key)
        now = None if body is None else decode(body, key)
        if now is not None and now.kind is Kind.UNIT and now.pipeline != digest:
            yield Failure("P2", f"the unit {key} was begun with the definition {digest}, and finished with {now.pipeline}")


def left(world: World) -> str:
    """What of all that was put is not committed yet, for people; empty if all is."""
    return next((undone for stream in world.subject.streams if (undone := judgement(world, stream).left())), "")


def judgement(world: World, stream: str) -> Judgement:
    """The log of ``stream`` as it is now, and how to judge it."""
    return Judgement(_Stream(world, stream), lambda key: _body(world, key), state_of(world), world.writes)


def state_of(world: World) -> str:
    """Where the application's state is."""
    pipeline, _ = world.subject.version(newer=False)
    return prefix_of(located(pipeline.state, world.subject.base)) + f"{pipeline.application}/"


def _body(world: World, key: str) -> bytes | None:
    stored = at_once(world.bucket.get(key))
    return None if stored is None else stored.body


def _beside(world: World) -> Callable[[str], bool]:
    """Whether a key is that of a file which readers of a sink, or of the ledger, would find."""
    state, files = state_of(world), [world.subject.version(newer=newer)[0] for newer in (False, True)]
    sinks = {prefix_of(located(config.url, world.subject.base)) for each in files for config in each.sinks}
    own = (f"{state}ledger/", f"{state}rejects/")
    return lambda key: key.startswith(own) or (key.startswith(tuple(sinks)) and not key.startswith(state))


def batch_of(puts: Sequence[Put]) -> Batch:
    """The user records of ``puts``, as a reader that makes no mistake delivers them."""
    rows = [
        (str(put.sequence), place, _EPOCH + timedelta(milliseconds=put.arrival_ms), put.key, content, int(Outcome.PENDING))
        for put in puts
        for place, content in enumerate(put.contents)
    ]
    return Batch(pl.DataFrame(rows, schema=RAW_SCHEMA, orient="row"), sum(len(row[4]) for row in rows))


class _Stream:
    """A ``Truth``: what was put into a stream, and what becomes of its shards."""

    def __init__(self, world: World, stream: str) -> None:
        self.stream = stream
        self._world = world
        self._shards = world.state.account.streams[stream].shards
        puts = [put for put in world.puts if put.stream == stream]
        self._puts = {shard: {put.sequence: put for put in puts if put.shard == shard} for shard in self._shards}

    @property
    def parents(self) -> Mapping[str, tuple[str, ...]]:
        """See ``Truth``."""
        return {name: tuple(one.parents) for name, one in self._shards.items() if self._puts[name] or not one.is_open}

    def records(self, shard_id: str) -> Sequence[int]:
        """See ``Truth``."""
        return list(self._puts[shard_id])

    def closed(self, shard_id: str) -> bool:
        """See ``Truth``."""
        return not self._shards[shard_id].is_open

    def unasked(self, shard_id: str, link: Manifest) -> str:  # noqa: ARG002 - the same of every shard
        """See ``Truth``: operators rewind, and nobody else has these shards."""
        if link.kind in {Kind.GENESIS, Kind.UNIT, Kind.REWIND, Kind.END} and link.foreign_subsequence < 0 and link.trigger != FOREIGN_END:
            return ""
        return f"the log has a `{link.kind}` link that nobody asked for, or records of another application, and there is none"

    def expected(self, manifest: Manifest, records: Sequence[int]) -> tuple[frozenset[tuple[str, str, str]], Mapping[str, int]] | None:
        """See ``Truth``."""
        recipe = self._world.subject.known.recipes.get(manifest.pipeline)
        if recipe is None:
            return None
        shard_id, generation = shard_of_chain(manifest.shard)
        where = Shard(self.stream, shard_id, generation=generation)
        unit = CutUnit(where, manifest.span, (self.batch(shard_id, records),), manifest.trigger, manifest.foreign_subsequence)
        made = render(recipe, unit).unit
        return frozenset((file.sink, file.key, file.sha256) for file in made.files), made.manifest.outcomes

    def batch(self, shard_id: str, records: Sequence[int]) -> Batch:
        """The records as a batch."""
        return batch_of([self._puts[shard_id][each] for each in records])

    def place(self, manifest: Manifest, entry: FileEntry) -> str:
        """See ``Truth``."""
        own = {"ledger": "ledger/v1/", "rejects": "rejects/"}
        folder = state_of(self._world) + own[entry.sink] if entry.sink in own else prefix_of(manifest.targets[entry.sink])
        return folder + entry.key

    def spelled(self, shard_id: str, records: Sequence[int]) -> str:
        """See ``Truth``."""
        return spelled([self._puts[shard_id][each] for each in records])

    def named(self, shard_id: str) -> str:
        """See ``Truth``."""
        return named(self._world.subject.streams, self.stream, shard_id)


def records_of(world: World, failure: Failure) -> Batch | None:
    """The records of the unit whose rows are wrong; None if the failure is not about rows."""
    if failure.unit is None:
        return None
    manifest, records = failure.unit
    return _Stream(world, manifest.stream).batch(shard_of_chain(manifest.shard)[0], records)


async def _audit(world: World, stream: str) -> list[Failure]:
    """What `stream audit verify` says, which reads the log, the files and the stream by its own code."""
    pipeline, _ = world.subject.version(newer=True)
    process = world.observer("audit")

    def open_place(url: str) -> SimulatedStore:
        return SimulatedStore(world.bucket, url, process, lambda _what, _key: None)

    stores = Stores.over(pipeline, world.subject.base, open_place)
    log = CommitLog(stores.state, pipeline.application, process.clock, process.name)
    leases = await leases_of(world.around, process, newer=True)
    checkpoints: Checkpoints = StoredCheckpoints(stores.state)
    if leases is not None:
        checkpoints = TableCheckpoints(table_of(pipeline, world.tables, process), leases.streams[stream].prefix)
    evidence = StoredEvidence(
        log,
        stores.areas(located(pipeline.state, world.subject.base), stream),
        checkpoints,
        stream,
        source_of(world.subject, stream, world.state, process),
        datetime.min.replace(tzinfo=UTC),
        open_place,
        deletes_ended_checkpoints=leases is not None,
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
