"""Operations on single shards: list their leases, release one, rewind, skip.

Rewinds and skips are links of the commit log, created where the next unit would begin. A worker that still believes that it has the lease
loses against them as against any other commit. The lease is taken first only to avoid wasted work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from stream.aws.errors import INVALID_ARGUMENT, NOT_FOUND, AwsFatal
from stream.aws.kinesis import IteratorAt, IteratorKind, open_kinesis
from stream.aws.session import AwsSession
from stream.batch import ORIGIN
from stream.clock import SystemClock
from stream.commit.committer import Head, RenderedUnit
from stream.commit.log import CommitLog
from stream.commit.manifest import Manifest
from stream.commit.recovery import recover
from stream.commit.rewind import History, history, rewind_link, skip_link, target_for
from stream.concurrency import ObservableEvent, run_concurrently
from stream.contracts import Clock, Emit, ObjectStore, Shard
from stream.errors import DefinitionError, Fatal, LeaseLost
from stream.lease.coordinator import Coordinator
from stream.lease.pauses import PauseRecord
from stream.lease.rows import Lease, RowProblem
from stream.operations.changes.rewind_refusals import refuse_doubles
from stream.operations.opening import session_of
from stream.pipeline.model import Pipeline
from stream.sink.tables import TableSinkConfig
from stream.source.kinesis import KinesisSource
from stream.worker.assemble import WorkerOptions, assemble, worker_id
from stream.worker.auditing import Stores
from stream.worker.generations import open_newest, open_next
from stream.worker.leasing import ListShards, coordinator_of
from stream.worker.objects.watched import WatchedShards, slices_of
from stream.worker.parts import Parts, StreamParts, to_nobody
from stream.worker.places import located

OPERATOR: Final = "operator/"
"""Prefix of an operator's name in lease rows and in the log."""

LOOKS_AT_ONCE: Final = 8


