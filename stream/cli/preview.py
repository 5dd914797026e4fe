"""``stream preview``: a sample of records before and after each stage. Writes nothing."""

from __future__ import annotations

import dataclasses
import json as json_text
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import File, Generate, Reveal, Sample, Since
from stream.errors import DefinitionError, StreamError

if libraries_wanted():
    from rich.console import Console
    from rich.text import Text

    from stream.batch import DATA
    from stream.cli.explain import checked
    from stream.cli.output import as_json
    from stream.cli.samples import chain_of, sample_of
    from stream.pipeline.trials.preview import Passed, Preview, Rejected, Stage
    from stream.pipeline.trials.preview import preview as run_preview
    from stream.sink.partition import OVERFLOW
    from stream.transform.stage import SchemaMismatch

EXIT_FAILED = 1
EXIT_DEFINITION = 2
MAX_VALUE: Final = 80
"""Characters shown of one value; `--json` prints all."""

MAX_FOLDERS: Final = 10


def preview(
    file: File,
    *,
    records: Annotated[int, typer.Option("--records", help="How many records to run.", min=1, max=1_000_000)] = 100,
    show: Annotated[int, typer.Option("--show", help="How many of them to show at each step.", min=0)] = 3,
    sample: Sample = None,
    generate: Generate = None,
    since: Since = None,
    unsealed: Annotated[
        bool,
        typer.Option("--unsealed", help="Use the records of the live stream that a worker would read next: those that no unit has sealed."),
    ] = False,
    reveal: Reveal = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run a pipeline over a few records, by default live ones, and show them before and after each stage. Writes nothing.

    Prints record data, but for the columns that the file declares `sensitive`.

    Exit code 0: shown; 1: the stream could not be read, or a shard would halt; 2: the file or an option is wrong.
    """
    pipeline = checked(file)
    try:
        chain = chain_of(pipeline, file)
        batch, source = sample_of(pipeline, records, sample, since, generate, file.parent, unsealed=unsealed)
        done = run_preview(chain, pipeline, batch, show, reveal=reveal)
    except (DefinitionError, SchemaMismatch) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    except StreamError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from error
    if json:
        sys.stdout.write(as_json({"source": source, **dataclasses.asdict(done)}))
    else:
        _show(done, source, Console(highlight=False, soft_wrap=True, markup=False, emoji=False))
    if done.records >= pipeline.rejects.min_records and done.dead_letters > pipeline.rejects.max_ratio * done.records:
        typer.echo(
            f"error: {done.dead_letters:,} of {done.records:,} records would become dead letters. From {pipeline.rejects.min_records:,} "
            f"records on, a share above rejects.max_ratio ({pipeline.rejects.max_ratio:g}) halts a shard.",
            err=True,
        )
        raise typer.Exit(EXIT_FAILED)


def _show(done: Preview, source: str, console: Console) -> None:
    console.print(source, style="bold")
    for stage in done.stages:
        _show_stage(stage, console)
    for sink, folders in done.partitions.items():
        console.print(f"sink {sink}", style="bold cyan")
        for folder, rows in list(folders.items())[:MAX_FOLDERS]:
            console.print(f"  {folder or '(no partition)'}  {rows:,} row{'' if rows == 1 else 's'}")
        if len(folders) > MAX_FOLDERS:
            console.print(f"  and {len(folders) - MAX_FOLDERS:,} more partitions")
        if any(OVERFLOW in folder for folder in folders):
            console.print(
                f"  more partitions than `max_partitions` allows in one unit, or too long names: the other rows share {OVERFLOW}; "
                "partition by something with fewer values",
                style="yellow",
            )
    console.print(f"nothing was written; the files would have {done.file_bytes:,} bytes for {done.payload_bytes:,} received", style="bold")


def _show_stage(stage: Stage, console: Console) -> None:
    lost = "".join(f", {count:,} {outcome}" for outcome, count in stage.outcomes.items())
    console.print(Text.assemble((stage.name, "bold cyan"), f"  {stage.rows_in:,} rows in, {stage.rows_out:,} out{lost}"))
    for reason, count in stage.reasons.items():
        console.print(f"  {count:,} x {reason}")
        for each in stage.rejected:
            if each.reason == reason:
                console.print(f"    such as record {each.record}: {_what_was_wrong(each)}", style="yellow")
    parts = [(each.record, "; ".join(_differences(stage, each)) or "as before", "") for each in stage.passed]
    parts += [(each.record, ", ".join(dict.fromkeys((each.outcome, each.reason))), "yellow") for each in stage.ended]
    for record, line, style in sorted(parts, key=lambda each: each[0]):
        console.print(f"  record {record}: {line}", style=style)


def _what_was_wrong(rejected: Rejected) -> str:
    if isinstance(rejected.value, Mapping) and not rejected.column:
        shown = ", ".join(f"{name}={value_text(value)}" for name, value in rejected.value.items())
    elif rejected.column == DATA:
        shown = _cut(str(rejected.value))
    else:
        shown = f"{rejected.column}={value_text(rejected.value)}"
    declared = f", declared {rejected.declared}" * bool(rejected.declared)
    return (f"{rejected.error}; the row was " if rejected.error else "") + shown + declared


def _differences(stage: Stage, row: Passed) -> list[str]:
    if stage.name == "decode":
        payload = row.before.get("_data")
        parts = [] if payload is None else [f"{_cut(str(payload))} ->"]
        return [" ".join([*parts, ", ".join(f"{name}={value_text(value)}" for name, value in row.after.items())])]
    if not row.before:
        return ["one more row, " + ", ".join(f"{name}={value_text(value)}" for name, value in row.after.items())]
    parts = []
    for name, value in row.after.items():
        if name not in row.before:
            parts.append(f"+ {name}={value_text(value)}")
        elif row.before[name] != value or type(row.before[name]) is not type(value):
            parts.append(f"{name}={value_text(row.before[name])} -> {value_text(value)}")
    return parts + [f"- {name}" for name in row.before if name not in row.after]


def value_text(value: Any) -> str:
    """A value as JSON, shortened if it is long."""
    return _cut(json_text.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
