"""``stream trace``: what became of one record."""

from __future__ import annotations

import functools
import json as json_text
import os
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from stream.audit.trace import Fate, Wanted
from stream.aws.secrets import read_secret
from stream.aws.session import AwsSession
from stream.cli.audit import AsJson, File, carry_out
from stream.clock import SystemClock
from stream.commit.log import CommitLog
from stream.pipeline.model import Pipeline
from stream.worker.auditing import Stores, open_source
from stream.worker.definitions import Definitions
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
        clock, kinesis = SystemClock(), pipeline.source.kinesis
        session = AwsSession(region=kinesis.region, endpoints={"kinesis": kinesis.endpoint} if kinesis.endpoint else None)
        stores = Stores.open(pipeline, file.parent, session)
        log = CommitLog(stores.state, pipeline.application, clock, "trace")
        tracer = Tracer(log, kinesis.stream, stores.areas(located(pipeline.state, file.parent), kinesis.stream))
        found = await (tracer.find_row(target or "", row) if wanted is None else tracer.find(wanted))
        shown: list[tuple[Fate, list[Step]]] = [(fate, []) for _, fate in found]
        if steps and found:
            async with AsyncExitStack() as stack:
                source = await open_source(pipeline, session, clock, stack)
                definitions = Definitions(stores.state, file.parent, os.environ, clock, functools.partial(read_secret, session))
                shown = [
                    (fate, list(replay(await definitions.recorded(link.pipeline), await read_unit(source, link), link, fate)))
                    for link, fate in found
                ]
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


def _show(fate: Fate, way: list[Step], console: Console) -> None:
    arrived = datetime.fromtimestamp(fate.arrival_ms / 1000, UTC).isoformat(timespec="milliseconds")
    lines = {
        "stream": fate.stream,
        "record": f"{fate.shard}:{fate.sequence}:{fate.subsequence}",
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
