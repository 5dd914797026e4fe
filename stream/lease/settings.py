"""Settings of leases: timing, balancing, and the streams that they belong to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from stream.contracts import Shard, StartKind
from stream.errors import Fatal
from stream.lease.rows import Lease

RENEWALS: Final = 3
"""Renewals per failover time (KCL: ``failoverTimeMillis / 3``), so that one lost call does not cost a lease."""

READ_UNITS: Final = 5.0
"""Read units per second that one worker may spend on scanning the table; 5 are 40 KiB, about 80 rows."""

READ_UNIT_BYTES: Final = 8192
"""Bytes of an eventually consistent read unit (DynamoDB developer guide)."""


class Balance(StrEnum):
    """How leases are spread: ``even`` by traffic, ``kcl`` exactly as KCL 2.x does, for fleets shared with it."""

    EVEN = "even"
    KCL = "kcl"


UNLIMITED: Final = 2**31


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """``failover``: seconds without a renewal after which a lease may be taken. ``look``: seconds between scans for free leases."""

    failover: float = 10.0
    max_leases: int = UNLIMITED
    balance: Balance = Balance.EVEN
    look: float = 1.0
    sync: float = 30.0
    create_table: bool = True
    fleet_tables: tuple[str, str] | None = None
    """The tables in which a KCL 3.x fleet keeps its rules and its workers' reports; by default, named after the lease table."""

    @property
    def renew_every(self) -> float:
        """Seconds between two renewals of a lease."""
        return self.failover / RENEWALS

    @property
    def steal_every(self) -> float:
        """Seconds between rounds in which leases are taken from others (KCL's taker: twice the failover time)."""
        return self.failover * 2

    def look_after(self, size: int) -> float:
        """Seconds until the next scan of a table of ``size`` bytes."""
        return max(self.look, size / READ_UNIT_BYTES / READ_UNITS)


NOT_IDENTIFIED: Final = "\0not identified"
"""The prefix of a stream that could not be described, and so has no leases as far as is known."""


@dataclass(frozen=True, slots=True)
class LeasedStream:
    """One stream whose shards are leased. In a table of several streams, ``prefix`` comes before the shard id in lease keys."""

    stream: str
    start: StartKind
    list_shards: Callable[[], Awaitable[list[Shard]]]
    prefix: str = ""
    identify: Callable[[], Awaitable[str]] | None = None
    """In a table of several streams, asks for the prefix: it has the time at which the stream was created."""

    @property
    def identified(self) -> bool:
        """Whether the stream could be described. If not, its prefix is one that no lease has."""
        return not self.prefix.startswith(NOT_IDENTIFIED)

    def unidentified(self) -> LeasedStream:
        """The stream as it is before it could be described, without leases."""
        return replace(self, prefix=f"{NOT_IDENTIFIED} {self.stream}:")

    def key(self, shard_id: str) -> str:
        """The lease key of a shard."""
        return f"{self.prefix}{shard_id}"

    @property
    def stream_name(self) -> str | None:
        """KCL's serialized identifier of the stream; None in a table of one stream."""
        return self.prefix.removesuffix(":") or None

    def owns(self, key: str) -> bool:
        """Whether ``key`` is a lease of this stream; in a table of one stream, all are."""
        return key.startswith(self.prefix) if self.prefix else ":" not in key


def refuse_other_keys(table: str, leases: Iterable[Lease], streams: Iterable[LeasedStream]) -> None:
    """Make sure that a table without a lease of ``streams`` does not hold the KCL's of the same streams under keys of the other kind.

    Raises:
        Fatal: it does: their checkpoints would be passed over.
    """
    each = list(streams)
    several = any(one.prefix for one in each)
    names = {one.stream for one in each}
    for lease in leases:
        parts = lease.key.split(":")
        other = len(parts) == 1 if several else len(parts) > 2 and parts[1] in names
        # Ours are not needed: the commit log says where to continue.
        if other and not lease.operation:
            have, use = ("one stream", "`streams`") if several else ("several streams", "`stream`")
            msg = (
                f"the lease table {table} holds leases of a KCL application that reads {have}, such as {lease.key!r}, but this pipeline "
                f"uses {use}, whose leases have other keys. It would not continue at those checkpoints. Write "
                f"source.kinesis.{'stream' if several else 'streams'} instead, or choose another table with coordination.native.table"
            )
            raise Fatal(msg)
