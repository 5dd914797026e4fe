"""Lease tables in memory that answer as DynamoDB does, and as a simulated process sees them: with calls that fail and scans that are stale.

``tests/contract/test_lease_table.py`` holds the tables to moto's DynamoDB.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from stream.aws.dynamodb import TABLE_MISSING, ConditionFailed, DynamoDb, Item
from stream.aws.errors import CONNECTION, AwsFatal, AwsRetryable, Call, explain
from stream.simulation.process import THROTTLED, NoReply, Process, Refused, mixed
from stream.simulation.virtual_time import loop_seconds

STALEST: Final = 1.0
"""Seconds by which a scan may be behind: "usually one second or less" (DynamoDB developer guide, eventually consistent reads)."""

Rows = dict[str, Item]


class Tables:
    """Any number of tables with one string hash key each, and the requests that leases need.

    A row is never changed in place: a reader keeps the one it was given as it was. ``page``: most rows in one answer to a scan.
    """

    def __init__(self) -> None:
        self.contents: dict[str, Rows] = {}
        self.page = 10**9

    def rows(self, table: str) -> Rows:
        """The rows of ``table`` by key.

        Raises:
            AwsFatal: there is no such table.
        """
        if table not in self.contents:
            msg = f"there is no table {table}"
            raise AwsFatal(msg, code=TABLE_MISSING)
        return self.contents[table]

    def written(self, table: str, key: str, before: Item | None) -> None:
        """Called after each write, with the row as it was."""

    def scanned(self, table: str) -> Rows:
        """The rows that a scan sees."""
        return self.rows(table)

    def answer(self, operation: str, table: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """What DynamoDB answers.

        Raises:
            ConditionFailed: the request's condition does not hold.
            AwsFatal: there is no such table.
        """
        found: dict[str, Any] = getattr(self, _METHODS[operation])(table, request)
        return found

    def describe(self, table: str, _request: Mapping[str, Any]) -> dict[str, Any]:
        """DescribeTable."""
        self.rows(table)
        return {"Table": {"TableStatus": "ACTIVE", "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}]}}

    def create(self, table: str, _request: Mapping[str, Any]) -> dict[str, Any]:
        """CreateTable; the table can be used at once."""
        self.contents.setdefault(table, {})
        return {}

    def get(self, table: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """GetItem, consistent."""
        item = self.rows(table).get(key_in(request["Key"]))
        return {} if item is None else {"Item": item}

    def scan(self, table: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Scan."""
        rows = self.scanned(table)
        start = request.get("ExclusiveStartKey")
        rest = [key for key in sorted(rows) if start is None or key > key_in(start)]
        chosen = rest[: self.page]
        answer: dict[str, Any] = {"Items": [rows[key] for key in chosen]}
        return answer | ({"LastEvaluatedKey": {"leaseKey": {"S": chosen[-1]}}} if len(rest) > len(chosen) else {})

    def put(self, table: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """PutItem."""
        self._write(table, key_in({"leaseKey": request["Item"]["leaseKey"]}), request, request["Item"])
        return {}

    def delete(self, table: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """DeleteItem."""
        self._write(table, key_in(request["Key"]), request, None)
        return {}

    def update(self, table: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """UpdateItem with SET of values, ADD of numbers and REMOVE."""
        key = key_in(request["Key"])
        item = dict(self.rows(table).get(key) or request["Key"])
        values, names = request["ExpressionAttributeValues"], request.get("ExpressionAttributeNames", {})
        for verb, mentioned, value in _parsed(request["UpdateExpression"]):
            name = names.get(mentioned, mentioned)
            if verb == "SET":
                item[name] = values[value]
            elif verb == "ADD":
                item[name] = {"N": str(int(item.get(name, {"N": "0"})["N"]) + int(values[value]["N"]))}
            else:
                item.pop(name, None)
        self._write(table, key, request, item)
        return {}

    def _write(self, table: str, key: str, request: Mapping[str, Any], item: Item | None) -> None:
        rows = self.rows(table)
        before = rows.get(key)
        if not _holds(request, before):
            shown = before if "ReturnValuesOnConditionCheckFailure" in request else None
            msg = f"the condition does not hold for {key} in {table}"
            raise ConditionFailed(msg, shown)
        if item is None:
            rows.pop(key, None)
        else:
            rows[key] = item
        self.written(table, key, before)


_METHODS: Final = {
    "DescribeTable": "describe",
    "CreateTable": "create",
    "GetItem": "get",
    "Scan": "scan",
    "PutItem": "put",
    "DeleteItem": "delete",
    "UpdateItem": "update",
}


def key_in(keys: Mapping[str, Mapping[str, str]]) -> str:
    """The text of the only key attribute in ``keys``."""
    ((_, value),) = keys.items()
    return value["S"]


@lru_cache(maxsize=256)
def _parsed(expression: str) -> tuple[tuple[str, str, str], ...]:
    """The changes of an update: verb, name, value."""
    found = []
    for clause in re.findall(r"(?:SET|ADD|REMOVE) .*?(?= (?:SET|ADD|REMOVE) |$)", expression):
        verb, _, rest = clause.partition(" ")
        for part in rest.split(", "):
            name, _, value = part.replace(" = ", " ").partition(" ")
            found.append((verb, name, value))
    return tuple(found)


def _holds(request: Mapping[str, Any], item: Item | None) -> bool:
    names, conditions = request.get("ExpressionAttributeNames", {}), request.get("ConditionExpression")
    for condition in conditions.split(" AND ") if conditions else ():
        if (match := re.fullmatch(r"attribute_(not_)?exists\((.*)\)", condition)) is not None:
            there = item is not None and names.get(match[2], match[2]) in item
            if there == bool(match[1]):
                return False
        else:
            name, _, value = condition.partition(" = ")
            if item is None or item.get(names.get(name, name)) != request["ExpressionAttributeValues"][value]:
                return False
    return True


class RecentTables(Tables):
    """Tables that remember for ``STALEST`` seconds what was there, for scans that are behind. ``lag``: by how much the next one is."""

    def __init__(self) -> None:
        super().__init__()
        self.lag = 0.0
        self._undo: deque[tuple[float, str, str, Item | None]] = deque()

    def written(self, table: str, key: str, before: Item | None) -> None:
        """See ``Tables``."""
        now = loop_seconds()
        self._undo.append((now, table, key, before))
        while self._undo[0][0] < now - STALEST:
            self._undo.popleft()

    def scanned(self, table: str) -> Rows:
        """See ``Tables``."""
        rows, since = dict(self.rows(table)), loop_seconds() - self.lag
        for at, where, key, before in reversed(self._undo):
            if at <= since:
                break
            if where == table and before is None:
                rows.pop(key, None)
            elif where == table and before is not None:
                rows[key] = before
        return rows


class SimulatedDynamo(DynamoDb):
    """The tables as ``process`` sees them."""

    def __init__(self, tables: RecentTables, process: Process) -> None:
        self._tables = tables
        self._process = process
        self._scans = 0

    @property
    def place(self) -> str:
        """For messages."""
        return "simulated"

    async def call(self, operation: str, table: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """See ``DynamoDb.call``."""

        def apply() -> dict[str, Any] | ConditionFailed | AwsFatal:
            if operation == "Scan":
                self._scans += 1
                behind = 0.0 if request.get("ConsistentRead") else mixed(self._process.identity, self._scans, 2) ** 4
                self._tables.lag = STALEST * behind
            try:
                return self._tables.answer(operation, table, request)
            except (ConditionFailed, AwsFatal) as error:
                return error

        call = Call(f"dynamodb:{operation}", f"table {table}", self.place)
        key = request.get("Key") or request.get("Item", {})
        told = f"{operation} {next(iter(key.values()))['S'] if key else ''}"
        try:
            answer = await self._process.call(told, apply, open_to_all=True)
        except NoReply as error:
            msg = f"{call} had no answer"
            raise AwsRetryable(msg, code=CONNECTION) from error
        except Refused as error:
            raise explain(call, THROTTLED, "as the schedule says", 400) from error
        if isinstance(answer, Exception):
            raise answer
        return answer
