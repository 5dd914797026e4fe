"""A large fleet, simulated: ``python benchmarks/scale.py [--shards 10000] [--workers 1000] [--start 60] [--kill 0.1] [--json FILE]``.

Runs the deciding code (``stream/lease/decide.py``) of every worker over one table. Workers start over ``--start`` seconds; each looks
at the table, takes leases, looks again, and then looks as often as the size of the table allows. Twenty writes at a time are sent
concurrently, and the table refuses all but the first for a lease. Once the leases are balanced, a share of the workers dies at once. Time
is simulated: the speed of the machine does not matter.

Simplified: renewals always succeed, replies always arrive, and a row that its owner renews counts as fresh for everybody.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

from stream.lease.decide import ObservedLease, Rules, Take, take_evenly
from stream.lease.holding import AT_ONCE
from stream.lease.rows import ExtendedSequenceNumber, Lease, Progress, encode
from stream.lease.settings import LeaseSettings
from stream.lease.table import item_size
from stream.lease.taker import STEALS, TENURE
from stream.local.kinesis.sequence import base, number

WRITE_SECONDS: Final = 0.005
"""One conditional write."""
SECOND: Final = 1_795_000_000
"""Unix time of the records in the checkpoints."""


def row(at: int, shards: int) -> Lease:
    """A lease that has been checkpointed, with all attributes that real rows have."""
    last = number(base(SECOND - 3600, at), 1000 * at + 1, SECOND)
    checkpoint, width = ExtendedSequenceNumber(str(last)), 2**128 // shards
    return Lease(
        key=f"shardId-{at:012d}",
        checkpoint=checkpoint,
        counter=at,
        hash_range=(at * width, (at + 1) * width - 1),
        throughput=250.0,
        progress=Progress(last, 0, last - 5000, checkpoint, tip=datetime.fromtimestamp(SECOND, UTC)),
        operation="0" * 32,
        renewed=datetime.fromtimestamp(SECOND, UTC).isoformat(),
    )


def table_bytes(shards: int, worker: str) -> int:
    """The bytes that one look at the table reads."""
    full = (replace(row(at, shards), owner=worker, signed=worker) for at in range(shards))
    return sum(item_size(encode(lease)) for lease in full)


@dataclass(slots=True)
class Phase:
    """The effort until every lease was held and none moved any more; ``seconds`` until the last take, ``idle`` until none was free."""

    seconds: float = 0.0
    idle: float = 0.0
    looks: int = 0
    writes: int = 0
    refused: int = 0
    moved: int = 0
    most: int = 0
    least: int = 0


class Fleet:
    """Workers over one table, each at its own point of a schedule drawn from ``seed``."""

    def __init__(self, shards: int, workers: int, settings: LeaseSettings, start: float, seed: int = 1) -> None:
        rng = Random(seed)
        self.settings = settings
        self.size = table_bytes(shards, "10.0.0.1-1-00000000")
        self.every = settings.look_after(self.size)
        self.observed = {lease.key: ObservedLease(lease, -math.inf, -math.inf) for lease in (row(at, shards) for at in range(shards))}
        self.alive = {f"w{at:04d}" for at in range(workers)}
        self.now = 0.0
        self.phase = Phase()
        self._free = shards
        self._started = start
        self._died: float | None = None
        self._first_look: dict[str, float] = {}
        self._stole = dict.fromkeys(self.alive, -math.inf)
        self._numbers = count()
        self._events: list[tuple[float, int, str, list[Take] | None, bool]] = []
        for worker in sorted(self.alive):
            self._push(rng.random() * start, worker, again=True)

    def settle(self) -> Phase:
        """Continue until all workers have started and nothing was taken for two rounds in which leases may move."""
        self.phase, begun, last = Phase(), self.now, max(self.now, self._started)
        quiet = 2 * max(self.every, self.settings.steal_every)
        while self.now < last + quiet:
            self.now, _, worker, takes, again = heapq.heappop(self._events)
            if worker not in self.alive:
                continue
            if takes is None:
                self._look(worker, again=again)
            elif self._write(worker, takes):
                last = max(last, self.now)
                self.phase.seconds = self.now - begun
                if self._free == 0 and self.phase.idle == 0.0:
                    self.phase.idle = self.now - begun
        held = Counter(observed.lease.owner for observed in self.observed.values())
        self.phase.most, self.phase.least = max(held.values()), min(held[worker] for worker in self.alive)
        return self.phase

    def kill(self, share: float) -> int:
        """Let the last workers, a ``share`` of all, die at once. Returns how many leases they had."""
        gone = set(sorted(self.alive)[len(self.alive) - round(len(self.alive) * share) :])
        self.alive -= gone
        self._died, self._first_look = self.now, {}
        lost = [key for key, observed in self.observed.items() if observed.lease.owner in gone]
        for key in lost:
            self.observed[key] = ObservedLease(self.observed[key].lease, self.now, self.observed[key].since)
        self._free += len(lost)
        return len(lost)

    def _look(self, worker: str, *, again: bool) -> None:
        self.phase.looks += 1
        steal = self.now - self._stole[worker] >= self.settings.steal_every
        if steal:
            self._stole[worker] = self.now
        rules = Rules(self.settings.failover, self.settings.max_leases, STEALS, steal, TENURE * self.settings.failover)
        takes = take_evenly(self.observed, worker, self._clock_of(worker), rules)
        chunks = [takes[at : at + AT_ONCE] for at in range(0, len(takes), AT_ONCE)]
        for at, chunk in enumerate(chunks, 1):
            self._push(self.now + at * WRITE_SECONDS, worker, chunk)
        done = self.now + (len(chunks) + 1) * WRITE_SECONDS
        self._push(done if again else done + self.every, worker)

    def _clock_of(self, worker: str) -> float:
        """The worker's time for rows that stand still, counted from its own first look at them."""
        if self._died is None:
            return self.now
        return self._died + self.now - self._first_look.setdefault(worker, self.now)

    def _write(self, worker: str, takes: list[Take]) -> bool:
        won = 0
        for take in takes:
            known = self.observed[take.lease.key]
            self.phase.writes += 1
            if known.lease is not take.lease:
                self.phase.refused += 1
                continue
            won += 1
            if known.changed == math.inf:
                self.phase.moved += 1
            else:
                self._free -= 1
            taken = replace(take.lease, owner=worker, counter=take.lease.counter + 1)
            self.observed[take.lease.key] = ObservedLease(taken, math.inf, self.now)
        return won > 0

    def _push(self, at: float, worker: str, takes: list[Take] | None = None, *, again: bool = False) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), worker, takes, again))


