"""A run that ends must hold all leases: makes sure beforehand that no other worker holds any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stream.contracts import Clock
from stream.errors import Fatal
from stream.lease.decide import ObservedLease, is_available, observe
from stream.lease.settings import LeasedStream, LeaseSettings
from stream.lease.table import LeaseTable

_OURS: Final = (
    "The workers read what is there; `stream complete FILE --until MOMENT --wait SECONDS` waits until they have. Or stop them, then run "
    "this again"
)
_THEIRS: Final = (
    "What they process is not in the lake. Stop them, then run this again: it continues where they stopped, once their leases have run "
    "out; or let workers without --once share the shards with them"
)


async def observe_alone(
    table: LeaseTable, streams: Sequence[LeasedStream], settings: LeaseSettings, clock: Clock
) -> dict[str, ObservedLease]:
    """The leases of ``streams``, once nobody holds one of a shard that has not ended: a coordinator that begins with them may take all.

    Takes no time if no lease has an owner. Otherwise the owner may be dead, which shows after the failover time.

    Raises:
        Fatal: another worker renews a lease.
    """
    observed: dict[str, ObservedLease] = {}
    begun: float | None = None
    while True:
        scanned = await table.scan()
        now = clock.monotonic()
        begun = now if begun is None else begun
        observed = observe(observed, [lease for lease in scanned.leases if any(each.owns(lease.key) for each in streams)], now)
        held = [row for row in observed.values() if row.lease.holder is not None and not row.lease.ended]
        if any(row.changed > begun for row in held):
            # Which worker renews first is chance, and what to do depends on whether some are of another application.
            first = min(held, key=lambda row: (not row.lease.owned_elsewhere, row.changed <= begun, row.lease.key)).lease
            others = first.owned_elsewhere
            msg = (
                f"workers {'of another application, such as a Java KCL, ' if others else ''}hold leases in the table {table.name}: "
                f"{first.holder} reads {first.key}, for example. A run that ends reads every shard by itself, so nothing was read. "
                f"{_THEIRS if others else _OURS}"
            )
            raise Fatal(msg)
        if all(is_available(row, now, settings.failover) for row in held):
            return observed
        await clock.sleep(settings.look)
