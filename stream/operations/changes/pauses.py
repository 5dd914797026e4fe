"""Pauses as an operator makes and ends them: what may be paused, and when records would be lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from stream.audit.completeness import State
from stream.aws.kinesis import open_kinesis
from stream.commit.log import CommitLog
from stream.commit.retry import Repeater
from stream.contracts import Clock, Emit, Shard
from stream.errors import DefinitionError, Fatal, StreamError
from stream.lease.paused import Change, Pause, Target, What, held_at, paused, resumed
from stream.lease.pauses import PauseRecord
from stream.operations.opening import open_checkpoints
from stream.operations.progress.completeness import Completeness
from stream.operations.progress.stream_lookahead import StreamLookahead
from stream.operations.shards.survey import WHOLE
from stream.pipeline.model import Pipeline
from stream.sink.tables import TableSinkConfig
from stream.worker.coordination.pausing import LOOK_SECONDS
from stream.worker.opening.identity import only_compared
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores

ANSWER_SECONDS: Final = 30.0
"""Seconds that one stream may take to answer: a pause must be possible while Kinesis does not answer."""

SHORTEST: Final = timedelta(seconds=2 * LOOK_SECONDS)
"""A shorter pause might be over before a busy worker reads of it."""

T = TypeVar("T")

LONGEST_TEXT: Final = 500
"""Characters of a note or a name: they are in every log line about a pause."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What an operator names. ``stream``: None for all; ``loads``: not the reading, but the loads, of ``sink`` or else of all tables."""

    stream: str | None = None
    shards: tuple[str, ...] = ()
    loads: bool = False
    sink: str | None = None

    @property
    def what(self) -> What:
        """Which of the two it names."""
        return What.LOADS if self.loads else What.READING

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the targets that it names; the empty name is all of a stream."""
        return self.shards or (self.sink or "",)


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, and why."""

    by: str
    note: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """When the oldest unread record of one stream expires at the earliest; None if not known, and then ``why``."""

    stream: str
    expires: datetime | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a command. ``change`` is None if nothing had to be changed. ``pauses``: all that hold now.

    ``too_long``: the pause was refused, because records expire before it ends, by these figures.
    """

    change: Change | None
    pauses: tuple[Pause, ...]
    outlooks: tuple[Outlook, ...] = ()
    too_long: tuple[Outlook, ...] = ()


@dataclass(frozen=True, slots=True)
class Operator:
    """The commands about pauses of one pipeline. ``base``: the folder to which its paths are relative."""

    pipeline: Pipeline
    base: Path
    clock: Clock
    emit: Emit

    @property
    def record(self) -> PauseRecord:
        """Where the pauses are recorded."""
        return PauseRecord(Stores.open(self.pipeline, self.base, session_of(self.pipeline)).state)

    async def pause(self, scope: Scope, author: Author, until: datetime | None, *, may_expire: bool = False) -> Outcome:
        """Pause what ``scope`` names, unless records would expire before ``until`` and ``may_expire`` is not set.

        What is paused already gets the note and the end of this pause.

        Raises:
            DefinitionError: there is no such thing, it cannot be paused, or the note is empty.
            StreamError: the state cannot be read or written.
        """
        check_text(author.note, "--note")
        check_text(author.by, "--by")
        targets, now = targets_of(self.pipeline, scope), self.clock.now()
        if until is not None and until - now <= SHORTEST:
            least = f"more than {SHORTEST.total_seconds():.0f} s, so that every worker has time to notice it"
            msg = f"the pause would end at {until.isoformat()}; let it last {least}: nothing was paused"
            raise DefinitionError(msg)
        outlooks: list[Outlook] = []
        if not scope.loads and self.pipeline.source.s3 is None:
            streams = [one for one in self.pipeline.each() if scope.stream in {None, one.source.kinesis.stream}]
            outlooks = [await self._outlook(one, scope.shards) for one in streams]
        too_long = [each for each in outlooks if until is not None and each.expires is not None and each.expires < until]
        if too_long and not may_expire:
            held = await self._repeated(self.record.newest)
            return Outcome(None, held_at(held, now).all, tuple(outlooks), tuple(too_long))
        wanted = [
            Pause(what=each.what, stream=each.stream, part=each.part, by=author.by, note=author.note, since=now, until=until)
            for each in targets
        ]
        record = self.record
        change = await self._repeated(lambda: record.change(lambda newest: paused(newest, wanted, author.by, author.note, now)))
        return Outcome(change, held_at(change or await self._repeated(record.newest), now).all, tuple(outlooks))

    async def resume(self, scope: Scope, author: Author, *, everything: bool = False) -> Outcome:
        """End the pauses of exactly what ``scope`` names; with ``everything``, those of its parts and of loads too.

        What is paused is asked, not what the pipeline has: it may have changed since.

        Raises:
            StreamError: the state cannot be read or written.
        """
        if author.note:
            check_text(author.note, "--note")
        check_text(author.by, "--by")
        now, record = self.clock.now(), self.record

        def decide(newest: Change | None) -> Change | None:
            chosen = [each.target for each in held_at(newest, now).all if is_named(each.target, scope, everything=everything)]
            return resumed(newest, chosen, author.by, author.note, now)

        change = await self._repeated(lambda: record.change(decide))
        return Outcome(change, held_at(change or await self._repeated(record.newest), now).all)

    async def history(self) -> tuple[tuple[Pause, ...], list[Change]]:
        """The pauses that hold now, and every change, oldest first."""
        record = self.record
        changes = await self._repeated(record.history)
        return held_at(changes[-1] if changes else None, self.clock.now()).all, changes

    async def _outlook(self, one: Pipeline, shards: Collection[str]) -> Outlook:
        """When the oldest unread record expires of a stream, or of some of its shards.

        Raises:
            DefinitionError: there is no such shard, or it has been read to its end.
        """
        stream = one.source.kinesis.stream
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._expiry(one, shards)
        except DefinitionError:
            raise
        except StreamError as error:
            if shards:
                raise
            return Outlook(stream, why=str(error))
        except TimeoutError as error:
            why = f"the stream {stream} did not answer within {ANSWER_SECONDS:g} s"
            if shards:
                msg = f"{why}, so it is not known whether it has {', '.join(sorted(shards))}; only the whole stream can be paused"
                raise Fatal(msg) from error
            return Outlook(stream, why=why)

    async def _expiry(self, one: Pipeline, shards: Collection[str]) -> Outlook:
        stream, session = one.source.kinesis.stream, session_of(one)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(open_kinesis(session))
            log = CommitLog(Stores.open(one, self.base, session).state, one.application, self.clock, "pause")
            checkpoints = await open_checkpoints(one, stream, log.store, session, self.clock, stack, self.emit)
            lookahead = StreamLookahead(client, stream, self.clock, only_compared(client, log.store, stream))
            without = set[str]()
            if shards:
                listed = {shard.shard_id for shard in await lookahead.shards()}
                if unknown := sorted(set(shards) - listed):
                    msg = f"{', '.join(unknown)}: the stream {stream} has no such shard; it has {', '.join(sorted(listed))}"
                    raise DefinitionError(msg)
                without = listed - set(shards)
            answer = await Completeness(stream, log, checkpoints, lookahead, without=without).ask(WHOLE, tables=False)
            summary = await self._repeated(lambda: client.describe_stream_summary(stream))
        rows = [row for row in answer.shards if not shards or row.shard in shards]
        if ended := [row.shard for row in rows if row.shard in shards and row.state is State.ENDED]:
            msg = (
                f"{', '.join(ended)} of {stream} has been read to its end; name the shards that continue it, as `stream shards` lists them"
            )
            raise DefinitionError(msg)
        if unclear := [row for row in rows if row.state in {State.EXPIRED, State.GONE, State.SILENT}]:
            return Outlook(stream, why=f"{unclear[0].shard}: {unclear[0].why}")
        if answer.why:
            return Outlook(stream, why=answer.why)
        # Of a shard without unread records, the next one expires first that arrives from now on.
        unread = [row.reach for row in rows if row.state is State.UNSEALED and row.reach is not None]
        return Outlook(stream, min([*unread, answer.asked_at]) + summary.retention)

    async def _repeated(self, call: Callable[[], Awaitable[T]]) -> T:
        return await Repeater(self.clock, self.emit)("pauses", Shard("", ""), call)


def targets_of(pipeline: Pipeline, scope: Scope) -> list[Target]:
    """The targets that ``scope`` names in ``pipeline``.

    Raises:
        DefinitionError: there is no such stream or table, or it cannot be paused.
    """
    names = [name for name in pipeline.source.kinesis.names if scope.stream in {None, name}]
    if not names:
        msg = f"--stream {scope.stream}: the pipeline reads {', '.join(pipeline.source.kinesis.names)}"
        raise DefinitionError(msg)
    refuse_mixed(scope)
    if scope.shards and len(names) > 1:
        msg = f"{scope.shards[0]} is a shard of one stream, and the pipeline reads {len(names)}: name it with --stream"
        raise DefinitionError(msg)
    if scope.loads:
        tables = [sink.name for sink in pipeline.sinks if isinstance(sink, TableSinkConfig)]
        if not tables or scope.sink not in {None, *tables}:
            has = f"it loads {', '.join(tables)}" if tables else "it loads none"
            msg = f"the pipeline loads no table{f' by a sink named {scope.sink!r}' if scope.sink else ''}; {has}"
            raise DefinitionError(msg)
    elif pipeline.coordination.kcl is not None:
        msg = (
            "with `coordination: kcl` the KCL's daemon reads the stream, and would lose its leases if its records were not taken: stop the "
            "daemons instead; they continue where they stopped"
        )
        raise DefinitionError(msg)
    elif scope.shards and pipeline.source.s3 is not None and pipeline.source.s3.watch is None:
        msg = "the pipeline reads objects of `source.s3` once, in shards that end: pause all of it"
        raise DefinitionError(msg)
    return [Target(scope.what, name, part) for name in names for part in dict.fromkeys(scope.parts)]


def refuse_mixed(scope: Scope) -> None:
    """Make sure that ``scope`` names one kind of thing.

    Raises:
        DefinitionError: it names shards and loads, or a sink without loads.
    """
    if scope.loads and scope.shards:
        msg = "--loads concerns all shards of a stream: leave out the shards"
        raise DefinitionError(msg)
    if scope.sink is not None and not scope.loads:
        msg = "--sink names the table whose loads are meant: add --loads"
        raise DefinitionError(msg)


def is_named(target: Target, scope: Scope, *, everything: bool) -> bool:
    """Whether ``scope`` names exactly ``target``; with ``everything``, whether it is one of the streams of ``scope``."""
    if scope.stream not in {None, target.stream}:
        return False
    return everything or (target.what is scope.what and target.part in scope.parts)


def pauses_covering(pauses: Sequence[Pause], scope: Scope) -> list[Pause]:
    """The pauses because of which what ``scope`` names still does not move, and those of parts of it."""
    wide = [each for each in pauses if each.what is scope.what and scope.stream in {None, each.stream}]
    if scope.shards or scope.sink:
        return [each for each in wide if each.part in {"", *scope.parts}]
    return wide


def check_text(text: str, option: str) -> None:
    """Make sure that ``text`` can be shown on one line.

    Raises:
        DefinitionError: it is empty, too long, or has characters that cannot be printed.
    """
    if not text.strip():
        msg = (
            f"{option} is empty: give the reason, for the person who finds at night that nothing moves"
            if option == "--note"
            else f"{option} is empty"
        )
        raise DefinitionError(msg)
    if len(text) > LONGEST_TEXT or not text.isprintable():
        msg = f"{option} is one line of up to {LONGEST_TEXT} printable characters; this one has {len(text)}"
        raise DefinitionError(msg)
