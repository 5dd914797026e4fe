"""``stream explain``: the plan of a pipeline, the memory and permissions it needs, and its cost. Reads nothing over the network."""

from __future__ import annotations

import dataclasses
import json as json_text
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import File
from stream.errors import DefinitionError

if libraries_wanted():
    import yaml
    from rich.console import Console

    from stream.pipeline.access.actions import Account, needed
    from stream.pipeline.checks.lint import check as check_file
    from stream.pipeline.cost import Estimate, Outcome, Prices, Rate, estimate
    from stream.pipeline.limits import MemoryNeed, mebibytes, memory_need
    from stream.pipeline.model import Pipeline
    from stream.pipeline.plan import Change, Plan, Step, local_resources, plan
    from stream.pipeline.replay import Queue
    from stream.pipeline.units import format_duration
    from stream.transform.stage import SchemaMismatch

EXIT_DEFINITION = 2

_MARKS = {"added": "+", "removed": "-", "retyped": "~"}


def explain(
    file: File,
    *,
    records: Annotated[
        float | None, typer.Option("--records-per-second", help="Rate of the whole stream; with it, object counts and cost are estimated.")
    ] = None,
    size: Annotated[float, typer.Option("--record-bytes", help="Mean size of a record.")] = 1024,
    shards: Annotated[int, typer.Option("--shards", help="Shards of the stream.", min=1)] = 1,
    ratio: Annotated[float, typer.Option("--output-ratio", help="Bytes of data files written per byte received.", min=0.0)] = 1.0,
    partitions: Annotated[
        float, typer.Option("--partitions", help="Partitions that one unit (batch of records of a shard) writes to.", min=1.0)
    ] = 1.0,
    prices: Annotated[
        Path | None, typer.Option("--prices", help="YAML file with prices in US dollars, such as `s3_gb_month: 0.0245`.")
    ] = None,
    account: Annotated[str, typer.Option("--account", help="AWS account, for ARNs.")] = "*",
    region: Annotated[str, typer.Option("--region", help="AWS region, for ARNs.")] = "*",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what a pipeline will do: columns after each stage, object keys, memory, AWS permissions and, given a rate, objects and cost.

    Reads nothing over the network and needs no secret.

    Exit code 0: explained; 2: the pipeline file or an option is wrong.
    """
    try:
        pipeline = checked(file)
        laid_out = plan(pipeline, local_resources(pipeline, file.parent))
        access = needed(pipeline, Account(account, region))
        cost = None
        if records is not None:
            cost = estimate(pipeline, Rate(records, size, shards), Outcome(ratio, partitions), _prices(prices))
    except (DefinitionError, SchemaMismatch) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    if json:
        document = {
            "application": pipeline.application,
            "plan": dataclasses.asdict(laid_out),
            "memory": dataclasses.asdict(memory_need(pipeline)),
            "access": [dataclasses.asdict(each) for each in access],
            "estimate": None if cost is None else {**dataclasses.asdict(cost), "dollars": cost.dollars},
        }
        sys.stdout.write(json_text.dumps(document, indent=2) + "\n")
        return
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    _show_plan(pipeline, laid_out, console)
    _show_memory(memory_need(pipeline), console)
    _heading(console, "AWS permissions")
    for each in access:
        within = f" where s3:prefix is {', '.join(each.prefixes)}" if each.prefixes else ""
        console.print(f"  {', '.join(each.actions)} on {', '.join(each.resources)}{within}  ({each.why})")
    if cost is not None:
        _show_cost(cost, console)


def checked(file: Path) -> Pipeline:
    """The pipeline in ``file``. Findings go to standard error.

    Raises:
        typer.Exit: it cannot be run.
    """
    result = check_file(file, os.environ)
    for finding in result.findings:
        typer.echo(finding.render(), err=True)
    if result.pipeline is None:
        raise typer.Exit(EXIT_DEFINITION)
    return result.pipeline


def _prices(file: Path | None) -> Prices:
    if file is None:
        return Prices()
    try:
        prices = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"the prices in {file} cannot be read: {error}"
        raise DefinitionError(msg) from error
    if not isinstance(prices, dict):
        msg = f"{file} contains no prices; write one per line, such as `s3_gb_month: 0.0245`"
        raise DefinitionError(msg)
    return Prices.of({str(name): value for name, value in prices.items()})


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(text, style="bold")


def _show_plan(pipeline: Pipeline, laid_out: Plan, console: Console) -> None:
    kinesis, objects = pipeline.source.kinesis, pipeline.source.s3
    begins = f"from {kinesis.start.timestamp or kinesis.start.kind.value}" if objects is None else f"({objects.format}) below {objects.url}"
    console.print(f"{pipeline.application}: {', '.join(kinesis.names)} {begins}", style="bold")
    if objects is not None and objects.watch is not None:
        watch, every = objects.watch, format_duration(objects.watch.listed_every)
        told = f"notifications of the queue {Queue.of(watch.queue).name}, " if watch.queue is not None else ""
        console.print(f"    watched for new objects: {told}a listing every {every}; each claim goes to {objects.shards} shards")
    for step in laid_out.stops:
        _show_step(step, console)
    _heading(console, "Objects")
    for keys in laid_out.keys:
        console.print(f"  {keys.what}: {keys.url}")


def _show_step(step: Step, console: Console) -> None:
    console.print(f"{step.name}", style="bold cyan", end="")
    console.print(f"  {step.options}" if step.options else "")
    if step.unknown:
        console.print(f"    columns not known: {step.unknown}")
    elif step.name == "decode" and step.columns is not None:
        console.print(f"    {', '.join(f'{name} {kind}' for name, kind in step.columns)}")
    elif step.columns is not None:
        parts = [_change(each) for each in step.changes] or ["columns as before"]
        if step.drops:
            parts.append(f"leaves rows out as {step.drops}")
        console.print(f"    {'; '.join(parts)}")


def _show_memory(need: MemoryNeed, console: Console) -> None:
    _heading(console, "Memory of a worker, without reference tables")
    readers = f"; {mebibytes(need.readers)} of it are for the processes that read Parquet, Arrow and Avro objects" if need.readers else ""
    budget = f"(memory.budget is {mebibytes(need.budget)})"
    console.print(f"  give its container {mebibytes(need.advised)}, at least {mebibytes(need.least)}{readers} {budget}")


def _change(change: Change) -> str:
    kind = f"{change.before} -> {change.after}" if change.kind == "retyped" else change.after
    return f"{_MARKS[change.kind]} {change.column} {kind}".rstrip()


def _show_cost(cost: Estimate, console: Console) -> None:
    cut = cost.cuts
    _heading(console, "A day at this rate (estimated)")
    console.print(f"  a unit of one shard every {cut.seconds:,.1f} s, ended by {cut.trigger}: {cut.records:,.0f} records")
    console.print(f"  {cost.units:,.0f} units, {cost.data_objects:,.0f} data files of {_size(cost.object_bytes)} at most")
    console.print(f"  {cost.log_objects:,.0f} objects of commit log and ledger, {_size(cost.log_bytes)}")
    _heading(console, "A month in US dollars (estimated; excluding the stream, networks and computers)")
    for item in cost.items:
        quantity = f"{_size(item.quantity)} a day" if item.unit == "bytes" else f"{item.quantity:,.0f} {item.unit} a day"
        console.print(f"  {item.dollars:>10,.2f}  {item.what}: {quantity}")
    console.print(f"  {cost.dollars:>10,.2f}  in all; each further month of keeping everything adds the storage again")


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.1f} {unit}" if unit != "B" else f"{size:,.0f} B"
        size /= 1024
    return f"{size:,.1f} TiB"
