"""Whether everything that arrived before a given time is in the lake and the tables, according to the log, the stream and the load ledgers.

Workers are not asked, because a worker may be dead, or wrong about what it holds. The log says what is sealed, the stream what is not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from stream.audit.completeness import (
    DONE,
    Answer,
    Found,
    Lookahead,
    Question,
    Sealed,
    Standing,
    Unclaimed,
    answer,
    settled,
    stand,
    unlisted,
)
from stream.aws.kinesis import open_kinesis
from stream.aws.secrets import read_secret
from stream.batch import ORIGIN
from stream.commit.log import CommitLog
from stream.commit.lookup import is_chain, last_starts, shards_of
from stream.commit.manifest import Kind, Manifest, decode_start
from stream.commit.naming import start_key
from stream.concurrency import run_concurrently
from stream.contracts import Checkpoint, Checkpoints, Clock, Shard, Start, shard_of_chain
from stream.errors import DefinitionError, Retryable, StreamError
from stream.lease.paused import Pause
from stream.lease.pauses import PauseRecord
from stream.lease.shards import recreated
from stream.operations.opening import open_checkpoints
from stream.operations.progress.loaded_tables import loaded
from stream.operations.progress.object_lookahead import open_lookahead
from stream.operations.progress.stream_lookahead import StreamLookahead
from stream.pipeline.model import Pipeline
from stream.worker.opening.identity import asks_first, only_compared
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.recipes.definitions import Definitions
from stream.worker.tables.loaders import open_loader_parts
from stream.worker.tables.parts import LoaderParts

AT_ONCE: Final = 16
"""Shards that are read at a time."""

FIRST_PAUSE: Final = 2.0
LAST_PAUSE: Final = 30.0
"""Longest pause between two attempts, in seconds. Pauses grow, so that a long wait makes few calls; the limit keeps the answer timely."""

_SHARD: Final = "shardId-"
"""How the service begins the ids of shards."""
_NOT_BEGUN: Final = "no worker has begun with this stream"
_ELSEWHERE: Final = "another application has processed records after these; they are not in the lake"
_NOTES: Final = {
    Kind.GAP: "records up to here expired in the stream before they were read; the log says so",
    Kind.FOREIGN: "another application processed the records up to here; they are not in the lake",
    Kind.SKIP: "an operator passed over the records up to here; they are not in the lake",
}


class SourceLookahead(Protocol):
    """What has arrived in a stream (``stream_lookahead``) or as objects (``object_lookahead``), beyond what is sealed."""

    async def time(self) -> datetime:
        """The time by the clock of the service, or earlier."""
        ...

    async def unclaimed(self) -> Unclaimed | None:
        """Of objects: what is there and in no shard. None for a stream, whose records arrive in shards.

        The shards of objects are those that ``shards`` lists, whatever else the log knows, and in them the dates of records do not ascend.
        """
        ...

    async def shards(self) -> list[Shard]:
        """All shards that the service lists; of objects, those that may hold something that is not sealed."""
        ...

    async def after(
        self, shard: Shard, position: int, start: Start, complete_until: datetime | None, asked_at: datetime, done: int = -1
    ) -> Lookahead:
        """What follows ``position``; in the record after it, user records up to index ``done`` do not count."""
        ...


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the sealed chain of one shard, as far as it was followed.

    ``last``: the link that ends there, if known; ``begun``: the intent that follows it, if there is one.
    """

    shard: Shard
    position: int = ORIGIN
    last: Manifest | None = None
    begun: Manifest | None = None

    @property
    def ended(self) -> bool:
        """Whether no link can follow any more."""
        return self.last is not None and self.last.kind is Kind.END

    def sealed(self) -> Sealed:
        """The tail as input for the decision."""
        last = self.last
        if last is None:
            return Sealed(self.shard.shard_id, self.position)
        arrived = datetime.fromisoformat(last.last_arrival) if last.last_arrival else None
        note = _NOTES.get(last.kind, "")
        if self.ended:
            note = {"expired": _NOTES[Kind.GAP], "foreign": _NOTES[Kind.FOREIGN]}.get(last.trigger, "")
        return Sealed(self.shard.shard_id, self.position, arrived, self.ended, last.children, note)


