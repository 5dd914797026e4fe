"""Reference tables that are read again while the worker runs; a new version takes effect with the next unit.

A unit is reproducible because its manifest names a definition whose tables are kept. A new version is therefore simply a new
definition, recorded before the first unit that uses it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from stream import events
from stream.contracts import Clock, Emit
from stream.errors import DefinitionError, Fatal, Halted, Retryable
from stream.pipeline.model import Pipeline
from stream.pipeline.plan import changes
from stream.pipeline.resources.fetching import Fetched
from stream.transform.engine import CompiledChain
from stream.transform.stage import SchemaMismatch
from stream.worker.recipes.recipe import Recipe


@dataclass(slots=True)
class CurrentRecipe:
    """The recipe for new units; all shards of a worker use it when a unit is rendered."""

    now: Recipe


def intervals(pipeline: Pipeline) -> dict[str, float]:
    """Refresh interval in seconds by URL, for each table that is refreshed; if stages differ, the shortest one."""
    found: dict[str, float] = {}
    for stage in pipeline.stages:
        seconds = stage.refresh_seconds()
        if seconds is not None:
            found |= {url: min(seconds, found.get(url, seconds)) for url in stage.table_urls()}
    return found


class Recipes(Protocol):
    """Where recipes come from."""

    async def record(self, pipeline: Pipeline, fetched: Fetched) -> Recipe:
        """The recipe of ``pipeline``, kept wherever it may be needed again."""
        ...


class Refresher:
    """Keeps ``current`` up to date with the reference tables. ``fetch`` reads the pipeline's resources, except those that it is passed."""

    def __init__(
        self,
        pipeline: Pipeline,
        first: Fetched,
        fetch: Callable[[Mapping[str, bytes]], Awaitable[Fetched]],
        definitions: Recipes,
        current: CurrentRecipe,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self._pipeline = pipeline
        self._fetched = first
        self._fetch = fetch
        self._definitions = definitions
        self._current = current
        self._clock = clock
        self._emit = emit
        self._intervals = intervals(pipeline)
        now = clock.monotonic()
        self._due = {url: now + seconds for url, seconds in self._intervals.items()}
        self._refreshed_at = dict.fromkeys(self._intervals, now)
        self._failing: set[str] = set()
        self._name = ",".join(pipeline.source.kinesis.names)

    async def run(self) -> None:
        """Refresh tables when they are due, until cancelled."""
        while self._due:
            await self._clock.sleep(max(0.0, min(self._due.values()) - self._clock.monotonic()))
            await self.refresh()

    async def refresh_if_due(self) -> None:
        """Refresh the tables that are due; at once if there are none."""
        if any(at <= self._clock.monotonic() for at in self._due.values()):
            await self.refresh()

    async def refresh(self) -> None:
        """Read what is due and put it into use; if that fails, everything stays as it is until the next attempt."""
        now = self._clock.monotonic()
        due = [url for url, at in self._due.items() if at <= now]
        self._due |= {url: now + self._intervals[url] for url in due}
        try:
            changed = await self._take(due)
        except (DefinitionError, SchemaMismatch, Retryable, Fatal, Halted) as error:
            self._failing.update(due)
            self._emit(events.ReferenceRefreshFailed(self._name, "", str(error), self._age(), len(self._failing)))
            return
        self._refreshed_at |= dict.fromkeys(due, now)
        self._failing.difference_update(due)
        self._emit(events.ReferenceRefreshed(self._name, "", changed, self._current.now.digest, self._age(), len(self._failing)))

    async def _take(self, due: list[str]) -> int:
        known = {url: content for url, content in self._fetched.contents.items() if url not in due}
        fetched = await self._fetch(known)
        changed = [url for url in due if fetched.digests[url] != self._fetched.digests[url]]
        if changed:
            before = self._current.now
            recipe = await self._definitions.record(self._pipeline, fetched)
            other = [change.column for change in changes(_columns(before), _columns(recipe))]
            if other:
                msg = f"{', '.join(changed)}: the type of the column {other[0]!r} would change; restart the worker to accept it"
                raise DefinitionError(msg)
            self._current.now, self._fetched = recipe, fetched
        return len(changed)

    def _age(self) -> float:
        return self._clock.monotonic() - min(self._refreshed_at.values(), default=self._clock.monotonic())


def _columns(recipe: Recipe) -> pl.Schema:
    return recipe.chain.output_schema if isinstance(recipe.chain, CompiledChain) else pl.Schema()
