"""What the verification of a log can read: the log, its files and checkpoints, and the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from stream.audit.chain import Link, ShardLog, StoredCheckpoint
from stream.audit.compacted import Compacted
from stream.audit.ledger import LedgerObject
from stream.audit.objects import Area
from stream.audit.outputs import Separation
from stream.audit.source import Reread
from stream.batch import ORIGIN
from stream.contracts import Shard


class Evidence(Protocol):
    """What the verifier can read. ``horizon``: records that arrived earlier may have expired in the stream; None without a stream.

    ``deletes_ended_checkpoints``: that of an ended shard may be missing. ``shares_places``: another stream of the application
    writes to the same places, and the verification of that stream reports the files there that no manifest lists.
    """

    application: str
    stream: str
    areas: Mapping[str, Area]
    horizon: datetime | None
    deletes_ended_checkpoints: bool
    shares_places: bool
    compacted: Compacted

    async def shards(self) -> list[str]:
        """The names of all chains that have a folder in the log."""
        ...

    async def log(self, shard: str, after: int = ORIGIN) -> ShardLog:
        """The contents of that folder; with ``after``, at least everything from the unit that contains the next record."""
        ...

    async def listed(self) -> Mapping[str, Shard] | None:
        """The shards that the stream has now, by id; None if that is not known, or the chains do not follow the whole stream."""
        ...

    async def checkpoint(self, shard: str) -> StoredCheckpoint | None:
        """The checkpoint, if it is about this chain, or about a later one of the shard that is not in the log."""
        ...

    async def unlisted_checkpoints(self, shards: Sequence[str]) -> list[str]:
        """Names of stored checkpoints that belong to none of ``shards``."""
        ...

    async def read_file(self, unit: Link, file: LedgerObject) -> tuple[bytes | None, str] | None:
        """The bytes of a file of ``unit`` (None if it does not exist) and its URL; None if the sink's location is unknown."""
        ...

    async def separation(self, unit: Link, file: LedgerObject) -> Separation | None:
        """How a file of ``unit`` is written if its values are separated; None if that is unknown."""

    def may_be_gone(self, unit: Link, file: LedgerObject) -> bool:
        """Whether a file of ``unit`` may have been deleted on purpose, because a table has its rows."""

    async def of_another_stream(self, sink: str, key: str) -> bool:
        """Whether a file that no manifest of this stream lists belongs to another stream of the same application."""
        ...

    async def definition(self, unit: Link) -> str:
        """What is wrong with the recorded definition that ``unit`` names; empty if nothing is."""
        ...

    async def unit(self, shard: str, after: int) -> Link | None:
        """The manifest of ``shard`` that begins at ``after``; None if there is none that can be read."""
        ...

    async def pinned_start(self) -> str | None:
        """The stream's pinned start, in the format of ``Link.start``."""
        ...

    def reread(self, shard: str, until: int, *, ended: bool = False) -> AsyncIterator[Reread] | None:
        """The records of ``shard`` from its start up to ``until``, read from the stream; None if the stream no longer has that shard.

        ``ended``: the log says that there are no more; then those that the stream has after ``until`` are read too.
        """
        ...


def horizon(now: datetime, retention: timedelta) -> datetime:
    """Records that arrived before this may have expired; an hour is allowed for clock differences and approximate arrival times."""
    return now - retention + timedelta(hours=1)
