"""``stream run``: a worker for one pipeline, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from stream.contracts import Emit
from stream.errors import DefinitionError, StreamError
from stream.pipeline.lint import check as check_file
from stream.pipeline.model import Coordination, Pipeline
from stream.worker.assemble import WorkerOptions, usable_cores
from stream.worker.service import run_worker

EXIT_FATAL = 1
EXIT_DEFINITION = 2


def run(
    file: Annotated[Path, typer.Argument(help="Pipeline file.", exists=True, dir_okay=False, readable=True, show_default=False)],
    drain: Annotated[float, typer.Option(help="Seconds that units in hand may take to be sealed after SIGTERM.", min=0.0)] = 25.0,
    threads: Annotated[
        int | None, typer.Option(help="Threads for decoding, transforming, encoding.", min=1, show_default="one per core")
    ] = None,
    metrics_host: Annotated[
        str | None, typer.Option(help="Address for metrics and probes; 0.0.0.0 in a pod.", show_default="the pipeline's")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port for metrics and probes; 0 takes a free one.", min=0, max=65535, show_default="the pipeline's")
    ] = None,
) -> None:
    """Run a pipeline: read every shard, transform, commit, until SIGTERM or Ctrl-C; then seal what is in hand.

    Events are JSON lines on standard error; metrics are served as the pipeline says.

    Exit code 0: drained; 1: it could not go on; 2: the pipeline file is wrong, and nothing was read.
    """
    served = {name: given for name, given in (("host", metrics_host), ("port", metrics_port)) if given is not None}
    run_pipeline(file, drain=drain, threads=threads, served=served)


def run_pipeline(
    file: Path, *, drain: float, threads: int | None, listeners: tuple[Emit, ...] = (), served: Mapping[str, Any] | None = None
) -> None:
    """Check ``file`` and run it; ends the process by ``typer.Exit`` unless it drained in good order.

    ``served``: ``host`` and ``port`` of the metrics, in place of the pipeline's.
    """
    result = check_file(file, os.environ)
    for finding in result.findings:
        typer.echo(finding.render(), err=True)
    if result.pipeline is None:
        raise typer.Exit(EXIT_DEFINITION)
    try:
        if result.pipeline.coordination is Coordination.KCL:
            msg = "with coordination: kcl the KCL's daemon runs the pipeline: use `stream kcl daemon`"
            raise DefinitionError(msg)
        metrics = result.pipeline.metrics.model_copy(update=served)
        _run(result.pipeline.model_copy(update={"metrics": metrics}), file.parent, drain, threads, listeners)
    except DefinitionError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    except StreamError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_FATAL) from error


def _run(pipeline: Pipeline, base: Path, drain: float, threads: int | None, listeners: tuple[Emit, ...]) -> None:
    options = WorkerOptions(base, os.environ, drain, threads or usable_cores(), listeners)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_worker(pipeline, options))
