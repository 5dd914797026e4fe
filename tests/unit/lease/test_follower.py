"""Workers in a KCL 3.x fleet whose leader is played by the test, writing rows as the Java leader was observed to."""

import asyncio
from copy import deepcopy

import pytest

from stream import events
from stream.aws.errors import AccessRefused
from stream.contracts import Checkpoint
from stream.errors import LeaseLost
from stream.lease.native import LeaseCheckpoints
from stream.lease.rows import encode
from tests.unit.lease.tables import lease, settle
from tests.unit.lease.test_coordinator import Fleet, play, shards

ZERO, ONE = "shardId-000000000000", "shardId-000000000001"


class LedFleet(Fleet):
    """A table created by a Java worker, which holds all leases and leads."""

    def __init__(self, count=2, **options):
        super().__init__(shards(count), **options)
        self.alive = True
        self.beats = 0
        self.dynamo.other = {"Migration3.0": {"key": {"S": "Migration3.0"}, "cv": {"S": "CLIENT_VERSION_3X"}}}
        for shard in self.shards:
            self.dynamo.items[shard.shard_id] = encode(lease(shard.shard_id, "java", 1, hash_range=(shard.first_hash, shard.last_hash)))
        self._beat()

    def _beat(self):
        self.beats += 1
        self.dynamo.other["Leader"] = {
            "key": {"S": "Leader"},
            "ownerName": {"S": "java"},
            "leaseDuration": {"S": "120000"},
            "recordVersionNumber": {"S": str(self.beats)},
        }
        self.dynamo.reports["java"] = {"wid": {"S": "java"}, "lut": {"N": str(self.beats)}, "sts": {"M": {}}, "opr": {"M": {}}}

    async def advance(self, seconds):
        """Let time pass, while the Java worker renews and reports."""
        for second in range(int(seconds)):
            await self.clock.advance(1)
            if self.alive:
                for row in self.dynamo.items.values():
                    if row.get("checkpointOwner", row.get("leaseOwner")) == {"S": "java"}:
                        row["leaseCounter"] = {"N": str(int(row["leaseCounter"]["N"]) + 1)}
                if second % 30 == 29:
                    self._beat()

    def assign(self, shard_id, worker):
        row = self.dynamo.items[shard_id]
        row |= {"leaseOwner": {"S": worker}, "leaseCounter": {"N": str(int(row["leaseCounter"]["N"]) + 1)}}
        row.pop("checkpointOwner", None)

    def begin_hand_off(self, shard_id, worker):
        """Assign the lease without changing the counter, as the Java leader does."""
        row = self.dynamo.items[shard_id]
        row["checkpointOwner"], row["leaseOwner"] = row["leaseOwner"], {"S": worker}

    def owner(self, shard_id):
        row = self.dynamo.items[shard_id]
        return row.get("leaseOwner", {}).get("S"), row.get("checkpointOwner", {}).get("S")


class YieldingTable:
    """A table that yields to other tasks before it answers."""

    def __init__(self, dynamo):
        self.place = dynamo.place
        self._dynamo = dynamo

    async def call(self, operation, table, request):
        await asyncio.sleep(0)  # noqa: TID251 - yields, takes no time
        return await self._dynamo.call(operation, table, request)


def test_the_tables_beside_the_lease_table_may_have_any_name():
    async def test(fleet):
        await fleet.join("a")
        await fleet.advance(20)
        assert fleet.holders()["a"] == []
        assert fleet.dynamo.reports.keys() == {"java", "a"}
        used = {table for _, table, _ in fleet.dynamo.requests}
        assert used == {"app", "rules-CoordinatorState", "staff-WorkerMetricStats"}

    play(lambda: LedFleet(fleet_tables=("rules-CoordinatorState", "staff-WorkerMetricStats")), test)


