"""What a worker reads, and how far: a stream without end, what is there now, a range of time, objects, or dead letters."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias

from stream.aws.kinesis import KinesisClient, open_kinesis
from stream.aws.session import AwsSession
from stream.budget import ByteBudget
from stream.commit.lookup import streams_of
from stream.commit.manifest import decode_start
from stream.commit.naming import start_key
from stream.contracts import Clock, Emit, LendingSource, ObjectStore, Start, StartKind
from stream.errors import DefinitionError
from stream.pipeline.model import KinesisSource as KinesisOptions
from stream.pipeline.model import Pipeline, Retrieval
from stream.source.aggregated import OutOfRange
from stream.source.kinesis import KinesisSource
from stream.source.pace import FanOut, ReadSettings, tip_seconds
from stream.source.until import ReadUntil, refuse_future, refuse_lost
from stream.storage.open import open_store
from stream.worker.dead_letters import DeadLetters, chain_name
from stream.worker.finished import Finished
from stream.worker.slices import Slices, Window

BACKFILL: Final = "backfill"
"""Prefix of the name of a chain that covers a range of time of a stream."""

_STAMP: Final = "%Y%m%dT%H%M%SZ"
_RANGE: Final = re.compile(r"(?P<begin>\d{8}T\d{6}Z)-(?P<end>\d{8}T\d{6}Z)")

MakeSource: TypeAlias = Callable[[ByteBudget], Awaitable[LendingSource]]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a worker reads its pipeline's source.

    ``once``: only what is there when it starts. ``window``: only what arrived in that time, beside the live pipeline. ``letters``: not
    the source but the claimed dead letters. ``disjoint``: nothing else writes the same records to the same sinks.
    """

    once: bool = False
    window: Window = field(default_factory=Window)
    letters: bool = False
    disjoint: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What sources are made from. ``state`` is the application's store, ``rejects`` the store of its dead letters."""

    pipeline: Pipeline
    reading: Reading
    session: AwsSession
    state: ObjectStore
    rejects: ObjectStore
    base_url: Callable[[str], str]
    worker: str
    clock: Clock
    emit: Emit


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that is ready to be read. ``chain``: its name in the log; ``finite``: it pauses or ends by itself."""

    chain: str
    start: Start
    make: MakeSource
    finite: bool


async def open_reading(around: Surroundings, stack: AsyncExitStack) -> list[Opened]:
    """A source for each stream of the pipeline; whatever has to be chosen or pinned beforehand has been.

    Raises:
        Fatal: a stream or a permission is missing.
        DefinitionError: the source cannot be read this way.
        Halted: an object that was chosen before has changed.
    """
    streams = around.pipeline.source.kinesis.each()
    if around.reading.letters:
        return [_letters(each, around) for each in streams]
    if around.pipeline.source.s3 is not None:
        return [await _objects(around)]
    client = await stack.enter_async_context(open_kinesis(around.session))
    return [await _kinesis(each, client, around) for each in streams]


def _letters(options: KinesisOptions, around: Surroundings) -> Opened:
    letters = DeadLetters(options.stream, around.state, around.rejects, around.pipeline.rejects.redrive, around.clock)
    make = functools.partial(letters.source, emit=around.emit, finished=_finished(chain_name(options.stream), around))
    return Opened(chain_name(options.stream), Start(StartKind.TRIM_HORIZON), make, finite=True)


def _finished(chain: str, around: Surroundings) -> Finished:
    return Finished(around.state, chain, exported=around.pipeline.audit.otlp is not None)


async def _objects(around: Surroundings) -> Opened:
    config = around.pipeline.source.s3
    if config is None:
        msg = "the pipeline has no source.s3"
        raise DefinitionError(msg)
    url = around.base_url(config.url)
    for written in (around.pipeline.state, *(sink.url for sink in around.pipeline.sinks)):
        if f"{around.base_url(written).removesuffix('/')}/".startswith(f"{url.removesuffix('/')}/"):
            msg = f"{written} is under source.s3.url {config.url}, so what is written would be read. Give it another place."
            raise DefinitionError(msg)
    slices = Slices(around.pipeline, config, open_store(url, around.session), around.state, around.worker, around.clock)
    await slices.take_up(around.reading.window, await _manifest(around, config.manifest))
    make = functools.partial(slices.source, emit=around.emit, finished=_finished(config.name, around))
    return Opened(config.name, Start(StartKind.TRIM_HORIZON), make, finite=True)


async def _manifest(around: Surroundings, url: str | None) -> bytes | None:
    if url is None:
        return None
    folder, _, key = around.base_url(url).rpartition("/")
    stored = await open_store(folder, around.session).get(key)
    if stored is None:
        msg = f"there is no object {url}, which source.s3.manifest names"
        raise DefinitionError(msg)
    return stored.body


async def _kinesis(options: KinesisOptions, client: KinesisClient, around: Surroundings) -> Opened:
    reading, now = around.reading, around.clock.now()
    summary = await client.describe_stream_summary(options.stream)
    begin, end = reading.window.begin, reading.window.end
    start, chain, until = options.start, options.stream, now if reading.once else None
    if begin is not None:
        refuse_lost(begin, now, summary.retention, options.stream)
        start, until = Start(StartKind.AT_TIMESTAMP, begin), end or now
        refuse_future(until, now, options.stream)
        chain = f"{BACKFILL}.{options.stream}.{_stamp(begin)}-{_stamp(until)}"
        if not reading.disjoint:
            await _refuse_doubles(options, until, around)
        await _refuse_overlap(options.stream, chain, (_stamp(begin), _stamp(until)), around.state)

    fan_out = FanOut(options.consumer or around.pipeline.application) if options.retrieval is Retrieval.FAN_OUT and until is None else None
    seconds = tip_seconds(around.pipeline.flush.age.total_seconds())
    settings = ReadSettings(idle_first=seconds, kpl_out_of_range=OutOfRange(options.kpl_out_of_range.value), fan_out=fan_out)

    async def make(budget: ByteBudget) -> LendingSource:
        source = KinesisSource(client, options.stream, budget=budget, clock=around.clock, emit=around.emit, settings=settings)
        if until is None:
            return source
        return ReadUntil(source, until, around.clock, end=begin is not None, name=chain)

    return Opened(chain, start, make, finite=until is not None)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_STAMP)


async def _refuse_overlap(stream: str, chain: str, bounds: tuple[str, str], state: ObjectStore) -> None:
    """Make sure that no other range of ``stream`` that writes to the same places overlaps with ``bounds``."""
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


async def _refuse_doubles(options: KinesisOptions, end: datetime, around: Surroundings) -> None:
    """Make sure that the live pipeline, which writes to the same sinks, begins where the range ends or later."""
    key = start_key(options.stream)
    stored = await around.state.get(key)
    live = None if stored is None else decode_start(stored.body, key)
    if live is not None and live.timestamp is not None and live.timestamp >= end:
        return
    begins = "has not started yet" if live is None else f"began at {live.timestamp.isoformat() if live.timestamp else live.kind}"
    msg = (
        f"the live pipeline {begins}, so it itself writes what arrived in {options.stream} before {end.isoformat()} to the same sinks: "
        "every record would be written twice. Use --namespace for a separate output, or a --to no later than the live pipeline's start."
    )
    raise DefinitionError(msg)
