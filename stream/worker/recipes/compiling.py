"""Pipeline definitions, compiled to recipes."""

from __future__ import annotations

import asyncio
from typing import Final

import stream
from stream.contracts import Chain, Clock
from stream.errors import DefinitionError
from stream.pipeline.components import make_sink
from stream.pipeline.digest import pipeline_digest
from stream.pipeline.findings import Severity
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import Fetched
from stream.pipeline.sensitive import problems
from stream.transform.engine import CompiledChain
from stream.worker.recipes.recipe import Recipe

BUILD: Final = stream.__version__


def refuse_leaks(pipeline: Pipeline, chain: Chain) -> None:
    """Make sure that no sensitive column reaches a sink unmasked. Now even the columns of remote reference tables are known.

    Raises:
        DefinitionError: one does.
    """
    if pipeline.sensitive is None or not isinstance(chain, CompiledChain):
        return
    schemas = [schema for _, schema in chain.schemas]
    for each in problems(pipeline.sensitive, pipeline.stages, schemas, pipeline.sinks, [sink.kind for sink in pipeline.sinks]):
        if each.severity is Severity.ERROR:
            msg = f"{each.message}: {each.hint}"
            raise DefinitionError(msg)


def compile_recipe(pipeline: Pipeline, fetched: Fetched, digest: str, clock: Clock) -> Recipe:
    """The recipe of ``pipeline``, whose name in the log is ``digest``, without the places of its sinks. Takes CPU time.

    Raises:
        SchemaMismatch: a stage, or the condition of a sink, cannot work on the columns before it.
    """
    chain = pipeline.compiled(fetched.resources, clock.monotonic)
    sinks = tuple(make_sink(config, chain.output_schema) for config in pipeline.sinks)
    return Recipe(pipeline.application, digest, BUILD, chain, sinks, bool(pipeline.source.kinesis.streams), pipeline.audit.trace_context)


class Unrecorded:
    """Makes recipes for a host that commits nothing: nobody will have to run one again, so none is kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def record(self, pipeline: Pipeline, fetched: Fetched) -> Recipe:
        """The recipe of ``pipeline``.

        Raises:
            SchemaMismatch: a stage cannot work on the columns before it.
            DefinitionError: a sensitive column would reach a sink unmasked.
        """
        digest = pipeline_digest(pipeline, fetched.digests, BUILD)
        recipe = await asyncio.to_thread(compile_recipe, pipeline, fetched, digest, self._clock)
        refuse_leaks(pipeline, recipe.chain)
        return recipe
