"""A pipeline in a function that Amazon Data Firehose asks to transform records: the decoder and the stages, and nothing else.

Nothing is committed: Firehose delivers what is answered, at least once, and keeps what is answered with `ProcessingFailed`. So there is
no commit log, no ledger, and no proof. See docs/firehose.md.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream import events
from stream.commit.retry import Repeater
from stream.contracts import Clock, Emit, Shard
from stream.errors import DefinitionError, Fatal
from stream.hosts.allowance import allowance
from stream.hosts.answer import answer
from stream.pipeline.checks.host_names import Host
from stream.pipeline.checks.hosts import as_run_by, misfits, refuse
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import Fetched, fetch_resources, is_remote
from stream.pipeline.resources.secrets import is_managed
from stream.sink.objects import ObjectsSinkConfig
from stream.sink.record_lines import RecordLines
from stream.source.transformation import Transformation, transformation_of
from stream.transform.stage import SchemaMismatch
from stream.worker.recipes.compiling import Unrecorded
from stream.worker.recipes.refreshing import CurrentRecipe, Refresher, intervals


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the invocations of one execution environment share."""

    current: CurrentRecipe
    lines: RecordLines
    refresher: Refresher | None


class Transformer:
    """Answers events of Firehose, one at a time. Paths of the pipeline are relative to ``base``; ``env`` has its secrets."""

    def __init__(self, pipeline: Pipeline, base: Path, env: Mapping[str, str], clock: Clock, listeners: Sequence[Emit]) -> None:
        refuse(misfits(pipeline, Host.FIREHOSE))
        self._pipeline = as_run_by(pipeline, Host.FIREHOSE)
        self._base = base
        self._env = env
        self._clock = clock
        self._listeners = listeners
        self._repeat = Repeater(clock, self._emit)
        self._opened: _Opened | None = None

    async def answer(self, event: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to ``event``: every record once, in its order. ``seconds``: until the function is stopped by force.

        Raises:
            DefinitionError: the event or the pipeline is wrong, or a table or a secret is missing.
            Fatal: something may not be read, or could not be read in time.
            Halted: a stage broke its contract.
        """
        asked = transformation_of(event, several=bool(self._pipeline.source.kinesis.streams), known=self._pipeline.source.kinesis.names)
        self._refuse_other_streams(asked)
        try:
            async with asyncio.timeout(allowance(seconds).working):
                opened = await self._open(asked.delivery_stream)
        except TimeoutError as error:
            msg = f"tables and secrets could not be read in {seconds:.0f} s; nothing was answered, and Firehose sends the records again"
            raise Fatal(msg) from error
        began = self._clock.monotonic()
        given = answer(opened.current.now, opened.lines, asked)
        for run in given.stages:
            self._emit(events.StageApplied(asked.delivery_stream, "", *run))
        for stage, reason, count in given.rejected:
            self._emit(events.RecordsRejected(asked.delivery_stream, "", stage, reason, count))
        took = self._clock.monotonic() - began
        self._emit(events.RecordsTransformed(asked.delivery_stream, "", given.outcomes, asked.batch.payload_bytes, given.size, took))
        return given.body

    def _emit(self, event: events.Event) -> None:
        for listener in self._listeners:
            listener(event)

    def _refuse_other_streams(self, asked: Transformation) -> None:
        names = self._pipeline.source.kinesis.names
        if asked.stream and asked.stream not in names:
            msg = (
                f"the Firehose stream {asked.delivery_stream} reads the stream {asked.stream}, and the pipeline reads {', '.join(names)}; "
                "give the function the pipeline of that stream"
            )
            raise DefinitionError(msg)

    async def _open(self, delivery_stream: str) -> _Opened:
        if self._opened is None:
            fetched = await self._repeat("fetch tables and secrets", Shard(delivery_stream, ""), lambda: self._fetch({}))
            recipes = Unrecorded(self._clock)
            try:
                current = CurrentRecipe(await recipes.record(self._pipeline, fetched))
            except SchemaMismatch as error:
                msg = f"the pipeline cannot be run: {error}" + (f" - {error.hint}" if error.hint else "")
                raise DefinitionError(msg) from error
            watched = (self._pipeline, fetched, self._fetch, recipes, current, self._clock, self._emit)
            self._opened = _Opened(current, RecordLines(_sink(self._pipeline)), Refresher(*watched) if intervals(self._pipeline) else None)
        elif self._opened.refresher is not None:
            await self._opened.refresher.refresh_if_due()
        return self._opened

    async def _fetch(self, known: Mapping[str, bytes]) -> Fetched:
        pipeline = self._pipeline
        urls = [*(url for stage in pipeline.stages for url in stage.table_urls()), *pipeline.source.decode.file_urls()]
        secrets = [name for stage in pipeline.stages for name in stage.secret_names()]
        if not any(map(is_remote, urls)) and not any(map(is_managed, secrets)):
            return await fetch_resources(pipeline, self._base, self._env, known=known)
        # Imported only here: the AWS clients would take a good part of a cold start, and many pipelines have no use for them.
        from stream.aws.secrets import read_secret
        from stream.worker.opening.places import read_object, session_of

        session = session_of(pipeline)
        read, managed = functools.partial(read_object, session), functools.partial(read_secret, session)
        return await fetch_resources(pipeline, self._base, self._env, read, known, managed)


def _sink(pipeline: Pipeline) -> ObjectsSinkConfig:
    """The one sink, as ``misfits`` makes sure."""
    (sink,) = pipeline.sinks
    if not isinstance(sink, ObjectsSinkConfig):
        raise TypeError(sink)
    return sink
