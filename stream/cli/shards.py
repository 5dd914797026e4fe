"""``stream shards``: which shards are hot or late, which keys cause it, and whether to split or merge."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File, Stream
from stream.errors import DefinitionError

if libraries_wanted():
    from rich.table import Column, Table
    from rich.text import Text

    from stream.audit.completeness import State
    from stream.batch import PARTITION_KEY
    from stream.cli import object_shards
    from stream.cli.notices import Notices
    from stream.cli.output import as_json, table_console
    from stream.cli.pipeline_work import EXIT_UNKNOWN, carry_out, chosen
    from stream.clock import SystemClock
    from stream.operations.shards.object_survey import ObjectSurvey, survey_objects
    from stream.operations.shards.survey import Keys, Row, Survey, SurveyRequest, survey
    from stream.pipeline.model import KinesisSource, Pipeline
    from stream.pipeline.units import format_duration, parse_duration
    from stream.source.resharding import SHARD_BYTES, SHARD_RECORDS, Advice, Place, commands

    _STATES: Final = {State.EARLY: "sealed", State.UNSEALED: "unsealed"}
    """Texts for the two states of a shard that could be examined. No time is asked about here, so either everything is sealed or not."""

    URGENT: Final = frozenset({"hot", "late", "expiring", State.EXPIRED.value})

EXIT_ACT: Final = 1
PAGES: Final = 10
HEAVY_KEY_SHARE: Final = 0.1
"""Share of a shard's load from which the advice names its heaviest key."""


def shards(  # noqa: PLR0917 - options of a command are given by name
    file: File,
    window: Annotated[str, typer.Option("--window", help="How far to look back, such as 5m or 1h.")] = "5m",
    keys: Annotated[
        bool, typer.Option("--keys", help="Read a sample of the stream, and show the partition keys with the most bytes.")
    ] = False,
    pages: Annotated[
        int, typer.Option("--pages", min=1, max=1000, help="With --keys: GetRecords calls per shard, one per second.")
    ] = PAGES,
    top: Annotated[int, typer.Option("--top", min=1, help="With --keys: how many keys to show per shard.")] = 3,
    hash_keys: Annotated[
        str | None,
        typer.Option(
            "--hash-keys",
            metavar="NAME",
            help="With --keys: show keyed hashes instead of keys; the secret is in this environment variable.",
            show_default=False,
        ),
    ] = None,
    shard: Annotated[list[str] | None, typer.Option("--shard", help="Only this shard; may be repeated.")] = None,
    stream: Stream = None,
    json: AsJson = False,
) -> None:
    """Show which shards are hot or late, when unread records expire, which worker reads them, and whether to split or merge.

    Of a pipeline that reads objects: how many claimed objects wait in each shard, since when, and which worker reads it.

    Reads the commit log and the ledger, and one record of each shard of the stream; more records only with --keys. Changes nothing.

    Exit code 0: no shard is hot or late; 1: at least one is; 2: something could not be determined, or the command is wrong.
    """
    length = _window(window)
    wanted = SurveyRequest(length, pages if keys else 0, _secret(hash_keys, keys=keys), tuple(shard or ()))

    async def run(pipeline: Pipeline) -> tuple[Pipeline, list[Survey]]:
        if keys and hash_keys is None and pipeline.sensitive is not None and PARTITION_KEY in pipeline.sensitive.columns:
            msg = f"{file} declares {PARTITION_KEY} sensitive, and --keys would print partition keys: add --hash-keys NAME"
            raise DefinitionError(msg)
        return pipeline, await survey(chosen(pipeline, stream), file.parent, wanted, SystemClock(), Notices())

    async def run_objects(pipeline: Pipeline) -> tuple[Pipeline, ObjectSurvey | list[Survey]]:
        if pipeline.source.s3 is None:
            return await run(pipeline)
        if keys:
            msg = "--keys is about the partition keys of a stream, and the pipeline reads objects of `source.s3`"
            raise DefinitionError(msg)
        return pipeline, await survey_objects(pipeline, file.parent, tuple(shard or ()), SystemClock(), Notices())

    pipeline, surveys = carry_out(file, run_objects)
    if isinstance(surveys, ObjectSurvey):
        raise typer.Exit(object_shards.say(pipeline.application, surveys, json=json))
    if json:
        sys.stdout.write(as_json(document(pipeline, surveys, length, top)))
    else:
        for each in surveys:
            show(pipeline, each, top)
    raise typer.Exit(exit_code(surveys))


