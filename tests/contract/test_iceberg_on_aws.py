"""The Iceberg warehouse with moto's Glue catalog and S3, by the real clients, and the permissions that these need."""

import asyncio
from collections import defaultdict
from pathlib import Path

import boto3
import botocore.client
import pytest
from pyiceberg.catalog import load_catalog

from stream.aws.errors import AwsFatal
from stream.aws.session import AwsSession
from stream.clock import SystemClock
from stream.local.start import LocalAws
from stream.pipeline.access.actions import needed
from stream.pipeline.checks.lint import check_content
from stream.sink.iceberg import IcebergSinkConfig
from stream.storage.memory import MemoryStore
from stream.storage.open import open_store
from stream.worker.tables.iceberg import IcebergWarehouse
from stream.worker.tables.iceberg_catalog import CatalogTable
from stream.worker.tables.iceberg_properties import catalog_properties
from stream.worker.tables.loaded_positions import LoadedPositions
from stream.worker.tables.warehouse import LoadFailed
from tests.contract import warehouse as contract
from tests.contract.warehouse import Bench, load_of, staged

SHARED = [each for each in contract.BEHAVIOURS if each is not contract.knows_what_was_loaded_by_when]
PIPELINE = b"""\
application: flights
source:
  kinesis: {stream: events}
  schema: {n: int64}
sinks:
  - iceberg: {location: "s3://lake/events/", table: lake.events}
state: "s3://lake/_stream/"
"""


@pytest.fixture(scope="module")
def local():
    with LocalAws() as running:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=running.moto.url, **keys)
        client.create_bucket(Bucket="lake")
        client.close()
        glue = boto3.client("glue", endpoint_url=running.moto.url, **keys)
        glue.create_database(DatabaseInput={"Name": "lake"})
        glue.close()
        yield running.environment()


@pytest.fixture
def aws(local, monkeypatch):
    for name, value in local.items():
        monkeypatch.setenv(name, value)


async def no_secret(reference):
    raise AssertionError(reference)


def bench_of(table, database="lake"):
    config = IcebergSinkConfig.model_validate({"location": f"s3://lake/{table}/", "table": f"{database}.{table}"})
    session = AwsSession()
    properties = catalog_properties(config, session, no_secret)

    async def count():
        with load_catalog("reader", **await properties()) as catalog:
            return catalog.load_table(config.table).scan().to_arrow().num_rows if catalog.table_exists(config.table) else 0

    table = CatalogTable(config, config.url, properties)
    warehouse = IcebergWarehouse(
        table, "flights", "events", LoadedPositions(MemoryStore(url="memory:state"), "lake", "events", ("lake",)), SystemClock()
    )
    return Bench(warehouse, config, open_store(config.url, session), count)


@pytest.mark.parametrize("behaviour", SHARED, ids=lambda each: each.__name__)
def test_it_keeps_the_promises_of_a_warehouse(aws, behaviour):
    asyncio.run(behaviour(bench_of(behaviour.__name__)))


def test_calls_to_glue_are_exactly_those_the_policy_allows(aws, monkeypatch):
    asked = defaultdict(set)
    call = botocore.client.BaseClient._make_api_call

    def noted(self, operation, given):
        asked[self.meta.service_model.endpoint_prefix].add(operation)
        return call(self, operation, given)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", noted)

    async def run():
        bench = bench_of("asked")
        assert await bench.warehouse._catalog.describe() == "allowed; the table does not exist yet"
        first, second = load_of(await staged(bench, "a", 0, 10, 1)), load_of(await staged(bench, "a", 10, 20, 1))
        await bench.warehouse.fit(first.layout)
        await bench.warehouse.load(first)
        await bench.warehouse.load(second)
        assert len(await bench.warehouse._catalog.files()) == 2

    asyncio.run(run())
    found = check_content(PIPELINE, "pipeline.yaml", Path(), {})
    (allowed,) = [each for each in needed(found.pipeline) if each.service == "glue"]
    assert {f"glue:{operation}" for operation in asked["glue"]} == set(allowed.actions)
    assert allowed.resources == tuple(f"arn:aws:glue:*:*:{name}" for name in ("catalog", "database/lake", "table/lake/events"))


def test_the_remedy_for_a_missing_database_is_to_create_it(aws):
    with pytest.raises(AwsFatal, match="Glue has no database nobody") as refused:
        asyncio.run(bench_of("events", database="nobody").warehouse._catalog.describe())
    assert refused.value.remedy.startswith("create it")


def test_a_missing_database_is_created_or_the_denial_reported(aws, monkeypatch):
    call = botocore.client.BaseClient._make_api_call

    def denied(self, operation, given):
        if operation == "CreateDatabase":
            answer = {"Error": {"Code": "AccessDeniedException", "Message": "not authorized to perform: glue:CreateDatabase"}}
            raise botocore.exceptions.ClientError(answer, operation)
        return call(self, operation, given)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", denied)

    async def run():
        bench = bench_of("events", database="nobody")
        link = await staged(bench, "a", 0, 10, 1)
        with pytest.raises(LoadFailed, match="glue:CreateDatabase"):
            await bench.warehouse.fit(link.layout)

    asyncio.run(run())


def test_renewed_keys_reopen_the_catalog_and_unchanged_keys_do_not(aws, monkeypatch):
    bench = bench_of("renewed")
    opened, closed, keys = [], [], iter(["first", "first", "second", "third"])

    async def properties():
        return {"type": "glue", "client.region": "us-east-1", "client.access-key-id": next(keys), "client.secret-access-key": "test"}

    def noted(**given):
        opened.append(given["client.access-key-id"])
        catalog = load_catalog(**given)
        monkeypatch.setattr(catalog, "close", lambda: closed.append(given["client.access-key-id"]))
        return catalog

    monkeypatch.setattr("pyiceberg.catalog.load_catalog", noted)
    table = CatalogTable(bench.config, bench.config.url, properties)
    for _ in range(3):
        assert asyncio.run(table.files()) == []
    assert (opened, closed) == (["first", "second"], ["first"])
    table.close()
    table.close()
    assert closed == opened
    assert asyncio.run(table.files()) == []
    assert opened == ["first", "second", "third"]
