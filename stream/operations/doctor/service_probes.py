"""Checks of what a pipeline may need besides streams and buckets: lease table, fan-out consumer, warehouse, and notifications.

Each action is tried as a worker will use it, but in a form that changes nothing: writes to the lease table have a condition that no row
and no missing row meets, and the warehouse runs `SELECT 1`.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from stream.aws.dynamodb import TABLE_MISSING, ConditionFailed, DynamoDb, open_dynamodb
from stream.aws.errors import NOT_FOUND, AccessRefused, AwsFatal
from stream.aws.fan_out import ACTIVE, describe_consumer
from stream.aws.kinesis import open_kinesis
from stream.aws.redshift_data import Database, RedshiftDataClient, open_redshift_data
from stream.aws.session import AwsSession
from stream.aws.sns import look_at
from stream.clock import SystemClock
from stream.errors import Fatal
from stream.lease.fleet import FleetTables
from stream.lease.fleet_rules import refusal, reports
from stream.lease.rows import LEASE_KEY, key_text
from stream.lease.table import LeaseTable
from stream.operations.doctor.probe import GRANT_REMEDY, Note, Probe
from stream.pipeline.coordination import LeaseTables, NativeCoordination
from stream.pipeline.model import KinesisSource, Retrieval
from stream.pipeline.replay import Notify
from stream.sink import redshift_sql as sql
from stream.sink.layouts import Layout
from stream.sink.redshift import RedshiftSinkConfig
from stream.sink.redshift_evolve import ExistingColumn, evolve
from stream.stream_ids import parse

ROW_CALLS: Final = ("Scan", "GetItem", "PutItem", "UpdateItem", "DeleteItem")
"""Every operation that workers perform on rows."""

PROBE_ROW: Final = "_preflight/doctor"

Opened: TypeAlias = Callable[[], AbstractAsyncContextManager[DynamoDb]]

_PAUSE: Final = 0.2
"""Seconds between queries for the state of a statement, in addition to the wait in the API itself."""

_NETWORK: Final = "check the network policy, VPC endpoints and DNS"
_ALTER: Final = "the pipeline's columns and the table's have to agree before anything can be loaded; nothing is lost meanwhile"
_MAKE_TABLE: Final = "create the table beforehand: with the CloudFormation template, or with the role `bootstrap` of `stream iam`"


# --- leases ----------------------------------------------------------------------------------------------------------------------


def lease_probes(native: NativeCoordination, application: str) -> Iterator[Probe]:
    """One probe for the table itself, one for each action on its rows, one for a fleet that a worker must not join."""
    tables = native.tables(application)
    name = tables.leases
    opened = functools.partial(dynamodb, native.region, native.endpoint)
    described = functools.partial(_described, opened, name, create=native.create_table)
    yield Probe("leases", f"dynamodb:DescribeTable on table {name}", described, _MAKE_TABLE)
    for operation in ROW_CALLS:
        yield Probe("leases", f"dynamodb:{operation} on table {name}", functools.partial(row_call, opened, (name, LEASE_KEY), operation))
    yield Probe("leases", f"who else uses table {name}", functools.partial(_fleet, opened, tables))


@asynccontextmanager
async def dynamodb(region: str | None, endpoint: str | None = None) -> AsyncIterator[DynamoDb]:
    """A client for one check."""
    session = AwsSession(region=region, endpoints={"dynamodb": endpoint} if endpoint else None)
    async with open_dynamodb(session, SystemClock()) as client:
        yield client


async def _described(opened: Opened, name: str, *, create: bool) -> str:
    async with opened() as client:
        try:
            found = (await client.call("DescribeTable", name, {}))["Table"]
        except AwsFatal as error:
            if error.code != TABLE_MISSING or not create:
                raise
            msg = "there is no such table; the first worker creates it, which needs dynamodb:CreateTable, and that was not tried"
            raise Note(msg) from error
    if found["TableStatus"] not in {"ACTIVE", "UPDATING"}:
        msg = f"the table is {found['TableStatus']}; workers need it ACTIVE or UPDATING"
        raise Fatal(msg)
    types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
    if key_text(found) != f"`{LEASE_KEY}` (HASH)" or types.get(LEASE_KEY) != "S":
        msg = f"its key is {key_text(found)}; a lease table has the hash key `leaseKey`, a string, and no other; choose another `table`"
        raise Fatal(msg)
    return f"{found['TableStatus']}, with the key that the Kinesis Client Library uses"


async def row_call(opened: Opened, table: tuple[str, str], operation: str) -> str:
    """Try ``operation`` of ``ROW_CALLS`` on a table (its name, and that of its hash key, a string), in a form that changes no row.

    Raises:
        Noted: there is no such table.
        AwsFatal: it is not allowed.
    """
    name, key = table
    async with opened() as client:
        try:
            await client.call(operation, name, _harmless(key)[operation])
        except ConditionFailed:
            return "allowed; nothing was written"
        except AwsFatal as error:
            if error.code == TABLE_MISSING:
                msg = "cannot be tried while there is no table"
                raise Note(msg) from error
            raise
    return "allowed"


def _harmless(key: str) -> dict[str, dict[str, Any]]:
    row = {key: {"S": PROBE_ROW}}
    # No row and no missing row meets this condition: DynamoDB checks with IAM and then refuses to write.
    never = {"ConditionExpression": "attribute_exists(#key) AND attribute_not_exists(#key)", "ExpressionAttributeNames": {"#key": key}}
    change = {"UpdateExpression": "SET sxOp = :none", "ExpressionAttributeValues": {":none": {"S": ""}}}
    return {
        "Scan": {"Limit": 1},
        "GetItem": {"Key": row},
        "PutItem": {"Item": row, **never},
        "UpdateItem": {"Key": row, **change, **never},
        "DeleteItem": {"Key": row, **never},
    }


async def _fleet(opened: Opened, tables: LeaseTables) -> str:
    async with opened() as client:
        table = LeaseTable(client, tables.leases, SystemClock(), lambda _: None, secrets.token_urlsafe)
        try:
            version = (await FleetTables(table, SystemClock(), lambda _: None, (tables.state, tables.reports)).migration_state()).version
            found = (await table.scan()).leases if await table.exists() else []
        except AccessRefused:
            raise
        except AwsFatal as error:
            msg = f"cannot be determined: {error}"
            raise Note(msg) from error
    owners = sorted({lease.owner or "" for lease in found if lease.owned_elsewhere and not lease.ended})
    others = f"; other workers, such as those of KCL 2.x, have leases: {', '.join(owners)}" if owners else ""
    if (why := refusal(tables.leases, version)) is not None:
        raise Fatal(why)
    return f"a fleet of KCL 3.x ({version}), whose leader a worker follows" if reports(version) else f"no fleet of KCL 3.x{others}"


# --- fan-out ---------------------------------------------------------------------------------------------------------------------


def consumer_probes(kinesis: KinesisSource, application: str, session: AwsSession) -> Iterator[Probe]:
    """One probe per stream, if records are pushed."""
    if kinesis.retrieval is not Retrieval.FAN_OUT:
        return
    name = kinesis.consumer or application
    for stream in kinesis.names:
        describe = functools.partial(_consumer, session, stream, name)
        remedy = "register it with the CloudFormation template (EnhancedFanOut), or allow what `stream iam` prints; until then workers poll"
        yield Probe("consumer", f"kinesis:DescribeStreamConsumer on {name} of {stream}", describe, remedy)


async def _consumer(session: AwsSession, stream: str, name: str) -> str:
    async with open_kinesis(session) as client:
        shared = parse(stream)
        arn = shared.arn if shared is not None else (await client.describe_stream_summary(stream)).arn
        try:
            found = await describe_consumer(client, arn, name)
        except AwsFatal as error:
            if error.code == NOT_FOUND:
                msg = "it is not registered; the first worker registers it with kinesis:RegisterStreamConsumer, which was not tried"
                raise Note(msg) from error
            # A worker without this permission polls.
            raise Note(str(error)) from error
    if found.status != ACTIVE:
        msg = f"it is {found.status}; workers poll until it is {ACTIVE}"
        raise Note(msg)
    return found.status


# --- the warehouse ---------------------------------------------------------------------------------------------------------------


def warehouse_probes(sink: RedshiftSinkConfig, session: AwsSession) -> Iterator[Probe]:
    """Two probes: a statement whose result is read, and a batch. They log in as the loader does, and so wake a sleeping workgroup."""
    database = Database(sink.database, sink.cluster, sink.workgroup, sink.db_user, sink.secret_arn)
    remedy = f"{GRANT_REMEDY}; check cluster or workgroup, database and db_user of the sink, and that they let this role log in"
    for what, run in (("ExecuteStatement, DescribeStatement, GetStatementResult", _statement), ("BatchExecuteStatement", _batch)):
        yield Probe("warehouse", f"redshift-data:{what} on {database}", functools.partial(_in_database, session, database, run), remedy)


async def _in_database(session: AwsSession, database: Database, run: Callable[[RedshiftDataClient], Any]) -> str:
    async with open_redshift_data(session, database) as client:
        await run(client)
    return "allowed; SELECT 1 ran"


async def _statement(client: RedshiftDataClient) -> None:
    statement = await client.execute("SELECT 1", secrets.token_hex(16))
    await _finished(client, statement)
    await client.result(statement)


async def _batch(client: RedshiftDataClient) -> None:
    await _finished(client, await client.batch_execute(["SELECT 1"], secrets.token_hex(16)))


async def _finished(client: RedshiftDataClient, statement: str, what: str = "SELECT 1") -> None:
    """Wait for the statement to end; the caller limits the time."""
    clock = SystemClock()
    while not (found := await client.describe(statement)).done:
        await clock.sleep(_PAUSE)
    if found.status != "FINISHED":
        msg = f"{what} is {found.status}: {found.error}"
        raise Fatal(msg)


def fitting_probe(sink: RedshiftSinkConfig, session: AwsSession, layout: Callable[[], Awaitable[Layout]], shard_bytes: int) -> Probe:
    """Whether the table, as it is now, can take rows of ``layout``; somebody may have changed it by hand.

    ``shard_bytes``: the most bytes of ``_shard`` in them.
    """
    database = Database(sink.database, sink.cluster, sink.workgroup, sink.db_user, sink.secret_arn)
    return Probe(
        "table", f"{'.'.join(sink.target)} on {database}", functools.partial(_fits, sink, session, database, layout, shard_bytes), _ALTER
    )


async def _fits(
    sink: RedshiftSinkConfig, session: AwsSession, database: Database, layout: Callable[[], Awaitable[Layout]], shard_bytes: int
) -> str:
    wanted = await layout()
    async with open_redshift_data(session, database) as client:
        statement = await client.execute(sql.describe_table(sink.target), secrets.token_hex(16))
        try:
            await _finished(client, statement, "looking at its columns")
        except Fatal as error:
            if not sink.create or not sql.is_missing(str(error)):
                raise
            if await _was_loaded(client, sink):
                raise Fatal(sql.missing_table(sink)) from error
            await _refuse_without_schema(client, sink)
            return "it does not exist yet; the first load makes it"
        found = [ExistingColumn(each.name, each.type, each.length) for each in (await client.result(statement)).columns]
    change = evolve(sink, sink.target, wanted, found, shard_bytes)
    if change.problems:
        raise Fatal("; ".join(change.problems))
    return f"its columns fit; the next load adds {len(change.statements)}" if change.statements else "its columns fit"


async def _refuse_without_schema(client: RedshiftDataClient, sink: RedshiftSinkConfig) -> None:
    """Make sure that the table can be made, as far as that can be found out."""
    statement = await client.execute(sql.may_create(sink), secrets.token_hex(16))
    try:
        await _finished(client, statement, "looking at its schema")
    except Fatal:
        return
    rows, schema = (await client.result(statement)).rows, sink.target[0]
    if rows and rows[0][0]:
        return
    problem = f'permission denied for schema "{schema}"' if rows else f'schema "{schema}" does not exist'
    msg = f"the first load could not make the table: {problem}{sql.schema_remedy(problem)}"
    raise Fatal(msg)


async def _was_loaded(client: RedshiftDataClient, sink: RedshiftSinkConfig) -> bool:
    """Whether the load ledger says that rows were loaded into the table."""
    statement = await client.execute(sql.most_rows(sink), secrets.token_hex(16))
    try:
        await _finished(client, statement, "looking at its load ledger")
    except Fatal as error:
        if sql.is_missing(str(error)):
            return False
        raise
    return bool((await client.result(statement)).rows[0][0])


# --- notifications ---------------------------------------------------------------------------------------------------------------


def notice_probes(notify: Notify) -> Iterator[Probe]:
    """One probe for the topic, one for the webhook. Notifications never hold up a shard, so problems are only noted."""
    if notify.sns is not None:
        session = AwsSession(region=notify.region or notify.sns.split(":")[3])
        remedy = "check that the topic exists and that the role may sns:Publish to it; sns:GetTopicAttributes is only needed for this check"
        yield Probe("notify", notify.sns, functools.partial(_topic, session, notify.sns), remedy)
    if notify.webhook is not None:
        yield Probe("notify", notify.webhook, functools.partial(_webhook, notify.webhook), _NETWORK)


async def _topic(session: AwsSession, topic: str) -> str:
    try:
        await look_at(session, topic)
    except AwsFatal as error:
        raise Note(str(error)) from error
    return "is there"


async def _webhook(url: str) -> str:
    parts = urlsplit(url)
    try:
        _, writer = await asyncio.open_connection(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        writer.close()
        await writer.wait_closed()
    except OSError as error:
        raise Note(str(error)) from error
    return "answers"
