"""What a worker reads: a stream without end, what a stream holds now, a time range, S3 objects, or dead letters."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias

from stream.aws.errors import AccessRefused
from stream.aws.kinesis import KinesisClient, open_kinesis
from stream.aws.session import AwsSession
from stream.aws.sqs import open_sqs
from stream.budget import ByteBudget
from stream.commit.lookup import streams_of
from stream.commit.manifest import decode_start
from stream.commit.naming import start_key
from stream.contracts import Clock, Emit, LendingSource, ObjectStore, Start, StartKind
from stream.errors import DefinitionError, Fatal
from stream.pipeline.model import KinesisSource as KinesisOptions
from stream.pipeline.model import Pipeline, Retrieval
from stream.pipeline.replay import ObjectsSource, Watch
from stream.source.access import described
from stream.source.aggregated import OutOfRange
from stream.source.kinesis import KinesisSource
from stream.source.notifications import place_of_notices
from stream.source.pace import FanOut, ReadSettings, tip_seconds
from stream.source.until import ReadUntil, refuse_future, refuse_lost
from stream.storage.open import open_store
from stream.stream_ids import as_written
from stream.worker.objects.claiming import WatchSettings
from stream.worker.objects.finished_claims import FinishedClaims
from stream.worker.objects.receiving import LONGEST_HOLD
from stream.worker.objects.slices import Window
from stream.worker.objects.watched import WatchedShards, object_opener, slices_of
from stream.worker.objects.watching import ALONE, Turns, Watcher
from stream.worker.opening.identity import PinnedStream, Pinning, asks_first
from stream.worker.opening.places import queue_place
from stream.worker.sources.dead_letters import DeadLetters, chain_name

BACKFILL: Final = "backfill"
"""Prefix of the name of a chain that covers a range of time of a stream."""

_STAMP: Final = "%Y%m%dT%H%M%SZ"
_RANGE: Final = re.compile(r"(?P<begin>\d{8}T\d{6}Z)-(?P<end>\d{8}T\d{6}Z)")

MakeSource: TypeAlias = Callable[[ByteBudget], Awaitable[LendingSource]]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a worker reads its pipeline's source.

    ``once``: only what is there when it starts. ``window``: only what arrived in that time range, beside the live pipeline. ``letters``:
    the claimed dead letters instead of the source. ``disjoint``: nothing else writes the same records to the same sinks.
    ``announced_since``: somebody else says which shards have records, the first of which arrived then; `latest` means that moment.
    """

    once: bool = False
    window: Window = field(default_factory=Window)
    letters: bool = False
    disjoint: bool = False
    announced_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What sources are created from. ``state`` is the application's store, ``rejects`` the store of its dead letters.

    ``watched``: the shards of a source that is to be watched; ``shared``: whether workers share them by leases. ``turns``: which of them
    lists objects.
    """

    pipeline: Pipeline
    reading: Reading
    session: AwsSession
    state: ObjectStore
    rejects: ObjectStore
    base_url: Callable[[str], str]
    worker: str
    clock: Clock
    emit: Emit
    watched: WatchedShards | None = None
    shared: bool = False
    turns: Turns = ALONE


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that is ready to be read. ``finite``: it pauses or ends by itself.

    ``chain``: its name in the log. ``stream``: the name of the stream, or of the objects, that its records come from. ``watcher``: has to
    run for as long as a watched source is read.
    """

    chain: str
    stream: str
    start: Start
    make: MakeSource
    finite: bool
    watcher: Watcher | None = None


async def open_reading(context: SourceContext, stack: AsyncExitStack) -> list[Opened]:
    """A source for each stream of the pipeline. Whatever has to be chosen or pinned before reading has been.

    Of several streams that are read without end, each is pinned before its shards are first listed.

    Raises:
        Fatal: a stream or a permission is missing, a stream is listed twice, or a stream is not the one that the log is of.
        DefinitionError: the source cannot be read this way.
        Halted: an object that was chosen before has changed.
    """
    streams = context.pipeline.source.kinesis.each()
    if context.reading.letters:
        return [_letters(each, context) for each in streams]
    if context.pipeline.source.s3 is not None:
        return [await _objects(context)]
    client = await stack.enter_async_context(open_kinesis(context.session))
    pinning = Pinning(context.clock, context.worker, context.emit)
    asks = asks_first(context.pipeline)
    pinned = {each.stream: PinnedStream(context.state, each.stream, client.place, pinning, asks=asks) for each in streams}
    await _refuse_inaccessible(pinned, client, wait=len(streams) > 1 and context.reading == Reading())
    return [await _kinesis(each, client, context, pinned[each.stream]) for each in streams]


