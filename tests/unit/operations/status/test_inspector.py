"""A look at a thousand shards: what it costs, and that one shard which cannot be read hides none of the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from stream.audit.completeness import Found, Lookahead, State
from stream.aws.kinesis import StreamSummary
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind, Manifest, with_seal
from stream.commit.manifest import State as LinkState
from stream.contracts import Checkpoint, ObjectInfo, Shard, Start, StartKind, Stored
from stream.errors import Fatal, Retryable
from stream.lease.checkpoints import StoredCheckpoints
from stream.lease.paused import Pause, What, paused
from stream.lease.pauses import PauseRecord
from stream.lease.rows import ExtendedSequenceNumber, Lease, Progress
from stream.operations.progress.completeness import Completeness
from stream.operations.status.inspector import Inspector, InspectorParts
from stream.operations.status.outcomes import RecentUnits
from stream.operations.status.readers import Listing, ScannedCheckpoints, Troubles
from stream.operations.status.rules import judge
from stream.operations.status.snapshot import Snapshot
from stream.pipeline.checks.lint import check_content
from stream.pipeline.model import Pipeline
from stream.simulation.virtual_time import leaping
from stream.storage.memory import MemoryStore
from stream.worker.halts.note import Halt
from tests.simulation.completing import LeapingClock

STREAM = "numbers"
DAY = timedelta(days=1)
SHARDS = 1_000
PIPELINE = """
application: app
source: {kinesis: {stream: numbers}, schema: {n: int64}}
sinks: [s3: {url: "file:lake"}]
state: file:state
"""


class Counting(MemoryStore):
    """A store that counts requests, and refuses keys that contain ``forbidden``."""

    def __init__(self, clock: LeapingClock) -> None:
        super().__init__(clock=clock)
        self.calls: Counter[str] = Counter()
        self.forbidden = "\0"

    async def get(self, key: str) -> Stored | None:
        self.calls["get"] += 1
        if self.forbidden in key:
            msg = f"not allowed to read {key}"
            raise Fatal(msg)
        return await super().get(key)

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        self.calls["list"] += 1
        async for info in super().list(prefix, after):
            yield info

    async def folders(self, prefix: str) -> list[str]:
        self.calls["list"] += 1
        return await super().folders(prefix)


class Tips:
    """A stream of open shards that holds nothing beyond the log, except that ``late`` shards have a record of so long ago."""

    def __init__(self, clock: LeapingClock, shards: int) -> None:
        self.clock = clock
        self.shard_ids = [f"shardId-{number:012}" for number in range(shards)]
        self.late: dict[str, timedelta] = {}
        self.looks = 0
        self.error: Exception | None = None

    async def time(self) -> datetime:
        if self.error is not None:
            raise self.error
        return self.clock.now()

    async def unclaimed(self) -> None:
        return None

    async def shards(self) -> list[Shard]:
        return [Shard(STREAM, name, is_open=True) for name in self.shard_ids]

    async def after(
        self, shard: Shard, position: int, start: Start, complete_until: datetime | None, asked_at: datetime, done: int = -1
    ) -> Lookahead:
        self.looks += 1
        waited = self.late.get(shard.shard_id)
        return Lookahead(Found.TIP) if waited is None else Lookahead(Found.RECORD, self.clock.now() - waited)


class World:
    """Shards that each have two sealed units, the newest of which arrived ``age`` ago."""

    def __init__(self, shards: int, age: timedelta, *, native: bool) -> None:
        self.clock = LeapingClock()
        self.store = Counting(self.clock)
        self.tips = Tips(self.clock, shards)
        self.log = CommitLog(self.store, "app", self.clock, "w1")
        self.native = native
        self.describe_error: Exception | None = None
        self.lease_error: Exception | None = None
        self.scans: list[Callable[[], object]] = []
        """What happens before the second scan of the lease table."""
        self._scanned = 0
        asyncio.run(self._fill(age))
        self.leases = [self._lease(name) for name in self.tips.shard_ids]
        self.inspector = self._inspector()

    async def _fill(self, age: timedelta) -> None:
        await self.log.pin_start(STREAM, Start(StartKind.TRIM_HORIZON))
        moment = (self.clock.now() - age).isoformat()
        for name in self.tips.shard_ids:
            shard = Shard(STREAM, name)
            for after, last in ((0, 10), (10, 20)):
                link = Manifest(
                    Kind.UNIT, LinkState.SEALED, "app", STREAM, name, after=str(after), last=str(last), records=5, outcomes={"written": 5},
                    first_arrival=moment, last_arrival=moment, created_at=moment, sealed_at=moment, sealed_by="w1",
                )  # fmt: skip
                await self.log.create(shard, with_seal(link))
            if not self.native:
                await StoredCheckpoints(self.store).advance(shard, Checkpoint(20, 0, 10))

    def _lease(self, name: str) -> Lease:
        shown = ExtendedSequenceNumber("20")
        now = self.clock.now().isoformat()
        return Lease(name, shown, owner="w1", signed="w1", renewed=now, progress=Progress(20, 0, 10, shown))

    def _inspector(self) -> Inspector:
        text = PIPELINE + ("coordination: native\n" if self.native else "")
        listing, scanned = Listing(self.tips, self.log, STREAM, self.clock), ScannedCheckpoints()

        async def describe() -> StreamSummary:
            if self.describe_error is not None:
                raise self.describe_error
            return StreamSummary("arn", "ACTIVE", timedelta(days=1), SHARDS, datetime(2026, 1, 1, tzinfo=UTC), encrypted=False)

        async def scan() -> list[Lease]:
            if self.lease_error is not None:
                raise self.lease_error
            self._scanned += 1
            if self._scanned > 1:
                for happens in self.scans:
                    happens()
            return list(self.leases)

        parts = InspectorParts(
            pipeline=pipeline_of(text),
            completeness=Completeness(STREAM, self.log, scanned if self.native else StoredCheckpoints(self.store), listing, tolerant=True),
            source=listing,
            describe=describe,
            leases=scan if self.native else None,
            scanned=scanned,
            tables=(),
            recent=RecentUnits(self.log, STREAM, self.store),
            clock=self.clock,
            troubles=Troubles(),
        )
        return Inspector(parts)

    def inspect(self) -> Snapshot:
        self.store.calls.clear()
        self.tips.looks = 0
        return asyncio.run(self.inspector.inspect())


def pipeline_of(text: str) -> Pipeline:
    found = check_content(text.encode(), "pipeline.yaml", Path(), {})
    assert found.pipeline is not None, found.findings
    return found.pipeline


@pytest.mark.parametrize(
    ("native", "age", "reads", "looks"),
    [
        pytest.param(True, timedelta(seconds=30), 2, 0, id="leases, and records come all the time"),
        pytest.param(True, timedelta(minutes=30), 2, 1, id="leases, and the shards are quiet"),
        pytest.param(False, timedelta(seconds=30), 3, 0, id="one worker, and records come all the time"),
        pytest.param(False, timedelta(minutes=30), 4, 1, id="one worker, and the shards are quiet"),
    ],
)
def test_the_number_of_calls_for_a_thousand_shards(native: bool, age: timedelta, reads: int, looks: int) -> None:
    world = World(SHARDS, age, native=native)
    snapshot = world.inspect()
    assert judge(snapshot) == []
    assert len(snapshot.shards) == SHARDS
    assert world.store.calls["get"] <= reads * SHARDS + 4
    assert world.store.calls["list"] <= 3
    assert world.tips.looks == looks * SHARDS
    # A second look of the same process reads what is new.
    assert judge(world.inspect()) == []
    assert world.store.calls["get"] <= (1 + (not native and looks)) * SHARDS + 4


def test_one_of_a_thousand_is_found() -> None:
    world = World(SHARDS, timedelta(minutes=30), native=True)
    world.tips.late["shardId-000000000700"] = timedelta(minutes=20)
    snapshot = world.inspect()
    (found,) = judge(snapshot)
    assert (found.code, found.shards) == ("not_sealing", ("shardId-000000000700",))
    assert snapshot.worst[0].name == "shardId-000000000700"
    assert sum(snapshot.is_fine(each) for each in snapshot.shards) == SHARDS - 1


def test_a_shard_that_cannot_be_read_hides_no_other() -> None:
    world = World(3, timedelta(minutes=30), native=True)
    world.store.forbidden = "commits/numbers/shardId-000000000001/"
    world.tips.late["shardId-000000000002"] = timedelta(minutes=20)
    snapshot = world.inspect()
    assert [(each.code, each.shards) for each in judge(snapshot)] == [
        ("not_sealing", ("shardId-000000000002",)),
        ("shard_unreadable", ("shardId-000000000001",)),
    ]
    assert "not allowed to read" in judge(snapshot)[1].details[0]
    world.store.forbidden = "\0"
    assert [each.code for each in judge(world.inspect())] == ["not_sealing"]


def test_a_stream_that_cannot_be_read_leaves_what_the_log_and_the_leases_say() -> None:
    world = World(3, timedelta(seconds=30), native=True)
    world.describe_error = Fatal("no permission for kinesis:DescribeStreamSummary")
    snapshot = world.inspect()
    assert [each.code for each in judge(snapshot)] == ["unreadable"]
    assert {(each.state, each.owner) for each in snapshot.shards} == {(State.COMPLETE, "w1")}
    quiet = World(3, timedelta(hours=3), native=True)
    quiet.describe_error = Fatal("no permission for kinesis:DescribeStreamSummary")
    snapshot = quiet.inspect()
    assert [each.code for each in judge(snapshot)] == ["unreadable"], "one cause, one finding"
    assert {each.state for each in snapshot.shards} == {State.SILENT}


def test_leases_that_cannot_be_read_leave_what_the_log_says() -> None:
    world = World(3, timedelta(seconds=30), native=True)
    world.lease_error = Fatal("no permission for dynamodb:Scan")
    snapshot = world.inspect()
    assert [(each.code, each.details) for each in judge(snapshot)] == [("unreadable", ("no permission for dynamodb:Scan",))]
    assert [(each.position, each.owner) for each in snapshot.shards] == [(20, None)] * 3


def test_a_log_that_cannot_be_read_leaves_what_the_leases_say() -> None:
    world = World(3, timedelta(seconds=30), native=True)
    world.store.forbidden = ""
    snapshot = world.inspect()
    assert {each.part for each in snapshot.unread} >= {"commit log"}
    assert [(each.name[-1], each.owner) for each in snapshot.shards] == [("0", "w1"), ("1", "w1"), ("2", "w1")]
    assert "not_begun" not in [each.code for each in judge(snapshot)]


def test_a_stream_that_stops_answering_in_between() -> None:
    world = World(3, timedelta(seconds=30), native=True)
    world.tips.error = Retryable("a reset")
    snapshot = world.inspect()
    assert [(each.part, each.why) for each in snapshot.unread] == [("commit log", "a reset")]


def test_a_part_that_never_answers_is_given_up() -> None:
    world = World(3, timedelta(seconds=30), native=True)

    async def never() -> StreamSummary:
        await asyncio.Event().wait()
        raise AssertionError

    world.inspector._parts = replace(world.inspector._parts, describe=never)
    # In virtual time: however slow the machine is, the other parts answer in time.
    snapshot = leaping(world.inspector.inspect)
    assert [each.why for each in snapshot.unread] == ["no answer within 15 s"]


def test_a_note_counts_until_the_log_has_passed_it() -> None:
    world = World(1, timedelta(seconds=30), native=True)
    (name,) = world.tips.shard_ids
    for position, code in (("20", ["shard_halted"]), ("10", [])):
        note = msgspec.json.encode(Halt("bad", "w1", world.clock.now(), position))
        asyncio.run(world.store.put(f"halts/{STREAM}/{name}.json", note))
        assert [each.code for each in judge(world.inspect())] == code


def test_a_recorded_pause_is_seen_and_ends_by_itself() -> None:
    world = World(3, timedelta(minutes=30), native=True)
    world.tips.late = dict.fromkeys(world.tips.shard_ids, timedelta(minutes=20))
    now = world.clock.now()
    one = Pause(what=What.READING, stream=STREAM, part="shardId-000000000001", by="ann", note="new disks", since=now, until=now + DAY)
    asyncio.run(PauseRecord(world.store).change(lambda newest: paused(newest, [one], "ann", one.note, now)))
    snapshot = world.inspect()
    assert [each.paused for each in snapshot.shards] == [None, str(one), None]
    assert [(each.code, each.shards) for each in judge(snapshot)] == [
        ("not_sealing", ("shardId-000000000000", "shardId-000000000002")),
        ("paused", ("shardId-000000000001",)),
    ]
    world.clock.time += DAY
    assert [each.paused for each in world.inspect().shards] == [None] * 3


@pytest.mark.parametrize("ahead", [timedelta(minutes=-4), timedelta(minutes=4)], ids=["behind", "ahead"])
def test_a_worker_whose_clock_is_wrong_lives_if_its_counters_move_and_does_not_if_they_stand_still(ahead: timedelta) -> None:
    world = World(3, timedelta(seconds=30), native=True)
    moving, standing, right = world.leases
    dated = (world.clock.now() + ahead).isoformat()
    world.leases = [replace(moving, renewed=dated), replace(standing, renewed=dated, owner="w2", signed="w2"), right]
    scans = world.scans
    scans.append(lambda: world.leases.__setitem__(0, replace(world.leases[0], counter=world.leases[0].counter + 1)))

    found = world.inspect()

    assert [found.read_by_nobody(shard) for shard in found.shards] == [False, True, False]
    assert {worker.name: worker.living for worker in found.workers} == {"w1": True, "w2": False}
    (late,) = found.wrong_clocks.values()
    assert abs(late + ahead.total_seconds()) < 30
    (clock,) = [each for each in judge(found) if each.code == "wrong_clock"]
    assert "w1: its clock is" in clock.details[0]
    assert ("ahead" if ahead > timedelta() else "behind") in clock.details[0]


def test_leases_of_a_date_without_doubt_are_looked_at_once() -> None:
    world = World(3, timedelta(seconds=30), native=True)
    world.scans.append(lambda: pytest.fail("a second scan"))
    assert not world.inspect().wrong_clocks
