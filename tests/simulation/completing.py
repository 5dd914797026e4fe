"""A stream and its commit log that change at random while a reader asks whether everything before a moment is complete.

The world knows every record and its outcome, so each answer can be checked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec

from stream.audit.completeness import Answer, Lookahead, Question
from stream.aws.kinesis import open_kinesis
from stream.aws.session import AwsSession
from stream.batch import ORIGIN
from stream.commit.committer import checkpoint_of
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind, Manifest, State, encode, with_seal
from stream.contracts import Checkpoint, Shard, Start, StartKind
from stream.lease.checkpoints import StoredCheckpoints
from stream.local.kinesis.server import serve
from stream.operations.progress.completeness import Completeness
from stream.operations.progress.stream_lookahead import StreamLookahead
from stream.storage.memory import MemoryStore

STREAM = "numbers"
MARGIN = timedelta(seconds=2)


class LeapingClock:
    """Time that passes only in ``sleep``, and there at once."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=max(0.0, seconds))


@dataclass
class Chain:
    """What the log says of one shard now: its generation, and the links that count as (after, last)."""

    shard: Shard
    links: list[tuple[int, int]] = field(default_factory=list)
    begins: int = ORIGIN
    ended: bool = False
    intent: Manifest | None = None

    @property
    def head(self) -> int:
        return self.links[-1][1] if self.links else self.begins