STATE = "app-CoordinatorState"
NOT_SEEN = (
    f"it cannot be seen whether a KCL 3.x fleet owns the lease table app, so no lease is taken: User: arn:aws:sts::1:assumed-role/w is not "
    f"authorized to GetItem {STATE}"
)


@pytest.mark.parametrize("led", [True, False])
def test_a_worker_that_may_not_see_whether_there_is_a_fleet_says_who_may_not_and_takes_nothing(led):
    async def test(fleet):
        fleet.dynamo.denied.add(STATE)
        before = deepcopy(fleet.dynamo.items)
        with pytest.raises(AccessRefused) as refused:
            await fleet.join("a")
        assert (str(refused.value), refused.value.code) == (NOT_SEEN, "AccessDeniedException")
        assert fleet.dynamo.items == before
        del fleet.workers["a"]

    play(LedFleet if led else lambda: Fleet(shards(2)), test)


def test_a_follower_that_may_not_see_its_fleet_any_more_still_follows_and_says_so():
    async def test(fleet):
        await fleet.join("a")
        fleet.dynamo.denied.add(STATE)
        fleet.dynamo.items[ZERO].pop("leaseOwner")
        await fleet.advance(300)
        assert fleet.holders()["a"] == []
        said = {event.detail for event in fleet.emitted["a"] if isinstance(event, events.CallRepeated) and event.call == "lease table"}
        assert said == {NOT_SEEN}
        fleet.dynamo.denied.clear()
        fleet.assign(ONE, "a")
        await fleet.advance(60)
        assert fleet.holders()["a"] == [ONE]

    play(LedFleet, test)


def test_a_follower_reports_and_takes_nothing_by_itself():
    async def test(fleet):
        await fleet.join("a")
        report = fleet.dynamo.reports["a"]
        assert report.keys() == {"wid", "lut", "sts", "opr", "sxVersion"}
        assert (report["sts"], report["opr"]) == ({"M": {}}, {"M": {}})
        first = int(report["lut"]["N"])
        fleet.dynamo.items[ZERO].pop("leaseOwner")
        await fleet.advance(100)
        assert fleet.holders()["a"] == []
        assert int(fleet.dynamo.reports["a"]["lut"]["N"]) - first >= 90
        assert events.FleetLed("", "", led=True, leader="java") in fleet.emitted["a"]
        assert all(table.endswith("-WorkerMetricStats") for operation, table, _ in fleet.dynamo.requests if operation == "UpdateItem")

    play(LedFleet, test)


def test_an_assigned_lease_is_worked_on_after_one_scan():
    async def test(fleet):
        await fleet.join("a")
        fleet.assign(ZERO, "a")
        await fleet.advance(2)
        assert fleet.workers["a"].runnable("s") == {ZERO}
        assert events.LeaseTaken("s", ZERO, "assigned", "") in fleet.emitted["a"]
        await fleet.advance(30)
        assert fleet.holders()["a"] == [ZERO]
        assert not [event for event in fleet.emitted["a"] if isinstance(event, events.LeaseDropped)]

    play(LedFleet, test)


def test_a_lease_being_handed_over_waits_for_its_previous_owner():
    async def test(fleet):
        await fleet.join("a")
        fleet.begin_hand_off(ZERO, "a")
        await fleet.advance(20)
        assert fleet.holders()["a"] == []
        fleet.assign(ZERO, "a")
        await fleet.advance(2)
        assert fleet.holders()["a"] == [ZERO]

    play(LedFleet, test)


