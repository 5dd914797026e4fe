"""For how long a worker may believe that it has a lease: less long than any other worker waits."""

import asyncio
from dataclasses import replace

import pytest

from stream import events
from stream.aws.errors import AwsFatal
from stream.errors import LeaseLost
from stream.lease.holding import Holdings
from stream.lease.rows import ExtendedSequenceNumber, Progress
from stream.lease.settings import LeaseSettings
from tests.unit.lease.tables import FakeClock, MemoryDynamo, lease, table_on

SLOW = 4.0
"""Seconds between a request and its effect on the table."""
SETTINGS = LeaseSettings(failover=10.0)
KEY = "shardId-0"


class SlowDynamo(MemoryDynamo):
    """A table to which requests take some time."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    async def call(self, operation, table, request):
        self.clock.seconds += SLOW
        return await super().call(operation, table, request)


def test_a_lease_is_valid_for_the_failover_time_from_before_each_request():
    """Others may have seen the row at any time since; they take the lease once they have seen it unchanged for the failover time."""

    async def run():
        clock, heard = FakeClock(), []
        table = table_on(SlowDynamo(clock), clock)
        await table.create(lease(KEY))
        holdings = Holdings(table, "me", SETTINGS, clock, heard.append, lambda: None)
        asked = clock.monotonic()
        holdings.add("s", await table.take(lease(KEY), "me"), asked)
        assert holdings.held[KEY].until == asked + SETTINGS.failover

        clock.seconds = asked = asked + SETTINGS.renew_every + SLOW
        await holdings.renew(KEY)
        assert holdings.held[KEY].until == asked + SETTINGS.failover

        clock.seconds = asked = asked + SLOW
        shown = ExtendedSequenceNumber("5")
        await holdings.checkpoint(KEY, shown, Progress(5, 0, 0, shown))
        assert holdings.held[KEY].until == asked + SETTINGS.failover

        clock.seconds = asked + SETTINGS.failover
        holdings.expire()
        assert KEY in holdings.held
        clock.seconds += 0.001
        holdings.expire()
        assert [event.why for event in heard if isinstance(event, events.LeaseDropped)] == ["expired"]
        with pytest.raises(LeaseLost):
            await holdings.checkpoint(KEY, shown, Progress(5, 0, 0, shown))

    asyncio.run(run())


def play(test):
    """Runs ``test`` with a table that answers at once, its clock, and holdings with the lease of ``KEY``; events and changes are noted."""

    async def body():
        clock, dynamo, heard = FakeClock(), MemoryDynamo(), []
        table = table_on(dynamo, clock)
        await table.create(lease(KEY))
        holdings = Holdings(table, "me", SETTINGS, clock, heard.append, lambda: heard.append("changed"))
        holdings.add("s", await table.take(lease(KEY), "me"), clock.monotonic())
        await test(holdings, dynamo, clock, heard)

    asyncio.run(asyncio.wait_for(body(), 120))


def dropped(heard):
    return [event.why for event in heard if isinstance(event, events.LeaseDropped)]


def test_a_release_that_gets_no_answer_ends_with_the_lease_and_holds_up_nobody_who_leaves():
    async def test(holdings, dynamo, clock, heard):
        dynamo.throttling = True
        releasing = asyncio.ensure_future(holdings.release(KEY))
        await clock.advance(SETTINGS.failover)
        assert releasing.done()
        await releasing
        assert holdings.held == {}
        assert dropped(heard) == ["expired"]

    play(test)


def test_when_the_table_cannot_be_used_any_more_renewing_ends_with_the_reason():
    async def test(holdings, dynamo, clock, heard):
        dynamo.denied = {"UpdateItem"}
        renewing = asyncio.ensure_future(holdings.keep_renewed())
        await clock.advance(SETTINGS.renew_every + 1)
        assert renewing.done()
        with pytest.raises(AwsFatal, match="UpdateItem is not allowed"):
            await renewing

    play(test)


def test_whoever_waits_for_changes_hears_when_a_lease_is_added_wanted_elsewhere_and_dropped():
    async def test(holdings, dynamo, clock, heard):
        assert heard == ["changed"]
        holdings.refresh(replace(holdings.held[KEY].lease, owner="next", checkpoint_owner="me"))
        assert [event for event in heard if event != "changed"] == [events.LeaseWanted("s", KEY, "next")]
        assert heard.count("changed") == 2
        holdings.drop(KEY, "vanished")
        assert heard.count("changed") == 3

    play(test)


@pytest.mark.parametrize(
    ("counter", "owner", "writing", "held"),
    [
        (+1, "other", False, False),
        (+1, "me", False, True),  # its own renewal, which the scan has seen and this worker has no answer to yet
        (-1, "other", False, True),  # a scan that began before the lease was taken
        (+1, "other", True, True),
    ],
)
def test_a_lease_is_lost_once_a_scan_finds_a_later_row_of_another_owner_and_no_write_is_in_flight(counter, owner, writing, held):
    async def test(holdings, dynamo, clock, heard):
        mine = holdings.held[KEY]
        if writing:
            await mine.lock.acquire()
        holdings.refresh(replace(mine.lease, counter=mine.lease.counter + counter, owner=owner, signed=owner))
        assert (KEY in holdings.held) is held
        assert dropped(heard) == ([] if held else ["lost"])

    play(test)


@pytest.mark.parametrize("received", [False, True])
def test_a_shard_without_an_answer_is_within_reach_again_once_it_is_read_to_its_tip_with_nothing_left_to_seal(received):
    async def test(holdings, dynamo, clock, heard):
        holdings.work_on(KEY, sealed=False, records=received)
        holdings.refuse(KEY, begins_anew=False)
        holdings.work_on(KEY, sealed=False)
        assert holdings.held[KEY].refused is received
        holdings.work_on(KEY, sealed=True)
        assert not holdings.held[KEY].refused

    play(test)
