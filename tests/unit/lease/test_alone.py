from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from stream.contracts import StartKind
from stream.errors import Fatal
from stream.lease.alone import observe_alone
from stream.lease.rows import encode
from stream.lease.settings import LeasedStream, LeaseSettings
from tests.unit.lease.tables import FakeClock, MemoryDynamo, lease, table_on

OURS = lease("shardId-0", owner="w-1", signed="w-1")
JAVA = lease("shardId-1", owner="java-1", signed="w-1")


def refused(rows, renewed):
    """What a run that wants all leases is told if ``renewed`` is the first of ``rows`` whose lease changes."""

    async def body():
        clock, dynamo = FakeClock(), MemoryDynamo()
        dynamo.tables.add("app")
        dynamo.items = {row.key: encode(row) for row in rows}
        streams = [LeasedStream("s", StartKind.TRIM_HORIZON, None)]
        asking = asyncio.ensure_future(observe_alone(table_on(dynamo, clock), streams, LeaseSettings(), clock))
        await clock.advance(0.0)
        dynamo.items[renewed.key] = encode(replace(renewed, counter=renewed.counter + 1))
        await clock.advance(LeaseSettings().look)
        return await asking

    with pytest.raises(Fatal) as error:
        asyncio.run(body())
    return str(error.value)


def test_beside_workers_of_ours_it_is_told_to_wait_for_them():
    message = refused([OURS], OURS)
    assert message.startswith("workers hold leases in the table app: w-1 reads shardId-0")
    assert "`stream complete FILE" in message


@pytest.mark.parametrize("renewed", [OURS, JAVA], ids=["ours", "java"])
def test_beside_a_java_kcl_it_is_told_to_stop_that_whichever_worker_renews_first(renewed):
    message = refused([OURS, JAVA], renewed)
    assert message.startswith("workers of another application, such as a Java KCL, hold leases in the table app: java-1 reads shardId-1")
    assert "`stream complete" not in message
