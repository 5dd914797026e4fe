"""Several coordinators over one table, on a clock that the test moves."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from stream import events
from stream.aws.errors import AccessRefused, AwsFatal, AwsRetryable, StreamMissing
from stream.contracts import Checkpoint, Reached, Shard, StartKind
from stream.errors import Fatal, LeaseLost
from stream.lease.coordinator import Coordinator
from stream.lease.native import LeaseCheckpoints
from stream.lease.rows import decode, encode
from stream.lease.settings import NOT_IDENTIFIED, LeasedStream, LeaseSettings
from tests.unit.lease.tables import FakeClock, MemoryDynamo, lease, settle, table_on

TOP = 2**128 - 1


class Fleet:
    """``shards`` of one stream ``s``; workers by name."""

    def __init__(self, shards, start=StartKind.TRIM_HORIZON, **options):
        self.clock = FakeClock()
        self.start = start
        self.dynamo = MemoryDynamo()
        self.dynamo.tables.add("app")
        self.shards = list(shards)
        self.settings = LeaseSettings(**options)
        self.workers, self.tasks, self.emitted = {}, {}, {}

    async def _list(self):
        return list(self.shards)

    def streams(self):
        return [LeasedStream("s", self.start, self._list)]

    def make(self, name):
        emitted = self.emitted.setdefault(name, [])
        rng = Random(name)
        worker = Coordinator(
            table_on(self.dynamo, self.clock, emitted),
            name,
            self.streams(),
            self.settings,
            self.clock,
            emitted.append,
            lambda rows: rng.sample(rows, len(rows)),
        )
        self.workers[name] = worker
        return worker

    async def join(self, *names):
        for name in names:
            worker = self.make(name)
            await worker.start()
            self.tasks[name] = asyncio.ensure_future(worker.run())
        await settle()

    async def kill(self, name):
        """Kill a worker: it stays the owner in the row, and nobody renews the lease."""
        self.tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self.tasks[name]
        self.workers.pop(name)

    async def leave(self, name):
        await self.workers[name].leave()
        await self.kill(name)

    def holders(self):
        """Shard ids by worker, as each worker believes to hold them."""
        return {name: sorted(worker.held("s")) for name, worker in self.workers.items()}

    def assert_alone(self):
        held = [shard for shards in self.holders().values() for shard in shards]
        assert len(held) == len(set(held)), self.holders()

    def rows(self):
        return {key: decode(item) for key, item in self.dynamo.items.items()}

    async def end(self):
        for name in list(self.workers):
            await self.kill(name)


def shards(count):
    width = (TOP + 1) // count
    return [Shard("s", f"shardId-{at:012}", (), at * width, TOP if at == count - 1 else (at + 1) * width - 1) for at in range(count)]


def play(fleet_of, test):
    async def body():
        fleet = fleet_of()
        try:
            await test(fleet)
        finally:
            await fleet.end()

    asyncio.run(asyncio.wait_for(body(), 120))


def test_the_first_worker_takes_every_lease_at_once():
    async def test(fleet):
        before = fleet.clock.monotonic()
        await fleet.join("a")
        assert fleet.clock.monotonic() == before
        assert len(fleet.workers["a"].runnable("s")) == 4

    play(lambda: Fleet(shards(4)), test)


@pytest.mark.parametrize("balance", ["even", "kcl"])
def test_newcomers_get_their_share_and_no_shard_has_two_workers(balance):
    async def test(fleet):
        await fleet.join("a", "b", "c", "d")
        await fleet.clock.advance(60)
        counts = sorted(len(held) for held in fleet.holders().values())
        assert counts == [3, 3, 3, 3]
        fleet.assert_alone()
        taken = sum(isinstance(event, events.LeaseTaken) for emitted in fleet.emitted.values() for event in emitted)
        await fleet.clock.advance(40)
        assert taken == sum(isinstance(event, events.LeaseTaken) for emitted in fleet.emitted.values() for event in emitted)

    play(lambda: Fleet(shards(12), balance=balance, failover=3.0), test)


def test_a_released_lease_is_taken_by_the_next_scan():
    async def test(fleet):
        await fleet.join("a", "b")
        await fleet.clock.advance(60)
        await fleet.leave("a")
        await fleet.clock.advance(1.1)
        assert len(fleet.holders()["b"]) == 6

    play(lambda: Fleet(shards(6)), test)


def test_leases_of_a_dead_worker_are_taken_after_the_failover_time_and_not_before():
    async def test(fleet):
        await fleet.join("a", "b")
        await fleet.clock.advance(60)
        mine = len(fleet.holders()["b"])
        await fleet.kill("a")
        await fleet.clock.advance(5)
        assert len(fleet.holders()["b"]) == mine
        await fleet.clock.advance(7.5)
        assert len(fleet.holders()["b"]) == 6

    play(lambda: Fleet(shards(6)), test)


def test_no_lease_ever_has_two_holders_while_workers_come_go_and_die():
    async def test(fleet):
        rng = Random(7)
        await fleet.join("w0")
        for number in range(1, 20):
            await fleet.clock.advance(rng.uniform(1.1, 15))  # whoever a lease was stolen from sees it in the next look
            fleet.assert_alone()
            choice = rng.randrange(3)
            if choice == 0 or len(fleet.workers) < 2:
                await fleet.join(f"w{number}")
            elif choice == 1:
                await fleet.leave(rng.choice(sorted(fleet.workers)))
            else:
                await fleet.kill(rng.choice(sorted(fleet.workers)))
        await fleet.clock.advance(60)
        assert sorted(shard for held in fleet.holders().values() for shard in held) == [shard.shard_id for shard in fleet.shards]

    play(lambda: Fleet(shards(8)), test)


def test_a_worker_cut_off_from_the_table_stops_before_another_may_start():
    async def test(fleet):
        await fleet.join("a")
        real = fleet.dynamo.call

        async def unreachable(operation, table, request):
            fleet.dynamo.faults = ["lost_before"]
            return await real(operation, table, request)

        fleet.workers["a"].table.client = type("Cut", (), {"call": staticmethod(unreachable)})()
        await fleet.clock.advance(9.9)
        assert fleet.holders()["a"]
        await fleet.clock.advance(1.2)
        assert fleet.holders()["a"] == []
        assert events.LeaseDropped("s", "shardId-000000000000", "expired") in fleet.emitted["a"]

    play(lambda: Fleet(shards(2)), test)


def test_throttling_for_less_than_the_failover_time_costs_no_lease():
    async def test(fleet):
        await fleet.join("a", "b")
        await fleet.clock.advance(60)
        before = fleet.holders()
        for _ in range(5):
            fleet.dynamo.throttling = True
            await fleet.clock.advance(4)
            fleet.dynamo.throttling = False
            await fleet.clock.advance(8)
            fleet.assert_alone()
        assert fleet.holders() == before
        assert not [
            event
            for emitted in fleet.emitted.values()
            for event in emitted
            if isinstance(event, events.LeaseDropped) and event.why == "expired"
        ]

    play(lambda: Fleet(shards(8)), test)


def test_longer_throttling_stops_the_work_in_time_and_the_table_is_not_flooded():
    async def test(fleet):
        await fleet.join("a", "b")
        await fleet.clock.advance(95)
        fleet.dynamo.throttling = True
        fleet.dynamo.calls.clear()
        await fleet.clock.advance(6)
        assert sum(map(len, fleet.holders().values())) == 40
        await fleet.clock.advance(5.9)
        # Monotonic, and counted from before the last write that came through was sent: by now others may have them.
        assert fleet.holders() == {"a": [], "b": []}
        fleet.dynamo.calls.clear()
        await fleet.clock.advance(60)
        # Nothing is left to renew: two workers look, and a look is asked for again every second on average, or 600 times in all if it were
        # every 0.2 s.
        assert fleet.dynamo.calls.count("UpdateItem") == 0
        assert fleet.dynamo.calls.count("Scan") <= 180
        fleet.dynamo.throttling = False
        await fleet.clock.advance(32)
        assert sum(map(len, fleet.holders().values())) == 40
        fleet.assert_alone()

    play(lambda: Fleet(shards(40)), test)


def test_access_that_is_taken_away_for_minutes_stops_the_work_in_time_and_ends_no_worker():
    async def test(fleet):
        await fleet.join("a", "b")
        await fleet.clock.advance(60)
        fleet.dynamo.refusing = True
        await fleet.clock.advance(15)
        assert fleet.holders() == {"a": [], "b": []}
        fleet.dynamo.calls.clear()
        await fleet.clock.advance(600)
        assert 60 <= len(fleet.dynamo.calls) <= 600
        said = [each for each in fleet.emitted["a"] if isinstance(each, events.CallRepeated) and each.call == "lease table"]
        assert "not allowed" in said[0].detail
        fleet.dynamo.refusing = False
        await fleet.clock.advance(40)
        assert sum(map(len, fleet.holders().values())) == 8
        fleet.assert_alone()
        assert not any(task.done() for task in fleet.tasks.values())

    play(lambda: Fleet(shards(8)), test)


@pytest.mark.parametrize("failover", [7.0, 9.0, 10.0])
def test_one_row_whose_writes_are_not_answered_costs_no_other_lease(failover):
    async def test(fleet):
        await fleet.join("a")
        answering = fleet.dynamo.call

        async def silent(operation, table, request):
            if operation == "UpdateItem" and request["Key"]["leaseKey"]["S"] == "shardId-000000000000":
                await fleet.clock.sleep(5)
                raise AwsRetryable("no answer", code="ConnectionError")
            return await answering(operation, table, request)

        fleet.dynamo.call = silent
        await fleet.clock.advance(60)
        dropped = {event.shard for event in fleet.emitted["a"] if isinstance(event, events.LeaseDropped)}
        assert dropped == {"shardId-000000000000"}

    play(lambda: Fleet(shards(40), failover=failover), test)


def test_a_lease_is_written_once_per_renewal_interval():
    async def test(fleet):
        await fleet.join("a")
        await fleet.clock.advance(1)
        fleet.emitted["a"].clear()
        await fleet.clock.advance(100)
        renewals = sum(isinstance(event, events.LeaseWritten) for event in fleet.emitted["a"])
        assert 29 * 5 <= renewals <= 30 * 5

    play(lambda: Fleet(shards(5)), test)


def test_a_checkpoint_counts_as_a_renewal():
    async def test(fleet):
        await fleet.join("a")
        checkpoints = LeaseCheckpoints(fleet.workers["a"])
        fleet.emitted["a"].clear()
        for number in range(1, 31):
            await checkpoints.advance(fleet.shards[0], Checkpoint(number, 0, number - 1))
            await fleet.clock.advance(1)
        writes = [event.operation for event in fleet.emitted["a"] if isinstance(event, events.LeaseWritten)]
        assert set(writes) == {"checkpoint"}
        assert len(writes) == 30

    play(lambda: Fleet(shards(1)), test)


def test_the_end_of_a_shard_creates_the_rows_of_its_children_first():
    async def test(fleet):
        parent = fleet.shards[0]
        await fleet.join("a")
        middle = TOP // 2
        fleet.shards += [Shard("s", "l", (parent.shard_id,), 0, middle), Shard("s", "r", (parent.shard_id,), middle + 1, TOP)]
        worker = fleet.workers["a"]
        assert worker.runnable("s") == {parent.shard_id}
        await LeaseCheckpoints(worker).advance(parent, Checkpoint(None, 0, 50))
        await worker.done("s", parent.shard_id)
        rows = fleet.rows()
        assert rows[parent.shard_id].checkpoint.text == "SHARD_END"
        assert rows[parent.shard_id].children == {"l", "r"}
        assert {rows["l"].checkpoint.text, rows["r"].checkpoint.text} == {"TRIM_HORIZON"}
        await fleet.clock.advance(0.5)
        assert worker.runnable("s") == {"l", "r"}
        for child in ("l", "r"):
            await LeaseCheckpoints(worker).advance(Shard("s", child), Checkpoint(60, 0, 50))
        await fleet.clock.advance(61)
        assert set(fleet.rows()) == {"l", "r"}

    play(lambda: Fleet(shards(1)), test)


class OfTwoStreams(Fleet):
    """Workers that also read a second stream, ``t``, until it is deleted."""

    deleted = False

    def streams(self):
        return [LeasedStream("t", self.start, self._other, "1:t:5:"), LeasedStream("s", self.start, self._list, "1:s:5:")]

    async def _other(self):
        if self.deleted:
            raise AwsFatal("kinesis:ListShards on stream t was refused", code="ResourceNotFoundException")
        return [replace(shard, stream="t") for shard in self.shards]


@pytest.mark.parametrize(
    ("kind", "key", "remedy"),
    [(OfTwoStreams, "shardId-000000000000", "kinesis.stream "), (Fleet, "1:s:5:shardId-000000000000", "kinesis.streams ")],
)
def test_leases_of_the_kcl_under_other_keys_stop_the_start(kind, key, remedy):
    async def test(fleet):
        row = encode(lease(key, "java", 3, "123"))
        fleet.dynamo.items[key] = row
        worker = fleet.make("a")
        fleet.workers.clear()
        with pytest.raises(Fatal, match=remedy) as refused:
            await worker.start()
        assert f"such as '{key}'" in str(refused.value)
        fleet.dynamo.items[key] = row | {"sxOp": {"S": "m"}}
        await fleet.make("b").start()
        fleet.workers.clear()

    play(lambda: kind(shards(1)), test)


def test_a_deleted_stream_costs_no_lease_of_another_stream():
    async def test(fleet):
        await fleet.join("a")
        fleet.deleted = True
        await fleet.clock.advance(60)
        fleet.shards = shards(3)
        await fleet.clock.advance(60)
        assert not fleet.tasks["a"].done()
        assert len(fleet.workers["a"].held("s")) == 3
        assert "ListShards on stream t was refused" in next(
            event.detail for event in fleet.emitted["a"] if isinstance(event, events.CallRepeated)
        )

    play(lambda: OfTwoStreams(shards(2)), test)


class OfAClosedStream(Fleet):
    """Workers of two streams, of which the first may not be described or listed as long as it is ``closed``."""

    closed, open_other = True, True

    def streams(self):
        first = LeasedStream("t", self.start, self._other, f"{NOT_IDENTIFIED} t:", self._identify)
        return [first, LeasedStream("s", self.start, self._second, "1:s:5:")]

    async def _identify(self):
        self._refuse()
        return "1:t:5:"

    def _refuse(self):
        if self.closed:
            raise AccessRefused("kinesis:DescribeStreamSummary on stream t was refused", code="AccessDeniedException")

    async def _other(self):
        self._refuse()
        return [replace(shard, stream="t") for shard in self.shards]

    async def _second(self):
        if not self.open_other:
            raise AccessRefused("kinesis:ListShards on stream s was refused", code="AccessDeniedException")
        return await self._list()


def test_of_several_streams_one_that_is_closed_at_the_start_costs_no_lease_of_another_and_is_leased_once_it_is_open():
    async def test(fleet):
        await fleet.join("a")
        worker = fleet.workers["a"]
        assert len(worker.held("s")) == 2
        assert worker.held("t") == worker.runnable("t") == set()
        assert not worker.read_elsewhere("t")
        repeated = [event for event in fleet.emitted["a"] if isinstance(event, events.CallRepeated)]
        assert [(event.stream, event.call) for event in repeated] == [("t", "list shards")]
        assert "was refused" in repeated[0].detail
        fleet.closed = False
        await fleet.clock.advance(60)
        assert len(worker.held("t")) == 2
        assert {key for key in fleet.rows() if key.startswith("1:t:5:")} == {f"1:t:5:{shard.shard_id}" for shard in fleet.shards}

    play(lambda: OfAClosedStream(shards(2)), test)


def test_leases_that_a_closed_stream_had_before_are_found_again_when_it_is_open():
    async def test(fleet):
        fleet.closed = False
        await fleet.join("b")
        fleet.closed = True
        await fleet.join("a")
        worker = fleet.workers["a"]
        assert not worker.read_elsewhere("t")
        fleet.closed = False
        await fleet.clock.advance(31)
        assert worker.read_elsewhere("t")
        assert len(worker.leases("t")) == 2
        await fleet.kill("b")
        await fleet.clock.advance(120)
        assert len(worker.held("t")) == 2

    play(lambda: OfAClosedStream(shards(2), max_leases=4), test)


def test_of_a_stream_that_is_open_again_no_row_is_made_for_a_parent_that_was_read_long_ago():
    async def test(fleet):
        parent, child = Shard("s", "shardId-0", (), 0, TOP), Shard("s", "shardId-1", ("shardId-0",), 0, TOP)
        fleet.shards = [parent, child]
        row = lease("1:t:5:shardId-1", None, 3, "123")
        fleet.dynamo.items[row.key] = encode(row)
        await fleet.join("a")
        fleet.closed = False
        await fleet.clock.advance(60)
        assert {key for key in fleet.rows() if key.startswith("1:t:5:")} == {row.key}
        assert fleet.workers["a"].held("t") == {"shardId-1"}

    play(lambda: OfAClosedStream([]), test)


class OfAStreamThatMayBeGone(OfAClosedStream):
    """Workers of two streams, of which the first is missing while it is ``closed``, and was created at ``epoch``."""

    closed, epoch = False, 5

    async def _identify(self):
        self._refuse()
        return f"1:t:{self.epoch}:"

    def _refuse(self):
        if self.closed:
            raise StreamMissing("kinesis:ListShards on stream t was refused", code="ResourceNotFoundException")


def test_leases_of_a_stream_that_is_deleted_are_released_and_those_of_a_new_one_of_that_name_are_others():
    async def test(fleet):
        await fleet.join("a")
        worker, old = fleet.workers["a"], {f"1:t:5:{shard.shard_id}" for shard in fleet.shards}
        assert len(worker.held("t")) == 2
        fleet.closed = True
        heard = []
        worker.listeners.append(lambda: heard.append(worker.held("t")))
        await fleet.clock.advance(31)
        assert heard[-1] == worker.held("t") == set()
        assert not worker.leases("t")
        assert len(worker.held("s")) == 2
        assert {fleet.rows()[key].holder for key in old} == {None}
        fleet.closed, fleet.epoch = False, 70
        await fleet.clock.advance(31)
        assert worker.held("t") == {shard.shard_id for shard in fleet.shards}
        assert {fleet.rows()[f"1:t:70:{shard.shard_id}"].holder for shard in fleet.shards} == {"a"}
        assert {fleet.rows()[key].holder for key in old} == {None}

    play(lambda: OfAStreamThatMayBeGone(shards(2)), test)


def test_a_lease_that_was_being_taken_when_its_stream_was_found_missing_is_released():
    async def test(fleet):
        await fleet.join("b")
        await fleet.kill("b")
        await fleet.join("a")
        worker = fleet.workers["a"]
        real = worker.table.take

        async def taking(lease, me):
            taken = await real(lease, me)
            if lease.key.startswith("1:t:"):
                fleet.closed = True
                await fleet.clock.sleep(31)
            return taken

        worker.table.take = taking
        await fleet.clock.advance(80)
        assert fleet.closed
        assert worker.held("t") == set()
        assert len(worker.held("s")) == 2
        assert {row.holder for key, row in fleet.rows().items() if key.startswith("1:t:")} == {None}

    play(lambda: OfAStreamThatMayBeGone(shards(2)), test)


@pytest.mark.parametrize("observed", [None, {}], ids=["all are closed", "the run ends"])
def test_a_start_at_which_no_stream_is_open_or_every_one_has_to_be_is_refused(observed):
    async def test(fleet):
        fleet.open_other = observed is not None
        worker = fleet.make("a")
        fleet.workers.clear()
        with pytest.raises(AccessRefused):
            await worker.start(observed)

    play(lambda: OfAClosedStream(shards(1)), test)


@pytest.mark.parametrize(("start", "begins"), [(StartKind.LATEST, {"shardId-000000000001"}), (StartKind.AT_TIMESTAMP, set())])
def test_with_start_latest_only_leases_that_say_so_begin_at_the_beginning(start, begins):
    async def test(fleet):
        for shard, checkpoint in zip(fleet.shards, ("123", "TRIM_HORIZON", "LATEST"), strict=True):
            fleet.dynamo.items[shard.shard_id] = encode(lease(shard.shard_id, checkpoint=checkpoint))
        await fleet.join("a")
        assert {shard.shard_id for shard in fleet.shards if fleet.workers["a"].from_its_beginning("s", shard.shard_id)} == begins

    play(lambda: Fleet(shards(3), start), test)


def test_children_wait_while_another_worker_has_a_parent():
    async def test(fleet):
        fleet.shards.append(Shard("s", "child", (fleet.shards[0].shard_id,)))
        fleet.dynamo.items = {
            fleet.shards[0].shard_id: encode(lease(fleet.shards[0].shard_id, "java", 5, "77")),
            "child": encode(lease("child", parents=frozenset({fleet.shards[0].shard_id}))),
        }
        await fleet.join("a")
        await fleet.clock.advance(1.5)
        assert fleet.workers["a"].held("s") == {"child"}
        assert fleet.workers["a"].runnable("s") == set()

    play(lambda: Fleet(shards(1)), test)


def test_a_deleted_row_is_reported_and_created_again():
    async def test(fleet):
        await fleet.join("a")
        await fleet.clock.advance(5)
        del fleet.dynamo.items["shardId-000000000000"]
        await fleet.clock.advance(5)
        dropped = [event for event in fleet.emitted["a"] if isinstance(event, events.LeaseDropped | events.LeaseVanished)]
        assert dropped
        await fleet.clock.advance(40)
        assert fleet.holders()["a"] == [shard.shard_id for shard in fleet.shards]

    play(lambda: Fleet(shards(2)), test)


def test_a_hole_in_the_hash_range_is_reported_after_three_looks():
    async def test(fleet):
        fleet.shards = [Shard("s", "0", (), 0, TOP - 5)]
        await fleet.join("a")
        await fleet.clock.advance(45)
        assert not [event for event in fleet.emitted["a"] if isinstance(event, events.LeaseHoles)]
        await fleet.clock.advance(60)
        assert events.LeaseHoles("s", "", 1, str(TOP - 4)) in fleet.emitted["a"]

    play(lambda: Fleet([]), test)


def test_beside_java_workers_the_rules_of_the_kcl_apply():
    async def test(fleet):
        fleet.dynamo.items = {f"s{at}": encode(lease(f"s{at}", "java", 5, "SHARD_END")) for at in range(4)}
        fleet.shards = []
        await fleet.join("a")
        for _ in range(80):
            await fleet.clock.advance(0.5)
            for key in list(fleet.dynamo.items):  # the Java worker renews
                row = decode(fleet.dynamo.items[key])
                if row.owner == "java":
                    fleet.dynamo.items[key]["leaseCounter"] = {"N": str(row.counter + 1)}
        assert events.MixedFleet("", "", 1) in fleet.emitted["a"]
        assert 1 <= len(fleet.holders()["a"]) <= 2  # by rows, ended ones included; a fleet of our own would take none

    play(lambda: Fleet([]), test)


@pytest.mark.parametrize("place", ["coordinator state", "lease table"])
@pytest.mark.parametrize(("version", "refused"), [("CLIENT_VERSION_2X", False), ("CLIENT_VERSION_9", True)])
def test_a_fleet_with_unknown_rules_is_not_joined(place, version, refused):
    async def test(fleet):
        row = {"cv": {"S": version}}
        if place == "lease table":
            fleet.dynamo.items["Migration3.0"] = {"leaseKey": {"S": "Migration3.0"}, "entityType": {"S": "X"}, **row}
        else:
            fleet.dynamo.other["Migration3.0"] = {"key": {"S": "Migration3.0"}, **row}
        if refused:
            with pytest.raises(Fatal, match="lease table app"):
                await fleet.join("a")
            fleet.workers.clear()
        else:
            await fleet.join("a")
            assert fleet.holders()["a"]

    play(lambda: Fleet(shards(1)), test)


def test_progress_reads_back_and_a_foreign_checkpoint_beside_it():
    async def test(fleet):
        shard = fleet.shards[0]
        await fleet.join("a")
        checkpoints = LeaseCheckpoints(fleet.workers["a"])
        assert await checkpoints.read(shard) is None
        gap = Checkpoint(200, 0, 100, record=False)
        await checkpoints.advance(shard, Checkpoint(100, 2, 50))
        await checkpoints.advance(shard, gap)
        row = fleet.dynamo.items[shard.shard_id]
        assert row["checkpoint"] == {"S": "100"}  # KCL reads at a record, never at the end of a gap
        assert row["checkpointSubSequenceNumber"] == {"N": "2"}
        assert await checkpoints.read(shard) == gap
        await fleet.leave("a")
        fleet.dynamo.items[shard.shard_id] |= {"checkpoint": {"S": "300"}, "checkpointSubSequenceNumber": {"N": "1"}}
        await fleet.join("b")
        read = await LeaseCheckpoints(fleet.workers["b"]).read(shard)
        assert (read.position, read.foreign) == (200, Reached(300, 1))

    play(lambda: Fleet(shards(1)), test)


def test_a_checkpoint_of_a_lost_lease_is_refused():
    async def test(fleet):
        shard = fleet.shards[0]
        await fleet.join("a")
        fleet.dynamo.items[shard.shard_id] |= {"leaseOwner": {"S": "other"}, "leaseCounter": {"N": "9"}}
        with pytest.raises(LeaseLost, match=shard.shard_id):
            await LeaseCheckpoints(fleet.workers["a"]).advance(shard, Checkpoint(7, 0, 3))
        assert fleet.holders()["a"] == []
        assert fleet.rows()[shard.shard_id].checkpoint.text == "TRIM_HORIZON"

    play(lambda: Fleet(shards(1)), test)


def test_an_operator_can_seize_a_lease_from_a_worker_that_renews_it():
    async def test(fleet):
        await fleet.join("a")
        operator = fleet.make("operator")
        before = await operator.seize("s", fleet.shards[0].shard_id)
        assert before.owner == "a"
        fleet.workers.pop("operator")
        await fleet.clock.advance(4)
        assert fleet.holders()["a"] == []
        await operator.leave()
        await fleet.clock.advance(2)
        assert len(fleet.holders()["a"]) == 1

    play(lambda: Fleet(shards(1)), test)


def test_a_lease_that_changes_faster_than_it_can_be_taken_is_not_seized():
    """No lease, which is None, and one that cannot be had are not the same: an operator would go on without it."""

    async def test(fleet):
        await fleet.join("a")
        operator, shard = fleet.make("operator"), fleet.shards[0].shard_id
        read = operator.table.get

        async def overtaken(key):
            found = await read(key)
            row = decode(fleet.dynamo.items[key])
            fleet.dynamo.items[key] = encode(replace(row, counter=row.counter + 1))
            return found

        operator.table.get = overtaken
        with pytest.raises(LeaseLost, match="changes faster than it can be taken; try again"):
            await operator.seize("s", shard)
        assert operator.held("s") == set()
        fleet.workers.pop("operator")

    play(lambda: Fleet(shards(1)), test)


def test_a_thousand_leases_are_read_in_pages():
    async def test(fleet):
        fleet.dynamo.page = 90
        await fleet.join("a")
        assert len(fleet.workers["a"].runnable("s")) == 1000
        assert fleet.settings.look_after(fleet.workers["a"]._size) > 5

    play(lambda: Fleet(shards(1000)), test)


def test_the_traffic_of_a_shard_is_recorded_however_often_it_is_checkpointed():
    async def test(fleet):
        await fleet.join("a")
        worker, (shard,) = fleet.workers["a"], fleet.shards
        checkpoints = LeaseCheckpoints(worker)
        for second in range(1, 61):
            worker.count(events.PageReceived("s", shard.shard_id, 1, 1, 512 * 1024, 0, 0.0))
            await fleet.clock.advance(1)
            await checkpoints.advance(shard, Checkpoint(second, 0, second - 1))
        assert fleet.rows()[shard.shard_id].throughput == pytest.approx(512, rel=0.1)
        for _ in range(20):
            worker.count(events.PageReceived("s", shard.shard_id, 1, 1, 512 * 1024, 0, 0.0))
            await fleet.clock.advance(1)
        assert fleet.rows()[shard.shard_id].throughput == pytest.approx(512, rel=0.3)

    play(lambda: Fleet(shards(1)), test)


def test_a_seized_lease_is_kept_as_long_as_needed_and_no_other_is_taken():
    async def test(fleet):
        await fleet.join("a")
        operator, shard = fleet.make("operator"), fleet.shards[0].shard_id
        await operator.seize("s", shard)
        fleet.tasks["operator"] = asyncio.ensure_future(operator.keep())
        await fleet.clock.advance(120)
        assert operator.held("s") == {shard}
        assert fleet.rows()[shard].owner == "operator"
        fleet.assert_alone()
        await operator.leave()
        await fleet.clock.advance(60)
        assert len(fleet.workers["a"].held("s")) == 4

    play(lambda: Fleet(shards(4)), test)


def test_shards_finished_by_others_before_a_shard_stay_in_the_table_until_they_are_recorded():
    async def run():
        shards = [Shard("s", "0", (), 0, TOP), Shard("s", "1", ("0",), 0, TOP), Shard("s", "2", ("1",), 0, TOP, is_open=True)]
        fleet = Fleet(shards)
        ended = (lease("0", checkpoint="SHARD_END"), lease("1", checkpoint="SHARD_END", parents=frozenset({"0"})))
        for row in (*ended, lease("2", checkpoint="7", parents=frozenset({"1"}))):
            fleet.dynamo.items[row.key] = encode(row)
        await fleet.join("a")
        worker = fleet.workers["a"]
        found = (worker.finished_elsewhere("s", "2"), worker.finished_elsewhere("s", "0"), sorted(fleet.rows()))
        await LeaseCheckpoints(worker).advance(shards[2], Checkpoint(9, 0, 7))
        await worker.scan()
        await worker.sync()
        await fleet.kill("a")
        return found, sorted(fleet.rows())

    assert asyncio.run(run()) == ((["0", "1"], [], ["0", "1", "2"]), ["1", "2"])


def test_a_slow_table_costs_no_lease_however_many_there_are():
    """Each write takes 2 s, so that 300 leases need 180 renewals at a time."""

    async def test(fleet):
        await fleet.join("a")
        real = fleet.dynamo.call

        async def slow(operation, table, request):
            if operation == "UpdateItem":
                await fleet.clock.sleep(2.0)
            return await real(operation, table, request)

        fleet.workers["a"].table.client = type("Slow", (), {"call": staticmethod(slow)})()
        await fleet.clock.advance(40)
        assert len(fleet.holders()["a"]) == 300
        assert not [event for event in fleet.emitted["a"] if isinstance(event, events.LeaseDropped)]

    play(lambda: Fleet(shards(300)), test)


def test_settled_leases_include_those_of_a_child_whose_parents_have_just_ended():
    """A run that ends would otherwise take what it saw a moment ago for the whole stream, and leave the child unread."""

    async def test(fleet):
        await fleet.join("a")
        worker, (left, right) = fleet.workers["a"], fleet.shards
        fleet.shards.append(Shard("s", "shardId-000000000002", (left.shard_id, right.shard_id), 0, TOP))
        for shard in (left, right):
            fleet.dynamo.items[shard.shard_id] |= {"checkpoint": {"S": "SHARD_END"}}
        fleet.dynamo.requests.clear()
        await worker.settle()
        assert "shardId-000000000002" in worker.runnable("s")
        scans = [request for operation, _, request in fleet.dynamo.requests if operation == "Scan"]
        assert scans
        assert all(request["ConsistentRead"] for request in scans)

    play(lambda: Fleet(shards(2)), test)


def sealed_by(worker, shard_id):
    worker.count(events.ManifestSealed("s", shard_id, 0, 1))


def read_by(worker, shard_id, records, behind_ms=0):
    worker.count(events.PageReceived("s", shard_id, records, records, records, behind_ms, 0.0))


def no_answer(worker, shard_id):
    worker.count(events.CallRepeated("s", shard_id, "write file", "no answer", 20.0))


def marked(fleet):
    return {key for key, row in fleet.rows().items() if row.out_of_reach}


def why(fleet, name, kind):
    return {event.shard: event.why for event in fleet.emitted[name] if isinstance(event, kind)}


def test_calls_that_take_two_minutes_to_fail_count_as_those_that_fail_at_once():
    async def test(fleet):
        await fleet.join("a")
        (shard_id,) = fleet.holders()["a"]
        read_by(fleet.workers["a"], shard_id, 5)
        for _ in range(4):
            no_answer(fleet.workers["a"], shard_id)
            await fleet.clock.advance(140)  # a call of 120 s, and the longest wait
        assert marked(fleet) == {shard_id}

    play(lambda: Fleet(shards(1)), test)


@pytest.mark.parametrize("ends", ["kill", "leave"])
def test_a_lease_that_a_worker_without_access_left_behind_is_inherited_too(ends):
    """Else a worker that has sealed nothing would end when it finds that it has no access either, and so would the next one."""

    async def test(fleet):
        await fleet.join("a")
        barred, *others = fleet.holders()["a"]
        fleet.workers["a"].refused("s", barred)
        await fleet.clock.advance(5)
        assert marked(fleet) == {barred}
        await getattr(fleet, ends)("a")
        await fleet.join("b")
        await fleet.clock.advance(60)
        assert {each: fleet.workers["b"].inherited("s", each) for each in fleet.holders()["b"]} == {barred: True, others[0]: False}
        assert set(why(fleet, "b", events.LeaseTaken).values()) == {"expired" if ends == "kill" else "free"}

    play(lambda: Fleet(shards(2)), test)


def test_leases_of_a_worker_without_access_go_to_one_that_seals():
    async def test(fleet):
        await fleet.join("a", "b")
        await fleet.clock.advance(60)
        mine, others = fleet.holders()["a"], fleet.holders()["b"]
        assert mine
        assert others
        for shard_id in mine:
            fleet.workers["a"].refused("s", shard_id)
        await fleet.clock.advance(5)
        assert marked(fleet) == set(mine)
        sealed_by(fleet.workers["b"], others[0])
        await fleet.clock.advance(20)
        assert fleet.holders() == {"a": [], "b": sorted([*mine, *others])}
        assert {why(fleet, "b", events.LeaseTaken)[each] for each in mine} == {"refused"}
        assert {why(fleet, "a", events.LeaseDropped)[each] for each in mine} == {"refused"}
        assert all(fleet.workers["b"].inherited("s", each) for each in mine)
        assert not any(fleet.workers["b"].inherited("s", each) for each in others)
        assert marked(fleet) == set()
        await fleet.clock.advance(240)
        assert fleet.holders()["a"] == []
        await fleet.clock.advance(120)
        assert len(fleet.holders()["a"]) == 1, "its access may be back"

    play(lambda: Fleet(shards(4), failover=3.0), test)


def test_where_nobody_has_access_every_lease_stays():
    async def test(fleet):
        await fleet.join("a", "b")
        await fleet.clock.advance(60)
        before = fleet.holders()
        for _ in range(20):
            for name, held in before.items():
                for shard_id in held:
                    fleet.workers[name].refused("s", shard_id)
            await fleet.clock.advance(60)
            assert fleet.holders() == before
        assert marked(fleet) == {f"shardId-{at:012}" for at in range(4)}

    play(lambda: Fleet(shards(4), failover=15.0, look=5.0), test)


def test_a_row_says_no_more_that_its_holder_has_no_access_once_it_has_sealed_or_has_nothing_to_seal():
    async def test(fleet):
        await fleet.join("a")
        busy, quiet = fleet.holders()["a"]
        for shard_id in (busy, quiet):
            read_by(fleet.workers["a"], shard_id, 5)
            fleet.workers["a"].refused("s", shard_id)
        await fleet.clock.advance(5)
        assert marked(fleet) == {busy, quiet}
        read_by(fleet.workers["a"], busy, 5)
        for shard_id in (busy, quiet):
            read_by(fleet.workers["a"], shard_id, 0)
        await fleet.clock.advance(5)
        assert marked(fleet) == {busy}
        sealed_by(fleet.workers["a"], busy)
        await fleet.clock.advance(5)
        assert marked(fleet) == set()

    play(lambda: Fleet(shards(2), failover=3.0), test)


def listing(fleet):
    return [name for name, worker in sorted(fleet.workers.items()) if worker.lists("s")]


@pytest.mark.parametrize("busy", [False, True])
def test_objects_are_listed_by_a_worker_that_may_and_by_the_same_as_before_if_none_may(busy):
    """With frequent checkpoints no renewal is due, and yet the rows say it."""

    async def test(fleet):
        async def advance(seconds):
            for _ in range(seconds):
                for name, held in fleet.holders().items() if busy else ():
                    for shard_id in held:
                        position = int(fleet.clock.seconds)
                        await LeaseCheckpoints(fleet.workers[name]).advance(Shard("s", shard_id), Checkpoint(position, 0, position - 1))
                await fleet.clock.advance(1)

        await fleet.join("a", "b", "c")
        await fleet.clock.advance(60)
        before = fleet.holders()
        assert all(before.values())
        (first,) = listing(fleet)
        fleet.workers[first].may_list("s", allowed=False)
        assert first not in listing(fleet), "it knows so at once"
        await advance(10)
        (second,) = listing(fleet)
        fleet.workers[second].may_list("s", allowed=False)
        await advance(10)
        (third,) = listing(fleet)
        assert len({first, second, third}) == 3
        fleet.workers[third].may_list("s", allowed=False)
        await advance(10)
        assert listing(fleet) == [first]
        fleet.workers[second].may_list("s", allowed=True)
        await advance(10)
        assert listing(fleet) == [second]
        for worker in fleet.workers.values():
            worker.may_list("s", allowed=True)
        await advance(10)
        assert listing(fleet) == [first]
        assert fleet.holders() == before
        assert not any(row.unlisted for row in fleet.rows().values())

    play(lambda: Fleet(shards(6), failover=3.0), test)


def test_a_shard_whose_calls_get_no_answer_for_five_minutes_is_out_of_reach_and_not_before():
    async def test(fleet):
        await fleet.join("a")
        (shard_id,) = fleet.holders()["a"]
        worker = fleet.workers["a"]
        read_by(worker, shard_id, 5)
        for step in range(15):
            if step == 9:
                await fleet.clock.advance(151)  # somebody answered meanwhile
            no_answer(worker, shard_id)
            await fleet.clock.advance(30)
        assert marked(fleet) == set()
        for _ in range(11):
            no_answer(worker, shard_id)
            read_by(worker, shard_id, 0)
            await fleet.clock.advance(30)
        assert marked(fleet) == {shard_id}
        sealed_by(worker, shard_id)
        no_answer(worker, shard_id)
        await fleet.clock.advance(5)
        assert marked(fleet) == set()

    play(lambda: Fleet(shards(1), failover=3.0), test)


def test_a_checkpoint_says_that_the_holder_has_access():
    async def test(fleet):
        await fleet.join("a")
        (shard_id,) = fleet.holders()["a"]
        fleet.workers["a"].refused("s", shard_id)
        await fleet.clock.advance(12)
        assert marked(fleet) == {shard_id}
        sealed_by(fleet.workers["a"], shard_id)
        await LeaseCheckpoints(fleet.workers["a"]).advance(Shard("s", shard_id), Checkpoint(100, 0, 0))
        assert marked(fleet) == set()

    play(lambda: Fleet(shards(1), failover=30.0), test)