async def _refuse_inaccessible(streams: Mapping[str, PinnedStream], client: KinesisClient, *, wait: bool) -> None:
    """Make sure that the streams are there, may be read, and are different ones, also where one is given by its name and one by its ARN.

    Without ``wait``, also that they are those that the log is of. With it, that is left to their readers, and some may be missing or
    refused: their readers wait.
    """
    refused, known = 0, dict[str, str]()
    for name, pinned in streams.items():
        try:
            summary = await described(client, name, None if wait else pinned)
        except AccessRefused:
            refused += 1
            if not wait or refused == len(streams):
                raise
            continue
        if (other := known.setdefault(summary.arn, name)) != name:
            same = f"{as_written(other)} and {as_written(name)} are the same stream"
            msg = f"{same}, so every record would be written twice; remove one of them from `streams`"
            raise Fatal(msg)


def _letters(options: KinesisOptions, context: SourceContext) -> Opened:
    opener = None
    if context.pipeline.source.s3 is not None:
        slices = slices_of(context.pipeline, context.session, context.state, context.base_url, context.worker, context.clock)
        opener = object_opener(slices, chain_name(options.stream), commits=True)
    letters = DeadLetters(options.stream, context.state, context.rejects, context.pipeline.rejects.redrive, context.clock, opener)
    make = functools.partial(letters.source, emit=context.emit, finished=_finished(chain_name(options.stream), context))
    return Opened(chain_name(options.stream), options.stream, Start(StartKind.TRIM_HORIZON), make, finite=True)


def _finished(chain: str, context: SourceContext) -> FinishedClaims:
    return FinishedClaims(context.state, chain, exported=context.pipeline.audit.otlp is not None)


async def _objects(context: SourceContext) -> Opened:
    config = context.pipeline.source.s3
    if config is None:
        msg = "the pipeline has no source.s3"
        raise DefinitionError(msg)
    url = context.base_url(config.url)
    for target in (context.pipeline.state, *(sink.url for sink in context.pipeline.sinks)):
        if f"{context.base_url(target).removesuffix('/')}/".startswith(f"{url.removesuffix('/')}/"):
            msg = f"{target} is under source.s3.url {config.url}, so what is written would be read. Give it another place."
            raise DefinitionError(msg)
    if context.watched is not None and config.watch is not None:
        return await _watched(context, config, config.watch, context.watched)
    slices = slices_of(context.pipeline, context.session, context.state, context.base_url, context.worker, context.clock)
    await slices.choose_new(context.reading.window, await _manifest(context, config))
    # What a live worker watches for is its own; a range of time beside it has shards of its own.
    grown = context.reading.window == Window()
    make = functools.partial(slices.source, emit=context.emit, finished=_finished(config.name, context), grown=grown)
    return Opened(config.name, config.name, Start(StartKind.TRIM_HORIZON), make, finite=True)


async def _watched(context: SourceContext, config: ObjectsSource, watch: Watch, watched: WatchedShards) -> Opened:
    """The shards to which claims append, and what claims; with ``--once``, everything that is there has been claimed when this returns."""
    once, log, slices = context.reading.once, await watched.log(), watched.slices
    store = slices.store
    settings = WatchSettings(
        config.name,
        place=place_of_notices(config.url),
        every=watch.listed_every.total_seconds(),
        hold=min(LONGEST_HOLD, context.pipeline.flush.age.total_seconds()),
        shards=config.shards,
        worker=context.worker,
        shared=context.shared,
    )

    opened = None if watch.queue is None else functools.partial(open_sqs, context.session, queue_place(watch.queue), context.clock)
    watcher = Watcher(settings, log, store, opened, context.clock, context.emit, context.turns)
    if once:
        await watcher.list_once()
    else:
        # A bucket that is missing or closed is reported before anything is read.
        async for _ in store.list(""):
            break
    make = functools.partial(slices.source, emit=context.emit, finished=_finished(config.name, context), log=log, ends=once)
    return Opened(config.name, config.name, Start(StartKind.TRIM_HORIZON), make, finite=once, watcher=None if once else watcher)