def exit_code(surveys: Sequence[Survey]) -> int:
    """1 if any shard needs an operator; otherwise 2 if the state of any is unknown; otherwise 0."""
    rows = [row for each in surveys for row in each.rows]
    if any(URGENT.intersection(row.marks) for row in rows):
        return EXIT_ACT
    unknown = any(each.why for each in surveys) or any(row.unknown for row in rows)
    return EXIT_UNKNOWN if unknown else 0


def document(pipeline: Pipeline, surveys: Sequence[Survey], window: timedelta, top: int) -> dict[str, Any]:
    """The document that --json prints, as described in docs/shards.md."""
    return {
        "application": pipeline.application,
        "window_seconds": window.total_seconds(),
        "streams": [_stream(pipeline.source.kinesis, each, top) for each in surveys],
    }


def _stream(kinesis: KinesisSource, found: Survey, top: int) -> dict[str, Any]:
    return {
        "stream": found.stream,
        "asked_at": _moment(found.asked_at),
        "mode": "on_demand" if found.summary.on_demand else "provisioned",
        "status": found.summary.status,
        "retention_seconds": found.summary.retention.total_seconds(),
        "registered_consumers": found.summary.consumers,
        "why": found.why,
        "shards": [_shard(row, found.asked_at, top) for row in found.rows],
        "advice": [_advice(kinesis, found, each) for each in found.advice],
    }


def _shard(row: Row, asked_at: datetime, top: int) -> dict[str, Any]:
    shard, standing = row.shard, row.standing
    return {
        "shard": row.name,
        "open": row.open,
        "parents": list(shard.parents) if shard else None,
        "first_hash_key": str(shard.first_hash) if shard else None,
        "last_hash_key": str(shard.last_hash) if shard else None,
        "hash_key_share": row.part,
        "marks": list(row.marks),
        "rate": _rate(row),
        "rate_why": row.measured.why,
        "state": _STATES.get(standing.state, standing.state.value) if standing else None,
        "sealed_position": str(standing.position) if standing else None,
        "sealed_to": _moment(standing.sealed_to) if standing else None,
        "oldest_unsealed": _moment(row.unread),
        "behind_seconds": _behind(row, asked_at),
        "expires_at": _moment(row.expires),
        "why": standing.why if standing and standing.state not in _STATES else "",
        "owner": row.owner,
        "sealed_by": row.sealed_by or None,
        "keys": _keys(row, top),
    }


def _rate(row: Row) -> dict[str, Any] | None:
    measured = row.measured
    if (rate := measured.rate) is None:
        return None
    return {
        "from": "sample" if measured.sampled else "ledger",
        "keys_counted": measured.weighed,
        "since": _moment(measured.since),
        "until": _moment(measured.until),
        "bytes_per_second": rate.size,
        "bytes_share": rate.size / SHARD_BYTES,
        "records_per_second": rate.records,
        "records_share": rate.records / SHARD_RECORDS,
        "busiest_second_share": rate.peak,
    }


