"""Sealed units for the export of spans, read from the commit log and the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from stream.audit.chain import Link, LinkKind
from stream.audit.export import Destinations, LedgerMissing
from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import LedgerObject, Segment, SegmentError, read_segment
from stream.audit.objects import Area, url_in
from stream.batch import ORIGIN
from stream.commit.log import CommitLog
from stream.commit.lookup import unit_start
from stream.commit.naming import manifest_key
from stream.contracts import ObjectStore
from stream.errors import Halted
from stream.sink.rejects import NAME as REJECTS
from stream.worker.opening.links import link_of
from stream.worker.receivers.recent_segments import RecentSegments


class LogUnits:
    """``audit.export.Units`` over the commit log and the ledger."""

    def __init__(
        self,
        log: CommitLog,
        stream: str,
        areas: Mapping[str, Area],
        ledger: ObjectStore,
        naming: Destinations = Destinations.FULL,
        recent: RecentSegments | None = None,
    ) -> None:
        self._log = log
        self._stream = stream
        self._areas = areas
        self._ledger = ledger
        self._naming = naming
        self._recent = recent

    async def begins(self, shard: str, after: int = ORIGIN) -> int:
        """Where the unit of the chain ``shard`` begins that holds the records after ``after``, or else where the chain begins."""
        start = await unit_start(self._log.store, self._stream, shard, after + 1) if after > ORIGIN else None
        return await self._log.chain_start(self._stream, shard) if start is None else start

    async def read(self, shard: str, after: int) -> tuple[Link, Segment | None, Mapping[tuple[str, str], str]] | None:
        """See ``audit.export.Units``; raises ``Halted`` if a sealed unit has no readable ledger."""
        key = manifest_key(self._stream, shard, after)
        stored = await self._log.store.get(key)
        if stored is None:
            return None
        link = link_of(key, stored.body, after)
        if not link.sealed:
            return None
        urls = {(file.sink, file.key): self._name(link, file) for file in link.files}
        if link.kind is not LinkKind.UNIT:
            return link, None, urls
        if self._recent is not None and link.ledger and (segment := self._recent.take(link.ledger.sha256)):
            return link, segment, urls
        body = await self._ledger.get(link.ledger.key) if link.ledger else None
        what = f"the ledger of {shard} after {after} cannot be exported"
        if body is None:
            msg = f"{what}: it is missing; `stream audit verify` says what else is wrong"
            raise LedgerMissing(msg, link)
        try:
            return link, await asyncio.to_thread(read_segment, body.body), urls
        except SegmentError as error:
            msg = f"{what}: {error}; `stream audit verify` says what else is wrong"
            raise Halted(msg) from error

    def _name(self, unit: Link, file: LedgerObject) -> str:
        """Keys of ledger and rejects consist of stream, shard and range, so their URLs reveal nothing about a record."""
        if self._naming is Destinations.DIGEST and file.sink not in {LEDGER, REJECTS}:
            return f"sha256:{file.sha256}"
        return url_in(unit, file.sink, file.key, self._areas)
