"""From arrival to sealed at a fixed rate: ``python benchmarks/latency.py [--rate 1000] [--shards 4] [--seconds 60] [--age 5]``.

On the replay server, ``--rate`` records a second arrive on each shard, with their real time of arrival. The worker's log gives, for each
unit, the age of its oldest and newest record when it is sealed; at a steady rate, the other records are spread evenly between them.
Percentiles are of records. The last unit of each shard, which the end of the records cuts short, does not count.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from common import cpu_seconds, keep, parser, replay
from contestants import PIPELINE, ROWS_A_UNIT, environment
from replay import BENCH
from shapes import SHAPES


def ages(units: list[dict[str, Any]]) -> Any:
    """Seconds from arrival to seal of every record of ``units``."""
    return np.concatenate([np.linspace(unit["newest_age"], unit["oldest_age"], sum(unit["outcomes"].values())) for unit in units])


def run(url: str, folder: Path, records: int, shape: str, age: str) -> tuple[list[dict[str, Any]], float]:
    """The sealed units of one worker, less the last of each shard; and its CPU seconds."""
    job = SHAPES[shape]
    text = PIPELINE.format(stream=BENCH, schema=job.schema, stages=job.stages, budget="256MiB", age=age, rows=ROWS_A_UNIT)
    (folder / "pipeline.yaml").write_text(text)
    command = [sys.executable, "-m", "stream", "run", str(folder / "pipeline.yaml")]
    units: dict[str, list[dict[str, Any]]] = defaultdict(list)
    done = 0
    with subprocess.Popen(command, env=environment(url), stderr=subprocess.PIPE) as worker:
        assert worker.stderr is not None
        for line in worker.stderr:
            event = json.loads(line)
            if event["event"] == "unit_sealed":
                units[event["shard"]].append(event)
                done += sum(event["outcomes"].values())
            if done >= records:
                break
        used = cpu_seconds(worker.pid)
        worker.send_signal(signal.SIGTERM)
        worker.stderr.read()
    return [unit for sealed in units.values() for unit in sealed[:-1]], used


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--shape", choices=sorted(SHAPES), default="click")
    options.add_argument("--rate", type=float, default=1000.0, help="records a second on each shard")
    options.add_argument("--shards", type=int, default=4)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--age", type=int, default=5, help="flush after so many seconds")
    given = options.parse_args()
    records = int(given.rate * given.seconds)
    found = []
    for _ in range(given.runs):
        with replay(SHAPES[given.shape], records, given.shards, given.rate) as server, tempfile.TemporaryDirectory() as folder:
            units, used = run(server["url"], Path(folder), records * given.shards, given.shape, f"{given.age}s")
        middle, high, most = (float(each) for each in np.percentile(ages(units), (50, 99, 100)))
        found.append({"p50": middle, "p99": high, "max": most, "units": len(units), "cpu_seconds": used})
        print(f"{given.rate * given.shards:,.0f} records/s on {given.shards} shards, flush {given.age} s, {len(units)} units: "
              f"p50 {middle:.2f} s, p99 {high:.2f} s, most {most:.2f} s; {used / given.seconds:.1%} of a core", flush=True)  # fmt: skip
    keep(given.json, rate=given.rate, shards=given.shards, flush_seconds=given.age, runs=found)


if __name__ == "__main__":
    main()