def _keys(row: Row, top: int) -> dict[str, Any] | None:
    if row.keys is None:
        return None
    sample, excerpt = row.keys.sample, row.keys.excerpt
    return {
        "covered_seconds": excerpt.covered,
        "covered_share": excerpt.covered / excerpt.seconds,
        "calls": excerpt.calls,
        "bytes": sample.size,
        "kinesis_records": sample.records,
        "user_records": sample.users,
        "why": excerpt.why,
        "top": [
            {
                "key": each.key,
                "bytes_share": each.size / sample.size,
                "records_share": each.records / sample.records,
                "user_records": each.users,
            }
            for each in sample.keys[:top]
        ],
    }


def _advice(kinesis: KinesisSource, found: Survey, advice: Advice) -> dict[str, Any]:
    return {
        "kind": advice.kind.value,
        "shards": list(advice.shards),
        "why": advice.why,
        "new_starting_hash_key": None if advice.at is None else str(advice.at),
        "lower_share": advice.lower,
        "error": advice.error,
        "key": advice.key,
        "key_share": advice.share,
        "shard_count": advice.count,
        "commands": commands(advice, _place(kinesis, found)),
    }


def show(pipeline: Pipeline, found: Survey, top: int) -> None:
    """Print the survey as text."""
    console = table_console()
    console.print(_table(pipeline.application, found))
    if sampled := [(row, row.keys) for row in found.rows if row.keys is not None]:
        console.print(_key_table(sampled, top))
    for line in _notes(found):
        console.print(line, markup=False)
    for advice in found.advice:
        console.print(Text(f"{advice.kind}: ", style="bold yellow") + Text(f"{', '.join(advice.shards)}: {advice.why}"))
        if advice.key is not None and advice.share is not None and advice.share >= HEAVY_KEY_SHARE:
            console.print(Text(f"  the heaviest key is {printable(advice.key)}, with {_percent(advice.share)}"))
        for command in commands(advice, _place(pipeline.source.kinesis, found)):
            console.print(f"  {command}", markup=False, soft_wrap=True)


def _table(application: str, found: Survey) -> Table:
    """The shards; columns that are empty in all rows are left out."""
    who = "owner" if found.leased else "last sealed by"
    names = ("shard", "note", "continues", "hash keys", "bytes/s", "records/s", "peak", "until", "not sealed for", "expires in", who)
    rows = [_cells(row, found) for row in found.rows]
    shown = [at for at in range(len(names)) if not rows or any(str(cells[at]) for cells in rows)]
    title = f"{application} on {found.stream}, {_moment(found.asked_at)}"
    table = Table(*(Column(names[at], overflow="fold") for at in shown), title=title, title_justify="left")
    for cells in rows:
        table.add_row(*(cells[at] for at in shown))
    return table


def _cells(row: Row, found: Survey) -> tuple[str | Text, ...]:
    measured, rate = row.measured, row.measured.rate
    behind, unknown = _behind(row, found.asked_at), "?" if row.open else ""
    return (
        row.name if row.open else f"{row.name} (closed)",
        Text(", ".join(row.marks), style="bold red" if URGENT.intersection(row.marks) else "yellow"),
        ", ".join(row.shard.parents) if row.shard else "?",
        _percent(row.part),
        f"{rate.size:,.0f} ({_percent(rate.size / SHARD_BYTES)})" if rate else unknown,
        f"{rate.records:,.0f} ({_percent(rate.records / SHARD_RECORDS)})" if rate else unknown,
        _percent(rate.peak) if rate else "",
        f"{_clock_time(measured.until, found.asked_at)}{' (sample)' if measured.sampled else ''}" if measured.until and rate else "",
        "" if behind is None else _length(behind),
        "" if row.expires is None else _length((row.expires - found.asked_at).total_seconds()),
        Text((row.owner if found.leased else row.sealed_by) or "-"),
    )


