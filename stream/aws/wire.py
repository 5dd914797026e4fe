"""A minimal HTTP client: POST requests to one endpoint over persistent connections.

An idle worker with hundreds of leases makes some hundred calls a second; a general HTTP client takes several times the CPU time for each.
Calls are made once: if there was no response, the caller has to find out whether the call was carried out.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, cast
from urllib.parse import urlsplit

import pyarrow as pa

from stream.aws.addresses import reach
from stream.aws.authorities import tls
from stream.aws.names import Name

MAX_BYTES: Final = 64 * 2**20
"""The most bytes of a response; more than any call here returns."""

_HEAD_BYTES: Final = 64 * 2**10
_COPIED: Final = 64 * 2**10
_ROOM: Final = 16 * 2**10
"""Bytes per connection for a response whose length is not known yet."""
_END: Final = b"\r\n\r\n"
_HTTP: Final = b"HTTP/1."
_BODILESS: Final = (204, 304)


class Answer(NamedTuple):
    """A response; names of ``headers`` are in lower case. A long ``body`` is a view of memory that is no longer written to."""

    status: int
    body: bytes | memoryview
    headers: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for a new connection, for a whole call, and, if given, without a byte of the response.

    ``keep_alive``: a connection that was idle for longer is closed, since the server may be about to do so.
    """

    connect: float
    total: float
    read: float | None = None
    keep_alive: float = 20.0


