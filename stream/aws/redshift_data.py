"""The Redshift Data API over its JSON protocol: statements by HTTP, no connection to the database and no password.

botocore finds endpoint and credentials and signs, aiohttp sends, msgspec parses. Each call is made once: the caller decides
about another attempt.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from stream.aws.errors import NOT_FOUND, UNKNOWN, AwsFatal, AwsRetryable, Call, explain, translate
from stream.aws.kinesis_routes import proxy_for
from stream.aws.session import AwsSession

SERVICE: Final = "redshift-data"
LONGEST_WAIT: Final = 20
"""Seconds that one DescribeStatement waits for a change; the API allows 30 (WaitTimeSeconds), the socket waits 45."""
DONE: Final = frozenset({"FINISHED", "FAILED", "ABORTED"})

_TARGET: Final = "RedshiftData."
_TIMEOUT: Final = aiohttp.ClientTimeout(total=120, sock_connect=5, sock_read=45)
_BUSY: Final = frozenset(
    {
        "ActiveStatementsExceededException",
        "ActiveSessionsExceededException",
        "ActiveWaitingRequestsExceededException",
        "InternalServerException",
        "DatabaseConnectionException",
        "ExecuteStatementException",
        "BatchExecuteStatementException",
        "QueryTimeoutException",
    }
)
"""Errors of this API after which the same call may succeed: limits on concurrent statements, and a database that could not be reached."""
_ABOUT_STATEMENTS: Final = frozenset({"DescribeStatement", "GetStatementResult"})
_ASK: Final = "what is in the tables says whether it was done"
_NO_DATABASE: Final = re.compile(
    r"endpoint doesn't exist|\bpaus(?:ed|ing)\b|\bresum(?:ed|ing)\b|\bresiz|not in (?:an )?available state", re.IGNORECASE
)
"""Words with which the API refuses statements for a cluster that does not run, as if the request were wrong."""
_RESUME: Final = (
    "see whether the cluster is paused, being resized, or gone (`aws redshift describe-clusters`), and resume it; otherwise check its name "
    "and the region. What waits for it goes on by itself"
)
_S = TypeVar("_S", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Database:
    """Where statements run, and as which user: ``cluster`` with ``db_user``, or ``workgroup``; either with ``secret_arn``."""

    database: str
    cluster: str | None = None
    workgroup: str | None = None
    db_user: str | None = None
    secret_arn: str | None = None

    def request(self) -> dict[str, str]:
        """The corresponding fields of a request."""
        fields = {
            "Database": self.database,
            "ClusterIdentifier": self.cluster,
            "WorkgroupName": self.workgroup,
            "DbUser": self.db_user,
            "SecretArn": self.secret_arn,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def __str__(self) -> str:
        """For messages."""
        return f"{self.database} of {f'cluster {self.cluster}' if self.cluster else f'workgroup {self.workgroup}'}"


@dataclass(frozen=True, slots=True)
class Statement:
    """The state of a statement or batch. ``failed``: index and query id of the failed statement of a batch; -1 and 0 if unknown."""

    id: str
    status: str
    error: str = ""
    failed: int = -1
    query_id: int = 0

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.status in DONE


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column of a result: name, type name, length of a text or digits of a number, and digits after the point."""

    name: str
    type: str
    length: int
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """A whole result. Values are None, bool, int, float or str."""

    columns: tuple[ColumnInfo, ...]
    rows: tuple[tuple[Any, ...], ...]


class _Started(msgspec.Struct):
    Id: str


class _Sub(msgspec.Struct):
    Status: str = ""
    Error: str = ""
    RedshiftQueryId: int = 0


class _Described(msgspec.Struct):
    Id: str
    Status: str
    Error: str = ""
    RedshiftQueryId: int = 0
    SubStatements: list[_Sub] = []


class _ColumnMetadata(msgspec.Struct):
    name: str = ""
    type_name: str = msgspec.field(name="typeName", default="")
    length: int = 0
    precision: int = 0
    scale: int = 0

    def size(self) -> int:
        return self.precision or self.length if self.type_name == "numeric" else self.length or self.precision


class _Page(msgspec.Struct):
    Records: list[list[dict[str, Any]]] = []
    ColumnMetadata: list[_ColumnMetadata] = []
    NextToken: str | None = None


class _Refusal(msgspec.Struct, rename={"type": "__type"}):
    type: str = ""
    message: str = ""
    Message: str = ""


