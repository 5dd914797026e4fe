"""The Redshift Data API (JSON 1.1 over HTTP, signatures not checked) on the PostgreSQL of ``postgres.py``.

A hook injects faults: it is called with the name of each point and returns what happens there. Points: ``<Operation>:begin``,
``<Operation>:reply`` (for an execute: once the statements have ended), ``statement:<step>`` before each statement of a
batch, ``commit:before``, ``commit:after``. Answers: nothing; ``drop`` the connection; ``busy``; inside a batch ``abort`` or ``1023``,
and there the answer may be awaited.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from aiohttp import web

from tests.redshift.double.copying import LoadError, run_copy
from tests.redshift.double.dialect import MAX_STATEMENT_BYTES, MAX_STATEMENTS, TYPE_NAMES, Copy, Refused, step_of, translated

Hook = Callable[[str], Any]
PAGE = 100
_PARAMETER = re.compile(r"(?<![:\w]):([0-9a-zA-Z_]+)")
SNAPSHOT, SERIALIZABLE = "repeatable_read", "serializable"
"""Redshift's two isolation levels of a database; SNAPSHOT is what CREATE DATABASE gives, and it lets concurrent inserts pass."""

_SET_UP = """
CREATE FUNCTION json_parse(text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT $1::jsonb';
CREATE TABLE sys_load_error_detail (
  query_id bigint, start_time timestamp, file_name text, line_number bigint, column_name text, error_message text);
"""


class Aborted(Exception):
    """The batch was cut off: everything is rolled back."""


