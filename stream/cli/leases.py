"""``stream leases``: which worker reads which shard; release, rewind or skip a shard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File
from stream.cli.positions import import_positions
from stream.errors import DefinitionError

if libraries_wanted():
    import msgspec
    from rich.table import Column, Table

    from stream.batch import ORIGIN
    from stream.cli.notices import Notices
    from stream.cli.output import table_console
    from stream.cli.pipeline_work import carry_out
    from stream.lease.foreign_positions import WHOLE_RECORD
    from stream.operations.changes.leases import LeaseView, list_leases, release_lease
    from stream.operations.changes.rewinds import AppliedLink, preview_rewind, rewind, skip
    from stream.pipeline.model import Pipeline

ShardId = Annotated[str, typer.Argument(help="Shard, such as shardId-000000000000.", show_default=False)]
StreamName = Annotated[str | None, typer.Option("--stream", help="Which stream, if the pipeline reads several.")]
Note = Annotated[str, typer.Option("--note", help="Why; kept in the commit log permanently.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

app = typer.Typer(
    name="leases", add_completion=False, help="List which worker reads which shard; release, rewind or skip a shard.", no_args_is_help=True
)


@app.command()
def ls(
    file: File,
    lag: Annotated[bool, typer.Option("--lag/--no-lag", help="Read the stream to find out how far each shard's checkpoint lags.")] = True,
    json: AsJson = False,
) -> None:
    """List the leases: owner, checkpoint, lag, and when a worker of this application last renewed it.

    Exit code 0: listed; 2: the table or the stream could not be read.
    """
    views = carry_out(file, lambda pipeline: list_leases(pipeline, lag=lag, base=file.parent, emit=Notices()))
    if json:
        sys.stdout.write(msgspec.json.encode(views).decode() + "\n")
    else:
        table_console().print(table_of(views))
        for view in views:
            if view.set_back:
                typer.echo(set_back_note(view, file), err=True)
        for why in dict.fromkeys(view.paused for view in views if view.paused):
            typer.echo(why)


@app.command()
def release(file: File, shard: ShardId, stream: StreamName = None, json: AsJson = False) -> None:
    """Take a lease from its owner and free it, so that a worker takes it by the usual rules, possibly the same one.

    Exit code 0: released; 2: it could not be released.
    """

    async def run(pipeline: Pipeline) -> str | None:
        return await release_lease(pipeline, _stream(pipeline, stream), shard, Notices())

    owner = carry_out(file, run)
    _print({"shard": shard, "owner": owner}, f"{shard} was released; its owner was {owner or 'nobody'}", json)


@app.command("rewind")
def rewind_shard(
    file: File,
    shard: ShardId,
    sequence: Annotated[str, typer.Argument(help="First record to process again, or `start`.", show_default=False)],
    stream: StreamName = None,
    note: Note = "",
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Process a shard again from a given record on. Removes the data files and dead letters written since, but not the ledger.

    Takes back whole units: the one that holds the record, and all later ones. The commit log records who did it, and why.

    Exit code 0: done; 2: it could not be done, and nothing was changed unless the message says otherwise.
    """
    wanted = ORIGIN if sequence == "start" else _sequence(sequence)
    if not yes:
        target, known = carry_out(file, lambda pipeline: preview_rewind(pipeline, _stream(pipeline, stream), shard, wanted, file.parent))
        superseded = [link for link in known.links if int(link.after) >= target]
        files, records = sum(len(link.files) for link in superseded), sum(link.records for link in superseded)
        typer.confirm(
            f"{shard}: take back {len(superseded)} unit(s) with {records:,} records and up to {files} files, and process them again?",
            abort=True,
        )

    async def run(pipeline: Pipeline) -> AppliedLink:
        return await rewind(pipeline, _stream(pipeline, stream), shard, wanted, note, file.parent, os.environ, Notices())

    done = carry_out(file, run)
    facts = {"shard": shard, "position": str(done.position), "files": done.files}
    _print(facts, f"{shard} continues after {done.position or 'its start'}; {done.files} files were removed", json)


@app.command("skip")
def skip_shard(
    file: File,
    shard: ShardId,
    sequence: Annotated[str, typer.Argument(help="Last record to skip.", show_default=False)],
    stream: StreamName = None,
    note: Note = "",
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Skip all records of a shard that are not committed yet, up to and including the given one. They will never be processed.

    Exit code 0: done; 2: it could not be done, and nothing was changed unless the message says otherwise.
    """
    last = _sequence(sequence)
    if not yes:
        typer.confirm(f"{shard}: never process the records that are not committed yet, up to {last}?", abort=True)

    async def run(pipeline: Pipeline) -> AppliedLink:
        return await skip(pipeline, _stream(pipeline, stream), shard, last, note, file.parent, os.environ, Notices())

    done = carry_out(file, run)
    _print({"shard": shard, "position": str(done.position)}, f"{shard} continues after {done.position}", json)


app.command("import")(import_positions)


def table_of(views: list[LeaseView]) -> Table:
    """The leases as a table."""
    several = len({view.stream for view in views}) > 1
    table = Table(*(Column(name, overflow="fold") for name in ("shard", "owner", "checkpoint", "behind", "last renewal", "KB/s", "note")))
    for view in views:
        behind = "" if view.behind_seconds is None else f"{view.behind_seconds:,.0f} s"
        rate = "" if view.kilobytes_per_second is None else f"{view.kilobytes_per_second:,.1f}"
        place = view.position if view.position and view.position != view.checkpoint else view.checkpoint
        name = f"{view.stream}/{view.shard}" if several else view.shard
        user_record = f":{view.subsequence}" if view.subsequence not in {0, WHOLE_RECORD} else ""
        rewound = f" (rewound {view.generation} times)" if view.generation else ""
        note = ", ".join(word for word, said in (("paused", view.paused), ("no access", view.without_access)) if said)
        table.add_row(name, view.owner or "-", f"{place}{user_record}{rewound}", behind, view.renewed or "", rate, note)
    return table


def set_back_note(view: LeaseView, file: Path) -> str:
    """What to tell about a row that somebody has set back."""
    told = f"{view.shard}: somebody set the row's checkpoint back to {view.checkpoint}. That changes nothing, because the commit log counts"
    if view.position is None:
        return f"{told}: the shard was read to its end. To process its records again, use `stream backfill`"
    to = view.checkpoint if view.checkpoint.isdigit() else "start"
    return f"{told}: {view.position} is committed. To process records again: stream leases rewind {file} {view.shard} {to}"


def _print(facts: dict[str, object], text: str, json: bool) -> None:
    typer.echo(msgspec.json.encode(facts).decode() if json else text)


def _stream(pipeline: Pipeline, named: str | None) -> str:
    names = pipeline.source.kinesis.names
    if named is None and len(names) == 1:
        return names[0]
    wanted = None if named is None else pipeline.source.kinesis.called(named)
    if wanted not in names:
        msg = f"name one of the pipeline's streams with --stream: {', '.join(names)}"
        raise DefinitionError(msg)
    return str(wanted)


def _sequence(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 60):
        msg = f"{text}: a sequence number is up to 60 decimal digits"
        raise typer.BadParameter(msg)
    return int(text)