class LeaseView(msgspec.Struct, frozen=True):
    """One lease as ``stream leases ls`` shows it. ``behind_seconds``: how far its checkpoint is behind the shard's tip, if requested.

    ``set_back``: somebody else set ``checkpoint`` to before what is committed, which changes nothing.
    ``paused``: why an operator has paused the shard.
    """

    stream: str
    shard: str
    owner: str | None
    checkpoint: str
    subsequence: int
    position: str | None
    generation: int
    counter: int
    renewed: str | None
    kilobytes_per_second: float | None
    parents: list[str]
    set_back: bool = False
    behind_seconds: float | None = None
    paused: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation did: the link in the log, the position after which the shard continues, and how many files it removed."""

    manifest: Manifest
    position: int
    files: int


def view_of(stream: str, lease: Lease) -> LeaseView:
    """``lease`` in the form shown to people and programs."""
    progress = lease.progress
    return LeaseView(
        stream=stream,
        shard=lease.shard,
        owner=lease.owner,
        checkpoint=lease.checkpoint.text,
        subsequence=lease.checkpoint.subsequence,
        position=None if progress is None or progress.position is None else str(progress.position),
        generation=0 if progress is None else progress.generation,
        counter=lease.counter,
        renewed=lease.renewed,
        kilobytes_per_second=lease.throughput,
        parents=sorted(lease.parents),
        set_back=lease.set_back,
    )


async def list_leases(pipeline: Pipeline, *, lag: bool, base: Path = Path(), emit: Emit = to_nobody) -> list[LeaseView]:
    """All leases of the pipeline's streams, by stream and shard; with ``lag``, also how far each checkpoint is behind its shard's tip.

    Raises:
        DefinitionError: the pipeline has no leases.
    """
    clock = SystemClock()
    async with _coordinator(pipeline, base, clock, emit) as (coordinator, session, watched):
        pauses = await PauseRecord(Stores.open(pipeline, base, session_of(pipeline)).state).in_force(clock.now())
        scanned = await coordinator.table.scan()
        found = [
            view_of(leased.stream, lease) for leased in coordinator.streams.values() for lease in scanned.leases if leased.owns(lease.key)
        ]
        behind = {}
        if lag:
            behind = await (_behind(found, session) if watched is None else _behind_objects(found, watched, clock.now()))
        shown = []
        for view in sorted(found, key=lambda view: (view.stream, view.shard)):
            pause = pauses.reading(view.stream, view.shard)
            why = None if pause is None else str(pause)
            shown.append(msgspec.structs.replace(view, behind_seconds=behind.get((view.stream, view.shard)), paused=why))
        return shown


async def release_lease(pipeline: Pipeline, stream: str, shard_id: str, emit: Emit = to_nobody) -> str | None:
    """Take the lease from its owner and release it; the previous owner, or None.

    Raises:
        DefinitionError: there is no such lease.
    """
    async with _coordinator(pipeline, Path(), SystemClock(), emit) as (coordinator, _, _):
        before = await _seized(coordinator, stream, shard_id)
        await coordinator.leave()
        return before.owner


async def rewind(
    pipeline: Pipeline, stream: str, shard_id: str, wanted: int, note: str, base: Path, env: Mapping[str, str], emit: Emit = to_nobody
) -> Done:
    """Process the shard again from the unit that holds the record ``wanted`` (``ORIGIN``: from its start), removing what was made of it.

    Raises:
        DefinitionError: no unit holds it; the shard has ended; a sink loads a table, from which rows cannot be removed; a sink of the units
            is gone or elsewhere now; or the units were compacted, or dead letters of them redriven, and what that wrote stays.
        Halted: a person must repair the shard's log first.
    """
    if loaded := [config.name for config in pipeline.sinks if isinstance(config, TableSinkConfig)]:
        msg = f"rows of the sink `{loaded[0]}` are loaded into a table, from which a rewind cannot remove them; nothing was changed"
        raise DefinitionError(msg)
    async with _operation(pipeline, stream, shard_id, base, env, emit) as (parts, shard, head):
        stores = Stores.open(pipeline, base, AwsSession(region=pipeline.source.kinesis.region)).targets
        return await take_back(parts, shard, head, wanted, note, stores)


async def take_back(parts: Parts, shard: Shard, head: Head, wanted: int, note: str, stores: Mapping[str, ObjectStore]) -> Done:
    """Rewind ``shard``, whose chain is complete up to ``head``, as ``rewind`` promises. ``stores``: those of the pipeline's sinks.

    Raises:
        DefinitionError: as ``rewind``.
    """
    known = await history(parts.log, shard, wanted)
    target = ORIGIN if wanted == ORIGIN and known.end is None else target_for(known, wanted)
    link = rewind_link(parts.log, known, head, target, note, parts.clock.now().isoformat())
    await refuse_doubles(parts.log, known, link, target, stores)
    await _commit(parts, shard, link)
    return Done(link, target, len(link.superseded))


async def preview_rewind(pipeline: Pipeline, stream: str, shard_id: str, wanted: int, base: Path) -> tuple[int, History]:
    """Where ``rewind`` would go back to, and the links that count now. Changes nothing."""
    session = AwsSession(region=pipeline.source.kinesis.region)
    log = CommitLog(Stores.open(pipeline, base, session).state, pipeline.application, SystemClock(), OPERATOR)
    known = await history(log, Shard(stream, shard_id), wanted)
    return (ORIGIN if wanted == ORIGIN and known.end is None else target_for(known, wanted)), known


async def skip(
    pipeline: Pipeline, stream: str, shard_id: str, last: int, note: str, base: Path, env: Mapping[str, str], emit: Emit = to_nobody
) -> Done:
    """Skip everything that is not committed yet, up to and including the record ``last``.

    Raises:
        DefinitionError: ``last`` is committed already, or is not a record of the shard.
    """
    async with _operation(pipeline, stream, shard_id, base, env, emit) as (parts, shard, head):
        link = skip_link(parts.log, shard, head, last, note, parts.clock.now().isoformat())
        await _check_position(parts, shard, last)
        await _commit(parts, shard, link)
        return Done(link, last, 0)


@asynccontextmanager
async def _coordinator(
    pipeline: Pipeline, base: Path, clock: Clock, emit: Emit
) -> AsyncIterator[tuple[Coordinator, AwsSession, WatchedShards | None]]:
    native, kinesis = pipeline.leases, pipeline.source.kinesis
    if native is None:
        only = "objects are shared only with `source.s3.watch` and" if pipeline.source.s3 is not None else "for leases, set"
        msg = f"this pipeline has no leases: one worker reads all shards; {only} `coordination: native`"
        raise DefinitionError(msg)
    session = AwsSession(region=kinesis.region, endpoints={"kinesis": kinesis.endpoint} if kinesis.endpoint else None)
    async with AsyncExitStack() as stack:
        me = f"{OPERATOR}{worker_id(clock)}"
        source: AwsSession | ListShards = session
        watched = None
        if pipeline.source.s3 is not None:
            state = Stores.open(pipeline, base, session).state
            slices = slices_of(pipeline, session, state, partial(located, base=base), me, clock)
            watched = WatchedShards(slices, write_blocks=False)
            source = watched.shards
        coordinator = await coordinator_of(pipeline, native, source, me, clock, emit, stack)
        await coordinator.table.open(create=False)
        yield coordinator, session, watched


@asynccontextmanager
async def _operation(
    pipeline: Pipeline, stream: str, shard_id: str, base: Path, env: Mapping[str, str], emit: Emit
) -> AsyncIterator[tuple[Parts, Shard, Head]]:
    """The shard in its newest generation, with its lease taken, if there are leases, and its chain complete up to the head."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        coordinator = None
        if pipeline.leases is not None:
            coordinator, _, _ = await stack.enter_async_context(_coordinator(pipeline, base, clock, emit))
            await _seized(coordinator, stream, shard_id)
            stack.push_async_callback(coordinator.leave)
            # Reading a long chain takes longer than a lease lasts; another worker that took it would commit where the link belongs.
            stack.callback(asyncio.ensure_future(coordinator.keep()).cancel)
        options = WorkerOptions(base, env, drain_seconds=0.0, threads=1, leases=coordinator, clock=clock)
        each = await assemble(pipeline, options, emit, ObservableEvent(), stack)
        one = next(one for one in each if one.stream == stream)
        try:
            shard, head = await recovered(one, await _known_shard(one, shard_id))
        except LeaseLost as error:
            msg = f"{stream}/{shard_id}: somebody else has taken the lease meanwhile; nothing was changed, try again"
            raise DefinitionError(msg) from error
        yield one.parts, shard, head


