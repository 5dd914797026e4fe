"""Sends the spans of sealed units to a collector, unit by unit, from a cursor that is stored beside the log.

A collector that is down causes lag and nothing else: everything to be sent is in the log. If a unit is sent twice, because the process died
before it stored the cursor, its spans have the same ids and bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Final, Protocol, TypeVar

import msgspec

from stream import events
from stream.audit.chain import Link
from stream.audit.export_options import Shape
from stream.audit.ledger import Segment
from stream.audit.negotiation import Negotiation
from stream.audit.otlp_responses import RETRYABLE, TOO_LARGE, VERDICTS, Answer, is_page, rejected_items, requested_pause
from stream.audit.packing import Compression, Request, compressed, split
from stream.audit.spans import gap_requests, requests
from stream.batch import ORIGIN
from stream.contracts import Clock, Emit, ObjectStore, Shard
from stream.errors import Halted

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
"""Seconds between attempts, doubled from the first to the longest, with jitter of up to half: a dead collector is tried once a minute."""

ENCODED_AT_ONCE: Final = 4
"""Requests that are encoded in one go before the first is sent: each is some hundred kilobytes, and every thread switch takes time."""

FIRST_PROBE: Final = 10.0
LONGEST_PROBE: Final = 300.0
"""Seconds after which a halted export checks whether the cause has been fixed, doubled from the first to the longest."""

EXPIRES_AFTER: Final = timedelta(days=1)
"""S3 lifecycle rules delete no object earlier. A ledger segment that is missing sooner was deleted by somebody."""

LONGEST_PAUSE: Final = 3600.0
"""In seconds. A collector that asks for a longer pause is tried again after this."""


_T = TypeVar("_T")


class Refused(Halted):
    """The collector accepts nothing at present; ``status`` is that of its response, or 0 if the problem is on our side."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class LedgerMissing(Halted):
    """The ledger segment of the sealed unit ``link`` does not exist."""

    def __init__(self, message: str, link: Link) -> None:
        super().__init__(message)
        self.link = link


class Mode(StrEnum):
    """``ledger``: the collector may lag behind. ``strict``: checkpoints wait for it. ``best_effort``: each request is tried once."""

    LEDGER = "ledger"
    STRICT = "strict"
    BEST_EFFORT = "best_effort"


class Destinations(StrEnum):
    """How spans name files. Keys contain the values of partition columns; ``digest`` names a file by its SHA-256 only."""

    FULL = "full"
    DIGEST = "digest"


class Collector(Protocol):
    """Where requests go."""

    async def send(self, path: str, body: bytes | memoryview, encoding: str) -> Answer:
        """Post ``body`` to ``path``. Never raises because of the collector or the network."""
        ...


class Units(Protocol):
    """Reads sealed units from the log."""

    async def read(self, shard: str, after: int) -> tuple[Link, Segment | None, Mapping[tuple[str, str], str]] | None:
        """The sealed link that starts after ``after``, its ledger if it is a unit, and the URLs of its files; None if none is sealed yet.

        Raises:
            LedgerMissing: the unit's ledger no longer exists.
        """
        ...


class Cursor(msgspec.Struct, frozen=True):
    """How far one shard is exported, and with which results. ``position`` is decimal text, in the chain of ``generation``."""

    position: str = str(ORIGIN)
    ended: bool = False
    accepted: int = 0
    rejected: int = 0
    parked: int = 0
    generation: int = 0

    @property
    def is_new(self) -> bool:
        """Whether nothing has been sent for the shard yet."""
        return not (self.accepted or self.rejected or self.parked)


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A request's body, ready to send, and how it is compressed."""

    body: bytes | memoryview
    compression: Compression

    @property
    def encoding(self) -> str:
        """The value of the header ``content-encoding``; "" for no header."""
        return "" if self.compression is Compression.NONE else self.compression.value


@dataclass(frozen=True, slots=True)
class Tally:
    """Numbers of spans or log records: accepted by the collector, rejected by it, and given up after a refused request (parked)."""

    accepted: int = 0
    rejected: int = 0
    parked: int = 0

    def __add__(self, other: Tally) -> Tally:
        """The sums of both."""
        return Tally(self.accepted + other.accepted, self.rejected + other.rejected, self.parked + other.parked)