class Completeness:
    """Answers how far one stream is complete; remembers where each chain ended, since chains only grow.

    ``tables``: the sinks whose rows are loaded. ``without``: shards that an operator has excluded. ``tolerant``: a shard of which something
    cannot be read is silent, and the others are examined all the same. ``tails``: by shard, where its chain ended when last asked.
    """

    def __init__(
        self,
        stream: str,
        log: CommitLog,
        checkpoints: Checkpoints,
        source: SourceLookahead,
        tables: Sequence[LoaderParts] = (),
        without: Collection[str] = (),
        *,
        tolerant: bool = False,
    ) -> None:
        self.log = log
        self.source = source
        self.without = without
        self.tails: dict[str, Tail] = {}
        self._stream = stream
        self._checkpoints = checkpoints
        self._tables = tables
        self._tolerant = tolerant
        self._shards_of_log: frozenset[str] | None = None

    async def ask(self, question: Question, *, tables: bool = True) -> Answer:
        """The answer now; unless ``tables``, these are asked only once everything is sealed.

        Raises:
            DefinitionError: the pipeline reads nothing that arrived before the moment.
            Retryable: the stream did not answer.
            Halted: a link of the log cannot be read.
            Fatal: the stream or a permission is missing.
        """
        # The order matters: everything is read after `asked_at`, and the log before the stream is asked what follows its end.
        asked_at = await self.source.time()
        unclaimed = await self.source.unclaimed()
        listed = {shard.shard_id: shard for shard in await self.source.shards()}
        start = await self._start(question)
        if start is None:
            return answer(self._stream, (), None, asked_at, question, _NOT_BEGUN, unclaimed)
        logged = await self._logged() if unclaimed is None else frozenset[str]()
        standings: dict[str, Standing] = {}
        children: set[str] = set()
        pauses = await PauseRecord(self.log.store).in_force(asked_at)

        async def one(name: str) -> None:
            try:
                sealed, ahead = await self._shard(name, listed, start, asked_at, question, ascending=unclaimed is None)
            except StreamError as error:
                if not self._tolerant:
                    raise
                # What was known of it before may have been taken back since.
                self.tails.pop(name, None)
                sealed, ahead = Sealed(name), Lookahead(Found.SILENT, why=str(error))
            children.update(sealed.children, ahead.children if ahead else ())
            standings[name] = with_pause(stand(sealed, ahead, asked_at, question), pauses.reading(self._stream, name))

        names = listed.keys() | logged
        await run_concurrently([one(name) for name in sorted(names.difference(self.without))], AT_ONCE)
        if unknown := set(self.without) - names - children:
            msg = f"{', '.join(sorted(unknown))}: {self._stream} has no such shard; it has {', '.join(sorted(names | children))}"
            raise DefinitionError(msg)
        rows = [standings[name] for name in sorted(standings)] + unlisted(children, names.union(self.without))
        found = answer(self._stream, rows, None, asked_at, question, unclaimed=unclaimed)
        if not tables and not found.sealed:
            return found
        tables_now = [await loaded(each, self.log, question, ascending=unclaimed is None) for each in self._tables]
        paused = {table.sink: pauses.loads(self._stream, table.sink) for table in tables_now if not table.done}
        tables_now = [replace(table, paused=str(paused.get(table.sink) or "")) for table in tables_now]
        return answer(self._stream, rows, tables_now, asked_at, question, unclaimed=unclaimed)

    async def _logged(self) -> frozenset[str]:
        """The shards that the log had when first asked: later ones are listed."""
        if self._shards_of_log is None:
            store, stream = self.log.store, self._stream
            # Chains of Kinesis are named after its shards, and need not be looked into.
            chains = [name async for name in shards_of(store, stream) if name.startswith(_SHARD) or await is_chain(store, stream, name)]
            self._shards_of_log = frozenset(shard_of_chain(chain)[0] for chain in chains)
        return self._shards_of_log

    async def _start(self, question: Question) -> Start | None:
        key = start_key(self._stream)
        stored = await self.log.store.get(key)
        start = None if stored is None else decode_start(stored.body, key)
        if start is not None and start.timestamp is not None and start.timestamp >= question.until:
            msg = (
                f"the pipeline reads {self._stream} from {start.timestamp.isoformat()} on, and nothing that arrived before; ask for a "
                f"later moment than {question.until.isoformat()}. The result of a backfill says what it wrote"
            )
            raise DefinitionError(msg)
        return start

    async def _shard(
        self, name: str, listed: Mapping[str, Shard], start: Start, asked_at: datetime, question: Question, *, ascending: bool
    ) -> tuple[Sealed, Lookahead | None]:
        tail, shard = await self.tail(name), listed.get(name)
        sealed = tail.sealed()
        if sealed.ended and shard is not None and recreated(shard, tail.position, sealed.children, listed.values()):
            why = f"the log has it read to its end at {tail.position}, yet the stream continues it: it was deleted and created again"
            return replace(sealed, ended=False), Lookahead(Found.GONE, why=why)
        if settled(sealed, question) and (ascending or sealed.ended):
            return sealed, None
        if shard is None:
            why = f"the stream does not list the shard any more; what it held after {tail.position}, if anything, was never sealed"
            return sealed, Lookahead(Found.GONE, why=why)
        hint = await self._checkpoints.read(Shard(self._stream, name))
        known = (sealed.arrived, tip_of(hint, tail.shard.generation, tail.position))
        complete_until = max((each for each in known if each is not None), default=None)
        position, done = tail.position, -1
        if hint is not None and (reached := hint.foreign_after(tail.position)) is not None:
            sealed = replace(sealed, note=_ELSEWHERE)
            if reached.position is None:
                return sealed, Lookahead(Found.END)
            position, done = reached.position - 1, reached.subsequence
        return sealed, await self.source.after(shard, position, start, complete_until, asked_at, done)

    async def tail(self, name: str) -> Tail:
        """Where the sealed chain of the shard ``name`` ends now, followed from where it ended before.

        Raises:
            Halted: a link of the log cannot be read.
        """
        tail = self.tails.get(name) or await self._entry(Shard(self._stream, name))
        entry = None
        while not tail.ended and (entry := await self.log.read(tail.shard, tail.position)) is not None and entry.manifest.sealed:
            link = entry.manifest
            if link.target is not None:
                tail = await self._near_the_end(replace(tail.shard, generation=tail.shard.generation + 1), int(link.target))
            else:
                tail = Tail(tail.shard, link.reach, link)
        tail = replace(tail, begun=None if tail.ended or entry is None else entry.manifest)
        self.tails[name] = tail
        return tail

    async def _entry(self, shard: Shard) -> Tail:
        """Where to start following the log: at the checkpoint's unit, if the log agrees, else near the end of the first chain."""
        hint = await self._checkpoints.read(shard)
        if hint is None:
            return await self._near_the_end(shard)
        hinted = replace(shard, generation=hint.generation)
        entry = await self.log.read(hinted, hint.unit_after)
        if entry is not None and entry.manifest.sealed and _agrees(entry.manifest, hint):
            link = entry.manifest
            return Tail(hinted, hint.unit_after) if link.target is not None else Tail(hinted, link.reach, link)
        genesis = await self.log.genesis(hinted) if hint.generation else None
        if genesis is not None and int(genesis.manifest.after) == hint.unit_after:
            return Tail(hinted, hint.unit_after)
        return await self._near_the_end(shard)

    async def _near_the_end(self, shard: Shard, begins: int = ORIGIN) -> Tail:
        """Where the newest links of a chain begin, found by some listings; ``begins``, where the chain does, if it has none."""
        # The last may be an intent, and only the sealed link before it says until when its records arrived.
        newest = await last_starts(self.log.store, shard.stream, shard.chain, 2)
        return Tail(shard, newest[0] if newest else begins)


