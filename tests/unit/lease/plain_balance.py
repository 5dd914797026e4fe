"""A simple, slow reference implementation of the even balance; ``decide.take_evenly`` must take exactly the same leases."""

from __future__ import annotations

import math

from stream.lease.decide import HYSTERESIS, LEASE_WEIGHT, MARGIN, VERY_OLD, is_available


def weight(row):
    return LEASE_WEIGHT + (row.lease.throughput or 0.0)


def take_plainly(seen, me, now, rules):
    """Keys in the order in which they are taken."""
    rows = sorted((row for row in seen.values() if not row.lease.ended), key=lambda row: row.lease.key)
    free = [row for row in rows if is_available(row, now, rules.failover)]
    held = {me: []}
    for row in rows:
        if row not in free:
            held.setdefault(row.lease.holder, []).append(row)
    load = {worker: sum(map(weight, leases)) for worker, leases in held.items()}
    own = sum(1 for row in held[me] if row.lease.holder == me)
    mine = []
    for row in sorted(free, key=lambda row: (-weight(row), row.lease.key)):
        overdue = now - (row.changed if row.changed > -math.inf else row.since) > VERY_OLD * rules.failover
        worker = me if overdue else min(load, key=lambda name: (load[name], name))
        load[worker] += weight(row)
        if worker == me:
            mine.append(row.lease.key)
    if rules.steal and not free:
        mine += moves(me, held, load, now, rules)[: rules.max_steal]
    return mine[: max(0, rules.max_leases - own)]


def moves(me, held, load, now, rules):
    mean, newcomers = sum(load.values()) / len(load), {worker for worker, leases in held.items() if not leases}
    movable, mine = {worker: list(leases) for worker, leases in held.items()}, []
    while True:
        rich, poor = max(load, key=lambda name: (load[name], name)), min(load, key=lambda name: (load[name], name))
        gap = load[rich] - load[poor]
        choices = [
            (min(weight(row), gap - weight(row)), row.lease.key, row)
            for row in movable[rich]
            if now - row.since >= rules.tenure or poor in newcomers
            if gap > HYSTERESIS * mean and gap >= MARGIN * weight(row)
        ]
        if not choices:
            return mine
        _, key, row = max(choices, key=lambda choice: choice[:2])
        movable[rich].remove(row)
        load[rich] -= weight(row)
        load[poor] += weight(row)
        if poor == me:
            mine.append(key)
