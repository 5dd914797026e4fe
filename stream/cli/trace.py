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

import msgspec
import typer
from rich.console import Console

from stream.audit.chain import Link
from stream.audit.trace import Fate, Wanted
from stream.aws.secrets import read_secret
from stream.cli.audit import AsJson, File, carry_out
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
from stream.worker.tracing import Step, Tracer, read_unit, replay

EXIT_NOT_FOUND = 1


def trace(
    file: File,
    record: Annotated[str | None, typer.Argument(help="[[<stream>/]<shard>:]<sequence>[:<sub>] of the record.", show_default=False)] = None,
    target: Annotated[str | None, typer.Option("--object", help="Instead: a file of a sink, by URL or key...")] = None,
    row: Annotated[int, typer.Option("--row", help="...and a row of it, counted from 0.", min=0)] = 0,
    steps: Annotated[bool, typer.Option("--show", help="Read the record again and show it behind each stage, as recorded.")] = False,
    json: AsJson = False,
) -> None:
    """Say what became of a record: its outcome, stage and reason, its file and row, its unit, worker, times and trace.

    --show prints record data. Exit code 0: found; 1: no sealed unit holds it; 2: it could not be looked up.
    """
    if (record is None) == (target is None):
        msg = "name a record by its sequence number, or a row by --object and --row"
        raise typer.BadParameter(msg)

    async def run(pipeline: Pipeline) -> list[tuple[Fate, list[Step]]]:
        wanted = None if target is not None else Wanted.parse(record or "")
        streams = [one for one in pipeline.each() if wanted is None or wanted.stream in {None, one.source.kinesis.stream}]
        return [found for one in streams for found in await look(one, wanted)]

    async def look(pipeline: Pipeline, wanted: Wanted | None) -> list[tuple[Fate, list[Step]]]:
        clock = SystemClock()
        stores = Stores.open(pipeline, file.parent, session_of(pipeline))
        log = CommitLog(stores.state, pipeline.application, clock, "trace")
        found = await _found(pipeline, file.parent, log, wanted or Row(target or "", row))
        if not steps:
            return [(fate, []) for _, fate in found]
        shown: list[tuple[Fate, list[Step]]] = []
        definitions = Definitions(stores.state, file.parent, os.environ, clock, functools.partial(read_secret, session_of(pipeline)))
        for link, fate in found:
            async with AsyncExitStack() as stack:
                source, _ = await open_source(pipeline, file.parent, clock, stack, link.stream)
                recipe = await definitions.recorded(link.pipeline)
                shown.append((fate, list(replay(recipe, await read_unit(source, link), link, fate))))
        return shown

    found = carry_out(file, run)
    if json:
        document = [{**msgspec.to_builtins(fate), **({"steps": [_plain(step) for step in way]} if steps else {})} for fate, way in found]
        sys.stdout.write(json_text.dumps(document, indent=2) + "\n")
    else:
        console = Console(highlight=False, soft_wrap=True)
        for fate, way in found:
            _show(fate, way, console)
        if not found:
            console.print("No sealed unit holds this record: it was never read, or its unit is not committed yet.")
    raise typer.Exit(0 if found else EXIT_NOT_FOUND)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file."""

    target: str
    row: int


async def _found(pipeline: Pipeline, base: Path, log: CommitLog, wanted: Wanted | Row) -> list[tuple[Link, Fate]]:
    """In the stream's own chain and in those of its redrives and backfills, with every later attempt behind the first."""
    stores, place = Stores.open(pipeline, base, session_of(pipeline)), located(pipeline.state, base)
    tracers = {chain: Tracer(log, chain, stores.areas(place, chain)) for chain in await chains_of(pipeline, base)}
    found: list[tuple[Link, Fate]] = []
    for tracer in tracers.values():
        found += await (tracer.find_row(wanted.target, wanted.row) if isinstance(wanted, Row) else tracer.find(wanted))
    redrives = chain_name(pipeline.source.kinesis.stream)
    if redrives not in tracers:
        return found
    claims = await Claims(stores.state, redrives, Redrive).all()
    rejected = stores.areas(place, redrives)[REJECTS]
    return found + [each for _, fate in found for each in await attempts(fate, rejected, tracers[redrives], claims)]


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
