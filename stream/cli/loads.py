"""``stream loads``: what is waiting to be loaded into a table, what is parked, and how to resume it."""

from __future__ import annotations

import json as json_text
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File
from stream.errors import DefinitionError

if libraries_wanted():
    from rich.table import Table

    from stream.cli.output import table_console
    from stream.cli.pipeline_work import carry_out
    from stream.clock import SystemClock
    from stream.commit.log import CommitLog
    from stream.events import Event, UnitsPassedOver
    from stream.lease.pauses import PauseRecord
    from stream.operations.opening import chains_of
    from stream.pipeline.model import Pipeline
    from stream.worker.opening.places import session_of
    from stream.worker.opening.stores import Stores
    from stream.worker.recipes.definitions import Definitions
    from stream.worker.tables.loaders import open_loader_parts
    from stream.worker.tables.parts import LoaderParts
    from stream.worker.tables.standing import Standing, standing

app = typer.Typer(
    name="loads",
    add_completion=False,
    help="Show what is waiting to be loaded into tables, and which shards are parked; resume parked shards.",
    no_args_is_help=True,
)

EXIT_WAITING = 1

SinkName = Annotated[str | None, typer.Option("--sink", help="Name of the sink, if the pipeline loads more than one table.")]


@app.command()
def ls(file: File, sink: SinkName = None, json: AsJson = False) -> None:
    """List for each shard how far it is loaded, what is waiting, and why loading is parked.

    Reads the commit log and the table's own record of what is loaded. Loads nothing. At most the next 400 units of each shard are counted.

    Exit code 0: no shard is parked; 1: at least one is; 2: it could not be determined.
    """
    passed: list[UnitsPassedOver] = []

    def listen(event: Event) -> None:
        if isinstance(event, UnitsPassedOver):
            passed.append(event)

    async def run(pipeline: Pipeline) -> list[tuple[LoaderParts, str, list[Standing]]]:
        async with AsyncExitStack() as stack:
            tables = await _open(pipeline, file.parent, sink, stack, listen)
            return [(each, await each.lease.holder(), await standing(each)) for each in tables]

    found = carry_out(file, run)
    if json:
        document = [
            {
                "sink": each.config.name,
                "stream": each.stream,
                "loader": holder,
                "paused": "" if (pause := each.pause()) is None else str(pause),
                "shards": [_plain(row) for row in rows],
            }
            for each, holder, rows in found
        ]
        sys.stdout.write(json_text.dumps(document, indent=2) + "\n")
    else:
        for each, holder, rows in found:
            _show(f"{each.config.name}, {each.stream}", holder, rows)
            if (pause := each.pause()) is not None:
                typer.echo(str(pause))
    for left in passed:
        typer.echo(f"{left.sink}, {left.stream}: units that were sealed for the {left.table} are passed over. {left.remedy}.", err=True)
    raise typer.Exit(EXIT_WAITING if any(row.parked for *_, rows in found for row in rows) else 0)


@app.command()
def retry(
    file: File,
    shard: Annotated[str | None, typer.Option(help="Only this shard.", show_default="all parked ones")] = None,
    sink: SinkName = None,
) -> None:
    """Resume the loading of parked shards. The worker that loads picks them up within the sink's `every`.

    Exit code 0: done, or nothing was parked; 2: it could not be done.
    """

    async def run(pipeline: Pipeline) -> list[tuple[str, str]]:
        async with AsyncExitStack() as stack:
            tables = await _open(pipeline, file.parent, sink, stack)
            return [(table.config.name, each) for table in tables for each in await table.state.retry(shard)]

    released = carry_out(file, run)
    for name, parked in released:
        typer.echo(f"{name}: {parked} is loaded again")
    if not released:
        typer.echo("nothing is parked" if shard is None else f"{shard} is not parked")


async def _open(
    pipeline: Pipeline, base: Path, sink: str | None, stack: AsyncExitStack, emit: Callable[[Event], None] = lambda _: None
) -> list[LoaderParts]:
    session, clock = session_of(pipeline), SystemClock()
    stores = Stores.open(pipeline, base, session)
    log = CommitLog(stores.state, pipeline.application, clock, "loads")
    definitions = Definitions(stores.state, base, os.environ, clock)
    identity = ("loads", clock, emit)
    chosen: list[LoaderParts] = []
    pauses = await PauseRecord(stores.state).in_force(clock.now())
    for stream, chain in [(one.source.kinesis.stream, chain) for one in pipeline.each() for chain in await chains_of(one, base)]:
        for table in await open_loader_parts(pipeline, chain, session, log, stores.targets, definitions, identity, stack):
            name = table.config.name
            if sink in {None, name}:
                chosen.append(replace(table, pause=partial(pauses.loads, stream, name)))
    if not chosen:
        msg = "the pipeline loads no table" if sink is None else f"the pipeline has no sink named {sink!r} that loads a table"
        raise DefinitionError(msg)
    return chosen


def _plain(row: Standing) -> dict[str, Any]:
    return {
        "shard": row.shard,
        "loaded_up_to": str(row.loaded),
        "units_waiting": row.units,
        "rows_waiting": row.rows,
        "waiting_since": row.since,
        "parked": row.parked,
    }


def _show(name: str, holder: str, rows: list[Standing]) -> None:
    console = table_console()
    table = Table("shard", "loaded up to", "units waiting", "rows", "since", "state", title=f"{name}: loader {holder or 'none'}")
    table.title_justify = "left"
    for row in rows:
        state = "parked" if row.parked else "waiting" if row.units else "loaded"
        table.add_row(row.shard, str(row.loaded), f"{row.units:,}", f"{row.rows:,}", row.since, state)
    console.print(table)
    for row in rows:
        if row.parked:
            console.print(f"{row.shard}: {row.parked}", markup=False)
