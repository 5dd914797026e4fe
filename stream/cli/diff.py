"""``stream diff``: what another version of a pipeline would do differently. Writes nothing."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import Generate, Reveal, Sample, Since
from stream.errors import DefinitionError, StreamError

if libraries_wanted():
    from rich.console import Console

    from stream.cli.explain import checked
    from stream.cli.output import as_json
    from stream.cli.preview import value_text
    from stream.cli.samples import chain_of, sample_of
    from stream.clock import SystemClock
    from stream.pipeline.consequences import Consequence, consequences
    from stream.pipeline.model import Pipeline
    from stream.pipeline.sensitive import sensitive_columns
    from stream.pipeline.trials.compare import Difference, Shown, compare
    from stream.transform.engine import CompiledChain
    from stream.transform.stage import SchemaMismatch

EXIT_SAME = 0
EXIT_DIFFERENT = 1
EXIT_FAILED = 2

_MARKS = {"added": "+", "removed": "-", "retyped": "~"}


def diff(
    old: Annotated[Path, typer.Argument(help="Current pipeline file.", exists=True, dir_okay=False, readable=True, show_default=False)],
    new: Annotated[Path, typer.Argument(help="Changed pipeline file.", exists=True, dir_okay=False, readable=True, show_default=False)],
    *,
    records: Annotated[int, typer.Option("--records", help="How many records to run.", min=1, max=1_000_000)] = 1000,
    key: Annotated[list[str] | None, typer.Option("--key", help="Column that identifies a row in the output; may be repeated.")] = None,
    show: Annotated[int, typer.Option("--show", help="How many examples of each difference to show.", min=0)] = 3,
    sample: Sample = None,
    generate: Generate = None,
    since: Since = None,
    reveal: Reveal = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run two pipelines over the same records, by default live ones of OLD, and show what changes. Writes nothing.

    Also says what a rollout of NEW does to what is there already: the log, files, tables. Prints record data, but for columns that either
    file declares `sensitive`.

    Exit code 0: the same rows and rejects, and no record would be written again; 1: not so; 2: they could not be compared.
    """
    pipelines = checked(old), checked(new)
    follows = consequences(*pipelines)
    try:
        chains = chain_of(pipelines[0], old), chain_of(pipelines[1], new)
        batch, source = sample_of(pipelines[0], records, sample, since, generate, old.parent)
        hide = frozenset[str]() if reveal else _sensitive(pipelines[0], chains[0]) | _sensitive(pipelines[1], chains[1])
        sinks = [sink.name for sink in pipelines[0].sinks], [sink.name for sink in pipelines[1].sinks]
        found = compare(*chains, batch, SystemClock().monotonic, Shown(key or (), show, hide), sinks)
    except (DefinitionError, SchemaMismatch, StreamError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from error
    if json:
        told = {"source": source, "same": found.same, "consequences": [dataclasses.asdict(each) for each in follows]}
        sys.stdout.write(as_json({**told, **dataclasses.asdict(found)}))
    else:
        console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
        _show_consequences(follows, console)
        _show(found, source, key or [], console)
    raise typer.Exit(EXIT_SAME if found.same and not any(each.doubles for each in follows) else EXIT_DIFFERENT)


def _show_consequences(follows: list[Consequence], console: Console) -> None:
    for each in follows:
        console.print(f"{'! ' if each.doubles else ''}{each.what}: {each.follows}", style="bold red" if each.doubles else None)


def _sensitive(pipeline: Pipeline, chain: CompiledChain) -> frozenset[str]:
    """The sensitive columns of the rows that ``pipeline`` writes."""
    return frozenset(sensitive_columns(pipeline.sensitive, pipeline.stages, [schema for _, schema in chain.schemas])[-1])


def _show(found: Difference, source: str, key: list[str], console: Console) -> None:
    console.print(source, style="bold")
    for change in found.schema:
        kind = " -> ".join(filter(None, (change.before, change.after)))
        console.print(f"{_MARKS[change.kind]} column {change.column} {kind}")
    for moved in found.moved:
        examples = f", such as {', '.join(map(str, moved.examples))}" if moved.examples else ""
        console.print(f"{moved.records:,} record{'' if moved.records == 1 else 's'}{examples}: {moved.before} -> {moved.after}")
    if found.only_old or found.only_new:
        console.print(f"rows that only the old one writes: {found.only_old:,}; only the new one: {found.only_new:,}")
    for routed in found.rerouted:
        examples = f", such as of record {', '.join(map(str, routed.examples))}" if routed.examples else ""
        console.print(f"{routed.rows:,} row{'' if routed.rows == 1 else 's'}{examples}: to {routed.before} -> to {routed.after}")
    for column in found.columns:
        console.print(f"column {column.name}: {column.rows:,} of {found.rows:,} rows differ")
        for each in column.examples:
            named = ", ".join(f"{name}={value_text(value)}" for name, value in zip(key, each.key, strict=True))
            console.print(f"  record {each.record}{f' ({named})' if named else ''}: {value_text(each.before)} -> {value_text(each.after)}")
    if found.same:
        console.print(f"no difference: the same {found.rows:,} rows, the same outcomes and reasons")
    rates = [f"{found.records / seconds:,.0f}" if seconds > 0 else "?" for seconds in found.seconds]
    console.print(f"speed of decoder and stages on this sample and machine: {rates[0]} records/s before, {rates[1]} after")