class Sender:
    """Delivers single requests by the rules of OTLP/HTTP. ``threads``: where they are encoded; by default, the event loop's own pool."""

    def __init__(
        self,
        collector: Collector,
        clock: Clock,
        emit: Emit,
        jitter: Callable[[], float],
        compression: Compression,
        *,
        once: bool = False,
        threads: Executor | None = None,
    ) -> None:
        self._collector = collector
        self._clock = clock
        self._emit = emit
        self._jitter = jitter
        self._negotiation = Negotiation(compression)
        self._once = once
        self._threads = threads

    async def off_loop(self, work: Callable[[], _T]) -> _T:
        """The result of ``work``, which takes milliseconds and is therefore run off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def encode(self, request: Request, compression: Compression | None = None) -> EncodedRequest:
        """The request's body, ready to send. Takes milliseconds, so call it through ``off_loop``."""
        chosen = compression or self._negotiation.chosen
        return EncodedRequest(compressed(request, chosen), chosen)

    async def deliver(self, request: Request, stream: str, shard: str, encoded: EncodedRequest | None = None) -> Tally:
        """Send until the collector has accepted or refused the request. One that is too large is halved; an invalid one is given up.

        ``encoded`` is the result of ``encode`` for the request, if the caller has it already.

        Raises:
            Refused: the collector would refuse any other request too; nothing was given up. Never raised with ``once``.
        """
        if encoded is None:
            encoded = await self.off_loop(lambda: self.encode(request))
        wait, blamed = FIRST_WAIT, False
        while True:
            answer = await self._collector.send(request.path, encoded.body, encoded.encoding)
            if self._negotiation.blames(encoded.compression, answer.status):
                blamed = True
                detail = f"{answer.status} {answer.detail}".strip() + " to zstd: sent as gzip"
                self._emit(events.CallRepeated(stream, shard, "export spans", detail, 0.0))
                encoded = await self._encoded_as(request, Compression.GZIP)
                continue
            if answer.status == TOO_LARGE and (halves := split(request)):
                return await self.deliver(halves[0], stream, shard) + await self.deliver(halves[1], stream, shard)
            # A web server that answers every path with a page is no collector; its 200 does not mean that spans were accepted.
            page = is_page(answer.body)
            if 200 <= answer.status < 300 and not page:
                self._negotiation.accepted(encoded.compression, blamed=blamed)
                return self._accepted(request, stream, shard, answer)
            if answer.status in VERDICTS or self._once:
                self._emit(events.ExportRefused(stream, shard, answer.status, request.items, answer.detail))
                return Tally(parked=request.items)
            if answer.status and answer.status not in RETRYABLE:
                what = f"{answer.status} {answer.detail}{' with a web page' if page else ''}"
                msg = f"the collector answers {what} to {request.path}: check audit.otlp.endpoint and its headers"
                raise Refused(msg, answer.status)
            seconds = self._pause(answer, wait)
            detail = f"{answer.status or 'no answer:'} {answer.detail}".strip()
            self._emit(events.CallRepeated(stream, shard, "export spans", detail, seconds))
            await self._clock.sleep(seconds)
            wait = min(2 * wait, LONGEST_WAIT)
            if not blamed and (other := self._negotiation.after_pause(encoded.compression)) is not encoded.compression:
                encoded = await self._encoded_as(request, other)

    async def _encoded_as(self, request: Request, compression: Compression) -> EncodedRequest:
        return await self.off_loop(lambda: self.encode(request, compression))

    def _accepted(self, request: Request, stream: str, shard: str, answer: Answer) -> Tally:
        """The tally of a request that the collector accepted as a whole or in part."""
        rejected, why = rejected_items(answer.body)
        rejected = min(rejected, request.items)
        if rejected or why:
            self._emit(events.ExportRefused(stream, shard, answer.status, rejected, why))
        return Tally(request.items - rejected, rejected)

    def _pause(self, answer: Answer, wait: float) -> float:
        """Seconds until the next attempt: as long as the collector asks for, else ``wait`` with jitter."""
        pause = requested_pause(answer.retry_after, self._clock.now()) if answer.retry_after else None
        # A time in the past, as from a collector whose clock is slow, must not lead to retries without any pause.
        return wait * (0.5 + self._jitter() / 2) if pause is None or pause < FIRST_WAIT else min(pause, LONGEST_PAUSE)


