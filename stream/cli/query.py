"""``stream query``: SQL over what a pipeline has produced, including what no worker has sealed yet."""

from __future__ import annotations

import json as json_text
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import ArrivedFrom, ArrivedSince, ArrivedTo, AsJson, File, Reveal, Stream

if libraries_wanted():
    import asyncio

    import polars as pl
    from rich.table import Table
    from rich.text import Text

    from stream.audit.chain import Bounds
    from stream.batch import type_name
    from stream.cli.notices import Notices
    from stream.cli.output import as_json, table_console
    from stream.cli.pipeline_work import carry_out, chosen
    from stream.cli.times import bounds_of
    from stream.clock import SystemClock
    from stream.operations.query.contents import Contents, ShardRead, Wanted, chosen_sink, open_queried, tables_in
    from stream.operations.query.sink_rows import TABLES
    from stream.operations.query.sql import run_query, tables_of
    from stream.operations.query.unsealed import Room
    from stream.pipeline.model import Pipeline
    from stream.pipeline.trials.trial import plain
    from stream.pipeline.units import parse_size
    from stream.sink.csv import SeparatedValues, separated

MOST_BYTES: Final = "256MiB"
MOST_ROWS: Final = 10_000


def query(  # noqa: PLR0917 - options of a command are given by name
    file: File,
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="One SELECT over the tables `rows` and `dead_letters`, in quotes.", show_default=False)
    ],
    sink: Annotated[str | None, typer.Option("--sink", help="The sink whose rows are queried.", show_default="the only one")] = None,
    since: ArrivedSince = None,
    begin: ArrivedFrom = None,
    end: ArrivedTo = None,
    tail: Annotated[bool, typer.Option("--tail/--no-tail", help="Also read what no worker has sealed yet, or only sealed files.")] = True,
    max_bytes: Annotated[str, typer.Option("--max-bytes", help="Most bytes of files and records that may be read.")] = MOST_BYTES,
    max_rows: Annotated[int, typer.Option("--max-rows", help="Most rows that the result may have.", min=1)] = MOST_ROWS,
    stream: Stream = None,
    reveal: Reveal = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV, with a line of names.")] = False,
    json: AsJson = False,
) -> None:
    """Run a SQL query over the rows of a sink, each exactly once, including those of records that no worker has sealed yet.

    What is sealed is read from the files that the commit log lists. What follows it in the stream goes, in this process, through the
    definition that workers have. No worker is asked, and nothing is written. The columns `_sealed` and `_file` say which rows are in a
    file, and in which. The values of columns that the file declares `sensitive` are hidden before the query runs, unless --reveal is given.

    Exit code 0: done; 2: the query, an option or the file is wrong, or something could not be read.
    """
    if csv and json:
        msg = "--csv and --json: choose one"
        raise typer.BadParameter(msg)
    asked = Asked(sql, sink, bounds_of(since, begin, end), _size(max_bytes), max_rows, tail, reveal)
    answer = carry_out(file, lambda pipeline: _answer(pipeline, chosen(pipeline, stream), asked, file.parent))
    if json:
        sys.stdout.write(as_json(document(answer)))
        return
    for note in _remarks(answer):
        typer.echo(note, err=True)
    if csv:
        sys.stdout.write(separated(_flat(answer.rows), SeparatedValues()).decode())
    else:
        _show(answer.rows)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked, as the command line says."""

    sql: str
    sink: str | None
    bounds: Bounds
    most_bytes: int
    most_rows: int
    tail: bool
    reveal: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The result, and how each stream was read for it."""

    application: str
    sink: str
    rows: pl.DataFrame
    contents: Sequence[Contents]


async def _answer(pipeline: Pipeline, streams: Sequence[Pipeline], asked: Asked, base: Path) -> Answer:
    wanted = Wanted(chosen_sink(pipeline, asked.sink), tables_of(asked.sql, TABLES), asked.bounds, asked.reveal)
    room, found = Room(asked.most_bytes), []
    async with AsyncExitStack() as stack:
        for one in streams:
            queried = await open_queried(pipeline, one, base, os.environ, SystemClock(), Notices(), stack, tail=asked.tail)
            found.append(await queried.read(wanted, room))
    rows = await asyncio.to_thread(run_query, asked.sql, tables_in(found, wanted), asked.most_rows)
    return Answer(pipeline.application, wanted.sink.name, rows, found)


def document(answer: Answer) -> dict[str, Any]:
    """The document that --json prints, as described in docs/query.md."""
    return {
        "application": answer.application,
        "sink": answer.sink,
        "columns": {name: type_name(kind) for name, kind in answer.rows.schema.items()},
        "rows": [{name: plain(value) for name, value in row.items()} for row in answer.rows.iter_rows(named=True)],
        "hidden": _hidden(answer),
        "notes": _notes(answer),
        "streams": [
            {"stream": each.stream, "shards": [_shard(shard) for shard in each.shards], "beside_rows": each.beside_rows}
            for each in answer.contents
        ],
    }


def _shard(shard: ShardRead) -> dict[str, Any]:
    return {
        "shard": shard.shard,
        "sealed_position": str(shard.position),
        "read_to": None if shard.read_to is None else str(shard.read_to),
        "sealed_rows": shard.sealed_rows,
        "unsealed_records": shard.unsealed_records,
        "unsealed_rows": shard.unsealed_rows,
        "why": shard.why,
    }


def _hidden(answer: Answer) -> list[str]:
    return sorted({name for each in answer.contents for name in each.hidden})


def _notes(answer: Answer) -> list[str]:
    return list(dict.fromkeys(note for each in answer.contents for note in each.notes))


def _remarks(answer: Answer) -> Iterator[str]:
    """What a person should know about the result."""
    for each in answer.contents:
        sealed, unsealed = sum(shard.sealed_rows for shard in each.shards), sum(shard.unsealed_rows for shard in each.shards)
        more = f", and {each.beside_rows:,} of redrives and backfills" if each.beside_rows else ""
        yield f"{each.stream}: read {sealed:,} rows of sealed units, and {unsealed:,} that are not sealed{more}"
        yield from (f"{each.stream}/{shard.shard}: {shard.why}" for shard in each.shards if shard.why)
    yield from _notes(answer)
    if hidden := _hidden(answer):
        yield f"hidden before the query ran: {', '.join(hidden)}; --reveal shows them"


def _show(rows: pl.DataFrame) -> None:
    table = Table()
    for name, kind in rows.schema.items():
        table.add_column(Text(name), justify="right" if kind.is_numeric() else "left", overflow="fold")
    for row in rows.iter_rows():
        table.add_row(*(Text(_text(value)) for value in row))
    table_console().print(table)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    found = plain(value)
    return found if isinstance(found, str) else json_text.dumps(found, ensure_ascii=False)


def _flat(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` with JSON in place of lists and objects."""
    nested = [column for column in rows if column.dtype.is_nested()]
    return rows.with_columns(
        pl.Series(column.name, [None if value is None else _text(value) for value in column.to_list()], pl.String) for column in nested
    )


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        msg = f"--max-bytes: {error}"
        raise typer.BadParameter(msg) from error
