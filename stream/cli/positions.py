"""``stream leases import``: continue exactly where another consumer stopped."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File
from stream.errors import DefinitionError

if libraries_wanted():
    from rich.table import Column, Table

    from stream.cli.notices import Notices
    from stream.cli.output import as_json, table_console
    from stream.cli.pipeline_work import EXIT_UNKNOWN, carry_out, chosen
    from stream.clock import SystemClock
    from stream.lease.positions import Step, shown
    from stream.operations.changes.position_import import ImportPlan, Lag, plan_import, write_import
    from stream.pipeline.model import Pipeline

EXIT_EXPIRED: Final = 1

From = Annotated[
    str, typer.Option("--from", metavar="SOURCE", help="CSV file with columns shard,sequence, or dynamodb:TABLE.", show_default=False)
]
StreamName = Annotated[str | None, typer.Option("--stream", help="Which stream, if the pipeline reads several.")]
Running = Annotated[bool, typer.Option("--while-running", help="Import although a worker of the other consumer seems to run.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def import_positions(
    file: File,
    source: From,
    stream: StreamName = None,
    while_running: Running = False,
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Take over the positions of another Kinesis consumer, shard by shard, before the first run.

    Prints a plan, asks, and writes a lease row for each shard that has a position and neither a row nor a commit log. Only reads the other
    consumer's table: that of Redpanda Connect (Benthos), async-kinesis, kinsumer, Telegraf or harlow/kinesis-consumer.

    Exit code 0: all positions are taken over; 1: they are, but records after one have expired unread; 2: nothing was written, unless it
    says otherwise.
    """

    def narrowed(pipeline: Pipeline) -> Pipeline:
        found = chosen(pipeline, stream)
        if len(found) > 1:
            msg = f"name one of the pipeline's streams with --stream: {', '.join(pipeline.source.kinesis.names)}"
            raise DefinitionError(msg)
        return found[0]

    async def read_plan(pipeline: Pipeline) -> ImportPlan:
        return await plan_import(narrowed(pipeline), source, file.parent, SystemClock(), Notices())

    async def write(pipeline: Pipeline) -> None:
        await write_import(narrowed(pipeline), planned, file.parent, SystemClock(), Notices())

    planned = carry_out(file, read_plan)
    if not json:
        show(planned)
    _refuse(planned, while_running=while_running)
    if planned.writes:
        if not yes:
            typer.confirm(f"Write {len(planned.writes)} row(s) to the lease table {planned.table}?", abort=True, err=True)
        carry_out(file, write)
    if json:
        sys.stdout.write(as_json(document(planned)))
    else:
        typer.echo(f"{len(planned.writes)} row(s) were written to the lease table {planned.table}")
        typer.echo("Begin with `stream run`, with or without --once")
    if any(lag.expired for lag in planned.lags.values()):
        raise typer.Exit(EXIT_EXPIRED)


def _refuse(planned: ImportPlan, *, while_running: bool) -> None:
    """Exit if the plan must not be carried out, saying why on standard error."""
    lines = [f"{step.shard}: {step.why}" for step in planned.refused]
    if not while_running:
        ends = "stop it first, or give --while-running: what it reads from now on is then read twice"
        lines += [f"{shard}: {planned.kind} seems to run: {why}; {ends}" for shard, why in sorted(planned.busy.items())]
    for line in lines:
        typer.echo(f"error: {line}", err=True)
    if lines:
        typer.echo("error: nothing was written", err=True)
        raise typer.Exit(EXIT_UNKNOWN)


def show(planned: ImportPlan) -> None:
    """Print the plan for a person."""
    table = Table(*(Column(name, overflow="fold") for name in ("shard", "position", "plan", "behind", "why")))
    for step in planned.steps:
        lag = planned.lags.get(step.shard)
        table.add_row(step.shard, shown(step.position), _what(step), _behind(lag), step.why)
    typer.echo(f"{planned.stream}: positions of {planned.kind}")
    table_console().print(table)
    for shard, lag in sorted(planned.lags.items()):
        if lag.expired:
            typer.echo(f"{shard}: records after the position have expired, or may have: {lag.expired}")
    if not planned.tells_who_reads:
        typer.echo(f"Whether the other consumer still runs cannot be seen in {planned.kind}: make sure that it is stopped.")


def document(planned: ImportPlan) -> dict[str, Any]:
    """What --json prints once the rows are written."""
    return {
        "stream": planned.stream,
        "table": planned.table,
        "kind": planned.kind,
        "written": len(planned.writes),
        "shards": [_entry(step, planned.lags.get(step.shard)) for step in planned.steps],
    }


def _entry(step: Step, lag: Lag | None) -> dict[str, Any]:
    return {
        "shard": step.shard,
        "position": shown(step.position) or None,
        "plan": step.fate.value,
        "checkpoint": shown(step.checkpoint) or None,
        "behind_seconds": lag.behind.total_seconds() if lag is not None and lag.behind is not None else None,
        "expired": lag is not None and bool(lag.expired),
        "why": step.why,
    }


def _what(step: Step) -> str:
    return f"{step.fate} {shown(step.checkpoint)}" if step.checkpoint is not None and step.checkpoint != step.position else step.fate.value


def _behind(lag: Lag | None) -> str:
    if lag is None:
        return ""
    if lag.expired:
        return "expired"
    return "?" if lag.behind is None else f"{lag.behind.total_seconds():,.0f} s"
