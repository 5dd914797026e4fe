"""Takes over the positions of another consumer into lease rows: reads them, plans, and writes what is planned.

The other consumer's table is only read. A row is written only where there is none, so nothing that a worker knows is ever lowered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from stream.audit.completeness import Found
from stream.aws.dynamodb import TABLE_MISSING, Item
from stream.aws.errors import AwsFatal
from stream.aws.kinesis import open_kinesis
from stream.commit.log import CommitLog
from stream.commit.retry import Repeater
from stream.concurrency import run_concurrently
from stream.contracts import Clock, Emit, ObjectStore, Shard, Start, StartKind
from stream.errors import DefinitionError
from stream.lease.foreign_positions import ForeignPositions, from_csv, from_table, kind_of
from stream.lease.positions import Fate, Step, plan, row_of
from stream.lease.rows import Lease
from stream.lease.settings import LeasedStream
from stream.lease.table import LeaseTable
from stream.operations.progress.stream_lookahead import StreamLookahead
from stream.pipeline.model import Pipeline
from stream.source.access import described
from stream.worker.coordination.leasing import leased_streams, open_table
from stream.worker.opening.identity import only_compared
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores

TABLE: Final = "dynamodb:"
"""What the name of a table begins with, where it could also be a file's."""

AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a position is behind. ``behind``: since the next record arrived; None if not known. ``expired``: why records are gone."""

    behind: timedelta | None = None
    expired: str = ""


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import will do. ``lags``: of the rows that it writes, by shard; ``busy``: shards that the other consumer reads, and why."""

    stream: str
    table: str
    kind: str
    tells_who_reads: bool
    steps: tuple[Step, ...]
    lags: dict[str, Lag]
    busy: dict[str, str]

    @property
    def writes(self) -> list[Step]:
        """The steps that write a row."""
        return [step for step in self.steps if step.fate is Fate.WRITE]

    @property
    def refused(self) -> list[Step]:
        """The steps because of which nothing may be written."""
        return [step for step in self.steps if step.fate is Fate.REFUSE]


async def plan_import(pipeline: Pipeline, source: str, base: Path, clock: Clock, emit: Emit) -> ImportPlan:
    """What it takes to continue after the positions in ``source``, a CSV file or ``dynamodb:TABLE``. Changes nothing.

    ``pipeline`` is narrowed to one stream; ``base``: the folder of its file.

    Raises:
        DefinitionError: the pipeline has no leases, the positions cannot be read, or are of another stream.
        OtherStream: the log is of another stream than the one that is found.
        StreamError: a service refused.
    """
    name = pipeline.source.kinesis.stream
    async with _opened(pipeline, base, clock, emit) as (table, leased, lookahead, state):
        repeat = Repeater(clock, emit)
        now = await lookahead.time()
        found = await _read(source, table, name, now, repeat)
        shards = await leased.list_shards()
        leases = await _leases(table, leased)
        log = CommitLog(state, pipeline.application, clock, "import")
        begun = await _begun(log, shards, repeat)
        steps = plan(shards, found.positions, leases, begun, pipeline.source.kinesis.start.kind)
        if all(step.fate is Fate.GONE for step in steps if step.shard in {each.shard for each in found.positions}):
            msg = f"{source}: none of its {len(found.positions)} positions is of a shard that the stream {name} has; nothing was written"
            raise DefinitionError(msg)
        by_id = {shard.shard_id: shard for shard in shards}
        lags = await _lags(lookahead, by_id, steps, now)
        steps = [await _without_unknown(lookahead, by_id, step, repeat) if _expired(lags, step) else step for step in steps]
        busy = {each.shard: each.busy for each in found.positions if each.busy}
        lags = {step.shard: lags[step.shard] for step in steps if step.fate is Fate.WRITE and step.shard in lags}
        return ImportPlan(name, table.name, found.kind, found.tells_who_reads, tuple(steps), lags, busy)


async def write_import(pipeline: Pipeline, planned: ImportPlan, base: Path, clock: Clock, emit: Emit) -> None:
    """Write the rows of ``planned``; the table is created if it is missing and the pipeline allows it.

    Raises:
        DefinitionError: somebody has created one of the rows meanwhile; that row is left as it is.
        OtherStream: the log is of another stream than the one that is found, so nothing is written.
        StreamError: a service refused.
    """
    native = pipeline.coordination.native
    async with _opened(pipeline, base, clock, emit) as (table, leased, _, _):
        await table.open(create=native is not None and native.create_table)
        shards = {shard.shard_id: shard for shard in await leased.list_shards()}
        met: list[str] = []

        async def write(step: Step) -> None:
            shard = shards.get(step.shard)
            if shard is None or not await table.create(row_of(step, shard, leased.key(step.shard), leased.stream_name)):
                met.append(step.shard)

        await run_concurrently([write(step) for step in planned.writes], AT_ONCE)
        if met:
            msg = (
                f"{len(planned.writes) - len(met)} rows were written to the table {table.name}; for {', '.join(sorted(met))} somebody was "
                "faster, or the stream has changed. Stop all workers and import again: what is there already is left as it is"
            )
            raise DefinitionError(msg)


