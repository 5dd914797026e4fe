"""``stream trace``: what became of one record."""

from __future__ import annotations

import functools
import json as json_text
import os
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import ArrivedFrom, ArrivedSince, ArrivedTo, AsJson, File, Reveal
from stream.errors import DefinitionError

if libraries_wanted():
    import msgspec
    from rich.console import Console

    from stream.audit.chain import Bounds, Link
    from stream.audit.criteria import Criteria
    from stream.audit.trace import Fate, Place, RecordQuery
    from stream.aws.secrets import read_secret
    from stream.cli.output import as_json
    from stream.cli.pipeline_work import carry_out
    from stream.cli.times import bounds_of
    from stream.clock import SystemClock
    from stream.commit.claims import Claims
    from stream.commit.log import CommitLog
    from stream.operations.opening import chains_of, open_source
    from stream.operations.records.redrive_attempts import attempts
    from stream.operations.records.replaying import Step, read_unit, replay
    from stream.operations.records.searching import Search, Searched, Wanted
    from stream.operations.records.tables import LoadedTables
    from stream.operations.records.tracing import Tracer
    from stream.pipeline.model import Pipeline
    from stream.pipeline.sensitive import joined
    from stream.sink.rejects import NAME as REJECTS
    from stream.source.bounded import place_of, sequence_of
    from stream.source.unreadable import UNREADABLE
    from stream.storage.open import open_store
    from stream.transform.engine import OBJECT_UNREADABLE
    from stream.worker.opening.places import located, session_of
    from stream.worker.opening.stores import Stores
    from stream.worker.recipes.definitions import Definitions
    from stream.worker.sources.dead_letters import Redrive, chain_name

EXIT_NOT_FOUND = 1

FromSource = Annotated[
    bool,
    typer.Option("--source", help="With `message`, and --since or --from: also read the records again, and compare them as they arrived."),
]
FromTables = Annotated[bool, typer.Option("--tables/--no-tables", help="With `message`: also ask the tables that the pipeline loads.")]
Show = Annotated[
    bool,
    typer.Option(
        "--show",
        help="Re-read the record and show it after each stage of the definition that its unit was committed with. Prints record data, "
        "but for columns that the file declares `sensitive`.",
    ),
]


def trace(  # noqa: PLR0917 - options of a command are given by name
    file: File,
    record: Annotated[
        list[str] | None,
        typer.Argument(help="[[<stream>/]<shard>:]<sequence>[:<subsequence>], or `message column=value ...`.", show_default=False),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--object", help="Instead of a record: the row --row of this file of a sink, given by URL or key.")
    ] = None,
    row: Annotated[int, typer.Option("--row", help="With --object: the row, counted from 0.", min=0)] = 0,
    units: Annotated[int, typer.Option(help="With `message`: how many of each shard's newest units to search.", min=1, max=900)] = 200,
    since: ArrivedSince = None,
    begin: ArrivedFrom = None,
    end: ArrivedTo = None,
    source: FromSource = False,
    tables: FromTables = True,
    steps: Show = False,
    reveal: Reveal = False,
    json: AsJson = False,
) -> None:
    """Show what became of a record: outcome, stage and reason, output file and row, unit, worker, times and trace id.

    Name the record by its sequence number, by values (`message order_id=4711 outcome=dead_lettered`: all must hold), or by its place in an
    output file (--object and --row). Values are searched for in the newest units, or in all of a time: in columns of the output files, of
    tables, of dead letters as they arrived, or in trace_id, parent_id, outcome, stage or reason. With --source, records are read again and
    compared as they arrived, those too that were filtered; also by `message _partition_key=K`.

    Exit code 0: found; 1: no sealed unit holds it; 2: the lookup failed, or the command is wrong.
    """
    given = record or []
    by_value = bool(given) and (given[0] == "message" or "=" in given[0])
    words = given[1:] if given[:1] == ["message"] else given
    if bool(words) != (target is None) or (len(words) > 1 and not by_value):
        msg = "name one record by its sequence number, or records by `message column=value ...`, or a row by --object and --row"
        raise typer.BadParameter(msg)
    searched = Searched() if by_value else None
    bounds = _bounds(since, begin, end, by_value=searched is not None, source=source)
    reasons: list[str] = []

    async def run(pipeline: Pipeline) -> list[tuple[Fate, list[Step]]]:
        query: RecordQuery | Row | ByValue
        if searched is not None:
            query = ByValue(Wanted(Criteria.parse(words), units, bounds, tables, source), searched)
        else:
            query = RecordQuery.parse(words[0]) if words else Row(target or "", row)
        streams = _streams_of(pipeline, query, words)
        found = [each for one in streams for each in await _fates(one, file.parent, query, steps=steps, reveal=reveal)]
        reasons.extend([why for one in streams for why in await _explained(one, file.parent, query)] if not found else ())
        return found

    found = carry_out(file, run)
    if json:
        sys.stdout.write(as_json([_document(fate, replayed if steps else None) for fate, replayed in found]))
    else:
        _show_all(found, _not_found(searched, bounds, reasons) if target is None else _no_such_row(target, row))
    for note in _notes(searched) if searched is not None else ():
        typer.echo(f"note: {note}", err=True)
    raise typer.Exit(0 if found else EXIT_NOT_FOUND)


