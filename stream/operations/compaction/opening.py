"""Opens what `stream compact` works with: which sinks, from where to where, and up to which moment partitions are closed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from stream.audit.completeness import Question
from stream.aws.kinesis import open_kinesis
from stream.commit.log import CommitLog
from stream.contracts import Clock
from stream.errors import DefinitionError
from stream.operations.compaction.compactor import Compactor
from stream.operations.opening import chains_of, open_checkpoints
from stream.operations.progress.completeness import Completeness
from stream.operations.progress.stream_lookahead import StreamLookahead
from stream.pipeline.compacting import beside, compactable
from stream.pipeline.model import Pipeline
from stream.sink.objects import ObjectsSinkConfig
from stream.storage.open import open_store
from stream.worker.opening.identity import only_compared
from stream.worker.opening.places import kms_key, located, session_of
from stream.worker.opening.stores import Stores

QUIET: Final = timedelta(hours=1)
"""A partition is closed if nothing for it has arrived for this long. Rows that come later are compacted by a later run."""

MARGIN: Final = timedelta(seconds=5)
"""How far arrival times within a shard may be out of order, as for ``stream complete``."""


@dataclass(frozen=True, slots=True)
class CompactionRequest:
    """Which sinks to compact and to where, as the command line says: ``sink`` None for all, ``to`` None for the place beside each."""

    sink: str | None
    to: str | None
    size: int


def _target(pipeline: Pipeline, config: ObjectsSinkConfig, to: str | None, base: Path) -> str:
    """The URL of the dataset for ``config``.

    Raises:
        DefinitionError: it is no place for files, or overlaps with what the pipeline writes.
    """
    url = to or beside(config.url)
    place = _folder(located(url, base))
    for other, what in ((pipeline.state, "the state"), *((each.url, f"sink {each.name}") for each in pipeline.sinks)):
        taken = _folder(located(other, base))
        if place.startswith(taken) or taken.startswith(place):
            msg = (
                f"compacted files cannot be at {url}, since {what} is at {other}, and readers of one would see both: name another with --to"
            )
            raise DefinitionError(msg)
    return located(url, base)


def _folder(url: str) -> str:
    return f"{url.rstrip('/')}/"


async def open_compactors(
    pipeline: Pipeline, request: CompactionRequest, base: Path, clock: Clock, worker: str, tell: Callable[[str], None]
) -> list[Compactor]:
    """One compactor for each sink of ``pipeline``, which reads one stream, and each chain: its own, those of redrives and backfills.

    Raises:
        DefinitionError: no sink can be compacted, or not to that place.
    """
    session = session_of(pipeline)
    stores = Stores.open(pipeline, base, session)
    sinks = compactable(pipeline, request.sink)
    if request.to is not None and len(sinks) > 1:
        names = ", ".join(each.name for each in sinks)
        msg = f"--to is one place, and the pipeline has several sinks with files: choose one with --sink ({names})"
        raise DefinitionError(msg)
    log = CommitLog(stores.state, pipeline.application, clock, worker)
    open_place = partial(open_store, session=session, key=kms_key(pipeline))
    found = []
    for config in sinks:
        target = open_place(_target(pipeline, config, request.to, base))
        source = stores.targets[config.name]
        found += [Compactor(log, chain, config, source, target, clock, request.size, tell) for chain in await chains_of(pipeline, base)]
    return found


async def closed_before(pipeline: Pipeline, base: Path, clock: Clock) -> datetime:
    """The moment before which everything is sealed, as ``stream complete`` has it, and that is ``QUIET`` ago for all that follows.

    Raises:
        DefinitionError: it is not known.
        Retryable: the stream did not answer.
        Fatal: the stream or a permission is missing.
    """
    if pipeline.source.s3 is not None:
        msg = "the pipeline reads objects of `source.s3`, of which nobody can tell whether all are there: say with --before what to compact"
        raise DefinitionError(msg)
    stream, session = pipeline.source.kinesis.stream, session_of(pipeline)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_kinesis(session))
        stores = Stores.open(pipeline, base, session)
        log = CommitLog(stores.state, pipeline.application, clock, "compact")
        checkpoints = await open_checkpoints(pipeline, stream, stores.state, session, clock, stack)
        lookahead = StreamLookahead(client, stream, clock, only_compared(client, stores.state, stream))
        completeness = Completeness(stream, log, checkpoints, lookahead)
        # Of no shard is the log alone enough to tell that it is complete up to tomorrow, so the end of each is looked at.
        found = await completeness.ask(Question(clock.now() + timedelta(days=1), MARGIN), tables=False)
    if found.reach is None:
        whys = [found.why, *(f"{each.shard}: {each.why}" for each in found.shards if each.reach is None)]
        msg = f"up to when {stream} is complete is not known ({'; '.join(filter(None, whys))}): say with --before what to compact"
        raise DefinitionError(msg)
    return found.reach - QUIET
