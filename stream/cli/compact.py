"""``stream compact``: many small files of a sink become a few large ones, in a dataset of their own."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File, Stream

if libraries_wanted():
    import msgspec
    from rich.table import Table

    from stream.cli.output import as_json, table_console
    from stream.cli.pipeline_work import carry_out, chosen
    from stream.cli.times import moment
    from stream.clock import SystemClock
    from stream.contracts import Clock
    from stream.operations.compaction.compactor import Compactor, PartitionDone
    from stream.operations.compaction.opening import CompactionRequest, closed_before, open_compactors
    from stream.operations.compaction.sources_removal import delete_sources
    from stream.pipeline.model import Pipeline
    from stream.pipeline.units import parse_duration, parse_size

T = TypeVar("T")

TARGET: Final = "256MiB"
LEAST_SIZE: Final = 2**20
MOST_SIZE: Final = 4 * 2**30
LEAST_GRACE: Final = timedelta(hours=1)
"""A query that has listed the files before they are deleted fails; few run longer."""


def compact(  # noqa: PLR0917 - options of a command are given by name
    file: File,
    sink: Annotated[str | None, typer.Option("--sink", help="Only this sink.", show_default="every s3 sink that writes Parquet")] = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            help="Compact what arrived before this time, such as 2026-01-01T00:00:00Z, also of partitions that still get rows.",
            show_default="only partitions for which nothing has arrived in the last hour",
        ),
    ] = None,
    partition: Annotated[
        list[str] | None, typer.Option("--partition", help="Only this partition, such as month=2013-01; may be repeated.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="URL of the place for the large files.", show_default="beside the sink, with -compacted")
    ] = None,
    target_size: Annotated[str, typer.Option("--target-size", help="Most bytes of small files that become one large one.")] = TARGET,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be compacted, and write nothing.")] = False,
    delete_sources: Annotated[
        str | None,
        typer.Option(
            "--delete-sources",
            metavar="AGE",
            help="Instead: delete the small files of compactions published at least this long ago, such as 7d.",
            show_default=False,
        ),
    ] = None,
    stream: Stream = None,
    json: AsJson = False,
) -> None:
    """Merge the small files of an s3 sink into a few large ones, partition by partition, in a dataset beside it.

    What is compacted is taken from the commit log. The rows are read back and compared before a compaction is published, and the small
    files stay where they are until --delete-sources. Safe to repeat, to kill, and to run twice at once.

    Exit code 0: done, also if there was nothing to do; 2: it failed, or the command is wrong.
    """
    size = _size(target_size)
    choice = Choice(None if before is None else moment(before, "--before"), tuple(each.strip("/") for each in partition or ()), dry_run)
    grace = None if delete_sources is None else _grace(delete_sources, given=before is not None or bool(partition) or dry_run)

    outcome = carry_out(
        file, lambda pipeline: _carry_out(chosen(pipeline, stream), CompactionRequest(sink, to, size), choice, grace, file.parent)
    )
    if json:
        sys.stdout.write(as_json(document(outcome, deleting=grace is not None)))
    elif grace is not None:
        typer.echo(f"{outcome.files:,} files with {outcome.size:,} bytes were deleted; their rows are in the compacted files.")
    else:
        show(outcome.done, planned=dry_run)


@dataclass(frozen=True, slots=True)
class Choice:
    """What to compact: ``before`` None for closed partitions only; ``only``: partitions, none for all."""

    before: datetime | None
    only: tuple[str, ...]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done: partitions, or files that were deleted and their bytes."""

    done: Sequence[PartitionDone]
    files: int
    size: int


async def _carry_out(
    streams: Sequence[Pipeline], places: CompactionRequest, choice: Choice, grace: timedelta | None, base: Path
) -> Outcome:
    """Compact the files of each of ``streams``; with ``grace``, delete what was compacted that long ago instead."""
    clock, worker = SystemClock(), f"compact/{socket.gethostname()}/{os.getpid()}"
    done: list[PartitionDone] = []
    files = size = 0
    for one in streams:
        compactors = await open_compactors(one, places, base, clock, worker, tell)
        if grace is None:
            done += await _compacted(one, compactors, choice, base, clock)
            continue
        for each in compactors:
            found = await delete_sources(each, grace)
            files, size = files + found[0], size + found[1]
    return Outcome(done, files, size)


async def _compacted(pipeline: Pipeline, compactors: Sequence[Compactor], choice: Choice, base: Path, clock: Clock) -> list[PartitionDone]:
    closed = choice.before is None
    before = choice.before or await closed_before(pipeline, base, clock)
    done: list[PartitionDone] = []
    for each in compactors:
        act = each.plan if choice.dry_run else each.run
        done += await act(before, closed=closed, only=choice.only)
    return done


def tell(text: str) -> None:
    """Progress, for people."""
    typer.echo(text, err=True)


def document(outcome: Outcome, *, deleting: bool) -> dict[str, Any]:
    """The document that --json prints, as described in docs/compact.md."""
    if deleting:
        return {"deleted_files": outcome.files, "deleted_bytes": outcome.size}
    return {"partitions": [msgspec.to_builtins(each) for each in outcome.done]}


def show(done: Sequence[PartitionDone], *, planned: bool) -> None:
    """The outcome as text."""
    console = table_console()
    if not done:
        console.print("Nothing to compact: no partition is closed that has files which are not compacted yet.")
        return
    table = Table("stream", "sink", "partition", "files", "bytes", "becoming" if planned else "became", "bytes", "rows")
    for each in done:
        after = "at most" if planned else f"{each.output_size:,}"
        row = (each.stream, each.sink, each.partition, f"{each.files:,}", f"{each.size:,}", f"{each.outputs:,}", after, f"{each.rows:,}")
        table.add_row(*row)
    console.print(table)
    if planned:
        console.print("Nothing was written.")


def _size(text: str) -> int:
    found = _parsed("--target-size", text, parse_size)
    if not LEAST_SIZE <= found <= MOST_SIZE:
        msg = f"--target-size {text}: give 1MiB to 4GiB; up to three times as much memory is used"
        raise typer.BadParameter(msg)
    return found


def _grace(text: str, *, given: bool) -> timedelta:
    if given:
        msg = "--delete-sources deletes files of what is published already; it goes with none of --before, --partition and --dry-run"
        raise typer.BadParameter(msg)
    found = _parsed("--delete-sources", text, parse_duration)
    if found < LEAST_GRACE:
        msg = f"--delete-sources {text}: give at least 1h, because queries that are running read the small files"
        raise typer.BadParameter(msg)
    return found


def _parsed(option: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        msg = f"{option}: {error}"
        raise typer.BadParameter(msg) from error