def tip_of(hint: Checkpoint | None, generation: int, position: int) -> datetime | None:
    """Up to when nothing followed ``position`` in a shard, according to the worker that has read on from there; None if it does not say."""
    return None if hint is None or (hint.generation, hint.position) != (generation, position) else hint.tip


def with_pause(standing: Standing, pause: Pause | None) -> Standing:
    """``standing`` with the pause of its shard as a reason why it is not complete."""
    if pause is None or standing.state in DONE:
        return standing
    return replace(standing, why="; ".join(filter(None, (standing.why, str(pause)))))


def _agrees(link: Manifest, hint: Checkpoint) -> bool:
    return link.kind in {Kind.END, Kind.REWIND} or link.reach == hint.position


async def open_completeness(
    streams: Sequence[Pipeline], base: Path, env: Mapping[str, str], without: Collection[str], clock: Clock, stack: AsyncExitStack
) -> list[Completeness]:
    """The question for each of ``streams``, each a pipeline narrowed to one stream; connections live as long as ``stack``.

    Raises:
        DefinitionError: a shard is to be left out and there are several streams.
    """
    if without and len(streams) > 1:
        msg = f"--without names a shard of one stream, and this pipeline reads {len(streams)}: name it with --stream"
        raise DefinitionError(msg)
    found = []
    session = session_of(streams[0])
    client = None if streams[0].source.s3 is not None else await stack.enter_async_context(open_kinesis(session))
    for one in streams:
        stream, stores = one.source.kinesis.stream, Stores.open(one, base, session)
        log = CommitLog(stores.state, one.application, clock, "complete")
        definitions = Definitions(stores.state, base, env, clock, partial(read_secret, session))
        identity = ("complete", clock, lambda _: None)
        tables = await open_loader_parts(one, stream, session, log, stores.targets, definitions, identity, stack)
        checkpoints = await open_checkpoints(one, stream, stores.state, session, clock, stack)
        if client is None:
            source: SourceLookahead = open_lookahead(one, base, stores.state, session, clock)
        else:
            compared = only_compared(client, stores.state, stream, asks=asks_first(one))
            source = StreamLookahead(client, stream, clock, compared)
        found.append(Completeness(stream, log, checkpoints, source, tables, without))
    return found


