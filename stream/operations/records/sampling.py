"""A sample of the live stream's records, read from every shard; writes nothing and moves no checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from pathlib import Path

from stream.aws.kinesis import open_kinesis
from stream.aws.secrets import read_secret
from stream.batch import ORIGIN, Batch
from stream.commit.log import CommitLog
from stream.contracts import Clock, LendingSource, Shard, Start, StartKind
from stream.errors import DefinitionError
from stream.operations.opening import open_checkpoints, open_sample
from stream.operations.progress.completeness import Completeness
from stream.operations.progress.stream_lookahead import StreamLookahead
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import Fetched, fetch_resources
from stream.worker.opening.places import read_object, session_of
from stream.worker.opening.stores import Stores


async def resources_of(pipeline: Pipeline, base: Path, env: Mapping[str, str]) -> Fetched:
    """Tables, files and secrets, fetched from their places as a worker would fetch them.

    Raises:
        DefinitionError: one is missing.
        Fatal: one may not be read.
        Retryable: AWS did not answer.
    """
    session = session_of(pipeline)
    read = functools.partial(read_object, session)
    return await fetch_resources(pipeline, base, env, read, managed=functools.partial(read_secret, session))


async def read_sample(
    pipeline: Pipeline, base: Path, count: int, since: timedelta | None, clock: Clock, *, unsealed: bool = False
) -> Batch:
    """Up to ``count`` records, in about equal parts from each shard that has some: the oldest ones, or those from ``since`` ago on.

    ``unsealed``: instead, those that a worker would read next, because no sealed unit has them yet.

    Returns when there are ``count``, or when every shard has been read up to now.

    Raises:
        DefinitionError: the stream holds no record there.
        Fatal: there is no such stream, or it may not be read.
    """
    start = Start(StartKind.TRIM_HORIZON) if since is None else Start(StartKind.AT_TIMESTAMP, clock.now() - since)
    async with AsyncExitStack() as stack:
        readers: list[tuple[LendingSource, Shard, int]] = []
        for one in pipeline.each():
            source = await open_sample(one, base, clock, stack, compared=unsealed)
            shards = await source.shards()
            ends = (
                await _sealed_ends(one, base, shards, clock, stack)
                if unsealed
                else dict.fromkeys((each.shard_id for each in shards), ORIGIN)
            )
            readers += [(source, shard, ends[shard.shard_id]) for shard in shards if shard.shard_id in ends]
        batches: list[Batch] = []
        left = count
        for at, (source, shard, after) in enumerate(readers):
            batch = await _read(source, shard, after, start, -(-left // (len(readers) - at)))
            batches.append(batch)
            left -= batch.rows
    sample = Batch.concat(batches)
    if not sample.rows:
        where = "that is not sealed" if unsealed else "now" if since is None else f"from {since} ago on"
        msg = f"{', '.join(pipeline.source.kinesis.names)}: there is no record {where}; ask for older ones, or give a file with --sample"
        raise DefinitionError(msg)
    return sample


async def _sealed_ends(pipeline: Pipeline, base: Path, shards: Sequence[Shard], clock: Clock, stack: AsyncExitStack) -> dict[str, int]:
    """Up to where each of ``shards`` is sealed; without those that are sealed to their end."""
    if pipeline.source.s3 is not None:
        msg = "--unsealed is about a stream; the pipeline reads objects of `source.s3`"
        raise DefinitionError(msg)
    session, stream = session_of(pipeline), pipeline.source.kinesis.stream
    state = Stores.open(pipeline, base, session).state
    checkpoints = await open_checkpoints(pipeline, stream, state, session, clock, stack)
    client = await stack.enter_async_context(open_kinesis(session))
    known = Completeness(
        stream, CommitLog(state, pipeline.application, clock, "preview"), checkpoints, StreamLookahead(client, stream, clock)
    )
    tails = [await known.tail(shard.shard_id) for shard in shards]
    return {tail.shard.shard_id: tail.position for tail in tails if not tail.ended}


async def _read(source: LendingSource, shard: Shard, after: int, start: Start, count: int) -> Batch:
    batches, rows = [], 0
    async with aclosing(source.read(shard, after, start)) as pages:  # type: ignore[type-var]
        async for page in pages:
            batches.append(page.batch)
            rows += page.batch.rows
            source.budget.release(page.held)
            if rows >= count or page.ended or page.behind_ms == 0:
                break
    whole = Batch.concat(batches)
    frame = whole.frame.head(count)
    return Batch.of(frame)
