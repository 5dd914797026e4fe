"""``stream run``: a worker for one pipeline, until it is stopped or everything has been read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import Drain, File, Least, LogLevel, ResultFile, Threads
from stream.errors import DefinitionError, StreamError, unforeseen

if libraries_wanted():
    import uvloop

    from stream import watchdog
    from stream.clock import SystemClock
    from stream.contracts import Emit
    from stream.pipeline.checks.lint import check as check_file
    from stream.pipeline.findings import Severity
    from stream.pipeline.model import Pipeline
    from stream.worker.assemble import WorkerOptions, usable_cores
    from stream.worker.process.result import ResultListener, write_result
    from stream.worker.service import run_worker
    from stream.worker.sources.reading import Reading

EXIT_FATAL = 1
EXIT_DEFINITION = 2


def run(
    file: File,
    drain: Drain = 25.0,
    threads: Threads = None,
    once: Annotated[bool, typer.Option("--once", help="Exit once everything that the stream holds now has been processed.")] = False,
    result: ResultFile = None,
    metrics_host: Annotated[
        str | None, typer.Option(help="Address for metrics and probes; 0.0.0.0 in a pod.", show_default="the pipeline's")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port for metrics and probes; 0 picks a free one.", min=0, max=65535, show_default="the pipeline's")
    ] = None,
    log_level: LogLevel = Least.INFO,
) -> None:
    """Run a pipeline: read all shards, transform and commit until SIGTERM or Ctrl-C, then seal the units in progress and exit.

    With --once, or with `source.s3` without `watch`, the run ends by itself. Events are logged to standard error as JSON lines. Metrics and
    health probes are served over HTTP at the pipeline's `metrics` address.

    Exit code 0: everything was read, or a worker without an end was drained; 1: it could not continue, or was stopped before its end; 2:
    the pipeline file is wrong, and nothing was read.
    """
    overrides = {name: value for name, value in (("host", metrics_host), ("port", metrics_port)) if value is not None}
    run_pipeline(file, drain=drain, threads=threads, reading=Reading(once=once), result=result, metrics=overrides, log_level=log_level)


def run_pipeline(
    file: Path,
    *,
    drain: float,
    threads: int | None,
    listeners: tuple[Emit, ...] = (),
    reading: Reading | None = None,
    result: Path | None = None,
    metrics: Mapping[str, Any] | None = None,
    log_level: Least = Least.INFO,
) -> None:
    """Check ``file`` and run it; raises ``typer.Exit`` unless it drained or finished successfully.

    ``metrics``: ``host`` and ``port`` to use instead of the pipeline's. ``result``: where to write a summary of the run.
    """
    pipeline = load_pipeline(file, result)
    pipeline = pipeline.model_copy(update={"metrics": pipeline.metrics.model_copy(update=metrics)})
    reading, threads = reading or Reading(), threads or usable_cores()
    options = WorkerOptions(file.parent, os.environ, drain, threads, listeners, reading=reading, log_level=log_level.level)
    refuse_failure(carry_out(pipeline, options, result))


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended. ``logged``: the last event in the log says why, too."""

    code: int
    error: str = ""
    logged: bool = False


def refuse_failure(end: End) -> None:
    """Exit with the run's exit code if it failed. An error that is already in the JSON log is repeated only on a terminal."""
    if end.code:
        if not end.logged or sys.stderr.isatty():
            typer.echo(f"error: {end.error}", err=True)
        raise typer.Exit(end.code)


def load_pipeline(file: Path, result: Path | None = None) -> Pipeline:
    """The pipeline in ``file``, with findings printed; if it cannot be run, writes the result file and raises ``typer.Exit``.

    Raises:
        BadParameter: the directory of the result file is missing, which is better known before hours of work.
    """
    if result is not None and not result.absolute().parent.is_dir():
        msg = f"there is no directory {result.absolute().parent}"
        raise typer.BadParameter(msg, param_hint="--result")
    checked = check_file(file, os.environ)
    for finding in checked.findings:
        typer.echo(finding.render(), err=True)
    if checked.pipeline is None:
        refuse("\n".join(finding.render() for finding in checked.findings if finding.severity is Severity.ERROR), result)
    return checked.pipeline


def refuse(error: str, result: Path | None) -> NoReturn:
    """Exit before anything is read because of an error in the definition; write it to the result file, too."""
    if result is not None:
        write_result(result, ResultListener("", SystemClock()).result(EXIT_DEFINITION, error))
    raise typer.Exit(EXIT_DEFINITION)


def carry_out(pipeline: Pipeline, options: WorkerOptions, result: Path | None) -> End:
    """Run ``pipeline`` to its end, and write the result file however it ends."""
    listener = ResultListener(pipeline.application, SystemClock())
    options = replace(options, listeners=(*options.listeners, listener))
    end = End(0)
    try:
        if pipeline.coordination.kcl is not None and options.reading == Reading():
            msg = "with coordination: kcl the KCL's daemon runs the pipeline: use `stream kcl daemon`"
            raise DefinitionError(msg)
        watchdog.run(run_worker(pipeline, options), uvloop.new_event_loop)
    except StreamError as error:
        end = End(EXIT_DEFINITION if isinstance(error, DefinitionError) else EXIT_FATAL, str(error), listener.failed)
    except BaseException as error:
        with contextlib.suppress(OSError):
            _write(result, listener, End(EXIT_FATAL, unforeseen(error)))
        raise
    try:
        _write(result, listener, end)
    except OSError as error:
        return End(EXIT_FATAL, "\n".join(filter(None, (end.error, f"the result cannot be written to {result}: {error.strerror}"))))
    return end


def _write(result: Path | None, listener: ResultListener, end: End) -> None:
    if result is not None:
        write_result(result, listener.result(end.code, end.error))
