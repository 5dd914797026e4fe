"""End-to-end comparison of this service (commit log, ledger and lineage on) with consumers of the usual kinds.

``python benchmarks/run.py [--shapes click,order] [--records 200000] [--shards 4] [--runs 5] [--quick] [--json FILE] [--svg FILE]``

All read the same records from a replay server in a process of its own, do the same work and write Parquet to a directory; figures are only
printed if all rows of their outputs are equal. A figure is megabytes of payload per second of CPU time, user and system, of the whole
process, less what the same process takes for a stream of a few hundred records, so start-up is not compared. Runs alternate, so that
a slow minute affects all; the result is the median, and the spread is shown. Machines differ: quote ratios.

A process that fills its heap for the first time takes a page fault for every 4 KiB. With 50,000 records per shard that is a large part of a
run; 200,000, the default, show the steady state. ``--quick`` takes 20,000 and one run, and only shows that everything works.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

import duckdb
from chart import bars
from common import keep, machine, replay
from contestants import CONTESTANTS, LOCKS, WHOLE_CONSUMERS, Job, Used, interpreter
from replay import BENCH, SMALL, SMALL_RECORDS
from shapes import SHAPES, Shape

BASE: Final = "aiobotocore loop"
WHOLE_CONSUMERS_READ: Final = "click"
RUNS_OF_WHOLE_CONSUMERS: Final = 3
QUICK_RECORDS: Final = 20_000


def rows_of(folder: Path) -> str:
    """The number of rows of an output, and a checksum of them that does not depend on their order."""
    files = f"read_parquet('{folder}/lake/**/*.parquet', hive_partitioning = false)"
    query = f"SELECT count(*), sum(hash(rows)::HUGEINT) FROM (SELECT {_columns(files)} FROM {files}) AS rows"  # noqa: S608
    count, checksum = duckdb.sql(query).fetchall()[0]
    return f"{count:,} rows, checksum {checksum}"


def _columns(files: str) -> str:
    names = [row[0] for row in duckdb.sql(f"DESCRIBE SELECT * FROM {files}").fetchall()]  # noqa: S608
    return ", ".join(sorted(f'CAST("{name}" AS VARCHAR) AS "{name}"' for name in names if not name.startswith("_")))


def compete(shape: Shape, options: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """One table: every contestant, ``options.runs`` times in turn."""
    runs: dict[str, list[tuple[Used, Used]]] = {name: [] for name in names}
    outputs: dict[str, str] = {}
    with replay(shape, options.records, options.shards) as server, tempfile.TemporaryDirectory() as scratch:
        for number in range(options.runs):
            for name in names:
                if name in WHOLE_CONSUMERS and number >= RUNS_OF_WHOLE_CONSUMERS:
                    continue
                used = []
                for stream, records in ((BENCH, options.records), (SMALL, SMALL_RECORDS)):
                    folder = Path(scratch, f"{number}-{names.index(name)}-{stream}")
                    folder.mkdir()
                    used.append(CONTESTANTS[name](Job(shape, server["url"], stream, records * options.shards, folder)))
                    if stream == BENCH:
                        outputs[name] = rows_of(folder)
                runs[name].append((used[0], used[1]))
            if len(set(outputs.values())) != 1:
                sys.exit(f"{shape.name}: the outputs differ, so no figure counts: {json.dumps(outputs, indent=2)}")
    return report(shape, options, runs, server["payload"] * options.shards, outputs[names[0]])


def report(
    shape: Shape, options: argparse.Namespace, runs: dict[str, list[tuple[Used, Used]]], payload: int, output: str
) -> dict[str, Any]:
    records = options.records * options.shards
    print(f"\n{shape.name}: {records:,} records of {payload / records:.0f} B on {options.shards} shards; same output from all: {output}")
    print(f"  {'':22}{'MB/CPU-s':>10}{'spread':>18}{'records/CPU-s':>15}{'MB/s':>8}{'RSS MiB':>9}{'start-up s':>11}{'ratio':>8}")
    speeds = {name: [payload / 1e6 / (whole.cpu - small.cpu) for whole, small in pairs] for name, pairs in runs.items()}
    base = median(speeds[BASE]) if BASE in speeds else float("nan")
    table: dict[str, Any] = {}
    for name, pairs in runs.items():
        middle = median(speeds[name])
        rate = payload / 1e6 / median(whole.wall - small.wall for whole, small in pairs)
        row = {
            "mb_per_cpu_second": speeds[name],
            "median": middle,
            "ratio": middle / base,
            "records_per_cpu_second": middle * 1e6 / (payload / records),
            "mb_per_second": rate,
            "peak_rss_mib": median(whole.rss for whole, _ in pairs),
            "start_up_cpu_seconds": median(small.cpu for _, small in pairs),
        }
        spread = f"[{min(speeds[name]):.1f} .. {max(speeds[name]):.1f}]"
        print(f"  {name:22}{middle:10.1f}{spread:>18}{row['records_per_cpu_second']:15,.0f}{rate:8.0f}{row['peak_rss_mib']:9.0f}"
              f"{row['start_up_cpu_seconds']:11.2f}{row['ratio']:7.2f}x")  # fmt: skip
        table[name] = row
    return {"records": records, "payload_bytes": payload, "shards": options.shards, "output": output, "contestants": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="click,order,flights,dirty")
    parser.add_argument("--records", type=int, default=200_000, help="on each shard")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_RECORDS:,} records a shard, one run, loops only")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants, separated by commas")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    duckdb.sql("SET TimeZone = 'UTC'")
    names = options.only.split(",")
    if options.quick:
        options.records, options.runs = min(options.records, QUICK_RECORDS), 1
        names = [name for name in names if name not in WHOLE_CONSUMERS]
    for lock in LOCKS if len(names) > 1 else ():
        interpreter(lock)
    where = machine()
    print(f"{where['cpu']}, {where['cores']} cores, {where['platform']}, Python {where['python']}; {options.runs} alternating runs")
    tables = {}
    for shape in options.shapes.split(","):
        here = [name for name in names if shape == WHOLE_CONSUMERS_READ or name not in WHOLE_CONSUMERS]
        tables[shape] = compete(SHAPES[shape], options, here)
        keep(options.json, before=where, shapes=tables)
    if options.svg:
        options.svg.write_text(bars(tables))


if __name__ == "__main__":
    main()