async def recovered(one: StreamParts, shard: Shard) -> tuple[Shard, Head]:
    """The shard in its newest generation, its chain complete up to the head that is returned.

    Raises:
        DefinitionError: the shard's parents have not ended, so nobody may begin it.
    """
    parts = one.parts
    await _refuse_before_parents(one, shard)
    shard, genesis, start = await open_newest(shard, one.start, parts)

    async def render_again(manifest: Manifest) -> RenderedUnit:
        return await parts.render_again(shard, start, manifest)

    while True:
        head = await recover(parts.committer, shard, genesis, render_again)
        if head.target is None:
            return shard, head
        shard, genesis = await open_next(shard, start, parts, head)


async def _refuse_before_parents(one: StreamParts, shard: Shard) -> None:
    """A chain begins only once those of its parents have ended; who only looks for its head would begin it, too."""
    if not shard.parents or await one.parts.log.genesis(shard) is not None:
        return
    listed = {each.shard_id for each in await one.parts.source.shards()}
    for parent in sorted(listed & set(shard.parents)):
        if (await history(one.parts.log, Shard(shard.stream, parent))).end is None:
            msg = f"{shard.stream}/{shard.shard_id} has not begun: its parent {parent} is not read to its end; nothing was changed"
            raise DefinitionError(msg)


