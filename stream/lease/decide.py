"""Which leases to take: exactly like the taker of KCL 2.x in fleets shared with it, or balanced by traffic in fleets of our own. Pure.

Each worker decides alone, from a scan of the table; if two want the same lease, the second write fails on the row's counter. Clocks of
other machines are never read: a lease has expired when its counter has not changed for the failover time, by the observer's own monotonic
clock.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias

from stream.lease.rows import Lease

VERY_OLD: Final = 3
"""Failover times without movement after which KCL takes a lease regardless of its target (``BaseLeaseTaker``)."""

LEASE_WEIGHT: Final = 32.0
"""KB/s added to the traffic of every lease: polling an idle shard costs something too, and small rates must not move leases around."""

HYSTERESIS: Final = 0.1
"""Share of the mean load by which two workers may differ without a lease being moved."""

MARGIN: Final = 1.25
"""A lease moves only if the difference is this many times its own weight, because rates always fluctuate."""

_LAST_KEY: Final = chr(0x10FFFF)
"""Sorts after every lease key."""


@dataclass(frozen=True, slots=True)
class ObservedLease:
    """An observed lease. ``changed``, ``since``: monotonic times at which its current counter and its current owner were first seen.

    ``refused``: since when its holder has been seen to say that it has no access; None if it does not.
    """

    lease: Lease
    changed: float
    since: float
    refused: float | None = None


class Why(StrEnum):
    """The reason for taking a lease."""

    OWN = "own"
    REFUSED = "refused"
    FREE = "free"
    EXPIRED = "expired"
    STOLEN = "stolen"
    ASSIGNED = "assigned"


@dataclass(frozen=True, slots=True)
class Take:
    """Take this lease on the condition that its counter has not changed."""

    lease: Lease
    why: Why


@dataclass(frozen=True, slots=True)
class Rules:
    """``failover``: seconds. ``steal``: take up to ``max_steal`` leases a round from others. ``tenure``: seconds a moved lease stays."""

    failover: float
    max_leases: int = 2**31
    max_steal: int = 1
    steal: bool = True
    tenure: float = 0.0


Order: TypeAlias = Callable[[Sequence[ObservedLease]], list[ObservedLease]]
"""Puts candidates into a random order; the caller owns the source of randomness."""


def observe(before: Mapping[str, ObservedLease], rows: Iterable[Lease], now: float) -> dict[str, ObservedLease]:
    """The leases after a scan at ``now``. A new row counts as never changed if it has no owner, and as changed just now if it has one."""
    observed: dict[str, ObservedLease] = {}
    for lease in rows:
        known = before.get(lease.key)
        if known is None:
            changed = now if lease.owner is not None else -math.inf
            observed[lease.key] = ObservedLease(lease, changed, now, now if lease.out_of_reach else None)
            continue
        changed = known.changed if known.lease.counter == lease.counter else now
        same = known.lease.owner == lease.owner
        refused = (known.refused if same and known.refused is not None else now) if lease.out_of_reach else None
        observed[lease.key] = ObservedLease(lease, changed, known.since if same else now, refused)
    return observed


def is_available(observed: ObservedLease, now: float, failover: float) -> bool:
    """Whether nobody holds the lease, or it has not been renewed for longer than the failover time."""
    return observed.lease.holder is None or now - observed.changed > failover


def first_holder(observed: Mapping[str, ObservedLease], now: float, failover: float) -> str | None:
    """Who holds the lease with the least key of those that a live worker holds: all workers agree on it sooner or later.

    Workers that may not list the source's objects come last, and before them those that say that they have no access to the shard. So if
    all are refused, it is the same worker as if none were.
    """
    held = [observed[key].lease for key in sorted(observed) if not is_available(observed[key], now, failover)]
    barred = {lease.holder for lease in held if lease.bars_listing}
    return next((lease.holder for lease in sorted(held, key=lambda lease: (lease.holder in barred, lease.out_of_reach))), None)


def take_as_kcl(observed: Mapping[str, ObservedLease], me: str, now: float, rules: Rules, order: Order) -> list[Take]:
    """What KCL 2.x's ``LeaseTaker`` would take in one round; rows of ended shards count like any other."""
    rows = list(observed.values())
    free = [row for row in rows if is_available(row, now, rules.failover)]
    counts = _counts(rows, free, me)
    mine = counts[me]
    very_old = [row for row in rows if row.changed < now - VERY_OLD * rules.failover]
    if very_old:
        return _takes(order(very_old)[: max(0, rules.max_leases - mine)], me)
    target = 1 if len(counts) >= len(rows) else math.ceil(len(rows) / len(counts))
    need = min(target, rules.max_leases) - mine
    if need <= 0:
        return []
    if free:
        return _takes(order(free)[:need], me)
    return _takes(_steal_as_kcl(rows, counts, min(target, rules.max_leases), need, rules, order), me)


