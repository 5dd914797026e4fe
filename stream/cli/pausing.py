"""``stream pause`` and ``stream resume``: stop reading or loading on purpose, for maintenance, and go on where it stopped."""

from __future__ import annotations

import getpass
import platform
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File

if libraries_wanted():
    from rich.table import Column, Table

    from stream.cli.notices import Notices
    from stream.cli.output import as_json, table_console
    from stream.cli.pipeline_work import carry_out
    from stream.cli.times import moment
    from stream.clock import SystemClock
    from stream.lease.paused import Action, Change, Pause, What
    from stream.operations.changes.pauses import Author, Operator, Outcome, Outlook, Scope, pauses_covering, refuse_mixed
    from stream.pipeline.model import Pipeline
    from stream.pipeline.units import format_duration, parse_duration
    from stream.stream_ids import stream_id
    from stream.worker.coordination.pausing import LOOK_SECONDS

    _GOES_ON: Final = {
        What.READING: f"goes on within {LOOK_SECONDS:.0f} s, exactly where it stopped",
        What.LOADS: "go on with the loader's next round, the sink's `every`, where they stopped",
    }

EXIT_REFUSED: Final = 1
_TIME_OF_DAY: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")

Shards = Annotated[list[str] | None, typer.Argument(help="Shards, such as shardId-000000000000.", show_default="all")]
StreamName = Annotated[str | None, typer.Option("--stream", help="Only this stream, if the pipeline reads several.", show_default="all")]
Loads = Annotated[bool, typer.Option("--loads", help="Not reading, but loading into tables: units are sealed as usual, and wait.")]
SinkName = Annotated[str | None, typer.Option("--sink", help="With --loads: only into the table of this sink.", show_default="all")]
By = Annotated[str | None, typer.Option("--by", help="Who is doing this; kept with the pause.", show_default="user@host")]


def pause(
    file: File,
    shards: Shards = None,
    *,
    stream: StreamName = None,
    loads: Loads = False,
    sink: SinkName = None,
    note: Annotated[str, typer.Option("--note", help="The reason; required, shown with the pause, and kept.")] = "",
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            help="End by itself after a time, such as 2h30m, or at one, such as 05:30 (UTC) or 2026-01-01T05:30:00Z.",
            show_default="`stream resume`",
        ),
    ] = None,
    may_expire: Annotated[bool, typer.Option("--may-expire", help="Pause even if unread records expire before --until.")] = False,
    by: By = None,
    listed: Annotated[bool, typer.Option("--list", help="Change nothing; list what is paused, and every pause so far.")] = False,
    json: AsJson = False,
) -> None:
    """Stop reading a pipeline, one stream or some shards on purpose, or loading into tables, until it is resumed.

    Every worker seals what it has read and stops within five seconds. Workers go on running, and keep their leases; those that start later
    obey, too. Records go on expiring in the stream: a pause that would outlive unread ones is refused, by figures.

    Exit code 0: it is paused, or was already, or the list is printed; 1: refused, because records would expire; 2: it could not be done.
    """
    if listed:
        _list(file, json=json)
        return
    scope, author = Scope(None if stream is None else stream_id(stream), tuple(shards or ()), loads, sink), Author(by or _me(), note)
    clock = SystemClock()
    end = None if until is None else end_of(until, clock.now())

    async def run(pipeline: Pipeline) -> Outcome:
        return await Operator(pipeline, file.parent, clock, Notices()).pause(scope, author, end, may_expire=may_expire)

    outcome = carry_out(file, run)
    if json:
        sys.stdout.write(as_json(_document(outcome)))
    elif not outcome.too_long:
        for line in told_of_pause(outcome, scope, clock.now()):
            typer.echo(line)
    if outcome.too_long and end is not None:
        for line in told_of_refusal(outcome.too_long, end):
            typer.echo(line, err=True)
        raise typer.Exit(EXIT_REFUSED)


def resume(
    file: File,
    shards: Shards = None,
    *,
    stream: StreamName = None,
    loads: Loads = False,
    sink: SinkName = None,
    everything: Annotated[bool, typer.Option("--all", help="End every pause: of streams, shards and loads.")] = False,
    note: Annotated[str, typer.Option("--note", help="Why; kept with the pause.")] = "",
    by: By = None,
    json: AsJson = False,
) -> None:
    """End what `stream pause` has paused. Reading and loading go on exactly where they stopped.

    Ends the pause of exactly what is named: without shards, that of whole streams. Shards that were paused by name stay paused, and are
    listed; name them, or give --all.

    Exit code 0: it is not paused (any more); 1: it still is, by a pause that was not named; 2: it could not be done.
    """
    scope, author = Scope(None if stream is None else stream_id(stream), tuple(shards or ()), loads, sink), Author(by or _me(), note)
    if everything and (scope.shards or loads):
        msg = "--all ends every pause: leave out the shards and --loads"
        raise typer.BadParameter(msg)

    async def run(pipeline: Pipeline) -> Outcome:
        refuse_mixed(scope)
        return await Operator(pipeline, file.parent, SystemClock(), Notices()).resume(scope, author, everything=everything)

    outcome = carry_out(file, run)
    still = [] if everything else pauses_covering(outcome.pauses, scope)
    if json:
        sys.stdout.write(as_json(_document(outcome)))
    else:
        for line in told_of_resume(outcome, still):
            typer.echo(line)
    if any(not each.part for each in still):
        raise typer.Exit(EXIT_REFUSED)


