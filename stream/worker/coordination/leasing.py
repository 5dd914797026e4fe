"""The leases of one worker, built from a pipeline, and what its supervisors need from them."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from random import Random
from typing import Final, Protocol, TypeAlias

from stream.aws.dynamodb import open_dynamodb
from stream.aws.errors import AccessRefused
from stream.aws.kinesis import KinesisClient, open_kinesis
from stream.aws.session import AwsSession
from stream.commit.retry import Repeater
from stream.contracts import Clock, Emit, Shard, StartKind
from stream.errors import Fatal, StreamError
from stream.lease.alone import observe_alone
from stream.lease.coordinator import Coordinator
from stream.lease.decide import ObservedLease
from stream.lease.settings import UNLIMITED, Balance, LeasedStream, LeaseSettings
from stream.lease.table import LeaseTable
from stream.pipeline.coordination import LeaseBalance, NativeCoordination
from stream.pipeline.model import KinesisSource, Pipeline
from stream.stream_ids import name_of

MARK_BYTES: Final = 6
"""Random bytes in the mark of each write, so that no two writes of one row ever carry the same mark."""


ListShards: TypeAlias = Callable[[], Awaitable[list[Shard]]]
"""Lists the shards of a watched source."""


class Leases(Protocol):
    """Which shards of a stream this worker may read now; this changes over time."""

    listeners: list[Callable[[], None]]

    def runnable(self, stream: str) -> set[str]:
        """Ids of shards that may be read now."""
        ...

    def held(self, stream: str) -> set[str]:
        """Ids of all shards that this worker holds, including those that must wait."""
        ...

    def wanted_elsewhere(self, stream: str, shard_id: str) -> bool:
        """Whether another worker is to have the shard: release it as soon as the unit in progress is sealed."""
        ...

    def read_elsewhere(self, stream: str) -> bool:
        """Whether another worker holds the lease of a shard of the stream that may be read now."""
        ...

    def finished_elsewhere(self, stream: str, shard_id: str) -> list[str]:
        """Shards before this one that another application has read to the end, of which the log may not know yet; the oldest first."""
        ...

    def from_its_beginning(self, stream: str, shard_id: str) -> bool:
        """Whether the shard must be read from its first record, although the stream is read from its tip."""
        ...

    def waiting(self, stream: str) -> dict[str, str | None]:
        """Ids of shards that may be read now, whoever holds them, and their holders."""
        ...

    def refused(self, stream: str, shard_id: str) -> None:
        """Let other workers know that this one cannot work on the shard, so that one that can may take it."""
        ...

    def inherited(self, stream: str, shard_id: str) -> bool:
        """Whether the shard was taken from a worker that could not work on it either."""
        ...

    async def settle(self) -> None:
        """Create the leases that are missing for the streams' shards, as they are listed now, and take those that are free."""
        ...

    async def release(self, stream: str, shard_id: str, *, avoid: bool = False) -> None:
        """Release the shard; with ``avoid``, never take it again."""
        ...

    async def done(self, stream: str, shard_id: str) -> None:
        """Note that the shard has been read to its end."""
        ...

    async def stop_taking(self) -> None:
        """Take no further shards; may be called more than once."""
        ...

    async def run(self) -> None:
        """Keep the leases until cancelled; raises ``Fatal`` if that cannot be done."""
        ...

    async def leave(self) -> None:
        """Release all leases at once."""
        ...


async def open_table(pipeline: Pipeline, options: NativeCoordination, clock: Clock, emit: Emit, stack: AsyncExitStack) -> LeaseTable:
    """The pipeline's lease table, without reading it yet; connections live as long as ``stack``."""
    session = AwsSession(region=options.region, endpoints={"dynamodb": options.endpoint} if options.endpoint else None)
    client = await stack.enter_async_context(open_dynamodb(session, clock))
    return LeaseTable(client, options.tables(pipeline.application).leases, clock, emit, lambda: secrets.token_urlsafe(MARK_BYTES))