@pytest.mark.parametrize("noticed_by", ["scan", "renewal", "checkpoint"])
def test_a_hand_off_leaves_time_to_checkpoint_and_ends_with_the_next_owner(noticed_by):
    async def test(fleet):
        await fleet.join("a")
        fleet.assign(ZERO, "a")
        await fleet.advance(2)
        worker, checkpoints = fleet.workers["a"], LeaseCheckpoints(fleet.workers["a"])
        fleet.begin_hand_off(ZERO, "java")
        if noticed_by == "scan":
            await worker.scan()
        elif noticed_by == "checkpoint":
            await checkpoints.advance(fleet.shards[0], Checkpoint(7, 0, 3))
        else:
            worker.holdings.held[ZERO].renewed = 0.0
            await worker.holdings.renew(ZERO)
        assert worker.wanted_elsewhere("s", ZERO)
        assert fleet.owner(ZERO) == ("java", "a")
        assert events.LeaseWanted("s", ZERO, "java") in fleet.emitted["a"]
        await fleet.advance(10)
        await checkpoints.advance(fleet.shards[0], Checkpoint(9, 0, 3))
        assert fleet.rows()[ZERO].checkpoint.text == "9"
        await worker.release("s", ZERO)
        assert fleet.owner(ZERO) == ("java", None)
        assert fleet.holders()["a"] == []
        assert events.LeaseDropped("s", ZERO, "handed_over") in fleet.emitted["a"]
        with pytest.raises(LeaseLost):
            await checkpoints.advance(fleet.shards[0], Checkpoint(10, 0, 3))

    play(LedFleet, test)


def test_a_hand_off_that_takes_too_long_is_ended_before_the_leader_ends_it():
    async def test(fleet):
        await fleet.join("a")
        fleet.assign(ZERO, "a")
        await fleet.advance(2)
        fleet.begin_hand_off(ZERO, "java")
        await fleet.advance(29)
        assert fleet.owner(ZERO) == ("java", "a")
        await fleet.advance(6)
        assert fleet.owner(ZERO) == ("java", None)
        assert fleet.holders()["a"] == []

    play(LedFleet, test)


def test_a_lease_the_leader_withdraws_is_lost_and_not_taken_back():
    async def test(fleet):
        await fleet.join("a")
        fleet.assign(ZERO, "a")
        await fleet.advance(2)
        fleet.assign(ZERO, "java")
        await fleet.advance(40)
        assert fleet.owner(ZERO) == ("java", None)
        assert fleet.holders()["a"] == []

    play(LedFleet, test)


def test_a_leaving_worker_withdraws_its_report_and_then_gives_its_leases_away():
    async def test(fleet):
        await fleet.join("a", "b")
        fleet.assign(ZERO, "a")
        await fleet.advance(12)
        fleet.dynamo.requests.clear()
        await fleet.leave("a")
        writes = [(operation, table) for operation, table, _ in fleet.dynamo.requests if operation in {"DeleteItem", "UpdateItem"}]
        assert writes[0] == ("DeleteItem", "app-WorkerMetricStats")
        assert "a" not in fleet.dynamo.reports
        assert fleet.owner(ZERO) == ("b", None)
        await fleet.advance(2)
        assert fleet.holders()["b"] == [ZERO]

    play(LedFleet, test)


def test_a_worker_that_has_just_joined_inherits_too():
    async def test(fleet):
        await fleet.join("a")
        fleet.alive = False
        del fleet.dynamo.reports["java"]
        fleet.assign(ZERO, "a")
        fleet.assign(ONE, "a")
        await fleet.advance(2)
        await fleet.join("b")
        worker = fleet.workers["a"]
        worker.table.client = YieldingTable(fleet.dynamo)

        async def finish(shard_id):
            await worker.stop_taking()
            await worker.release("s", shard_id)

        await asyncio.gather(finish(ZERO), finish(ONE))
        assert fleet.owner(ZERO) == fleet.owner(ONE) == ("b", None)

    play(LedFleet, test)


def test_a_lease_assigned_to_a_leaving_worker_is_passed_on_to_another():
    async def test(fleet):
        await fleet.join("a", "b")
        await fleet.advance(12)
        await fleet.workers["a"].stop_taking()
        fleet.assign(ZERO, "a")
        await fleet.advance(3)
        assert fleet.holders() == {"a": [], "b": [ZERO]}
        await fleet.advance(30)
        assert fleet.dynamo.reports.keys() == {"java", "b"}

    play(LedFleet, test)


