"""Rewinds a shard, or skips what is not committed yet.

Rewinds and skips are links of the commit log, created where the next unit would begin. A worker that still believes that it has the lease
loses against them as against any other commit. The lease is taken first only to avoid wasted work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from stream.aws.errors import INVALID_ARGUMENT, AwsFatal
from stream.aws.kinesis import IteratorAt, IteratorKind
from stream.batch import ORIGIN
from stream.clock import SystemClock
from stream.commit.committer import Head, RenderedUnit
from stream.commit.log import CommitLog
from stream.commit.manifest import Manifest
from stream.commit.recovery import recover
from stream.commit.rewind import History, history, rewind_link, skip_link, target_for
from stream.concurrency import ObservableEvent
from stream.contracts import Emit, ObjectStore, Shard
from stream.errors import DefinitionError, Fatal, LeaseLost
from stream.operations.changes.leases import OPERATOR, open_coordinator, seize_lease
from stream.operations.changes.rewind_refusals import refuse_doubles, refuse_tables
from stream.pipeline.model import Pipeline
from stream.source.kinesis import KinesisSource
from stream.worker.assemble import WorkerOptions, assemble
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.parts import Parts, StreamParts, to_nobody
from stream.worker.shards.generations import open_newest, open_next


@dataclass(frozen=True, slots=True)
class AppliedLink:
    """What a rewind or skip did: the link in the log, the position after which the shard continues, and how many files it removed."""

    manifest: Manifest
    position: int
    files: int


async def rewind(
    pipeline: Pipeline, stream: str, shard_id: str, wanted: int, note: str, base: Path, env: Mapping[str, str], emit: Emit = to_nobody
) -> AppliedLink:
    """Process the shard again from the unit that holds the record ``wanted`` (``ORIGIN``: from its start), removing what was made of it.

    Raises:
        DefinitionError: no unit holds it; the shard has ended; a sink loads a table, from which rows cannot be removed; a sink of the units
            is gone or elsewhere now; or the units were compacted, or dead letters of them redriven, and what that wrote stays.
        Halted: a person must repair the shard's log first.
    """
    refuse_tables(pipeline)
    async with _operation(pipeline, stream, shard_id, base, env, emit) as (parts, shard, head):
        stores = Stores.open(pipeline, base, session_of(pipeline)).targets
        return await take_back(parts, shard, head, wanted, note, stores)


async def take_back(parts: Parts, shard: Shard, head: Head, wanted: int, note: str, stores: Mapping[str, ObjectStore]) -> AppliedLink:
    """Rewind ``shard``, whose chain is complete up to ``head``, as ``rewind`` promises. ``stores``: those of the pipeline's sinks.

    Raises:
        DefinitionError: as ``rewind``.
    """
    known = await history(parts.log, shard, wanted)
    target = ORIGIN if wanted == ORIGIN and known.end is None else target_for(known, wanted)
    link = rewind_link(parts.log, known, head, target, note, parts.clock.now().isoformat())
    await refuse_doubles(parts.log, known, link, target, stores)
    await _commit(parts, shard, link)
    return AppliedLink(link, target, len(link.superseded))


async def preview_rewind(pipeline: Pipeline, stream: str, shard_id: str, wanted: int, base: Path) -> tuple[int, History]:
    """Where ``rewind`` would go back to, and the links that count now. Changes nothing.

    Raises:
        DefinitionError: as ``rewind``, if that is known without looking at files.
    """
    refuse_tables(pipeline)
    session = session_of(pipeline)
    log = CommitLog(Stores.open(pipeline, base, session).state, pipeline.application, SystemClock(), OPERATOR)
    known = await history(log, Shard(stream, shard_id), wanted)
    return (ORIGIN if wanted == ORIGIN and known.end is None else target_for(known, wanted)), known


async def skip(
    pipeline: Pipeline, stream: str, shard_id: str, last: int, note: str, base: Path, env: Mapping[str, str], emit: Emit = to_nobody
) -> AppliedLink:
    """Skip everything that is not committed yet, up to and including the record ``last``.

    Raises:
        DefinitionError: ``last`` is committed already, or is not a record of the shard.
    """
    async with _operation(pipeline, stream, shard_id, base, env, emit) as (parts, shard, head):
        link = skip_link(parts.log, shard, head, last, note, parts.clock.now().isoformat())
        await _check_position(parts, shard, last)
        await _commit(parts, shard, link)
        return AppliedLink(link, last, 0)


@asynccontextmanager
async def _operation(
    pipeline: Pipeline, stream: str, shard_id: str, base: Path, env: Mapping[str, str], emit: Emit
) -> AsyncIterator[tuple[Parts, Shard, Head]]:
    """The shard in its newest generation, with its lease taken, if there are leases, and its chain complete up to the head."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        coordinator = None
        if pipeline.leases is not None:
            coordinator, _, _ = await stack.enter_async_context(open_coordinator(pipeline, base, clock, emit))
            await seize_lease(coordinator, stream, shard_id)
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
    """Finding the head of a chain begins the chain, which must not happen before those of its parents have ended."""
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
        msg = f"{where}: this is in the log now, so it holds; the next worker of the shard completes it: {error}"
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
