"""The behaviours of every warehouse on the one in memory; ``make redshift`` runs the same on PostgreSQL."""

import asyncio

import pytest

from stream.clock import SystemClock
from stream.storage.memory import MemoryStore
from tests.contract.warehouse import BEHAVIOURS, Bench, MemoryWarehouse, config


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda each: each.__name__)
def test_the_table_in_memory_keeps_the_promises_of_a_warehouse(behaviour):
    staging = MemoryStore(url="s3://lake/staging/")
    warehouse = MemoryWarehouse(staging, SystemClock())

    async def count():
        return len(warehouse.rows)

    asyncio.run(behaviour(Bench(warehouse, config(), staging, count)))
