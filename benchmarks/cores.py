"""Two busy cores compared with one: ``python benchmarks/cores.py [--records 100000] [--shards 16] [--runs 3]``; needs two processors.

Three setups: a worker of one thread on one processor; a worker of two threads on two; and two workers of one thread, each on a processor of
its own, which together read everything twice and share nothing. The last is the best that the machine can give, because processors share
caches and memory. The replay server always runs on the worker's processors, so that no setup is helped by a processor that it does not
count; its CPU time is shown as a share of one processor.

The figures are wall time from start to last seal, less that of a small stream. Workers run with ``--once``, so that the last units do not
wait for their age.
"""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

from common import cpu_seconds, keep, parser, pinned, replay, spread
from contestants import Job, service
from replay import BENCH, SMALL, SMALL_RECORDS
from shapes import SHAPES

ONE: Final = "one thread, one processor"
TWO: Final = "two threads, two processors"
APART: Final = "two workers of one thread"


def seconds(job: Job, ways: list[set[int]]) -> float:
    """Wall seconds until all workers, each with as many threads as processors, have read the whole stream."""

    def work(number: int) -> float:
        own = replace(job, folder=job.folder.with_name(f"{job.folder.name}-{number}"))
        own.folder.mkdir()
        with pinned(ways[number]):  # affinity belongs to the calling thread, and processes that it starts inherit it
            return service(own, options=("--once", "--threads", str(len(ways[number])))).wall

    with ThreadPoolExecutor(len(ways)) as pool:
        return max(pool.map(work, range(len(ways))))


def confine(process: int, processors: set[int]) -> None:
    """Let all threads of ``process`` run on ``processors`` only."""
    for thread in Path("/proc", str(process), "task").iterdir():
        os.sched_setaffinity(int(thread.name), processors)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--shape", choices=sorted(SHAPES), default="click")
    options.add_argument("--records", type=int, default=100_000, help="on each shard")
    options.add_argument("--shards", type=int, default=16)
    given = options.parse_args()
    first, second = (*sorted(os.sched_getaffinity(0))[:2], -1)[:2]
    if second < 0:
        sys.exit("two processors are needed, and this process may use one")
    shape, total = SHAPES[given.shape], given.records * given.shards
    ways = {ONE: [{first}], TWO: [{first, second}], APART: [{first}, {second}]}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    shares: dict[str, list[float]] = {way: [] for way in ways}
    with replay(shape, given.records, given.shards) as server, tempfile.TemporaryDirectory() as scratch:
        for number in range(given.runs):
            for way, workers in ways.items():
                confine(server["pid"], set().union(*workers))
                where = Path(scratch, f"{number}-{way}")
                served = cpu_seconds(server["pid"])
                whole = seconds(Job(shape, server["url"], BENCH, total, where), workers)
                shares[way].append((cpu_seconds(server["pid"]) - served) / whole)
                small = Job(shape, server["url"], SMALL, SMALL_RECORDS * given.shards, where.with_suffix(".small"))
                if (took := whole - seconds(small, workers)) <= 0:
                    sys.exit(f"{total:,} records are too few: start-up took longer than all of the run; give more --records")
                rates[way].append(len(workers) * total / took)
    for way, measured in rates.items():
        print(f"{way}: {spread(measured, 0)} records/s; replay server {median(shares[way]):.0%} of one processor")
    ratios = {way: [many / one for one, many in zip(rates[ONE], rates[way], strict=True)] for way in (TWO, APART)}
    for way, found in ratios.items():
        print(f"{way}, against one: {spread(found, 2)}")
    keep(given.json, records=total, records_per_second=rates, server_share=shares, ratios=ratios)


if __name__ == "__main__":
    main()
