"""``stream trace``: what became of one record."""

from __future__ import annotations

import functools
import json as json_text
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File
from stream.errors import DefinitionError

if libraries_wanted():
    import msgspec
    from rich.console import Console

    from stream.audit.chain import Link
    from stream.audit.criteria import Criterion
    from stream.audit.trace import Fate, Wanted
    from stream.aws.secrets import read_secret
    from stream.cli.audit import carry_out
    from stream.cli.documents import as_json
    from stream.clock import SystemClock
    from stream.commit.claims import Claims
    from stream.commit.log import CommitLog
    from stream.pipeline.model import Pipeline
    from stream.sink.rejects import NAME as REJECTS
    from stream.worker.auditing import Stores
    from stream.worker.dead_letters import Redrive, chain_name
    from stream.worker.definitions import Definitions
    from stream.worker.evidence import chains_of, open_source, session_of
    from stream.worker.following import attempts
    from stream.worker.places import located
    from stream.worker.tracing import Searched, Step, Tracer, read_unit, replay

EXIT_NOT_FOUND = 1


def trace(
    file: File,
    record: Annotated[
        list[str] | None,
        typer.Argument(help="[[<stream>/]<shard>:]<sequence>[:<sub>], or `message` and column=value.", show_default=False),
    ] = None,
    target: Annotated[str | None, typer.Option("--object", help="Instead: a file of a sink, by URL or key...")] = None,
    row: Annotated[int, typer.Option("--row", help="...and a row of it, counted from 0.", min=0)] = 0,
    units: Annotated[int, typer.Option(help="How many of each shard's newest units to search.", min=1, max=900)] = 200,
    steps: Annotated[
        bool, typer.Option("--show", help="Read the record again and show it after each stage of the recorded definition.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Show what became of a record: its outcome, stage and reason, its file and row, its unit, worker, times and trace.

    `message order_id=4711` searches the newest units by a column of the files, or by trace_id, parent_id, outcome, stage or reason.
    --show prints record data. Exit code 0: found; 1: no sealed unit holds it; 2: it could not be looked up.
    """
    words = [word for word in record or [] if word != "message"]
    if len(words) != (target is None):
        msg = "name a record by its sequence number or by `message column=value`, or a row by --object and --row"
        raise typer.BadParameter(msg)
    by_value = bool(words) and ("=" in words[0] or len(record or []) > 1)

    looked: list[Searched] = []

    async def run(pipeline: Pipeline) -> list[tuple[Fate, list[Step]]]:
        asked: Wanted | Row | Search
        if target is not None:
            asked = Row(target, row)
        else:
            asked = Search(Criterion.parse(words[0]), units, looked) if by_value else Wanted.parse(words[0])
        named = asked.stream if isinstance(asked, Wanted) else None
        streams = [one for one in pipeline.each() if named in {None, one.source.kinesis.stream}]
        if not streams:
            msg = f"{words[0]}: the pipeline reads {', '.join(pipeline.source.kinesis.names)}, not {named}"
            raise DefinitionError(msg)
        return [found for one in streams for found in await _look(one, file.parent, asked, steps=steps)]

    found = carry_out(file, run)
    if json:
        document = [{**msgspec.to_builtins(fate), **({"steps": [_plain(step) for step in way]} if steps else {})} for fate, way in found]
        sys.stdout.write(as_json(document))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for fate, way in found:
            _show(fate, way, console)
        if not found:
            console.print(_not_found(looked) if target is None else _no_such_row(target, row))
    raise typer.Exit(0 if found else EXIT_NOT_FOUND)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file."""

    target: str
    row: int


@dataclass(frozen=True, slots=True)
class Search:
    """A search for a value in a column of the newest ``units``; ``looked`` collects what was searched."""

    criterion: Criterion
    units: int
    looked: list[Searched]


async def _look(pipeline: Pipeline, base: Path, asked: Wanted | Row | Search, *, steps: bool) -> list[tuple[Fate, list[Step]]]:
    """What one stream's log says; with ``steps``, also each record's way through the definition that its unit was committed with."""
    clock, session = SystemClock(), session_of(pipeline)
    stores = Stores.open(pipeline, base, session)
    found = await _found(pipeline, base, CommitLog(stores.state, pipeline.application, clock, "trace"), asked)
    if not steps:
        return [(fate, []) for _, fate in found]
    shown: list[tuple[Fate, list[Step]]] = []
    definitions = Definitions(stores.state, base, os.environ, clock, functools.partial(read_secret, session))
    for link, fate in found:
        async with AsyncExitStack() as stack:
            source, _ = await open_source(pipeline, base, clock, stack, link.stream)
            recipe = await definitions.recorded(link.pipeline)
            shown.append((fate, list(replay(recipe, await read_unit(source, link), link, fate))))
    return shown


async def _ask(tracer: Tracer, wanted: Wanted | Row | Search) -> list[tuple[Link, Fate]]:
    match wanted:
        case Row(target, row):
            return await tracer.find_row(target, row)
        case Search(criterion, units, looked):
            found, searched = await tracer.search(criterion, units)
            looked.append(searched)
            return found
        case _:
            return await tracer.find(wanted)


async def _found(pipeline: Pipeline, base: Path, log: CommitLog, wanted: Wanted | Row | Search) -> list[tuple[Link, Fate]]:
    """The record in the stream's own chain and in those of its redrives and backfills; later attempts follow the first."""
    stores, place = Stores.open(pipeline, base, session_of(pipeline)), located(pipeline.state, base)
    tracers = {chain: Tracer(log, chain, stores.areas(place, chain)) for chain in await chains_of(pipeline, base)}
    found: list[tuple[Link, Fate]] = []
    for tracer in tracers.values():
        found += await _ask(tracer, wanted)
    redrives = chain_name(pipeline.source.kinesis.stream)
    if redrives not in tracers:
        return found
    claims = await Claims(stores.state, redrives, Redrive).all()
    rejected = stores.areas(place, redrives)[REJECTS]
    return found + [each for _, fate in found for each in await attempts(fate, rejected, tracers[redrives], claims)]


def _not_found(looked: list[Searched]) -> str:
    if not looked:
        return "No sealed unit holds this record: it was never read, or its unit has not been committed yet."
    units = sum(each.units for each in looked)
    return f"None of the newest {units} units holds such a record; --units searches further back, and a sequence number finds any record."


def _no_such_row(target: str, row: int) -> str:
    return f"No sealed unit lists a file {target} with a row {row}: give the file's URL, or its key below the sink's URL."


def _show(fate: Fate, way: list[Step], console: Console) -> None:
    arrived = datetime.fromtimestamp(fate.arrival_ms / 1000, UTC).isoformat(timespec="milliseconds")
    lines = {
        "stream": fate.stream,
        "record": f"{fate.shard}:{fate.sequence}:{fate.subsequence}",
        "attempt": f"{fate.attempts_before + 1}, first read as {fate.first_read}" if fate.first_read else None,
        "outcome": fate.outcome,
        "stage": fate.stage,
        "reason": fate.reason,
        **{f"in {place.sink}": f"{place.url} row {place.row}" for place in fate.places},
        "rows": str(fate.rows) if fate.rows > 1 else None,
        "arrived": f"{arrived} ({fate.payload_bytes} bytes)",
        "sealed": f"{fate.sealed_at} by {fate.sealed_by}",
        "begun": f"{fate.created_at} by {fate.worker}",
        "unit": f"({fate.unit_after}, {fate.unit_last}] of {fate.unit_records} records",
        "pipeline": fate.pipeline,
        "trace": f"{fate.trace_id} span {fate.span_id}",
        "producer": f"{fate.producer_trace_id} span {fate.producer_span_id}" if fate.producer_trace_id else None,
        "ledger": fate.ledger,
    }
    for name, value in lines.items():
        if value:
            console.print(f"[bold]{name:10}[/] ", end="")
            console.print(value, markup=False)
    for step in way:
        console.print(f"\n[bold cyan]{step.name}[/] {step.ended}")
        for values in step.rows:
            for name, value in values.items():
                console.print(f"  {name}: {_text(value)}", markup=False)


def _plain(step: Step) -> dict[str, Any]:
    rows = [{name: _text(value) if isinstance(value, bytes | datetime) else value for name, value in row.items()} for row in step.rows]
    return {"step": step.name, "ended": step.ended, "rows": json_text.loads(json_text.dumps(rows, default=str))}


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
