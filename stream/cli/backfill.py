"""``stream backfill``: process a time range of a stream or an archive, beside the live pipeline."""

from __future__ import annotations

import os
import threading
from typing import Annotated, Self

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import Drain, File, Least, LogLevel, ResultFile, Threads
from stream.errors import DefinitionError

if libraries_wanted():
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from stream import events
    from stream.cli.run import carry_out, load_pipeline, refuse, refuse_failure
    from stream.cli.times import moment
    from stream.clock import SystemClock
    from stream.contracts import CONSOLE
    from stream.pipeline.model import Pipeline
    from stream.pipeline.namespace import in_namespace
    from stream.source.bounded import place_of
    from stream.worker.assemble import WorkerOptions, usable_cores
    from stream.worker.objects.slices import Window
    from stream.worker.sources.reading import Reading


def backfill(
    file: File,
    begin: Annotated[str, typer.Option("--from", help="Start of the time range (included), such as 2026-01-01T00:00:00Z or 2026-01-01.")],
    end: Annotated[str, typer.Option("--to", help="End of the time range (excluded).")],
    namespace: Annotated[
        str | None, typer.Option(help="Write to a separate log and output under this name, not to those of the live pipeline.")
    ] = None,
    drain: Drain = 25.0,
    threads: Threads = None,
    result: ResultFile = None,
    log_level: LogLevel = Least.INFO,
) -> None:
    """Process the records that arrived from --from up to --to, in the stream or in the objects of `source.s3`, and exit.

    Can run beside the live pipeline. Running the same command again continues where the last run stopped; once everything is done, it does
    nothing. Without --namespace the rows go to the live pipeline's sinks, and a time range that the live pipeline itself writes is refused.

    Exit code 0: done; 1: it could not continue, run it again; 2: the pipeline or the command is wrong, and nothing was read.
    """
    window = Window(moment(begin, "--from"), moment(end, "--to"))
    if window.begin is None or window.end is None or window.begin >= window.end:
        msg = f"--from {begin} must be before --to {end}"
        raise typer.BadParameter(msg)
    pipeline = load_pipeline(file, result)
    try:
        target = pipeline if namespace is None else in_namespace(pipeline, namespace)
    except DefinitionError as error:
        typer.echo(f"error: {error}", err=True)
        refuse(str(error), result)
    without_metrics = target.model_copy(update={"metrics": target.metrics.model_copy(update={"port": 0})})
    with Bar(window, Console(stderr=True, highlight=False)) as bar:
        reading = Reading(window=window, disjoint=namespace is not None)
        level = log_level.level
        options = WorkerOptions(file.parent, os.environ, drain, threads or usable_cores(), (bar,), reading=reading, log_level=level)
        done = carry_out(without_metrics, options, result)
    refuse_failure(done)
    typer.echo(f"{bar.records:,} records committed by this run; {_where(target)}", err=True)


class Bar:
    """An ``Emit`` that shows how far a backfill has got, and how long it may still take; shows nothing without a terminal.

    For objects it counts those that have been read; for a stream, the share of the time range covered in each shard.
    """

    def __init__(self, window: Window, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(40), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bars.add_task("backfill", total=1.0)
        self._lock = threading.Lock()
        self._window = window
        self._weights: dict[tuple[str, str], int] = {}
        self._shares: dict[tuple[str, str], float] = {}
        self.records = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1, as far as is known."""
        total = sum(self._weights.values())
        return sum(self._shares.get(key, 0.0) * weight for key, weight in self._weights.items()) / total if total else 0.0

    def __call__(self, event: events.Event) -> None:
        """Update the bar."""
        key = (event.stream, event.shard)
        with self._lock:
            match event:
                case events.ShardStarted():
                    self._weights.setdefault(key, 1)
                case events.PartOpened():
                    self._weights[key] = event.pieces
                case events.UnitSealed():
                    self.records += sum(count for _, count in event.outcomes)
                    self._shares[key] = self._reached(key, event)
                case events.ShardEnded():
                    self._shares[key] = 1.0
                case _:
                    return
            self._bars.update(self._task, completed=self.share, description=f"{self.records:,} records")

    def _reached(self, key: tuple[str, str], event: events.UnitSealed) -> float:
        piece, _ = place_of(event.last)
        if piece <= self._weights.get(key, 0):
            return (piece - 1) / self._weights[key]
        if self._window.begin is None or self._window.end is None:
            return 0.0
        newest = SystemClock().now().timestamp() - event.newest_age
        begin, end = self._window.begin.timestamp(), self._window.end.timestamp()
        return min(1.0, max(0.0, (newest - begin) / (end - begin)))


def _where(pipeline: Pipeline) -> str:
    return "rows are in " + ", ".join("standard output" if sink.url == CONSOLE else sink.url for sink in pipeline.sinks)