def simulate(shards: int, workers: int, settings: LeaseSettings, start: float = 60.0, kill: float = 0.1) -> dict[str, Any]:
    """Start-up, then the death of a share of the workers."""
    fleet = Fleet(shards, workers, settings, start)
    started = fleet.settle()
    lost = fleet.kill(kill)
    recovered = fleet.settle()
    return {
        "shards": shards,
        "workers": workers,
        "table_bytes": fleet.size,
        "seconds_between_looks": fleet.every,
        "start": asdict(started),
        "lost": lost,
        "recovery": asdict(recovered),
    }


def formatted(figures: dict[str, Any]) -> str:
    """The figures as rows of a table."""
    size, every = figures["table_bytes"] / 2**20, figures["seconds_between_looks"]
    head = f"{figures['shards']:,} leases, {figures['workers']:,} workers: a table of {size:.1f} MiB, a look every {every:.0f} s"
    about = {
        "idle": "seconds until no lease is free",
        "seconds": "seconds until the last take",
        "looks": "looks until nothing was taken for two rounds",
        "writes": "writes to take leases",
        "refused": "of which refused",
        "moved": "leases taken from live workers",
        "most": "most leases of a worker",
        "least": "fewest leases of a worker",
    }
    start, recovery = figures["start"], figures["recovery"]
    rows = [f"| {words} | {start[name]:,.0f} | {recovery[name]:,.0f} |" for name, words in about.items()]
    return "\n".join([f"{head}; {figures['lost']:,} leases of the workers that die", "", "| | start | recovery |", "|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--failover", type=float, default=10.0)
    parser.add_argument("--start", type=float, default=60.0, help="seconds over which the workers start")
    parser.add_argument("--kill", type=float, default=0.1, help="share of the workers that dies")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    figures = simulate(given.shards, given.workers, LeaseSettings(failover=given.failover), given.start, given.kill)
    print(formatted(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