def _steal_as_kcl(
    rows: Sequence[ObservedLease], counts: Counter[str], target: int, need: int, rules: Rules, order: Order
) -> list[ObservedLease]:
    victim, most = min(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    if not rules.steal or most < target:
        return []
    number = min(need, most - target)
    if number == 0 and need > 1:
        number = 1
    candidates = [row for row in rows if row.lease.owner == victim]
    return order(candidates)[: min(number, rules.max_steal)]


def take_evenly(observed: Mapping[str, ObservedLease], me: str, now: float, rules: Rules) -> list[Take]:
    """What this worker takes so that traffic, rather than the number of leases, is spread evenly; ended shards do not count.

    Every worker computes the same moves for the whole fleet and carries out its own, so two workers do not want the same lease for long.
    Free leases go to the least loaded worker, heaviest first; one that nobody has taken for a few failover times goes to whoever sees it. A
    lease moves from the most to the least loaded worker only if their loads differ by more than ``HYSTERESIS`` of the mean and by clearly
    more than the weight of the lease, and not within ``tenure`` of its last move unless the receiver has no lease at all.
    """
    rows = sorted((row for row in observed.values() if not row.lease.ended), key=lambda row: row.lease.key)
    free = [row for row in rows if is_available(row, now, rules.failover)]
    free_keys = {row.lease.key for row in free}
    held: dict[str, dict[str, ObservedLease]] = {me: {}}
    for row in rows:
        if row.lease.key not in free_keys and (owner := row.lease.holder) is not None:
            held.setdefault(owner, {})[row.lease.key] = row
    mine: list[ObservedLease] = []
    load = {worker: sum(map(_weight, leases.values())) for worker, leases in held.items()}
    ranks = sorted((weight, worker) for worker, weight in load.items())
    for row in sorted(free, key=lambda row: (-_weight(row), row.lease.key)):
        # After a few failover times, do not leave it to the least loaded worker: it may be at its limit, or unable to work on this shard.
        free_since = row.since if row.changed == -math.inf else row.changed
        worker = me if now - free_since > VERY_OLD * rules.failover else ranks[0][1]
        held[worker][row.lease.key] = row
        _shift(ranks, load, worker, _weight(row))
        if worker == me:
            mine.append(row)
    if rules.steal and not free:
        mine += _moves_to(me, held, load, now, rules)
    own = sum(1 for row in rows if row.lease.holder == me and row.lease.key not in free_keys)
    return _takes(mine[: max(0, rules.max_leases - own)], me)


def _moves_to(me: str, held: dict[str, dict[str, ObservedLease]], load: dict[str, float], now: float, rules: Rules) -> list[ObservedLease]:
    """The leases that ``me`` gets if worthwhile moves are simulated until it gets ``max_steal`` of them or no move is worthwhile."""
    mean = sum(load.values()) / len(load)
    newcomers = {worker for worker, leases in held.items() if not leases}
    ranks = sorted((weight, worker) for worker, weight in load.items())
    settled: dict[str, list[tuple[float, str]]] = {}
    fresh: dict[str, list[tuple[float, str]]] = {}
    for worker, leases in held.items():
        settled[worker], fresh[worker] = [], []
        for key, row in leases.items():
            (settled if now - row.since >= rules.tenure else fresh)[worker].append((_weight(row), key))
        settled[worker].sort()
        fresh[worker].sort()
    mine: list[ObservedLease] = []
    while len(mine) < rules.max_steal:
        (least, receiver), (most, giver) = ranks[0], ranks[-1]
        gap = most - least
        if gap <= HYSTERESIS * mean:
            break
        choices = [pool for pool in (settled[giver], fresh[giver] if receiver in newcomers else None) if pool]
        found = max((best for pool in choices for best in _best(pool, gap)), default=None)
        if found is None:
            break
        # A lease moves only once, so it is no longer a candidate.
        key, weight = found[1:]
        pool = next(pool for pool in choices if (at := bisect_left(pool, (weight, key))) < len(pool) and pool[at] == (weight, key))
        del pool[at]
        _shift(ranks, load, giver, -weight)
        _shift(ranks, load, receiver, weight)
        if receiver == me:
            mine.append(held[giver][key])
    return mine


def _best(pool: list[tuple[float, str]], gap: float) -> Iterator[tuple[float, str, float]]:
    """Candidates as (gain, key, weight): the leases whose weight is closest to half of ``gap``, provided ``gap`` is clearly larger."""
    middle = bisect_right(pool, (gap / 2, _LAST_KEY))
    if middle > 0:
        weight, key = pool[middle - 1]
        yield min(weight, gap - weight), key, weight
    if middle < len(pool) and gap >= MARGIN * pool[middle][0]:
        weight, key = pool[bisect_right(pool, (pool[middle][0], _LAST_KEY)) - 1]
        yield min(weight, gap - weight), key, weight


def _shift(ranks: list[tuple[float, str]], load: dict[str, float], worker: str, weight: float) -> None:
    """Add ``weight`` to a worker's load, and keep ``ranks`` in ascending order."""
    del ranks[bisect_left(ranks, (load[worker], worker))]
    load[worker] += weight
    insort(ranks, (load[worker], worker))


def _weight(row: ObservedLease) -> float:
    return LEASE_WEIGHT + (row.lease.throughput or 0.0)


def _counts(rows: Sequence[ObservedLease], free: Sequence[ObservedLease], me: str) -> Counter[str]:
    available = {row.lease.key for row in free}
    counts = Counter({me: 0})
    counts.update(row.lease.owner for row in rows if row.lease.key not in available and row.lease.owner is not None)
    return counts


def _takes(rows: Iterable[ObservedLease], me: str) -> list[Take]:
    return [Take(row.lease, _why(row.lease, me)) for row in rows]


def _why(lease: Lease, me: str) -> Why:
    if lease.owner is None:
        return Why.FREE
    return Why.OWN if lease.owner == me else Why.EXPIRED


def marked_as_stolen(takes: Iterable[Take], observed: Mapping[str, ObservedLease], now: float, failover: float) -> list[Take]:
    """``takes``, with the reason ``STOLEN`` if the owner still renews the lease, or ``REFUSED`` if it does so without having access."""

    def marked(take: Take) -> Take:
        row = observed[take.lease.key]
        if take.why is not Why.EXPIRED or is_available(row, now, failover):
            return take
        return replace(take, why=Why.STOLEN if row.refused is None else Why.REFUSED)

    return [marked(take) for take in takes]
