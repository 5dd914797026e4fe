"""``stream audit``: prove that every record is accounted for exactly once, list what the log holds, and export spans."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File, Stream
from stream.errors import DefinitionError

if libraries_wanted():
    import msgspec
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
    from rich.table import Table

    from stream import events
    from stream.audit.report import EXIT, Report, Verdict, worst
    from stream.audit.verify import Scope, Verifier
    from stream.cli.notices import Notices
    from stream.cli.output import table_console
    from stream.cli.pipeline_work import EXIT_UNKNOWN, carry_out, chosen
    from stream.clock import SystemClock
    from stream.operations.opening import chains_of, open_evidence
    from stream.operations.progress.table_rows import check_tables
    from stream.operations.records.span_export import export_range, open_export
    from stream.pipeline.model import Pipeline

EXIT_FAILED = 1


app = typer.Typer(name="audit", add_completion=False, help="Prove, list and export what became of every record.", no_args_is_help=True)


@app.command()
def verify(  # noqa: PLR0917 - options of a command are given by name
    file: File,
    shard: Annotated[str | None, typer.Option(help="Only this shard.")] = None,
    after: Annotated[str, typer.Option("--from", help="Only units with records after this sequence number.")] = "0",
    last: Annotated[str | None, typer.Option("--to", help="Only units with records up to this sequence number.")] = None,
    contents: Annotated[bool, typer.Option("--contents/--names-only", help="Read every file, or only check that it exists.")] = True,
    source: Annotated[bool, typer.Option("--source/--no-source", help="Re-read the stream and compare.")] = True,
    tables: Annotated[bool, typer.Option("--tables/--no-tables", help="Count the rows in tables, if the whole log is verified.")] = True,
    repair: Annotated[bool, typer.Option("--repair", help="Remove files written for units that were then sealed with others.")] = False,
    stream: Stream = None,
    json: AsJson = False,
) -> None:
    """Prove independently of the workers that every record read is accounted for exactly once.

    Reads the commit log, the files that it lists, the checkpoints, the tables and the stream itself. Seven checks: chain, conservation,
    checkpoint, objects, source, seal, tables. Each stream, redrive and backfill has its own report; if there are several, --json prints a
    list.

    Exit code 0: all checks pass; 1: at least one fails; 2: none fails, but one could not be completed, or the command is wrong.
    """
    scope = Scope(shard, *_bounds(after, last), contents, source)
    console = Console(stderr=True, highlight=False)

    async def run(pipeline: Pipeline, on_progress: Callable[[str, int, int], None]) -> list[Report]:
        reports = []
        for one, chain in await _chains(pipeline, stream, file.parent):
            async with AsyncExitStack() as stack:
                evidence, _ = await open_evidence(one, file.parent, SystemClock(), stack, with_stream=source, chain=chain, emit=Notices())
                report = await Verifier(evidence, scope, SystemClock(), on_progress).run(repair=repair)
                if tables and scope == Scope(source=source) and chain == one.source.kinesis.stream:
                    counted = await check_tables(one, file.parent, stack)
                    report = report.with_tables(counted.findings, counted.rows)
                reports.append(report)
        return reports

    with _bars(console) as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        reports = carry_out(file, lambda pipeline: run(pipeline, on_progress))
    if shard is not None and not any(report.shards for report in reports):
        raise _no_such_shard(shard)
    if (scope.after or scope.last is not None) and not any(report.in_scope or report.findings for report in reports):
        typer.echo("error: no sealed unit has records between --from and --to, so none was verified", err=True)
        raise typer.Exit(EXIT_UNKNOWN)
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(_one_or_all(reports)), indent=2).decode() + "\n")
    else:
        for report in reports:
            show(report, Console(highlight=False, soft_wrap=True))
    raise typer.Exit(EXIT[worst(report.verdict for report in reports)])


@app.command()
def ls(file: File, stream: Stream = None, json: AsJson = False) -> None:
    """List the shards in the log: units, records and outcomes of each. Reads only manifests.

    Exit code 0: listed; 2: the log could not be read, or the command or the pipeline file is wrong.
    """

    async def run(pipeline: Pipeline) -> list[Report]:
        reports = []
        for one, chain in await _chains(pipeline, stream, file.parent):
            async with AsyncExitStack() as stack:
                evidence, _ = await open_evidence(
                    one, file.parent, SystemClock(), stack, with_stream=False, chain=chain, with_tables=False, emit=Notices()
                )
                reports.append(await Verifier(evidence, Scope(contents=False, source=False), SystemClock()).run())
        return reports

    reports = carry_out(file, run)
    if json:
        shards = {report.stream: report.shards for report in reports}
        sys.stdout.write(msgspec.json.encode(shards if len(shards) > 1 else reports[0].shards).decode() + "\n")
    else:
        for report in reports:
            table_console().print(_shards(report))


@app.command()
def export(
    file: File,
    shard: Annotated[str | None, typer.Option(help="Only this shard.")] = None,
    after: Annotated[str, typer.Option("--from", help="Only units with records after this sequence number.")] = "0",
    last: Annotated[str | None, typer.Option("--to", help="Only units with records up to this sequence number.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Base URL of the OTLP/HTTP collector.", show_default="the pipeline's")] = None,
    stream: Stream = None,
) -> None:
    """Send the spans of sealed units to an OTLP collector, for the first time or again; span ids are the same every time.

    Includes redrives and backfills. Does not move the worker's export cursors.

    Exit code 0: sent; 1: the collector refused some spans; 2: the export failed, or the command is wrong.
    """
    bounds, refused, known, meanwhile = _bounds(after, last), Counter[str](), set[str](), Notices()

    def listen(event: events.Event) -> None:
        if isinstance(event, events.ExportRefused):
            refused["spans"] += event.items
        meanwhile(event)

    async def run(pipeline: Pipeline) -> tuple[int, int]:
        sent = []
        for one, chain in await _chains(pipeline, stream, file.parent):
            async with AsyncExitStack() as stack:
                exporter, units, shards = await open_export(one, chain, endpoint, file.parent, os.environ, stack, listen)
                known.update(shards)
                sent.append(await export_range(exporter, units, [shard] if shard else shards, *bounds))
        return sum(units for units, _ in sent), sum(items for _, items in sent)

    units, items = carry_out(file, run)
    if shard is not None and shard not in known:
        raise _no_such_shard(shard)
    typer.echo(f"{units:,} units exported, {items:,} spans accepted" + (f", {refused['spans']:,} refused" if refused["spans"] else ""))
    if refused["spans"]:
        raise typer.Exit(EXIT_FAILED)


def _one_or_all(reports: Sequence[Report]) -> Report | Sequence[Report]:
    return reports[0] if len(reports) == 1 else reports


def show(report: Report, console: Console) -> None:
    """Print the report as text."""
    console.print(_shards(report))
    for finding in report.findings:
        colour = {Verdict.FAILED: "red", Verdict.UNKNOWN: "yellow", Verdict.OK: "cyan"}[finding.verdict]
        bounds = f" ({finding.after}, {finding.last}]" if finding.after else ""
        console.print(f"[bold {colour}]{finding.verdict}[/] {finding.check} {finding.shard}{bounds}")
        console.print(f"  {finding.message}" + (f"\n  {finding.object}" if finding.object else ""), markup=False)
    for url in report.removed:
        console.print(f"removed {url}", markup=False)
    checked = ", ".join(f"{check} {count:,}" for check, count in report.checked.items())
    console.print(f"looked at: {checked}")
    failed = sum(finding.verdict is Verdict.FAILED for finding in report.findings)
    success = f"[bold green]All {report.in_scope:,} records are accounted for, once.[/]"
    if report.in_scope < report.records:
        success += f" Of the {report.records - report.in_scope:,} outside of --from and --to only the log was checked."
    names = f"application {report.application} from {report.stream}"
    nothing_yet = f"Nothing has been committed yet by {names}; if you expected something, check these names, and `state`."
    words = {
        Verdict.OK: success if report.shards else nothing_yet,
        Verdict.UNKNOWN: "[bold yellow]Everything that could be checked is right; something could not be checked.[/]",
        Verdict.FAILED: f"[bold red]{failed} finding(s): the log does not prove what it says.[/]",
    }
    console.print(words[report.verdict])


def _shards(report: Report) -> Table:
    table = Table("shard", "units", "records", "outcomes", "state", title=f"{report.application} on {report.stream}", title_justify="left")
    for shard in report.shards:
        outcomes = ", ".join(f"{label} {count:,}" for label, count in shard.outcomes.items())
        state = "ended" if shard.ended else "unit in flight" if shard.open_unit else "open"
        table.add_row(shard.shard, f"{shard.units:,}", f"{shard.records:,}", outcomes, state)
    return table


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description:18}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


async def _chains(pipeline: Pipeline, stream: str | None, base: Path) -> list[tuple[Pipeline, str]]:
    """Every chain of the chosen streams, each with the pipeline narrowed to its stream."""
    return [(one, chain) for one in chosen(pipeline, stream) for chain in await chains_of(one, base)]


def _no_such_shard(shard: str) -> DefinitionError:
    return DefinitionError(f"--shard {shard}: the log has no such shard; `stream audit ls` lists the ones it has")


def _bounds(after: str, last: str | None) -> tuple[int, int | None]:
    first, end = _sequence(after, "--from"), None if last is None else _sequence(last, "--to")
    if end is not None and end <= first:
        msg = f"--to {last} must be after --from {after}"
        raise typer.BadParameter(msg)
    return first, end


def _sequence(text: str, option: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 60):
        msg = f"{option} {text}: a sequence number is up to 60 decimal digits"
        raise typer.BadParameter(msg)
    return int(text)