async def _known_shard(one: StreamParts, shard_id: str) -> Shard:
    listed = {shard.shard_id: shard for shard in await one.parts.source.shards()}
    if shard_id in listed:
        return listed[shard_id]
    if await one.parts.log.genesis(Shard(one.stream, shard_id)) is None:
        msg = f"neither the stream {one.stream} nor its commit log has a shard {shard_id}; there are: {', '.join(sorted(listed))}"
        raise DefinitionError(msg)
    return Shard(one.stream, shard_id)


async def _commit(parts: Parts, shard: Shard, link: Manifest) -> None:
    async def never(_manifest: Manifest) -> RenderedUnit:
        msg = f"{shard.stream}/{shard.shard_id}: a worker has begun a unit meanwhile; wait until it has finished, then try again"
        raise DefinitionError(msg)

    try:
        entry = await parts.committer.commit(shard, RenderedUnit(link, ()), never)
    except LeaseLost:
        # Losing the lease only prevents moving the hint: a link is in the log now.
        found = await parts.repeat("read manifest", shard, lambda: parts.log.read(shard, int(link.after)))
        if found is None:
            raise
        entry = found
    except Fatal as error:
        if await parts.log.read(shard, int(link.after)) is None:
            raise
        where = f"{shard.stream}/{shard.shard_id}"
        msg = f"{where}: this is in the log now, so it holds; whoever takes the shard up does what was left of it: {error}"
        raise Fatal(msg) from error
    stored = entry.manifest
    if (stored.kind, stored.target, stored.last) != (link.kind, link.target, link.last):
        msg = f"{shard.stream}/{shard.shard_id}: a worker has committed up to {stored.reach} meanwhile; nothing was changed, try again"
        raise DefinitionError(msg)


async def _check_position(parts: Parts, shard: Shard, last: int) -> None:
    if not isinstance(parts.source, KinesisSource):
        return
    at = IteratorAt(IteratorKind.AFTER, sequence=str(last))
    try:
        await parts.source.client.get_shard_iterator(shard.stream, shard.shard_id, at)
    except AwsFatal as error:
        if error.code != INVALID_ARGUMENT:
            raise
        msg = f"{last} is not a sequence number of {shard.stream}/{shard.shard_id}, so reading could not continue after it: {error}"
        raise DefinitionError(msg) from error


async def _behind(views: list[LeaseView], session: AwsSession) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    async with open_kinesis(session) as client:

        async def look(view: LeaseView) -> None:
            after = view.position or (view.checkpoint if view.checkpoint.isdigit() else "0")
            at = IteratorAt(IteratorKind.TRIM_HORIZON) if after == "0" else IteratorAt(IteratorKind.AFTER, sequence=after)
            try:
                iterator = await client.get_shard_iterator(view.stream, view.shard, at)
                found[view.stream, view.shard] = (await client.get_records(view.stream, iterator, 1)).behind_ms / 1000
            except AwsFatal as error:
                if error.code not in {INVALID_ARGUMENT, NOT_FOUND}:
                    raise
                return  # the shard, or the position in it, is gone, so there is no lag

        await run_concurrently([look(view) for view in views if view.checkpoint != "SHARD_END"], LOOKS_AT_ONCE)
    return found


async def _behind_objects(views: list[LeaseView], watched: WatchedShards, now: datetime) -> dict[tuple[str, str], float]:
    ages = {(view.stream, view.shard): await watched.behind(view.shard, int(view.position or 0), now) for view in views}
    return {where: age for where, age in ages.items() if age is not None}


async def _seized(coordinator: Coordinator, stream: str, shard_id: str) -> Lease:
    name = coordinator.table.name
    try:
        before = await coordinator.seize(stream, shard_id)
    except RowProblem as error:
        msg = f"table {name}: {error}; repair it, or stop the workers and delete it: it is created again"
        raise DefinitionError(msg) from error
    if before is None:
        key = coordinator.streams[stream].key(shard_id)
        msg = f"the lease table {name} has no lease {key}; `stream leases ls` lists those that exist"
        raise DefinitionError(msg)
    return before
