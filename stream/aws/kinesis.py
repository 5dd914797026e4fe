"""Kinesis over its JSON protocol: botocore finds endpoint and credentials, msgspec parses.

aiohttp carries subscriptions, and all calls through a proxy. botocore's own response parser would take longer for a page of records than
everything else that is done with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from stream.aws.errors import NOT_FOUND, UNKNOWN, AwsFatal, AwsRetryable, Call, StreamMissing, explain, translate
from stream.aws.kinesis_routes import Route, Routes, open_routes
from stream.aws.pages import RawPage, parse_get_records
from stream.aws.session import AwsSession
from stream.aws.wire import Timeouts
from stream.clock import SystemClock
from stream.contracts import Clock, Shard
from stream.errors import Fatal
from stream.native import KERNEL
from stream.stream_ids import parse, stream_id

MAX_RECORDS: Final = 10_000
"""Largest ``Limit`` of GetRecords (Kinesis API reference)."""
_TARGET: Final = "Kinesis_20131202."
_TIMEOUTS: Final = Timeouts(connect=5, total=120, read=30)
_TIMEOUT: Final = aiohttp.ClientTimeout(total=_TIMEOUTS.total, sock_connect=_TIMEOUTS.connect, sock_read=_TIMEOUTS.read)
_PARSE_ASIDE: Final = 256 * 2**10 if KERNEL is None else 8 * 2**20
"""Longer responses are parsed in a thread, to keep the event loop free. The kernel parses four megabytes in a millisecond, in which a
thread would hardly have started."""
_S = TypeVar("_S", bound=msgspec.Struct)


class IteratorKind(StrEnum):
    """ShardIteratorType of the Kinesis API."""

    AFTER = "AFTER_SEQUENCE_NUMBER"
    AT = "AT_SEQUENCE_NUMBER"
    TRIM_HORIZON = "TRIM_HORIZON"
    LATEST = "LATEST"
    AT_TIMESTAMP = "AT_TIMESTAMP"


@dataclass(frozen=True, slots=True)
class IteratorAt:
    """Where a shard iterator begins; ``sequence`` goes with AFTER and AT, ``timestamp`` with AT_TIMESTAMP."""

    kind: IteratorKind
    sequence: str | None = None
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """The result of DescribeStreamSummary. ``consumers``: how many are registered for enhanced fan-out.

    ``distributes``: the service spreads the records over all shards, whatever their partition keys, which they need not have.
    """

    arn: str
    status: str
    retention: timedelta
    open_shards: int
    created: datetime
    encrypted: bool
    on_demand: bool = False
    consumers: int = 0
    distributes: bool = False


class _HashRange(msgspec.Struct):
    StartingHashKey: str
    EndingHashKey: str


class _SequenceRange(msgspec.Struct, frozen=True):
    StartingSequenceNumber: str = "0"
    EndingSequenceNumber: str | None = None


class _Shard(msgspec.Struct):
    ShardId: str
    HashKeyRange: _HashRange
    SequenceNumberRange: _SequenceRange = _SequenceRange()
    ParentShardId: str | None = None
    AdjacentParentShardId: str | None = None


class _Shards(msgspec.Struct):
    Shards: list[_Shard]
    NextToken: str | None = None


class _Iterator(msgspec.Struct):
    ShardIterator: str


class _Mode(msgspec.Struct):
    StreamMode: str = "PROVISIONED"


class _Summary(msgspec.Struct):
    StreamARN: str
    StreamStatus: str
    RetentionPeriodHours: int
    OpenShardCount: int
    StreamCreationTimestamp: float = 0.0
    EncryptionType: str = "NONE"
    StreamModeDetails: _Mode | None = None
    ConsumerCount: int = 0
    RecordDistributionStrategy: str | None = None


class _Described(msgspec.Struct):
    StreamDescriptionSummary: _Summary


class _Refusal(msgspec.Struct, rename={"type": "__type"}):
    type: str = ""
    message: str = ""
    Message: str = ""


class KinesisClient:
    """Kinesis calls, each made once: the caller decides about another attempt.

    ``stream`` is a stream's name, ARN or id (``stream_ids``) throughout. Calls about one that is not given by its name contain its ARN.
    Every call raises ``AwsRetryable`` or ``AwsFatal``.
    """

    def __init__(self, session: AwsSession, routes: Routes, http: aiohttp.ClientSession, clock: Clock) -> None:
        self._session = session
        self._http = http
        self._routes = routes
        self._clock = clock

    @property
    def place(self) -> str:
        """Region and endpoint, for messages."""
        return f"region {self._routes.region}, endpoint {self._routes.url}"

    async def list_shards(self, stream: str) -> list[Shard]:
        """All shards the service knows of, open and closed, ordered by id.

        Raises:
            StreamMissing: there is no such stream.
        """
        request: dict[str, Any] = {**_target(stream), "MaxResults": 1000}
        # By id: while shards are split and merged, a page may begin with the last shards of the previous one.
        found: dict[str, _Shard] = {}
        while True:
            with _missing_stream():
                answer = await self.ask("ListShards", stream, request, _Shards)
            found |= {shard.ShardId: shard for shard in answer.Shards}
            if answer.NextToken is None:
                break
            # The token says which stream it is; the service refuses one together with a name or an ARN.
            request = {"NextToken": answer.NextToken, "MaxResults": 1000}
        name = stream_id(stream)
        return sorted((_shard(name, shard) for shard in found.values()), key=lambda shard: shard.shard_id)

    async def describe_stream_summary(self, stream: str) -> StreamSummary:
        """Retention, status and size of ``stream``.

        Raises:
            StreamMissing: there is no such stream.
        """
        with _missing_stream():
            answer = await self.ask("DescribeStreamSummary", stream, _target(stream), _Described)
        summary = answer.StreamDescriptionSummary
        retention = timedelta(hours=summary.RetentionPeriodHours)
        created = datetime.fromtimestamp(summary.StreamCreationTimestamp, UTC)
        encrypted = summary.EncryptionType != "NONE"
        on_demand = summary.StreamModeDetails is not None and summary.StreamModeDetails.StreamMode == "ON_DEMAND"
        open_shards, consumers = summary.OpenShardCount, summary.ConsumerCount
        return StreamSummary(
            summary.StreamARN,
            summary.StreamStatus,
            retention,
            open_shards,
            created,
            encrypted,
            on_demand,
            consumers,
            distributes=summary.RecordDistributionStrategy == "AUTO",
        )

    async def time(self, stream: str) -> datetime | None:
        """The time by the service's own clock, truncated to the second; None if it does not say.

        It is the ``Date`` of a response: every call made after this returns is made later than that.
        """
        _, said = await self._exchange("DescribeStreamSummary", stream, _target(stream))
        try:
            moment = parsedate_to_datetime(said.decode("latin-1"))
        except ValueError:
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    async def get_shard_iterator(self, stream: str, shard_id: str, at: IteratorAt) -> str:
        """An iterator, valid for five minutes."""
        request: dict[str, Any] = {**_target(stream), "ShardId": shard_id, "ShardIteratorType": at.kind.value}
        if at.sequence is not None:
            request["StartingSequenceNumber"] = at.sequence
        if at.timestamp is not None:
            request["Timestamp"] = at.timestamp.timestamp()
        return (await self.ask("GetShardIterator", stream, request, _Iterator)).ShardIterator

    async def get_records(self, stream: str, iterator: str, limit: int = MAX_RECORDS) -> RawPage:
        """Up to ``limit`` records from ``iterator`` on; no records does not mean that there are none further on."""
        request: dict[str, Any] = {"ShardIterator": iterator, "Limit": limit}
        # A name is not needed here, nor known to the API; an ARN is, if another account has the stream.
        if (shared := parse(stream)) is not None:
            request["StreamARN"] = shared.arn
        operation = "GetRecords"
        body = await self._send(operation, stream, request)
        try:
            return await asyncio.to_thread(parse_get_records, body) if len(body) > _PARSE_ASIDE else parse_get_records(body)
        except msgspec.DecodeError as error:
            raise self._unreadable(operation, stream, error) from error

    async def ask(self, operation: str, stream: str, request: Mapping[str, Any], answer: type[_S]) -> _S:
        """Make a call with a small response."""
        body = await self._send(operation, stream, request)
        try:
            return msgspec.json.decode(body, type=answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._unreadable(operation, stream, error) from error

    async def _send(self, operation: str, stream: str, request: Mapping[str, Any]) -> bytes | memoryview:
        return (await self._exchange(operation, stream, request))[0]

    async def _exchange(self, operation: str, stream: str, request: Mapping[str, Any]) -> tuple[bytes | memoryview, bytes]:
        """The body of a response, and its ``Date``."""
        route = self._route(operation, stream, request)
        if route.proxy is not None:
            return await self._exchange_by_proxy(operation, stream, request)
        body = msgspec.json.encode(request)
        headers = await self._signed(route, operation, body)
        try:
            status, answer, said = await route.wire.post(headers, body)
        except (TimeoutError, OSError) as error:
            raise translate(self.describe_call(operation, stream), error) from error
        if status == 200:
            return answer, said.get(b"date", b"")
        named = said.get(b"x-amzn-errortype", b"").decode("latin-1")
        raise explain(self.describe_call(operation, stream), *refusal(bytes(answer), named), status)

    async def _exchange_by_proxy(self, operation: str, stream: str, request: Mapping[str, Any]) -> tuple[bytes, bytes]:
        response = await self.post(operation, stream, request)
        try:
            async with response:
                return await response.read(), response.headers.get("Date", "").encode("latin-1", "replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise translate(self.describe_call(operation, stream), error) from error

    async def post(
        self, operation: str, stream: str, request: Mapping[str, Any], timeout: aiohttp.ClientTimeout = _TIMEOUT
    ) -> aiohttp.ClientResponse:
        """The response to a call that the service has accepted; the caller reads or closes it."""
        call = self.describe_call(operation, stream)
        route = self._route(operation, stream, request)
        body = msgspec.json.encode(request)
        headers = await self._signed(route, operation, body)
        try:
            response = await self._http.post(
                route.url, data=body, headers=headers, allow_redirects=False, proxy=route.proxy, timeout=timeout
            )
            if response.status == 200:
                return response
            async with response:
                answer, named = await response.read(), response.headers.get("x-amzn-ErrorType", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise translate(call, error) from error
        raise explain(call, *refusal(answer, named), response.status)

    def _route(self, operation: str, stream: str, request: Mapping[str, Any]) -> Route:
        # A token says which stream it is, so a call with one names no ARN; clients of AWS then use the region's endpoint.
        return self._routes.to(operation, None if "NextToken" in request else parse(stream))

    async def _signed(self, route: Route, operation: str, body: bytes) -> dict[str, str]:
        headers = route.signer.headers(await self._session.credentials(), _TARGET + operation, body, self._clock.now())
        # Payloads are mostly compressed or small; decompression would cost more CPU time than it saves in transfer.
        headers["accept-encoding"] = "identity"
        return headers

    def describe_call(self, operation: str, stream: str) -> Call:
        """The call, for messages."""
        shared = parse(stream)
        place = self.place if shared is None else f"region {self._routes.region}, endpoint {self._routes.to(operation, shared).url}"
        return Call(f"kinesis:{operation}", f"stream {stream}" if shared is None else shared.arn, place)

    def _unreadable(self, operation: str, stream: str, error: Exception) -> AwsRetryable:
        msg = f"{self.describe_call(operation, stream)} gave an answer that is not as documented: {error}"
        return AwsRetryable(msg, code="UnreadableAnswer")


@asynccontextmanager
async def open_kinesis(session: AwsSession, clock: Clock | None = None) -> AsyncIterator[KinesisClient]:
    """A client whose connections are kept for reuse until the context ends."""
    trust = session.trust()
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=20, ttl_dns_cache=60, ssl=trust or True)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as http,
        open_routes(session, _TIMEOUTS, trust) as routes,
    ):
        yield KinesisClient(session, routes, http, clock or SystemClock())


@contextmanager
def _missing_stream() -> Iterator[None]:
    """Around calls that name nothing but a stream, so that only the stream can be what is not found."""
    try:
        yield
    except AwsFatal as error:
        if error.code != NOT_FOUND:
            raise
        raise StreamMissing(str(error), code=error.code, remedy=error.remedy) from error


def _target(stream: str) -> dict[str, str]:
    shared = parse(stream)
    return {"StreamName": stream} if shared is None else {"StreamARN": shared.arn}


def _shard(stream: str, shard: _Shard) -> Shard:
    parents = tuple(parent for parent in (shard.ParentShardId, shard.AdjacentParentShardId) if parent)
    hashes, numbers = shard.HashKeyRange, shard.SequenceNumberRange
    try:
        first, last, begins = int(hashes.StartingHashKey), int(hashes.EndingHashKey), int(numbers.StartingSequenceNumber)
    except ValueError as error:
        msg = f"shard {shard.ShardId} of {stream} has a hash range or a first sequence number that is not a number: {hashes}, {numbers}"
        raise Fatal(msg) from error
    return Shard(stream, shard.ShardId, parents, first, last, begins=begins, is_open=numbers.EndingSequenceNumber is None)


def refusal(body: bytes, named: str) -> tuple[str, str]:
    """Code and message of an error response; ``named`` is a code from outside of the body."""
    try:
        said = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _code(named), body[:200].decode("utf-8", "replace")
    return _code(said.type or named), said.message or said.Message


def _code(name: str) -> str:
    """A code without the namespace before a hash and the address after a colon, with which services may give it."""
    return name.rpartition("#")[2].partition(":")[0] or UNKNOWN
