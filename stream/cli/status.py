"""``stream status``: whether a pipeline is all right, and if not, what is wrong, since when, and what to type next."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File, Stream

if libraries_wanted():
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.padding import Padding
    from rich.table import Column, Table
    from rich.text import Text

    from stream.cli import object_status
    from stream.cli.output import as_json, table_console
    from stream.cli.pipeline_work import EXIT_UNKNOWN, carry_out, chosen
    from stream.clock import SystemClock
    from stream.operations.status.finding import Finding, Harm, clock, count, length
    from stream.operations.status.inspector import Inspector
    from stream.operations.status.opening import open_inspectors
    from stream.operations.status.rules import judge, verdict
    from stream.operations.status.snapshot import Exported, ShardStatus, Snapshot
    from stream.pipeline.model import Pipeline
    from stream.worker.halts.note import Halt

    Judged = tuple[Snapshot, list[Finding]]

    EXIT: Final = {Harm.HEALTHY: 0, Harm.UNKNOWN: EXIT_UNKNOWN}

EXIT_ACT: Final = 1
SHARDS: Final = 10
RUNBOOK: Final = "docs/runbook.md"
LEAST_PAUSE: Final = 5.0
"""Seconds: the calls for a snapshot share the limits of the shards with all other readers."""


def status(
    file: File,
    worst: Annotated[int, typer.Option("--shards", min=0, help="Show so many shards and workers, the worst first.")] = SHARDS,
    watch: Annotated[
        float | None,
        typer.Option("--watch", metavar="SECONDS", min=LEAST_PAUSE, help="Repeat after so many seconds, until Ctrl-C.", show_default=False),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Leave this shard out, for example because it is gone; may be repeated.")
    ] = None,
    stream: Stream = None,
    json: AsJson = False,
) -> None:
    """Tell whether the pipeline is all right, and if not, what is wrong, since when, and what to do next.

    Asks no worker: reads the commit log, the stream, the leases, and the tables' own records of what is loaded. Changes nothing. If a part
    cannot be read, the output says so, and shows the rest.

    For each shard, this takes two to four reads of small objects, up to two more for the export of spans, and two calls to Kinesis if
    the shard is quiet or late. Up to 1,000 more reads are for dead letters. With 1,000 shards that is at most about 8,000 calls.

    Exit code 0: healthy; 1: something needs a person; 2: a part could not be read, or the command is wrong. With --watch, Ctrl-C ends it
    with the code of the last output.
    """
    if json and watch is not None:
        msg = "--json prints one document; call it again instead of using --watch"
        raise typer.BadParameter(msg)
    seen: list[tuple[Harm, RenderableType]] = []

    async def run(pipeline: Pipeline) -> tuple[Pipeline, list[Judged]]:
        async with AsyncExitStack() as stack:
            inspectors = await open_inspectors(chosen(pipeline, stream), file.parent, os.environ, without or (), SystemClock(), stack)
            show = _screen(stack) if watch is not None else None
            while True:
                judged = await _inspect(inspectors)
                if watch is None or show is None:
                    return pipeline, judged
                seen[:] = [(_overall(judged), shown(pipeline, file, judged, worst))]
                show(seen[0][1])
                await SystemClock().sleep(watch)

    try:
        pipeline, judged = carry_out(file, run)
    except KeyboardInterrupt:
        if not seen:
            raise
        if table_console().is_terminal:  # the screen is gone
            table_console().print(seen[0][1])
        raise typer.Exit(EXIT.get(seen[0][0], EXIT_ACT)) from None
    if json:
        sys.stdout.write(as_json(document(pipeline, file, judged)))
    else:
        table_console().print(shown(pipeline, file, judged, worst))
    raise typer.Exit(EXIT.get(_overall(judged), EXIT_ACT))


def _screen(stack: AsyncExitStack) -> Callable[[RenderableType], None]:
    """Shows one answer after the other in the same place of a terminal, or below each other where there is none."""
    console = table_console()
    if not console.is_terminal:
        return console.print
    live = stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
    return lambda answer: live.update(answer, refresh=True)


async def _inspect(inspectors: Sequence[Inspector]) -> list[Judged]:
    found = []
    for each in inspectors:
        snapshot = await each.inspect()
        found.append((snapshot, judge(snapshot)))
    return found


def _overall(judged: Sequence[Judged]) -> Harm:
    return verdict([finding for _, findings in judged for finding in findings])


def commands_of(finding: Finding, snapshot: Snapshot, pipeline: Pipeline, file: Path) -> list[str]:
    """The commands of ``finding`` as they are typed."""
    words = {"FILE": [str(file)], "NOW": [snapshot.asked_at.isoformat(timespec="seconds")]}
    words["STREAM"] = ["--stream", snapshot.stream] if len(pipeline.source.kinesis.names) > 1 else []
    return [shlex.join(word for each in command.split() for word in words.get(each, [each])) for command in finding.commands]


# --- for programs -----------------------------------------------------------------------------------------------------------------


def document(pipeline: Pipeline, file: Path, judged: Sequence[Judged]) -> dict[str, Any]:
    """The document that --json prints, as described in docs/status.md."""
    return {
        "application": pipeline.application,
        "verdict": _name(_overall(judged)),
        "healthy": _overall(judged) is Harm.HEALTHY,
        "streams": [_stream(pipeline, file, *each) for each in judged],
    }


def _name(harm: Harm) -> str:
    return harm.words.replace(" ", "_")


def _stream(pipeline: Pipeline, file: Path, snapshot: Snapshot, findings: Sequence[Finding]) -> dict[str, Any]:
    dead, exported = snapshot.dead_letters, snapshot.exported
    return {
        "stream": snapshot.stream,
        "asked_at": _time(snapshot.asked_at),
        "verdict": _name(verdict(findings)),
        "complete_up_to": _time(snapshot.reach),
        "retention_seconds": None if snapshot.retention is None else snapshot.retention.total_seconds(),
        "findings": [_finding(pipeline, file, snapshot, each) for each in findings],
        "workers": [
            {
                "worker": each.name,
                "shards": each.shards,
                "renewed": _time(each.renewed),
                "sealed": _time(each.sealed),
                "living": each.living,
            }
            for each in snapshot.workers
        ],
        "shards": [_shard(snapshot, each) for each in snapshot.worst],
        "finished_shards": snapshot.finished,
        "tables": [
            {
                "sink": each.sink,
                "shards_waiting": each.waiting,
                "waiting_since": _time(each.since),
                "parked": [{"shard": one.shard, "reason": one.reason, "since": _time(one.since)} for one in each.parked],
                "paused": each.paused,
            }
            for each in snapshot.tables
        ],
        "dead_letters": None
        if dead is None
        else {
            "since": _time(dead.since),
            "units": dead.units,
            "records": dead.records,
            "dead": dead.dead,
            "files_opened": dead.files,
            "files": dead.of,
            "causes": [{"stage": stage, "reason": reason, "records": records} for stage, reason, records in dead.causes],
        },
        "objects": None if snapshot.objects is None else object_status.document(snapshot, snapshot.objects),
        "export": None if exported is None else _export(exported),
        "unread": [{"part": each.part, "why": each.why} for each in snapshot.unread],
    }


def _export(exported: Exported) -> dict[str, Any]:
    return {
        "shards_waiting": exported.waiting,
        "waiting_since": _time(exported.since),
        "halted": [{"shard": name, **_halt(halt)} for name, halt in exported.halted],
    }


def _halt(halt: Halt) -> dict[str, Any]:
    return {"reason": halt.reason, "worker": halt.worker, "since": _time(halt.since)}


def _finding(pipeline: Pipeline, file: Path, snapshot: Snapshot, finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "harm": _name(finding.harm),
        "what": finding.what,
        "shards": list(finding.shards),
        "since": _time(finding.since),
        "figure": finding.figure,
        "limit": finding.limit,
        "details": list(finding.details),
        "commands": commands_of(finding, snapshot, pipeline, file),
        "section": f"{RUNBOOK}#{finding.section}",
    }


def _shard(snapshot: Snapshot, shard: ShardStatus) -> dict[str, Any]:
    halt = shard.halt
    return {
        "shard": shard.name,
        "open": shard.open,
        "state": shard.state.value,
        "why": shard.why,
        "lag_seconds": snapshot.lag(shard),
        "oldest_unsealed": _time(shard.unread),
        "expires_in_seconds": snapshot.left(shard),
        "sealed_position": str(shard.position),
        "sealed": _time(shard.sealed_at),
        "sealed_by": shard.sealed_by or None,
        "begun": _time(shard.begun),
        "begun_by": shard.begun_by or None,
        "owner": shard.owner,
        "renewed": _time(shard.renewed),
        "elsewhere": shard.elsewhere,
        "halted": None if halt is None else _halt(halt),
        "paused": shard.paused,
        "objects": shard.objects,
        "bytes": shard.size,
    }


def _time(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat()


# --- for people -------------------------------------------------------------------------------------------------------------------


def shown(pipeline: Pipeline, file: Path, judged: Sequence[Judged], worst: int) -> RenderableType:
    """The answer on one screen: the verdict, the findings, what they are taken from."""
    parts: list[RenderableType] = []
    for snapshot, findings in judged:
        harm = verdict(findings)
        colour = {Harm.HEALTHY: "bold green", Harm.UNKNOWN: "bold yellow", Harm.DEGRADED: "bold yellow"}.get(harm, "bold red")
        parts.append(
            Text(f"{harm.words}: ", style=colour) + Text(f"{pipeline.application} on {snapshot.stream}, {clock(snapshot.asked_at)}")
        )
        if snapshot.reach is not None and not snapshot.other_stream:
            parts.append(Text(f"Everything that arrived before {clock(snapshot.reach)} is sealed."))
        for number, finding in enumerate(findings, 1):
            parts += _paragraph(number, finding, snapshot, commands_of(finding, snapshot, pipeline, file))
        parts += [Text(""), *_tables(snapshot, worst), *_notes(snapshot)]
    return Group(*parts)


def _paragraph(number: int, finding: Finding, snapshot: Snapshot, commands: Sequence[str]) -> Iterator[RenderableType]:
    since = f", since {clock(finding.since)} ({length(snapshot.since(finding.since))})" if finding.since is not None else ""
    yield Text("")
    yield Text(f"{number}. {finding.what}{since}", style="bold")
    if finding.figure is not None and finding.limit is not None:
        share = finding.limit < 1
        figures = (f"{finding.figure:.1%}", f"{finding.limit:.0%}") if share else (length(finding.figure), length(finding.limit))
        yield Text(f"   {figures[0]}; the limit is {figures[1]}")
    for line in finding.details:
        yield Padding(Text(line), (0, 0, 0, 3), expand=False)
    for command in commands:
        yield Text(f"   $ {command}")
    yield Text(f"   {RUNBOOK}#{finding.section}")


def _tables(snapshot: Snapshot, worst: int) -> Iterator[RenderableType]:
    if snapshot.workers:
        leased = snapshot.failover is not None
        table = Table("worker", "leases" if leased else "last sealed in", *(("last renewal",) if leased else ()), "last seal")
        for row in snapshot.workers[: max(worst, 1)]:
            renewed = (_ago(snapshot, row.renewed) + ("" if row.living is not False else ", silent"),) if leased else ()
            table.add_row(Text(row.name), f"{row.shards:,}", *renewed, _ago(snapshot, row.sealed))
        yield table
        if len(snapshot.workers) > max(worst, 1):
            yield Text(f"and {len(snapshot.workers) - max(worst, 1):,} more workers; --shards N shows more")
    if snapshot.shards and worst:
        yield _shard_table(snapshot, worst)
    if snapshot.tables:
        table = Table("table", "shards with rows to load", "oldest", "parked")
        for each in snapshot.tables:
            table.add_row(Text(each.sink), f"{each.waiting:,}", _ago(snapshot, each.since), f"{len(each.parked):,}")
        yield table
    if snapshot.dead_letters is not None and snapshot.dead_letters.dead:
        table = Table("dead letters", "stage", "reason")
        for stage, reason, records in snapshot.dead_letters.causes[:SHARDS]:
            table.add_row(f"{records:,}", Text(stage), Text(reason))
        yield table


def _shard_table(snapshot: Snapshot, worst: int) -> Table:
    leased = snapshot.failover is not None
    names = ("shard", *(("owner",) if leased else ()), "lag", "objects", "last seal", "begun", "expires in", "note")
    rows = []
    for each in snapshot.worst[:worst]:
        owner = (Text(each.owner or "-"),) if leased else ()
        left = snapshot.left(each)
        expires = "" if left is None else length(left)
        lag = snapshot.lag(each)
        waiting = f"{each.objects:,}" if each.objects else ""
        cells = (
            "?" if lag is None else length(lag),
            waiting,
            _ago(snapshot, each.sealed_at),
            _ago(snapshot, each.begun),
            expires,
            Text(_note(snapshot, each)),
        )
        rows.append((f"{each.name}{'' if each.open else ' (closed)'}", *owner, *cells))
    shown_at = [at for at in range(len(names)) if any(str(cells[at]) for cells in rows)]
    table = Table(*(Column(names[at], overflow="fold") for at in shown_at))
    for cells in rows:
        table.add_row(*(cells[at] for at in shown_at))
    return table


def _note(snapshot: Snapshot, shard: ShardStatus) -> str:
    if shard.halt is not None:
        return "halted"
    if shard.elsewhere:
        return "read elsewhere"
    if shard.paused is not None:
        return "paused"
    if snapshot.read_by_nobody(shard):
        return "no worker"
    if shard.blocked:
        return "waits for its parent"
    return "" if snapshot.is_fine(shard) and shard.state.value in {"complete", "early"} else shard.state.value


def _notes(snapshot: Snapshot) -> Iterator[RenderableType]:
    yield from () if snapshot.objects is None else map(Text, object_status.about(snapshot, snapshot.objects))
    fine, dead, exported = sum(snapshot.is_fine(each) for each in snapshot.shards), snapshot.dead_letters, snapshot.exported
    if snapshot.shards and not snapshot.other_stream:
        ended = f"; {count(snapshot.finished, 'more is', 'more are')} read to the end" if snapshot.finished else ""
        yield Text(f"{fine:,} of {count(len(snapshot.shards), 'shard is', 'shards are')} fine{ended}.")
    if dead is not None and dead.units:
        units = count(dead.units, "unit", "units")
        yield Text(f"In {units} sealed since {clock(dead.since)}: {dead.records:,} records, {dead.dead:,} of them dead letters.")
        if dead.files < dead.of:
            yield Text(f"Their causes are from the newest {dead.files:,} of {dead.of:,} files; `stream dlq top` counts all.")
    if exported is not None and exported.waiting:
        oldest = _ago(snapshot, exported.since)
        yield Text(f"Units of {count(exported.waiting, 'shard', 'shards')} wait for the export of their spans, the oldest for {oldest}.")


def _ago(snapshot: Snapshot, moment: Any) -> str:
    return "" if moment is None else length(snapshot.since(moment))