def end_of(text: str, now: datetime) -> datetime:
    """The moment that ``--until`` names: after a length of time, at the next such time of day (UTC), or an ISO 8601 time."""
    if found := _TIME_OF_DAY.fullmatch(text):
        end = now.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0)
        return end if end > now else end + timedelta(days=1)
    try:
        return now + parse_duration(text)
    except ValueError:
        if not re.match(r"\d{4}-", text):
            msg = f"--until {text}: give a length of time such as 2h30m, a time of day such as 05:30 (UTC), or 2026-01-01T05:30:00Z"
            raise typer.BadParameter(msg) from None
    return moment(text, "--until")


def told_of_pause(outcome: Outcome, scope: Scope, now: datetime) -> list[str]:
    """The lines that are printed after a pause."""
    held = [each for each in outcome.pauses if each.what is scope.what and scope.stream in {None, each.stream} and each.part in scope.parts]
    lines = [str(each) for each in held]
    if outcome.change is None:
        lines.append("it was so already: nothing was changed")
    elif scope.loads:
        lines.append(
            f"no load begins any more from {LOOK_SECONDS:.0f} s on; one that runs is finished; units are sealed as usual, and wait"
        )
    else:
        lines.append(f"every worker seals what it has read and stops reading within {LOOK_SECONDS:.0f} s; it keeps its leases")
    lines += [_expiry(each, now) for each in outcome.outlooks]
    return lines


def _expiry(outlook: Outlook, now: datetime) -> str:
    if outlook.expires is None:
        return f"when unread records of {outlook.stream} expire is not known: {outlook.why}"
    left = outlook.expires - now
    return f"unread records of {outlook.stream} expire from {_text(outlook.expires)} on, in {_length(left)}: resume well before that"


def told_of_refusal(too_long: Sequence[Outlook], end: datetime) -> list[str]:
    """Why a pause until ``end`` was refused."""
    lines = [
        f"error: unread records of {each.stream} expire from {_text(each.expires)} on, {_length(end - each.expires)} before the pause ends"
        for each in too_long
        if each.expires is not None
    ]
    return [*lines, "nothing was paused; choose an earlier --until, raise the stream's retention, or give --may-expire to lose them"]


def told_of_resume(outcome: Outcome, still: Sequence[Pause]) -> list[str]:
    """What is said after a resumption; ``still``: what stays paused of what was named, or beside it."""
    lines = []
    if outcome.change is None:
        lines.append("nothing of that is paused" if not still else "no pause of exactly that: nothing was changed")
    else:
        lines += [f"{each.target}: {_GOES_ON[each.what]}" for each in outcome.change.changed]
    return lines + [f"still so: {each}" for each in still]


def _list(file: Any, *, json: bool) -> None:
    async def run(pipeline: Pipeline) -> tuple[tuple[Pause, ...], list[Change]]:
        return await Operator(pipeline, file.parent, SystemClock(), Notices()).history()

    pauses, changes = carry_out(file, run)
    if json:
        sys.stdout.write(as_json({"paused": [_plain(each) for each in pauses], "changes": [_change(each) for each in changes]}))
        return
    for each in pauses:
        typer.echo(str(each))
    if not pauses:
        typer.echo("nothing is paused")
    if changes:
        table = Table(*(Column(name, overflow="fold") for name in ("at", "what", "of", "until", "by", "note")))
        for change in changes:
            for pause in change.changed:
                until = _text(pause.until) if pause.until is not None and change.action is Action.PAUSE else ""
                table.add_row(_text(change.at), change.action.value, str(pause.target), until, change.by, change.note)
        table_console().print(table)


def _document(outcome: Outcome) -> dict[str, Any]:
    return {
        "change": None if outcome.change is None else _change(outcome.change),
        "paused": [_plain(each) for each in outcome.pauses],
        "expiry": [
            {"stream": each.stream, "expires": None if each.expires is None else each.expires.isoformat(), "why": each.why}
            for each in outcome.outlooks
        ],
        "refused": bool(outcome.too_long),
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "number": change.number,
        "action": change.action.value,
        "by": change.by,
        "at": change.at.isoformat(),
        "note": change.note,
        "changed": [_plain(each) for each in change.changed],
    }


def _plain(pause: Pause) -> dict[str, Any]:
    """A pause as a document; ``shard`` and ``sink`` are null where the pause is of all."""
    return {
        "what": pause.what.value,
        "stream": pause.stream,
        "shard": (pause.part or None) if pause.what is What.READING else None,
        "sink": (pause.part or None) if pause.what is What.LOADS else None,
        "by": pause.by,
        "note": pause.note,
        "since": pause.since.isoformat(),
        "until": None if pause.until is None else pause.until.isoformat(),
    }


def _me() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "somebody"
    return f"{user}@{platform.node()}"


def _text(moment_: datetime) -> str:
    return moment_.isoformat(timespec="seconds")


def _length(length: timedelta) -> str:
    return format_duration(timedelta(seconds=max(0, round(length.total_seconds()))))