async def wait_until_complete(
    asked: Sequence[Completeness], question: Question, clock: Clock, seconds: float, on_wait: Callable[[list[Answer], float], None]
) -> list[Answer]:
    """Ask until every stream is complete, for up to ``seconds``; returns the last answers.

    ``on_wait`` is called before each pause with the answers so far and the seconds until the next attempt. Transient errors, such as a
    stream that does not answer, are retried.

    Raises:
        Retryable: the last attempt failed.
        StreamError: as ``Completeness.ask``, if the error does not pass by itself.
    """
    deadline, pause = clock.monotonic() + seconds, FIRST_PAUSE
    while True:
        last = clock.monotonic() >= deadline
        try:
            answers = [await each.ask(question, tables=last) for each in asked]
        except Retryable:
            if clock.monotonic() >= deadline:
                raise
            answers = []
        left = deadline - clock.monotonic()
        if last or (answers and all(each.verdict.complete for each in answers)):
            return answers
        wait = max(0.0, min(pause_before_next(answers, question, pause), left))
        on_wait(answers, wait)
        await clock.sleep(wait)
        pause = min(2 * pause, LAST_PAUSE)


def pause_before_next(answers: Sequence[Answer], question: Question, pause: float) -> float:
    """Seconds until another attempt may find more. Before the clock of Kinesis shows the time in question plus the margin, none can."""
    early = max(((question.enough - each.asked_at).total_seconds() for each in answers), default=0.0)
    return max(pause, early)