async def _manifest(context: SourceContext, config: ObjectsSource) -> bytes | None:
    url = config.manifest
    if url is None:
        return None
    folder, _, key = context.base_url(url).rpartition("/")
    stored = await open_store(folder, context.session, requester_pays=config.requester_pays).get(key)
    if stored is None:
        msg = f"there is no object {url}, which source.s3.manifest names"
        raise DefinitionError(msg)
    return stored.body


async def _kinesis(options: KinesisOptions, client: KinesisClient, context: SourceContext, pinned: PinnedStream) -> Opened:
    reading, now = context.reading, context.clock.now()
    begin, end = reading.window.begin, reading.window.end
    start, chain, until = options.start, options.stream, now if reading.once else None
    if begin is not None:
        refuse_lost(begin, now, (await client.describe_stream_summary(options.stream)).retention, options.stream)
        start, until = Start(StartKind.AT_TIMESTAMP, begin), end or now
        refuse_future(until, now, options.stream)
        chain = f"{BACKFILL}.{options.stream}.{_stamp(begin)}-{_stamp(until)}"
        if not reading.disjoint:
            await _refuse_duplicates(options, until, context)
        await _refuse_overlap(options.stream, chain, (_stamp(begin), _stamp(until)), context.state)

    if reading.announced_since is not None and start.kind is StartKind.LATEST:
        start = Start(StartKind.AT_TIMESTAMP, reading.announced_since)

    subscribes = options.retrieval is Retrieval.FAN_OUT and until is None and reading.announced_since is None
    fan_out = FanOut(options.consumer or context.pipeline.application) if subscribes else None
    seconds = tip_seconds(context.pipeline.flush.age.total_seconds())
    settings = ReadSettings(idle_first=seconds, kpl_out_of_range=OutOfRange(options.kpl_out_of_range.value), fan_out=fan_out)

    async def make(budget: ByteBudget) -> LendingSource:
        source = KinesisSource(
            client, options.stream, budget=budget, clock=context.clock, emit=context.emit, settings=settings, recognition=pinned
        )
        if until is None:
            return source
        return ReadUntil(source, until, context.clock, end=begin is not None, name=chain, time=source.time)

    return Opened(chain, options.stream, start, make, finite=until is not None)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_STAMP)


async def _refuse_overlap(stream: str, chain: str, bounds: tuple[str, str], state: ObjectStore) -> None:
    """Make sure that no other range of ``stream`` that writes to the same sinks overlaps with ``bounds``."""
    begin, end = bounds
    async for name in streams_of(state):
        known = _RANGE.fullmatch(name.removeprefix(f"{BACKFILL}.{stream}."))
        if known is None or name == chain or not (known["begin"] < end and begin < known["end"]):
            continue
        msg = (
            f"the range from {begin} to {end} overlaps the one from {known['begin']} to {known['end']} (UTC), which was begun earlier and "
            "writes to the same sinks: records in both would be written twice. Choose a range that ends where that one begins or begins "
            "where it ends, or use a separate --namespace."
        )
        raise DefinitionError(msg)


async def _refuse_duplicates(options: KinesisOptions, end: datetime, context: SourceContext) -> None:
    """Make sure that the live pipeline, which writes to the same sinks, begins where the range ends or later."""
    key = start_key(options.stream)
    stored = await context.state.get(key)
    live = None if stored is None else decode_start(stored.body, key)
    if live is not None and live.timestamp is not None and live.timestamp >= end:
        return
    begins = "has not started yet" if live is None else f"began at {live.timestamp.isoformat() if live.timestamp else live.kind}"
    msg = (
        f"the live pipeline {begins}, so it itself writes what arrived in {options.stream} before {end.isoformat()} to the same sinks: "
        "every record would be written twice. Use --namespace for a separate output, or a --to no later than the live pipeline's start."
    )
    raise DefinitionError(msg)