def test_a_late_report_does_not_bring_back_a_worker_that_left():
    async def test(fleet):
        await fleet.join("a")
        await fleet.advance(11)
        late = [request for operation, table, request in fleet.dynamo.requests if operation == "UpdateItem" and table.endswith("Stats")][-1]
        await fleet.workers["a"].stop_taking()
        with pytest.raises(Exception, match="condition"):
            await fleet.dynamo.call("UpdateItem", "app-WorkerMetricStats", late)
        assert "a" not in fleet.dynamo.reports

    play(LedFleet, test)


def test_a_table_without_a_living_kcl_belongs_to_the_remaining_workers():
    async def test(fleet):
        await fleet.join("a")
        fleet.alive = False
        await fleet.advance(115)
        assert fleet.holders()["a"] == []
        await fleet.advance(40)
        assert fleet.holders()["a"] == [ZERO, ONE]
        assert fleet.emitted["a"].count(events.FleetLed("", "", led=False, leader="")) == 1
        fleet.alive = True
        fleet._beat()
        await fleet.advance(31)
        assert fleet.workers["a"].follower.following
        assert fleet.holders()["a"] == [ZERO, ONE]

    play(LedFleet, test)


def test_a_leader_that_ended_cleanly_is_not_waited_for_as_long():
    async def test(fleet):
        fleet.alive = False
        del fleet.dynamo.other["Leader"]
        await fleet.join("a")
        await fleet.advance(9)
        assert fleet.holders()["a"] == []
        await fleet.advance(15)
        assert fleet.holders()["a"] == [ZERO, ONE]

    play(LedFleet, test)


def test_after_a_rollback_to_2_x_leases_are_taken_again_and_the_report_is_removed():
    async def test(fleet):
        await fleet.join("a")
        fleet.dynamo.other["Migration3.0"]["cv"] = {"S": "CLIENT_VERSION_2X"}
        await fleet.advance(60)
        assert len(fleet.holders()["a"]) == 1
        assert "a" not in fleet.dynamo.reports

    play(LedFleet, test)


def test_a_fleet_upgrading_to_3_x_gets_reports_and_shares_by_the_rules_of_2_x():
    async def test(fleet):
        fleet.dynamo.other["Migration3.0"]["cv"] = {"S": "CLIENT_VERSION_UPGRADE_FROM_2X"}
        await fleet.join("a")
        await fleet.advance(60)
        assert "a" in fleet.dynamo.reports
        assert len(fleet.holders()["a"]) == 1

    play(LedFleet, test)


def test_a_fleet_of_kcl_3_5_keeps_everything_in_the_lease_table():
    async def test(fleet):
        for key, row in fleet.dynamo.other.items():
            fleet.dynamo.items[key] = {**row, "leaseKey": {"S": key}, "entityType": {"S": "X"}}
        fleet.dynamo.other = {}
        await fleet.join("a")
        report = fleet.dynamo.items["a"]
        assert report["entityType"] == {"S": "WORKER_METRIC_STATS"}
        fleet.assign(ZERO, "a")
        await fleet.advance(2)
        assert fleet.holders()["a"] == [ZERO]
        assert not [event for event in fleet.emitted["a"] if isinstance(event, events.LeaseRowUnreadable)]
        await fleet.workers["a"].stop_taking()
        assert "a" not in fleet.dynamo.items

    play(LedFleet, test)


def test_a_withdrawal_that_is_never_answered_does_not_delay_the_drain():
    async def test(fleet):
        await fleet.join("a")
        fleet.dynamo.faults = ["lost_before"] * 1000
        leaving = asyncio.ensure_future(fleet.workers["a"].follower.leave())
        await fleet.clock.advance(5)
        await settle()
        assert leaving.done()
        fleet.dynamo.faults.clear()

    play(LedFleet, test)