@dataclass
class Course:
    """The stream and the writer of its log, changed one step at a time, chosen by ``dice``."""

    dice: Random
    clock: LeapingClock
    model: Any
    log: CommitLog
    checkpoints: StoredCheckpoints
    put: dict[str, list[tuple[int, datetime]]] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    hints: list[tuple[Shard, Checkpoint]] = field(default_factory=list)
    calm: bool = False
    """Days pass, and no shard is split or merged. Else the reverse: with both, the retention period would end for most shards."""

    @property
    def _now_ms(self) -> int:
        return round(self.clock.now().timestamp() * 1000)

    def chain(self, shard_id: str) -> Chain:
        return self.chains.setdefault(shard_id, Chain(Shard(STREAM, shard_id)))

    # --- the stream -------------------------------------------------------------------------------------------------------

    async def a_record(self) -> None:
        shard = self.model.route(self.dice.randrange(2**128))
        sequence = shard.put(b'"k"', b"e30=", 3, self._now_ms)
        self.put.setdefault(shard.shard_id, []).append((sequence, self.clock.now()))

    async def a_moment(self) -> None:
        self.clock.time += timedelta(milliseconds=self.dice.randrange(3000))

    async def a_day(self) -> None:
        self.clock.time += timedelta(hours=self.dice.randrange(6, 31))

    async def a_split(self) -> None:
        shard = self.dice.choice(list(self.model.open_shards))
        self.model.split(shard.shard_id, (shard.first_hash + shard.last_hash) // 2, self._now_ms)

    async def a_merge(self) -> None:
        shards = list(self.model.open_shards)
        if len(shards) > 1:
            at = self.dice.randrange(len(shards) - 1)
            self.model.merge(shards[at].shard_id, shards[at + 1].shard_id, self._now_ms)

    # --- the writer of the log --------------------------------------------------------------------------------------------

    def held(self, shard_id: str) -> list[tuple[int, datetime]]:
        """Records that the stream still has."""
        horizon = self.clock.now() - timedelta(hours=24)
        there = shard_id in self.model.shards
        return [each for each in self.put.get(shard_id, []) if there and each[1] >= horizon]

    def unsealed(self, shard_id: str) -> list[tuple[int, datetime]]:
        chain = self.chain(shard_id)
        return [] if chain.ended else [each for each in self.put.get(shard_id, []) if each[0] > chain.head]

    def _begun(self, shard_id: str) -> bool:
        """Whether a worker may read it: children wait for their parents, unless the stream has forgotten those."""
        self.model.expire(self._now_ms)
        shard = self.model.shards.get(shard_id)
        return shard is not None and all(self.chain(each).ended or each not in self.model.shards for each in shard.parents)

    async def a_unit(self) -> None:
        """Seal the next unit of a shard, or a gap where records have expired, or its end."""
        ready = [name for name in list(self.model.shards) if self._begun(name) and not self.chain(name).ended]
        if ready:
            await self.seal_next(self.dice.choice(ready), self.dice.randrange(1, 4))

    async def seal_next(self, name: str, most: int) -> None:
        chain, left, held = self.chain(name), self.unsealed(name), self.held(name)
        if left and left[0] not in held and chain.head != ORIGIN:
            following = [each for each in held if each[0] > chain.head]
            if following:
                await self._seal(chain, Kind.GAP, following[0][0] - 1, following[0][1])
            elif not self.model.shards[name].is_open:
                await self._end(chain, "expired")
            return
        units = [each for each in left if each in held][:most]
        if units:
            await self._seal(chain, Kind.UNIT, units[-1][0], units[-1][1])
        elif not self.model.shards[name].is_open:
            await self._end(chain, "shard_end")

    async def an_intent(self) -> None:
        """A worker dies after it has written its intent: nothing of that unit counts."""
        for name in list(self.model.shards):
            chain, left = self.chain(name), [each for each in self.unsealed(name) if each in self.held(name)]
            if self._begun(name) and left and chain.intent is None and left[0] == (self.unsealed(name) or [None])[0]:
                chain.intent = self._link(chain, Kind.UNIT, left[0][0], left[0][1], State.INTENT)
                await self.log.create(chain.shard, chain.intent)
                return

    async def a_rewind(self) -> None:
        rewindable = [each for each in self.chains.values() if each.links and not each.ended and each.intent is None]
        if not rewindable:
            return
        chain = self.dice.choice(rewindable)
        target = self.dice.choice([after for after, _ in chain.links])
        link = msgspec.structs.replace(self._link(chain, Kind.REWIND, None, None), target=str(target))
        await self.log.create(chain.shard, with_seal(link))
        self.hints.append((chain.shard, checkpoint_of(link)))
        chain.links = [each for each in chain.links if each[1] <= target]
        chain.shard = replace(chain.shard, generation=chain.shard.generation + 1)
        chain.begins = target
        if self.dice.random() < 0.5:
            await self.log.open_chain(chain.shard, Start(StartKind.TRIM_HORIZON), target)

    async def a_checkpoint(self) -> None:
        """A checkpoint is written late, or by a worker that has been replaced."""
        if self.hints:
            shard, hint = self.dice.choice(self.hints)
            await self.checkpoints.advance(shard, hint)

    async def a_tip(self) -> None:
        """The worker of a quiet shard says that nothing came, where that is true."""
        for name, chain in self.chains.items():
            if chain.links and not chain.ended and not self.unsealed(name) and self._begun(name) and not chain.shard.generation:
                last = next((hint for shard, hint in reversed(self.hints) if shard == chain.shard and hint.position == chain.head), None)
                if last is not None:
                    await self.checkpoints.advance(chain.shard, replace(last, tip=self.clock.now() - timedelta(minutes=1)))
                    return

    async def _seal(self, chain: Chain, kind: Kind, last: int, arrived: datetime) -> None:
        await self._write(chain, self._link(chain, kind, last, arrived))
        chain.links.append((chain.head, last))

    async def _end(self, chain: Chain, trigger: str) -> None:
        children = [child.shard_id for child in self.model.shards[chain.shard.shard_id].children]
        await self._write(
            chain, msgspec.structs.replace(self._link(chain, Kind.END, None, None), children=tuple(children), trigger=trigger)
        )
        chain.ended = True

    async def _write(self, chain: Chain, link: Manifest) -> None:
        if chain.intent is None:
            await self.log.create(chain.shard, with_seal(link))
        else:
            entry = await self.log.read(chain.shard, chain.head)
            assert entry is not None
            await self.log.replace(chain.shard, encode(with_seal(link)), chain.head, entry.etag)
            chain.intent = None
        self.hints.append((chain.shard, checkpoint_of(link)))

    def _link(self, chain: Chain, kind: Kind, last: int | None, arrived: datetime | None, state: State = State.SEALED) -> Manifest:
        return Manifest(
            kind=kind,
            state=state,
            application="app",
            stream=STREAM,
            shard=chain.shard.chain,
            after=str(chain.head),
            last=None if last is None else str(last),
            first_arrival=arrived.isoformat() if arrived else "",
            last_arrival=arrived.isoformat() if arrived else "",
        )

    # --- the truth --------------------------------------------------------------------------------------------------------

    def missing(self, until: datetime) -> list[tuple[str, int]]:
        """Records that arrived before ``until`` and have no outcome; of shards of which nothing is sealed, those that can still be read."""
        return [
            (name, sequence)
            for name in self.put
            for sequence, arrived in (self.held(name) if self.chain(name).head == ORIGIN else self.unsealed(name))
            if arrived < until and not self.chain(name).ended and sequence > self.chain(name).head
        ]

    def begin(self, dice: Random, *, idle: bool = False) -> Callable[[], Awaitable[None]]:
        """The next step; ``idle``: one that may happen while a reader looks, so none that rewinds or takes a day."""
        likely = [*[self.a_record] * 5, *[self.a_moment] * 4, *[self.a_unit] * 7, self.an_intent]
        if not self.calm:
            likely += [self.a_split, self.a_merge]
        others = [self.a_checkpoint, self.a_checkpoint, self.a_rewind, self.a_tip, *([self.a_day] * 2 if self.calm else [])]
        return dice.choice(likely if idle else likely + others)


class Interrupted:
    """The stream as a reader sees it that is interrupted between any two of its questions."""

    def __init__(self, inner: StreamLookahead, course: Course) -> None:
        self.inner = inner
        self.course = course

    async def _something(self) -> None:
        while self.course.dice.random() < 0.4:
            await self.course.begin(self.course.dice, idle=True)()

    async def time(self) -> datetime:
        await self._something()
        return await self.inner.time()

    async def unclaimed(self) -> None:
        return None

    async def shards(self) -> list[Shard]:
        await self._something()
        return await self.inner.shards()

    async def after(
        self, shard: Shard, position: int, start: Start, complete_until: datetime | None, asked_at: datetime, done: int = -1
    ) -> Lookahead:
        await self._something()
        return await self.inner.after(shard, position, start, complete_until, asked_at, done)


@asynccontextmanager
async def course(seed: int) -> AsyncIterator[tuple[Course, Completeness]]:
    """A stream of one or two shards, and the code under test that asks about it."""
    dice, clock = Random(seed), LeapingClock()
    async with serve(clock=clock) as emulator:
        session = AwsSession(region="us-east-1", endpoints={"kinesis": emulator.url})
        async with open_kinesis(session, clock) as client:
            model = emulator.server.state.account.create(
                STREAM, dice.randrange(1, 3), "PROVISIONED", 2**20, round(clock.now().timestamp() * 1000)
            )
            store = MemoryStore(clock=clock)
            log, checkpoints = CommitLog(store, "app", clock, "w"), StoredCheckpoints(store)
            await log.pin_start(STREAM, Start(StartKind.TRIM_HORIZON))
            made = Course(dice, clock, model, log, checkpoints, calm=dice.random() < 0.5)
            yield made, Completeness(STREAM, log, checkpoints, Interrupted(StreamLookahead(client, STREAM, clock), made))


async def run(seed: int, steps: int) -> tuple[int, int]:
    """One schedule: how often it was asked, and how often the answer was yes.

    Raises:
        AssertionError: the answer was yes, and a record was missing; or everything is there and the answer is no.
    """
    asked = said_yes = 0
    async with course(seed) as (world, completeness):
        for _ in range(steps):
            await world.begin(world.dice)()
            if world.dice.random() < 0.35:
                until = world.clock.now() + timedelta(seconds=world.dice.uniform(-12, 2))
                found = await completeness.ask(Question(until, MARGIN))
                asked, said_yes = asked + 1, said_yes + found.verdict.complete
                judge(world, found, until, seed)
        await finish(world, completeness, seed)
    return asked, said_yes


def judge(world: Course, found: Answer, until: datetime, seed: int) -> None:
    missing = world.missing(until)
    assert not (found.verdict.complete and missing), f"seed {seed}: complete up to {until}, but {missing} are not sealed: {found}"
    if found.reach is not None:
        assert not world.missing(found.reach), f"seed {seed}: complete up to {found.reach}: {found}"


async def finish(world: Course, completeness: Completeness, seed: int) -> None:
    """Once everything is sealed, also the ends of shards that have ended, the answer is yes, unless records expired before they were read.

    Only where days pass (``calm``) can records expire.
    """
    world.dice = Random(1)
    world.dice.random = lambda: 0.9  # type: ignore[method-assign] - nothing interrupts any more
    for _ in range(200):
        for name in list(world.model.shards):
            if world._begun(name) and not world.chain(name).ended:
                await world.seal_next(name, 99)
    until = world.clock.now() + timedelta(milliseconds=1)
    world.clock.time += MARGIN + timedelta(seconds=2)
    found = await completeness.ask(Question(until, MARGIN))
    lost = [each for each in found.shards if each.state in {"gone", "expired"}]
    assert found.verdict.complete or (world.calm and lost), f"seed {seed}: everything is sealed, yet {found}"
    judge(world, found, until, seed)
