"""A lease table in memory that answers as DynamoDB does, and rows for it.

tests/contract/test_lease_table.py holds it to moto's DynamoDB.
"""

from __future__ import annotations

import asyncio
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import count

from stream.aws.errors import AccessRefused, AwsFatal, AwsRetryable
from stream.lease.rows import ExtendedSequenceNumber, Lease
from stream.lease.table import LeaseTable
from stream.simulation.dynamodb import Tables


class FakeClock:
    """A clock that advances when all tasks sleep: ``run_until`` moves on to the next sleeper."""

    def __init__(self):
        self.seconds = 1000.0
        self._sleepers = []
        self._numbers = count()

    def now(self):
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self):
        return self.seconds

    async def sleep(self, seconds):
        done = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.seconds + max(seconds, 0.0), next(self._numbers), done))
        await done

    async def advance(self, seconds):
        """Let ``seconds`` pass, waking sleepers in order; everything that is ready runs in between."""
        end = self.seconds + seconds
        await settle()
        while True:
            self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[2].done()]
            due = min(self._sleepers, default=None)
            if due is None or due[0] > end:
                break
            self._sleepers.remove(due)
            self.seconds = max(self.seconds, due[0])
            due[2].set_result(None)
            await settle()
        self.seconds = end
        await settle()


async def settle():
    """Let every task run that can."""
    for _ in range(60):
        await asyncio.sleep(0)  # noqa: TID251 - yields, takes no time


class MemoryDynamo(Tables):
    """A lease table and the tables that KCL 3.x keeps beside it: ``other`` (coordinator state) and ``reports`` (worker metrics).

    ``faults`` are the outcomes of the next calls: lost_before, lost_after, throttled, or None. While ``throttling``, all are throttled,
    and while ``refusing``, all are refused. ``denied``: operations and tables that are not allowed.
    """

    place = "memory"

    def __init__(self):
        super().__init__()
        self.items = {}
        self.tables = set()
        self.faults = []
        self.calls = []
        self.denied = set()
        self.old_item_returned = True
        self.other = {}
        self.reports = {}
        self.requests = []
        self.throttling = False
        self.refusing = False
        self.status = "ACTIVE"

    async def call(self, operation, table, request):
        self.calls.append(operation)
        self.requests.append((operation, table, request))
        if operation in self.denied:
            raise AwsFatal(f"{operation} is not allowed", code="AccessDeniedException")
        if table in self.denied:
            raise AccessRefused(
                f"User: arn:aws:sts::1:assumed-role/w is not authorized to {operation} {table}", code="AccessDeniedException"
            )
        if self.refusing:
            raise AccessRefused(f"{operation} is not allowed", code="AccessDeniedException")
        fault = "throttled" if self.throttling else self.faults.pop(0) if self.faults else None
        if fault == "lost_before":
            raise AwsRetryable("no answer", code="ConnectionError")
        if fault == "throttled":
            raise AwsRetryable("slow down", code="ThrottlingException")
        asked = deepcopy(request)
        if not self.old_item_returned:
            asked.pop("ReturnValuesOnConditionCheckFailure", None)
        answer = self.answer(operation, table, asked)
        if fault == "lost_after":
            raise AwsRetryable("no answer", code="ConnectionError")
        return deepcopy(answer)

    def describe(self, table, request):
        if table not in self.tables:
            raise AwsFatal("no table", code="ResourceNotFoundException")
        answer = super().describe(table, request)
        answer["Table"]["TableStatus"] = self.status
        return answer

    def create(self, table, request):
        self.tables.add(table)
        return {}

    def rows(self, table):
        if table.endswith("-CoordinatorState"):
            if not self.other:
                raise AwsFatal("no table", code="ResourceNotFoundException")
            return self.other
        return self.reports if table.endswith("-WorkerMetricStats") else self.items


def lease(key="shardId-0", owner=None, counter=0, checkpoint="TRIM_HORIZON", **more):
    return Lease(key, ExtendedSequenceNumber(checkpoint), counter, owner, **more)


def table_on(dynamo, clock, emitted=None, name="app"):
    marks = count()
    return LeaseTable(dynamo, name, clock, (emitted if emitted is not None else []).append, lambda: f"{id(marks)}-{next(marks)}")
