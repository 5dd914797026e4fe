"""OpenLineage events of one worker: posted to a URL or stored beside the log."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
import polars as pl

import stream
from stream import events
from stream.audit.lineage import LineageJob, RunState, RunTotals, place_dataset, run_event, stream_dataset
from stream.batch import LINEAGE, ROW
from stream.contracts import Clock, Emit, ObjectStore
from stream.errors import StreamError
from stream.pipeline.audit import Lineage
from stream.pipeline.model import Pipeline
from stream.pipeline.origins import column_origins
from stream.pipeline.resources.secrets import SecretReader, find_headers
from stream.transform.engine import CompiledChain
from stream.worker.opening.places import located
from stream.worker.receivers.http_errors import describe_failure
from stream.worker.recipes.recipe import Recipe

TIMEOUT: Final = 10.0
"""Seconds that the receiver may take for one event, and for all remaining events when the run ends."""

MAX_UNSENT: Final = 100
"""Events kept for a receiver that is down; beyond that, the oldest is stored beside the log."""


class Reporter:
    """Reports one run. Events that the receiver does not accept are retried with the next one, and at the end stored beside the log."""

    def __init__(
        self, job: LineageJob, run: str, totals: RunTotals, store: ObjectStore, clock: Clock, emit: Emit, interval: timedelta
    ) -> None:
        self._job = job
        self._interval = interval
        self._started = False
        self._run = run
        self._totals = totals
        self._store = store
        self._clock = clock
        self._emit = emit
        self._unsent: list[bytes] = []
        self._number = 0
        self._post: tuple[aiohttp.ClientSession, str] | None = None

    def post_to(self, session: aiohttp.ClientSession, url: str) -> None:
        """Send events to ``url`` instead of storing them."""
        self._post = session, url

    async def run(self) -> None:
        """Report START, then RUNNING at intervals, until cancelled. Errors never end the worker."""
        await self.report(RunState.START)
        never = asyncio.Event()
        while True:
            try:
                async with asyncio.timeout(self._interval.total_seconds()):
                    await never.wait()
            except TimeoutError:
                await self.report(RunState.RUNNING)

    async def report(self, state: RunState, error: str = "") -> None:
        """Send the event, and earlier ones that were not accepted."""
        self._started = True
        event: dict[str, Any] = run_event(self._job, self._run, state, self._clock, self._totals.totals, error)
        self._unsent.append(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))
        last = state in {RunState.COMPLETE, RunState.FAIL}
        # A slow receiver must not hold up the end of a worker that has many unsent events.
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT if last else None):
                if self._post is not None:
                    await self._send(*self._post)
        to_store = len(self._unsent) if self._post is None or last else len(self._unsent) - MAX_UNSENT
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT if last else None):
                while to_store > 0 and await self._store_event(self._unsent[0]):
                    self._unsent.pop(0)
                    to_store -= 1

    async def __aenter__(self) -> Self:
        """Enter the run; ``run`` reports its beginning."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Report COMPLETE, or FAIL if an error ended the run or shards are halted."""
        if not self._started:
            await self.report(RunState.START)
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        trouble = self._totals.trouble or (str(error) if isinstance(error, StreamError) else type(error).__name__ if error else "")
        await self.report(RunState.FAIL if trouble else RunState.COMPLETE, trouble)

    async def _send(self, session: aiohttp.ClientSession, url: str) -> None:
        while self._unsent:
            try:
                async with session.post(url, data=self._unsent[0], allow_redirects=False) as answer:
                    if answer.status >= 300:
                        self._failed(f"{answer.status} {answer.reason} at {url}")
                        return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._failed(f"no answer at {url}: {describe_failure(error)}")
                return
            self._unsent.pop(0)

    async def _store_event(self, body: bytes) -> bool:
        try:
            await self._store.put(f"{self._run}/{self._number:06d}.ndjson", body)
        except StreamError as error:
            self._failed(str(error))
            return False
        self._number += 1
        return True

    def _failed(self, why: str) -> None:
        self._emit(events.CallRepeated(self._job.sources[0].name, "", "report lineage", why, 0.0))


def _origins(
    pipeline: Pipeline, steps: Sequence[tuple[str, pl.Schema]], fields: Collection[str]
) -> dict[str, tuple[tuple[str, bool], ...]]:
    """For each column that is written, the ``fields`` of the sources that it may come from, each with whether it is masked."""
    found: dict[str, tuple[tuple[str, bool], ...]] = {}
    for name, origins in column_origins(pipeline.stages, [schema for _, schema in steps])[-1].items():
        # ``sorted`` puts a readable origin before the masked one of the same column, and the first counts.
        masked: dict[str, bool] = {}
        for origin in sorted(origins):
            masked.setdefault(origin.column, origin.masked)
        if kept := tuple(each for each in masked.items() if each[0] in fields):
            found[name] = kept
    return found


def job_of(pipeline: Pipeline, lineage: Lineage, recipe: Recipe, state: ObjectStore, base: Path) -> LineageJob:
    """The pipeline's names and columns."""
    kinesis, chain = pipeline.source.kinesis, recipe.chain
    written = chain.output_schema if isinstance(chain, CompiledChain) else pl.Schema()
    schema = pipeline.source.record_schema()
    read = [(name, str(kind)) for name, kind in schema.polars().items()] if schema else []
    sources = tuple(stream_dataset(name, kinesis.region, kinesis.endpoint, read) for name in kinesis.names)
    if pipeline.source.s3 is not None:
        sources = (place_dataset(located(pipeline.source.s3.url, base), "", read),)
    columns = [(name, str(written[name])) for name in written.names() if name not in {*LINEAGE, ROW}]
    origins = _origins(pipeline, chain.schemas, [name for name, _ in read]) if isinstance(chain, CompiledChain) else {}
    targets = [replace(place_dataset(located(sink.url, base), sink.name, columns), origins=origins) for sink in pipeline.sinks]
    return LineageJob(
        namespace=lineage.namespace,
        name=pipeline.application,
        sources=sources,
        targets=tuple(targets),
        ledger=f"{state.url}ledger/v1/",
        log=f"{state.url}commits/",
        pipeline=recipe.digest,
        build=stream.__version__,
    )


async def open_reporter(
    reporter: Reporter, lineage: Lineage, env: Mapping[str, str], base: Path, managed: SecretReader, stack: AsyncExitStack
) -> Reporter:
    """Open ``reporter``: it posts to the URL of ``lineage`` if there is one, and reports how the run ended when ``stack`` closes.

    Raises:
        DefinitionError: a header's secret is missing.
    """
    if lineage.url is not None:
        headers = await find_headers(lineage.headers, env, base, managed)
        client = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT), headers={"content-type": "application/json", **headers}
        )
        reporter.post_to(await stack.enter_async_context(client), lineage.url)
    return await stack.enter_async_context(reporter)
