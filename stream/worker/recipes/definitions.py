"""Pipeline definitions, compiled to recipes and kept beside the log, so that any worker can finish what another began."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from stream.commit.naming import pipeline_key, reference_key, tables_key
from stream.contracts import Clock, ObjectStore
from stream.errors import DefinitionError, Halted, StreamError
from stream.pipeline.digest import canonical_text, pipeline_digest, read_canonical
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import Fetched, fetch_resources
from stream.pipeline.resources.secrets import SecretReader, find_secret
from stream.recorded import as_recorded
from stream.transform.stage import SchemaMismatch
from stream.worker.objects.slices import record_options
from stream.worker.opening.places import located
from stream.worker.recipes.compiling import BUILD, compile_recipe, refuse_leaks
from stream.worker.recipes.recipe import Recipe

KEPT: Final = 8
"""Number of compiled definitions kept in memory, each with its reference tables; an older one is read from the log again if needed."""


class Definitions:
    """Recipes by digest. Paths are relative to ``base``; ``env`` and ``managed`` resolve secrets, for recorded definitions too."""

    def __init__(self, store: ObjectStore, base: Path, env: Mapping[str, str], clock: Clock, managed: SecretReader | None = None) -> None:
        self._store = store
        self._base = base
        self._env = env
        self._clock = clock
        self._managed = managed
        self._recipes: dict[str, Recipe] = {}

    async def secret(self, reference: str) -> str:
        """The current value of the secret ``reference``; raises as ``find_secret`` does."""
        return (await find_secret(reference, self._env, self._base, self._managed)).decode()

    async def record(self, pipeline: Pipeline, fetched: Fetched) -> Recipe:
        """The recipe of ``pipeline``. Before this returns, the log holds everything that is needed to run it again, except secrets.

        Secrets are not recorded: a worker that recovers a unit must have them.

        Raises:
            SchemaMismatch: a stage cannot work on the columns before it.
            DefinitionError: a sensitive column would reach a sink unmasked.
        """
        digest, text = self._written(pipeline, fetched)
        recipe = await asyncio.to_thread(self._compile, pipeline, fetched, digest)
        refuse_leaks(pipeline, recipe.chain)
        for url, sha256 in fetched.digests.items():
            await self._store.create(reference_key(sha256), fetched.contents[url])
        await self._store.create(tables_key(digest), msgspec.json.encode(dict(fetched.digests), order="sorted"))
        await self._store.create(pipeline_key(digest), text)
        return self._kept(recipe)

    def _written(self, pipeline: Pipeline, fetched: Fetched) -> tuple[str, bytes]:
        """The digest of a definition, and its text in the log."""
        return pipeline_digest(pipeline, fetched.digests, BUILD), canonical_text(pipeline).encode()

    async def recorded(self, digest: str) -> Recipe:
        """The recipe with that ``digest``, from memory or from the log.

        Raises:
            Halted: the log does not hold it, this build does not understand it, or something it asks for, such as a secret, is missing.
        """
        if digest in self._recipes:
            return self._recipes[digest]
        pipeline, tables = await self.pipeline(digest), await self._store.get(tables_key(digest))
        if tables is None:
            raise self._not_held(digest)
        contents = {}
        for url, sha256 in msgspec.json.decode(tables.body, type=dict[str, str]).items():
            stored = await self._store.get(reference_key(sha256))
            if stored is None:
                msg = f"reference table {url} of pipeline definition {digest} is missing: restore {reference_key(sha256)}"
                raise Halted(msg)
            contents[url] = stored.body
        try:
            fetched = await fetch_resources(pipeline, self._base, self._env, known=contents, managed=self._managed)
            with as_recorded():
                return self._kept(await asyncio.to_thread(self._compile, pipeline, fetched, digest))
        except (DefinitionError, SchemaMismatch) as error:
            raise self._not_to_run(digest, error) from error

    async def pipeline(self, digest: str) -> Pipeline:
        """The definition with that ``digest``, as the log holds it; raises ``Halted`` as ``recorded`` does."""
        text = await self._store.get(pipeline_key(digest))
        if text is None:
            raise self._not_held(digest)
        try:
            return read_canonical(text.body.decode())
        except DefinitionError as error:
            raise self._not_to_run(digest, error) from error

    def _not_held(self, digest: str) -> Halted:
        msg = (
            f"an unfinished unit was begun with pipeline definition {digest}, which {self._store.url} does not hold; "
            f"restore {pipeline_key(digest)} and {tables_key(digest)}; nothing is read until then"
        )
        return Halted(msg)

    @staticmethod
    def _not_to_run(digest: str, error: StreamError | SchemaMismatch) -> Halted:
        msg = (
            f"pipeline definition {digest}, with which a unit was begun, cannot be run here: {error}; "
            "give this worker what is missing, or let the version that began the unit finish it"
        )
        return Halted(msg)

    def _compile(self, pipeline: Pipeline, fetched: Fetched, digest: str) -> Recipe:
        places = {config.name: located(config.url, self._base) for config in pipeline.sinks}
        return replace(compile_recipe(pipeline, fetched, digest, self._clock), places=places, reads=record_options(pipeline))

    def _kept(self, recipe: Recipe) -> Recipe:
        """``recipe``, kept in memory. Called only on the event loop, because several are compiled at a time."""
        self._recipes.pop(recipe.digest, None)
        while len(self._recipes) >= KEPT:
            del self._recipes[next(iter(self._recipes))]
        self._recipes[recipe.digest] = recipe
        return recipe