@asynccontextmanager
async def _opened(
    pipeline: Pipeline, base: Path, clock: Clock, emit: Emit
) -> AsyncIterator[tuple[LeaseTable, LeasedStream, StreamLookahead, ObjectStore]]:
    """The lease table, the stream in it, what looks into it, and the state: after the stream was found to be the one that the log is of."""
    if pipeline.source.s3 is not None:
        msg = "the pipeline reads objects of `source.s3`, which have no positions of Kinesis"
        raise DefinitionError(msg)
    native = pipeline.coordination.native
    if native is None:
        msg = (
            "positions are taken over into lease rows, which this pipeline does not use: set `coordination: native`, which works for a "
            "single worker too, and import before the first run"
        )
        raise DefinitionError(msg)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_kinesis(session_of(pipeline)))
        name, repeat = pipeline.source.kinesis.stream, Repeater(clock, emit)
        state = Stores.open(pipeline, base, session_of(pipeline)).state
        compared = only_compared(client, state, name)
        await repeat("describe stream", Shard(name, ""), lambda: described(client, name, compared))
        leased = next(each for each in await leased_streams(pipeline, client, repeat) if each.stream == name)
        yield await open_table(pipeline, native, clock, emit, stack), leased, StreamLookahead(client, name, clock), state


async def _read(source: str, table: LeaseTable, stream: str, now: datetime, repeat: Repeater) -> ForeignPositions:
    if not source.startswith(TABLE):
        return _from_file(source, stream)
    name, whole = source.removeprefix(TABLE), Shard(stream, "")
    if name == table.name:
        msg = f"{source} is the lease table of this pipeline itself: give coordination.native.table another name"
        raise DefinitionError(msg)

    async def call(operation: str, request: dict[str, Any]) -> dict[str, Any]:
        return await repeat(f"read {name}", whole, lambda: table.client.call(operation, name, request))

    try:
        described = (await call("DescribeTable", {}))["Table"]
    except AwsFatal as error:
        if error.code != TABLE_MISSING:
            raise
        msg = f"there is no table {name} ({table.client.place})"
        raise DefinitionError(msg) from error
    keys = sorted(described["KeySchema"], key=lambda key: key["KeyType"] != "HASH")
    kind = kind_of(name, [key["AttributeName"] for key in keys])
    items: list[Item] = []
    request: dict[str, Any] = {"ConsistentRead": True}
    while True:
        answer = await call("Scan", request)
        items += answer["Items"]
        if "LastEvaluatedKey" not in answer:
            break
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
    found = from_table(kind, name, items, stream, now)
    if not found.positions:
        msg = f"the table {name} of {kind.name} has no positions of the stream {stream}, in {len(items)} rows"
        raise DefinitionError(msg)
    return found


def _from_file(source: str, stream: str) -> ForeignPositions:
    try:
        return from_csv(Path(source).read_text(encoding="utf-8"), source, stream)
    except (OSError, UnicodeDecodeError) as error:
        msg = f"--from {source}: the file cannot be read: {error}. Name a CSV file, or a table as {TABLE}NAME"
        raise DefinitionError(msg) from error


async def _leases(table: LeaseTable, leased: LeasedStream) -> dict[str, Lease]:
    if not await table.exists():
        return {}
    await table.open(create=False)
    return {lease.shard: lease for lease in (await table.scan()).leases if leased.owns(lease.key)}


async def _begun(log: CommitLog, shards: Sequence[Shard], repeat: Repeater) -> Collection[str]:
    found: set[str] = set()

    async def check(shard: Shard) -> None:
        if await repeat("read log", shard, lambda: log.genesis(shard)) is not None:
            found.add(shard.shard_id)

    await run_concurrently([check(shard) for shard in shards], AT_ONCE)
    return found


def _expired(lags: Mapping[str, Lag], step: Step) -> bool:
    return step.shard in lags and bool(lags[step.shard].expired)


async def _without_unknown(lookahead: StreamLookahead, shards: Mapping[str, Shard], step: Step, repeat: Repeater) -> Step:
    """``step``, refused if its position is of no record that its shard ever had."""
    number = None if step.checkpoint is None else step.checkpoint.sequence
    shard = shards[step.shard]
    if number is None or not await repeat("look for the position", shard, lambda: lookahead.never_had(shard, number)):
        return step
    why = "the shard has no record with this number, and holds older ones, so it did not expire: it belongs to another shard or stream"
    return Step(step.shard, Fate.REFUSE, why, step.position)


async def _lags(lookahead: StreamLookahead, shards: dict[str, Shard], steps: Sequence[Step], now: datetime) -> dict[str, Lag]:
    found: dict[str, Lag] = {}

    async def check(step: Step, position: int) -> None:
        seen = await lookahead.after(shards[step.shard], position, Start(StartKind.TRIM_HORIZON), None, now)
        match seen.found:
            case Found.RECORD if seen.arrived is not None:
                found[step.shard] = Lag(max(now - seen.arrived, timedelta()))
            case Found.TIP | Found.END:
                found[step.shard] = Lag(timedelta())
            case Found.EXPIRED:
                found[step.shard] = Lag(expired=seen.why)
            case _:
                found[step.shard] = Lag()

    numbers = [(step, step.checkpoint.sequence) for step in steps if step.fate is Fate.WRITE and step.checkpoint is not None]
    await run_concurrently([check(step, number) for step, number in numbers if number is not None], AT_ONCE)
    return found
