"""Leases as an operator sees them: all of them, how far each is behind; and taking one from its owner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from stream.aws.errors import INVALID_ARGUMENT, NOT_FOUND, AwsFatal
from stream.aws.kinesis import IteratorAt, IteratorKind, open_kinesis
from stream.aws.session import AwsSession
from stream.clock import SystemClock
from stream.concurrency import run_concurrently
from stream.contracts import Clock, Emit
from stream.errors import DefinitionError
from stream.lease.coordinator import Coordinator
from stream.lease.pauses import PauseRecord
from stream.lease.rows import Lease, RowProblem
from stream.pipeline.model import Pipeline
from stream.worker.assemble import worker_id
from stream.worker.coordination.leasing import ListShards, coordinator_of
from stream.worker.objects.watched import WatchedShards, slices_of
from stream.worker.opening.places import located, session_of
from stream.worker.opening.stores import Stores
from stream.worker.parts import to_nobody

OPERATOR: Final = "operator/"
"""Prefix of an operator's name in lease rows and in the log."""

ASKED_AT_ONCE: Final = 8
"""Shards whose tip is asked for at a time."""


class LeaseView(msgspec.Struct, frozen=True):
    """One lease as ``stream leases ls`` shows it. ``behind_seconds``: how far its checkpoint is behind the shard's tip, if requested.

    ``set_back``: somebody else set ``checkpoint`` to before what is committed, which changes nothing.
    ``paused``: why an operator has paused the shard. ``without_access``: the owner says that access is refused to it, or nothing answers.
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
    without_access: bool = False


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
        without_access=lease.out_of_reach,
    )


async def list_leases(pipeline: Pipeline, *, lag: bool, base: Path = Path(), emit: Emit = to_nobody) -> list[LeaseView]:
    """All leases of the pipeline's streams, by stream and shard; with ``lag``, also how far each checkpoint is behind its shard's tip.

    Raises:
        DefinitionError: the pipeline has no leases.
    """
    clock = SystemClock()
    async with open_coordinator(pipeline, base, clock, emit) as (coordinator, session, watched):
        pauses = await PauseRecord(Stores.open(pipeline, base, session_of(pipeline)).state).in_force(clock.now())
        scanned = await coordinator.table.scan()
        found = [
            view_of(leased.stream, lease) for leased in coordinator.streams.values() for lease in scanned.leases if leased.owns(lease.key)
        ]
        behind = {}
        if lag:
            behind = await (_seconds_behind(found, session) if watched is None else _seconds_behind_objects(found, watched, clock.now()))
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
    async with open_coordinator(pipeline, Path(), SystemClock(), emit) as (coordinator, _, _):
        before = await seize_lease(coordinator, stream, shard_id)
        await coordinator.leave()
        return before.owner


@asynccontextmanager
async def open_coordinator(
    pipeline: Pipeline, base: Path, clock: Clock, emit: Emit
) -> AsyncIterator[tuple[Coordinator, AwsSession, WatchedShards | None]]:
    """A coordinator in an operator's name without leases, the session, and what lists the shards if they are of watched objects.

    Raises:
        DefinitionError: the pipeline has no leases.
    """
    native = pipeline.leases
    if native is None:
        only = "objects are shared only with `source.s3.watch` and" if pipeline.source.s3 is not None else "for leases, set"
        msg = f"this pipeline has no leases: one worker reads all shards; {only} `coordination: native`"
        raise DefinitionError(msg)
    session = session_of(pipeline)
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


async def seize_lease(coordinator: Coordinator, stream: str, shard_id: str) -> Lease:
    """Take the lease of a shard from its owner. Returns it as it was.

    Raises:
        DefinitionError: there is no such lease, or its row cannot be read.
    """
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


async def _seconds_behind(views: list[LeaseView], session: AwsSession) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    async with open_kinesis(session) as client:

        async def ask(view: LeaseView) -> None:
            after = view.position or (view.checkpoint if view.checkpoint.isdigit() else "0")
            at = IteratorAt(IteratorKind.TRIM_HORIZON) if after == "0" else IteratorAt(IteratorKind.AFTER, sequence=after)
            try:
                iterator = await client.get_shard_iterator(view.stream, view.shard, at)
                found[view.stream, view.shard] = (await client.get_records(view.stream, iterator, 1)).behind_ms / 1000
            except AwsFatal as error:
                if error.code not in {INVALID_ARGUMENT, NOT_FOUND}:
                    raise
                return  # the shard, or the position in it, is gone, so there is no lag

        await run_concurrently([ask(view) for view in views if view.checkpoint != "SHARD_END"], ASKED_AT_ONCE)
    return found


async def _seconds_behind_objects(views: list[LeaseView], watched: WatchedShards, now: datetime) -> dict[tuple[str, str], float]:
    ages = {(view.stream, view.shard): await watched.behind(view.shard, int(view.position or 0), now) for view in views}
    return {where: age for where, age in ages.items() if age is not None}