async def leased_streams(
    pipeline: Pipeline, client: KinesisClient, repeat: Repeater, *, wait_for_access: bool = False
) -> list[LeasedStream]:
    """The streams as the lease table identifies them: a single one by shard ids alone, several by account, name and creation time too.

    ``wait_for_access``: one of several that is missing, or to which access is refused, is identified later.

    Raises:
        Fatal: a stream is missing, or access to it is refused; with ``wait_for_access``, all of them.
    """
    several = bool(pipeline.source.kinesis.streams)
    found: list[LeasedStream] = []
    for one in pipeline.source.kinesis.each():
        try:
            found.append(await _leased(one, client, repeat, several=several))
        except AccessRefused:
            if not wait_for_access or not several:
                raise
            found.append(_unidentified(one, client, repeat))
    if several and not any(each.identified for each in found):
        await _prefix(found[0].stream, client, repeat)
    return found


async def key_prefix(pipeline: Pipeline, session: AwsSession, clock: Clock, stack: AsyncExitStack) -> str:
    """The prefix of shard ids in the lease keys of the one stream to which ``pipeline`` is narrowed."""
    kinesis = pipeline.source.kinesis
    if not kinesis.streams:
        return ""
    client = await stack.enter_async_context(open_kinesis(session))
    return (await _leased(kinesis, client, Repeater(clock, lambda _: None), several=True)).prefix


def _leased_objects(name: str, shards: ListShards, repeat: Repeater) -> LeasedStream:
    async def list_shards() -> list[Shard]:
        return await repeat("list shards", Shard(name, ""), shards)

    return LeasedStream(name, StartKind.TRIM_HORIZON, list_shards)


async def _leased(kinesis: KinesisSource, client: KinesisClient, repeat: Repeater, *, several: bool) -> LeasedStream:
    if several:
        unidentified = _unidentified(kinesis, client, repeat)
        return replace(unidentified, prefix=await _prefix(kinesis.stream, client, repeat))
    return LeasedStream(kinesis.stream, kinesis.start.kind, _lister(kinesis.stream, client, repeat))


def _unidentified(kinesis: KinesisSource, client: KinesisClient, repeat: Repeater) -> LeasedStream:
    """One of several streams, not described yet."""
    name = kinesis.stream
    identify = functools.partial(_prefix, name, client, repeat)
    return LeasedStream(name, kinesis.start.kind, _lister(name, client, repeat), identify=identify).unidentified()


async def _prefix(name: str, client: KinesisClient, repeat: Repeater) -> str:
    summary = await repeat("describe stream", Shard(name, ""), lambda: client.describe_stream_summary(name))
    return f"{summary.arn.split(':')[4]}:{name_of(name)}:{int(summary.created.timestamp())}:"


def _lister(name: str, client: KinesisClient, repeat: Repeater) -> ListShards:
    async def list_shards() -> list[Shard]:
        return await repeat("list shards", Shard(name, ""), lambda: client.list_shards(name))

    return list_shards


async def open_leases(
    pipeline: Pipeline,
    options: NativeCoordination,
    source: AwsSession | ListShards,
    me: str,
    clock: Clock,
    emit: Emit,
    stack: AsyncExitStack,
    *,
    alone: bool = False,
) -> Coordinator:
    """A worker's coordinator, with its first leases taken; it releases what it still holds when ``stack`` closes.

    ``source``: how to reach Kinesis, or what lists the shards of watched objects. ``alone``: the worker is to read all shards by itself,
    as a run that ends has to.

    Raises:
        Fatal: the table is missing, is not a lease table, or belongs to a fleet that this worker must not join. With ``alone``: another
            worker holds leases.
    """
    if alone:
        options = options_alone(options)
    coordinator = await coordinator_of(pipeline, options, source, me, clock, emit, stack, wait_for_access=not alone)
    await take_first(coordinator, clock, stack, alone=alone)
    return coordinator


