from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from stream.audit.completeness import Answer, Found, Lookahead, Question, Verdict
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind, Manifest, State, with_seal
from stream.contracts import Checkpoint, Reached, Shard, Start, StartKind
from stream.errors import DefinitionError, Fatal, Retryable
from stream.lease.checkpoints import StoredCheckpoints
from stream.operations.progress.completeness import LAST_PAUSE, Completeness, pause_before_next, wait_until_complete
from stream.storage.memory import MemoryStore
from tests.simulation.completing import LeapingClock

MARGIN = timedelta(seconds=5)


class Scripted:
    """A stream of one shard whose record is readable only from a given time on; before that, and if scripted, calls fail."""

    def __init__(self, clock: LeapingClock, sealed_at: float, errors: dict[int, Exception] | None = None) -> None:
        self.clock = clock
        self.begun = clock.now()
        self.sealed_at = self.begun + timedelta(seconds=sealed_at)
        self.errors = errors or {}
        self.asked: list[float] = []

    async def time(self):
        self.asked.append((self.clock.now() - self.begun).total_seconds())
        if error := self.errors.get(len(self.asked)):
            raise error
        return self.clock.now()

    async def unclaimed(self) -> None:
        return None

    async def shards(self) -> list[Shard]:
        return [Shard("numbers", "s")]

    async def after(self, shard, position, start, complete_until, asked_at, done=-1) -> Lookahead:
        if self.clock.now() >= self.sealed_at:
            return Lookahead(Found.TIP)
        return Lookahead(Found.RECORD, self.begun - timedelta(minutes=1))


def waited(stream: Scripted, seconds: float, until: float = 0.0) -> tuple[list[Answer], list[float]]:
    async def run() -> tuple[list[Answer], list[float]]:
        store, clock = MemoryStore(clock=stream.clock), stream.clock
        log = CommitLog(store, "app", clock, "w")
        await log.pin_start("numbers", Start(StartKind.TRIM_HORIZON))
        asked = Completeness("numbers", log, StoredCheckpoints(store), stream)
        question = Question(stream.begun + timedelta(seconds=until), MARGIN)
        pauses: list[float] = []
        return await wait_until_complete([asked], question, clock, seconds, lambda _, pause: pauses.append(pause)), pauses

    return asyncio.run(run())


def test_a_child_missing_everywhere_is_not_complete_unless_it_is_excluded() -> None:
    """Its parent was read to its end; then no worker ran until the stream no longer listed either."""
    clock = LeapingClock()
    stream = Scripted(clock, 0)
    question = Question(stream.begun - timedelta(seconds=10), MARGIN)
    end = Manifest(kind=Kind.END, state=State.SEALED, application="app", stream="numbers", shard="p", children=("c", "s"))

    async def ask(*without: str) -> Answer:
        log = CommitLog(MemoryStore(clock=clock), "app", clock, "w")
        await log.pin_start("numbers", Start(StartKind.TRIM_HORIZON))
        await log.open_chain(Shard("numbers", "p"), Start(StartKind.TRIM_HORIZON))
        await log.create(Shard("numbers", "p"), with_seal(end))
        return await Completeness("numbers", log, StoredCheckpoints(log.store), stream, (), without).ask(question)

    found = asyncio.run(ask())
    assert [(each.shard, each.state.value) for each in found.shards] == [("p", "ended"), ("s", "complete"), ("c", "gone")]
    assert (found.verdict, found.reach) == (Verdict.NOT_YET, None)
    assert asyncio.run(ask("c")).verdict is Verdict.COMPLETE
    with pytest.raises(DefinitionError, match="d: numbers has no such shard; it has c, p, s"):
        asyncio.run(ask("d"))


def test_a_folder_of_somebody_else_is_no_shard() -> None:
    clock = LeapingClock()
    stream = Scripted(clock, 0)

    async def ask() -> Answer:
        log = CommitLog(MemoryStore(clock=clock), "app", clock, "w")
        await log.pin_start("numbers", Start(StartKind.TRIM_HORIZON))
        await log.open_chain(Shard("numbers", "begun"), Start(StartKind.TRIM_HORIZON))
        for key in ("junk/readme.txt", f"junk/deeper/{0:060d}.json", "shardId-000000000007/readme.txt"):
            await log.store.put(f"commits/numbers/{key}", b"not ours")
        return await Completeness("numbers", log, StoredCheckpoints(log.store), stream).ask(
            Question(stream.begun - timedelta(seconds=10), MARGIN)
        )

    # A shard that was lost with all of its links, but for a file that somebody put beside them, is none that may be ignored.
    states = {each.shard: each.state.value for each in asyncio.run(ask()).shards}
    assert states == {"s": "complete", "begun": "gone", "shardId-000000000007": "gone"}


