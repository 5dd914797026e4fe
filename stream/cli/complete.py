"""``stream complete``: whether everything that arrived before a given time is in the lake, and in the tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File, Stream

if libraries_wanted():
    from rich.table import Table

    from stream.audit.completeness import DONE, FOR_EVER, Answer, Loaded, Question, Standing, Unclaimed, Verdict
    from stream.cli.output import as_json, table_console
    from stream.cli.pipeline_work import EXIT_UNKNOWN, carry_out, chosen
    from stream.cli.times import moment
    from stream.clock import SystemClock
    from stream.operations.progress.completeness import open_completeness, wait_until_complete
    from stream.pipeline.model import Pipeline

    EXIT: Final = {Verdict.COMPLETE: 0, Verdict.NOT_YET: 1, Verdict.UNKNOWN: EXIT_UNKNOWN}


MARGIN: Final = 5.0
"""Seconds. Kinesis documents no bound. In practice, arrival times within a shard are out of order by fractions of a second, and records can
be read within fractions of a second."""


def complete(
    file: File,
    until: Annotated[str, typer.Option("--until", help="The time, such as 2026-01-01T00:00:00Z or 2026-01-01.", show_default=False)],
    wait: Annotated[float, typer.Option("--wait", min=0.0, help="Seconds to keep checking until the answer is yes; 0 checks once.")] = 0.0,
    margin: Annotated[
        float,
        typer.Option(
            "--margin", min=0.0, help="Seconds by which arrival times within a shard may be out of order, or that an upload may take."
        ),
    ] = MARGIN,
    without: Annotated[list[str] | None, typer.Option("--without", help="Leave this shard out; may be repeated.")] = None,
    stream: Stream = None,
    json: AsJson = False,
) -> None:
    """Tell whether every record that arrived before a given time is sealed, and loaded where a sink is a table.

    A record of an object arrived when the object was last modified. Reads the commit log, the stream or the list of objects, and the
    tables' own records of what is loaded. Needs no running worker, and changes nothing.

    Exit code 0: complete; 1: not yet; 2: it could not be determined, or the command is wrong.
    """
    question = Question(moment(until, "--until"), timedelta(seconds=margin))

    async def run(pipeline: Pipeline) -> tuple[str, list[Answer]]:
        clock = SystemClock()
        async with AsyncExitStack() as stack:
            asked = await open_completeness(chosen(pipeline, stream), file.parent, os.environ, without or (), clock, stack)
            return pipeline.application, await wait_until_complete(asked, question, clock, wait, _print_waiting)

    application, answers = carry_out(file, run)
    if json:
        sys.stdout.write(as_json(document(application, question, answers)))
    else:
        show(application, question, answers)
    raise typer.Exit(EXIT[overall(answers)])


def overall(answers: Sequence[Answer]) -> Verdict:
    """The answer for all streams together: one that is not complete outweighs one that is unknown."""
    verdicts = {each.verdict for each in answers}
    return next((each for each in (Verdict.NOT_YET, Verdict.UNKNOWN) if each in verdicts), Verdict.COMPLETE)


def document(application: str, question: Question, answers: Sequence[Answer]) -> dict[str, Any]:
    """The document that --json prints, as described in docs/complete.md."""
    return {
        "application": application,
        "until": question.until.isoformat(),
        "margin_seconds": question.margin.total_seconds(),
        "verdict": overall(answers).value,
        "complete": overall(answers).complete,
        "complete_up_to": _moment(_least(answers)),
        "streams": [_stream(each) for each in answers],
    }


def _least(answers: Sequence[Answer]) -> datetime | None:
    reaches = [each.reach for each in answers]
    return None if None in reaches else min(each for each in reaches if each is not None)


def _stream(answer: Answer) -> dict[str, Any]:
    return {
        "stream": answer.stream,
        "verdict": answer.verdict.value,
        "complete_up_to": _moment(answer.reach),
        "asked_at": _moment(answer.asked_at),
        "why": answer.why,
        "shards": [_shard(each) for each in answer.shards],
        "objects": None if answer.unclaimed is None else unclaimed(answer.unclaimed),
        "tables": None if answer.tables is None else [_table(each) for each in answer.tables],
    }


def unclaimed(found: Unclaimed) -> dict[str, Any]:
    """The objects that are in no shard, as this document and that of ``stream status`` have them."""
    return {
        "unclaimed": found.fresh,
        "unclaimed_since": _moment(found.fresh_since),
        "changed": found.changed,
        "changed_since": _moment(found.changed_since),
        "changed_examples": list(found.examples),
    }


def in_no_shard(found: Unclaimed) -> Iterator[str]:
    """The same in words; nothing if there are none."""
    if found.fresh:
        since = _moment(found.fresh_since)
        are = "object is" if found.fresh == 1 else "objects are"
        yield f"{found.fresh:,} {are} not claimed, the oldest of {since}: no worker has found them yet."
    if found.changed:
        are = "object is" if found.changed == 1 else "objects are"
        names = f"{', '.join(found.examples)}{', ...' if found.changed > len(found.examples) else ''}"
        yield f"{found.changed:,} {are} not read, since another version was claimed: give them keys of their own ({names})."


def _shard(standing: Standing) -> dict[str, Any]:
    return {
        "shard": standing.shard,
        "state": standing.state.value,
        "sealed_position": str(standing.position),
        "sealed_to": _moment(standing.sealed_to),
        "complete_up_to": _moment(standing.reach),
        "why": standing.why,
    }


def _table(table: Loaded) -> dict[str, Any]:
    return {
        "sink": table.sink,
        "loaded": table.done,
        "units_waiting": table.units,
        "rows_waiting": table.rows,
        "oldest_arrival": _moment(table.oldest),
        "parked": dict(table.parked),
        "paused": table.paused,
        "why": table.why,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None or moment == FOR_EVER else moment.isoformat()


def show(application: str, question: Question, answers: Sequence[Answer]) -> None:
    """The answer as text."""
    console = table_console()
    for each in answers:
        table = Table("shard", "state", "sealed to", "complete up to", "why", title=f"{application} on {each.stream}", title_justify="left")
        for shard in each.shards:
            reach = "for good" if shard.reach == FOR_EVER else _moment(shard.reach) or ""
            table.add_row(shard.shard, shard.state, _moment(shard.sealed_to) or "", reach, shard.why)
        console.print(table)
        for line in () if each.unclaimed is None else in_no_shard(each.unclaimed):
            console.print(line, markup=False)
        for sink in each.tables or ():
            console.print(f"sink {sink.sink}: {_loading(sink)}", markup=False)
            if sink.paused:
                console.print(f"  {sink.paused}", markup=False)
            for shard_id, reason in sink.parked:
                console.print(f"  {shard_id}: {reason}", markup=False)
        if each.why:
            console.print(each.why, markup=False)
    words = {
        Verdict.COMPLETE: "[bold green]Complete[/]: everything",
        Verdict.NOT_YET: "[bold yellow]Not yet[/]: not everything",
        Verdict.UNKNOWN: "[bold yellow]Not known[/] whether everything",
    }
    least = _moment(_least(answers))
    console.print(f"{words[overall(answers)]} that arrived before {question.until.isoformat()} is there.")
    console.print(f"Complete up to {least}." if least else "Up to when it is complete is not known.")


def _loading(table: Loaded) -> str:
    if table.why:
        return f"not known what is loaded: {table.why}"
    if table.done:
        return "everything is loaded"
    since = f", the oldest of {_moment(table.oldest)}" if table.oldest else ""
    return f"{table.units:,} units with {table.rows:,} rows wait to be loaded{since}"


def _print_waiting(answers: list[Answer], seconds: float) -> None:
    """Progress messages while the command waits."""
    outside = sum(each.unclaimed.fresh + each.unclaimed.changed for each in answers if each.unclaimed is not None)
    undone = [each for answer in answers for each in answer.shards if each.state not in DONE]
    waiting = "objects that are not claimed" if outside else "a table" if answers else "no answer"
    if undone:
        waiting = f"{len(undone)} of {sum(len(each.shards) for each in answers)} shards"
    typer.echo(f"not yet: {waiting}; looking again in {seconds:.1f} s", err=True)