class RedshiftDataClient:
    """Calls to one database. Every call raises ``AwsRetryable`` (its outcome may be unknown) or ``AwsFatal``."""

    def __init__(self, session: AwsSession, http: aiohttp.ClientSession, database: Database) -> None:
        self._session = session
        self._http = http
        self._database = database
        self._url = session.endpoint(SERVICE).rstrip("/") + "/"
        self._proxy = proxy_for(self._url)

    async def execute(self, sql: str, token: str, parameters: Mapping[str, str] = MappingProxyType({})) -> str:
        """Start one statement; returns its id. The same ``token`` (up to 64 characters) starts it once only, while the API remembers.

        ``parameters``: values, none of them empty, of the names that ``sql`` has after colons.
        """
        request: dict[str, Any] = {**self._database.request(), "Sql": sql, "ClientToken": token}
        if parameters:
            request["Parameters"] = [{"name": name, "value": value} for name, value in parameters.items()]
        return (await self._ask("ExecuteStatement", request, _Started)).Id

    async def batch_execute(self, sqls: Sequence[str], token: str) -> str:
        """Start 1 to 40 statements in one transaction, all or nothing; returns the batch's id. ``token`` as for ``execute``."""
        request = {**self._database.request(), "Sqls": list(sqls), "ClientToken": token, "ExecutionMode": "TRANSACTION"}
        return (await self._ask("BatchExecuteStatement", request, _Started)).Id

    async def describe(self, statement_id: str, wait: int = LONGEST_WAIT) -> Statement:
        """The state of a statement, as soon as it has ended or after ``wait`` seconds.

        Raises:
            AwsRetryable: also if the service has forgotten it, as it does after a day, so that its outcome cannot be learned here.
        """
        found = await self._ask("DescribeStatement", {"Id": statement_id, "WaitTimeSeconds": wait}, _Described)
        failed = next((index for index, sub in enumerate(found.SubStatements) if sub.Status in {"FAILED", "ABORTED"}), -1)
        if failed < 0:
            return Statement(found.Id, found.Status, found.Error, query_id=found.RedshiftQueryId)
        sub = found.SubStatements[failed]
        return Statement(found.Id, found.Status, sub.Error or found.Error, failed, sub.RedshiftQueryId)

    async def result(self, statement_id: str) -> Result:
        """All rows of a finished statement."""
        request = {"Id": statement_id}
        rows: list[tuple[Any, ...]] = []
        while True:
            page = await self._ask("GetStatementResult", request, _Page)
            rows += [tuple(_value(field) for field in record) for record in page.Records]
            if not page.NextToken:
                columns = tuple(
                    ColumnInfo(each.name, each.type_name, each.length or each.precision, each.scale) for each in page.ColumnMetadata
                )
                return Result(columns, tuple(rows))
            request = {"Id": statement_id, "NextToken": page.NextToken}

    async def _ask(self, operation: str, request: dict[str, Any], answer: type[_S]) -> _S:
        body = await self._send(operation, msgspec.json.encode(request))
        try:
            return msgspec.json.decode(body, type=answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            msg = f"{self._call(operation)} gave an answer that is not as documented: {error}"
            raise AwsRetryable(msg, code="UnreadableAnswer") from error

    async def _send(self, operation: str, body: bytes) -> bytes:
        call, headers = self._call(operation), await self._signed(operation, body)
        try:
            async with self._http.post(self._url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy) as response:
                answer = await response.read()
                status, named = response.status, response.headers.get("x-amzn-ErrorType", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise translate(call, error) from error
        if status != 200:
            raise _explained(call, answer, named, status, forgets=operation in _ABOUT_STATEMENTS)
        return answer

    async def _signed(self, operation: str, body: bytes) -> dict[str, str]:
        keys = await self._session.credentials()
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": _TARGET + operation}
        request = AWSRequest("POST", self._url, headers, body)
        SigV4Auth(BotocoreCredentials(keys.access_key, keys.secret_key, keys.token), SERVICE, self._session.region).add_auth(request)
        return dict(request.headers.items())

    def _call(self, operation: str) -> Call:
        return Call(f"{SERVICE}:{operation}", str(self._database), f"region {self._session.region}, endpoint {self._url}")


def _value(field: dict[str, Any]) -> Any:
    return None if field.get("isNull") else next(iter(field.values()), None)


def _explained(call: Call, body: bytes, named: str, status: int, *, forgets: bool) -> AwsRetryable | AwsFatal:
    try:
        said = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = _Refusal(message=body[:200].decode("utf-8", "replace"))
    code = (said.type or named).rpartition("#")[2].partition(":")[0] or UNKNOWN
    message = said.message or said.Message
    if code in _BUSY:
        return AwsRetryable(f"{call} failed: {code}: {message}", code=code)
    if code == NOT_FOUND and forgets:
        return AwsRetryable(f"{call} failed: {code}: {message.rstrip('. ')}. The service forgets statements after a day: {_ASK}", code=code)
    error = explain(call, code, message, status)
    if isinstance(error, AwsFatal) and _NO_DATABASE.search(message):
        return AwsFatal(str(error).replace(error.remedy, _RESUME), code=code, remedy=_RESUME)
    return error


@asynccontextmanager
async def open_redshift_data(session: AwsSession, database: Database) -> AsyncIterator[RedshiftDataClient]:
    """A client whose connections are kept for reuse until the context ends."""
    connector = aiohttp.TCPConnector(ssl=session.trust() or True)
    async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield RedshiftDataClient(session, http, database)