def _bounds(since: str | None, begin: str | None, end: str | None, *, by_value: bool, source: bool) -> Bounds:
    bounds = bounds_of(since, begin, end)
    if (source or not bounds.open) and not by_value:
        msg = "--since, --from, --to and --source go with `message column=value`: any other record is found in the whole log"
        raise typer.BadParameter(msg)
    if source and bounds.begin is None:
        msg = "--source needs --since or --from: it reads all records that arrived since then"
        raise typer.BadParameter(msg)
    return bounds


def _document(fate: Fate, replayed: list[Step] | None) -> dict[str, Any]:
    return {**msgspec.to_builtins(fate), **({} if replayed is None else {"steps": [_plain(step) for step in replayed]})}


@dataclass(frozen=True, slots=True)
class Row:
    """A query for the record behind one row of an output file, by its URL or key."""

    target: str
    row: int


@dataclass(frozen=True, slots=True)
class ByValue:
    """A query for records by values. ``searched`` collects how far the search went."""

    wanted: Wanted
    searched: Searched


def _streams_of(pipeline: Pipeline, query: RecordQuery | Row | ByValue, words: list[str]) -> list[Pipeline]:
    """``pipeline`` narrowed to each stream that may hold the record."""
    said = query.stream if isinstance(query, RecordQuery) else None
    named = None if said is None else pipeline.source.kinesis.called(said)
    streams = [one for one in pipeline.each() if named in {None, one.source.kinesis.stream}]
    if not streams:
        msg = f"{words[0]}: the pipeline reads {', '.join(pipeline.source.kinesis.names)}, not {said}"
        raise DefinitionError(msg)
    return streams


async def _fates(
    pipeline: Pipeline, base: Path, query: RecordQuery | Row | ByValue, *, steps: bool, reveal: bool
) -> list[tuple[Fate, list[Step]]]:
    """What one stream's log says of the record; with ``steps``, also the record after each stage of the recorded definition.

    Columns that are sensitive by ``pipeline`` or by the recorded definition are hidden unless ``reveal``.
    """
    clock, session = SystemClock(), session_of(pipeline)
    stores = Stores.open(pipeline, base, session)
    found = await _found(pipeline, base, CommitLog(stores.state, pipeline.application, clock, "trace"), query)
    if not steps:
        return [(fate, []) for _, fate in found]
    shown: list[tuple[Fate, list[Step]]] = []
    definitions = Definitions(stores.state, base, os.environ, clock, functools.partial(read_secret, session))
    for link, fate in found:
        async with AsyncExitStack() as stack:
            source, _ = await open_source(pipeline, base, clock, stack, link.stream)
            recipe, recorded = await definitions.recorded(link.pipeline), await definitions.pipeline(link.pipeline)
            sensitive = None if reveal else joined(pipeline.sensitive, recorded.sensitive)
            shown.append((fate, list(replay(recipe, recorded.stages, sensitive, await read_unit(source, link), link, fate))))
    return shown


async def _run_query(tracer: Tracer, query: RecordQuery | Row) -> list[tuple[Link, Fate]]:
    match query:
        case Row(target, row):
            return await tracer.find_row(target, row)
        case _:
            return await tracer.find(query)


async def _found(pipeline: Pipeline, base: Path, log: CommitLog, query: RecordQuery | Row | ByValue) -> list[tuple[Link, Fate]]:
    """The record in the stream's own chain and in those of its redrives and backfills; later attempts follow the first."""
    stores, place = Stores.open(pipeline, base, session_of(pipeline)), located(pipeline.state, base)
    tracers = {chain: await _tracer(pipeline, stores, place, log, chain) for chain in await chains_of(pipeline, base)}
    found: list[tuple[Link, Fate]] = []
    if isinstance(query, ByValue):
        async with AsyncExitStack() as stack:
            found = await Search(pipeline, base, os.environ, SystemClock(), tracers, stack).run(query.wanted, query.searched)
    else:
        for tracer in tracers.values():
            found += await _run_query(tracer, query)
    redrives, number = chain_name(pipeline.source.kinesis.stream), UNREADABLE
    if not found and isinstance(query, RecordQuery) and pipeline.source.s3 is not None:
        # It may be in the part of its object that could not be read.
        piece, number = place_of(query.sequence)
        rest = replace(query, sequence=sequence_of(piece, UNREADABLE), subsequence=None)
        found = [each for tracer in tracers.values() for each in await tracer.find(rest) if each[1].reason == OBJECT_UNREADABLE]
    if redrives not in tracers:
        return found
    claims = await Claims(stores.state, redrives, Redrive).all()
    rejected = stores.areas(place, redrives)[REJECTS]
    again = [each for _, fate in found for each in await attempts(fate, rejected, tracers[redrives], claims, number)]
    return list({(link.stream, fate.shard, fate.sequence, fate.subsequence): (link, fate) for link, fate in (*found, *again)}.values())


