"""Opens what `stream status` reads: an inspector for each stream of a pipeline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from stream.aws.dynamodb import TABLE_MISSING
from stream.aws.errors import AwsFatal
from stream.aws.kinesis import StreamSummary, open_kinesis
from stream.aws.secrets import read_secret
from stream.commit.log import CommitLog
from stream.commit.retry import Repeater
from stream.contracts import Checkpoints, Clock, Shard
from stream.errors import DefinitionError
from stream.lease.checkpoints import StoredCheckpoints
from stream.lease.rows import Lease
from stream.operations.progress.completeness import Completeness
from stream.operations.progress.object_lookahead import open_lookahead
from stream.operations.progress.stream_lookahead import StreamLookahead
from stream.operations.status.inspector import Inspector, InspectorParts
from stream.operations.status.objects import queue_attributes
from stream.operations.status.outcomes import RecentUnits
from stream.operations.status.readers import Listing, ScannedCheckpoints, Troubles
from stream.pipeline.model import Pipeline
from stream.sink import rejects
from stream.worker.coordination.leasing import key_prefix, open_table
from stream.worker.opening.identity import PinnedStream, asks_first, only_compared
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.recipes.definitions import Definitions
from stream.worker.tables.loaders import open_loader_parts


async def open_inspectors(
    streams: Sequence[Pipeline], base: Path, env: Mapping[str, str], without: Collection[str], clock: Clock, stack: AsyncExitStack
) -> list[Inspector]:
    """An inspector for each of ``streams``, each a pipeline narrowed to one stream, that leaves out the shards ``without``.

    Nothing is called yet, and connections live as long as ``stack``.

    Raises:
        DefinitionError: a shard is to be left out and there are several streams.
    """
    if without and len(streams) > 1:
        msg = f"--without names a shard of one stream, and this pipeline reads {len(streams)}: name it with --stream"
        raise DefinitionError(msg)
    session = session_of(streams[0])
    client = None if streams[0].source.s3 is not None else await stack.enter_async_context(open_kinesis(session))
    found = []
    for one in streams:
        stream, stores, troubles = one.source.kinesis.stream, Stores.open(one, base, session), Troubles()
        log = CommitLog(stores.state, one.application, clock, "status")
        watch = None if one.source.s3 is None else one.source.s3.watch
        describe: Callable[[], Awaitable[StreamSummary]] | None = None
        pinned: PinnedStream | None = None
        if client is None:
            objects = open_lookahead(one, base, stores.state, session, clock)
            listing = Listing(objects, log, stream, clock, objects)
        else:
            listing = Listing(StreamLookahead(client, stream, clock), log, stream, clock)
            repeat, pinned = Repeater(clock, troubles), only_compared(client, stores.state, stream, asks=asks_first(one))
            describe = partial(repeat, "describe stream", Shard(stream, ""), partial(client.describe_stream_summary, stream))
        definitions = Definitions(stores.state, base, env, clock, partial(read_secret, session))
        tables = await open_loader_parts(one, stream, session, log, stores.targets, definitions, ("status", clock, troubles), stack)
        scanned = ScannedCheckpoints()
        native = one.leases is not None
        checkpoints: Checkpoints = scanned if native else StoredCheckpoints(stores.state)
        parts = InspectorParts(
            pipeline=one,
            completeness=Completeness(stream, log, checkpoints, listing, without=without, tolerant=True),
            source=listing,
            describe=describe,
            pinned=pinned,
            leases=await _scan(one, clock, troubles, stack) if native else None,
            scanned=scanned,
            tables=tables,
            recent=RecentUnits(log, stream, stores.targets[rejects.NAME]),
            clock=clock,
            troubles=troubles,
            queue=None if watch is None or watch.queue is None else partial(queue_attributes, session, watch.queue, clock),
        )
        found.append(Inspector(parts))
    return found


async def _scan(one: Pipeline, clock: Clock, troubles: Troubles, stack: AsyncExitStack) -> Callable[[], Awaitable[Sequence[Lease]]]:
    """Reads the leases of the one stream to which ``one`` is narrowed. Without a table there are none: nobody reads the stream."""
    native = one.leases
    if native is None:
        msg = "this pipeline has no leases"
        raise DefinitionError(msg)
    table = await open_table(one, native, clock, troubles, stack)
    prefixes: list[str] = []

    async def scan() -> Sequence[Lease]:
        if not prefixes:
            prefixes.append(await key_prefix(one, session_of(one), clock, stack))
        prefix = prefixes[0]
        try:
            scanned = await table.scan()
        except AwsFatal as error:
            if error.code != TABLE_MISSING:
                raise
            return ()
        return [lease for lease in scanned.leases if (lease.key.startswith(prefix) if prefix else ":" not in lease.key)]

    return scan