class Exporter:
    """Exports the units of any shard, in order. Only one caller may work on a shard at a time."""

    def __init__(self, units: Units, store: ObjectStore, sender: Sender, shape: Shape, clock: Clock, emit: Emit, stream: str) -> None:
        self._units = units
        self._store = store
        self._sender = sender
        self._shape = shape
        self._clock = clock
        self._emit = emit
        self._stream = stream
        self._waiting: dict[str, datetime] = {}

    async def cursor(self, shard: str) -> Cursor:
        """See ``stored_cursor``."""
        return await stored_cursor(self._store, self._stream, shard)

    async def step(self, shard: str, cursor: Cursor) -> Cursor | None:
        """Export the link at ``cursor``, store the cursor after it, and return that; None if no link is sealed there yet.

        Units whose ledger expired before the export was first switched on are skipped.

        Raises:
            Refused: the collector accepts nothing; the cursor is unchanged.
            LedgerMissing: the unit has no ledger, although earlier units had one.
        """
        if cursor.ended:
            return None
        try:
            found = await self._units.read(Shard(self._stream, shard, generation=cursor.generation).chain, int(cursor.position))
        except LedgerMissing as missing:
            if not cursor.is_new or self._age(missing.link) < EXPIRES_AFTER:
                raise
            return await self._skip_expired(shard, cursor, missing.link)
        if found is None:
            self._waiting.pop(shard, None)
            return None
        link, segment, urls = found
        if link.target is not None:
            after = msgspec.structs.replace(cursor, position=str(link.target), generation=cursor.generation + 1)
        elif link.last is None:
            after = msgspec.structs.replace(cursor, ended=True)
            self._waiting.pop(shard, None)
        else:
            self._waiting[shard] = datetime.fromisoformat(link.sealed_at)
            self.report_lag()
            tally = await self.export(link, segment, urls)
            sent = Tally(cursor.accepted, cursor.rejected, cursor.parked) + tally
            after = Cursor(str(link.last), False, sent.accepted, sent.rejected, sent.parked, cursor.generation)
            self._emit(events.SpansExported(self._stream, shard, tally.accepted, tally.rejected, tally.parked))
        await self._store.put(_key(self._stream, shard), msgspec.json.encode(after))
        return after

    async def _skip_expired(self, shard: str, cursor: Cursor, link: Link) -> Cursor:
        why = "the ledger of the unit does not exist any more: it is older than the export"
        self._emit(events.ExportRefused(self._stream, shard, 0, link.records, why))
        after = msgspec.structs.replace(cursor, position=str(link.last))
        await self._store.put(_key(self._stream, shard), msgspec.json.encode(after))
        return after

    async def export(self, link: Link, segment: Segment | None, urls: Mapping[tuple[str, str], str]) -> Tally:
        """Send one unit or gap, even if it was sent before. For each request that is given up, a note is stored."""
        tally, pending = Tally(), gap_requests(link, self._shape) if segment is None else requests(link, segment, urls, self._shape)
        number = 0

        def next_parcels() -> list[tuple[Request, EncodedRequest]]:
            return [(request, self._sender.encode(request)) for request in islice(pending, ENCODED_AT_ONCE)]

        while batch := await self._sender.off_loop(next_parcels):
            for request, encoded in batch:
                sent = await self._sender.deliver(request, self._stream, link.shard, encoded)
                if sent.parked:
                    note = {"shard": link.shard, "after": str(link.after), "last": str(link.last), "request": number, "items": sent.parked}
                    key = f"export/{self._stream}/parked/{link.shard}/{link.after:060d}-{number:06d}.json"
                    await self._store.put(key, msgspec.json.encode(note))
                tally, number = tally + sent, number + 1
        return tally

    def caught_up(self, shard: str) -> None:
        """Report that every sealed unit of ``shard`` is exported."""
        self._emit(events.ExportLagged(self._stream, shard, 0.0))

    def report_lag(self) -> None:
        """Report how long each shard's current unit has been waiting, so that an outage shows in the metrics while it lasts."""
        now = self._clock.now()
        for shard, since in self._waiting.items():
            self._emit(events.ExportLagged(self._stream, shard, max(0.0, (now - since).total_seconds())))

    def _age(self, link: Link) -> timedelta:
        return self._clock.now() - datetime.fromisoformat(link.sealed_at)


async def stored_cursor(store: ObjectStore, stream: str, shard: str) -> Cursor:
    """The cursor of ``shard``. If it is missing or unreadable, the export starts from the beginning, which at worst sends spans again."""
    stored = await store.get(_key(stream, shard))
    if stored is None:
        return Cursor()
    try:
        return msgspec.json.decode(stored.body, type=Cursor)
    except msgspec.MsgspecError:
        return Cursor()


def _key(stream: str, shard: str) -> str:
    return f"export/{stream}/{shard}.json"
