"""What a changed pipeline file does to what is there already: the log, files and tables. Pure.

`stream diff` compares rows; this compares what rows do not show, such as a log of its own, which makes every record twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stream.contracts import CONSOLE
from stream.pipeline.model import Pipeline
from stream.sink.objects import SinkConfig
from stream.sink.tables import TableSinkConfig
from stream.stream_ids import name_of


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from a change. ``what``: the setting, as ``old -> new``; ``doubles``: records that are there already come again."""

    what: str
    follows: str
    doubles: bool = False


def consequences(old: Pipeline, new: Pipeline) -> list[Consequence]:
    """What happens when workers of ``new`` take over from those of ``old``; empty if everything continues as before."""
    return [*_log(old, new), *_streams(old, new), *_sinks(old, new)]


def _log(old: Pipeline, new: Pipeline) -> Iterator[Consequence]:
    shared = sorted({_place(sink) for sink in old.sinks} & {_place(sink) for sink in new.sinks} - {CONSOLE})
    start = "" if new.source.s3 is not None else f" from `start: {new.source.kinesis.start.kind}` on"
    follows = f"a log of its own, which does not know what the old one has processed: everything{start} is processed again"
    if shared:
        follows += (
            f" and written to the same places ({', '.join(shared)}), where records would be twice. Keep it, or give the sinks other places"
        )
    if old.application != new.application:
        yield Consequence(f"application: {old.application} -> {new.application}", follows, doubles=bool(shared))
    if old.state != new.state:
        moved = "To move the state, stop the workers, copy all of it, then change `state`"
        yield Consequence(f"state: {old.state} -> {new.state}", f"{follows}. {moved}", doubles=bool(shared))


def _streams(old: Pipeline, new: Pipeline) -> Iterator[Consequence]:
    before, after = set(_names(old)), set(_names(new))
    for name in sorted(before - after):
        yield Consequence(f"stream {name} is removed", "its records are not read any more, nor what waits for a table loaded")
    for name in sorted(after - before) if before else ():
        follows = f"it is read from `start: {new.source.kinesis.start.kind}` on"
        alike = sorted(each for each in before - after if name_of(each) == name_of(name))
        if alike:
            follows += f". If it is the same stream as {alike[0]}, its records are read and written again: keep what it was called by"
        yield Consequence(f"stream {name} is added", follows, doubles=bool(alike))
    kept = before & after and old.source.s3 is None and new.source.s3 is None
    if kept and old.source.kinesis.start != new.source.kinesis.start:
        yield Consequence(
            f"start: {old.source.kinesis.start.kind} -> {new.source.kinesis.start.kind}",
            "nothing for streams that were read before: where reading starts was fixed with the first start",
        )


def _names(pipeline: Pipeline) -> tuple[str, ...]:
    return () if pipeline.source.s3 is not None else pipeline.source.kinesis.names


def _sinks(old: Pipeline, new: Pipeline) -> Iterator[Consequence]:
    before, after = ({sink.name: sink for sink in each.sinks} for each in (old, new))
    places = {_place(sink): sink.name for sink in new.sinks}
    for name, sink in before.items():
        waiting = "; rows that wait for its table are not loaded any more" if isinstance(sink, TableSinkConfig) else ""
        if name not in after:
            renamed = places.get(_place(sink))
            if renamed is not None and renamed not in before:
                yield Consequence(f"sink {name} -> {renamed}", "nothing: its place stays the same")
            else:
                yield Consequence(f"sink {name} is removed", f"what it wrote to {_place(sink)} stays{waiting}")
        elif sink.kind != after[name].kind:
            yield _of_another_kind(sink, after[name])
        elif isinstance(sink, TableSinkConfig) and _place(sink) != _place(after[name]):
            shared = f", which are files of {_place(sink)}, too: do not drop that with PURGE" if sink.keeps_files else ""
            yield Consequence(
                f"sink {name}: {_place(sink)} -> {_place(after[name])}",
                f"{_place(sink)} keeps its rows; {_place(after[name])} gets later ones, and those whose files are still staged{shared}",
            )
        elif sink.url != after[name].url:
            yield Consequence(
                f"sink {name}: {sink.url} -> {after[name].url}",
                "what was written stays where it is, later records go to the new place. An unfinished unit is finished at the old place, "
                "so let the role write there until every shard has been started",
            )
        else:
            yield from _options(name, sink, after[name])
    for name, sink in after.items():
        if name not in before and _place(sink) not in {_place(each) for each in old.sinks}:
            yield Consequence(f"sink {name} is added", "it gets records from now on; `stream backfill` brings it earlier ones")


def _of_another_kind(old: SinkConfig, new: SinkConfig) -> Consequence:
    follows = f"{_place(old)} keeps what it has; {_place(new)} gets later records only, since files of one kind are not those of another"
    if isinstance(old, TableSinkConfig):
        follows += (
            f". Rows that wait for {_place(old)} are not loaded any more: before the rollout, wait until `stream loads ls` with the old "
            "file shows none; or keep the old sink beside the new one, under another name, until then"
        )
    return Consequence(f"sink {old.name}: {old.kind} -> {new.kind}", follows)


def _options(name: str, old: SinkConfig, new: SinkConfig) -> Iterator[Consequence]:
    if old.where != new.where:
        follows = "holds for units begun from now on; what was written stays where it is"
        yield Consequence(f"sink {name}.where: {_condition(old)} -> {_condition(new)}", follows)
    for setting in ("mode", "keys", "version", "deletes"):
        given = [getattr(each, setting, None) for each in (old, new)]
        if given[0] != given[1]:
            yield Consequence(
                f"sink {name}.{setting}: {_shown(given[0])} -> {_shown(given[1])}",
                "holds for units sealed from now on; those sealed before are loaded as the old file says",
            )


def _condition(sink: SinkConfig) -> str:
    return "all rows" if sink.where is None else sink.where


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _place(sink: SinkConfig) -> str:
    """Where the sink's records end up, for people."""
    return sink.table if isinstance(sink, TableSinkConfig) else sink.url
