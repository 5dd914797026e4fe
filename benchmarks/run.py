"""End to end, side by side in one run: this service (commit log, ledger, lineage on) and the usual aiobotocore loop.

Both read the same records from the same emulator, do the same work, and write Parquet to a directory; their rows are compared before
a figure counts. Reported is CPU time of the whole process, start-up included, as megabytes of payload per CPU second; runs alternate.
Machines differ and are noisy: quote the ratio, not the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from stream.local.aws import Errands
from stream.local.flights import flights_table
from stream.local.start import LocalAws

BENCH, SMALL = "bench", "small"
SMALL_ROWS = 1000
PIPELINE = """
application: bench
source:
  kinesis: {stream: "${STREAM}"}
  schema: {year: int64, month: int64, day: int64, dep_time: int64?, sched_dep_time: int64, dep_delay: int64?, arr_time: int64?,
           sched_arr_time: int64, arr_delay: int64?, carrier: string, flight: int64, tailnum: string?, origin: string, dest: string,
           air_time: int64?, distance: int64, hour: int64, minute: int64, time_hour: timestamp}
stages:
  - filter: dep_time IS NOT NULL
  - derive: {departure_month: "strftime(time_hour, '%Y-%m')", made_up: dep_delay - arr_delay}
sinks: [s3: {url: "file:lake"}]
state: file:state
flush: {age: 5s}
metrics: {port: 0}
"""


def fill(environment: dict[str, str], stream: str, rows: int) -> int:
    """Put ``rows`` flights into ``stream``, plain records; the payload in bytes."""
    import boto3

    client = boto3.client("kinesis", endpoint_url=environment["AWS_ENDPOINT_URL_KINESIS"], region_name="us-east-1")
    lines = flights_table().head(rows).write_ndjson().encode().splitlines()
    for start in range(0, len(lines), 500):
        chunk = lines[start : start + 500]
        client.put_records(StreamName=stream, Records=[{"Data": line, "PartitionKey": str(start + n)} for n, line in enumerate(chunk)])
    client.close()
    return sum(map(len, lines))


def run_service(environment: dict[str, str], stream: str, records: int, folder: Path) -> dict[str, float]:
    (folder / "pipeline.yaml").write_text(PIPELINE)
    command = [sys.executable, "-m", "stream", "run", str(folder / "pipeline.yaml")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, env={**os.environ, **environment, "STREAM": stream}, stderr=subprocess.PIPE) as process:
        done = 0
        assert process.stderr is not None
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "unit_sealed":
                done += sum(event["outcomes"].values())
            if done >= records:
                break
        process.send_signal(signal.SIGTERM)
        threading.Thread(target=process.stderr.read).start()
        process.wait()
    return _used(before)


def run_peer(environment: dict[str, str], stream: str, _: int, folder: Path) -> dict[str, float]:
    (folder / "lake").mkdir()
    peer = Path(__file__).with_name("peer_aiobotocore.py")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = [environment["AWS_ENDPOINT_URL_KINESIS"], stream, str(folder / "lake")]
    subprocess.run([sys.executable, str(peer), *arguments], env={**os.environ, **environment}, check=True)
    return _used(before)


def _used(before: resource.struct_rusage) -> dict[str, float]:
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def rows_of(folder: Path) -> str:
    files = f"read_parquet('{folder}/lake/**/*.parquet', hive_partitioning = false)"
    count, checksum = duckdb.sql(f"SELECT count(*), bit_xor(hash(rows)) FROM (SELECT {columns(files)} FROM {files}) AS rows").fetchall()[0]  # noqa: S608
    return f"{count} rows, {checksum}"


def columns(files: str) -> str:
    names = [row[0] for row in duckdb.sql(f"DESCRIBE SELECT * FROM {files}").fetchall()]  # noqa: S608
    return ", ".join(sorted(f'CAST("{name}" AS VARCHAR) AS "{name}"' for name in names if not name.startswith("_")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=336_776)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    duckdb.sql("SET TimeZone = 'UTC'")
    figures: dict[str, list[float]] = {"stream": [], "aiobotocore loop": []}
    with LocalAws() as aws, tempfile.TemporaryDirectory() as scratch:
        environment = aws.environment()
        os.environ.update(environment)
        with Errands(environment) as errands:
            for stream in (BENCH, SMALL):
                errands.create_stream(stream, 4)
        payload = fill(environment, BENCH, options.rows) / 1e6
        fill(environment, SMALL, SMALL_ROWS)
        for number in range(options.runs):
            results = {}
            for name, run in (("stream", run_service), ("aiobotocore loop", run_peer)):
                folders = [Path(scratch, f"{number}-{name.split()[0]}-{stream}") for stream in (BENCH, SMALL)]
                for folder in folders:
                    folder.mkdir()
                whole = run(environment, BENCH, options.rows, folders[0])["cpu"]
                start_up = run(environment, SMALL, SMALL_ROWS, folders[1])["cpu"]
                figures[name].append(payload / (whole - start_up))
                results[name] = rows_of(folders[0])
            if len(set(results.values())) != 1:
                print(f"the outputs differ, so no figure counts: {results}")
                return 1
    return report(figures, payload, results["stream"], options)


def report(figures: dict[str, list[float]], payload: float, output: str, options: argparse.Namespace) -> int:
    print(f"{options.rows:,} records, {payload:.0f} MB of payload, {options.runs} alternating runs; same output: {output}")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    base = median(figures["aiobotocore loop"])
    summary: dict[str, Any] = {}
    for name, values in figures.items():
        middle = median(values)
        print(f"{name:18} {middle:7.1f} MB/CPU-s  [{min(values):.1f} .. {max(values):.1f}]   {middle / base:5.2f}x")
        summary[name] = {"median": middle, "runs": values, "ratio": middle / base}
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
