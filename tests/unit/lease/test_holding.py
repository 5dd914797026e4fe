"""For how long a worker may believe that it has a lease: less long than any other worker waits."""

import asyncio

import pytest

from stream import events
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
