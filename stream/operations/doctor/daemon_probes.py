"""Checks of the tables of the KCL's MultiLangDaemon: each action on an existing table is tried in a form that changes nothing.

The actions are those that `stream iam` prints for KCL 2.5.8 and 3.1.3.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Final

from stream.aws.dynamodb import TABLE_MISSING
from stream.aws.errors import AwsFatal
from stream.errors import Fatal
from stream.lease.rows import LEASE_KEY, key_text
from stream.operations.doctor.probe import Note, Probe
from stream.operations.doctor.service_probes import PROBE_ROW, ROW_CALLS, Opened, dynamodb, row_call
from stream.pipeline.coordination import COORDINATOR_STATE, LEASE_INDEX, WORKER_STATS, kcl_applications
from stream.pipeline.model import Pipeline

_TABLES: Final = (
    ("", LEASE_KEY, ROW_CALLS),
    (COORDINATOR_STATE, "key", ("GetItem", "PutItem", "UpdateItem", "DeleteItem")),
    (WORKER_STATS, "wid", ("Scan", "UpdateItem", "DeleteItem")),
)
"""Suffix of the name, hash key, and the operations on rows."""

MADE_BY_DAEMON: Final[Mapping[str, str]] = {
    "dynamodb:CreateTable": "a table would be created",
    "dynamodb:UpdateTable": "the lease table would be changed",
}
"""Actions of the daemon that cannot be tried without taking effect, with the reason."""

_INDEX_MISSING: Final = "ValidationException"


def daemon_probes(pipeline: Pipeline) -> Iterator[Probe]:
    """For each stream, one for each table, for each action on its rows, and for the index of the lease table."""
    kinesis = pipeline.source.kinesis
    if pipeline.coordination.kcl is None:
        return
    opened = functools.partial(dynamodb, kinesis.region)
    for application in kcl_applications(pipeline.application, kinesis.names, several=bool(kinesis.streams)):
        for ending, key, operations in _TABLES:
            table = f"{application}{ending}"
            described = functools.partial(_described, opened, table, key)
            yield Probe("leases", f"dynamodb:DescribeTable on table {table}", described)
            for operation in operations:
                tried = functools.partial(row_call, opened, (table, key), operation)
                yield Probe("leases", f"dynamodb:{operation} on table {table}", tried)
        queried = functools.partial(_queried, opened, application)
        yield Probe("leases", f"dynamodb:Query on index {LEASE_INDEX} of table {application}", queried)


async def _described(opened: Opened, table: str, key: str) -> str:
    async with opened() as client:
        try:
            found = (await client.call("DescribeTable", table, {}))["Table"]
        except AwsFatal as error:
            if error.code != TABLE_MISSING:
                raise
            only = "" if key == LEASE_KEY else " from KCL 3.0 on"
            msg = f"there is no such table; the daemon creates it{only}, which needs dynamodb:CreateTable"
            raise Note(msg) from error
    if key_text(found) != f"`{key}` (HASH)":
        msg = (
            f"its key is {key_text(found)}; the KCL has only the hash key `{key}` there. Rename `application`, after which the tables "
            "are named"
        )
        raise Fatal(msg)
    return str(found["TableStatus"])


async def _queried(opened: Opened, table: str) -> str:
    request = {
        "IndexName": LEASE_INDEX,
        "KeyConditionExpression": "leaseOwner = :nobody",
        "ExpressionAttributeValues": {":nobody": {"S": PROBE_ROW}},
        "Limit": 1,
    }
    async with opened() as client:
        try:
            await client.call("Query", table, request)
        except AwsFatal as error:
            if error.code not in {TABLE_MISSING, _INDEX_MISSING}:
                raise
            msg = "cannot be tried while there is no index; KCL 3.x creates it, which needs dynamodb:UpdateTable"
            raise Note(msg) from error
    return "allowed"