def options_alone(options: NativeCoordination) -> NativeCoordination:
    """``options`` for a worker that reads all shards by itself: a share of the leases is not enough."""
    return options.model_copy(update={"max_leases": None, "balance": LeaseBalance.EVEN})


async def take_first(coordinator: Coordinator, clock: Clock, stack: AsyncExitStack, *, alone: bool) -> None:
    """Make sure of the table and take the first leases; those that are still held when ``stack`` closes are released.

    Raises:
        Fatal: as ``open_leases``.
    """
    await coordinator.table.open(create=coordinator.settings.create_table)
    observed = await _observe_alone(coordinator, clock) if alone else None

    async def give_up() -> None:
        # Leases that cannot be released will expire; the reason why the worker ends matters more.
        with suppress(StreamError):
            await coordinator.leave()

    stack.push_async_callback(give_up)
    await coordinator.start(observed)


async def _observe_alone(coordinator: Coordinator, clock: Clock) -> dict[str, ObservedLease]:
    follower, settings = coordinator.follower, coordinator.settings
    await follower.refresh(report=False)
    msg = (
        f"the leader of a KCL 3.x fleet assigns the leases in the table {coordinator.table.name}, so a run that ends cannot have all of "
        "them, and nothing was read; let workers without --once follow the leader, and ask `stream complete` whether all is read"
    )
    while True:
        try:
            observed = await observe_alone(coordinator.table, list(coordinator.streams.values()), settings, clock)
        except Fatal as error:
            if follower.following:
                raise Fatal(msg) from error
            raise
        if not follower.following:
            return observed
        # What a leader and its workers have left behind looks as if they lived, until it has not changed for long enough.
        while follower.following:
            await clock.sleep(settings.look)
            await follower.refresh(report=False)
            if follower.fleet_lives:
                raise Fatal(msg)


async def coordinator_of(
    pipeline: Pipeline,
    options: NativeCoordination,
    source: AwsSession | ListShards,
    me: str,
    clock: Clock,
    emit: Emit,
    stack: AsyncExitStack,
    *,
    wait_for_access: bool = False,
) -> Coordinator:
    """A coordinator that has not read the table and holds no leases yet; ``source`` as for ``open_leases``.

    Raises:
        Fatal: as ``leased_streams``.
    """
    table, repeat = await open_table(pipeline, options, clock, emit, stack), Repeater(clock, emit)
    if isinstance(source, AwsSession):
        client = await stack.enter_async_context(open_kinesis(source))
        streams = await leased_streams(pipeline, client, repeat, wait_for_access=wait_for_access)
    else:
        streams = [_leased_objects(pipeline.source.kinesis.stream, source, repeat)]
    return coordinator_over(table, me, streams, settings_of(options, pipeline.application), clock, emit)


def coordinator_over(
    table: LeaseTable,
    me: str,
    streams: Sequence[LeasedStream],
    settings: LeaseSettings,
    clock: Clock,
    emit: Emit,
    kind: type[Coordinator] = Coordinator,
) -> Coordinator:
    """A coordinator for ``table`` that has not read it yet, of the class ``kind``."""
    rng = Random(me)  # noqa: S311 - only spreads workers over leases

    def order(candidates: Sequence[ObservedLease]) -> list[ObservedLease]:
        return rng.sample(candidates, len(candidates))

    return kind(table, me, streams, settings, clock, emit, order)


def settings_of(options: NativeCoordination, application: str) -> LeaseSettings:
    """The pipeline's options in the form of the lease room."""
    tables = options.tables(application)
    return LeaseSettings(
        failover=options.failover.total_seconds(),
        max_leases=options.max_leases or UNLIMITED,
        balance=Balance(options.balance.value),
        look=options.look.total_seconds(),
        create_table=options.create_table,
        fleet_tables=(tables.state, tables.reports),
    )
