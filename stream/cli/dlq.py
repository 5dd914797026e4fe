"""``stream dlq``: dead letters counted, listed, shown, and sent through the pipeline again."""

from __future__ import annotations

import json as json_text
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, Drain, File, Least, LogLevel, ResultFile, Reveal, Stream, Threads
from stream.errors import DefinitionError

if libraries_wanted():
    import polars as pl
    from rich.table import Table

    from stream.audit.trace import RecordQuery
    from stream.batch import ARRIVAL, ATTEMPT, DATA, SEQUENCE, SHARD, SUBSEQUENCE
    from stream.cli.output import table_console
    from stream.cli.pipeline_work import carry_out as ask
    from stream.cli.pipeline_work import chosen
    from stream.cli.run import carry_out, load_pipeline, refuse_failure
    from stream.clock import SystemClock
    from stream.operations.status.finding import count
    from stream.pipeline.model import Pipeline
    from stream.pipeline.sensitive import HIDDEN, Sensitive, unreadable
    from stream.sink import rejects
    from stream.worker.assemble import WorkerOptions, usable_cores, worker_id
    from stream.worker.opening.places import located, session_of
    from stream.worker.opening.stores import Stores
    from stream.worker.sources.dead_letters import FILE, LINE, STATE, DeadLetters, needs_contents, picked, place_of, top
    from stream.worker.sources.reading import Reading

EXIT_NOT_FOUND = 1

Where = Annotated[
    str | None,
    typer.Option(
        help="SQL condition on _shard, _sequence, _arrival, _partition_key, stage, reason, fingerprint, cause, _attempt, state.",
        show_default="all",
    ),
]
Limit = Annotated[int | None, typer.Option(help="At most this many.", min=1, show_default="all")]
Listed = Annotated[int | None, typer.Option("--limit", help="At most this many.", min=1, show_default="50; with --json, all")]

TABLE_ROWS = 50
"""Letters in a table, unless more are asked for; a program gets all."""

app = typer.Typer(name="dlq", add_completion=False, help="Count, list, show and redrive dead letters.", no_args_is_help=True)


@app.command("top")
def top_causes(file: File, where: Where = None, stream: Stream = None, json: AsJson = False) -> None:
    """Count dead letters by cause, most frequent first. Those counted as `waiting` can be redriven.

    Exit code 0: counted, or there are none; 2: the log could not be read, or the command or the pipeline file is wrong.
    """
    causes = top(_table(file, stream, where))
    if json:
        return _as_json(causes)
    table = Table("records", "waiting", "cause", "stage", "reason", "fingerprint", "first", "last")
    for row in causes.iter_rows(named=True):
        counts = f"{row['records']:,}", f"{row['waiting']:,}"
        table.add_row(
            *counts, row["cause"], row["stage"], row["reason"], row["fingerprint"], *(_time(row[name]) for name in ("first", "last"))
        )
    console = table_console()
    if not causes.height:
        console.print("no dead letters; the records of a halted shard are not among them: see `stream status`")
    else:
        console.print(table)
        example = f"{file} {causes['example'][0]}" + f" --stream {stream}" * bool(stream)
        console.print(f"one of the most frequent: stream dlq show {example}", markup=False, soft_wrap=True)
    return None


@app.command("ls")
def listing(file: File, where: Where = None, limit: Listed = None, stream: Stream = None, json: AsJson = False) -> None:
    """List dead letters without their content, one line per attempt.

    Exit code 0: listed, or there are none; 2: the log could not be read, or the command or the pipeline file is wrong.
    """
    found = _table(file, stream, where)
    most = limit or (None if json else TABLE_ROWS)
    shown = found if most is None else found.head(most)
    if json:
        return _as_json(shown.drop(DATA))
    table = Table("record", "arrived", "stage", "reason", "attempt", "state")
    for row in shown.iter_rows(named=True):
        table.add_row(_name(row), _time(row[ARRIVAL]), row["stage"], row["reason"], str(row[ATTEMPT]), row[STATE])
    console = table_console()
    console.print(table)
    if found.height > shown.height:
        console.print(f"{found.height - shown.height:,} more; see --limit and --where")
    return None


@app.command()
def show(
    file: File,
    record: Annotated[str, typer.Argument(help="[<shard>:]<sequence>[:<subsequence>] of the record.", show_default=False)],
    stream: Stream = None,
    reveal: Reveal = False,
    json: AsJson = False,
) -> None:
    """Show every attempt of one dead letter, with its content: record data. If the file declares `sensitive` columns, it is hidden.

    Exit code 0: found; 1: the record has no dead letter; 2: the lookup failed, or the command is wrong.
    """
    wanted = RecordQuery.parse(record)
    found = place_of(_table(file, stream, None, contents=True), wanted.shard, str(wanted.sequence), wanted.subsequence)
    hide = frozenset[str]() if reveal else unreadable(ask(file, _sensitive), ())
    if json:
        _as_json(found.with_columns(pl.col(DATA).bin.encode("base64")).with_columns(pl.lit(HIDDEN).alias(name) for name in hide))
    console = table_console()
    for row in () if json else found.iter_rows(named=True):
        lines = {
            "record": _name(row),
            "arrived": _time(row[ARRIVAL]),
            "stage": row["stage"],
            "reason": row["reason"],
            "cause": row["cause"],
        }
        lines |= {"attempt": row[ATTEMPT], "state": row[STATE], "file": f"{row[FILE]} row {row[LINE]}"}
        lines |= {"content": HIDDEN if DATA in hide else row[DATA].decode(errors="backslashreplace")}
        for name, value in lines.items():
            console.print(f"[bold]{name:8}[/] ", end="")
            console.print(str(value), markup=False)
    if found.is_empty():
        typer.echo("No sealed unit has a dead letter of this record.", err=True)
        raise typer.Exit(EXIT_NOT_FOUND)