async def _tracer(pipeline: Pipeline, stores: Stores, place: str, log: CommitLog, chain: str) -> Tracer:
    tables = LoadedTables(pipeline, stores.state, chain, Definitions(stores.state, Path(), {}, SystemClock()))
    open_place = functools.partial(open_store, session=session_of(pipeline))
    return Tracer(log, chain, stores.areas(place, chain), open_place, tables.of)


async def _explained(pipeline: Pipeline, base: Path, query: RecordQuery | Row | ByValue) -> list[str]:
    """Why the stream's log has no such record; empty if it was not asked for by its number."""
    if not isinstance(query, RecordQuery):
        return []
    stores, place = Stores.open(pipeline, base, session_of(pipeline)), located(pipeline.state, base)
    log = CommitLog(stores.state, pipeline.application, SystemClock(), "trace")
    return await (await _tracer(pipeline, stores, place, log, pipeline.source.kinesis.stream)).explain(query)


def _not_found(searched: Searched | None, bounds: Bounds, reasons: list[str]) -> str:
    if searched is None:
        return "\n".join(["No sealed unit holds this record.", *(reasons or ["The log has no shard that could have it."])])
    units = searched.extent.units
    if not bounds.open:
        return f"None of the {units} units with records of that time holds such a record; a sequence number finds any record."
    return f"None of the newest {units} units holds such a record; --since or --units search further back, and a sequence number finds any."


def _notes(searched: Searched) -> Iterator[str]:
    """What a person should know about a search by value."""
    extent = searched.extent
    yield f"searched {extent.units} units, {extent.files} files and {extent.letters} dead letters"
    yield from dict.fromkeys(searched.notes)
    if extent.without_ledger:
        yield f"the ledger of {extent.without_ledger} units is missing or damaged; `stream audit verify` names them"


def _no_such_row(target: str, row: int) -> str:
    return f"No sealed unit lists a file {target} with a row {row}: give the file's URL, or its key below the sink's URL."


def _show_all(found: list[tuple[Fate, list[Step]]], otherwise: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for fate, replayed in found:
        _show(fate, replayed, console)
    if not found:
        console.print(otherwise, markup=False)


def _show(fate: Fate, steps: list[Step], console: Console) -> None:
    arrived = datetime.fromtimestamp(fate.arrival_ms / 1000, UTC).isoformat(timespec="milliseconds")
    lines = {
        "stream": fate.stream,
        "record": f"{fate.shard}:{fate.sequence}:{fate.subsequence}",
        "attempt": f"{fate.attempts_before + 1}, first read as {fate.first_read}" if fate.first_read else None,
        "outcome": fate.outcome,
        "taken back": fate.taken_back,
        "stage": fate.stage,
        "reason": fate.reason,
        **{name: text for place in fate.places for name, text in _place(place)},
        "rows": str(fate.rows) if fate.rows > 1 else None,
        "arrived": f"{arrived} ({fate.payload_bytes} bytes)" if fate.arrival_ms else None,
        "sealed": f"{fate.sealed_at} by {fate.sealed_by}",
        "begun": f"{fate.created_at} by {fate.worker}",
        "unit": f"({fate.unit_after}, {fate.unit_last}] of {fate.unit_records} records",
        "pipeline": fate.pipeline,
        "trace": f"{fate.trace_id} span {fate.span_id}" if fate.trace_id else None,
        "producer": f"{fate.producer_trace_id} span {fate.producer_span_id}" if fate.producer_trace_id else None,
        "ledger": fate.ledger,
    }
    for name, value in lines.items():
        if value:
            console.print(f"[bold]{name:10}[/] ", end="")
            console.print(value, markup=False)
    for step in steps:
        console.print(f"\n[bold cyan]{step.name}[/] {step.ended}")
        for values in step.rows:
            for name, value in values.items():
                console.print(f"  {name}: {_text(value)}", markup=False)


def _place(place: Place) -> Iterator[tuple[str, str]]:
    yield f"in {place.sink}", f"{place.url} row {place.row}"
    if place.compacted is not None:
        yield f"compacted {place.sink}", f"{place.compacted.url} row {place.compacted.row}"
    if place.loaded:
        yield f"loaded {place.sink}", f"into the table {place.loaded}"


def _plain(step: Step) -> dict[str, Any]:
    rows = [{name: _text(value) if isinstance(value, bytes | datetime) else value for name, value in row.items()} for row in step.rows]
    return {"step": step.name, "ended": step.ended, "rows": json_text.loads(json_text.dumps(rows, default=str))}


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
