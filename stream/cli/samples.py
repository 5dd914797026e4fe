"""Records for the commands that try out a pipeline."""

from __future__ import annotations

import os
from pathlib import Path

from stream import watchdog
from stream.batch import Batch
from stream.clock import SystemClock
from stream.errors import DefinitionError
from stream.operations.records.sampling import read_sample, resources_of
from stream.pipeline.model import Pipeline
from stream.pipeline.trials.sample import from_file, generated
from stream.pipeline.units import parse_duration
from stream.transform.engine import CompiledChain


def sample_of(
    pipeline: Pipeline, count: int, file: Path | None, since: str | None, seed: int | None, base: Path, *, unsealed: bool = False
) -> tuple[Batch, str]:
    """Records to try, and a phrase that says where they come from: ``file``, generated from ``seed``, or else the pipeline's source.

    ``unsealed``: of the stream, what a worker would read next. ``base``: the folder to which the pipeline's paths are relative.

    Raises:
        StreamError: they cannot be obtained.
    """
    if unsealed and (file is not None or seed is not None or since is not None):
        msg = "--unsealed already names the records; omit --sample, --generate and --since"
        raise DefinitionError(msg)
    if file is not None and (seed is not None or since is not None):
        msg = "--sample already names the records; omit --generate and --since"
        raise DefinitionError(msg)
    if file is not None:
        batch = from_file(file, count)
        return batch, f"{batch.rows:,} record{'' if batch.rows == 1 else 's'} of {file}"
    if seed is not None:
        if since is not None:
            msg = "--since is about the live stream; omit --generate"
            raise DefinitionError(msg)
        return generated(pipeline, count, seed), f"{count:,} records made up from the schema, seed {seed}"
    try:
        age = None if since is None else parse_duration(since)
    except ValueError as error:
        msg = f"--since: {error}"
        raise DefinitionError(msg) from error
    batch = watchdog.run(read_sample(pipeline, base, count, age, SystemClock(), unsealed=unsealed))
    return batch, f"{batch.rows:,} records of {', '.join(pipeline.source.kinesis.names)}"


def chain_of(pipeline: Pipeline, file: Path) -> CompiledChain:
    """The pipeline's chain with its real tables and secrets.

    Raises:
        StreamError: one of them cannot be obtained.
    """
    fetched = watchdog.run(resources_of(pipeline, file.parent, os.environ))
    return pipeline.compiled(fetched.resources, SystemClock().monotonic)