@dataclass
class Running:
    """A statement or batch as DescribeStatement shows it."""

    id: str
    sqls: list[str]
    batch: bool
    status: str = "SUBMITTED"
    error: str = ""
    subs: list[dict[str, Any]] = field(default_factory=list)
    columns: list[dict[str, Any]] = field(default_factory=list)
    rows: list[list[dict[str, Any]]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Double:
    """The server. ``hook`` may be replaced at any time; ``statements`` counts what was executed, by step."""

    def __init__(self, socket: str, s3: Any) -> None:
        self.url = ""
        self.hook: Hook = lambda point: ""
        self.statements: dict[str, int] = {}
        self.batches: list[int] = []
        self.forget_tokens = False
        self.isolation = SNAPSHOT
        self._socket = socket
        self._s3 = s3
        self._numbers = itertools.count(1)
        self._known: dict[str, Running] = {}
        self._tokens: dict[str, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> Any:
        return await asyncpg.connect(host=self._socket, user="double", database="dev")

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> web.AppRunner:
        connection = await self.connect()
        await connection.execute(_SET_UP)
        await connection.close()
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/", self._receive)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        await site.start()
        self.url = f"http://{host}:{runner.addresses[0][1]}"
        return runner

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        asked = await request.json()
        fault = self.hook(f"{operation}:begin")
        if fault == "drop":
            return self._drop(request)
        if fault == "busy":
            return _refusal("ActiveStatementsExceededException", "too many active statements")
        try:
            answer = await getattr(self, f"_{operation}")(asked)
        except _Invalid as error:
            return _refusal("ValidationException", str(error))
        except KeyError as error:
            return _refusal("ResourceNotFoundException", f"Query does not exist: {error}")
        if operation.endswith("ExecuteStatement") and self._lossy(operation):
            await self._known[answer["Id"]].done.wait()
        return self._drop(request) if self.hook(f"{operation}:reply") == "drop" else web.json_response(answer)

    def _lossy(self, operation: str) -> bool:
        """Whether the reply waits for the end, so that losing it means losing it after COMMIT."""
        return getattr(self.hook, "waits", False) and operation == "BatchExecuteStatement"

    def _drop(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _ExecuteStatement(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._start(asked, [_bound(asked["Sql"], asked.get("Parameters", []))], batch=False)

    async def _BatchExecuteStatement(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if not 1 <= len(asked["Sqls"]) <= MAX_STATEMENTS:
            raise _Invalid(f"Sqls has {len(asked['Sqls'])} members, 1 to {MAX_STATEMENTS} are allowed")
        if asked.get("ExecutionMode", "TRANSACTION") != "TRANSACTION":
            raise _Invalid("the double runs batches as transactions only")
        self.batches.append(len(asked["Sqls"]))
        return self._start(asked, asked["Sqls"], batch=True)

    def _start(self, asked: dict[str, Any], sqls: list[str], *, batch: bool) -> dict[str, Any]:
        if ("ClusterIdentifier" in asked) == ("WorkgroupName" in asked) or ("DbUser" in asked and "WorkgroupName" in asked):
            raise _Invalid("give ClusterIdentifier (with DbUser or SecretArn) or WorkgroupName")
        if asked.get("Database") != "dev":
            raise _Invalid(f"FATAL: database {asked.get('Database')!r} does not exist")
        if any(len(sql.encode()) > MAX_STATEMENT_BYTES for sql in sqls):
            raise _Invalid(f"a statement is longer than {MAX_STATEMENT_BYTES} bytes")
        token = asked.get("ClientToken", "")
        if not 1 <= len(token) <= 64:
            raise _Invalid("ClientToken has 1 to 64 characters")
        if token in self._tokens and not self.forget_tokens:
            return {"Id": self._tokens[token].id}
        running = Running(f"00000000-0000-4000-8000-{next(self._numbers):012d}", sqls, batch)
        self._known[running.id] = self._tokens[token] = running
        task = asyncio.get_running_loop().create_task(self._run(running))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return {"Id": running.id}

    async def _DescribeStatement(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        running = self._known[asked["Id"]]
        try:
            async with asyncio.timeout(min(asked.get("WaitTimeSeconds", 0), 30)):
                await running.done.wait()
        except TimeoutError:
            pass
        answer = {"Id": running.id, "Status": running.status, "HasResultSet": bool(running.columns)}
        if running.error:
            answer["Error"] = running.error
        return answer | ({"SubStatements": running.subs} if running.batch else {})

    async def _GetStatementResult(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        running, start = self._known[asked["Id"]], int(asked.get("NextToken", "0"))
        answer: dict[str, Any] = {"Records": running.rows[start : start + PAGE], "ColumnMetadata": running.columns}
        return answer | ({"NextToken": str(start + PAGE)} if start + PAGE < len(running.rows) else {})

    async def _run(self, running: Running) -> None:
        running.status = "STARTED"
        running.subs = [{"Id": f"{running.id}:{n}", "Status": "SUBMITTED"} for n, _ in enumerate(running.sqls, 1)]
        connection = await self.connect()
        try:
            async with connection.transaction(isolation=self.isolation):
                for number, sql in enumerate(running.sqls):
                    await self._one(connection, running, number, sql)
                if running.batch and (fault := await self._at("commit:before")):
                    _misbehave(fault)
            running.status = "FINISHED"
            if running.batch:
                self.hook("commit:after")
        except Aborted:
            running.status = "ABORTED"
        except (Refused, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            running.status, running.error = "FAILED", _words(error)
            if isinstance(error, LoadError):
                await self._note(running, error)
        finally:
            for sub in running.subs:
                if sub["Status"] == "STARTED":
                    sub |= {"Status": running.status, "Error": running.error}
                elif running.status != "FINISHED":
                    sub["Status"] = "SUBMITTED"
            running.done.set()
            await connection.close()

    async def _at(self, point: str) -> str:
        fault = self.hook(point)
        return await fault if inspect.isawaitable(fault) else fault

    async def _one(self, connection: Any, running: Running, number: int, sql: str) -> None:
        sub = running.subs[number]
        sub |= {"Status": "STARTED", "RedshiftQueryId": next(self._numbers)}
        step = step_of(sql)
        self.statements[step] = self.statements.get(step, 0) + 1
        if running.batch and (fault := await self._at(f"statement:{step}")):
            _misbehave(fault)
        ready = translated(sql)
        if isinstance(ready, Copy):
            await run_copy(connection, self._s3, ready)
        elif step == "SELECT":
            await self._select(connection, running, ready)
        else:
            await connection.execute(ready)
        sub["Status"] = "FINISHED"

    async def _select(self, connection: Any, running: Running, sql: str) -> None:
        prepared = await connection.prepare(sql)
        found = await prepared.fetch()
        kinds = await connection.fetch("SELECT oid, format_type(oid, NULL) AS kind FROM pg_type")
        names = {row["oid"]: row["kind"] for row in kinds}
        lengths = await self._lengths(connection, sql)
        running.columns = [
            {
                "name": attribute.name,
                "typeName": TYPE_NAMES.get(names[attribute.type.oid], names[attribute.type.oid]),
                **lengths.get(attribute.name, {"length": 0}),
            }
            for attribute in prepared.get_attributes()
        ]
        running.rows = [[_field(value) for value in row.values()] for row in found]

    async def _lengths(self, connection: Any, sql: str) -> dict[str, dict[str, int]]:
        head, _, rest = sql.partition(" FROM ")
        if head != "SELECT *":
            return {}
        rows = await connection.fetch(
            "SELECT attname, atttypid = 'numeric'::regtype AS digits, atttypmod - 4 AS size FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attnum > 0 AND atttypmod > 4",
            rest.partition(" WHERE ")[0],
        )
        return {
            row["attname"]: {"length": 0, "precision": row["size"] >> 16, "scale": row["size"] & 0xFFFF}
            if row["digits"]
            else {"length": row["size"]}
            for row in rows
        }

    async def _note(self, running: Running, error: LoadError) -> None:
        failed = next(sub for sub in running.subs if sub["Status"] == "STARTED")
        connection = await self.connect()
        insert = "INSERT INTO sys_load_error_detail VALUES ($1, now() at time zone 'utc', $2, $3, $4, $5)"
        await connection.execute(insert, failed["RedshiftQueryId"], *error.row)
        await connection.close()


class _Invalid(Exception):
    """ValidationException."""


def _bound(sql: str, parameters: list[dict[str, str]]) -> str:
    """``sql`` with its parameters as texts, which PostgreSQL converts as the statement says."""
    values = {each["name"]: each["value"] for each in parameters}
    names = set(_PARAMETER.findall(sql))
    if names != set(values) or any(not value for value in values.values()):
        raise _Invalid(f"Parameters has {sorted(values)}, none of which may be empty, and the statement {sorted(names)}")
    return _PARAMETER.sub(lambda name: "'" + values[name[1]].replace("'", "''") + "'", sql)


def _misbehave(fault: str) -> None:
    if fault == "abort":
        raise Aborted
    if fault == "1023":
        raise Refused("ERROR: 1023 DETAIL: Serializable isolation violation on table - 100211, transactions forming the cycle are: 1, 2")


def _words(error: Exception) -> str:
    if isinstance(error, asyncpg.SerializationError | asyncpg.DeadlockDetectedError):
        return f"ERROR: 1023 DETAIL: Serializable isolation violation on table ({error})"
    return str(error) if isinstance(error, Refused) else f"ERROR: {error}"


def _field(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {"isNull": True}
        case bool():
            return {"booleanValue": value}
        case int():
            return {"longValue": value}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": str(value)}


def _refusal(code: str, message: str) -> web.Response:
    return web.json_response({"__type": code, "message": message}, status=400, content_type="application/x-amz-json-1.1")


@contextmanager
def running_double(socket: str, s3: Any) -> Iterator[Double]:
    """A double in a thread of its own, so that a loader in another process can be killed while it answers."""
    double, ready = Double(socket, s3), threading.Event()
    loop, failures = asyncio.new_event_loop(), []

    async def live() -> None:
        try:
            runner = await double.serve()
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            failures.append(error)
            return
        finally:
            ready.set()
        await stop.wait()
        await asyncio.gather(*double._tasks, return_exceptions=True)
        await runner.cleanup()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(live()))
    thread.start()
    ready.wait(60)
    if failures:
        thread.join()
        raise failures[0]
    try:
        yield double
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()