class Wire:
    """POST requests to ``url``; ``trust``: whose certificates are accepted, if not the usual ones."""

    def __init__(self, url: str, timeouts: Timeouts, trust: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._name = Name(self._host, parts.port or (443 if secure else 80))
        self._tls = (trust or tls()) if secure else None
        self._path = parts.path
        self._timeouts = timeouts
        self._idle: deque[_Connection] = deque()
        self._all: set[_Connection] = set()

    async def post(self, headers: Mapping[str, str], body: bytes | memoryview, path: str = "") -> Answer:
        """The response; ``headers`` must name the host. ``path`` is appended to that of the URL.

        Raises:
            OSError: the connection broke, or the response was not HTTP.
            TimeoutError: there was no complete response in time.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {self._path + path or '/'} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode("latin-1")
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._timeouts.total):
                connection = self._kept() or await self._new()
                try:
                    answer = await connection.ask(head, body, self._timeouts.read)
                except BaseException:
                    # A response that is no longer awaited would be taken for that of the next call.
                    connection.close()
                    raise
        except TimeoutError:
            # A gateway that has forgotten this connection has forgotten the others too, and each would cost another timeout.
            self._close_idle_since(begun)
            raise
        if connection.usable:
            self._idle.append(connection)
        self._close_old()
        return answer

    def close(self) -> None:
        """Close all connections."""
        self._name.close()
        for connection in tuple(self._all):
            connection.close()

    def _kept(self) -> _Connection | None:
        self._close_old()
        while self._idle:
            # The one used last, so that connections from a burst become idle and are closed.
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    def _close_old(self) -> None:
        self._close_idle_since(asyncio.get_running_loop().time() - self._timeouts.keep_alive)

    def _close_idle_since(self, moment: float) -> None:
        while self._idle and self._idle[0].rested < moment:
            self._idle.popleft().close()

    async def _new(self) -> _Connection:
        async with asyncio.timeout(self._timeouts.connect):
            loop = asyncio.get_running_loop()
            reached = await reach(self._host, await self._name.addresses())
            name = None if self._tls is None else self._host
            made = loop.create_connection(lambda: _Connection(self._all), sock=reached, ssl=self._tls, server_hostname=name)
            _, protocol = await made
        return protocol


class _Connection(asyncio.BufferedProtocol):
    """One request and its response at a time; a long body is received directly into its final memory."""

    def __init__(self, every: set[_Connection]) -> None:
        self._free = False
        self.rested = 0.0
        self._every = every
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._place = bytearray(_ROOM)
        self._filled = 0
        self._missing = 1
        self._long: _Long | None = None
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        """Whether it is open and no call is in progress."""
        return self._free and self._transport is not None and not self._transport.is_closing()

    async def ask(self, head: bytes, body: bytes | memoryview, read_timeout: float | None) -> Answer:
        """The response to a request; there may be no more than ``read_timeout`` seconds between two of its bytes."""
        if self._transport is None or self._transport.is_closing():
            msg = "the connection was closed by the other side"
            raise ConnectionResetError(msg)
        self._free = False
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        if len(body) <= _COPIED:
            self._transport.write(head + body)
        else:
            # Two packets more or less do not matter here, and a copy does.
            self._transport.write(head)
            self._transport.write(body)
        if read_timeout is not None:
            self._heard = loop.time()
            self._timer = loop.call_later(read_timeout, self._listen, read_timeout)
        try:
            return await self._waiting
        finally:
            # Responses have megabytes, and an idle connection must not keep its last one.
            self._waiting = None
            if self._timer is not None:
                self._timer.cancel()

    def _listen(self, read_timeout: float) -> None:
        loop = asyncio.get_running_loop()
        if (left := self._heard + read_timeout - loop.time()) > 0:
            self._timer = loop.call_later(left, self._listen, read_timeout)
        else:
            self._fail(TimeoutError(f"not a byte for {read_timeout:g} s"))

    def close(self) -> None:
        """Close it, even if a call is in progress."""
        self._free = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._every.add(self)

    def eof_received(self) -> None:
        """Called by the loop: the other side sends no more, which ends a response without a length."""
        with suppress(ValueError):
            if self._waiting is not None and not self._waiting.done() and self._long is None:
                found = parse(self._place, self._filled, ended=True)
                if not isinstance(found, int):
                    self._waiting.set_result(found[0])

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._free = False
        self._every.discard(self)
        self._fail(ConnectionResetError(f"the connection broke before the whole answer was there: {exc or 'closed'}"))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the signature is the library's
        """Called by the loop: the buffer for the next bytes."""
        return memoryview(self._place)[self._filled :] if self._long is None else self._long.rest

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the loop: ``nbytes`` bytes were received."""
        if self._waiting is None or self._waiting.done():
            # Nobody asked.
            self.close()
            return
        if self._timer is not None:
            self._heard = asyncio.get_running_loop().time()
        self._missing -= nbytes
        if self._long is not None:
            self._long.filled += nbytes
        else:
            self._filled += nbytes
        if self._missing > 0:
            return
        try:
            found = parse(self._place, self._filled) if self._long is None else self._long.answer()
            if isinstance(found, int):
                self._make_room(found)
                return
        except ValueError as error:
            self._fail(OSError(f"the answer is no HTTP: {error}"))
            self.close()
            return
        answer, keep = found
        self._long = None
        if len(self._place) > _ROOM:
            # It belongs to the answer, or is more than an idle connection should keep.
            self._place = bytearray(_ROOM)
        self._filled, self._missing = 0, 1
        self.rested = asyncio.get_running_loop().time()
        self._free = keep
        self._waiting.set_result(answer)
        if not keep:
            self.close()

    def _make_room(self, missing: int) -> None:
        self._missing = missing
        if missing > _COPIED and (head := _head(self._place, self._filled, 0)) is not None:
            self._long = _Long(head, memoryview(self._place)[: self._filled])
            return
        # One byte more than is missing, so that excess bytes are noticed.
        if (needed := self._filled + missing + 1) > len(self._place):
            if needed > MAX_BYTES + _HEAD_BYTES:
                msg = f"more than {MAX_BYTES} bytes"
                raise ValueError(msg)
            place = bytearray(max(needed, 2 * len(self._place)) if missing == 1 else needed)
            place[: self._filled] = memoryview(self._place)[: self._filled]
            self._place = place

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


_Head: TypeAlias = tuple[int, dict[bytes, bytes], bool, int]


class _Long:
    """A response whose body is received into memory of its own, which is not zeroed first."""

    def __init__(self, head: _Head, came: memoryview) -> None:
        self._status, self._headers, self._keep, begin = head
        self._size = _length(self._headers)
        # One byte more than is missing, so that excess bytes are noticed.
        self._place = memoryview(pa.allocate_buffer(self._size + 1)).cast("B")
        self.filled = len(came) - begin
        self._place[: self.filled] = came[begin:]

    @property
    def rest(self) -> memoryview:
        """The buffer for the next bytes."""
        return self._place[self.filled :]

    def answer(self) -> tuple[Answer, bool]:
        """As ``parse``, once the response is complete."""
        return Answer(self._status, self._place[: self._size], self._headers), self._keep and self.filled == self._size


def parse(came: bytearray, filled: int, *, ended: bool = False) -> tuple[Answer, bool] | int:
    """The response in ``came[:filled]``, and whether the connection may be used again. ``ended``: no more will come.

    If it is not complete: how many bytes are missing, as far as that is known, at least 1.

    Raises:
        ValueError: this is not an HTTP/1.1 response, or it is too long.
    """
    head = _head(came, filled, 0)
    if head is None:
        return 1
    status, headers, keep, begin = head
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = _unchunked(came, filled, begin)
        return 1 if body is None else (Answer(status, body, headers), keep)
    if b"content-length" not in headers and status not in _BODILESS:
        # Such a body ends with the connection.
        return (Answer(status, bytes(memoryview(came)[begin:filled]), headers), False) if ended else 1
    length = 0 if status in _BODILESS else _length(headers)
    if (missing := begin + length - filled) > 0:
        return missing
    # Whatever follows the response belongs to nobody.
    return Answer(status, bytes(memoryview(came)[begin : begin + length]), headers), keep and missing == 0


def _head(came: bytearray, filled: int, start: int) -> _Head | None:
    """Status, headers, whether the connection may be used again, and where the body begins; None while the head is incomplete."""
    end = came.find(_END, start, filled)
    if end < 0:
        if not _HTTP.startswith(bytes(came[start : min(filled, start + len(_HTTP))])):
            msg = f"it begins with {bytes(came[start : min(filled, start + 40)])!r}"
            raise ValueError(msg)
        if filled - start > _HEAD_BYTES:
            msg = f"a head of more than {_HEAD_BYTES} bytes"
            raise ValueError(msg)
        return None
    first, *lines = bytes(came[start:end]).split(b"\r\n")
    if not first.startswith(_HTTP) or len(first) < 12:
        msg = f"it begins with {first[:40]!r}"
        raise ValueError(msg)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    status, keep = int(first[9:12]), headers.get(b"connection", b"").lower() != b"close" and first.startswith(b"HTTP/1.1")
    begin = end + len(_END)
    return _head(came, filled, begin) if 100 <= status < 200 else (status, headers, keep, begin)


def _length(headers: Mapping[bytes, bytes]) -> int:
    """Bytes of the body."""
    length = int(headers[b"content-length"])
    if not 0 <= length <= MAX_BYTES:
        msg = f"a body whose length is {length}"
        raise ValueError(msg)
    return length


def _unchunked(came: bytearray, filled: int, begin: int) -> bytes | None:
    chunks: list[tuple[int, int]] = []
    while True:
        line = came.find(b"\r\n", begin, filled)
        if line < 0:
            return None
        size = int(bytes(came[begin:line]).partition(b";")[0], 16)
        if not 0 <= size <= MAX_BYTES:
            msg = f"a chunk of {size} bytes"
            raise ValueError(msg)
        begin = line + 2
        if size == 0:
            # Trailers are skipped; an empty line ends them.
            done = came.startswith(b"\r\n", begin, filled) or came.find(_END, begin, filled) >= 0
            return b"".join(bytes(came[first:last]) for first, last in chunks) if done else None
        if filled < begin + size + 2:
            return None
        chunks.append((begin, begin + size))
        begin += size + 2


@asynccontextmanager
async def open_wire(url: str, timeouts: Timeouts, trust: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """A ``Wire`` whose connections live as long as the context."""
    wire = Wire(url, timeouts, trust)
    try:
        yield wire
    finally:
        wire.close()
