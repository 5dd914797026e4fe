"""A lease table in memory that answers as DynamoDB does, and rows for it.

tests/contract/test_lease_table.py holds it to moto's DynamoDB.
"""

from __future__ import annotations

import asyncio
import re
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import count

from stream.aws.dynamodb import ConditionFailed
from stream.aws.errors import AwsFatal, AwsRetryable
from stream.lease.rows import ExtendedSequenceNumber, Lease
from stream.lease.table import LeaseTable


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


class MemoryDynamo:
    """A lease table and the tables that KCL 3.x keeps beside it: ``other`` (coordinator state) and ``reports`` (worker metrics).

    ``faults`` are the outcomes of the next calls: lost_before, lost_after, throttled, or None. While ``throttling``, all are throttled.
    """

    place = "memory"

    def __init__(self):
        self.items = {}
        self.tables = set()
        self.faults = []
        self.page = 10**9
        self.calls = []
        self.denied = set()
        self.old_item_returned = True
        self.other = {}
        self.reports = {}
        self.requests = []
        self.throttling = False
        self.status = "ACTIVE"

    async def call(self, operation, table, request):
        self.calls.append(operation)
        self.requests.append((operation, table, request))
        if operation in self.denied:
            raise AwsFatal(f"{operation} is not allowed", code="AccessDeniedException")
        fault = "throttled" if self.throttling else self.faults.pop(0) if self.faults else None
        if fault == "lost_before":
            raise AwsRetryable("no answer", code="ConnectionError")
        if fault == "throttled":
            raise AwsRetryable("slow down", code="ThrottlingException")
        answer = getattr(self, operation)(table, deepcopy(request))
        if fault == "lost_after":
            raise AwsRetryable("no answer", code="ConnectionError")
        return deepcopy(answer)

    def DescribeTable(self, table, request):  # noqa: N802
        if table not in self.tables:
            raise AwsFatal("no table", code="ResourceNotFoundException")
        return {"Table": {"TableStatus": self.status, "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}]}}

    def CreateTable(self, table, request):  # noqa: N802
        self.tables.add(table)
        return {}

    def GetItem(self, table, request):  # noqa: N802
        item = self._items(table).get(_key_in(request))
        return {} if item is None else {"Item": item}

    def _items(self, table):
        if table.endswith("-CoordinatorState"):
            if not self.other:
                raise AwsFatal("no table", code="ResourceNotFoundException")
            return self.other
        return self.reports if table.endswith("-WorkerMetricStats") else self.items

    def Scan(self, table, request):  # noqa: N802
        rows = self._items(table)
        keys = sorted(rows)
        start = request.get("ExclusiveStartKey", {}).get("leaseKey", {}).get("S", "")
        rest = [key for key in keys if key > start]
        chosen = rest[: self.page]
        answer = {"Items": [rows[key] for key in chosen]}
        return answer | ({"LastEvaluatedKey": {"leaseKey": {"S": chosen[-1]}}} if len(rest) > len(chosen) else {})

    def PutItem(self, table, request):  # noqa: N802
        key = request["Item"]["leaseKey"]["S"]
        self._check(self.items, key, request)
        self.items[key] = request["Item"]
        return {}

    def DeleteItem(self, table, request):  # noqa: N802
        rows, key = self._items(table), _key_in(request)
        self._check(rows, key, request)
        rows.pop(key, None)
        return {}

    def UpdateItem(self, table, request):  # noqa: N802
        rows, key = self._items(table), _key_in(request)
        self._check(rows, key, request)
        item = rows.setdefault(key, dict(request["Key"]))
        values, names = request["ExpressionAttributeValues"], request.get("ExpressionAttributeNames", {})
        for clause in re.findall(r"(?:SET|ADD|REMOVE) .*?(?= (?:SET|ADD|REMOVE) |$)", request["UpdateExpression"]):
            verb, _, rest = clause.partition(" ")
            for part in rest.split(", "):
                name, _, value = part.replace(" = ", " ").partition(" ")
                name = names.get(name, name)
                if verb == "SET":
                    item[name] = values[value]
                elif verb == "ADD":
                    item[name] = {"N": str(int(item.get(name, {"N": "0"})["N"]) + int(values[value]["N"]))}
                else:
                    item.pop(name, None)
        return {}

    def _check(self, rows, key, request):
        item, names = rows.get(key), request.get("ExpressionAttributeNames", {})
        conditions = request.get("ConditionExpression")
        for condition in conditions.split(" AND ") if conditions else ():
            if (match := re.fullmatch(r"attribute_(not_)?exists\((.*)\)", condition)) is not None:
                there = item is not None and names.get(match[2], match[2]) in item
                holds = there != bool(match[1])
            else:
                name, _, value = condition.partition(" = ")
                holds = item is not None and item.get(names.get(name, name)) == request["ExpressionAttributeValues"][value]
            if not holds:
                shown = deepcopy(item) if self.old_item_returned and "ReturnValuesOnConditionCheckFailure" in request else None
                raise ConditionFailed("condition", shown)


def _key_in(request):
    (value,) = request["Key"].values()
    return value["S"]


def lease(key="shardId-0", owner=None, counter=0, checkpoint="TRIM_HORIZON", **more):
    return Lease(key, ExtendedSequenceNumber(checkpoint), counter, owner, **more)


def table_on(dynamo, clock, emitted=None, name="app"):
    marks = count()
    return LeaseTable(dynamo, name, clock, (emitted if emitted is not None else []).append, lambda: f"{id(marks)}-{next(marks)}")
