"""Throughput and peak memory by number of shards: ``python benchmarks/shards.py [--shards 1,4,64,256] [--records 800000] [--runs 3]``.

The records are spread over the shards, at least 2,500 on each. A worker polls a shard at most 4.5 times a second, for at most 10,000
records, so one shard gives at most 45,000 records a second: if that was reached, ``limit`` says calls, otherwise CPU.
Start-up, measured with a stream of 200 records per shard, is subtracted from CPU and wall time. The worker runs with ``--once``, so that
the last units do not wait for their age.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

from common import keep, parser, replay, spread
from contestants import Job, service
from replay import BENCH, PAGE_RECORDS, SMALL, SMALL_RECORDS
from shapes import SHAPES, Shape

CALLS_A_SECOND: Final = 4.5
"""``ReadSettings.calls_per_second`` of the service."""
NEAR: Final = 0.8
"""Share of the maximum above which calls count as the limit."""


def measure(shape: Shape, shards: int, records: int, runs: int, budget: str) -> dict[str, Any]:
    """One line: every figure as a list of runs."""
    each = max(PAGE_RECORDS // 4, records // shards)
    speeds, rates, peaks, wall = [], [], [], []
    with replay(shape, each, shards) as server, tempfile.TemporaryDirectory() as scratch:
        megabytes = server["payload"] * shards / 1e6
        for number in range(runs):
            used = []
            for stream, count in ((BENCH, each), (SMALL, SMALL_RECORDS)):
                folder = Path(scratch, f"{number}-{stream}")
                folder.mkdir()
                used.append(service(Job(shape, server["url"], stream, count * shards, folder), budget=budget, options=("--once",)))
            whole, small = used
            speeds.append(megabytes / (whole.cpu - small.cpu))
            wall.append(whole.wall - small.wall)
            rates.append(each * shards / wall[-1])
            peaks.append(whole.rss)
    calls = median(rates) > NEAR * CALLS_A_SECOND * PAGE_RECORDS * shards
    return {"shards": shards, "records": each * shards, "mb_per_cpu_second": speeds, "records_per_second": rates,
            "peak_rss_mib": peaks, "limit": "calls" if calls else "CPU"}  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--shape", choices=sorted(SHAPES), default="click")
    options.add_argument("--shards", default="1,4,64,256")
    options.add_argument("--records", type=int, default=800_000, help="of all shards together")
    options.add_argument("--budget", default="256MiB")
    given = options.parse_args()
    lines = []
    print("| shards | records | MB per CPU second | records a second | peak RSS MiB | limit |\n|---|---|---|---|---|---|")
    for shards in map(int, given.shards.split(",")):
        line = measure(SHAPES[given.shape], shards, given.records, given.runs, given.budget)
        lines.append(line)
        reported = (spread(line["mb_per_cpu_second"]), spread(line["records_per_second"], 0), spread(line["peak_rss_mib"], 0))
        print(f"| {shards} | {line['records']:,} | {' | '.join(reported)} | {line['limit']} |", flush=True)
    keep(given.json, shape=given.shape, budget=given.budget, shards=lines)


if __name__ == "__main__":
    main()
