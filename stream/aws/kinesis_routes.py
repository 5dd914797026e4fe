"""Where calls to Kinesis go: to the region's endpoint, or for a stream given by its ARN, to that of the account that has it.

AWS's own clients send a call that names an ARN to ``ACCOUNT.control-kinesis.REGION...`` or ``ACCOUNT.data-kinesis.REGION...``, by the
rules in botocore's ``endpoint-rule-set``; a test compares the two. A configured endpoint is used for all calls.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from stream.aws.session import AwsSession
from stream.aws.signing import Signer
from stream.aws.wire import Timeouts, Wire
from stream.stream_ids import StreamId

_DATA: Final = frozenset({"GetRecords", "GetShardIterator", "SubscribeToShard"})
"""The operations that the service calls data operations; all others that are used here are control operations."""
_WITHOUT_ACCOUNTS: Final = frozenset({"aws-iso", "aws-iso-b"})
"""Partitions in which accounts have no endpoints."""
_SERVICE: Final = "kinesis"


class Route:
    """One endpoint: its connections, how calls to it are signed, and the proxy on the way, if there is one."""

    def __init__(self, url: str, region: str, timeouts: Timeouts, trust: ssl.SSLContext | None) -> None:
        self.url = url
        self.wire = Wire(url, timeouts, trust)
        self.signer = Signer(_SERVICE, region, url, "1.1")
        # Looked up once: aiohttp's own trust_env reads the environment and ~/.netrc in a thread before every call.
        self.proxy = proxy_for(url)


class Routes:
    """The endpoints in use; each is opened when the first call goes there."""

    def __init__(self, session: AwsSession, timeouts: Timeouts, trust: ssl.SSLContext | None) -> None:
        self.region = session.region
        self.url = session.endpoint(_SERVICE).rstrip("/") + "/"
        self._fips = session.fips
        self._configured = session.endpoint_override(_SERVICE) is not None
        self._timeouts = timeouts
        self._trust = trust
        self._open: dict[str, Route] = {}
        self._found: dict[tuple[str, str, bool], Route] = {}

    def to(self, operation: str, stream: StreamId | None) -> Route:
        """The way of a call; ``stream``: the one whose ARN it names, if it names one."""
        if stream is None or self._configured:
            return self._route(self.url)
        known = (stream.account, stream.partition, operation in _DATA)
        if (route := self._found.get(known)) is None:
            route = self._found[known] = self._route(account_url(self.url, operation, stream, fips=self._fips))
        return route

    def _route(self, url: str) -> Route:
        if (route := self._open.get(url)) is None:
            route = self._open[url] = Route(url, self.region, self._timeouts, self._trust)
        return route

    def close(self) -> None:
        """Close all connections."""
        for route in self._open.values():
            route.wire.close()


@asynccontextmanager
async def open_routes(session: AwsSession, timeouts: Timeouts, trust: ssl.SSLContext | None) -> AsyncIterator[Routes]:
    """Routes whose connections live as long as the context."""
    routes = Routes(session, timeouts, trust)
    try:
        yield routes
    finally:
        routes.close()


def account_url(url: str, operation: str, stream: StreamId, *, fips: bool) -> str:
    """The endpoint for calls about ``stream`` where ``url`` is that of its region, given by AWS.

    ``fips``: the region's may be one of FIPS without saying so, as in the partition for the US government.
    """
    if stream.partition in _WITHOUT_ACCOUNTS:
        return url
    scheme, _, host = url.partition("://")
    kind = "data" if operation in _DATA else "control"
    return f"{scheme}://{stream.account}.{kind}-{_SERVICE}{'-fips' if fips else ''}.{host.partition('.')[2]}"


def proxy_for(url: str) -> str | None:
    """The proxy that the environment (``HTTPS_PROXY``, ``NO_PROXY``, ...) names for ``url``, or None."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
