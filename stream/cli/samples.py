"""Where commands that try a pipeline take their records from."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from stream.batch import Batch
from stream.clock import SystemClock
from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.pipeline.sample import from_file, generated
from stream.pipeline.units import parse_duration
from stream.transform.engine import CompiledChain, compile_chain
from stream.worker.sampling import read_sample, resources_of


def sample_of(pipeline: Pipeline, count: int, file: Path | None, since: str | None, seed: int | None, base: Path) -> tuple[Batch, str]:
    """Records to try, and in words where they are from: a file, made up by ``seed``, or else its source.

    ``base``: where relative paths of the pipeline begin.

    Raises:
        StreamError: they cannot be had.
    """
    if file is not None and (seed is not None or since is not None):
        msg = "--sample names the records; leave out --generate and --since"
        raise DefinitionError(msg)
    if file is not None:
        batch = from_file(file, count)
        return batch, f"{batch.rows:,} record{'' if batch.rows == 1 else 's'} of {file}"
    if seed is not None:
        if since is not None:
            msg = "--since is about the live stream; leave out --generate"
            raise DefinitionError(msg)
        return generated(pipeline, count, seed), f"{count:,} records made up from the schema, seed {seed}"
    try:
        back = None if since is None else parse_duration(since)
    except ValueError as error:
        msg = f"--since: {error}"
        raise DefinitionError(msg) from error
    batch = asyncio.run(read_sample(pipeline, base, count, back, SystemClock()))
    return batch, f"{batch.rows:,} records of {', '.join(pipeline.source.kinesis.names)}"


def chain_of(pipeline: Pipeline, file: Path) -> CompiledChain:
    """The pipeline's chain with its real tables and secrets.

    Raises:
        StreamError: one of them cannot be had.
    """
    fetched = asyncio.run(resources_of(pipeline, file.parent, os.environ))
    source = pipeline.source
    return compile_chain(source.decode, source.record_schema(), pipeline.stages, fetched.resources, SystemClock().monotonic)