def _key_table(rows: Sequence[tuple[Row, Keys]], top: int) -> Table:
    names = ("shard", "sampled", "of the time", "partition key", "bytes", "records", "user records")
    table = Table(*(Column(name, overflow="fold") for name in names))
    for row, keys in rows:
        sample, excerpt = keys.sample, keys.excerpt
        read = (row.name, f"{sample.users:,} in {excerpt.calls} calls", _percent(excerpt.covered / excerpt.seconds))
        for at, each in enumerate(sample.keys[:top]):
            shares = (_percent(each.size / sample.size), _percent(each.records / sample.records))
            table.add_row(*(("", "", "") if at else read), Text(printable(each.key)), *shares, f"{each.users:,}")
        if not sample.keys:
            table.add_row(*read)
    return table


def _notes(found: Survey) -> Iterator[str]:
    if found.why:
        yield f"{found.stream}: {found.why}"
    for row in found.rows:
        if row.measured.why and row.open and not found.why:
            yield f"{row.name}: what arrived is not known: {row.measured.why}"
        if row.standing is not None and row.standing.why and {"expired", "gone", "silent"}.intersection(row.marks):
            yield f"{row.name}: {row.standing.why}"
        if row.keys is not None and row.keys.excerpt.why:
            yield f"{row.name}: the sample is shorter than asked for: {row.keys.excerpt.why}"
    if light := sum(row.measured.light for row in found.rows):
        yield (
            f"{found.stream}: {light} of {len(found.rows)} shards get KPL aggregates, of which only payloads are counted here: they may be "
            "twice as full. --keys counts everything; without it, no merge of these shards is advised."
        )
    if registered := found.summary.consumers:
        consumers = f"{registered} consumers are" if registered > 1 else "1 consumer is"
        named = f"`aws kinesis list-stream-consumers --stream-arn {found.summary.arn}`"
        yield f"{found.stream}: {consumers} registered for enhanced fan-out; {named} names them"
    if found.summary.on_demand:
        yield f"{found.stream} is on demand: Kinesis splits and merges its shards itself, so there is no advice to do it."
    elif found.summary.status != "ACTIVE":
        yield f"{found.stream} is {found.summary.status}: commands that change it are refused until it is ACTIVE."


def printable(key: str) -> str:
    """``key`` on one line: what would move a terminal's cursor is written as an escape."""
    return key if key.isprintable() else key.encode("unicode_escape").decode("ascii")


def _place(kinesis: KinesisSource, found: Survey) -> Place:
    return Place(found.stream, kinesis.region, kinesis.endpoint)


def _behind(row: Row, asked_at: datetime) -> float | None:
    """Seconds since the oldest unsealed record arrived; 0 if everything is sealed, None if unknown."""
    if row.unread is not None:
        return max(0.0, (asked_at - row.unread).total_seconds())
    return 0.0 if row.standing is not None and row.standing.state in {State.EARLY, State.ENDED} else None


def _secret(name: str | None, *, keys: bool) -> bytes | None:
    if name is None:
        return None
    if not keys:
        msg = "--hash-keys says how keys are shown, and they are shown with --keys only"
        raise typer.BadParameter(msg)
    value = os.environ.get(name, "")
    if not value:
        msg = f"--hash-keys {name}: the environment variable {name} is not set, or empty; it holds the secret that digests are keyed with"
        raise typer.BadParameter(msg)
    return value.encode()


def _window(text: str) -> timedelta:
    try:
        found = parse_duration(text)
    except ValueError as error:
        msg = f"--window: {error}"
        raise typer.BadParameter(msg) from error
    if found < timedelta(seconds=1):
        msg = f"--window {text}: give at least 1s"
        raise typer.BadParameter(msg)
    return found


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _clock_time(moment: datetime, asked_at: datetime) -> str:
    """``moment`` as a time of day, with the date only if it is another day than ``asked_at``."""
    return f"{moment:%H:%M:%S}" if moment.date() == asked_at.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def _length(seconds: float) -> str:
    return format_duration(timedelta(seconds=max(0, round(seconds)))) if seconds > 0 else "0s"


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{share:.1%}" if 0.0 < share < 0.1 else f"{share:.0%}"
