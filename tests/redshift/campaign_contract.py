# ruff: noqa: S608 - the names of tables are our own
"""The table on PostgreSQL, through the real client, keeps the promises that the table in memory keeps."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from stream.aws.redshift_data import Database, open_redshift_data
from stream.aws.session import AwsSession
from stream.clock import SystemClock
from stream.sink.redshift import COPY_MANIFESTS
from stream.sink.redshift_sql import Owner
from stream.storage.open import open_store
from stream.worker.tables.warehouse import LoadFailed, RedshiftWarehouse
from tests.contract.warehouse import BEHAVIOURS, Bench, config, load_of, staged
from tests.redshift.double.server import SERIALIZABLE, SNAPSHOT


@pytest.mark.parametrize("login", [{}, {"workgroup": None, "cluster": "main", "db_user": "loader"}], ids=["serverless", "provisioned"])
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda each: each.__name__)
def test_the_warehouse_on_postgresql_keeps_the_promises(world, behaviour, login):
    async def run():
        async with a_bench(world, "one", **login) as bench:
            await behaviour(bench)

    asyncio.run(run())


@asynccontextmanager
async def a_bench(world, nonce, **options):
    settings, session = config(world.bucket, world.table, **options), AwsSession()
    staging = open_store(settings.url, session)
    database = Database(settings.database, settings.cluster, settings.workgroup, settings.db_user, settings.secret_arn)

    async def count():
        return await asked(world, f'SELECT COUNT(*) FROM "{world.table}"')

    async with open_redshift_data(session, database) as client:
        warehouse = RedshiftWarehouse(client, settings, Owner("app", "events"), staging, SystemClock(), f"{nonce}-{world.table}")
        yield Bench(warehouse, settings, staging, count)


def test_a_ledger_that_is_dropped_while_the_loader_runs_is_made_anew(world):
    """That is how everything is loaded again (docs/redshift.md), and nobody should have to start the workers anew for it."""

    async def run():
        async with a_bench(world, "one") as bench:
            load = load_of(await staged(bench, "a", 0, 10, 3))
            await bench.warehouse.positions()
            await bench.warehouse.fit(load.layout)
            await bench.warehouse.load(load)
            await executed(world, f'DROP TABLE "{world.table}", "{world.table}__loads"')
            with suppress(LoadFailed):
                await bench.warehouse.positions()
            assert await bench.warehouse.positions() == {}
            await bench.warehouse.fit(load.layout)
            await executed(world, f'DROP TABLE "{world.table}__loads"')
            with pytest.raises(LoadFailed, match="at step `lock`"):
                await bench.warehouse.load(load)
            assert await bench.warehouse.positions() == {}
            await bench.warehouse.load(load)
            assert await bench.count() == 3
            assert [info.key async for info in bench.staging.list(COPY_MANIFESTS)] == []

    asyncio.run(run())


async def executed(world, sql):
    connection = await world.double.connect()
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def asked(world, sql):
    connection = await world.double.connect()
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


class Together:
    """Holds the first batch right before COMMIT until the second is as far, or waits for a lock."""

    waits = False

    def __init__(self, world):
        self.world = world
        self.arrived = 0

    async def __call__(self, point):
        if point == "commit:before":
            self.arrived += 1
            while self.arrived < 2 and not await asked(self.world, "SELECT COUNT(*) FROM pg_locks WHERE NOT granted"):
                pass
        return ""


@pytest.mark.parametrize("mode", [{}, {"mode": "upsert", "keys": ["n"]}], ids=["append", "upsert"])
@pytest.mark.parametrize("isolation", [SNAPSHOT, SERIALIZABLE])
def test_of_two_concurrent_transactions_exactly_one_loads_a_unit(world, redshift, isolation, mode):
    async def run():
        async with a_bench(world, "one", **mode) as bench, a_bench(world, "two", **mode) as other:
            load = load_of(await staged(bench, "a", 0, 10, 3))
            for each in (bench, other):
                await each.warehouse.positions()
                await each.warehouse.fit(load.layout)
            redshift.isolation, together = isolation, Together(world)

            def hook(point):
                return together(point) if point.startswith(("statement", "commit:before")) else ""

            redshift.hook = hook
            results = await asyncio.gather(bench.warehouse.load(load), other.warehouse.load(load), return_exceptions=True)
            assert sorted(type(each).__name__ for each in results) == ["LoadFailed", "NoneType"]
            assert await bench.count() == 3
            assert await asked(world, f'SELECT COUNT(*) FROM "{world.table}__loads"') == 1

    asyncio.run(run())
