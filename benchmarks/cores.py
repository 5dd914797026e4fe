"""Two busy cores against one: ``python benchmarks/cores.py [--records 100000] [--shards 16] [--runs 3]``; needs two processors.

The worker is pinned to one processor, or to two, and is given as many threads. Wall time counts, from start to last seal, less that of a
small stream; it runs with ``--once``, so that the last units do not wait for their age. The replay server has the second processor for
itself while the worker has one, and shares it while the worker has two. Its own CPU time, which is shown as a share of one processor, is
then missing to the worker: the ratio is a little less than the worker's.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from common import cpu_seconds, keep, parser, pinned, replay, spread
from contestants import Job, Used, service
from replay import BENCH, SMALL, SMALL_RECORDS
from shapes import SHAPES


def run(job: Job, processors: list[int]) -> Used:
    job.folder.mkdir()
    with pinned(set(processors)):
        return service(job, options=("--once", "--threads", str(len(processors))))


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
    rates: dict[int, list[float]] = {1: [], 2: []}
    shares: dict[int, list[float]] = {1: [], 2: []}
    with pinned({second}), replay(shape, given.records, given.shards) as server, tempfile.TemporaryDirectory() as scratch:
        for number in range(given.runs):
            for count, processors in ((1, [first]), (2, [first, second])):
                where = Path(scratch, f"{number}-{count}")
                served = cpu_seconds(server["pid"])
                whole = run(Job(shape, server["url"], BENCH, total, where), processors)
                shares[count].append((cpu_seconds(server["pid"]) - served) / whole.wall)
                small = run(Job(shape, server["url"], SMALL, SMALL_RECORDS * given.shards, where.with_suffix(".small")), processors)
                if whole.wall <= small.wall:
                    sys.exit(f"{total:,} records are too few: start-up took longer than all of the run; give more --records")
                rates[count].append(total / (whole.wall - small.wall))
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    for count, measured in rates.items():
        print(f"{count} processor(s): {spread(measured, 0)} records/s; replay server {median(shares[count]):.0%} of one processor")
    print(f"two against one: {spread(ratios, 2)}")
    keep(given.json, records=total, records_per_second=rates, server_share=shares, ratio=ratios)


if __name__ == "__main__":
    main()