class Elsewhere:
    """The checkpoint of a shard that another application reads."""

    def __init__(self, reached: Reached) -> None:
        self.reached = reached

    async def read(self, _: Shard) -> Checkpoint:
        return Checkpoint(0, 0, 0, foreign=self.reached)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("reached", "asked", "state"),
    [
        (Reached(70, 3), [(69, 3)], "complete"),
        (Reached(70, 2), [(69, 2)], "unsealed"),
        (Reached(None, 0), [], "ended"),
    ],
)
def test_what_another_application_has_processed_counts_as_done(reached: Reached, asked: list[tuple[int, int]], state: str) -> None:
    """The stream ends with an aggregate, number 70, of four user records; our log has nothing of it."""
    clock, seen = LeapingClock(), []

    class Told(Scripted):
        async def after(self, shard, position, start, complete_until, asked_at, done=-1) -> Lookahead:
            seen.append((position, done))
            return Lookahead(Found.TIP) if (position, done) >= (69, 3) else Lookahead(Found.RECORD, self.begun - timedelta(minutes=1))

    stream = Told(clock, 0)

    async def ask() -> Answer:
        log = CommitLog(MemoryStore(clock=clock), "app", clock, "w")
        await log.pin_start("numbers", Start(StartKind.TRIM_HORIZON))
        return await Completeness("numbers", log, Elsewhere(reached), stream).ask(Question(stream.begun - timedelta(seconds=10), MARGIN))

    (found,) = asyncio.run(ask()).shards
    assert (found.state.value, found.position, seen) == (state, 0, asked)
    assert found.why.endswith("another application has processed records after these; they are not in the lake")


def test_without_waiting_it_asks_once() -> None:
    stream = Scripted(LeapingClock(), 1)
    (found,), pauses = waited(stream, 0, until=-10)
    assert (found.verdict, stream.asked, pauses) == (Verdict.NOT_YET, [0], [])


def test_it_asks_at_growing_intervals_until_the_answer_is_yes() -> None:
    stream = Scripted(LeapingClock(), 100)
    (found,), pauses = waited(stream, 600, until=-10)
    assert found.verdict is Verdict.COMPLETE
    assert pauses == [2, 4, 8, 16, LAST_PAUSE, LAST_PAUSE, LAST_PAUSE]
    assert stream.asked[-1] == 120


def test_it_gives_up_when_the_time_is_over_and_returns_the_last_answer() -> None:
    stream = Scripted(LeapingClock(), 1000)
    (found,), _ = waited(stream, 45, until=-10)
    assert (found.verdict, stream.asked) == (Verdict.NOT_YET, [0, 2, 6, 14, 30, 45])
    assert found.tables == ()


def test_before_the_moment_nothing_is_asked() -> None:
    stream = Scripted(LeapingClock(), 0)
    (found,), _ = waited(stream, 7200, until=3600)
    assert (found.verdict, stream.asked) == (Verdict.COMPLETE, [0, 3605])
    assert pause_before_next([], Question(stream.begun, MARGIN), 2.0) == 2.0


def test_a_stream_that_does_not_answer_is_asked_again_and_a_missing_one_is_not() -> None:
    stream = Scripted(LeapingClock(), 0, {1: Retryable("no answer"), 2: Retryable("no answer")})
    (found,), pauses = waited(stream, 60, until=-10)
    assert (found.verdict, pauses) == (Verdict.COMPLETE, [2, 4])
    with pytest.raises(Retryable, match="no answer"):
        waited(Scripted(LeapingClock(), 0, dict.fromkeys(range(1, 99), Retryable("no answer"))), 60)
    with pytest.raises(Fatal):
        waited(Scripted(LeapingClock(), 0, {1: Fatal("no such stream")}), 60)