@app.command()
def redrive(  # noqa: PLR0917 - options of a command are given by name
    file: File,
    where: Where = None,
    pipeline: Annotated[
        Path | None, typer.Option("--pipeline", help="Use this corrected pipeline file instead.", exists=True, dir_okay=False)
    ] = None,
    limit: Limit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print how many dead letters would be redriven.")] = False,
    stream: Stream = None,
    drain: Drain = 25.0,
    threads: Threads = None,
    result: ResultFile = None,
    log_level: LogLevel = Least.INFO,
) -> None:
    """Send dead letters through the pipeline again, each once, even if several redrives run at the same time.

    First finishes earlier redrives that were interrupted. Records keep their lineage columns. A record that is rejected again becomes a
    dead letter again, with its attempt number raised by one. Safe to run beside a worker.

    Exit code 0: done; 1: it could not continue, run it again; 2: the pipeline or the command is wrong, and nothing was read.
    """
    fixed = load_pipeline(pipeline or file, result)
    base = (pipeline or file).parent
    if dry_run:
        waiting = _table(file, stream, where).filter(pl.col(STATE) == "waiting").height
        typer.echo(f"{count(min(waiting, limit or waiting), 'dead letter', 'dead letters')} would be redriven")
        return

    async def claim(old: Pipeline) -> list[tuple[str, int, int]]:
        _same_log(old, file.parent, fixed, base)
        claimed = []
        for one in chosen(old, stream):
            done = await _letters(one, file.parent).redrive(where, limit, worker_id(SystemClock()))
            if done is not None:
                claimed.append((one.source.kinesis.stream, *done))
        return claimed

    claimed = ask(file, claim)
    for name, number, records in claimed:
        typer.echo(f"redrive {number} of {name}: {count(records, 'dead letter', 'dead letters')}", err=True)
    if not claimed:
        typer.echo("no dead letters are waiting; finishing earlier redrives, if any", err=True)
    reading, level = Reading(letters=True), log_level.level
    options = WorkerOptions(base, os.environ, drain, threads or usable_cores(), reading=reading, log_level=level)
    without_metrics = fixed.model_copy(update={"metrics": fixed.metrics.model_copy(update={"port": 0})})
    refuse_failure(carry_out(without_metrics, options, result))


def _same_log(old: Pipeline, old_base: Path, new: Pipeline, new_base: Path) -> None:
    """Make sure that both files use the same log; otherwise dead letters would be claimed in one and read in the other.

    Raises:
        DefinitionError: they do not.
    """
    for name, one, other in (
        ("application", old.application, new.application),
        ("state", located(old.state, old_base), located(new.state, new_base)),
        ("source.kinesis", old.source.kinesis.names, new.source.kinesis.names),
    ):
        if one != other:
            msg = f"--pipeline has another `{name}` ({other}) than the pipeline whose dead letters these are ({one}): they must agree"
            raise DefinitionError(msg)


def _letters(pipeline: Pipeline, base: Path) -> DeadLetters:
    stores = Stores.open(pipeline, base, session_of(pipeline))
    return DeadLetters(pipeline.source.kinesis.stream, stores.state, stores.targets[rejects.NAME], pipeline.rejects.redrive, SystemClock())


def _table(file: Path, stream: str | None, where: str | None, *, contents: bool = False) -> pl.DataFrame:
    async def run(pipeline: Pipeline) -> pl.DataFrame:
        wanted = contents or needs_contents(where)
        return pl.concat([await _letters(one, file.parent).table(contents=wanted) for one in chosen(pipeline, stream)])

    read: Callable[[Pipeline], Any] = run
    table: pl.DataFrame = ask(file, read)
    try:
        return picked(table, where)
    except DefinitionError as error:
        raise typer.BadParameter(str(error)) from error


async def _sensitive(pipeline: Pipeline) -> Sensitive | None:
    return pipeline.sensitive


def _name(row: dict[str, Any]) -> str:
    return f"{row[SHARD]}:{row[SEQUENCE]}:{row[SUBSEQUENCE]}"


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _as_json(table: pl.DataFrame) -> None:
    sys.stdout.write(json_text.dumps(table.to_dicts(), indent=2, default=_plain) + "\n")
