# ruff: noqa: S608 - the names of tables are our own
"""The table on PostgreSQL, through the real client, keeps the promises that the table in memory keeps."""

import asyncio

import pytest

from stream.aws.redshift_data import Database, open_redshift_data
from stream.aws.session import AwsSession
from stream.clock import SystemClock
from stream.sink.redshift_sql import Whose
from stream.storage.open import open_store
from stream.worker.warehouse import RedshiftWarehouse
from tests.contract.warehouse import BEHAVIOURS, Bench, config


@pytest.mark.parametrize("login", [{}, {"workgroup": None, "cluster": "main", "db_user": "loader"}], ids=["serverless", "provisioned"])
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda each: each.__name__)
def test_on_postgresql(world, behaviour, login):
    async def run():
        settings, session = config(world.bucket, world.table, **login), AwsSession()
        staging = open_store(settings.url, session)
        database = Database(settings.database, settings.cluster, settings.workgroup, settings.db_user, settings.secret_arn)

        async def count():
            connection = await world.double.connect()
            try:
                return await connection.fetchval(f'SELECT COUNT(*) FROM "{world.table}"')
            finally:
                await connection.close()

        async with open_redshift_data(session, database) as client:
            warehouse = RedshiftWarehouse(client, settings, Whose("app", "events"), staging, SystemClock(), f"nonce-{world.table}")
            await behaviour(Bench(warehouse, settings, staging, count))

    asyncio.run(run())
